//! Order, pieces, duplicates and other boots, one by one.

use super::{super::frame, *};

const NODE: &str = " detector_node=a\n detector_boot=b\n";

fn at(ms: u64) -> Duration {
    Duration::from_millis(1_000_000 + ms)
}

/// A stream that is fed text.
#[derive(Default)]
struct Fed {
    stream: Stream,
    heard: Vec<Heard>,
}

impl Fed {
    fn bytes(&mut self, bytes: &[u8], ms: u64) -> &mut Self {
        self.stream.push(frame::parse(bytes).expect("a frame"), at(ms), &mut self.heard);
        self
    }

    /// A record with that number at `ms`; the machine was up for `uptime_ms`.
    fn record(&mut self, sequence: u64, uptime_ms: u64, text: &str, ms: u64) -> &mut Self {
        self.bytes(format!("4,{sequence},{},-;{text}\n", uptime_ms * 1000).as_bytes(), ms)
    }

    fn piece(&mut self, sequence: u64, body: &str, from: usize, to: usize, ms: u64) -> &mut Self {
        let head = format!("4,{sequence},5000000,-,ncfrag={from}/{};", body.len());
        self.bytes(format!("{head}{}", &body[from..to]).as_bytes(), ms)
    }

    /// What was heard since the last call, `-` for another boot, `~` after what is torn.
    fn said(&mut self) -> Vec<String> {
        let said = self.heard.drain(..).map(|heard| match heard {
            Heard::Reboot => "-".to_owned(),
            Heard::Line(line) => format!("{}{}", line.text, if line.torn { "~" } else { "" }),
        });
        said.collect()
    }

    fn flushed(&mut self, ms: u64) -> Vec<String> {
        self.stream.flush(at(ms), &mut self.heard);
        self.said()
    }
}

#[test]
fn lines_come_in_order_and_only_a_gap_is_waited_for() {
    let mut fed = Fed::default();
    fed.record(1, 1, "a", 0);
    assert_eq!(fed.said(), [""; 0], "one before it may be on its way");
    assert_eq!(fed.stream.due(), Some(at(0) + HOLD));
    assert_eq!(fed.flushed(30), ["a"]);
    assert_eq!(fed.record(2, 2, "b", 31).said(), ["b"]);
    assert_eq!(fed.record(4, 4, "d", 32).said(), [""; 0]);
    assert_eq!(fed.record(3, 3, "c", 33).said(), ["c", "d"]);
    assert_eq!(fed.stream.due(), None);
    assert_eq!(fed.stream.counts(), Counts { lines: 4, ..Counts::default() });
}

#[test]
fn a_gap_is_no_loss() {
    let mut fed = Fed::default();
    fed.record(1, 1, "a", 0).record(10, 2, "b", 10);
    assert_eq!(fed.flushed(100), ["a", "b"]);
    assert_eq!((fed.stream.counts().skipped, fed.stream.counts().torn), (8, 0));
}

#[test]
fn a_line_after_its_time_is_given_late() {
    let mut fed = Fed::default();
    fed.record(1, 1, "a", 0).record(3, 3, "c", 1);
    assert_eq!(fed.flushed(40), ["a", "c"]);
    assert_eq!(fed.record(2, 2, "b", 50).said(), ["b"]);
    assert_eq!(fed.stream.counts().late, 1);
}

#[test]
fn a_second_target_adds_nothing() {
    let mut fed = Fed::default();
    fed.record(1, 1, "a", 0).record(1, 1, "a", 1).record(2, 2, "b", 2).record(2, 2, "b", 2);
    assert_eq!(fed.flushed(40), ["a", "b"]);
    fed.record(1, 1, "a", 41).record(2, 2, "b", 41);
    assert_eq!(fed.flushed(100), [""; 0]);
    assert_eq!(fed.stream.counts().duplicates, 4);
}

#[test]
fn pieces_become_one_line_with_its_userdata() {
    let body = format!("a long line\n{NODE}");
    let mut fed = Fed::default();
    fed.piece(1, &body, 30, body.len(), 0).piece(1, &body, 0, 5, 1).piece(1, &body, 5, 30, 2);
    fed.stream.flush(at(40), &mut fed.heard);
    let [Heard::Line(line)] = fed.heard.as_slice() else { panic!("{:?}", fed.heard) };
    assert_eq!((line.text.as_str(), line.torn, line.userdata.node.as_deref()), ("a long line", false, Some("a")));
    assert_eq!(line.userdata.boot_id.as_deref(), Some("b"));
}

#[test]
fn a_lost_piece_tears_its_line_and_no_other() {
    let body = format!("a long line\n{NODE}");
    let mut fed = Fed::default();
    fed.record(1, 5000, "a", 0).piece(2, &body, 0, 5, 1).piece(2, &body, 12, body.len(), 2).record(3, 5000, "c", 3);
    assert_eq!(fed.flushed(40), ["a", "a lon~", "c"]);
    assert_eq!(fed.stream.counts().torn, 1);
    assert_eq!(fed.piece(2, &body, 5, 12, 50).said(), [""; 0], "what comes after is too late");
    assert_eq!(fed.stream.counts().duplicates, 1);
}

