//! One record of a ring: header first, then the payload of its kind.

use detector_common::{
    ABI, Header, Kind,
    cgroup::{CgroupLife as RawLife, PATH_CAPACITY},
    hung_task::{FRAMES, HungTask as RawHung},
    oom::{LEVELS, OomMark as RawMark},
};
use thiserror::Error;
use zerocopy::FromBytes;

use super::{
    event::{CgroupChange, CgroupKey, CgroupLife, KernelEvent, Stamp},
    hung_task, oom_mark,
};

/// Why a record was refused. Nothing of a refused record is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than the part that is about to be read.
    #[error("record of {length} bytes is cut: {what} takes {needed}")]
    Short {
        /// What was about to be read.
        what: &'static str,
        /// Bytes that it takes.
        needed: usize,
        /// Bytes that the record has.
        length: usize,
    },
    /// More bytes than the part of its kind: written by a kernel side of another build, whatever ABI it claims.
    #[error("record of {length} bytes is too long: {what} takes {needed}")]
    Long {
        /// What was about to be read.
        what: &'static str,
        /// Bytes that it takes.
        needed: usize,
        /// Bytes that the record has.
        length: usize,
    },
    /// Written by another version of the kernel side.
    #[error("record has ABI {found}, this program reads ABI {ABI}")]
    Abi {
        /// ABI in the header.
        found: u16,
    },
    /// A kind that this ABI does not have.
    #[error("record has kind {found}, which ABI {ABI} does not have")]
    Kind {
        /// Kind in the header.
        found: u16,
    },
    /// The header tells another length than the ring.
    #[error("record of {length} bytes says in its header that it has {told}")]
    Length {
        /// Length in the header.
        told: u32,
        /// Bytes that the record has.
        length: usize,
    },
    /// A number inside the payload is out of its range.
    #[error("{field} is {value}, more than {limit}")]
    Range {
        /// Name of the number.
        field: &'static str,
        /// Its value.
        value: u32,
        /// The largest valid one.
        limit: usize,
    },
}

impl DecodeError {
    /// The reason as one word of a closed set, for metrics and notices.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Short { .. } => "short",
            Self::Long { .. } => "long",
            Self::Abi { .. } => "abi",
            Self::Kind { .. } => "kind",
            Self::Length { .. } => "length",
            Self::Range { .. } => "range",
        }
    }
}

/// Decodes one record.
///
/// # Errors
/// If the record is cut, foreign, or has a number out of range.
pub fn decode(record: &[u8]) -> Result<KernelEvent, DecodeError> {
    let header: Header = read(record, "the header")?;
    if header.abi != ABI {
        return Err(DecodeError::Abi { found: header.abi });
    }
    if header.length as usize != record.len() {
        return Err(DecodeError::Length { told: header.length, length: record.len() });
    }
    match header.kind {
        Kind::OOM_MARK => {
            let raw: RawMark = read_whole(record, "an OOM mark")?;
            in_range("level_count", raw.level_count, LEVELS)?;
            Ok(KernelEvent::OomMark(oom_mark::convert(&raw)))
        }
        Kind::HUNG_TASK => {
            let raw: RawHung = read_whole(record, "a hung task")?;
            in_range("frame_count", raw.frame_count, FRAMES)?;
            Ok(KernelEvent::HungTask(Box::new(hung_task::convert(&raw))))
        }
        Kind::CGROUP_MADE => cgroup_life(record, CgroupChange::Made),
        Kind::CGROUP_REMOVED => cgroup_life(record, CgroupChange::Removed),
        Kind(found) => Err(DecodeError::Kind { found }),
    }
}

pub(super) fn stamp(header: &Header) -> Stamp {
    Stamp { boot_ns: header.boot_ns, cpu: header.cpu, sequence: header.sequence }
}

fn cgroup_life(record: &[u8], change: CgroupChange) -> Result<KernelEvent, DecodeError> {
    let raw: RawLife = read(record, "the life of a cgroup")?;
    in_range("path_length", raw.path_length, PATH_CAPACITY - 1)?;
    let start = size_of::<RawLife>();
    let needed = start + raw.path_length as usize;
    let path = record.get(start..needed).ok_or(DecodeError::Short {
        what: "the path of a cgroup",
        needed,
        length: record.len(),
    })?;
    let path = if path.is_empty() { None } else { Some(String::from_utf8_lossy(path).into_owned()) };
    let key = CgroupKey { hierarchy: raw.cgroup.hierarchy, id: raw.cgroup.id };
    Ok(KernelEvent::CgroupLife(CgroupLife { stamp: stamp(&raw.header), key, path, change }))
}

