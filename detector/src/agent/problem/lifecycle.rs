//! Life of a problem that has causes of its own: it is raised by the first and clear when the last has ended.
//!
//! ```text
//!               first cause begins
//!   ┌───────┐        Raised        ┌────────┐ ╮ a further cause begins, one of several ends,
//!   │ Clear │ ───────────────────▶ │ Raised │ │ a cause is told otherwise
//!   └───────┘ ◀─────────────────── └────────┘ ╯ Changed
//!                last cause ends
//!                    Cleared
//! ```
//!
//! | problem | cause is | we learn | told |
//! |---|---|---|---|
//! | clear | not known | it begins | `Raised` |
//! | raised | not known | it begins | `Changed` |
//! | raised | open | it begins, told the same | nothing |
//! | raised | open | it begins, told otherwise | `Changed` |
//! | any | ended | it begins, not later than its end | nothing: the account was late |
//! | any | not known, and [`MAX_CAUSES`] are open | it begins | nothing, but counted in [`Lifecycle::refused`] |
//! | raised | open | it ends, others are open | `Changed` |
//! | raised | open, the last one | it ends | `Cleared` |
//! | raised | open | it ends, earlier than it last began | nothing: the account was late |
//! | any | not known | it ends | nothing, but remembered |
//!
//! Accounts carry their time, so that their order does not matter: for each cause the latest counts. A cause that was
//! refused for want of room begins anew with its next account.

use std::collections::{BTreeMap, VecDeque};

/// Causes of one problem that are open at a time at most: what the rules of hung tasks can hold open
/// ([`super::hung_task::MAX_OPEN`]), once from before a restart and once from after it.
pub const MAX_CAUSES: usize = 2 * super::hung_task::MAX_OPEN;
/// Causes that are remembered after their end, against late accounts of them.
const MAX_ENDED: usize = 1024;

/// What an account did to the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It exists from now on.
    Raised,
    /// It exists still, but has other causes, or one that is told otherwise.
    Changed,
    /// It exists no more.
    Cleared,
}

/// One problem with its causes. `K` names a cause for ever, `C` tells what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle<K, C> {
    open: BTreeMap<K, Open<C>>,
    ended: VecDeque<(K, u64)>,
    refused: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Open<C> {
    /// Time of the first account of it, for the order in which causes are told.
    first_ns: u64,
    /// Time of the latest.
    last_ns: u64,
    cause: C,
}

impl<K, C> Default for Lifecycle<K, C> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), ended: VecDeque::new(), refused: 0 }
    }
}

impl<K: Ord + Clone, C: PartialEq> Lifecycle<K, C> {
    /// Takes in that cause `key` stands at the time `at_ns`, and is told as `cause`.
    pub fn begin(&mut self, key: K, cause: C, at_ns: u64) -> Option<Change> {
        if let Some(open) = self.open.get_mut(&key) {
            if at_ns < open.last_ns || (at_ns == open.last_ns && open.cause == cause) {
                open.first_ns = open.first_ns.min(at_ns);
                return None;
            }
            open.last_ns = at_ns;
            let before = std::mem::replace(&mut open.cause, cause);
            return (before != open.cause).then_some(Change::Changed);
        }
        if self.ended.iter().any(|(ended, end_ns)| *ended == key && at_ns <= *end_ns) {
            return None;
        }
        if self.open.len() >= MAX_CAUSES {
            self.refused = self.refused.saturating_add(1);
            return None;
        }
        let change = if self.open.is_empty() { Change::Raised } else { Change::Changed };
        self.open.insert(key, Open { first_ns: at_ns, last_ns: at_ns, cause });
        Some(change)
    }

    /// Takes in that cause `key` had ended at the time `at_ns`.
    pub fn end(&mut self, key: &K, at_ns: u64) -> Option<Change> {
        if self.open.get(key).is_some_and(|open| at_ns < open.last_ns) {
            return None;
        }
        self.remember(key, at_ns);
        self.open.remove(key)?;
        Some(if self.open.is_empty() { Change::Cleared } else { Change::Changed })
    }

