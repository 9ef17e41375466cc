//! The chart's `values.yaml`: its keys, their defaults and the comments above them, and the table made of these.
//!
//! Only as much of YAML as that file uses: block style, two blanks a level, comments on lines of their own.

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// A key of the file.
#[derive(Debug, PartialEq)]
pub(super) struct Key {
    /// Names from the outermost to its own, joined by dots.
    pub(super) path: String,
    /// What stands behind the colon.
    default: String,
    /// The comment above it.
    comment: String,
}

/// All keys, in their order. Lists, and maps below a documented key without documentation of their own, are defaults.
pub(super) fn keys(text: &str) -> Result<Vec<Key>> {
    let mut keys: Vec<Key> = Vec::new();
    let mut above: Vec<&str> = Vec::new();
    let mut comment = Vec::new();
    // Where the dash of a list stands that is being passed over.
    let mut list: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if content.starts_with("- ") || list.is_some_and(|dash| indent > dash) {
            list = Some(list.map_or(indent, |dash| dash.min(indent)));
            continue;
        }
        list = None;
        let depth = indent / 2;
        if let Some(words) = content.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let Some((name, default)) = content.split_once(':') else {
            comment.clear();
            continue;
        };
        ensure!(depth <= above.len(), "understand values.yaml, line {}: it is too far to the right", number + 1);
        above.truncate(depth);
        above.push(name);
        keys.push(Key { path: above.join("."), default: default.trim().to_owned(), comment: comment.join(" ") });
        comment.clear();
    }
    Ok(keys)
}

/// Keys that a user may rely on: those with a comment. Every other key must lie below one of them, or lead to one.
fn documented(keys: &[Key]) -> Result<Vec<&Key>> {
    let (told, silent): (Vec<_>, Vec<_>) = keys.iter().partition(|key| !key.comment.is_empty());
    let below = |inner: &Key, outer: &Key| inner.path.starts_with(&format!("{}.", outer.path));
    for key in silent {
        let covered = told.iter().any(|told| below(key, told) || below(told, key));
        ensure!(covered, "document the chart's values: `{}` has no comment", key.path);
    }
    Ok(told)
}

/// The chart's README.
pub(super) fn reference(text: &str) -> Result<String> {
    let keys = keys(text)?;
    let mut page = String::from(PREFACE);
    for key in documented(&keys)? {
        let inner = format!("{}.", key.path);
        let has_inner = keys.iter().any(|other| other.path.starts_with(&inner));
        let default = match key.default.as_str() {
            "" if has_inner => String::new(),
            "" => "see values.yaml".to_owned(),
            default => format!("`{default}`"),
        };
        // Writing to a `String` cannot fail.
        writeln!(page, "| `{}` | {default} | {} |", key.path, key.comment.replace('|', "\\|")).ok();
    }
    Ok(page)
}

const PREFACE: &str = "\
# Chart of detector

docs/install.md tells how to install, upgrade and remove it; deploy/README.md what each privilege is for. Generated from
values.yaml by `cargo xtask gen`.

```sh
helm install detector deploy/chart --namespace detector
```

| value | default | meaning |
|---|---|---|
";

/// Fails if the schema does not know a key of the file, or knows one that the file does not document.
pub(super) fn fits_schema(text: &str, schema: &str) -> Result<()> {
    let schema: Value = serde_json::from_str(schema).context("understand values.schema.json")?;
    let keys = keys(text)?;
    let told: BTreeSet<_> = documented(&keys)?.into_iter().map(|key| key.path.clone()).collect();
    let mut known = BTreeSet::new();
    properties(&schema, &schema, "", &mut known);
    let mut wrong: Vec<_> = told.difference(&known).map(|path| format!("`{path}` is not in the schema")).collect();
    let undocumented = known.iter().filter(|path| !is_told(path, &told) && path.as_str() != "global");
    wrong.extend(undocumented.map(|path| format!("`{path}` is in the schema, but not documented in values.yaml")));
    if !wrong.is_empty() {
        bail!("compare values.yaml with values.schema.json:\n{}", wrong.join("\n"));
    }
    Ok(())
}

/// Told itself, or by a key above or below it.
fn is_told(path: &str, told: &BTreeSet<String>) -> bool {
    let below = |inner: &str, outer: &str| inner.starts_with(&format!("{outer}."));
    told.iter().any(|told| told == path || below(path, told) || below(told, path))
}

fn properties(root: &Value, schema: &Value, above: &str, known: &mut BTreeSet<String>) {
    let referred =
        schema.get("$ref").and_then(Value::as_str).and_then(|name| root.pointer(name.trim_start_matches('#')));
    let properties = referred.unwrap_or(schema).get("properties").and_then(Value::as_object);
    for (name, inner) in properties.into_iter().flatten().filter(|(_, inner)| **inner != Value::Bool(false)) {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        self::properties(root, inner, &path, known);
        known.insert(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# About the file.

image:
  # Where it is.
  # Really.
  repository: a/b
# A list.
paths:
  - a:
      - b: 1
        c: 2
# A map.
resources:
  requests:
    cpu: 1
";

    #[test]
    fn a_key_has_its_path_its_default_and_the_comment_above_it() {
        let page = reference(TEXT).unwrap();
        assert!(page.contains("| `image.repository` | `a/b` | Where it is. Really. |\n"), "{page}");
        assert!(page.contains("| `paths` | see values.yaml | A list. |\n"), "{page}");
        assert!(!page.contains("`resources.requests`"), "{page}");
    }

    #[test]
    fn a_key_without_a_comment_is_an_error() {
        let error = reference("image:\n  tag: x\n").unwrap_err();
        assert!(error.to_string().contains("`image`"), "{error}");
    }

    #[test]
    fn schema_and_values_must_know_the_same_keys() {
        let schema = r##"{ "definitions": { "free": { "type": "object" } }, "properties": {
            "image": { "properties": { "repository": {} } }, "paths": {}, "resources": { "$ref": "#/definitions/free" } } }"##;
        fits_schema(TEXT, schema).unwrap();
        let more = schema.replace("\"paths\": {}", "\"paths\": {}, \"more\": {}");
        assert!(fits_schema(TEXT, &more).unwrap_err().to_string().contains("`more` is in the schema"));
        let less = schema.replace("\"paths\": {},", "");
        assert!(fits_schema(TEXT, &less).unwrap_err().to_string().contains("`paths` is not in the schema"));
    }
}
