//! Reading a file of settings: bounded, and as text.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::mistake::{Mistake, Mistakes, Position};

/// Bytes of a file at most; the longest sensible one has some 5,000.
pub const MAX_BYTES: usize = 256 * 1024;

/// The bytes of the file at `path`, at most one more than [`MAX_BYTES`].
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_from(File::open(path)?)
}

/// What `source` has, at most one byte more than [`MAX_BYTES`].
pub(super) fn read_from(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    source.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `bytes` as text.
pub(super) fn text<'b>(name: &str, bytes: &'b [u8]) -> Result<&'b str, Mistakes> {
    if bytes.len() > MAX_BYTES {
        return Err(Mistakes::new(name, vec![Mistake::of_file(format_args!("must be at most {MAX_BYTES} bytes"))]));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let (good, bad) = bytes.split_at(error.valid_up_to());
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        // `good` is text, so that nothing is replaced.
        let column =
            1 + String::from_utf8_lossy(good.rsplit(|byte| *byte == b'\n').next().unwrap_or(good)).chars().count();
        let byte = bad.first().copied().unwrap_or_default();
        let rule = format_args!("must be UTF-8: byte 0x{byte:02x} begins no character here").to_string();
        Mistakes::new(name, vec![Mistake::at(Position { line, column }, rule)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_not_read_whole() {
        let bytes = read_from(io::repeat(b'a')).expect("endless, but bounded");
        assert_eq!(bytes.len(), MAX_BYTES + 1);
        assert_eq!(text("f", &bytes).expect_err("too long").to_string(), "f: must be at most 262144 bytes");
        assert!(text("f", &bytes[1..]).is_ok());
    }

    #[test]
    fn bytes_that_are_no_text_are_told_with_their_place() {
        let error = text("f", b"a: 1\nb: \xc3\xa4\xff").expect_err("no UTF-8");
        assert_eq!(error.to_string(), "f:2:5: must be UTF-8: byte 0xff begins no character here");
    }
}
