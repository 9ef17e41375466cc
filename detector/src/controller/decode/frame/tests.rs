//! Frames of both formats, and what breaks their rules.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn extended(bytes: &[u8]) -> Record<'_> {
    match parse(bytes) {
        Ok(Frame::Extended(record)) => record,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn a_record_tells_who_wrote_it_and_when() {
    let record = extended(b"12,339,5140900,-,caller=T1,new=1;text, with; marks\n");
    let header = Header { facility: 1, level: 4, sequence: 339, uptime: Duration::from_micros(5_140_900) };
    assert_eq!(record.header, header);
    assert_eq!((record.release, record.fragment, record.body), (None, None, b"text, with; marks\n".as_slice()));
}

#[test]
fn a_release_stands_before_the_head() {
    let record = extended(b"6.12.0-1-amd64,0,7,8,-;x\n");
    assert_eq!((record.release, record.header.sequence), (Some("6.12.0-1-amd64"), 7));
}

#[rstest]
#[case::continued(b"6,1,2,c;x\n")]
#[case::continuing(b"6,1,2,+;x\n")]
fn the_flag_of_continuation_is_not_heeded(#[case] bytes: &[u8]) {
    assert_eq!(extended(bytes).body, b"x\n");
}

#[test]
fn the_longest_release_of_a_kernel_is_read() {
    for (bytes, is_read) in [(64, true), (65, false)] {
        let release = format!("6.{}", "1".repeat(bytes - 2));
        let datagram = format!("{release},0,7,8,-;x\n");
        let read =
            matches!(parse(datagram.as_bytes()), Ok(Frame::Extended(record)) if record.release == Some(&release));
        assert_eq!(read, is_read);
    }
}

#[test]
fn a_piece_tells_its_place() {
    let record = extended(b"6.1.0,4,7,8,-,caller=C0,ncfrag=3/10;text");
    assert_eq!(record.fragment, Some(Fragment { offset: 3, total: 10 }));
    assert_eq!(record.userdata(), None);
}

#[test]
fn userdata_of_ours_is_read_and_that_of_others_left_out() {
    let body = b"0,7,8,-;x\n SUBSYSTEM=pci\n detector_node=a\n other=1\n detector_boot=b\n detector_secret=c\n";
    let userdata = extended(body).userdata().expect("whole");
    let told = [userdata.node, userdata.boot_id, userdata.secret];
    assert_eq!(told, ["a", "b", "c"].map(|value| Some(value.to_owned())));
}

#[rstest]
#[case::text(b"[   12.345678] Kernel panic - not syncing: x\n")]
#[case::part_of_a_line(b"c.x, and 1,2,3")]
#[case::no_flag(b"6,1,2;x")]
#[case::another_flag(b"6,1,2,x;y")]
#[case::a_longer_flag(b"6,1,2,-x;y")]
#[case::no_number(b"6,,2,-;x")]
#[case::a_sign(b"-6,1,2,-;x")]
#[case::bytes(b"\xff\x00\n")]
fn what_has_another_shape_is_basic_text(#[case] bytes: &[u8]) {
    assert_eq!(parse(bytes), Ok(Frame::Basic(bytes)));
}

#[rstest]
#[case::nothing(b"", FrameError::Empty)]
#[case::a_sequence_too_large(b"6,18446744073709551616,2,-;x", FrameError::Number)]
#[case::a_facility_too_large(b"524288,1,2,-;x", FrameError::Number)]
#[case::no_body(b"6,1,2,-,ncfrag=0/2", FrameError::Endless)]
#[case::a_place_without_a_total(b"6,1,2,-,ncfrag=0;x", FrameError::Fragment)]
#[case::a_place_with_a_sign(b"6,1,2,-,ncfrag=+0/5;x", FrameError::Fragment)]
#[case::a_piece_beyond_its_record(b"6,1,2,-,ncfrag=2/3;xy", FrameError::Fragment)]
#[case::an_endless_offset(b"6,1,2,-,ncfrag=18446744073709551615/3;xy", FrameError::Fragment)]
#[case::an_empty_piece(b"6,1,2,-,ncfrag=0/3;", FrameError::Fragment)]
#[case::a_record_too_large(b"6,1,2,-,ncfrag=0/16385;xy", FrameError::Excessive)]
fn what_breaks_the_rules_of_its_format_is_an_error(#[case] bytes: &[u8], #[case] error: FrameError) {
    assert_eq!(parse(bytes), Err(error));
}

#[test]
fn a_head_that_does_not_end_is_not_searched_for_long() {
    let bytes = [b"6,1,2,-,".as_slice(), &[b'x'; MAX_HEAD_BYTES], b";text"].concat();
    assert_eq!(parse(&bytes), Err(FrameError::Endless));
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        if let Ok(Frame::Extended(record)) = parse(&bytes) {
            prop_assert!(record.body.len() <= MAX_DATAGRAM);
        }
    }

    #[test]
    fn a_head_is_read_as_it_was_written(
        facility: u16, level in 0_u8..8, sequence: u64, micros: u64,
        release in prop::option::of("[1-9]\\.[0-9]{1,2}\\.0[-a-z0-9]{0,8}"),
        body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let prefix = u64::from(facility) << 3 | u64::from(level);
        let begin = release.as_ref().map(|release| format!("{release},")).unwrap_or_default();
        let mut bytes = format!("{begin}{prefix},{sequence},{micros},-;").into_bytes();
        bytes.extend_from_slice(&body);
        let header = Header { facility, level, sequence, uptime: Duration::from_micros(micros) };
        let record = Record { release: release.as_deref(), header, fragment: None, body: &body };
        prop_assert_eq!(parse(&bytes), Ok(Frame::Extended(record)));
    }
}
