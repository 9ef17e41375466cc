//! The saved state is read part by part: one that this version does not understand, because another one wrote it or because
//! it is damaged, begins anew, and all others are as they were.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::saved::Saved;

/// A part that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// Its name in the file.
    pub(super) part: &'static str,
    /// What is wrong with it.
    pub(super) reason: String,
}

/// The text of each part by its name. Names that are not known are those of another version.
struct Parts {
    texts: BTreeMap<String, Box<RawValue>>,
    unreadable: Vec<Unreadable>,
}

impl Parts {
    fn take<T: DeserializeOwned + Default>(&mut self, part: &'static str) -> T {
        let Some(text) = self.texts.remove(part) else { return T::default() };
        serde_json::from_str(text.get()).unwrap_or_else(|error| {
            self.unreadable.push(Unreadable { part, reason: error.to_string() });
            T::default()
        })
    }
}

/// Of JSON only.
impl<'de> Deserialize<'de> for Saved {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut parts = Parts { texts: BTreeMap::deserialize(deserializer)?, unreadable: Vec::new() };
        let saved = Self {
            handover: parts.take("handover"),
            metrics: parts.take("metrics"),
            held: parts.take("held"),
            events: parts.take("events"),
            conditions: parts.take("conditions"),
            missed: parts.take("missed"),
            unreadable: Vec::new(),
        };
        Ok(Self { unreadable: parts.unreadable, ..saved })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::saved::Keeping, *};

    /// The boot of the fixture.
    const BOOT: &str = "6a1f2f0e-6f0b-4c55-9d35-3b1c52a0a111";
    const FIXTURE: &str = include_str!("../../../../tests/fixtures/state/0.1.0.json");

    /// The state in the fixture, behind its first line.
    fn fixture() -> Value {
        serde_json::from_str(FIXTURE.split_once('\n').expect("two lines").1).expect("JSON")
    }

    fn read(state: &Value) -> Saved {
        serde_json::from_str(&state.to_string()).expect("an object")
    }

    #[test]
    fn the_state_of_an_earlier_release_is_read_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("state.json"), FIXTURE).expect("a file");
        let (_, saved) = Keeping::open(directory.path(), BOOT).expect("nobody else uses it");
        assert_eq!(saved.unreadable, []);
        let (before, now) = (fixture(), serde_json::to_value(&saved).expect("JSON"));
        let nothing = serde_json::to_value(Saved::default()).expect("JSON");
        for part in before.as_object().expect("an object").keys() {
            assert_ne!(now[part], nothing[part], "{part} is empty");
        }
        for part in ["handover", "metrics", "conditions"] {
            assert!(contains(&now[part], &before[part]), "{part}: {} became {}", before[part], now[part]);
        }
    }

    /// Whether all of `value` is in `whole`, which may have more fields.
    fn contains(whole: &Value, value: &Value) -> bool {
        match (whole, value) {
            (Value::Object(whole), Value::Object(fields)) => {
                fields.iter().all(|(name, value)| whole.get(name).is_some_and(|whole| contains(whole, value)))
            }
            (Value::Array(whole), Value::Array(values)) => {
                whole.len() == values.len() && whole.iter().zip(values).all(|(whole, value)| contains(whole, value))
            }
            (whole, value) => whole == value,
        }
    }

    #[test]
    fn a_part_of_another_form_begins_anew_and_the_others_stay() {
        let mut state = fixture();
        let conditions = state["conditions"].clone();
        state["metrics"] = json!({"containers": "a word"});
        state["held"] = json!([7]);
        state["of a later version"] = json!(1);
        let saved = read(&state);
        let unreadable: Vec<_> = saved.unreadable.iter().map(|unreadable| unreadable.part).collect();
        assert_eq!(unreadable, ["metrics", "held"]);
        assert!(saved.unreadable.iter().all(|unreadable| unreadable.reason.contains("invalid type")));
        let now = serde_json::to_value(&saved).expect("JSON");
        assert!(contains(&now["conditions"], &conditions) && contains(&now["handover"], &state["handover"]));
    }

    #[test]
    fn a_condition_that_lacks_a_field_costs_no_count_and_no_event() {
        let mut state = fixture();
        state["conditions"]["conditions"][0].as_object_mut().expect("an object").remove("since_us");
        let saved = read(&state);
        assert_eq!(saved.unreadable.len(), 1, "{:?}", saved.unreadable);
        let now = serde_json::to_value(&saved).expect("JSON");
        assert!(["metrics", "handover"].iter().all(|part| contains(&now[*part], &state[*part])));
        let nothing = serde_json::to_value(Saved::default()).expect("JSON");
        assert!(["events", "held"].iter().all(|part| now[*part] != nothing[*part]));
    }

    #[test]
    fn what_is_no_object_is_not_read() {
        assert!(serde_json::from_str::<Saved>("[1]").is_err());
        assert!(serde_json::from_str::<Saved>("{}").expect("an object").unreadable.is_empty());
    }
}
