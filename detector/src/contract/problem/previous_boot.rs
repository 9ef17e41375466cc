//! How the boot before ended: the message of the agent's condition, which the controller reads as evidence.
//!
//! ```text
//! The boot before (BOOT-ID) ended in a kernel panic at 2026-11-22T12:00:00Z, by pstore (erst): LINE | LINE
//! ```
//!
//! The lines are the kernel's own, the decisive ones first: the panic, our last words, the signature. A program can have put
//! words into them, so none can hold what stands between two: `|` becomes `¦`. Whoever reads them treats them like lines that
//! came over netconsole. What stands in parentheses or after `at` is missing where it is not
//! known (`The boot before ended ...`).

use jiff::Timestamp;

/// How the boot before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A record of a panic was found.
    Panic,
    /// The agent ran until the end, and there was no shutdown.
    Unclean,
    /// It was shut down.
    Clean,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Panic, Self::Unclean, Self::Clean];

    /// Its words in the message.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Panic => "in a kernel panic",
            Self::Unclean => "without a shutdown",
            Self::Clean => "in order",
        }
    }

    /// Reason of the condition.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Panic => "KernelPanic",
            Self::Unclean => "UncleanShutdown",
            Self::Clean => "PreviousBootEndedInOrder",
        }
    }
}

/// What the node found out about the boot before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousBoot {
    /// How it ended.
    pub end: End,
    /// Its id, if the node still knew it.
    pub boot_id: Option<String>,
    /// When, as precisely as the record tells.
    pub at: Option<Timestamp>,
    /// What tells it: `pstore (erst)`, `kdump (/var/crash/...)`, `boot id`.
    pub witness: String,
    /// Lines of the kernel, the decisive ones first.
    pub lines: Vec<String>,
}

/// What stands between two lines.
const BETWEEN: &str = " | ";

impl PreviousBoot {
    /// The message, of at most `bytes` bytes. The first line is cut if it does not fit; others that do not are left out, for
    /// what was cut could name somebody else.
    #[must_use]
    pub fn message(&self, bytes: usize) -> String {
        let mut text = String::from("The boot before");
        if let Some(id) = &self.boot_id {
            text.push_str(&format!(" ({id})"));
        }
        text.push_str(&format!(" ended {}", self.end.words()));
        if let Some(at) = self.at {
            text.push_str(&format!(" at {at:.0}"));
        }
        text.push_str(&format!(", by {}", self.witness));
        for (index, line) in self.lines.iter().map(|line| on_one_line(line)).enumerate() {
            let between = if index == 0 { ": " } else { BETWEEN };
            if index == 0 || text.len() + between.len() + line.len() <= bytes {
                text.push_str(between);
                text.push_str(&line);
            }
        }
        text.truncate(text.floor_char_boundary(bytes));
        text
    }

    /// Reads a message. `None`: it is none of ours.
    #[must_use]
    pub fn read(message: &str) -> Option<Self> {
        let rest = message.strip_prefix("The boot before ")?;
        let (boot_id, rest) = match rest.strip_prefix('(') {
            Some(rest) => rest.split_once(") ").map(|(id, rest)| (Some(id.to_owned()), rest))?,
            None => (None, rest),
        };
        let rest = rest.strip_prefix("ended ")?;
        let (end, rest) = End::ALL.into_iter().find_map(|end| Some((end, rest.strip_prefix(end.words())?)))?;
        let (at, rest) = match rest.strip_prefix(" at ") {
            Some(rest) => rest.split_once(", ").map(|(at, rest)| (at.parse().ok(), rest))?,
            None => (None, rest.strip_prefix(", ")?),
        };
        let (witness, lines) = rest.strip_prefix("by ")?.split_once(": ").unwrap_or((rest.strip_prefix("by ")?, ""));
        let lines = lines.split(BETWEEN).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Some(Self { end, boot_id, at, witness: witness.to_owned(), lines })
    }
}

/// `line` without what would make two of it.
fn on_one_line(line: &str) -> String {
    let safe = |c: char| match c {
        '|' => '¦',
        c if c.is_control() => ' ',
        c => c,
    };
    line.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn found(end: End, lines: &[&str]) -> PreviousBoot {
        PreviousBoot {
            end,
            boot_id: Some("0f3c7a52-11aa-4b5c-9c7e-000000000000".to_owned()),
            at: Some("2026-11-22T12:00:00Z".parse().expect("a time")),
            witness: "pstore (erst)".to_owned(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[rstest]
    #[case::panic(End::Panic, &["Kernel panic - not syncing: sysrq triggered crash", "detector: last words v1 role=sysrq"])]
    #[case::unclean(End::Unclean, &[])]
    #[case::clean(End::Clean, &[])]
    fn a_message_is_read_as_it_was_written(#[case] end: End, #[case] lines: &[&str]) {
        let found = found(end, lines);
        assert_eq!(PreviousBoot::read(&found.message(1024)), Some(found));
    }

    #[test]
    fn what_is_not_known_is_missing() {
        let found = PreviousBoot { boot_id: None, at: None, ..found(End::Unclean, &[]) };
        assert_eq!(found.message(1024), "The boot before ended without a shutdown, by pstore (erst)");
        assert_eq!(PreviousBoot::read(&found.message(1024)), Some(found));
    }

    #[test]
    fn a_long_message_loses_its_last_lines() {
        let found = found(End::Panic, &["Kernel panic - not syncing: x", &"ü".repeat(2000)]);
        let message = found.message(1024);
        assert!(message.len() <= 1024);
        assert_eq!(PreviousBoot::read(&message).expect("ours").lines[0], "Kernel panic - not syncing: x");
    }

    #[test]
    fn a_line_cannot_make_another() {
        let found = found(End::Panic, &["Kernel panic - not syncing: x", "a | Oops: b[1]: segfault | | "]);
        let read = PreviousBoot::read(&found.message(1024)).expect("ours");
        assert_eq!(read.lines, ["Kernel panic - not syncing: x", "a ¦ Oops: b[1]: segfault ¦ ¦ "]);
    }

    proptest! {
        #[test]
        fn no_more_lines_are_read_than_written_and_none_is_another(
            lines in prop::collection::vec("[a |:,(]{1,12}|\\PC{1,300}", 0..9),
        ) {
            let found = PreviousBoot { lines, ..found(End::Panic, &[]) };
            let read = PreviousBoot::read(&found.message(1024)).expect("ours").lines;
            let mut written = found.lines.iter().map(|line| on_one_line(line));
            prop_assert!(read.iter().take(1).all(|first| written.next().is_some_and(|line| line.starts_with(first))));
            prop_assert!(read.iter().skip(1).all(|line| written.any(|written| written == *line)));
        }
    }

    #[rstest]
    #[case("")]
    #[case("The boot before")]
    #[case("The boot before (x ended in order, by y")]
    #[case("The boot before ended badly, by y")]
    fn a_foreign_message_is_none_of_ours(#[case] message: &str) {
        assert_eq!(PreviousBoot::read(message), None);
    }
}
