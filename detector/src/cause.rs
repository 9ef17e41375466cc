//! Errors with their causes, in one line.

use std::error::Error;

/// Causes of causes that are looked at: a foreign error may go round in a circle.
const DEEPEST: usize = 16;

/// Bytes of a chain at most. What is cut out is the middle: the start says what was attempted, the end why it failed.
const MAX_BYTES: usize = 2048;

/// `error` with its causes, in one line of at most some 2 KiB. A cause that the text before it ends with already is not told
/// again: errors of foreign libraries often repeat theirs.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    for _ in 0..DEEPEST {
        let Some(error) = cause else { break };
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    bounded(text)
}

fn bounded(text: String) -> String {
    if text.len() <= MAX_BYTES {
        return text;
    }
    let start = text.floor_char_boundary(MAX_BYTES / 2);
    let end = text.ceil_char_boundary(text.len() - MAX_BYTES / 2);
    format!("{} … {}", &text[..start], &text[end..])
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("{text}")]
    struct Told {
        text: String,
        #[source]
        cause: Option<Box<dyn Error>>,
    }

    fn told(texts: &[&str]) -> Told {
        let mut texts = texts.iter().rev();
        let first = |text: &&str, cause| Told { text: (*text).to_owned(), cause };
        let last = first(texts.next().expect("a text"), None);
        texts.fold(last, |cause, text| first(text, Some(cause.into())))
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        assert_eq!(error_chain(&io::Error::other("no")), "no");
        assert_eq!(
            error_chain(&told(&["opening x", "reading y", "no such file"])),
            "opening x: reading y: no such file"
        );
    }

    #[test]
    fn what_an_error_says_of_its_cause_is_not_said_again() {
        let error = told(&["ServiceError: client error (Connect)", "client error (Connect)", "tcp", "refused"]);
        assert_eq!(error_chain(&error), "ServiceError: client error (Connect): tcp: refused");
    }

    #[test]
    fn neither_a_deep_error_nor_a_long_one_makes_an_endless_line() {
        let texts: Vec<String> = (0..100).map(|number| format!("cause {number}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert!(error_chain(&told(&texts)).ends_with("cause 16"));
        let (start, end) = ("ä".repeat(5000), "ö".repeat(5000));
        let text = error_chain(&told(&[&start, &end]));
        assert!(text.len() <= MAX_BYTES + " … ".len(), "{}", text.len());
        assert!(text.starts_with('ä') && text.ends_with('ö'), "{text}");
    }
}
