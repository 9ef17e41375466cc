//! Floods of every kind.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn address(number: u32) -> IpAddr {
    if number.is_multiple_of(3) {
        return IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number)));
    }
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | number))
}

fn limits() -> Limits {
    Limits { sources: 64, per_source: 100, burst: 200, guaranteed: 50, total: 1000 }
}

fn taken(gate: &mut Gatekeeper, from: u32, known: bool, now: Duration) -> bool {
    gate.admit(address(from), known, 100, now) == DatagramResult::Taken
}

#[test]
fn a_source_is_heard_in_bursts_and_then_at_its_rate() {
    let mut gate = Gatekeeper::new(Limits { total: 1_000_000, ..limits() });
    let now = Duration::from_secs(9);
    assert_eq!((0..1000).filter(|_| taken(&mut gate, 1, true, now)).count(), 200);
    assert_eq!(gate.admit(address(1), true, 100, now), DatagramResult::RateOfSource);
    let later = now + Duration::from_millis(500);
    assert_eq!((0..1000).filter(|_| taken(&mut gate, 1, true, later)).count(), 50);
}

#[test]
fn what_is_longer_than_any_datagram_of_a_kernel_is_refused() {
    let mut gate = Gatekeeper::new(limits());
    assert_eq!(gate.admit(address(1), true, MAX_DATAGRAM, Duration::ZERO), DatagramResult::Taken);
    assert_eq!(gate.admit(address(1), true, MAX_DATAGRAM + 1, Duration::ZERO), DatagramResult::TooLong);
}

#[test]
fn a_hundred_thousand_datagrams_of_ten_thousand_sources_take_no_more_memory_than_the_table() {
    let mut gate = Gatekeeper::new(Limits { sources: 4096, ..Limits::from(&Netconsole::default()) });
    let capacity = (gate.known.table.capacities(), gate.unknown.table.capacities());
    let mut results = [0_u32; 2];
    for number in 0..100_000_u32 {
        let now = Duration::from_micros(u64::from(number) * 10);
        let verdict = gate.admit(address(number % 10_000), false, 100, now);
        results[usize::from(verdict == DatagramResult::TableFull)] += u32::from(verdict != DatagramResult::RateInTotal);
    }
    assert_eq!(gate.sources(), (0, 1024));
    assert_eq!((gate.known.table.capacities(), gate.unknown.table.capacities()), capacity);
    assert_eq!(results, [10_240, 89_760], "a quarter of the table, ten datagrams each");
}

#[test]
fn known_sources_beyond_the_table_are_heard_all_the_same() {
    let mut gate = Gatekeeper::new(limits());
    for round in 0..10 {
        for node in 0..500 {
            let now = Duration::from_secs(round * 60) + Duration::from_millis(u64::from(node) * 2);
            assert!(taken(&mut gate, node, true, now), "node {node}");
        }
    }
    assert_eq!(gate.sources(), (48, 0));
}

#[test]
fn known_sources_beyond_the_table_get_no_more_than_the_total_if_they_flood() {
    let mut gate = Gatekeeper::new(limits());
    let now = Duration::from_secs(1);
    let heard = (0..100_000).filter(|number| taken(&mut gate, number % 500, true, now)).count();
    assert!(heard <= 1000 + 48 * 50, "{heard}");
}

#[test]
fn unknown_sources_that_fell_silent_make_room_for_others() {
    let mut gate = Gatekeeper::new(limits());
    let filled = (0..100).filter(|number| taken(&mut gate, *number, false, Duration::ZERO)).count();
    assert_eq!(filled, 16);
    assert_eq!(gate.admit(address(1000), false, 9, Duration::from_millis(999)), DatagramResult::TableFull);
    assert_eq!(gate.admit(address(1000), false, 9, FRESH), DatagramResult::Taken);
}

proptest! {
    /// Whatever others send, known or not: a panic of a quiet Node is heard to its end.
    #[test]
    fn no_flood_starves_a_node_that_was_quiet(
        flood in prop::collection::vec((1_u32..40, any::<bool>(), 0_u64..3, 1_usize..60), 1..80),
        after in 0_usize..80,
    ) {
        let mut gate = Gatekeeper::new(limits());
        let (mut now, mut heard) = (Duration::from_secs(1), 0);
        let after = after.min(flood.len() - 1);
        for (step, (from, known, wait, many)) in flood.into_iter().enumerate() {
            now += Duration::from_millis(wait);
            for _ in 0..many {
                gate.admit(address(from), known, 100, now);
                if step >= after && heard < 50 {
                    prop_assert!(taken(&mut gate, 0, true, now), "datagram {}", heard);
                    heard += 1;
                }
            }
        }
        let (known, unknown) = gate.sources();
        prop_assert!(known <= 48 && unknown <= 16, "{} and {}", known, unknown);
    }

    #[test]
    fn unknown_sources_together_get_no_more_than_their_share(
        datagrams in prop::collection::vec((0_u32..10_000, 0_u64..20), 1..2000),
    ) {
        let mut gate = Gatekeeper::new(limits());
        let (mut now, mut heard) = (Duration::from_secs(1), 0_u128);
        for (from, wait) in datagrams {
            now += Duration::from_micros(wait * 100);
            heard += u128::from(taken(&mut gate, from, false, now));
        }
        let share = u128::from(limits().total / UNKNOWN_SHARE);
        let most = share + share * (now - Duration::from_secs(1)).as_millis() / 1000 + 1;
        prop_assert!(heard <= most, "{} of {}", heard, most);
    }

    #[test]
    fn a_time_that_stands_still_or_goes_back_breaks_nothing(
        datagrams in prop::collection::vec((0_u32..99, any::<bool>(), any::<u32>(), 0_usize..4000), 1..500),
    ) {
        let mut gate = Gatekeeper::new(limits());
        for (from, known, now, length) in datagrams {
            gate.admit(address(from), known, length, Duration::from_nanos(u64::from(now)));
        }
        prop_assert!(gate.sources().0 <= 48 && gate.sources().1 <= 16);
    }
}
