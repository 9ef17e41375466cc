//! Nothing in the tree depends on where it was written.

use super::Finding;

/// Beginnings of paths that exist on a developer's machine only.
const PATHS: &[&str] = &["/home/", "/root/", "/Users/"];

pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for start in PATHS.iter().filter(|start| begins_a_path(line, start)) {
            let message = format_args!("`{start}` is a path of one machine");
            findings.push(Finding::new("machine-path", path, index + 1, message));
        }
    }
    findings
}

/// `x/root/` is a relative path and none of ours.
fn begins_a_path(line: &str, start: &str) -> bool {
    let before = |at: usize| line[..at].chars().next_back();
    line.match_indices(start).any(|(at, _)| !before(at).is_some_and(|c| c.is_alphanumeric() || "._-}*".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_one_machine_is_found() {
        assert_eq!(check("a.md", "see\n`/home/me/x`")[0].line, 2);
        assert_eq!(check("a.sh", "cd /root/x").len(), 1);
        assert_eq!(check("a.sh", "cd sub/root/x").len(), 0);
    }
}
