//! Text that fits a table's cell: harmless on a terminal, measured in columns, shortened where it is too long.

use std::time::Duration;

use unicode_width::UnicodeWidthChar;

use crate::text::CUT;
pub(super) use crate::text::harmless;

/// Columns that `text` takes on a terminal.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn columns_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// `text` in at most `room` columns; what is cut is cut at the end.
pub(super) fn keep_start(text: &str, room: usize) -> String {
    if columns(text) <= room {
        return text.to_owned();
    }
    let mut kept: String = within(text.chars(), room).collect();
    if room > 0 {
        kept.push(CUT);
    }
    kept
}

/// `text` in at most `room` columns; what is cut is cut at the start.
pub(super) fn keep_end(text: &str, room: usize) -> String {
    if columns(text) <= room {
        return text.to_owned();
    }
    let mut kept: Vec<char> = within(text.chars().rev(), room).collect();
    if room > 0 {
        kept.push(CUT);
    }
    kept.into_iter().rev().collect()
}

/// The first characters that leave a column for the mark of the cut.
fn within(chars: impl Iterator<Item = char>, room: usize) -> impl Iterator<Item = char> {
    let mut used = 0;
    chars.take_while(move |c| {
        used += columns_of(*c);
        used < room
    })
}

/// `text` with spaces behind it up to `width` columns.
pub(super) fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// `bytes` for people, in at most seven characters: `512 B`, `1.5 GiB`, `250 MiB`.
pub(super) fn human(bytes: u64) -> String {
    const NAMES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    // 1,000 of a unit is told as 0.98 of the next, so that no number has four digits.
    let mut value = bytes as f64;
    let mut name = 0;
    while value >= 999.5 && name + 1 < NAMES.len() {
        value /= 1024.0;
        name += 1;
    }
    let whole = value.fract() == 0.0 || value >= 9.95;
    format!("{value:.*} {}", usize::from(!whole), NAMES[name])
}

/// A length of time for people, in at most seven characters up to a million days: `12 s`, `2m 05s`, `1h 05m`, `12d 05h`.
pub(super) fn length(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes}m {:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h {:02}m", minutes % 60),
        (1..100, _, _) => format!("{days}d {:02}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::zero(0, "0 B")]
    #[case::bytes(999, "999 B")]
    #[case::no_four_digits(1000, "1.0 KiB")]
    #[case::whole(1 << 20, "1 MiB")]
    #[case::fraction(3 << 29, "1.5 GiB")]
    #[case::ten(10 << 20, "10 MiB")]
    #[case::nearly_ten((10 << 20) - 1, "10 MiB")]
    #[case::usual(250 << 20, "250 MiB")]
    #[case::largest(u64::MAX, "16 EiB")]
    fn bytes_read_well(#[case] bytes: u64, #[case] text: &str) {
        assert_eq!(human(bytes), text);
        assert!(text.len() <= 7);
    }

    #[rstest]
    #[case(0, "0 s")]
    #[case(59, "59 s")]
    #[case(60, "1m 00s")]
    #[case(3599, "59m 59s")]
    #[case(3600, "1h 00m")]
    #[case(86_399, "23h 59m")]
    #[case(99 * 86_400 + 86_399, "99d 23h")]
    #[case(100 * 86_400, "100d")]
    fn lengths_of_time_read_well(#[case] seconds: u64, #[case] text: &str) {
        assert_eq!(length(Duration::from_secs(seconds)), text);
        assert!(text.len() <= 7);
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\u{9b}c\r\nd\u{202e}e"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\u{fffd}d\u{fffd}e");
    }

    #[rstest]
    #[case::fits("abc", 3, "abc", "abc")]
    #[case::cut("abcd", 3, "ab…", "…cd")]
    #[case::wide("日本語", 4, "日…", "…語")]
    #[case::wide_to_the_column("日本語", 5, "日本…", "…本語")]
    #[case::one_column("abc", 1, "…", "…")]
    #[case::no_room("abc", 0, "", "")]
    fn text_is_cut_to_columns(#[case] text: &str, #[case] room: usize, #[case] start: &str, #[case] end: &str) {
        assert_eq!(keep_start(text, room), start);
        assert_eq!(keep_end(text, room), end);
        assert!(columns(start) <= room && columns(end) <= room);
    }

    #[test]
    fn padding_counts_columns_not_bytes() {
        assert_eq!(pad("日本", 6), "日本  ");
        assert_eq!(pad("long", 2), "long");
    }
}
