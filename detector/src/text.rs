//! Foreign text made fit to be shown: without what acts on a terminal or a page, and cut to a length.

/// Stands where something was cut.
pub const CUT: char = '…';

/// Whether `c` would do something where it is shown: controls (escape sequences begin with one), line separators, marks of
/// no width, and those that turn the direction of writing, which could make one name look like another (Unicode Standard
/// Annex 9; U+2028, U+2029, U+FEFF).
#[must_use]
pub fn disturbs(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `text` with a replacement character (U+FFFD) for each that [`disturbs`].
#[must_use]
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if disturbs(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The start of `text` of at most `bytes` bytes, cut between characters.
#[must_use]
pub fn start(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// `text` of at most `bytes` bytes; what was cut ends with [`CUT`].
#[must_use]
pub fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut kept = start(text, bytes.saturating_sub(CUT.len_utf8())).to_owned();
    kept.push(CUT);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_or_turns_the_direction_of_writing_is_replaced() {
        assert_eq!(harmless("a\x1b[2Jb\u{9b}c\r\nd\u{202e}e"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\u{fffd}d\u{fffd}e");
        for c in ['\u{61c}', '\u{200b}', '\u{200f}', '\u{2028}', '\u{2066}', '\u{2069}', '\u{feff}'] {
            assert!(disturbs(c), "{c:?}");
        }
        assert_eq!(harmless("größe 大きさ حجم"), "größe 大きさ حجم");
    }

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        assert_eq!((start("äöü", 3), start("abc", 9), start("ä", 1)), ("ä", "abc", ""));
        assert_eq!((cut("abcdef", 6).as_str(), cut("abcdefg", 6).as_str()), ("abcdef", "abc…"));
        assert!((3..40).all(|bytes| cut(&"ä".repeat(40), bytes).len() <= bytes));
    }
}
