//! Which paths a file names: imports, paths in code and in macro arguments, with aliases and `super` resolved.

use std::collections::HashMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item, Macro, UseTree,
    spanned::Spanned as _,
    visit::{self, Visit},
};

use super::Source;

/// A path as written somewhere in a file. Inside of the crate it begins with `crate`; a macro ends with `!`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Used {
    pub line: usize,
    pub segments: Vec<String>,
}

impl Used {
    /// Whether the path is `prefix` or leads below it.
    pub(super) fn is_below(&self, prefix: &str) -> bool {
        let mut segments = self.segments.iter();
        prefix.split("::").all(|part| segments.next().is_some_and(|segment| segment == part))
    }

    /// Whether the path ends with these segments.
    pub(super) fn ends_with(&self, suffix: &str) -> bool {
        let suffix: Vec<_> = suffix.split("::").collect();
        self.segments.len() >= suffix.len() && self.segments[self.segments.len() - suffix.len()..] == suffix[..]
    }

    pub(super) fn shown(&self) -> String {
        self.segments.join("::")
    }
}

/// All paths of the production code; what is marked `#[cfg(test)]` is left out.
pub(super) fn used(source: &Source) -> Vec<Used> {
    let mut collector = Collector { module: module_of(&source.path), aliases: HashMap::new(), used: Vec::new() };
    collector.visit_file(&source.syntax);
    let Collector { aliases, used, .. } = collector;
    used.into_iter().map(|used| unaliased(used, &aliases)).collect()
}

fn unaliased(mut used: Used, aliases: &HashMap<String, Vec<String>>) -> Used {
    if let Some(full) = used.segments.first().and_then(|first| aliases.get(first)) {
        used.segments.splice(..1, full.iter().cloned());
    }
    used
}

/// Module path of a file, from its place below `src`.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.split_once("src/").map_or("", |(_, inside)| inside);
    let parts = inside.trim_end_matches(".rs").split('/').filter(|part| !["", "mod", "lib", "main"].contains(part));
    std::iter::once("crate").chain(parts).map(str::to_owned).collect()
}

struct Collector {
    module: Vec<String>,
    aliases: HashMap<String, Vec<String>>,
    used: Vec<Used>,
}

impl Collector {
    fn push(&mut self, line: usize, segments: &[String]) {
        let segments = self.resolved(segments);
        self.used.push(Used { line, segments });
    }

    /// `self` and `super` become paths from `crate`.
    fn resolved(&self, segments: &[String]) -> Vec<String> {
        let supers = segments.iter().take_while(|segment| *segment == "super").count();
        let is_self = segments.first().is_some_and(|first| first == "self") && segments.len() > 1;
        if supers == 0 && !is_self {
            return segments.to_vec();
        }
        let base = self.module.len().saturating_sub(supers).max(1);
        let rest = &segments[supers.max(usize::from(is_self))..];
        self.module[..base].iter().chain(rest).cloned().collect()
    }

    fn import(&mut self, tree: &UseTree, prefix: &[String]) {
        let with = |name: String| prefix.iter().cloned().chain([name]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &with(path.ident.to_string())),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.import(item, prefix)),
            UseTree::Glob(glob) => self.push(glob.span().start().line, &with("*".to_owned())),
            UseTree::Name(name) if name.ident == "self" => {
                self.name(&name.ident, prefix, prefix.last().cloned());
            }
            UseTree::Name(name) => self.name(&name.ident, &with(name.ident.to_string()), Some(name.ident.to_string())),
            UseTree::Rename(rename) => {
                self.name(&rename.ident, &with(rename.ident.to_string()), Some(rename.rename.to_string()));
            }
        }
    }

    fn name(&mut self, at: &syn::Ident, path: &[String], alias: Option<String>) {
        self.push(at.span().start().line, path);
        let path = self.resolved(path);
        // `use anyhow;` would be an alias of itself.
        if let Some(alias) = alias.filter(|alias| path.len() > 1 && alias != "_") {
            self.aliases.insert(alias, path);
        }
    }

    /// Macro arguments are only tokens: identifiers joined by `::`.
    fn in_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => path.push(ident.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                other => {
                    self.flush(line, &mut path);
                    line = other.span().start().line;
                    match other {
                        TokenTree::Ident(ident) => path.push(ident.to_string()),
                        TokenTree::Group(group) => self.in_tokens(group.stream()),
                        _ => {}
                    }
                }
            }
            colons = 0;
        }
        self.flush(line, &mut path);
    }

    fn flush(&mut self, line: usize, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.push(line, &path);
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if !attributes(item).iter().any(is_test_only) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.push(path.span().start().line, &segments);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        let mut segments: Vec<_> = call.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(last) = segments.last_mut() {
            last.push('!');
        }
        self.push(call.span().start().line, &segments);
        self.in_tokens(call.tokens.clone());
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test_only(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str, text: &str) -> Vec<String> {
        used(&Source::parse(path, text).unwrap()).iter().map(Used::shown).collect()
    }

    #[test]
    fn imports_are_unfolded() {
        let text = "use std::{fs, time::{self, Instant as Now}};\nuse tokio::*;";
        assert_eq!(shown("d/src/a.rs", text), ["std::fs", "std::time", "std::time::Instant", "tokio::*"]);
    }

    #[test]
    fn an_alias_is_seen_through() {
        assert!(
            shown("d/src/a.rs", "use std::time as t;\nfn f() { t::Instant::now(); }")
                .contains(&"std::time::Instant::now".into())
        );
    }

    #[test]
    fn super_and_self_lead_from_the_crate() {
        let text = "use super::super::sink::Log;\nuse self::x::Y;\nmod inner { use super::z::Z; }";
        let expected =
            ["crate::agent::sink::Log", "crate::agent::decode::oom::x::Y", "crate::agent::decode::oom::z::Z"];
        assert_eq!(shown("detector/src/agent/decode/oom.rs", text), expected);
        assert_eq!(shown("detector/src/agent/decode/mod.rs", "use super::sink::Log;"), ["crate::agent::sink::Log"]);
    }

    #[test]
    fn arguments_of_macros_are_looked_into() {
        let found = shown("d/src/a.rs", "fn f() { assert!(g(std::fs::read(x), y)); }");
        assert_eq!(found, ["assert!", "std::fs::read"]);
    }

    #[test]
    fn what_is_for_tests_only_is_left_out() {
        assert!(shown("d/src/a.rs", "#[cfg(test)]\nmod tests { use std::fs; }\n#[cfg(test)]\nuse std::fs;").is_empty());
    }
}
