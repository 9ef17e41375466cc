//! How the server merges a patch into an object.

use serde_json::{Value, json};

/// A merge in which conditions are kept by type.
pub(super) fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    for (key, value) in fields {
        if key == "resourceVersion" {
            continue;
        }
        if value.is_null() {
            if let Some(fields) = into.as_object_mut() {
                fields.remove(key);
            }
        } else if key == "conditions" {
            let mut all = into[key].as_array().cloned().unwrap_or_default();
            for one in value.as_array().into_iter().flatten() {
                match all.iter_mut().find(|known| known["type"] == one["type"]) {
                    Some(known) => merge(known, one),
                    None => all.push(one.clone()),
                }
            }
            into[key] = json!(all);
        } else {
            if !into[key].is_object() && value.is_object() {
                into[key] = json!({});
            }
            merge(&mut into[key], value);
        }
    }
}
