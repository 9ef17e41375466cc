//! Every package inherits the workspace's lints. A lint that a package does not inherit is not switched on.

mod dependency;

pub(super) use self::dependency::check as check_dependencies;
use super::Finding;

const RULE: &str = "lints";

pub(super) fn check(path: &str, text: &str) -> Option<Finding> {
    let is_package = text.lines().any(|line| line.trim() == "[package]");
    let message = "the package lacks `[lints]` with `workspace = true`";
    (is_package && !inherits(text)).then(|| Finding::new(RULE, path, 0, message))
}

fn inherits(text: &str) -> bool {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().replace(' ', ""));
    let mut section = String::new();
    for line in lines {
        if line.starts_with('[') {
            section = line;
        } else if (section == "[lints]" && line == "workspace=true") || line == "lints.workspace=true" {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_the_workspace_lints_is_found() {
        assert!(check("a/Cargo.toml", "[package]\nname = \"a\"\n").is_some());
        assert!(check("a/Cargo.toml", "[package]\n[lints]\n[dependencies]\nworkspace = true\n").is_some());
    }

    #[test]
    fn a_package_with_them_holds_and_so_does_the_workspace_itself() {
        assert_eq!(check("a/Cargo.toml", "[package]\n\n[lints]\nworkspace = true\n"), None);
        assert_eq!(check("Cargo.toml", "[workspace]\n"), None);
    }
}
