//! Which containers have names in the map, and what is to be written there: pure.

use std::collections::{BTreeMap, BTreeSet};

use detector_common::last_words::{CONTAINERS, Cgroup, NAMES, Names};

use super::Naming;

/// A change of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Put(Cgroup, Box<Names>),
    Remove(Cgroup),
}

/// What stands in the map.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Container → its cgroup.
    containers: BTreeMap<String, Cgroup>,
    /// What an earlier program wrote, and nobody told of since. Ids of cgroups do not come again, so that it does no harm.
    left: BTreeSet<Cgroup>,
    refused: u64,
}

impl Book {
    /// Of a map that holds these.
    pub(super) fn with(left: impl Iterator<Item = Cgroup>) -> Self {
        Self { left: left.collect(), ..Self::default() }
    }

    /// What is to be written after this.
    pub(super) fn hear(&mut self, naming: Naming) -> Vec<Write> {
        match naming {
            Naming::Named { container, cgroup, names } => self.name(container, cgroup, &names),
            Naming::Gone { container } => self.containers.remove(&container).map(Write::Remove).into_iter().collect(),
        }
    }

    /// Names that found no room since the last call.
    pub(super) const fn take_refused(&mut self) -> u64 {
        std::mem::replace(&mut self.refused, 0)
    }

    fn name(&mut self, container: String, cgroup: Cgroup, names: &str) -> Vec<Write> {
        let mut writes = Vec::new();
        // A container that starts again has another cgroup.
        if let Some(before) = self.containers.remove(&container).filter(|before| *before != cgroup) {
            writes.push(Write::Remove(before));
        }
        let Some(names) = filled(names).or_else(|| filled(&uid(names)?)) else { return writes };
        self.left.remove(&cgroup);
        if self.containers.len() + self.left.len() >= CONTAINERS as usize {
            let Some(oldest) = self.left.pop_first() else {
                self.refused += 1;
                return writes;
            };
            writes.push(Write::Remove(oldest));
        }
        self.containers.insert(container, cgroup);
        writes.push(Write::Put(cgroup, Box::new(names)));
        writes
    }
}

/// Of names that are too long the one that cannot be, and names the pod for sure.
fn uid(names: &str) -> Option<String> {
    names.split_ascii_whitespace().find(|word| word.starts_with("uid=")).map(|uid| format!("{uid} "))
}

/// The text as the map holds it; `None` if there is none, or it is too long: cut, it would name somebody else.
fn filled(names: &str) -> Option<Names> {
    let mut filled = [0; NAMES];
    let room = filled.get_mut(..names.len()).filter(|room| !room.is_empty() && room.len() < NAMES)?;
    room.copy_from_slice(names.as_bytes());
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(container: &str, cgroup: Cgroup) -> Naming {
        Naming::Named { container: container.to_owned(), cgroup, names: format!("pod=n/p/{container} ") }
    }

    fn gone(container: &str) -> Naming {
        Naming::Gone { container: container.to_owned() }
    }

    fn put(container: &str, cgroup: Cgroup) -> Write {
        Write::Put(cgroup, Box::new(filled(&format!("pod=n/p/{container} ")).expect("short")))
    }

    #[test]
    fn names_come_with_the_container_and_go_with_it() {
        let mut book = Book::default();
        assert_eq!(book.hear(named("a", 7)), [put("a", 7)]);
        assert_eq!(book.hear(gone("a")), [Write::Remove(7)]);
        assert_eq!(book.hear(gone("a")), []);
    }

    #[test]
    fn a_container_in_a_new_cgroup_leaves_the_old_one() {
        let mut book = Book::default();
        book.hear(named("a", 7));
        assert_eq!(book.hear(named("a", 8)), [Write::Remove(7), put("a", 8)]);
        assert_eq!(book.hear(named("a", 8)), [put("a", 8)]);
    }

    #[test]
    fn what_an_earlier_program_left_makes_room_first() {
        let mut book = Book::with(1..=u64::from(CONTAINERS));
        assert_eq!(book.hear(named("a", 5)), [put("a", 5)]);
        assert_eq!(book.hear(named("b", 90_000)), [Write::Remove(1), put("b", 90_000)]);
    }

    #[test]
    fn beyond_the_room_names_are_refused_and_counted() {
        let mut book = Book::default();
        for number in 0..u64::from(CONTAINERS) {
            assert_eq!(book.hear(named(&number.to_string(), number + 1)).len(), 1);
        }
        assert_eq!(book.hear(named("one more", 1_000_000)), []);
        assert_eq!((book.take_refused(), book.take_refused()), (1, 0));
        book.hear(gone("3"));
        assert_eq!(book.hear(named("one more", 1_000_000)), [put("one more", 1_000_000)]);
    }

    #[test]
    fn of_names_that_are_too_long_the_uid_is_kept() {
        let pod = ("n".repeat(63), "p".repeat(253), "c".repeat(63));
        let names = crate::contract::last_words::names(Some((&pod.0, &pod.1, &pod.2)), Some("u-1"));
        let written = Book::default().hear(Naming::Named { container: "a".to_owned(), cgroup: 1, names });
        assert_eq!(written, [Write::Put(1, Box::new(filled("uid=u-1 ").expect("short")))]);
    }

    #[test]
    fn what_does_not_fit_is_not_cut() {
        let mut book = Book::default();
        let long = |length| Naming::Named { container: "a".to_owned(), cgroup: 1, names: "x".repeat(length) };
        assert_eq!(book.hear(long(NAMES)), []);
        assert_eq!(book.hear(long(0)), []);
        assert_eq!(book.hear(long(NAMES - 1)).len(), 1);
    }
}
