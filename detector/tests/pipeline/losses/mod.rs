//! What was lost or not understood is counted, told once a minute, and stops nothing.

mod counted;
mod handover;

use std::mem::offset_of;

use detector::agent::source::bpf::health::Dropped;
use detector_common::oom::{LEVELS, OomMark};
use rstest::rstest;
use serde_json::json;

use crate::{
    machine::Machine,
    recording::Recording,
    session::{SECOND, Session, drain, told},
};

fn cut(record: &[u8]) -> Vec<u8> {
    record[..100].to_vec()
}

fn cut_in_its_header(record: &[u8]) -> Vec<u8> {
    record[..31].to_vec()
}

/// As a kernel side would write it that has one field more and forgot to say so.
fn with_a_field_more(record: &[u8]) -> Vec<u8> {
    let mut changed = [record, &[0; 16]].concat();
    let length = changed.len() as u32;
    changed[4..8].copy_from_slice(&length.to_ne_bytes());
    changed
}

fn of_another_abi(record: &[u8]) -> Vec<u8> {
    with_byte(record, 0, 2)
}

fn of_an_unknown_kind(record: &[u8]) -> Vec<u8> {
    with_byte(record, 2, 200)
}

/// One more than a record has room for.
fn with_too_many_levels(record: &[u8]) -> Vec<u8> {
    with_byte(record, offset_of!(OomMark, level_count), LEVELS as u8 + 1)
}

fn with_byte(record: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut changed = record.to_vec();
    changed[at] = value;
    changed
}

#[rstest]
#[case(cut, "length")]
#[case(cut_in_its_header, "short")]
#[case(with_a_field_more, "long")]
#[case(of_another_abi, "abi")]
#[case(of_an_unknown_kind, "kind")]
#[case(with_too_many_levels, "range")]
fn a_record_that_cannot_be_decoded_is_counted_and_told_and_the_next_kill_is_told(
    #[case] damage: fn(&[u8]) -> Vec<u8>,
    #[case] reason: &str,
) {
    let mut records = Recording::of("kubepods-systemd");
    let damaged = damage(&records.precious[0]);
    records.precious.push_front(damaged);
    let lines = told(records);
    assert_eq!(lines.kill()["limit"]["hit"], "container");
    assert_eq!(lines.notices(), [("decode", reason, 1)]);
    assert_eq!(lines.summary()["lost"], 1);
    assert_eq!(lines.summary()["lost_decode"], json!({ reason: 1 }));
}

#[test]
fn a_damaged_record_of_a_cgroup_leaves_the_others_known() {
    let mut records = Recording::of("kubepods-systemd");
    records.bulk[0] = of_another_abi(&records.bulk[0]);
    let lines = told(records);
    assert_eq!(lines.kill()["owner"]["kind"], "container");
    assert_eq!(lines.summary()["lost_decode"], json!({ "abi": 1 }));
}

#[test]
fn a_kill_in_the_ring_of_cgroup_life_is_foreign() {
    let mut records = Recording::of("kubepods-systemd");
    records.bulk.push_back(records.precious[0].clone());
    let lines = told(records);
    assert_eq!(lines.kills().len(), 1);
    assert_eq!(lines.notices(), [("decode", "kind", 1)]);
}

#[test]
fn each_kind_of_damage_is_told_once_a_minute_and_none_is_forgotten() {
    let machine = Machine::version_1();
    let whole = Recording::of("plain-child").precious.remove(0).expect("a mark");
    let session = Session::new(&machine);
    let lines = session.run(&mut Recording::default(), |pipeline, records| {
        for second in 0..4_u64 {
            session.set_time((1 + second * 20) * SECOND);
            records.precious.extend([of_another_abi(&whole), of_another_abi(&whole)]);
            if second == 1 {
                records.precious.push_back(cut(&whole));
            }
            drain(pipeline, records);
        }
        records.precious.push_back(of_another_abi(&whole));
        drain(pipeline, records);
    });
    let expected = [("decode", "abi", 2), ("decode", "length", 1), ("decode", "abi", 6), ("decode", "abi", 1)];
    assert_eq!(lines.notices(), expected);
    assert_eq!(lines.summary()["lost"], 10);
}

#[test]
fn a_held_notice_names_the_time_at_which_it_may_be_told() {
    let machine = Machine::version_1();
    let mut records = Recording::default();
    let session = Session::new(&machine);
    session.run(&mut records, |pipeline, records| {
        assert_eq!(pipeline.next_due(), None);
        for _ in 0..2 {
            records.precious.push_back(Vec::new());
            drain(pipeline, records);
        }
        session.pass(45 * SECOND);
        assert_eq!(pipeline.next_due().expect("one is held").as_secs(), 15);
    });
}

#[test]
fn records_that_found_their_ring_full_are_counted_by_kind_and_told() {
    let mut records = Recording::of("kubepods-systemd");
    records.dropped = vec![Dropped { kind: "oom_mark", count: 3 }, Dropped { kind: "cgroup_removed", count: 40 }];
    let lines = told(records);
    assert_eq!(lines.notices(), [("source", "cgroup_removed", 40), ("source", "oom_mark", 3)]);
    let summary = lines.summary();
    assert_eq!(summary["lost_ring"], json!({ "oom_mark": 3, "cgroup_removed": 40 }));
    assert_eq!((&summary["lost"], &summary["kills"]), (&json!(43), &json!(1)));
}
