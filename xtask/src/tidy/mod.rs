//! House rules that no compiler checks. One file per family; rules are functions of path and text, with a test each.
//!
//! | family | rules |
//! |---|---|
//! | `header` | every file says in its first line what it is for |
//! | `size` | lines of a file and of a function, depth of folders, files in a folder |
//! | `name` | no file or folder named after nothing |
//! | `import` | stages import what stands before them; pure stages stay pure; aya, clock, anyhow where they belong |
//! | `safety` | `unsafe` where it belongs, and never without a SAFETY note |
//! | `manifest` | every package inherits the workspace's lints; each dependency has a row in ARCHITECTURE.md, and back |
//! | `machine` | no path of a developer's machine, no host of a package registry |
//! | `history` | the last commit's subject |

mod exception;
mod header;
mod history;
mod import;
mod machine;
mod manifest;
mod name;
mod paths;
mod safety;
mod size;
mod tree;

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
};

use anyhow::{Result, bail};

/// One place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// Name of the rule, as `exception.rs` names it.
    rule: &'static str,
    /// Path in the source tree.
    path: String,
    /// Line, from 1; 0 if the whole file or folder is meant.
    line: usize,
    /// What is wrong and what would be right.
    message: String,
}

impl Finding {
    fn new(rule: &'static str, path: &str, line: usize, message: impl Display) -> Self {
        Self { rule, path: path.to_owned(), line, message: message.to_string() }
    }
}

impl Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, path, line, message } = self;
        if *line == 0 {
            write!(formatter, "{path}: {message} [{rule}]")
        } else {
            write!(formatter, "{path}:{line}: {message} [{rule}]")
        }
    }
}

/// A Rust file of the tree, parsed.
struct Source {
    path: String,
    text: String,
    syntax: syn::File,
}

impl Source {
    fn parse(path: &str, text: &str) -> Result<Self, Finding> {
        let syntax = syn::parse_file(text).map_err(|error| {
            Finding::new("parse", path, error.span().start().line, format_args!("not Rust: {error}"))
        })?;
        Ok(Self { path: path.to_owned(), text: text.to_owned(), syntax })
    }
}

/// Runs all rules over the tree. Exceptions that excuse nothing any more are failures too.
pub(crate) fn run() -> Result<()> {
    let files = tree::files()?;
    let mut findings = Vec::new();
    let paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
    findings.extend(name::check(&paths));
    findings.extend(size::check_folders(&paths));
    findings.extend(manifest::check_dependencies(&files));
    for (path, text) in &files {
        findings.extend(machine::check(path, text));
        findings.extend(of_file(path, text));
    }
    findings.extend(tree::last_commit().and_then(|subject| history::check(&subject)));
    let (findings, unused) = exception::apply(findings);
    let findings: BTreeSet<_> = findings.iter().map(ToString::to_string).chain(unused).collect();
    if !findings.is_empty() {
        let list: Vec<_> = findings.into_iter().collect();
        bail!("{} places break a house rule:\n{}", list.len(), list.join("\n"));
    }
    Ok(())
}

fn of_file(path: &str, text: &str) -> Vec<Finding> {
    if path.ends_with("Cargo.toml") {
        return manifest::check(path, text).into_iter().collect();
    }
    if !path.ends_with(".rs") {
        return Vec::new();
    }
    let mut findings: Vec<_> = header::check(path, text).into_iter().chain(size::check_lines(path, text)).collect();
    match Source::parse(path, text) {
        Ok(source) => {
            findings.extend(size::check_functions(&source));
            findings.extend(import::check(&source));
            findings.extend(safety::check(&source));
        }
        Err(finding) => findings.push(finding),
    }
    findings
}