/// A payload of fixed length, and nothing behind it.
fn read_whole<T: FromBytes>(record: &[u8], what: &'static str) -> Result<T, DecodeError> {
    let value = read(record, what)?;
    if record.len() > size_of::<T>() {
        return Err(DecodeError::Long { what, needed: size_of::<T>(), length: record.len() });
    }
    Ok(value)
}

fn read<T: FromBytes>(record: &[u8], what: &'static str) -> Result<T, DecodeError> {
    match T::read_from_prefix(record) {
        Ok((value, _rest)) => Ok(value),
        Err(_) => Err(DecodeError::Short { what, needed: size_of::<T>(), length: record.len() }),
    }
}

fn in_range(field: &'static str, value: u32, limit: usize) -> Result<(), DecodeError> {
    if value as usize <= limit { Ok(()) } else { Err(DecodeError::Range { field, value, limit }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    fn life(kind: Kind, path: &str) -> Vec<u8> {
        let length = (size_of::<RawLife>() + path.len()).next_multiple_of(8);
        let mut raw = RawLife::new_zeroed();
        raw.header.abi = ABI;
        raw.header.kind = kind;
        raw.header.length = length as u32;
        raw.header.boot_ns = 7;
        raw.cgroup.id = 42;
        raw.cgroup.hierarchy = 3;
        raw.path_length = path.len() as u32;
        let mut bytes = raw.as_bytes().to_vec();
        bytes.extend_from_slice(path.as_bytes());
        bytes.resize(length, 0);
        bytes
    }

    fn mark() -> Vec<u8> {
        let mut raw = RawMark::new_zeroed();
        raw.header.abi = ABI;
        raw.header.kind = Kind::OOM_MARK;
        raw.header.length = size_of::<RawMark>() as u32;
        raw.as_bytes().to_vec()
    }

    #[rstest]
    #[case(Kind::CGROUP_MADE, CgroupChange::Made)]
    #[case(Kind::CGROUP_REMOVED, CgroupChange::Removed)]
    fn life_of_a_cgroup_keeps_path_and_key(#[case] kind: Kind, #[case] change: CgroupChange) {
        let KernelEvent::CgroupLife(life) = decode(&life(kind, "/a/b.slice")).expect("valid") else {
            panic!("another kind")
        };
        assert_eq!(life.path.as_deref(), Some("/a/b.slice"));
        assert_eq!(life.key, CgroupKey { hierarchy: 3, id: 42 });
        assert_eq!(life.change, change);
        assert_eq!(life.stamp.boot_ns, 7);
    }

    #[test]
    fn a_path_that_the_kernel_could_not_tell_is_none() {
        let KernelEvent::CgroupLife(life) = decode(&life(Kind::CGROUP_MADE, "")).expect("valid") else {
            panic!("another kind")
        };
        assert_eq!(life.path, None);
    }

    #[test]
    fn a_record_of_another_abi_is_refused() {
        let mut bytes = mark();
        bytes[0] = 9;
        assert_eq!(decode(&bytes), Err(DecodeError::Abi { found: 9 }));
    }

    #[test]
    fn a_mark_with_more_than_its_fields_is_refused() {
        let mut bytes = mark();
        let length = bytes.len() + 16;
        bytes.resize(length, 0);
        bytes[4..8].copy_from_slice(&(length as u32).to_ne_bytes());
        let expected = DecodeError::Long { what: "an OOM mark", needed: length - 16, length };
        assert_eq!(decode(&bytes), Err(expected));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let mut bytes = mark();
        bytes[2] = 200;
        assert_eq!(decode(&bytes), Err(DecodeError::Kind { found: 200 }));
    }

    #[test]
    fn every_cut_of_a_record_is_refused() {
        for whole in [mark(), life(Kind::CGROUP_MADE, "/a")] {
            for length in 0..whole.len() {
                assert!(decode(&whole[..length]).is_err(), "{length} bytes");
            }
            assert!(decode(&whole).is_ok());
        }
    }

    #[test]
    fn more_levels_than_a_record_has_are_refused() {
        let mut raw = RawMark::read_from_bytes(&mark()).expect("whole");
        raw.level_count = LEVELS as u32 + 1;
        let expected = DecodeError::Range { field: "level_count", value: 17, limit: LEVELS };
        assert_eq!(decode(raw.as_bytes()), Err(expected));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            decode(&bytes).ok();
        }

        #[test]
        fn a_damaged_record_never_panics(at in 0..size_of::<RawMark>(), value in any::<u8>()) {
            let mut bytes = mark();
            bytes[at] = value;
            decode(&bytes).ok();
        }
    }
}