#[test]
fn a_whole_copy_mends_a_line_in_pieces() {
    let body = "a long line\n";
    let mut fed = Fed::default();
    fed.record(1, 4999, "a", 0).piece(2, body, 0, 5, 1).record(2, 5000, "a long line", 2);
    assert_eq!(fed.flushed(40), ["a", "a long line"]);
}

#[test]
fn pieces_that_contradict_each_other_are_refused() {
    let mut fed = Fed::default();
    fed.piece(2, "a long line\n", 0, 5, 0).piece(2, "a long line\n", 4, 8, 0).piece(2, "another\n", 5, 8, 0);
    assert_eq!((fed.stream.counts().refused, fed.flushed(40)), (2, vec!["a lon~".to_owned()]));
}

#[test]
fn numbers_that_start_again_are_another_boot() {
    let mut fed = Fed::default();
    fed.record(5000, 90_000, "old", 0).record(800, 3000, "new", 9000).record(801, 3001, "newer", 9001);
    assert_eq!(fed.flushed(9100), ["old", "-", "new", "newer"]);
    assert_eq!(fed.stream.counts().reboots, 1);
}

#[test]
fn a_time_that_goes_back_is_another_boot_though_numbers_go_on() {
    let mut fed = Fed::default();
    fed.record(700, 90_000, "old", 0).record(800, 3000, "new", 9000);
    assert_eq!(fed.flushed(9100), ["old", "-", "new"]);
}

#[test]
fn the_same_number_at_another_time_is_another_boot() {
    let mut fed = Fed::default();
    fed.record(7, 1000, "old", 0).record(7, 1001, "new", 500);
    assert_eq!(fed.flushed(600), ["old", "-", "new"]);
}

#[test]
fn another_boot_id_is_another_boot() {
    let mut fed = Fed::default();
    fed.record(7, 1000, &format!("old\n{NODE}"), 0);
    fed.record(8, 1001, "new\n detector_boot=c", 100);
    assert_eq!(fed.flushed(200), ["old", "-", "new"]);
}

#[test]
fn the_same_boot_id_is_no_other_boot_however_late() {
    let mut fed = Fed::default();
    fed.record(7000, 90_000, &format!("new\n{NODE}"), 0).record(7, 1000, &format!("old\n{NODE}"), 100);
    assert_eq!(fed.flushed(200), ["new", "old"]);
    assert_eq!((fed.stream.counts().reboots, fed.stream.counts().late), (0, 1));
}

#[test]
fn a_forged_number_is_left_behind() {
    let mut fed = Fed::default();
    fed.record(1, 1000, "a", 0).record(u64::MAX, u64::MAX / 1000, "forged", 40).record(2, 1100, "b", 140);
    fed.record(3, 1101, "c", 141);
    assert_eq!(fed.flushed(200), ["a", "forged", "-", "b", "c"]);
}

#[test]
fn basic_text_is_joined_at_its_ends_of_line() {
    let mut fed = Fed::default();
    fed.bytes(b"one\ntw", 0);
    assert_eq!(fed.said(), ["one"]);
    assert_eq!(fed.bytes(b"o\nthree", 10).said(), ["two"]);
    assert_eq!(fed.stream.due(), Some(at(10) + HOLD));
    assert_eq!(fed.flushed(50), ["three"]);
    assert_eq!(fed.stream.due(), None);
}

#[test]
fn a_basic_line_that_filled_its_datagram_and_does_not_go_on_is_torn() {
    let mut fed = Fed::default();
    fed.bytes(&[b'x'; 1000], 0);
    assert_eq!(fed.flushed(50), [format!("{}~", "x".repeat(1000))]);
}

#[test]
fn a_basic_line_has_an_end() {
    let mut fed = Fed::default();
    for ms in 0..10 {
        fed.bytes(&[b'x'; 1000], ms);
    }
    assert!(fed.flushed(50).iter().all(|line| line.len() <= 4097 && line.ends_with('~')));
}

#[test]
fn a_basic_line_that_comes_twice_with_its_time_is_one() {
    let mut fed = Fed::default();
    fed.bytes(b"[    1.000000] a\n", 0).bytes(b"[    1.000000] a\n", 1).bytes(b"a\n", 2).bytes(b"a\n", 3);
    assert_eq!(fed.said(), ["[    1.000000] a", "a", "a"]);
}

#[test]
fn a_basic_time_that_goes_back_is_another_boot() {
    let mut fed = Fed::default();
    fed.bytes(b"[  100.000000] a\n", 0).bytes(b"[    5.000000] b\n", 8000);
    assert_eq!(fed.said(), ["[  100.000000] a", "-", "[    5.000000] b"]);
}

#[test]
fn after_a_burst_a_stream_keeps_little_room() {
    let mut fed = Fed::default();
    fed.bytes(&[b'x'; 1000], 0).bytes(&[b'y'; 1000], 1).bytes(&[b'z'; 1000], 2);
    for sequence in 1..=60 {
        fed.record(2 * sequence, sequence, "a", 3);
    }
    assert!(fed.stream.bytes() > 16 * 1024, "{}", fed.stream.bytes());
    assert_eq!(fed.flushed(1000).len(), 61);
    assert!(fed.stream.bytes() < 4 * 1024, "{}", fed.stream.bytes());
}

#[test]
fn a_new_stream_holds_no_memory() {
    assert_eq!(Stream::new().bytes(), 0);
}
