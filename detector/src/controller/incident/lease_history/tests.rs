//! What a Lease tells, read by read.

use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(10);

/// Begin of each history, in seconds of our monotonic clock.
const BEGUN: u64 = 1_000;

/// The node's clock is so many seconds before ours.
const BEHIND: i64 = 3_600;

fn moment(second: u64) -> Moment {
    let since = Duration::from_secs(second);
    Moment { monotonic: since, boot: since, wall: Timestamp::from_second(1_000_000 + second.cast_signed()).unwrap() }
}

/// A renewal at our `second`, as the node's clock tells it.
fn renewal(second: u64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second.cast_signed() - BEHIND).unwrap()
}

fn reading(second: u64, lease: Lease) -> Reading {
    Reading { node: "node-a".to_owned(), asked: moment(second), answered: moment(second), lease }
}

fn there(renewed: Timestamp) -> Lease {
    Lease::There { renewed, interval: INTERVAL }
}

struct Story(LeaseHistory);

impl Story {
    fn begins() -> Self {
        Self(LeaseHistory::new("node-a", Duration::from_secs(BEGUN)))
    }

    /// Reads every two seconds from `from` to `to`, while the Lease was renewed last at `renewed`.
    fn reads(mut self, from: u64, to: u64, renewed: Timestamp) -> Self {
        for second in (from..=to).step_by(2) {
            self.0.take(&reading(second, there(renewed)));
        }
        self
    }

    fn tells(&self) -> Vec<&'static str> {
        let word = |evidence: Evidence| match evidence.fact {
            Fact::LeaseStale { .. } => "stale",
            Fact::LeaseFresh { .. } => "fresh",
            Fact::ClockStood => "stood",
            Fact::ClockWentOn => "went on",
            other => panic!("{other:?}"),
        };
        self.0.evidence(None, true).into_iter().map(word).collect()
    }
}

#[test]
fn a_lease_is_stale_when_it_was_seen_unchanged_for_two_intervals_and_their_tenth() {
    let story = Story::begins().reads(1000, 1020, renewal(999));
    assert_eq!(story.tells(), [""; 0]);
    let story = story.reads(1022, 1022, renewal(999));
    assert_eq!((story.tells(), story.0.view().missed()), (vec!["stale"], 2));
    let told = story.0.evidence(Some("b"), false);
    assert_eq!(told[0].at, moment(1022).wall);
    assert_eq!(story.reads(1024, 1060, renewal(999)).0.evidence(Some("b"), false), told, "told the same way again");
}

#[test]
fn the_age_of_a_renewal_by_the_nodes_clock_makes_nothing_stale() {
    let story = Story::begins().reads(1000, 1010, renewal(500));
    assert_eq!((story.tells(), story.0.view().missed()), (vec![], 0));
}

#[test]
fn a_time_in_which_the_server_was_not_heard_proves_nothing() {
    let mut story = Story::begins().reads(1000, 1002, renewal(999));
    for second in 1003..1100 {
        story.0.take(&reading(second, Lease::Unread { reason: String::new() }));
    }
    assert_eq!((story.tells(), story.0.view().missed()), (vec![], 0));
    // Asked at the end, and the answer was long on its way.
    let slow = Reading { answered: moment(1_200), ..reading(1_010, there(renewal(999))) };
    story.0.take(&slow);
    assert_eq!(story.0.view().missed(), 0);
}

#[test]
fn a_renewal_that_was_on_its_way_when_the_kernel_died_is_no_life() {
    let story = Story::begins().reads(1000, 1002, renewal(992)).reads(1004, 1010, renewal(1000));
    assert_eq!(story.tells(), [""; 0]);
    let story = story.reads(1012, 1026, renewal(1000));
    assert_eq!(story.tells(), ["stale"]);
}

#[test]
fn a_late_renewal_is_life_and_so_are_two_early_ones() {
    let late = Story::begins().reads(1000, 1016, renewal(999)).reads(1018, 1018, renewal(1017));
    assert_eq!(late.tells(), ["fresh"]);
    let two = Story::begins().reads(1000, 1002, renewal(992)).reads(1004, 1010, renewal(1002));
    let two = two.reads(1012, 1012, renewal(1012));
    assert_eq!(two.tells(), ["fresh"]);
}

#[test]
fn a_renewal_that_is_seen_late_may_have_come_early() {
    let mut story = Story::begins().reads(1000, 1000, renewal(992));
    story.0.take(&reading(1_090, there(renewal(1_000))));
    assert_eq!(story.tells(), [""; 0]);
}

