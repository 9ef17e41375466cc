//! Places where a rule is broken on purpose, each with its reason.

use super::Finding;

/// A place that may break one rule.
struct Exception {
    rule: &'static str,
    path: &'static str,
    /// Why this is better than keeping the rule. For the reader; not printed.
    #[allow(dead_code, reason = "written for those who read this list")]
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        rule: "machine-path",
        path: "detector/src/agent/locate/runtime/tests.rs",
        reason: "podman without root keeps its files in the home directory",
    },
    Exception { rule: "machine-path", path: "xtask/src/tidy/machine.rs", reason: "the rule's own list and tests" },
];

/// Takes out what is excused, and tells which exceptions excuse nothing.
pub(super) fn apply(findings: Vec<Finding>) -> (Vec<Finding>, Vec<String>) {
    apply_list(EXCEPTIONS, findings)
}

fn apply_list(exceptions: &[Exception], findings: Vec<Finding>) -> (Vec<Finding>, Vec<String>) {
    let excuses =
        |exception: &Exception, finding: &Finding| exception.rule == finding.rule && exception.path == finding.path;
    let unused = exceptions
        .iter()
        .filter(|exception| !findings.iter().any(|finding| excuses(exception, finding)))
        .map(|Exception { rule, path, .. }| {
            format!(
                "xtask/src/tidy/exception.rs: {path} keeps the rule {rule}, its exception can go [unused-exception]"
            )
        })
        .collect();
    let rest = findings.into_iter().filter(|finding| !exceptions.iter().any(|exception| excuses(exception, finding)));
    (rest.collect(), unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[Exception] = &[Exception { rule: "file-lines", path: "a.rs", reason: "a table" }];

    #[test]
    fn an_exception_excuses_its_rule_at_its_place_only() {
        let findings = ["file-lines", "header"].map(|rule| Finding::new(rule, "a.rs", 0, "x"));
        let (rest, unused) = apply_list(ONE, findings.into());
        assert_eq!(rest, [Finding::new("header", "a.rs", 0, "x")]);
        assert!(unused.is_empty());
    }

    #[test]
    fn an_exception_that_excuses_nothing_is_told() {
        let (_, unused) = apply_list(ONE, Vec::new());
        assert!(unused[0].contains("a.rs keeps the rule file-lines"), "{unused:?}");
    }
}
