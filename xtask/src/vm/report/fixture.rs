//! Compares what `detector doctor` says in a guest with what it said when it was recorded: `tests/fixtures/doctor`, one
//! file per series of kernels.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Judged,
    verdict::{Line, Verdict},
};
use crate::workspace;

/// Where the fixtures are.
const DIRECTORY: &str = "tests/fixtures/doctor";

/// Places whose values differ from boot to boot, or with each new package of a kernel (JSON pointers, RFC 6901). What
/// stands for them keeps their type; a place that the answer does not have is passed over.
const VOLATILE: [&str; 2] = ["/kernel/release", "/kernel/btf_bytes"];

/// Stands for a volatile text.
const TEXT: &str = "*";

/// Differences that are told at the most.
const MOST: usize = 6;

/// Adds a line on `doctor` to the verdict of a guest that asked it; with `record` writes the fixture anew.
pub(in crate::vm) fn judge(judged: &mut Judged, record: bool) {
    let Ok(verdict) = &mut judged.verdict else { return };
    let Some(answer) = verdict.doctor.take() else { return };
    let answer = stable(answer);
    let wrong = if record { write(judged.kernel.series, &answer) } else { compare(judged.kernel.series, &answer) };
    let wrong = wrong.err().map(|cause| format!("{cause:#}"));
    let Verdict { lines, .. } = verdict;
    lines.push(Line { case: "doctor".to_owned(), method: "fixture".to_owned(), wrong });
}

fn path(series: &str) -> PathBuf {
    workspace::root().join(DIRECTORY).join(format!("{series}.json"))
}

fn write(series: &str, answer: &Value) -> Result<()> {
    let path = path(series);
    fs::create_dir_all(workspace::root().join(DIRECTORY)).with_context(|| format!("making {DIRECTORY}"))?;
    let text = serde_json::to_string_pretty(answer).context("writing JSON")?;
    fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    println!("vm: wrote {}", path.display());
    Ok(())
}

fn compare(series: &str, answer: &Value) -> Result<()> {
    let path = path(series);
    let again = "`cargo xtask test vm --case doctor --record` writes it";
    let text = fs::read_to_string(&path).with_context(|| format!("reading {} ({again})", path.display()))?;
    let recorded: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let differences = differences("", &recorded, answer);
    let shown: Vec<_> = differences.iter().take(MOST).map(String::as_str).collect();
    anyhow::ensure!(differences.is_empty(), "{} differences ({again}): {}", differences.len(), shown.join("; "));
    Ok(())
}

/// The same without what differs from boot to boot.
fn stable(mut answer: Value) -> Value {
    for pointer in VOLATILE {
        match answer.pointer_mut(pointer) {
            Some(Value::String(text)) => TEXT.clone_into(text),
            Some(number @ Value::Number(_)) => *number = 0.into(),
            _ => {}
        }
    }
    answer
}

/// Where two answers differ, by JSON pointer (RFC 6901).
fn differences(at: &str, old: &Value, new: &Value) -> Vec<String> {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let added = after.keys().filter(|key| !before.contains_key(*key));
            let keys = before.keys().chain(added);
            keys.flat_map(|key| {
                let null = Value::Null;
                let of = |fields: &serde_json::Map<String, Value>| fields.get(key).cloned();
                differences(&format!("{at}/{key}"), &of(before).unwrap_or(null.clone()), &of(after).unwrap_or(null))
            })
            .collect()
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let both = before.iter().zip(after).enumerate();
            both.flat_map(|(index, (old, new))| differences(&format!("{at}/{index}"), old, new)).collect()
        }
        _ if old == new => Vec::new(),
        _ => vec![format!("{at}: {old}, not {new}")],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_from_boot_to_boot_is_blanked_and_keeps_its_type() {
        let answer = json!({ "kernel": { "release": "6.1.0", "btf_bytes": 7, "lockdown": "none" }, "live": null });
        let expected = json!({ "kernel": { "release": "*", "btf_bytes": 0, "lockdown": "none" }, "live": null });
        assert_eq!(stable(answer), expected);
        assert_eq!(stable(json!({ "kernel": { "btf_bytes": null } })), json!({ "kernel": { "btf_bytes": null } }));
    }

    #[test]
    fn differences_are_told_by_their_place() {
        let (old, new) = (json!({ "a": [1, { "b": 2 }], "c": 3 }), json!({ "a": [1, { "b": 4 }], "d": 5 }));
        assert_eq!(differences("", &old, &new), ["/a/1/b: 2, not 4", "/c: 3, not null", "/d: null, not 5"]);
        assert_eq!(differences("", &old, &old), Vec::<String>::new());
    }

    #[test]
    fn lists_of_different_length_differ_as_a_whole() {
        assert_eq!(differences("", &json!({ "a": [1] }), &json!({ "a": [1, 2] })), ["/a: [1], not [1,2]"]);
    }
}
