//! Complaints of the judges: what must be, what is, and how many of them are worth printing.

use std::{
    collections::BTreeSet,
    fmt::{Debug, Display},
};

/// Complaints about one case that are printed at the most.
const MOST: usize = 6;

/// What is wrong with one case, method and happening.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    wrong: Vec<String>,
    /// What is unknown is no complaint.
    lenient: bool,
}

impl Complaints {
    /// None yet. `lenient`: for a method that may say that it does not know.
    pub(crate) fn new(lenient: bool) -> Self {
        Self { wrong: Vec::new(), lenient }
    }

    /// `found` must be `expected`.
    pub(crate) fn differs<T: PartialEq + Debug>(&mut self, what: &str, expected: &T, found: &T) {
        if expected != found {
            self.wrong.push(format!("{what}: {expected:?}, not {found:?}"));
        }
    }

    /// `found` must be `expected`, or may be `unknown` for a method that need not know.
    pub(crate) fn known<T: PartialEq + Debug>(&mut self, what: &str, expected: &T, found: &T, unknown: &T) {
        if !(self.lenient && found == unknown) {
            self.differs(what, expected, found);
        }
    }

    /// `found` must be known, unless the method need not know.
    pub(crate) fn told<T>(&mut self, what: &str, found: Option<&T>) {
        if found.is_none() && !self.lenient {
            self.wrong.push(format!("{what} is unknown"));
        }
    }

    /// Complains unless `good`.
    pub(crate) fn unless(&mut self, good: bool, complaint: impl FnOnce() -> String) {
        if !good {
            self.wrong.push(complaint());
        }
    }

    /// Adds those about a part, each with its name before it.
    pub(crate) fn of(&mut self, part: impl Display, complaints: Self) {
        self.wrong.extend(complaints.wrong.into_iter().map(|text| format!("{part}: {text}")));
    }

    /// All, whole.
    pub(crate) fn all(self) -> Vec<String> {
        self.wrong
    }

    /// The first ones, each once, and how many there are more.
    pub(crate) fn shortened(mut self) -> Vec<String> {
        let mut known = BTreeSet::new();
        self.wrong.retain(|text| known.insert(text.clone()));
        if self.wrong.len() > MOST {
            let more = self.wrong.len() - MOST;
            self.wrong.truncate(MOST);
            self.wrong.push(format!("and {more} more"));
        }
        self.wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unknown_is_excused_for_those_who_need_not_know_and_the_wrong_for_nobody() {
        let complaints = |lenient, found| {
            let mut complaints = Complaints::new(lenient);
            complaints.known("x", &Some(1), &found, &None);
            complaints.all()
        };
        assert_eq!(complaints(true, None), Vec::<String>::new());
        assert_eq!(complaints(false, None), ["x: Some(1), not None"]);
        assert_eq!(complaints(true, Some(2)), ["x: Some(1), not Some(2)"]);
    }

    #[test]
    fn more_complaints_than_one_can_read_are_counted() {
        let mut complaints = Complaints::default();
        for number in 0..9 {
            complaints.differs("x", &-1, &number);
        }
        let shown = complaints.shortened();
        assert_eq!((shown.len(), shown[6].as_str()), (7, "and 3 more"));
    }
}
