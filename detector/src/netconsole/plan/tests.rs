//! The plan: cases, and what holds for any of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::contract::netconsole::TARGET_PREFIX;

fn me() -> Identity {
    Identity { node: "n".into(), boot: "b".into(), secret: "s".into() }
}

fn told() -> Option<BTreeMap<String, String>> {
    Some(me().entries().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn address(receiver: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, receiver], 6666))
}

/// Target to `receiver` by the hop with the MAC that ends so.
fn to(receiver: u8, hop: u8) -> Target {
    Target {
        device: "eth0".into(),
        local: [10, 0, 0, 200].into(),
        local_port: 6665,
        mac: Mac([2, 0, 0, 0, 0, hop]),
        remote: address(receiver),
    }
}

fn wanted(receiver: u8, hop: Option<u8>) -> Wanted {
    Wanted { addresses: vec![address(receiver)], target: hop.map(|hop| to(receiver, hop)) }
}

fn stands(name: &str, receiver: u8, hop: u8) -> Standing {
    Standing {
        name: Name::ours(name).expect("ours"),
        enabled: true,
        target: Some(to(receiver, hop)),
        sound: true,
        userdata: told(),
    }
}

fn names(names: &[Name]) -> Vec<&str> {
    names.iter().map(Name::as_str).collect()
}

fn made(plan: &Plan) -> Vec<(&str, u8)> {
    let last = |target: &Target| match target.remote {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(_) => 0,
    };
    plan.make.iter().map(|(name, target)| (name.as_str(), last(target))).collect()
}

#[test]
fn on_a_bare_node_all_that_is_wanted_is_made() {
    let plan = plan(&[wanted(1, Some(1)), wanted(2, Some(1))], &[], &me());
    assert_eq!(made(&plan), [("detector-0a", 1), ("detector-0b", 2)]);
    assert!(plan.clear.is_empty() && plan.retire.is_empty());
}

#[test]
fn what_stands_as_wanted_is_left_alone() {
    let standing = [stands("detector-1b", 2, 1), stands("detector-0a", 1, 1)];
    assert!(plan(&[wanted(1, Some(1)), wanted(2, Some(1))], &standing, &me()).is_empty());
}

#[test]
fn a_new_gateway_has_its_target_before_the_old_one_goes() {
    let standing = [stands("detector-0a", 1, 1), stands("detector-0b", 2, 1)];
    let plan = plan(&[wanted(1, Some(9)), wanted(2, Some(9))], &standing, &me());
    assert_eq!(made(&plan), [("detector-1a", 1), ("detector-1b", 2)]);
    assert_eq!(names(&plan.retire), ["detector-0a", "detector-0b"]);
    assert!(plan.clear.is_empty());
}

#[test]
fn a_receiver_whose_way_is_not_known_keeps_its_target() {
    let standing = [stands("detector-0a", 1, 1), stands("detector-0b", 2, 1)];
    assert!(plan(&[wanted(1, None), wanted(2, Some(1))], &standing, &me()).is_empty());
}

#[test]
fn without_any_receiver_what_stands_goes_on() {
    let standing = [stands("detector-0a", 1, 1), stands("detector-0b", 2, 1)];
    assert!(plan(&[], &standing, &me()).is_empty());
    assert!(plan(&[wanted(7, None)], &standing, &me()).is_empty());
}

#[test]
fn a_receiver_that_is_gone_loses_its_target_once_another_has_one() {
    let standing = [stands("detector-0a", 1, 1), stands("detector-0b", 2, 1)];
    let plan = plan(&[wanted(1, Some(1))], &standing, &me());
    assert_eq!(names(&plan.retire), ["detector-0b"]);
    assert!(plan.make.is_empty());
}

#[test]
fn while_a_receiver_can_have_no_target_another_goes_on_in_its_place() {
    let standing = [stands("detector-0a", 1, 1), stands("detector-0b", 2, 1)];
    assert!(plan(&[wanted(1, Some(1)), wanted(3, None)], &standing, &me()).is_empty());
    let then = plan(&[wanted(1, Some(1)), wanted(3, Some(1))], &standing, &me());
    assert_eq!((made(&then), names(&then.retire)), (vec![("detector-1a", 3)], vec!["detector-0b"]));
}

#[test]
fn a_target_that_the_kernel_switched_off_is_made_anew() {
    let mut off = stands("detector-0a", 1, 1);
    off.enabled = false;
    let plan = plan(&[wanted(1, Some(1))], &[off], &me());
    assert_eq!((names(&plan.clear), made(&plan)), (vec!["detector-0a"], vec![("detector-0a", 1)]));
}

#[test]
fn a_target_in_the_basic_format_is_replaced() {
    let mut basic = stands("detector-0a", 1, 1);
    basic.sound = false;
    let plan = plan(&[wanted(1, Some(1))], &[basic], &me());
    assert_eq!((made(&plan), names(&plan.retire)), (vec![("detector-0b", 1)], vec!["detector-0a"]));
}

#[test]
fn a_target_that_does_not_tell_who_we_are_is_told_so() {
    let mut old_boot = stands("detector-0a", 1, 1);
    old_boot.userdata = Some(BTreeMap::new());
    let plan = plan(&[wanted(1, Some(1))], &[old_boot.clone()], &me());
    assert_eq!(names(&plan.label), ["detector-0a"]);
    old_boot.userdata = None;
    assert!(super::plan(&[wanted(1, Some(1))], &[old_boot], &me()).is_empty(), "a kernel without userdata");
}

