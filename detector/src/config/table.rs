//! The keys of a file as a table, and what is made of it: reading, comparing, taking over.
//!
//! The table is the only list of keys. The reader, the default file, the reference and the rules for changes at run time
//! are made of it, so that they cannot tell different things.

use std::{collections::BTreeMap, io::Read, path::Path};

use super::{
    field::Field,
    file,
    mistake::{Mistake, Mistakes, Position, nearest::did_you_mean},
    yaml::{self, Content, Entry, Value},
};

/// All there is to know of the file that settings of type `C` are read from.
#[derive(Debug)]
pub struct Table<C: 'static> {
    /// Sections in the order of the file; a section stands before its keys.
    pub sections: &'static [Section],
    /// Keys in the order of the file.
    pub keys: &'static [Key<C>],
    /// Rules that more than one key has a part in.
    pub contradictions: fn(&C) -> Vec<Contradiction>,
}

/// A section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Names of the sections around it and its own, with dots between.
    pub path: &'static str,
    /// What its keys are about: a sentence.
    pub meaning: &'static str,
}

/// A key.
#[derive(Debug)]
pub struct Key<C> {
    /// Its section and its name, with dots between.
    pub path: &'static str,
    /// What it takes, and where it is kept.
    pub field: Field<C>,
    /// When a change of it comes into force.
    pub applies: Applies,
    /// What it does: one or more sentences.
    pub meaning: &'static str,
}

/// When a change of a key comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Applies {
    /// As soon as the file is read again.
    AtOnce,
    /// With the next start of the program.
    AtRestart,
}

impl Applies {
    /// Its name in the reference.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::AtRestart => "at restart",
        }
    }
}

/// Values that cannot stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Paths of the keys that have a part in it.
    pub keys: Vec<&'static str>,
    /// The rule that they break together.
    pub rule: String,
}

/// A key whose value differs between two settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path of the key.
    pub key: &'static str,
    /// When the new value comes into force.
    pub applies: Applies,
    /// The old value as YAML.
    pub old: String,
    /// The new value as YAML.
    pub new: String,
}

impl<C: Clone + Default> Table<C> {
    /// The settings in the file at `path`; keys that it does not have keep their defaults, and an empty file is valid.
    ///
    /// # Errors
    ///
    /// All mistakes, each with its place.
    pub fn load(&self, path: &Path) -> Result<C, Mistakes> {
        let name = path.to_string_lossy();
        let bytes = file::read(path).map_err(|error| Mistakes::unreadable(&name, error))?;
        self.parse(&name, &bytes)
    }

    /// The same from any source, which messages call `name`.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_from(&self, name: &str, source: impl Read) -> Result<C, Mistakes> {
        let bytes = file::read_from(source).map_err(|error| Mistakes::unreadable(name, error))?;
        self.parse(name, &bytes)
    }

    /// The settings in `bytes`, which messages call `name`.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn parse(&self, name: &str, bytes: &[u8]) -> Result<C, Mistakes> {
        let text = file::text(name, bytes)?;
        let mut mistakes = Vec::new();
        let mut reading = Reading { table: self, config: C::default(), mistakes: Vec::new(), seen: BTreeMap::new() };
        match yaml::parse(text, &mut mistakes) {
            Ok(root) => {
                reading.section("", &root);
                reading.contradictions();
            }
            Err(end) => mistakes.push(end),
        }
        mistakes.append(&mut reading.mistakes);
        if mistakes.is_empty() { Ok(reading.config) } else { Err(Mistakes::new(name, mistakes)) }
    }

    /// Keys whose values differ between `old` and `new`, in the order of the table.
    #[must_use]
    pub fn differences(&self, old: &C, new: &C) -> Vec<Difference> {
        let difference = |key: &Key<C>| {
            let (old, new) = (key.field.write(old), key.field.write(new));
            (old != new).then(|| Difference {
                key: key.path,
                applies: key.applies,
                old: old.on_one_line(),
                new: new.on_one_line(),
            })
        };
        self.keys.iter().filter_map(difference).collect()
    }

    /// `old` with those values of `new` that come into force at once.
    #[must_use]
    pub fn at_run_time(&self, old: &C, new: &C) -> C {
        let mut config = old.clone();
        for key in self.keys.iter().filter(|key| key.applies == Applies::AtOnce) {
            key.field.take_over(&mut config, new);
        }
        config
    }

    /// Names of the keys and sections of section `path`, which is empty for the file as a whole.
    fn names_in(&self, path: &str) -> Vec<&'static str> {
        let paths = self.keys.iter().map(|key| key.path).chain(self.sections.iter().map(|section| section.path));
        let names = paths.filter_map(|known| match path {
            "" => Some(known),
            path => known.strip_prefix(path)?.strip_prefix('.'),
        });
        let mut names: Vec<&str> = names.filter(|name| !name.contains('.')).collect();
        names.dedup();
        names
    }
}

