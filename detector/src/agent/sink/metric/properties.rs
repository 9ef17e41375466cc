//! Whatever comes in whatever order, no kill is counted twice or nowhere.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    tests::{KEEP, config, kill, place, pod_gone, seen},
    *,
};
use crate::agent::locate::Place;

#[derive(Clone, Debug)]
enum Step {
    Seen { pod: u8, uid: u8, container: u8 },
    PodGone { uid: u8 },
    Kill { pod: u8, uid: u8, container: u8, process: u8, limit: u8 },
    Missed { pod: u8, uid: u8, container: u8, kills: u8 },
    Expire,
    Restart,
}

/// Container 0 is one whose name is not known.
fn where_to() -> impl Strategy<Value = (u8, u8, u8)> {
    (0..3_u8, 0..5_u8, 0..3_u8)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => where_to().prop_map(|(pod, uid, container)| Step::Seen { pod, uid, container }),
        2 => (0..5_u8).prop_map(|uid| Step::PodGone { uid }),
        8 => (where_to(), 0..4_u8, 0..8_u8).prop_map(|((pod, uid, container), process, limit)| Step::Kill {
            pod,
            uid,
            container,
            process,
            limit
        }),
        2 => (where_to(), 0..4_u8).prop_map(|((pod, uid, container), kills)| Step::Missed { pod, uid, container, kills }),
        1 => Just(Step::Expire),
        1 => Just(Step::Restart),
    ]
}

fn place_of(pod: u8, uid: u8, container: u8) -> Place {
    let name = if container == 0 { String::new() } else { format!("c{container}") };
    place(&format!("p{pod}"), &format!("u{uid}"), &name)
}

/// A word, or one that nobody knows.
fn word(words: &[&str], at: u8) -> String {
    words.get(usize::from(at)).copied().unwrap_or("foreign").to_owned()
}

/// Kills of each container, and the sum of the same by process and limit.
fn counts(metrics: &Metrics) -> BTreeMap<series::Key, (u64, u64)> {
    let core = metrics.shared.core();
    core.series.iter().map(|(key, count)| (key.clone(), (count.kills, count.by.values().sum()))).collect()
}

fn series_by(metrics: &Metrics) -> usize {
    metrics.shared.core().series.iter().map(|(_, count)| count.by.len()).sum()
}

fn node_kills(metrics: &Metrics) -> u64 {
    metrics.shared.core().tally.node.iter().sum()
}

fn take(metrics: Metrics, step: &Step, series: usize, now: u64) -> (Metrics, u64) {
    let mut metrics = metrics;
    let mut kills = 0;
    match *step {
        Step::Seen { pod, uid, container } => metrics.container(&seen(place_of(pod, uid, container)), now),
        Step::PodGone { uid } => metrics.container(&pod_gone(&format!("u{uid}")), now),
        Step::Kill { pod, uid, container, process, limit } => {
            let report = KillReport {
                process: word(KilledProcess::WORDS, process),
                limit: word(HitLimit::WORDS, limit),
                ..kill(&place_of(pod, uid, container))
            };
            metrics.kill(&report, now);
            kills = 1;
        }
        Step::Missed { pod, uid, container, kills: missed } => {
            metrics.missed(&Subject::of(Some(&place_of(pod, uid, container))), missed.into(), now);
            kills = missed.into();
        }
        Step::Expire => metrics.expire(now + KEEP),
        Step::Restart => {
            let saved = serde_json::to_vec(&metrics.snapshot(now)).unwrap();
            let mut after = Metrics::new(&config(series));
            after.restore(serde_json::from_slice(&saved).unwrap(), now);
            metrics = after;
        }
    }
    (metrics, kills)
}

proptest! {
    #[test]
    fn the_total_is_the_sum_by_process_and_limit_and_never_falls(steps in prop::collection::vec(step(), 0..60)) {
        let mut metrics = Metrics::new(&config(100));
        let (mut kills, mut before) = (0, BTreeMap::new());
        for (now, step) in steps.into_iter().enumerate() {
            let ends = matches!(step, Step::Expire);
            let (after, new) = take(metrics, &step, 100, now as u64);
            metrics = after;
            kills += new;
            let counts = counts(&metrics);
            for (container, (total, by)) in &counts {
                prop_assert_eq!(total, by, "{:?}", container);
            }
            for (container, (total, _)) in &before {
                let now = counts.get(container).map(|(total, _)| total);
                prop_assert!(now.map_or(ends, |now| now >= total), "{:?} fell from {} to {:?}", container, total, now);
            }
            before = counts;
            prop_assert_eq!(node_kills(&metrics), kills);
        }
    }

    #[test]
    fn what_has_no_room_is_bounded_and_told(steps in prop::collection::vec(step(), 0..60)) {
        let mut metrics = Metrics::new(&config(3));
        for (now, step) in steps.into_iter().enumerate() {
            metrics = take(metrics, &step, 3, now as u64).0;
            let counts = counts(&metrics);
            prop_assert!(counts.len() <= 3);
            prop_assert!(series_by(&metrics) <= 3);
            prop_assert!(counts.values().all(|(total, by)| by <= total));
        }
    }
}
