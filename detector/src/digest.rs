//! One digest that is the same in every version of the program and on every machine, as names and files have to be.
//!
//! It tells things apart; it does not withstand those who look for two that are alike.

/// Basis and prime of FNV-1a with 64 bits (RFC 9923).
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a with 64 bits: bytes after bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Of nothing.
    pub const EMPTY: Self = Self(BASIS);

    /// With these bytes, too.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)))
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_everybody_else() {
        assert_eq!(Digest::EMPTY.with(b"").value(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Digest::EMPTY.with(b"a").value(), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Digest::EMPTY.with(b"foobar").value(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn bytes_may_come_in_parts() {
        assert_eq!(Digest::EMPTY.with(b"foo").with(b"bar"), Digest::EMPTY.with(b"foobar"));
    }
}
