//! What the Helm chart must know of the programs, as a template that `cargo xtask gen` writes: the names and lists that its
//! admission policies hold a token to, and the settings for which pods have to be replaced.

use std::fmt::Write as _;

use super::{
    event::{self, Reason, controller::ControllerReason},
    netconsole, problem, remediation,
};
use crate::config::{
    Applies,
    agent::AGENT,
    controller::CONTROLLER,
    table::{Key, Table},
};

/// The template `deploy/chart/templates/_contract.tpl`. Lists are words with a blank between them.
#[must_use]
pub fn template() -> String {
    let mut text = String::from("{{/* What the chart must know of the programs. Made by `cargo xtask gen`. */}}\n");
    for (name, meaning, words) in of_agent().into_iter().chain(of_controller()).chain(of_netconsole()) {
        let words = words.join(" ");
        // Writing to a `String` cannot fail.
        write!(text, "\n{{{{/* {meaning} */}}}}\n{{{{- define \"detector.{name}\" -}}}}\n").ok();
        write!(text, "{words}\n{{{{- end -}}}}\n").ok();
    }
    text
}

/// Name of a list, what it is, its words.
type List = (&'static str, &'static str, Vec<&'static str>);

fn of_agent() -> [List; 5] {
    [
        ("conditions", "Types of the Node conditions that the agent writes.", problem::condition_types()),
        (
            "retired-conditions",
            "Types that earlier versions wrote; the agent may still remove them.",
            problem::RETIRED.to_vec(),
        ),
        ("event-reasons", "Reasons of the events that it writes.", Reason::ALL.map(Reason::name).to_vec()),
        ("reporting-controller", "Who these events say that they come from.", vec![event::REPORTING_CONTROLLER]),
        ("at-restart", "Keys of its file whose change applies at restart.", at_restart(&AGENT)),
    ]
}

fn of_controller() -> [List; 12] {
    use remediation as names;
    let reasons = ControllerReason::all().map(ControllerReason::name).collect();
    let pods = vec![names::REASON_ANNOTATION, names::INCIDENT_ANNOTATION];
    let nodes = vec![names::REASON_ANNOTATION, names::INCIDENT_ANNOTATION, names::CORDON_ANNOTATION];
    [
        ("controller.event-reasons", "Reasons of the events that the controller writes.", reasons),
        ("controller.reporting-controller", "Who these say that they come from.", vec![names::REPORTING_CONTROLLER]),
        ("controller.pod-annotations", "Annotations that it writes on pods, besides those of the settings.", pods),
        ("controller.node-annotations", "The same on Nodes.", nodes),
        (
            "controller.pod-conditions",
            "Types of the pod conditions that it writes.",
            vec![names::POD_CONDITION, names::DISRUPTION_TARGET],
        ),
        ("controller.taint", "Key of the taint that it sets.", vec![names::OUT_OF_SERVICE]),
        ("controller.taint-value", "Value of that taint.", vec![names::OUT_OF_SERVICE_VALUE]),
        ("controller.lost-reason", "Reason of conditions that it set to Unknown.", vec![problem::NODE_LOST]),
        ("controller.opt-out", "Label that keeps it from Nodes and namespaces.", vec![names::OPT_OUT]),
        ("controller.brake", "Name of the ConfigMap that holds the brake.", vec![names::BRAKE_NAME]),
        ("controller.lease", "Name of the leader's Lease.", vec![names::LEADER_LEASE]),
        ("controller.at-restart", "Keys of its file whose change applies at restart.", at_restart(&CONTROLLER)),
    ]
}

fn of_netconsole() -> [List; 2] {
    [
        (
            "netconsole.annotation",
            "Annotation of the Node that `detector netconsole` writes.",
            vec![netconsole::NODE_ANNOTATION],
        ),
        ("netconsole.port-name", "Name of the receivers' port.", vec![netconsole::RECEIVER_PORT_NAME]),
    ]
}

fn at_restart<C: 'static>(table: &Table<C>) -> Vec<&'static str> {
    let waits = |key: &&Key<C>| key.applies == Applies::AtRestart;
    table.keys.iter().filter(waits).map(|key| key.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_is_a_template_of_its_own() {
        let text = template();
        let conditions =
            "{{- define \"detector.conditions\" -}}\nKernelDeadlock TaskHung PreviousBootCrash\n{{- end -}}\n";
        assert!(text.contains(conditions), "{text}");
        assert!(text.contains("{{- define \"detector.retired-conditions\" -}}\n\n{{- end -}}\n"), "{text}");
        assert!(text.contains("\ndetector.dev/agent\n"), "{text}");
    }

    #[test]
    fn the_policies_learn_what_the_controller_writes() {
        let text = template();
        let taint = "{{- define \"detector.controller.taint\" -}}\nnode.kubernetes.io/out-of-service\n{{- end -}}\n";
        assert!(text.contains(taint), "{text}");
        assert!(text.contains("detector.dev/termination-reason detector.dev/incident\n"), "{text}");
        assert!(text.contains("NodeCordoned KernelCrash "), "{text}");
    }

    #[test]
    fn a_setting_that_applies_at_once_replaces_no_pods() {
        let text = template();
        assert!(text.contains("conditions.enabled") && text.contains("metrics.series"), "{text}");
        assert!(!text.contains("log.level") && !text.contains("heartbeat") && !text.contains("policy."), "{text}");
    }
}
