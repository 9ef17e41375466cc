//! Bytes of a record's body → text that can be shown, and what the node says about itself.
//!
//! The text ends at the first end of line: an end of line inside of it is escaped, as all bytes that are not printable are
//! (`\x0a`). Undone, it becomes a blank: a text that a program chose (the name of a file that crashed) must not begin a line
//! of its own that looks like the kernel's. After the text come the dictionary of the record and the userdata of netconsole,
//! one ` KEY=VALUE` in each line; the latter is last and counts.

use super::Userdata;
use crate::contract::netconsole::{SECRET_BYTES, USERDATA_BOOT, USERDATA_NODE, USERDATA_SECRET};

/// Bytes of a line at most: what is longer is cut, and torn. The longest text of the kernel is 2,048 (`PRINTK_MESSAGE_MAX`).
pub const MAX_LINE_BYTES: usize = 4096;

/// Bytes of a Node's name at most (RFC 1123 subdomain).
const MAX_NODE_BYTES: usize = 253;

/// Bytes of a boot id: a UUID.
const MAX_BOOT_BYTES: usize = 36;

/// A run of bytes of a body without a hole, and where it begins.
pub(super) type Run<'a> = (usize, &'a [u8]);

/// What a body says.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) text: String,
    pub(super) userdata: Userdata,
    /// Something of it is missing.
    pub(super) torn: bool,
}

/// Reads a body of which nothing is missing.
pub(super) fn whole(body: &[u8]) -> Body {
    let (text, rest) = split(body);
    let (text, torn) = printable(text, true);
    Body { text, userdata: userdata_lines(rest, true), torn }
}

/// Reads a body of `total` bytes of which `runs` are there, in order of their place.
///
/// Text goes on only to the first hole: what comes after may be userdata, and the secret among it is not for the log.
pub(super) fn torn<'a>(runs: impl IntoIterator<Item = Run<'a>>, total: usize) -> Body {
    let mut found = Body { torn: true, ..Body::default() };
    for (offset, run) in runs {
        let ends = offset + run.len() >= total;
        let (text, rest) = split(run);
        if offset == 0 {
            found.text = printable(text, true).0;
        }
        merge(&mut found.userdata, userdata_lines(rest, ends));
    }
    found
}

/// Userdata of a body of which nothing is missing.
pub(super) fn userdata(body: &[u8]) -> Userdata {
    userdata_lines(split(body).1, true)
}

/// The first line without its end, and what comes after.
fn split(body: &[u8]) -> (&[u8], &[u8]) {
    match body.iter().position(|byte| *byte == b'\n') {
        Some(end) => (body.get(..end).unwrap_or_default(), body.get(end + 1..).unwrap_or_default()),
        None => (body, &[]),
    }
}

/// Reads userdata. A last line without its end counts only if `ends`.
fn userdata_lines(mut rest: &[u8], ends: bool) -> Userdata {
    let mut userdata = Userdata::default();
    while !rest.is_empty() {
        let ended = rest.contains(&b'\n');
        let (line, after) = split(rest);
        if ended || ends {
            entry(&mut userdata, line);
        }
        rest = after;
    }
    userdata
}

fn entry(userdata: &mut Userdata, line: &[u8]) {
    let Some(entry) = line.strip_prefix(b" ").and_then(|entry| str::from_utf8(entry).ok()) else { return };
    let Some((key, value)) = entry.split_once('=') else { return };
    let (field, longest) = match key {
        USERDATA_NODE => (&mut userdata.node, MAX_NODE_BYTES),
        USERDATA_BOOT => (&mut userdata.boot_id, MAX_BOOT_BYTES),
        USERDATA_SECRET => (&mut userdata.secret, SECRET_BYTES * 2),
        _ => return,
    };
    let clean = !value.is_empty() && value.len() <= longest && value.bytes().all(|byte| byte.is_ascii_graphic());
    *field = clean.then(|| value.to_owned());
}

fn merge(into: &mut Userdata, from: Userdata) {
    into.node = from.node.or(into.node.take());
    into.boot_id = from.boot_id.or(into.boot_id.take());
    into.secret = from.secret.or(into.secret.take());
}

/// Text that can be shown, and whether it had to be cut. `escaped`: `\xNN` stands for a byte.
pub(super) fn printable(raw: &[u8], escaped: bool) -> (String, bool) {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !(escaped && *byte == b'\\');
    if raw.len() <= MAX_LINE_BYTES && raw.iter().all(plain) {
        return (String::from_utf8_lossy(raw).into_owned(), false);
    }
    let undone = if escaped { unescape(raw) } else { raw.to_vec() };
    let mut text: String = String::from_utf8_lossy(&undone).chars().map(shown).collect();
    let cut = text.len() > MAX_LINE_BYTES;
    text.truncate(text.floor_char_boundary(MAX_LINE_BYTES));
    (text, cut)
}

fn unescape(raw: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut undone = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        let escape = match rest {
            [b'\\', b'x', high, low, after @ ..] => digit(high).zip(digit(low)).map(|pair| (pair, after)),
            _ => None,
        };
        let (byte, after) = escape.map_or((*first, after), |((high, low), after)| (high << 4 | low, after));
        undone.push(byte);
        rest = after;
    }
    undone
}

/// A character, or what stands for it: control characters and those that turn the direction of the text are not shown.
fn shown(character: char) -> char {
    match character {
        '\n' | '\t' => ' ',
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
        _ if character.is_control() => '?',
        _ => character,
    }
}

#[cfg(test)]
mod tests;
