//! The subject of the last commit: `area: what changes for whom`.

use super::Finding;

const RULE: &str = "commit-subject";

/// Longest subject in characters, so that `git log --oneline` shows it whole.
const SUBJECT_CHARACTERS: usize = 72;

pub(super) fn check(subject: &str) -> Option<Finding> {
    let found = |message: &str| Some(Finding::new(RULE, "last commit", 0, format_args!("{message}: `{subject}`")));
    if subject.starts_with("Merge ") {
        return None;
    }
    if subject.chars().count() > SUBJECT_CHARACTERS {
        return found("the subject is longer than 72 characters");
    }
    let is_area = |area: &str| {
        !area.is_empty() && area.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_/,. ".contains(c))
    };
    match subject.split_once(": ") {
        Some((area, what)) if is_area(area) && !what.trim().is_empty() => None,
        _ => found("the subject does not have the form `area: what changes`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_without_area_is_found() {
        for subject in ["fix things", "Fix: things", "xtask:no space", ": nothing"] {
            assert!(check(subject).is_some(), "{subject}");
        }
    }

    #[test]
    fn a_long_subject_is_found() {
        assert!(check(&format!("xtask: {}", "x".repeat(65))).is_none());
        assert!(check(&format!("xtask: {}", "x".repeat(66))).is_some());
    }

    #[test]
    fn a_merge_has_a_subject_of_its_own_kind() {
        assert_eq!(check("Merge branch 'x'"), None);
        assert_eq!(check("agent/source: read rings without polling"), None);
    }
}
