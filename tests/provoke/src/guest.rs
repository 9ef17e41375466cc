//! Tells a test guest from a machine that somebody needs.

use std::{fs, path::Path};

use crate::Error;

/// Parameter on the kernel's command line that only the test rig's virtual machines have.
pub const MARKER: &str = "detector.guest=1";

/// Refuses with [`Error::NotInGuest`] unless this kernel was booted by the test rig.
pub fn require(what: &'static str) -> Result<(), Error> {
    let path = Path::new("/proc/cmdline");
    let line = fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
    if marked(&line) { Ok(()) } else { Err(Error::NotInGuest { what }) }
}

fn marked(line: &str) -> bool {
    line.split_ascii_whitespace().any(|word| word == MARKER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_marker_word_makes_a_guest() {
        assert!(marked("console=ttyS0 detector.guest=1 quiet\n"));
        assert!(!marked("console=ttyS0 detector.guest=10"));
        assert!(!marked("console=ttyS0 quiet"));
    }
}