#[test]
fn when_all_names_are_taken_a_surplus_target_makes_room() {
    let standing = ["detector-0a", "detector-0b", "detector-1a", "detector-1b"].map(|name| stands(name, 7, 1));
    let plan = plan(&[wanted(1, Some(1)), wanted(2, Some(1))], &standing, &me());
    assert_eq!((plan.clear.len(), plan.make.len(), plan.retire.len()), (2, 2, 2));
}

/// What configfs would hold. A failing `make` leaves nothing, and keeps everything from being retired.
fn carried_out(mut standing: Vec<Standing>, plan: &Plan, fails: &[bool], check: impl Fn(&[Standing])) -> Vec<Standing> {
    for name in &plan.clear {
        standing.retain(|one| one.name != *name);
        check(&standing);
    }
    standing.iter_mut().filter(|one| plan.label.contains(&one.name)).for_each(|one| one.userdata = told());
    let mut failed = false;
    for ((name, target), fails) in plan.make.iter().zip(fails.iter().chain(std::iter::repeat(&false))) {
        assert!(standing.iter().all(|one| one.name != *name), "{name} stands already");
        assert!(NAMES.contains(&name.as_str()));
        failed |= fails;
        if !fails {
            let (name, target) = (name.clone(), Some(target.clone()));
            standing.push(Standing { name, enabled: true, target, sound: true, userdata: told() });
        }
    }
    for name in plan.retire.iter().filter(|_| !failed) {
        standing.retain(|one| one.name != *name);
        check(&standing);
    }
    standing
}

fn any_standing() -> impl Strategy<Value = Vec<Standing>> {
    let one = (any::<bool>(), any::<bool>(), 1..4_u8, 1..3_u8, any::<bool>(), any::<bool>());
    let name = prop::sample::subsequence([NAMES[0], NAMES[1], NAMES[2], NAMES[3], "detector-old"].to_vec(), 0..=5);
    (name, prop::collection::vec(one, 5)).prop_map(|(names, ones)| {
        let standing =
            |(name, (enabled, sound, receiver, hop, labelled, readable)): (&str, (_, _, _, _, bool, bool))| {
                let userdata = if labelled { told() } else { Some(BTreeMap::new()) };
                let mut standing = Standing { enabled, sound, userdata, ..stands(name, receiver, hop) };
                standing.target = standing.target.filter(|_| readable);
                standing
            };
        names.into_iter().zip(ones).map(standing).collect()
    })
}

fn any_wanted() -> impl Strategy<Value = Vec<Wanted>> {
    let hop = prop::option::of(1..3_u8);
    let receivers = prop::sample::subsequence(vec![1_u8, 2, 3], 0..=2);
    (receivers, hop.clone(), hop).prop_map(|(receivers, first, second)| {
        receivers.into_iter().zip([first, second]).map(|(receiver, hop)| wanted(receiver, hop)).collect()
    })
}

/// Receivers on the list that have an enabled target.
fn served(wanted: &[Wanted], standing: &[Standing]) -> usize {
    let leads = |one: &Standing, to: &Wanted| one.enabled && one.target.as_ref().is_some_and(|target| to.leads(target));
    wanted.iter().filter(|to| standing.iter().any(|one| leads(one, to))).count()
}

fn enabled(standing: &[Standing]) -> usize {
    standing.iter().filter(|one| one.enabled).count()
}

proptest! {
    #[test]
    fn no_receiver_on_the_list_is_left_while_changing(
        wanted in any_wanted(), standing in any_standing(), fails in prop::collection::vec(any::<bool>(), 0..3),
    ) {
        let plan = plan(&wanted, &standing, &me());
        let (before, some) = (served(&wanted, &standing), enabled(&standing).min(1));
        // Of three and more targets some may go first: then names are needed.
        let crowded = standing.len() > RECEIVERS;
        carried_out(standing, &plan, &fails, |now| {
            assert!(crowded || served(&wanted, now) >= before);
            assert!(enabled(now) >= some, "the last one went");
        });
    }

    #[test]
    fn once_carried_out_there_is_nothing_left_to_do(wanted in any_wanted(), standing in any_standing()) {
        let standing = carried_out(standing.clone(), &plan(&wanted, &standing, &me()), &[], |_| {});
        prop_assert!(standing.len() <= RECEIVERS);
        for target in wanted.iter().filter_map(|one| one.target.as_ref()) {
            prop_assert!(standing.iter().any(|one| one.enabled && one.target.as_ref() == Some(target)));
        }
        let again = plan(&wanted, &standing, &me());
        prop_assert!(again.is_empty(), "{again:?}");
    }

    #[test]
    fn only_names_of_ours_are_ever_named(wanted in any_wanted(), standing in any_standing()) {
        let Plan { clear, label, make, retire } = plan(&wanted, &standing, &me());
        let all = clear.iter().chain(&label).chain(&retire).chain(make.iter().map(|(name, _)| name));
        prop_assert!(all.clone().all(|name| name.as_str().starts_with(TARGET_PREFIX)));
    }

    #[test]
    fn a_plan_that_failed_in_part_is_finished_later(
        wanted in any_wanted(), standing in any_standing(), fails in prop::collection::vec(any::<bool>(), 0..3),
    ) {
        let first = carried_out(standing.clone(), &plan(&wanted, &standing, &me()), &fails, |_| {});
        let second = carried_out(first.clone(), &plan(&wanted, &first, &me()), &[], |_| {});
        prop_assert!(plan(&wanted, &second, &me()).is_empty());
    }
}
