//! Every direct dependency has its reason in the table of ARCHITECTURE.md, and the table names no other.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::Finding;

const RULE: &str = "dependency";

/// The page with the table, and the heading above it.
const PAGE: &str = "ARCHITECTURE.md";
const HEADING: &str = "## Dependencies";

/// Stands in the table's second column for every package.
const ANYWHERE: &str = "workspace";

/// Compares the table with all `Cargo.toml`.
pub(in crate::tidy) fn check(files: &[(String, String)]) -> Vec<Finding> {
    let Some((_, page)) = files.iter().find(|(path, _)| path == PAGE) else { return Vec::new() };
    let table = table(page);
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    for (path, text) in files {
        let Some(package) = path.strip_suffix("/Cargo.toml") else { continue };
        for (name, line) in dependencies(text) {
            used.insert(name);
            let told = table.get(name).is_some_and(|places| places.iter().any(|place| covers(place, package)));
            let message = format!("`{name}` has no reason in the table of {PAGE} for this package");
            findings.extend((!told).then(|| Finding::new(RULE, path, line, message)));
        }
    }
    let unused = table.keys().filter(|name| !used.contains(*name));
    findings.extend(unused.map(|name| Finding::new(RULE, PAGE, 0, format!("no package depends on `{name}`"))));
    findings
}

/// Crate → words of the second column of its rows.
fn table(page: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut table: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let rows = page.lines().skip_while(|line| *line != HEADING).filter(|line| line.starts_with('|'));
    // The first two rows are the table's head.
    for row in rows.skip(2) {
        let mut cells = row.split('|').skip(1);
        let (names, places) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_/".contains(letter);
        let places: BTreeSet<_> = places.split(|letter| !is_part(letter)).filter(|word| !word.is_empty()).collect();
        for name in names.split(',').filter_map(|name| name.split_whitespace().next()) {
            table.entry(name).or_default().extend(&places);
        }
    }
    table
}

/// Whether a word of the second column stands for the package in this folder.
fn covers(place: &str, package: &str) -> bool {
    place == package || place == ANYWHERE || package.strip_suffix(place).is_some_and(|above| above == "tests/") || {
        place == "tests" && package.starts_with("tests/")
    }
}

/// Direct dependencies of a package, each with its line.
fn dependencies(text: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.starts_with("workspace.");
        } else if inside && line.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            found.extend(line.split(['.', ' ', '=']).next().map(|name| (name, number + 1)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_TEXT: &str = "\
| not | this |
|---|---|
| at | all |

## Dependencies

| crate | where | reason |
|---|---|---|
| a, b (pinned) | one, some (`cli/`) | why |
| c | tests | why |
| d | inside the workspace | why |
";

    fn findings(path: &str, manifest: &str) -> Vec<String> {
        let all = "[dependencies]\na = 1\nb = 1\n";
        let files = [
            (PAGE, PAGE_TEXT),
            ("one/Cargo.toml", all),
            ("tests/some/Cargo.toml", "[dev-dependencies]\nc.workspace = true\na = 1\n[lints]\ne = 1\n"),
            ("Cargo.toml", "[workspace.dependencies]\nf = 1\n"),
            (path, manifest),
        ];
        check(&files.map(|(path, text)| (path.to_owned(), text.to_owned()))).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_table_with_each_dependency_at_its_package_holds() {
        assert_eq!(findings("two/Cargo.toml", "[dependencies]\nd = 1\n"), [""; 0]);
    }

    #[test]
    fn a_dependency_without_a_row_and_one_of_another_package_are_found() {
        let found = findings("two/Cargo.toml", "[dependencies]\nd = 1\ng = { version = \"1\" }\na = 1\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("two/Cargo.toml:3: `g` has no reason"), "{found:?}");
        assert!(found[1].starts_with("two/Cargo.toml:4: `a` has no reason"), "{found:?}");
    }

    #[test]
    fn a_row_that_nobody_needs_is_found() {
        let found = findings("two/Cargo.toml", "[dependencies]\n");
        assert_eq!(found, ["ARCHITECTURE.md: no package depends on `d` [dependency]"]);
    }
}
