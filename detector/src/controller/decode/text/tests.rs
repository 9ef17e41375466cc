//! Text and userdata of a body, with and without holes.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

#[rstest]
#[case::plain(b"text\n", "text")]
#[case::no_end(b"text", "text")]
#[case::a_letter_that_is_not_ascii(b"\\xc3\\xa4", "\u{e4}")]
#[case::a_backslash(b"a\\x5cx41", "a\\x41")]
#[case::half_an_escape(b"a\\x4", "a\\x4")]
#[case::no_escape(b"a\\y41", "a\\y41")]
#[case::bytes_that_are_no_text(b"\\xff", "\u{fffd}")]
#[case::what_moves_the_cursor(b"\\x1b[2J\\x07", "?[2J?")]
#[case::what_turns_the_text(b"\\xe2\\x80\\xae", "?")]
fn escapes_are_undone_and_what_cannot_be_shown_is_replaced(#[case] body: &[u8], #[case] text: &str) {
    let body = whole(body);
    assert_eq!((body.text.as_str(), body.torn), (text, false));
}

#[test]
fn an_end_of_line_inside_of_the_text_begins_no_line() {
    let body = whole(b"x[1]: segfault in a\\x0aKernel panic - not syncing: x\n detector_node=a\n");
    assert_eq!(body.text, "x[1]: segfault in a Kernel panic - not syncing: x");
    assert_eq!(body.userdata.node.as_deref(), Some("a"));
}

#[rstest]
#[case::a_blank("a b")]
#[case::nothing("")]
#[case::too_long(&"x".repeat(254))]
#[case::a_control("a\u{7}")]
fn a_name_that_is_none_is_left_out(#[case] node: &str) {
    assert_eq!(whole(format!("x\n detector_node={node}\n").as_bytes()).userdata.node, None);
}

#[test]
fn the_last_of_two_values_counts() {
    assert_eq!(whole(b"x\n detector_node=a\n detector_node=b\n").userdata.node.as_deref(), Some("b"));
}

#[test]
fn text_goes_on_only_to_the_first_hole() {
    let found = torn([(0, b"text th".as_slice()), (12, b"f=1\n detector_boot=b\n detector_se".as_slice())], 80);
    assert_eq!((found.text.as_str(), found.torn), ("text th", true));
    assert_eq!((found.userdata.boot_id.as_deref(), found.userdata.secret), (Some("b"), None));
}

#[test]
fn half_of_the_secret_never_becomes_text() {
    let found = torn([(30, b"00112233\n".as_slice())], 39);
    assert_eq!((found.text.as_str(), found.userdata), ("", Userdata::default()));
}

#[test]
fn a_line_that_is_too_long_is_cut_and_torn() {
    let found = whole(&[b'x'; MAX_LINE_BYTES + 1]);
    assert_eq!((found.text.len(), found.torn), (MAX_LINE_BYTES, true));
}

proptest! {
    #[test]
    fn any_bytes_are_text_that_can_be_shown(raw in prop::collection::vec(any::<u8>(), 0..6000), escaped: bool) {
        let (text, _) = printable(&raw, escaped);
        prop_assert!(text.len() <= MAX_LINE_BYTES);
        prop_assert!(!text.contains(char::is_control));
    }
}
