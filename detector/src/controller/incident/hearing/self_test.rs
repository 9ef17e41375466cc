//! Lines by which nodes try out whether they are heard.
//!
//! A line counts if it came from the Node that it names, so that a success says more than that a packet arrived: last words
//! on the same way would be this Node's.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::contract::netconsole::{MAX_NONCE_BYTES, SELF_TEST_MARK};

/// How long a test is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(600);

/// Tests of one Node that are remembered.
pub const MAX_PER_NODE: usize = 4;

/// Tests that were heard. Clones share them: one for the receiver, one for whoever answers
/// [`crate::contract::netconsole::HEARD_PATH`].
#[derive(Clone, Debug, Default)]
pub struct SelfTests(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    at: HashMap<String, Duration>,
    /// Nonces of each Node, the oldest first.
    nodes: HashMap<String, VecDeque<String>>,
}

impl SelfTests {
    /// Whether a test with this nonce was heard within [`REMEMBERED`] before `now` ([`crate::clock::boot_ns`]).
    #[must_use]
    pub fn heard(&self, nonce: &str, now: Duration) -> bool {
        self.lock().at.get(nonce).is_some_and(|at| now.saturating_sub(*at) <= REMEMBERED)
    }

    pub(super) fn remember(&self, node: &str, nonce: &str, now: Duration) {
        let mut heard = self.lock();
        let Heard { at, nodes } = &mut *heard;
        if at.insert(nonce.to_owned(), now).is_some() {
            return;
        }
        let nonces = nodes.entry(node.to_owned()).or_default();
        nonces.push_back(nonce.to_owned());
        if nonces.len() > MAX_PER_NODE
            && let Some(oldest) = nonces.pop_front()
        {
            at.remove(&oldest);
        }
    }

    /// The Node is gone.
    pub(super) fn forget(&self, node: &str) {
        let mut heard = self.lock();
        for nonce in heard.nodes.remove(node).unwrap_or_default() {
            heard.at.remove(&nonce);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Node and nonce of a test. `None`: the line is none.
pub(super) fn read(text: &str) -> Option<(&str, &str)> {
    let (node, nonce) = text.strip_prefix(SELF_TEST_MARK)?.trim_end().split_once(' ')?;
    let valid = (1..=MAX_NONCE_BYTES).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric());
    valid.then_some((node, nonce))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("detector: netconsole self test node-a 4f", Some(("node-a", "4f")))]
    #[case("detector: netconsole self test node-a 4f\n", Some(("node-a", "4f")))]
    #[case("detector: netconsole self test node-a", None)]
    #[case("detector: netconsole self test node-a ", None)]
    #[case("detector: netconsole self test node-a x y", None)]
    #[case("detector: netconsole self test node-a 000102030405060708090a0b0c0d0e0f1", None)]
    #[case("x detector: netconsole self test node-a 4f", None)]
    fn a_test_is_read_only_in_its_own_form(#[case] text: &str, #[case] expected: Option<(&str, &str)>) {
        assert_eq!(read(text), expected);
    }

    #[test]
    fn a_test_is_remembered_for_ten_minutes_and_no_more_than_a_few_of_a_node() {
        let tests = SelfTests::default();
        let handle = tests.clone();
        let second = Duration::from_secs;
        for number in 0..10 {
            tests.remember("a", &format!("a{number}"), second(number));
        }
        tests.remember("b", "b", second(5));
        let heard: Vec<_> = (0..10).filter(|number| handle.heard(&format!("a{number}"), second(10))).collect();
        assert_eq!(heard, [6, 7, 8, 9]);
        assert!(handle.heard("b", second(605)) && !handle.heard("b", second(606)));
        assert!(!handle.heard("", second(0)));
        tests.forget("a");
        assert!(!handle.heard("a9", second(10)) && handle.heard("b", second(10)));
        let memory = tests.lock();
        assert_eq!((memory.at.len(), memory.nodes.len()), (1, 1));
    }
}