#[test]
fn life_before_a_charge_says_nothing_about_it() {
    let mut story = Story::begins().reads(1000, 1060, renewal(999)).reads(1062, 1062, renewal(1061));
    assert_eq!(story.tells(), ["stale", "fresh", "went on"]);
    story.0.accuse(Duration::from_secs(1063));
    assert_eq!(story.tells(), [""; 0]);
    let mut silent = story.reads(1064, 1090, renewal(1061));
    silent.0.accuse(Duration::from_secs(1091));
    assert_eq!(silent.tells(), ["stale"], "a silence that goes on is known already");
    assert_eq!(silent.reads(1110, 1110, renewal(1109)).tells(), ["stale", "fresh", "went on"]);
}

#[test]
fn a_node_may_be_lost_back_and_lost_again() {
    let story = Story::begins().reads(1000, 1060, renewal(999)).reads(1062, 1062, renewal(1061));
    let (stale, fresh) = (story.0.evidence(None, false)[0].at, story.0.evidence(None, false)[1].at);
    assert!(stale < fresh);
    let story = story.reads(1064, 1084, renewal(1061));
    let again = story.0.evidence(None, false);
    assert_eq!(story.tells(), ["fresh", "stale"], "the last one holds");
    assert!(story.0.is_stale() && again[0].at < again[1].at, "{again:?}");
    let back = story.reads(1086, 1086, renewal(1085));
    let back = back.0.evidence(None, false);
    assert!(back[0].at < back[1].at, "{back:?}");
}

#[test]
fn a_clock_that_went_on_and_one_that_stood_are_told_apart_whatever_they_show() {
    let silent = || Story::begins().reads(1000, 1100, renewal(999));
    assert_eq!(silent().reads(1102, 1102, renewal(1101)).tells(), ["stale", "fresh", "went on"]);
    // It stood from 1000 to 1100: it shows 100 s less than it would.
    let back = silent().reads(1102, 1110, renewal(1001));
    assert_eq!(back.tells(), ["stale", "fresh"], "that renewal may have been on its way all the time");
    assert_eq!(back.reads(1112, 1112, renewal(1011)).tells(), ["stale", "fresh", "stood"]);
}

#[test]
fn a_renewal_that_a_cut_network_kept_is_no_clock_that_stood() {
    let back = Story::begins().reads(1000, 1100, renewal(999)).reads(1102, 1104, renewal(1009));
    assert_eq!(back.tells(), ["stale", "fresh"]);
    assert_eq!(back.reads(1106, 1106, renewal(1105)).tells(), ["stale", "fresh", "went on"]);
}

#[test]
fn a_renewal_that_was_read_too_late_to_tell_leaves_it_to_the_next() {
    let back = Story::begins().reads(1000, 1100, renewal(999)).reads(1102, 1104, renewal(1009));
    let mut late = back;
    late.0.take(&reading(1_190, there(renewal(1_105))));
    assert_eq!(late.tells(), ["stale", "fresh"]);
    assert_eq!(late.reads(1192, 1192, renewal(1191)).tells(), ["stale", "fresh", "went on"]);
}

#[test]
fn a_node_that_was_silent_before_it_was_looked_at_is_judged_the_same() {
    let silent = || Story::begins().reads(1000, 1030, renewal(940));
    assert_eq!(silent().reads(1032, 1032, renewal(1031)).tells(), ["stale", "fresh", "went on"]);
    let stood = silent().reads(1032, 1040, renewal(941)).reads(1042, 1042, renewal(951));
    assert_eq!(stood.tells(), ["stale", "fresh", "stood"]);
}

/// A machine that runs until `stopped` and again from `resumed`, in milliseconds of our clock. Its kubelet renews every
/// interval of the time in which it runs, at `phase` of it.
struct Machine {
    phase: i64,
    stopped: i64,
    resumed: i64,
    /// It was only not heard: kubelet and clock went on.
    cut: bool,
}

impl Machine {
    const EVERY: i64 = 10_000;

    /// What its Lease says at our `now`.
    fn renewed(&self, now: i64) -> Timestamp {
        let heard = if (self.stopped..self.resumed).contains(&now) { self.stopped } else { now };
        let stood = if self.cut || heard < self.resumed { 0 } else { self.resumed - self.stopped };
        let clock = heard - stood;
        Timestamp::from_millisecond(clock - (clock - self.phase).rem_euclid(Self::EVERY)).unwrap()
    }
}

