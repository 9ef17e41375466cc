//! Any records in any order: nothing panics and nothing goes uncounted.

use detector::agent::decode::{KernelEvent, decode};
use detector_common::counter::Ring;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::Value;
use zerocopy::IntoBytes;

use crate::{
    hangs,
    machine::Machine,
    recording::Recording,
    session::{Session, drain},
};

/// One record of some recording, perhaps damaged, in one of the rings.
#[derive(Clone, Debug)]
struct Step {
    record: Index,
    ring_swapped: bool,
    damage: Damage,
    /// The flow reads before the next record arrives.
    read: bool,
}

#[derive(Clone, Debug)]
enum Damage {
    None,
    Cut(Index),
    Byte(Index, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let damage = prop_oneof![
        3 => Just(Damage::None),
        1 => any::<Index>().prop_map(Damage::Cut),
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Damage::Byte(at, value)),
    ];
    let step = (any::<Index>(), prop::bool::weighted(0.1), damage, prop::bool::weighted(0.3))
        .prop_map(|(record, ring_swapped, damage, read)| Step { record, ring_swapped, damage, read });
    vec(step, 0..40)
}

/// What must come out, told by the decoder alone.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    marks: u64,
    undecodable: u64,
}

impl Step {
    /// The record and its ring, with `expected` brought up to date.
    fn apply(&self, pool: &[(Ring, Vec<u8>)], expected: &mut Expected) -> (Ring, Vec<u8>) {
        let (ring, record) = self.record.get(pool);
        let mut record = record.clone();
        match &self.damage {
            Damage::None => {}
            Damage::Cut(length) => record.truncate(length.index(record.len())),
            Damage::Byte(at, value) => {
                let at = at.index(record.len());
                record[at] = *value;
            }
        }
        let precious = (*ring == Ring::Precious) != self.ring_swapped;
        match decode(&record) {
            Ok(KernelEvent::OomMark(_)) if precious => expected.marks += 1,
            Ok(KernelEvent::HungTask(_)) if precious => {}
            Ok(KernelEvent::CgroupLife(_)) => {}
            Ok(KernelEvent::OomMark(_) | KernelEvent::HungTask(_)) | Err(_) => expected.undecodable += 1,
        }
        (if precious { Ring::Precious } else { Ring::Bulk }, record)
    }
}

fn sum(values: &Value) -> u64 {
    values.as_object().expect("a map").values().filter_map(Value::as_u64).sum()
}

#[test]
fn every_mark_is_a_kill_a_dying_task_or_a_duplicate_and_every_other_record_is_counted() {
    let pool: Vec<(Ring, Vec<u8>)> = Recording::all()
        .flat_map(|recording| {
            let precious = recording.precious.into_iter().map(|record| (Ring::Precious, record));
            precious.chain(recording.bulk.into_iter().map(|record| (Ring::Bulk, record))).collect::<Vec<_>>()
        })
        .chain([100, 110].map(|at_s| (Ring::Precious, hangs::hung(4711, 1, at_s).as_bytes().to_vec())))
        .collect();
    let machine = Machine::version_1();
    proptest!(|(steps in steps())| {
        let mut expected = Expected::default();
        let lines = Session::new(&machine).run(&mut Recording::default(), |pipeline, records| {
            for step in &steps {
                match step.apply(&pool, &mut expected) {
                    (Ring::Precious, record) => records.precious.push_back(record),
                    (Ring::Bulk, record) => records.bulk.push_back(record),
                }
                if step.read {
                    drain(pipeline, records);
                }
            }
        });
        let summary = lines.summary();
        let count = |field: &str| summary[field].as_u64().expect("a number");
        let judged = count("kills") + count("already_dying") + count("duplicates");
        let undecodable = sum(&summary["lost_decode"]);
        prop_assert_eq!(Expected { marks: judged, undecodable }, expected);
        prop_assert_eq!(lines.kills().len() as u64, count("kills"));
        prop_assert!(count("incidents") <= count("kills"));
        let told: u64 = lines.notices().iter().filter(|notice| notice.0 == "decode").map(|notice| notice.2).sum();
        prop_assert_eq!(told, undecodable);
        let raised = lines.of_type("hung_task").iter().filter(|line| line["state"] == "raised").count() as u64;
        prop_assert_eq!(count("hangs"), raised);
        prop_assert!(count("hangs_open") <= raised);
    });
}
