//! Which write comes next: first events before updates, pods in turn, all within the budgets. Half of each budget's burst
//! is kept for first events: after a storm of updates a new reason or another container is still told at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Events, SERIES,
    pace::Bucket,
    series::{Key, Series},
};
use crate::config::Budget;

/// A first event that failed so often has no precedence any more: one that the server cannot take must not keep updates
/// of others from it for ever.
const PATIENCE: u32 = 3;

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// Write this series.
    Now(Key),
    /// Look again at this time, nanoseconds since boot.
    Later(u64),
    /// There is nothing to write.
    Nothing,
}

impl Events {
    pub(super) fn pick(&mut self, now_ns: u64) -> Pick {
        let (node_budget, pod_budget) = (self.settings.node_budget, self.settings.pod_budget);
        let node_first = self.node.available_at(node_budget, 0, now_ns);
        let node_update = self.node.available_at(node_budget, node_budget.burst / 2, now_ns);
        let mut best: Option<(Rank, &Key)> = None;
        let mut soonest: Option<u64> = None;
        for (key, series) in self.series.iter_mut().filter(|(_, series)| series.is_due()) {
            let (node_at, settled_at, reserve) = if series.is_new() {
                (node_first, 0, 0)
            } else {
                (node_update, series.settles_ns, pod_budget.burst / 2)
            };
            let (pod_at, last_turn) = self.owners.look(&key.owner, pod_budget, reserve, now_ns);
            let budget_at = node_at.max(pod_at);
            let other_at = settled_at.max(series.not_before_ns).max(self.backoff.until_ns);
            if budget_at > now_ns && other_at <= now_ns && !series.held_up {
                series.held_up = true;
                let (node, pod) = (&mut self.counts.refused_by_node_budget, &mut self.counts.refused_by_pod_budget);
                *if pod_at > node_at { pod } else { node } += 1;
            }
            let at = budget_at.max(other_at);
            if at > now_ns {
                soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
                continue;
            }
            let rank = Rank { is_later: !has_precedence(series), last_turn, order: series.order };
            if best.as_ref().is_none_or(|(best, _)| rank < *best) {
                best = Some((rank, key));
            }
        }
        match best {
            Some((_, key)) => Pick::Now(key.clone()),
            None => soonest.map_or(Pick::Nothing, Pick::Later),
        }
    }
}

/// The least comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_later: bool,
    last_turn: u64,
    order: u64,
}

fn has_precedence(series: &Series) -> bool {
    series.is_new() && series.failures < PATIENCE
}

/// Those who had a write lately: their budgets, and when their last turn was. Who is not here has a full budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owners {
    known: BTreeMap<String, Turn>,
    /// Turns so far.
    turns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Turn {
    bucket: Bucket,
    last: u64,
}

impl Owners {
    pub(super) fn restored(self, budget: Budget, now_ns: u64) -> Self {
        let restored =
            |(owner, turn): (String, Turn)| (owner, Turn { bucket: turn.bucket.restored(budget, now_ns), ..turn });
        Self { known: self.known.into_iter().take(SERIES).map(restored).collect(), turns: self.turns }
    }

    /// When `owner` may write so that `reserve` more writes remain, and the number of its last turn.
    fn look(&mut self, owner: &str, budget: Budget, reserve: u32, now_ns: u64) -> (u64, u64) {
        let available = |turn: &mut Turn| (turn.bucket.available_at(budget, reserve, now_ns), turn.last);
        self.known.get_mut(owner).map_or((now_ns, 0), available)
    }

    pub(super) fn take(&mut self, owner: &str, budget: Budget, now_ns: u64) {
        self.turns += 1;
        if self.known.len() >= SERIES {
            self.known.retain(|_, turn| !turn.bucket.is_full(budget, now_ns));
        }
        // Only settings that allow the node far more than its pods come here.
        if self.known.len() >= SERIES
            && let Some(longest_ago) =
                self.known.iter().min_by_key(|(_, turn)| turn.last).map(|(owner, _)| owner.clone())
        {
            self.known.remove(&longest_ago);
        }
        let fresh = Turn { bucket: Bucket::full(budget), last: 0 };
        let turn = self.known.entry(owner.to_owned()).or_insert(fresh);
        turn.bucket.take(budget, now_ns);
        turn.last = self.turns;
    }

