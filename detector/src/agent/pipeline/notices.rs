//! Notices, told once per kind and minute: the first at once, the others as a number later.

use std::collections::BTreeMap;

use crate::agent::{
    locate::LocateError,
    sink::{Notice, Stage},
};

/// How long a kind keeps silent after it was told.
pub(super) const SILENCE_NS: u64 = 60 * 1_000_000_000;

/// Holds back what was told less than a minute ago.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Stages and kinds are closed sets of words, so that this is bounded.
    kinds: BTreeMap<(&'static str, &'static str), Kind>,
}

#[derive(Debug)]
struct Kind {
    stage: Stage,
    silent_until: u64,
    waiting: Option<Notice>,
}

impl Notices {
    /// Something happened `count` times, at the time `boot_ns`. `message` is asked for only if it will be told.
    pub(super) fn add(
        &mut self,
        stage: Stage,
        kind: &'static str,
        count: u64,
        boot_ns: u64,
        message: impl FnOnce() -> String,
    ) {
        let entry = self.kinds.entry((stage.name(), kind)).or_insert(Kind { stage, silent_until: 0, waiting: None });
        match &mut entry.waiting {
            Some(waiting) => waiting.count += count,
            None => entry.waiting = Some(Notice { boot_ns, stage: entry.stage, kind, count, message: message() }),
        }
    }

    /// Takes the notices that may be told at the time `boot_ns`.
    pub(super) fn take_due(&mut self, boot_ns: u64) -> Vec<Notice> {
        self.take(|kind| kind.silent_until <= boot_ns, boot_ns)
    }

    /// Takes all notices: the end has come.
    pub(super) fn take_all(&mut self) -> Vec<Notice> {
        self.take(|_| true, 0)
    }

    /// How many of that kind wait to be told.
    pub(super) fn waiting(&self, stage: Stage, kind: &str) -> u64 {
        let found = self.kinds.iter().find(|((of, name), _)| *of == stage.name() && *name == kind);
        found.and_then(|(_, kind)| kind.waiting.as_ref()).map_or(0, |notice| notice.count)
    }

    /// When the next notice that is held back may be told, nanoseconds since boot.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.kinds.values().filter(|kind| kind.waiting.is_some()).map(|kind| kind.silent_until).min()
    }

    fn take(&mut self, due: impl Fn(&Kind) -> bool, boot_ns: u64) -> Vec<Notice> {
        let mut told = Vec::new();
        for kind in self.kinds.values_mut() {
            if due(kind)
                && let Some(notice) = kind.waiting.take()
            {
                kind.silent_until = boot_ns + SILENCE_NS;
                told.push(notice);
            }
        }
        told
    }
}

/// The word for an error of the locator.
pub(super) fn kind_of(error: &LocateError) -> &'static str {
    match error {
        LocateError::Hierarchy(_) => "hierarchy",
        LocateError::Walk(_) => "walk",
        LocateError::Names(_) => "names",
        LocateError::SlowNames(_) => "names_slow",
        LocateError::NoReader(_) => "names_unread",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(notices: &[Notice]) -> Vec<(&'static str, u64, &str)> {
        notices.iter().map(|notice| (notice.kind, notice.count, notice.message.as_str())).collect()
    }

    #[test]
    fn the_first_is_told_at_once_and_the_rest_as_a_number_after_a_minute() {
        let mut notices = Notices::default();
        notices.add(Stage::Decode, "short", 1, 10, || "first".into());
        assert_eq!(told(&notices.take_due(10)), [("short", 1, "first")]);
        for at in 11..14 {
            notices.add(Stage::Decode, "short", 1, at, || format!("at {at}"));
            assert_eq!(told(&notices.take_due(at)), []);
        }
        assert_eq!(notices.next_due(), Some(10 + SILENCE_NS));
        assert_eq!(told(&notices.take_due(10 + SILENCE_NS)), [("short", 3, "at 11")]);
        assert_eq!(notices.next_due(), None);
    }

    #[test]
    fn kinds_do_not_silence_each_other() {
        let mut notices = Notices::default();
        notices.add(Stage::Decode, "short", 1, 10, || "a".into());
        notices.take_due(10);
        notices.add(Stage::Decode, "abi", 1, 11, || "b".into());
        assert_eq!(told(&notices.take_due(11)), [("abi", 1, "b")]);
    }

    #[test]
    fn what_waits_can_be_asked_for_and_what_was_told_waits_no_more() {
        let mut notices = Notices::default();
        notices.add(Stage::Source, "oom_mark", 4, 10, || "a".into());
        assert_eq!(notices.waiting(Stage::Source, "oom_mark"), 4);
        notices.take_due(10);
        assert_eq!((notices.waiting(Stage::Source, "oom_mark"), notices.waiting(Stage::Source, "x")), (0, 0));
    }

    #[test]
    fn nothing_held_back_is_forgotten_at_the_end() {
        let mut notices = Notices::default();
        notices.add(Stage::Source, "ring_full", 4, 10, || "a".into());
        notices.take_due(10);
        notices.add(Stage::Source, "ring_full", 5, 11, || "b".into());
        assert_eq!(told(&notices.take_all()), [("ring_full", 5, "b")]);
    }
}
