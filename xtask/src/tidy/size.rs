//! Sizes: lines of a file and of a function, depth of folders, files in a folder.

use std::collections::BTreeMap;

use syn::{
    Block, ImplItemFn, ItemFn, Signature, TraitItemFn,
    spanned::Spanned as _,
    visit::{self, Visit},
};

use super::{Finding, Source};

/// Production lines of a file: aim for 60 to 250.
const FILE_LINES: usize = 450;

/// Lines of a function, signature to closing brace: aim for 40.
const FUNCTION_LINES: usize = 80;

/// Folders between `src` and a file: aim for 2.
const FOLDER_DEPTH: usize = 3;

/// Rust files in a folder: aim for 3 to 9.
const FOLDER_FILES: usize = 12;

pub(super) fn check_lines(path: &str, text: &str) -> Option<Finding> {
    let lines = production_lines(text);
    let message = format_args!("{lines} production lines, more than {FILE_LINES}: split the file");
    (lines > FILE_LINES).then(|| Finding::new("file-lines", path, 0, message))
}

/// Lines up to the tests inside of the file.
fn production_lines(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    let is_test_module = |at: &usize| {
        lines[*at] == "#[cfg(test)]"
            && lines.get(at + 1).is_some_and(|next| next.contains("mod ") && next.ends_with('{'))
    };
    (0..lines.len()).find(is_test_module).unwrap_or(lines.len())
}

pub(super) fn check_functions(source: &Source) -> Vec<Finding> {
    let mut functions = Functions { path: &source.path, findings: Vec::new() };
    functions.visit_file(&source.syntax);
    functions.findings
}

struct Functions<'a> {
    path: &'a str,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &Signature, body: &Block) {
        let first = signature.fn_token.span().start().line;
        let lines = body.brace_token.span.close().end().line + 1 - first;
        if lines > FUNCTION_LINES {
            let message = format_args!("`{}` has {lines} lines, more than {FUNCTION_LINES}: split it", signature.ident);
            self.findings.push(Finding::new("function-lines", self.path, first, message));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(body) = &item.default {
            self.measure(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

pub(super) fn check_folders(paths: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut files: BTreeMap<&str, usize> = BTreeMap::new();
    for path in paths.iter().filter(|path| path.ends_with(".rs")) {
        let Some((folder, _)) = path.rsplit_once('/') else { continue };
        *files.entry(folder).or_default() += 1;
        let below_src = folder.split('/').skip_while(|part| *part != "src").count().saturating_sub(1);
        if below_src > FOLDER_DEPTH {
            let message = format_args!("{below_src} folders below `src`, more than {FOLDER_DEPTH}");
            findings.push(Finding::new("folder-depth", path, 0, message));
        }
    }
    for (folder, count) in files.into_iter().filter(|(_, count)| *count > FOLDER_FILES) {
        let message = format_args!("{count} Rust files in one folder, more than {FOLDER_FILES}");
        findings.push(Finding::new("folder-files", folder, 0, message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let long = "x\n".repeat(FILE_LINES + 1);
        assert!(check_lines("a.rs", &long).is_some());
        let tested = "x\n".repeat(FILE_LINES) + "#[cfg(test)]\nmod tests {\n" + &long + "}\n";
        assert_eq!(check_lines("a.rs", &tested), None);
    }

    #[test]
    fn a_long_function_is_found_wherever_it_stands() {
        let body = "x();\n".repeat(FUNCTION_LINES - 1);
        for text in [
            format!("fn f() {{\n{body}}}"),
            format!("impl A {{ fn f() {{\n{body}}} }}"),
            format!("mod m {{ trait T {{ fn f() {{\n{body}}} }} }}"),
        ] {
            let source = Source::parse("a.rs", &text).unwrap();
            let found = check_functions(&source);
            assert_eq!(found.len(), 1, "{text}");
            assert!(found[0].message.starts_with("`f` has 81 lines"), "{}", found[0].message);
        }
    }

    #[test]
    fn a_function_at_the_limit_holds() {
        let text = format!("/// Long\n/// docs\n#[x]\nfn f() {{\n{}}}", "x();\n".repeat(FUNCTION_LINES - 2));
        assert!(check_functions(&Source::parse("a.rs", &text).unwrap()).is_empty());
    }

    #[test]
    fn a_deep_folder_is_found() {
        assert!(check_folders(&["d/src/a/b/c/x.rs"]).is_empty());
        assert_eq!(check_folders(&["d/src/a/b/c/d/x.rs"])[0].rule, "folder-depth");
    }

    #[test]
    fn a_crowded_folder_is_found() {
        let paths: Vec<_> = (0..=FOLDER_FILES).map(|n| format!("d/src/a{n}.rs")).collect();
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        assert_eq!(check_folders(&paths)[0].rule, "folder-files");
        assert!(check_folders(&paths[1..]).is_empty());
    }
}