/// A file being read.
struct Reading<'t, C: 'static> {
    table: &'t Table<C>,
    config: C,
    mistakes: Vec<Mistake>,
    /// Where the value of each key stands, and whether it is one of its kind.
    seen: BTreeMap<&'static str, (Position, bool)>,
}

impl<C: Clone + Default> Reading<'_, C> {
    fn section(&mut self, path: &str, value: &Value) {
        let entries = match &value.content {
            Content::Section(entries) => entries,
            // A section whose keys are all commented out.
            Content::Nothing | Content::Refused => return,
            Content::Text { .. } | Content::List(_) => {
                let names = self.table.names_in(path).join("`, `");
                let rule = format!("must be a section; its keys are `{names}`");
                self.mistakes.push(match path {
                    "" => Mistake::at(value.position, rule),
                    path => Mistake::of_key(value.position, path, value.shown(), rule),
                });
                return;
            }
        };
        let mut first = BTreeMap::new();
        for entry in entries {
            let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            match first.insert(entry.key.as_str(), entry.position) {
                None => self.entry(&path, entry),
                Some(Position { line, .. }) => {
                    let rule = format!("must stand once, and is in line {line} already");
                    self.mistakes.push(Mistake::of_key(entry.position, &path, None, rule));
                }
            }
        }
    }

    fn entry(&mut self, path: &str, entry: &Entry) {
        // A name with a dot in it is no path.
        if let Some(key) = self.table.keys.iter().find(|key| key.path == path && !entry.key.contains('.')) {
            let read = key.field.read(&entry.value, &mut self.config);
            self.seen.insert(key.path, (entry.value.position, read.is_ok()));
            for broken in read.err().unwrap_or_default() {
                let mistake = Mistake::of_key(broken.at.position, path, broken.at.shown(), broken.rule);
                self.mistakes.push(mistake);
            }
        } else if self.table.sections.iter().any(|section| section.path == path && !entry.key.contains('.')) {
            self.section(path, &entry.value);
        } else {
            let hint = self.hint(path, &entry.key).map(|hint| format!(": {hint}")).unwrap_or_default();
            self.mistakes.push(Mistake::of_key(entry.position, path, None, format_args!("there is no such key{hint}")));
        }
    }

    /// What may be meant by the unknown key `name` at `path`: a neighbour, or a key of this name elsewhere.
    fn hint(&self, path: &str, name: &str) -> Option<String> {
        let section = path.strip_suffix(name).map_or("", |section| section.trim_end_matches('.'));
        let near = did_you_mean(name, &self.table.names_in(section), &[]);
        let known = || self.table.keys.iter().map(|key| key.path).chain(self.table.sections.iter().map(|one| one.path));
        let elsewhere = || {
            let here = |known: &&str| *known == name || known.rsplit('.').next() == Some(name);
            let mut places = known().filter(here);
            let place = places.next().filter(|_| places.next().is_none())?;
            Some(match *place == *name {
                true => "each name before a dot must be a section of its own".to_owned(),
                false => format!("did you mean `{place}`?"),
            })
        };
        let object =
            (path == "apiVersion").then(|| "is this a Kubernetes object? The file is what stands in it".to_owned());
        near.or_else(elsewhere).or(object)
    }

    /// A rule with a key whose value is wrong waits until that is mended.
    fn contradictions(&mut self) {
        for Contradiction { keys, rule } in (self.table.contradictions)(&self.config) {
            let places: Vec<_> = keys.iter().filter_map(|key| self.seen.get_key_value(key)).collect();
            if places.iter().any(|(_, (_, right))| !right) {
                continue;
            }
            let last = places.iter().max_by_key(|(_, (position, _))| *position);
            self.mistakes.push(match last {
                Some((key, (position, _))) => {
                    let held = self.table.keys.iter().find(|known| known.path == **key);
                    let value = held.map(|key| key.field.write(&self.config).on_one_line());
                    Mistake::of_key(*position, key, value.as_deref(), rule)
                }
                None => Mistake::of_file(rule),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Pair {
        low: u32,
        high: u32,
    }

    const PAIR: Table<Pair> = Table {
        sections: &[Section { path: "pair", meaning: "Two." }],
        keys: &[
            Key {
                path: "pair.low",
                field: Field::Number(0..=9, |pair| &mut pair.low),
                applies: Applies::AtOnce,
                meaning: "Low.",
            },
            Key {
                path: "pair.high",
                field: Field::Number(0..=9, |pair| &mut pair.high),
                applies: Applies::AtRestart,
                meaning: "High.",
            },
        ],
        contradictions: |pair| {
            let wrong = pair.low > pair.high;
            let rule = "must not be above `pair.high`".to_owned();
            wrong.then(|| Contradiction { keys: vec!["pair.low", "pair.high"], rule }).into_iter().collect()
        },
    };

    fn refused(text: &str) -> String {
        PAIR.parse("f", text.as_bytes()).expect_err("mistakes").to_string()
    }

    #[test]
    fn a_contradiction_is_told_where_its_last_key_stands() {
        assert_eq!(refused("pair:\n  low: 3\n"), "f:2:8: pair.low: `3`: must not be above `pair.high`");
    }

    #[test]
    fn a_contradiction_waits_until_its_keys_are_right() {
        assert_eq!(refused("pair: {low: 3, high: x}"), "f:1:22: pair.high: `x`: must be a whole number from 0 to 9");
    }

    #[test]
    fn a_key_with_a_dot_in_its_name_is_no_path() {
        assert_eq!(
            refused("pair.low: 3"),
            "f:1:1: pair.low: there is no such key: each name before a dot must be a section of its own"
        );
        assert_eq!(refused("low: 3"), "f:1:1: low: there is no such key: did you mean `pair.low`?");
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        assert_eq!(refused("pair: {high: 1, high: 1}"), "f:1:17: pair.high: must stand once, and is in line 1 already");
    }

    #[test]
    fn a_file_that_is_no_section_is_refused() {
        assert_eq!(refused("- 1"), "f:1:1: must be a section; its keys are `pair`");
        assert_eq!(refused("pair: 7"), "f:1:7: pair: `7`: must be a section; its keys are `low`, `high`");
    }

    #[test]
    fn what_needs_a_restart_is_kept_as_it_was() {
        let (old, new) = (Pair { low: 1, high: 2 }, Pair { low: 3, high: 4 });
        assert_eq!(PAIR.at_run_time(&old, &new), Pair { low: 3, high: 2 });
        let differences = PAIR.differences(&old, &new);
        assert_eq!(
            differences.iter().map(|one| (one.key, one.applies)).collect::<Vec<_>>(),
            [("pair.low", Applies::AtOnce), ("pair.high", Applies::AtRestart),]
        );
    }
}
