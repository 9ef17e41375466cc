//! The first line of a file says what the file is for.

use std::path::Path;

use super::Finding;

const RULE: &str = "header";

/// Words that say nothing about a file.
const FILLERS: &[&str] =
    &["a", "an", "the", "of", "for", "and", "this", "file", "module", "mod", "code", "implementation", "all"];

pub(super) fn check(path: &str, text: &str) -> Option<Finding> {
    let Some(header) = text.lines().next().and_then(|line| line.strip_prefix("//!")) else {
        return Some(Finding::new(
            RULE,
            path,
            1,
            "the first line is not a `//!` header that says what the file is for",
        ));
    };
    let header = header.trim().to_lowercase();
    if header == "to be written." || header.is_empty() {
        return Some(Finding::new(RULE, path, 1, "the header does not say what the file is for"));
    }
    let names: Vec<String> = Path::new(path).iter().flat_map(|part| words(&part.to_string_lossy())).collect();
    let news = words(&header).into_iter().filter(|word| !FILLERS.contains(&word.as_str()) && !is_said(word, &names));
    if news.count() == 0 {
        return Some(Finding::new(RULE, path, 1, "the header only repeats the file's name"));
    }
    None
}

/// Plural and singular are one word.
fn is_said(word: &str, names: &[String]) -> bool {
    let stem = |word: &str| word.strip_suffix('s').unwrap_or(word).to_owned();
    names.iter().any(|name| stem(name) == stem(word))
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_header_is_found() {
        assert!(check("a/ring.rs", "use std::fs;\n//! Late.\n").is_some());
        assert!(check("a/ring.rs", "").is_some());
    }

    #[test]
    fn a_header_that_repeats_the_name_is_found() {
        for header in ["//! Ring.", "//! The ring module.", "//! Source: rings", "//! To be written.", "//!"] {
            assert!(check("agent/source/ring.rs", header).is_some(), "{header}");
        }
    }

    #[test]
    fn a_header_that_says_something_holds() {
        assert_eq!(check("agent/source/ring.rs", "//! Reads records from a ring buffer.\n"), None);
    }
}
