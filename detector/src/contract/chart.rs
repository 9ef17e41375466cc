//! What the Helm chart must know of the agent, as a template that `cargo xtask gen` writes: the lists that its admission
//! policies hold a token to, and the settings for which pods have to be replaced.

use std::fmt::Write as _;

use super::{
    event::{REPORTING_CONTROLLER, Reason},
    problem::{RETIRED, condition_types},
};
use crate::config::{Applies, agent::AGENT};

/// The template `deploy/chart/templates/_contract.tpl`. Lists are words with a blank between them.
#[must_use]
pub fn template() -> String {
    let reasons = Reason::ALL.map(Reason::name);
    let at_restart = AGENT.keys.iter().filter(|key| key.applies == Applies::AtRestart).map(|key| key.path);
    let lists: [(&str, &str, Vec<&str>); 5] = [
        ("conditions", "Types of the Node conditions that the agent writes.", condition_types()),
        ("retired-conditions", "Types that earlier versions wrote; the agent may still remove them.", RETIRED.to_vec()),
        ("event-reasons", "Reasons of the events that it writes.", reasons.to_vec()),
        ("reporting-controller", "Who these events say that they come from.", vec![REPORTING_CONTROLLER]),
        ("at-restart", "Keys of its file whose change applies at restart.", at_restart.collect()),
    ];
    let mut text = String::from("{{/* What the chart must know of the agent. Made by `cargo xtask gen`. */}}\n");
    for (name, meaning, words) in lists {
        let words = words.join(" ");
        // Writing to a `String` cannot fail.
        write!(text, "\n{{{{/* {meaning} */}}}}\n{{{{- define \"detector.{name}\" -}}}}\n").ok();
        write!(text, "{words}\n{{{{- end -}}}}\n").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_is_a_template_of_its_own() {
        let text = template();
        let conditions = "{{- define \"detector.conditions\" -}}\nKernelDeadlock TaskHung\n{{- end -}}\n";
        assert!(text.contains(conditions), "{text}");
        assert!(text.contains("{{- define \"detector.retired-conditions\" -}}\n\n{{- end -}}\n"), "{text}");
        assert!(text.contains("\ndetector.dev/agent\n"), "{text}");
    }

    #[test]
    fn a_setting_that_applies_at_once_replaces_no_pods() {
        let text = template();
        assert!(text.contains("conditions.enabled") && text.contains("metrics.series"), "{text}");
        assert!(!text.contains("log.level") && !text.contains("heartbeat"), "{text}");
    }
}