proptest! {
    /// It is looked at from some moment of the silence on, as the reader of Leases does: every half interval, at the moment
    /// at which it is stale, and the later the longer it stands.
    #[test]
    fn what_a_clock_did_is_known_after_any_silence_however_late_it_was_looked_at(
        phase in 0..Machine::EVERY,
        unseen in 0_i64..60_000,
        silence in 1_i64..100_000,
        cut: bool,
    ) {
        let begun = 1_000_000_i64;
        let machine = Machine { phase, stopped: begun - unseen, resumed: begun + 22_000 + silence, cut };
        let mut history = LeaseHistory::new("node-a", Duration::from_millis(begun.unsigned_abs()));
        let (mut now, mut first) = (begun, begun);
        while now < machine.resumed + 4 * Machine::EVERY {
            let before = machine.renewed(now);
            let since = Duration::from_millis(now.unsigned_abs());
            let moment = Moment { monotonic: since, boot: since, wall: Timestamp::from_millisecond(now).unwrap() };
            history.take(&Reading { node: "node-a".to_owned(), asked: moment, answered: moment, lease: there(before) });
            let stood = now - first;
            now += if stood < 22_000 { (22_000 - stood).min(5_000) } else { (stood / 8).max(5_000) };
            if machine.renewed(now) != before {
                first = now;
            }
        }
        let clock = history.evidence(None, true).into_iter().map(|one| one.fact).find(|fact| {
            matches!(fact, Fact::ClockStood | Fact::ClockWentOn)
        });
        prop_assert_eq!(clock, Some(if cut { Fact::ClockWentOn } else { Fact::ClockStood }));
    }
}

#[test]
fn nothing_is_said_of_a_clock_if_ours_was_set_or_nobody_looked_or_the_boot_is_another() {
    let mut story = Story::begins().reads(1000, 1100, renewal(999));
    let mut set = reading(1_102, there(renewal(1_101)));
    set.answered.wall = moment(5_000).wall;
    story.0.take(&set);
    assert_eq!(story.tells(), ["stale", "fresh"]);

    let mut unseen = Story::begins().reads(1000, 1030, renewal(999));
    // It may have been renewed right after the last look by a clock that had gone on, or just now by one that stood.
    unseen.0.take(&reading(1_130, there(renewal(1_040))));
    assert_eq!(unseen.tells(), ["stale", "fresh"]);

    let other = Story::begins().reads(1000, 1100, renewal(999)).reads(1102, 1102, renewal(1101));
    assert_eq!(other.0.evidence(Some("b"), false).len(), 2);
}

#[test]
fn a_lease_that_is_missing_and_comes_back_is_a_sign_of_life_if_it_comes_late() {
    let mut story = Story::begins();
    assert_eq!(story.0.view(), LeaseView::Unread);
    for second in [1_000, 1_020] {
        story.0.take(&reading(second, Lease::Missing));
    }
    assert_eq!(story.0.view(), LeaseView::Missing);
    assert_eq!(story.reads(1022, 1022, renewal(1021)).tells(), ["fresh"]);
}

#[test]
fn readings_of_others_and_older_ones_are_passed_over() {
    let mut story = Story::begins().reads(1000, 1010, renewal(999));
    let before = story.0.view();
    story.0.take(&Reading { node: "node-b".to_owned(), ..reading(1_030, there(renewal(1_029))) });
    story.0.take(&reading(1_008, there(renewal(990))));
    assert_eq!(story.0.view(), before);
}

/// Read every two seconds until `last`, and renewed at these seconds.
fn renewed_at(last: u64, renewals: &[u64]) -> LeaseHistory {
    let mut story = Story::begins();
    for second in (1_000..=last).step_by(2) {
        let renewed = renewals.iter().copied().filter(|at| *at <= second).max().unwrap_or(990);
        story.0.take(&reading(second, there(renewal(renewed))));
    }
    story.0
}

#[test]
fn a_silence_is_its_own_if_another_lease_was_renewed_after_this_one_should_have_been() {
    let (silent, lively) = (renewed_at(1_030, &[]), renewed_at(1_030, &[1_005, 1_015, 1_025]));
    assert!(silent.is_alone([&silent, &lively]));
    assert!(!silent.is_alone([&silent, &silent]), "nobody is seen to live");
    let young = renewed_at(1_004, &[]);
    assert!(!silent.is_alone([&young]), "not looked at for long enough");
    assert!(!silent.is_alone([]));
}

#[test]
fn a_storage_that_stands_still_since_a_while_makes_no_silence_a_nodes_own() {
    // At 1,009 everything stops. This one was about to renew by then, the other just had.
    let (silent, lucky) = (renewed_at(1_022, &[]), renewed_at(1_016, &[1_000, 1_008]));
    assert!(silent.is_stale() && lucky.view().missed() == 0);
    assert!(!silent.is_alone([&lucky]));
}

#[test]
fn who_was_seen_to_live_is_fresh_until_it_falls_silent() {
    let lively = renewed_at(1_030, &[1_005, 1_015, 1_025]);
    assert!(lively.is_fresh() && !renewed_at(1_030, &[]).is_fresh());
    assert!(!renewed_at(1_060, &[1_005, 1_015, 1_025]).is_fresh());
}
