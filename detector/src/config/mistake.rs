//! What is wrong with a file: every mistake with its place, key, value and the rule that it breaks.

pub(super) mod nearest;

use std::{
    fmt::{self, Display},
    io,
};

use serde::Serialize;
use thiserror::Error;

use crate::text;

/// Mistakes of one file that are kept; the rest is counted.
pub const MAX_MISTAKES: usize = 100;

/// Characters of a value that a message shows.
const SHOWN_VALUE: usize = 60;

/// Characters of a foreign reason that a message shows.
const SHOWN_REASON: usize = 300;

/// A place in a file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// Where it is; `None`: the file as a whole.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// Path of the key, such as `events.podBudget.burst`; `None`: no key is meant.
    pub key: Option<String>,
    /// What stands there, shortened and on one line; `None`: nothing, or nothing that can be shown.
    pub value: Option<String>,
    /// What should be there.
    pub rule: String,
}

impl Mistake {
    /// About the file as a whole.
    pub(super) fn of_file(rule: impl Display) -> Self {
        Self { position: None, key: None, value: None, rule: rule.to_string() }
    }

    /// About a place that belongs to no key.
    pub(super) fn at(position: Position, rule: impl Display) -> Self {
        Self { position: Some(position), ..Self::of_file(rule) }
    }

    /// About a place that the parser of YAML stumbles over.
    pub(super) fn no_yaml(position: Position, said: &str) -> Self {
        Self::at(position, format_args!("no YAML: {}", on_one_line(said, SHOWN_REASON)))
    }

    /// About a key.
    pub(super) fn of_key(position: Position, key: &str, value: Option<&str>, rule: impl Display) -> Self {
        Self { key: Some(shown(key)), value: value.map(shown), ..Self::at(position, rule) }
    }
}

impl Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}: ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        if let Some(value) = &self.value {
            write!(f, "`{value}`: ")?;
        }
        f.write_str(&self.rule)
    }
}

/// All mistakes of one file, in the order of the file. There is at least one.
#[derive(Debug, Error)]
pub struct Mistakes {
    /// The file as messages name it.
    file: String,
    /// The first [`MAX_MISTAKES`].
    list: Vec<Mistake>,
    /// How many more there are.
    left_out: usize,
    #[source]
    cause: Option<io::Error>,
}

impl Mistakes {
    pub(super) fn new(file: &str, mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|mistake| mistake.position);
        let left_out = list.len().saturating_sub(MAX_MISTAKES);
        list.truncate(MAX_MISTAKES);
        Self { file: shown(file), list, left_out, cause: None }
    }

    /// A file that cannot be read.
    pub(super) fn unreadable(file: &str, error: io::Error) -> Self {
        let list = vec![Mistake::of_file(format_args!("cannot be read: {error}"))];
        Self { cause: Some(error), ..Self::new(file, list) }
    }

    /// The file as messages name it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The first [`MAX_MISTAKES`] of them.
    #[must_use]
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }

    /// All of them, counted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len() + self.left_out
    }

    /// One line for each, each with the name of the file.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let mistakes = self.list.iter().map(|mistake| match mistake.position {
            Some(_) => format!("{}:{mistake}", self.file),
            None => format!("{}: {mistake}", self.file),
        });
        let rest = (self.left_out > 0).then(|| format!("{}: and {} more mistakes", self.file, self.left_out));
        mistakes.chain(rest)
    }
}

impl Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.lines().enumerate() {
            let gap = if number == 0 { "" } else { "\n" };
            write!(f, "{gap}{line}")?;
        }
        Ok(())
    }
}

/// Foreign text on one line, shortened: nothing in it can break a line, move a cursor or turn the direction of writing.
pub(super) fn shown(text: &str) -> String {
    on_one_line(text, SHOWN_VALUE)
}

/// The same, of at most `most` characters.
pub(super) fn on_one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    for (number, character) in text.chars().enumerate() {
        if number == most {
            line.push(text::CUT);
            break;
        }
        if text::disturbs(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(line: usize) -> Mistake {
        Mistake::of_key(Position { line, column: 3 }, "log.level", Some("loud"), "must be quiet")
    }

    #[test]
    fn mistakes_stand_in_the_order_of_the_file_and_those_of_the_whole_file_first() {
        let mistakes = Mistakes::new("a.yaml", vec![mistake(7), mistake(2), Mistake::of_file("is empty")]);
        insta::assert_snapshot!(mistakes, @r"
        a.yaml: is empty
        a.yaml:2:3: log.level: `loud`: must be quiet
        a.yaml:7:3: log.level: `loud`: must be quiet
        ");
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted() {
        let mistakes = Mistakes::new("a", (1..=MAX_MISTAKES + 2).map(mistake).collect());
        assert_eq!((mistakes.count(), mistakes.list().len()), (MAX_MISTAKES + 2, MAX_MISTAKES));
        assert_eq!(mistakes.lines().last().as_deref(), Some("a: and 2 more mistakes"));
    }

    #[test]
    fn foreign_text_cannot_break_a_line_or_grow_without_end() {
        assert_eq!(shown("a\nb\u{1b}[31m\u{202e}"), "a\\nb\\u{1b}[31m\\u{202e}");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), SHOWN_VALUE + 1);
    }
}