    /// Whether the problem exists.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        !self.open.is_empty()
    }

    /// Causes that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no cause is open: the problem does not exist.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The cause that has been open for longest: the one to name where there is room for one.
    #[must_use]
    pub fn oldest(&self) -> Option<(&K, &C)> {
        let first = self.open.iter().min_by(|(a, x), (b, y)| (x.first_ns, a).cmp(&(y.first_ns, b)));
        first.map(|(key, open)| (key, &open.cause))
    }

    /// What is known of an open cause.
    #[must_use]
    pub fn cause(&self, key: &K) -> Option<&C> {
        self.open.get(key).map(|open| &open.cause)
    }

    /// Time of the latest account of an open cause.
    #[must_use]
    pub fn told_at(&self, key: &K) -> Option<u64> {
        self.open.get(key).map(|open| open.last_ns)
    }

    /// All open causes, in the order of their names.
    pub fn causes(&self) -> impl Iterator<Item = (&K, &C)> {
        self.open.iter().map(|(key, open)| (key, &open.cause))
    }

    /// Causes that have ended, as far as they are remembered.
    pub fn ended(&self) -> impl Iterator<Item = &K> {
        self.ended.iter().map(|(key, _)| key)
    }

    /// Accounts of causes that found no room, since the program started.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn remember(&mut self, key: &K, at_ns: u64) {
        if let Some((_, end_ns)) = self.ended.iter_mut().find(|(ended, _)| ended == key) {
            *end_ns = at_ns.max(*end_ns);
            return;
        }
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back((key.clone(), at_ns));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    type Problem = Lifecycle<u32, &'static str>;

    #[derive(Clone, Copy, Debug)]
    enum Account {
        Begin(u32, &'static str, u64),
        End(u32, u64),
    }
    use Account::{Begin, End};

    fn take(problem: &mut Problem, account: Account) -> Option<Change> {
        match account {
            Begin(key, cause, at_ns) => problem.begin(key, cause, at_ns),
            End(key, at_ns) => problem.end(&key, at_ns),
        }
    }

    /// The table in the head of this file, row by row.
    #[rstest]
    #[case::the_first_cause_raises(&[], Begin(1, "a", 5), Some(Change::Raised))]
    #[case::a_further_one_changes(&[Begin(1, "a", 5)], Begin(2, "b", 6), Some(Change::Changed))]
    #[case::the_same_again_is_nothing(&[Begin(1, "a", 5)], Begin(1, "a", 6), None)]
    #[case::a_duplicate_is_nothing(&[Begin(1, "a", 5)], Begin(1, "a", 5), None)]
    #[case::told_otherwise_changes(&[Begin(1, "a", 5)], Begin(1, "b", 6), Some(Change::Changed))]
    #[case::told_otherwise_but_late_is_nothing(&[Begin(1, "a", 5)], Begin(1, "b", 4), None)]
    #[case::begun_before_its_known_end_is_nothing(&[Begin(1, "a", 5), End(1, 9)], Begin(1, "a", 9), None)]
    #[case::begun_after_its_end_raises_anew(&[Begin(1, "a", 5), End(1, 9)], Begin(1, "a", 10), Some(Change::Raised))]
    #[case::an_end_told_first_holds(&[End(1, 9)], Begin(1, "a", 5), None)]
    #[case::one_of_two_ends(&[Begin(1, "a", 5), Begin(2, "b", 5)], End(1, 9), Some(Change::Changed))]
    #[case::the_last_one_clears(&[Begin(1, "a", 5)], End(1, 9), Some(Change::Cleared))]
    #[case::a_second_end_is_nothing(&[Begin(1, "a", 5), End(1, 9)], End(1, 10), None)]
    #[case::a_late_end_is_nothing(&[Begin(1, "a", 5)], End(1, 4), None)]
    #[case::the_end_of_a_stranger_is_nothing(&[Begin(1, "a", 5)], End(2, 9), None)]
    fn transition(#[case] before: &[Account], #[case] account: Account, #[case] told: Option<Change>) {
        let mut problem = Problem::default();
        for account in before {
            take(&mut problem, *account);
        }
        assert_eq!(take(&mut problem, account), told);
    }

    #[test]
    fn the_oldest_cause_is_the_one_to_name() {
        let mut problem = Problem::default();
        for (key, cause, at_ns) in [(3, "third", 7), (2, "first", 5), (1, "second", 6)] {
            problem.begin(key, cause, at_ns);
        }
        assert_eq!(problem.oldest(), Some((&2, &"first")));
        problem.end(&2, 9);
        assert_eq!(problem.oldest(), Some((&1, &"second")));
    }

    #[test]
    fn causes_beyond_the_limit_are_counted_and_begin_when_there_is_room() {
        let mut problem = Lifecycle::default();
        for key in 0..=MAX_CAUSES {
            problem.begin(key, (), 1);
        }
        assert_eq!((problem.len(), problem.refused()), (MAX_CAUSES, 1));
        assert_eq!(problem.end(&0, 2), Some(Change::Changed));
        assert_eq!(problem.begin(MAX_CAUSES, (), 3), Some(Change::Changed));
    }

    #[test]
    fn at_the_limit_of_causes_those_that_are_open_go_on_as_ever() {
        let mut problem = Lifecycle::default();
        for key in 0..MAX_CAUSES {
            problem.begin(key, "a", 1);
        }
        assert_eq!(problem.begin(MAX_CAUSES, "a", 2), None, "no room");
        assert_eq!(problem.begin(5, "b", 2), Some(Change::Changed));
        assert_eq!(problem.end(&MAX_CAUSES, 3), None, "the end of what found no room is the end of a stranger");
        for key in 1..MAX_CAUSES {
            assert_eq!(problem.end(&key, 3), Some(Change::Changed));
        }
        assert_eq!(problem.end(&0, 3), Some(Change::Cleared));
        assert_eq!(problem.begin(MAX_CAUSES, "a", 4), Some(Change::Raised));
        assert_eq!(problem.refused(), 1);
    }

    #[test]
    fn of_more_ends_than_are_remembered_the_oldest_are_forgotten() {
        let mut problem = Lifecycle::default();
        for key in 0..=MAX_ENDED {
            problem.end(&key, 9);
        }
        assert_eq!(problem.begin(1, (), 5), None, "its end is remembered");
        assert_eq!(problem.begin(0, (), 5), Some(Change::Raised), "its end is forgotten");
        assert_eq!(problem.end(&0, 9), Some(Change::Cleared));
    }

    #[test]
    fn what_is_remembered_of_ends_is_bounded() {
        let mut problem = Lifecycle::<usize, ()>::default();
        for key in 0..3 * MAX_ENDED {
            problem.end(&key, 1);
        }
        assert_eq!(problem.ended.len(), MAX_ENDED);
    }

    fn accounts() -> impl Strategy<Value = Vec<Account>> {
        // No two accounts of one cause at one time say different things: a task does not begin and end at once.
        let account = (0_u32..6, 0_u64..40, prop::sample::select(vec!["a", "b"])).prop_map(|(key, at_ns, cause)| {
            if at_ns % 2 == 0 { Begin(key, if at_ns % 4 == 0 { cause } else { "c" }, at_ns) } else { End(key, at_ns) }
        });
        prop::collection::vec(account, 0..60)
    }

    /// What the latest account of each cause says.
    fn truth(accounts: &[Account]) -> BTreeSet<u32> {
        let mut latest = BTreeMap::new();
        for account in accounts {
            let (key, at_ns, stands) = match *account {
                Begin(key, _, at_ns) => (key, at_ns, true),
                End(key, at_ns) => (key, at_ns, false),
            };
            let entry = latest.entry(key).or_insert((at_ns, stands));
            *entry = (*entry).max((at_ns, stands));
        }
        latest.into_iter().filter_map(|(key, (_, stands))| stands.then_some(key)).collect()
    }

    proptest! {
        #[test]
        fn no_two_raises_without_a_clear_and_no_clear_without_an_end(accounts in accounts()) {
            let mut problem = Problem::default();
            for account in accounts {
                let before = problem.is_raised();
                let change = take(&mut problem, account);
                match change {
                    Some(Change::Raised) => prop_assert!(!before && matches!(account, Begin(..))),
                    Some(Change::Cleared) => prop_assert!(before && matches!(account, End(..))),
                    Some(Change::Changed) => prop_assert!(before && problem.is_raised()),
                    None => prop_assert_eq!(before, problem.is_raised()),
                }
                prop_assert_eq!(problem.is_raised(), !problem.is_empty());
            }
        }

        #[test]
        fn nothing_is_lost_in_any_order(accounts in accounts()) {
            let mut problem = Problem::default();
            for account in &accounts {
                take(&mut problem, *account);
            }
            let open: BTreeSet<u32> = problem.causes().map(|(key, _)| *key).collect();
            prop_assert_eq!(open, truth(&accounts));
        }

        #[test]
        fn duplicates_do_nothing(accounts in accounts(), repeated in any::<prop::sample::Index>()) {
            let mut problem = Problem::default();
            for account in &accounts {
                take(&mut problem, *account);
            }
            if !accounts.is_empty() {
                let before: Vec<u32> = problem.causes().map(|(key, _)| *key).collect();
                let change = take(&mut problem, accounts[repeated.index(accounts.len())]);
                let after: Vec<u32> = problem.causes().map(|(key, _)| *key).collect();
                prop_assert_eq!(before, after);
                prop_assert!(!matches!(change, Some(Change::Raised | Change::Cleared)));
            }
        }
    }
}
