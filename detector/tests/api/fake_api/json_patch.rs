//! RFC 6902, as far as it is used: `test`, `add` and `remove` of one place.

use serde_json::Value;

/// Applies all operations, or none.
pub(super) fn apply(object: &mut Value, operations: &Value) -> Result<(), String> {
    let mut changed = object.clone();
    for operation in operations.as_array().ok_or("the patch is no list")? {
        let path = operation["path"].as_str().ok_or("an operation without a path")?;
        one(&mut changed, operation["op"].as_str().unwrap_or_default(), path, &operation["value"])?;
    }
    *object = changed;
    Ok(())
}

fn one(object: &mut Value, op: &str, path: &str, value: &Value) -> Result<(), String> {
    let (parent, last) = path.rsplit_once('/').ok_or("a path without a slash")?;
    let missing = || format!("the place {path} does not exist");
    match op {
        "test" if object.pointer(path) == Some(value) => Ok(()),
        "test" => Err(format!("testing value {path} failed")),
        "add" => match object.pointer_mut(parent).ok_or_else(missing)? {
            Value::Array(list) if last == "-" => {
                list.push(value.clone());
                Ok(())
            }
            Value::Object(map) => {
                map.insert(last.to_owned(), value.clone());
                Ok(())
            }
            _ => Err(missing()),
        },
        "remove" => match object.pointer_mut(parent).ok_or_else(missing)? {
            Value::Array(list) => {
                let index: usize = last.parse().map_err(|_| missing())?;
                if index >= list.len() {
                    return Err(missing());
                }
                list.remove(index);
                Ok(())
            }
            Value::Object(map) => map.remove(last).map(|_| ()).ok_or_else(missing),
            _ => Err(missing()),
        },
        other => Err(format!("the operation {other:?} is not known here")),
    }
}