    /// The write did not come to stand; the turn is over all the same.
    pub(super) fn give_back(&mut self, owner: &str, budget: Budget) {
        if let Some(turn) = self.known.get_mut(owner) {
            turn.bucket.give_back(budget);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            Action, Next, REFUSALS,
            tests::{BOOT, SECOND, done, failed, hang, identity, kill, pod, queue, waits, write, written},
        },
        *,
    };
    use crate::{
        agent::sink::report::{HangEdge, KillReport, Subject},
        config,
        contract::event::Reason,
    };

    /// The kill of another container of that pod.
    fn sidecar(sequence: u64, name: &str, at_ns: u64) -> KillReport {
        kill(sequence, Subject { container: Some("sidecar".to_owned()), ..pod(name) }, at_ns)
    }

    #[test]
    fn an_event_that_the_server_answers_with_an_error_delays_no_other() {
        for status in [500, 409, 403] {
            let mut events = queue();
            events.kill(&kill(1, pod("poison"), SECOND), SECOND);
            let mut now = SECOND;
            for _ in 0..8 {
                assert!(write(&mut events, now).name.starts_with("poison."));
                events.done(&failed(status), now);
                now = waits(&mut events, now);
            }
            write(&mut events, now);
            events.done(&failed(status), now);
            events.kill(&kill(2, pod("cart"), now), now);
            let at = waits(&mut events, now);
            assert!(at <= now + SECOND / 4, "{status}: {} ms", (at - now) / 1_000_000);
            assert!(written(&mut events, at).name.starts_with("cart."), "{status}");
            let again = waits(&mut events, at);
            assert!(again > at + 20 * SECOND, "{status}: the poison itself waits longer and longer");
        }
    }

    #[test]
    fn events_that_fail_for_themselves_are_not_asked_for_without_a_pause() {
        let mut events = queue();
        for number in 0..40 {
            events.kill(&kill(number, pod(&format!("pod-{number}")), SECOND), SECOND);
        }
        let (mut now, mut asked) = (SECOND, 0);
        while now < 61 * SECOND {
            match events.next(now) {
                Next::Write(_) => {
                    events.done(&failed(403), now);
                    asked += 1;
                }
                Next::At(at) => now = at,
                Next::Nothing => panic!("all of them wait"),
            }
        }
        assert!((40..=4 * 60).contains(&asked), "{asked}");
    }

    #[test]
    fn what_is_forbidden_for_a_while_is_told_when_it_is_allowed() {
        let mut events = queue();
        events.kill(&kill(1, pod("cart"), SECOND), SECOND);
        let mut now = SECOND;
        for _ in 0..REFUSALS - 1 {
            write(&mut events, now);
            events.done(&failed(403), now);
            now = waits(&mut events, now);
        }
        assert!(now > 15 * 60 * SECOND, "an operator has time: {} s", now / SECOND);
        written(&mut events, now);
        assert_eq!(events.counts().dropped, 0);
    }

    #[test]
    fn what_is_forbidden_for_half_an_hour_is_given_up_and_counted() {
        let mut events = queue();
        events.kill(&kill(1, pod("cart"), SECOND), SECOND);
        events.kill(&kill(2, pod("cart"), SECOND), SECOND);
        let (mut now, mut asked) = (SECOND, 0);
        loop {
            match events.next(now) {
                Next::Write(_) => events.done(&failed(403), now),
                Next::At(at) => {
                    now = at;
                    continue;
                }
                Next::Nothing => break,
            }
            asked += 1;
        }
        assert_eq!((asked, events.counts().dropped, events.counts().waiting), (REFUSALS, 2, 0));
        assert!((15 * 60 * SECOND..45 * 60 * SECOND).contains(&now), "{} s", now / SECOND);
    }

    #[test]
    fn an_outage_does_not_count_as_a_refusal() {
        let mut events = queue();
        events.kill(&kill(1, pod("cart"), SECOND), SECOND);
        let mut now = SECOND;
        for attempt in 0..5 * REFUSALS {
            write(&mut events, now);
            events.done(&if attempt % 20 == 0 { failed(None) } else { failed(403) }, now);
            now = waits(&mut events, now);
        }
        written(&mut events, now);
        assert_eq!(events.counts().dropped, 0);
    }

