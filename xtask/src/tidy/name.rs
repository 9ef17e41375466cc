//! No file and no folder is named after nothing.

use std::collections::BTreeSet;

use super::Finding;

const RULE: &str = "name";

const FORBIDDEN: &[&str] =
    &["util", "utils", "utility", "utilities", "helper", "helpers", "misc", "common", "commons", "stuff"];

/// The package of what kernel side and user side have in common: there the word is the meaning.
const ALLOWED: &str = "detector-common";

pub(super) fn check(paths: &[&str]) -> Vec<Finding> {
    let bad: BTreeSet<&str> = paths.iter().filter_map(|path| first_bad_part(path)).collect();
    let message = "the name says what it is like, not what it is for";
    bad.into_iter().map(|path| Finding::new(RULE, path, 0, message)).collect()
}

/// The path up to the first part with a forbidden word, so that a folder is told once.
fn first_bad_part(path: &str) -> Option<&str> {
    let mut end = 0;
    for part in path.split('/') {
        let word = |word: &str| FORBIDDEN.contains(&word.to_lowercase().as_str());
        end += part.len();
        if part != ALLOWED && part.split(|c: char| !c.is_alphanumeric()).any(word) {
            return Some(&path[..end]);
        }
        end += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bag_is_found_as_file_or_folder_and_told_once() {
        let paths = ["a/src/string_utils.rs", "a/tests/common/mod.rs", "a/tests/common/x.rs", "a/Helper.rs"];
        let found: Vec<_> = check(&paths).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["a/Helper.rs", "a/src/string_utils.rs", "a/tests/common"]);
    }

    #[test]
    fn the_contract_between_both_sides_may_be_called_common() {
        assert!(check(&["detector-common/src/oom.rs", "a/utilisation.rs"]).is_empty());
        assert_eq!(check(&["detector-common/src/common.rs"]).len(), 1);
    }
}
