//! `unsafe` stands where it is allowed, and each has a note why it is sound.
//!
//! clippy checks the notes too, but only in code that it compiles: not in macros, other targets or other features.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{
    ExprUnsafe, ItemImpl, Macro, Stmt,
    spanned::Spanned as _,
    visit::{self, Visit},
};

use super::{Finding, Source};

/// Where `unsafe` may stand: the loader of BPF programs, the kernel side, and what causes faults or is init of a VM.
const ALLOWED: &[&str] = &["detector/src/agent/source/", "detector-ebpf/", "tests/provoke/", "tests/vm/"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut blocks = UnsafeBlocks { lines: source.text.lines().collect(), statement: 0, found: Vec::new() };
    blocks.visit_file(&source.syntax);
    let mut findings = Vec::new();
    for (line, noted) in blocks.found {
        if !ALLOWED.iter().any(|allowed| source.path.starts_with(allowed)) {
            let message = format_args!("`unsafe` outside of {}", ALLOWED.join(", "));
            findings.push(Finding::new("unsafe-place", &source.path, line, message));
        }
        if !noted {
            let message = "`unsafe` without a `// SAFETY:` note above it";
            findings.push(Finding::new("safety-note", &source.path, line, message));
        }
    }
    findings
}

struct UnsafeBlocks<'a> {
    lines: Vec<&'a str>,
    /// First line of the statement or item that is being visited, from 1: a note may stand above the whole of it.
    statement: usize,
    /// Line, and whether it has a note.
    found: Vec<(usize, bool)>,
}

impl UnsafeBlocks<'_> {
    fn found(&mut self, line: usize, from: usize) {
        let noted = self.has_note(from.min(line), line);
        self.found.push((line, noted));
    }

    /// A note between the first line of the statement and the block, or in the comments right above the statement.
    fn has_note(&self, from: usize, line: usize) -> bool {
        let is_note = |text: &&str| text.contains("// SAFETY:");
        let inside = self.lines.get(from.saturating_sub(1)..line).unwrap_or_default();
        let above = self.lines.get(..from.saturating_sub(1)).unwrap_or_default().iter().rev();
        let mut above =
            above.take_while(|text| text.trim_start().starts_with("//") || text.trim_start().starts_with("#["));
        inside.iter().any(is_note) || above.any(is_note)
    }

    /// Macro arguments are only tokens: `unsafe` and then braces.
    fn in_tokens(&mut self, tokens: TokenStream) {
        let mut after_unsafe = None;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => after_unsafe = (ident == "unsafe").then(|| ident.span().start().line),
                TokenTree::Group(group) => {
                    let is_block = group.delimiter() == Delimiter::Brace;
                    if let Some(line) = after_unsafe.take().filter(|_| is_block) {
                        self.found(line, line);
                    }
                    self.in_tokens(group.stream());
                }
                _ => after_unsafe = None,
            }
        }
    }
}

impl<'ast> Visit<'ast> for UnsafeBlocks<'_> {
    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        let outer = std::mem::replace(&mut self.statement, statement.span().start().line);
        visit::visit_stmt(self, statement);
        self.statement = outer;
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let outer = std::mem::replace(&mut self.statement, arm.span().start().line);
        visit::visit_arm(self, arm);
        self.statement = outer;
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        let outer = std::mem::replace(&mut self.statement, item.span().start().line);
        visit::visit_item(self, item);
        self.statement = outer;
    }

    fn visit_expr_unsafe(&mut self, block: &'ast ExprUnsafe) {
        self.found(block.unsafe_token.span().start().line, self.statement);
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if let Some(token) = &item.unsafety {
            self.found(token.span().start().line, self.statement);
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.in_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED_PATH: &str = "detector-ebpf/src/task.rs";

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check(&Source::parse(path, text).unwrap()).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn unsafe_without_a_note_is_found() {
        for text in [
            "fn f() {\n    unsafe { g() }\n}",
            "// SAFETY: too far away.\n\nfn f() {\n    h();\n    let x = unsafe { g() };\n}",
            "unsafe impl Send for A {}",
            "fn f() {\n    println!(\"{}\", unsafe { g() });\n}",
        ] {
            assert_eq!(rules(ALLOWED_PATH, text), ["safety-note"], "{text}");
        }
    }

    #[test]
    fn a_note_above_the_block_or_its_statement_counts() {
        for text in [
            "fn f() {\n    // SAFETY: checked above.\n    unsafe { g() }\n}",
            "fn f() {\n    // SAFETY: checked above,\n    // twice.\n    let x = a\n        .b(unsafe { g() });\n}",
            "fn f() {\n    match x {\n        // SAFETY: owned.\n        A => unsafe { g() },\n    }\n}",
            "// SAFETY: no threads.\nunsafe impl Send for A {}",
        ] {
            assert!(rules(ALLOWED_PATH, text).is_empty(), "{text}");
        }
    }

    #[test]
    fn unsafe_outside_of_its_places_is_found() {
        let text = "fn f() {\n    // SAFETY: sound, but not here.\n    unsafe { g() }\n}";
        assert_eq!(rules("detector/src/agent/sink/log.rs", text), ["unsafe-place"]);
        assert!(rules("detector/src/agent/source/bpf/ring.rs", text).is_empty());
    }
}