    #[test]
    fn after_an_outage_what_is_forbidden_is_asked_again_soon() {
        let mut events = queue();
        events.kill(&kill(1, pod("cart"), SECOND), SECOND);
        let mut now = SECOND;
        for _ in 0..20 {
            write(&mut events, now);
            events.done(&failed(None), now);
            now = waits(&mut events, now);
        }
        write(&mut events, now);
        events.done(&failed(403), now);
        let again = waits(&mut events, now);
        assert!(again <= now + SECOND, "{} ms", (again - now) / 1_000_000);
    }

    #[test]
    fn updates_of_a_pod_leave_room_for_another_reason_and_another_container() {
        let mut events = queue();
        events.kill(&kill(1, pod("cart"), SECOND), SECOND);
        written(&mut events, SECOND);
        let mut now = 400 * SECOND;
        for sequence in 2..=4 {
            events.kill(&kill(sequence, pod("cart"), now), now);
            now = waits(&mut events, now);
            assert_eq!(written(&mut events, now).action, Action::Update);
        }
        events.kill(&kill(5, pod("cart"), now), now);
        events.kill(&KillReport { process: "init".to_owned(), ..kill(6, pod("cart"), now) }, now);
        events.kill(&sidecar(7, "cart", now), now);
        events.hang(&hang(8, pod("cart"), HangEdge::Raised), now);
        let mut told: Vec<_> =
            (0..3).map(|_| written(&mut events, now)).map(|write| (write.action, write.reason)).collect();
        told.sort_by_key(|(_, reason)| *reason);
        let reasons = [Reason::ProcessOOMKilled, Reason::ContainerOOMKilled, Reason::TaskHung];
        assert_eq!(told, reasons.map(|reason| (Action::Create, reason)));
        assert!(waits(&mut events, now) > now + SECOND, "the update waits for its budget");
    }

    #[test]
    fn a_pod_has_a_budget_of_its_own() {
        let settings = config::Events {
            pod_budget: Budget { burst: 1, every: Duration::from_secs(60) },
            ..config::Events::default()
        };
        let mut events = Events::new(settings, identity(), BOOT);
        events.kill(&kill(1, pod("cart"), SECOND), SECOND);
        written(&mut events, SECOND);
        events.kill(&kill(2, pod("cart"), SECOND), SECOND);
        assert_eq!(events.next(10 * SECOND), Next::At(61 * SECOND));
        assert_eq!(events.counts().refused_by_pod_budget, 1);
        assert_eq!(events.counts().refused_by_node_budget, 0);
        events.kill(&kill(3, pod("other"), 10 * SECOND), 10 * SECOND);
        assert!(written(&mut events, 10 * SECOND).name.starts_with("other."), "the storm does not delay another pod");
        assert_eq!(written(&mut events, 61 * SECOND).body["series"]["count"], 2);
    }

    #[test]
    fn updates_leave_half_of_the_nodes_burst_to_first_events() {
        let settings = config::Events {
            pod_budget: Budget { burst: 1000, every: Duration::from_secs(1) },
            ..config::Events::default()
        };
        let mut events = Events::new(settings, identity(), BOOT);
        let mut now = SECOND;
        let mut writes = 0;
        for sequence in 1..100 {
            events.kill(&kill(sequence, pod("storm"), now), now);
            while let Next::Write(_) = events.next(now) {
                events.done(&done(), now);
                writes += 1;
            }
            now += SECOND / 10;
        }
        assert_eq!(writes, 5, "one new event and four updates in the first ten seconds");
        events.kill(&kill(1000, pod("quiet"), now), now);
        assert!(written(&mut events, now).name.starts_with("quiet."));
    }

    #[test]
    fn one_event_that_the_server_cannot_take_does_not_stop_the_others() {
        let mut events = queue();
        let mut now = SECOND;
        events.kill(&kill(1, pod("cart"), now), now);
        written(&mut events, now);
        events.kill(&kill(2, pod("cart"), now), now);
        events.kill(&kill(3, pod("poison"), now), now);
        let mut updated = false;
        for _ in 0..100 {
            match events.next(now) {
                Next::Write(write) if write.name.starts_with("poison") => events.done(&failed(None), now),
                Next::Write(_) => {
                    updated = true;
                    events.done(&done(), now);
                }
                Next::At(at) => now = at,
                Next::Nothing => panic!("the poison waits"),
            }
        }
        assert!(updated);
    }
}
