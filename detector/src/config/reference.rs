//! What a table of keys tells people: the reference page and the default file with its comments.

use std::fmt::Write;

use super::{
    field::Written,
    table::{Key, Section, Table},
};

/// Columns of the default file's comments.
const WIDTH: usize = 100;

/// The file with all defaults, each key with its meaning and rule as a comment.
#[must_use]
pub fn default_file<C: Clone + Default>(table: &Table<C>, preface: &str) -> String {
    let mut file = String::new();
    comment(&mut file, 0, preface);
    let defaults = C::default();
    section(&mut file, table, "", 0, &defaults);
    file
}

fn section<C: Clone>(file: &mut String, table: &Table<C>, path: &str, depth: usize, defaults: &C) {
    for key in table.keys.iter().filter(|key| parent(key.path) == path) {
        file.push('\n');
        comment(
            file,
            depth,
            &format!("{} Must be {}. A change applies {}.", key.meaning, key.field.rule(), key.applies.name()),
        );
        let (indent, name) = ("  ".repeat(depth), name(key.path));
        // Writing to a `String` cannot fail.
        match key.field.write(defaults) {
            Written::One(text) => writeln!(file, "{indent}{name}: {text}").ok(),
            Written::Many(entries) if entries.is_empty() => writeln!(file, "{indent}{name}: []").ok(),
            Written::Many(entries) => {
                writeln!(file, "{indent}{name}:").ok();
                entries.iter().try_for_each(|entry| writeln!(file, "{indent}  - {entry}")).ok()
            }
        };
    }
    for inner in table.sections.iter().filter(|section| parent(section.path) == path) {
        file.push('\n');
        comment(file, depth, inner.meaning);
        writeln!(file, "{}{}:", "  ".repeat(depth), name(inner.path)).ok();
        section(file, table, inner.path, depth + 1, defaults);
    }
}

/// Appends `text` as lines of a comment.
fn comment(file: &mut String, depth: usize, text: &str) {
    let start = format!("{}#", "  ".repeat(depth));
    for paragraph in text.lines() {
        let mut line = start.clone();
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH && line != start {
                writeln!(file, "{line}").ok();
                line.clone_from(&start);
            }
            line.push(' ');
            line.push_str(word);
        }
        writeln!(file, "{line}").ok();
    }
}

/// Appends the keys to a Markdown page, one table for each section.
pub fn write_keys<C: Clone + Default>(page: &mut String, table: &Table<C>) {
    let defaults = C::default();
    for Section { path, meaning } in table.sections {
        let mut keys = table.keys.iter().filter(|key| parent(key.path) == *path).peekable();
        writeln!(page, "\n## `{path}`\n\n{meaning}").ok();
        if keys.peek().is_some() {
            page.push_str(
                "\n| key | type | default | must be | a change applies | meaning |\n|---|---|---|---|---|---|\n",
            );
        }
        for Key { path, field, applies, meaning } in keys {
            let default = match field.write(&defaults) {
                Written::One(text) => format!("`{text}`"),
                Written::Many(entries) if entries.is_empty() => "`[]`".to_owned(),
                Written::Many(entries) => {
                    entries.iter().map(|entry| format!("`{entry}`")).collect::<Vec<_>>().join(", ")
                }
            };
            let (kind, rule) = (field.type_name(), field.rule());
            let row = format!("`{path}` | {kind} | {default} | {rule} | {} | {meaning}", applies.name());
            writeln!(page, "| {row} |").ok();
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn name(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, name)| name)
}
