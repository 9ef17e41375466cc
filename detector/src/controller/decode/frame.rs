//! One datagram → the record, or the piece of one, that it carries.
//!
//! netconsole speaks two formats (`drivers/net/netconsole.c`). What decides between them is the shape of the begin:
//!
//! ```text
//! [RELEASE,]PREFIX,SEQUENCE,MICROSECONDS,FLAG[,KEY=VALUE..];TEXT\n[ KEY=VALUE\n..]    extended
//! anything else                                                                      basic: text as a console shows it
//! ```
//!
//! The fields of the head are those of `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg`). `PREFIX` is the facility, shifted
//! left by three bits, and the level. `FLAG` (`-`, `c`, `+`) tells about continuation and is not heeded: the kernel joins
//! lines itself since 5.10. Of the fields that follow, `ncfrag=OFFSET/TOTAL` marks a piece of a record that was too long for
//! one datagram; others (`caller=`) are left out. A datagram that has the shape of the extended format and breaks its rules is
//! an error: it is not taken for basic text, which would hide what it claims.
//!
//! Nothing here allocates, and what a datagram claims about lengths is never believed beyond [`MAX_RECORD_BYTES`].

use std::time::Duration;

use super::{Header, Userdata, text};
use crate::controller::source::MAX_DATAGRAM;

/// Bytes of a record's text and userdata at most. The kernel's text is 2,048 long at most (`PRINTK_MESSAGE_MAX`; 8,192 before
/// 6.4), its userdata 16 entries of 256 unless somebody sets up more than we do.
pub const MAX_RECORD_BYTES: usize = 16 * 1024;

/// Where a release ends at the latest: it has no mark of its own but that a `.` stands before the first `,`.
const MAX_RELEASE_BYTES: usize = 64;

/// Bytes from the begin of the head to its `;` at most.
const MAX_HEAD_BYTES: usize = 256;

/// What a datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Text without a head: perhaps a part of a line, perhaps several lines.
    Basic(&'a [u8]),
    /// A record in extended format.
    Extended(Record<'a>),
}

/// A record in extended format, or a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Release of the kernel, if it is told before the head.
    pub release: Option<&'a str>,
    /// The head.
    pub header: Header,
    /// Where in the record `body` belongs. `None`: it is all of it.
    pub fragment: Option<Fragment>,
    /// Text, dictionary and userdata, as they were sent.
    pub body: &'a [u8],
}

/// Place of a piece in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Bytes before it.
    pub offset: usize,
    /// Bytes of the whole record: [`MAX_RECORD_BYTES`] at most.
    pub total: usize,
}

/// A datagram that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It has no bytes.
    #[error("an empty datagram")]
    Empty,
    /// A number of the head is larger than the kernel's own type for it.
    #[error("a number in the head is out of range")]
    Number,
    /// The head does not end.
    #[error("no `;` ends the head")]
    Endless,
    /// `ncfrag` is no `OFFSET/TOTAL`, or the piece does not fit into its record.
    #[error("the place of the fragment contradicts itself")]
    Fragment,
    /// The record that it is a piece of is larger than [`MAX_RECORD_BYTES`].
    #[error("the record is larger than {MAX_RECORD_BYTES} bytes")]
    Excessive,
}

impl Record<'_> {
    /// What the node says about itself. `None`: this is a piece, which may hold half of it.
    #[must_use]
    pub fn userdata(&self) -> Option<Userdata> {
        self.fragment.is_none().then(|| text::userdata(self.body))
    }
}

/// Reads a datagram; what lies beyond [`MAX_DATAGRAM`] is not looked at.
///
/// # Errors
///
/// It has the shape of the extended format and breaks its rules, or is empty.
pub fn parse(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    if bytes.is_empty() {
        return Err(FrameError::Empty);
    }
    let bytes = bytes.get(..MAX_DATAGRAM).unwrap_or(bytes);
    let (release, rest) = release(bytes);
    let Some((numbers, rest)) = head(rest) else { return Ok(Frame::Basic(bytes)) };
    let header = header(numbers)?;
    let near = rest.get(..MAX_HEAD_BYTES).unwrap_or(rest);
    let end = near.iter().position(|byte| *byte == b';').ok_or(FrameError::Endless)?;
    let (fields, body) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
    let fragment = fields.split(|byte| *byte == b',').rev().find_map(|field| field.strip_prefix(b"ncfrag="));
    let fragment = fragment.map(|place| self::fragment(place, body.len())).transpose()?;
    Ok(Frame::Extended(Record { release, header, fragment, body }))
}

/// The release, if there is one, and what follows it.
fn release(bytes: &[u8]) -> (Option<&str>, &[u8]) {
    let near = bytes.get(..=MAX_RELEASE_BYTES).unwrap_or(bytes);
    let found = near.iter().position(|byte| *byte == b',').and_then(|comma| {
        let release = near.get(..comma)?;
        let likely = release.contains(&b'.') && release.iter().all(u8::is_ascii_graphic);
        let release = str::from_utf8(release).ok().filter(|_| likely)?;
        Some((release, bytes.get(comma + 1..)?))
    });
    found.map_or((None, bytes), |(release, rest)| (Some(release), rest))
}

/// The three numbers of the head, and what follows the flag from its `,` or `;` on. `None`: it has another shape.
fn head(bytes: &[u8]) -> Option<([&[u8]; 3], &[u8])> {
    let mut rest = bytes;
    let mut numbers = [bytes; 3];
    for number in &mut numbers {
        let end = rest.iter().position(|byte| !byte.is_ascii_digit()).filter(|end| *end > 0)?;
        if rest.get(end) != Some(&b',') {
            return None;
        }
        (*number, rest) = (rest.get(..end)?, rest.get(end + 1..)?);
    }
    let (flag, rest) = rest.split_first()?;
    let shaped = matches!(flag, b'-' | b'c' | b'+') && matches!(rest.first(), Some(b',' | b';'));
    shaped.then_some((numbers, rest))
}

fn header(numbers: [&[u8]; 3]) -> Result<Header, FrameError> {
    let [prefix, sequence, uptime] = numbers.map(number);
    let prefix = prefix?;
    Ok(Header {
        facility: u16::try_from(prefix >> 3).map_err(|_| FrameError::Number)?,
        level: (prefix & 7) as u8,
        sequence: sequence?,
        uptime: Duration::from_micros(uptime?),
    })
}

fn number(digits: &[u8]) -> Result<u64, FrameError> {
    str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(FrameError::Number)
}

fn fragment(place: &[u8], length: usize) -> Result<Fragment, FrameError> {
    let parts = str::from_utf8(place).ok().and_then(|place| place.split_once('/'));
    let (offset, total) = parts.ok_or(FrameError::Fragment)?;
    let read = |digits: &str| {
        let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<usize>().ok()).ok_or(FrameError::Fragment)
    };
    let fragment = Fragment { offset: read(offset)?, total: read(total)? };
    if fragment.total > MAX_RECORD_BYTES {
        return Err(FrameError::Excessive);
    }
    let end = fragment.offset.checked_add(length).ok_or(FrameError::Fragment)?;
    if length == 0 || end > fragment.total {
        return Err(FrameError::Fragment);
    }
    Ok(fragment)
}

#[cfg(test)]
mod tests;
