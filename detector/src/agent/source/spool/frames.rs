//! The bytes of a spool: written, and read back whatever became of them.

use detector_common::ABI;

use crate::digest::Digest;

/// First bytes of a spool.
const MAGIC: [u8; 8] = *b"DETSPOOL";

/// Characters of a boot id: a UUID in text (random(4)).
const BOOT_ID: usize = 36;

/// Bytes of a head.
pub(super) const HEAD: usize = MAGIC.len() + size_of::<u32>() + BOOT_ID;

/// Bytes of length and checksum.
const FRAME: usize = 2 * size_of::<u32>();

/// Longest record in bytes: several times that of any kind.
const RECORD: usize = 8192;

/// What a spool says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    abi: u32,
    boot_id: [u8; BOOT_ID],
}

/// What was found in a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Whole records of this boot, oldest first.
    pub records: Vec<Vec<u8>>,
    /// Records of another boot, which were dropped.
    pub other_boot: u64,
    /// Records of this boot with another layout, which were dropped.
    pub other_abi: u64,
    /// Bytes at the end that are no whole record: a write was cut short, or something else wrote there.
    pub damaged_bytes: u64,
    /// Bytes up to there that may stay in the file; 0: nothing of it is of use.
    pub(super) valid_bytes: u64,
}

impl Head {
    /// That of this program, in the boot with that id. One that is shorter is filled with zeros.
    pub(super) fn of(boot_id: &str) -> Self {
        let mut head = Self { abi: ABI.into(), boot_id: [0; BOOT_ID] };
        head.boot_id.iter_mut().zip(boot_id.bytes()).for_each(|(to, from)| *to = from);
        head
    }

    pub(super) fn bytes(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        let parts = MAGIC.iter().chain(&self.abi.to_ne_bytes()).chain(&self.boot_id).copied().collect::<Vec<_>>();
        bytes.copy_from_slice(&parts);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let bytes = bytes.strip_prefix(&MAGIC)?;
        let (abi, bytes) = bytes.split_first_chunk()?;
        let (boot_id, bytes) = bytes.split_first_chunk()?;
        Some((Self { abi: u32::from_ne_bytes(*abi), boot_id: *boot_id }, bytes))
    }
}

/// Adds the frame of a record to `frames`.
pub(super) fn append(frames: &mut Vec<u8>, record: &[u8]) {
    // A longer one would not be read back.
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    frames.extend_from_slice(&length.to_ne_bytes());
    frames.extend_from_slice(&checksum(record).to_ne_bytes());
    frames.extend_from_slice(record);
}

/// Reads a spool. Any bytes will do.
#[must_use]
pub fn read(bytes: &[u8], boot_id: &str) -> Replay {
    let mut replay = Replay::default();
    let Some((head, mut rest)) = Head::read(bytes) else {
        replay.damaged_bytes = bytes.len() as u64;
        return replay;
    };
    let own = Head::of(boot_id);
    let mut count = 0;
    while let Some((record, after)) = next(rest) {
        count += 1;
        if head == own {
            replay.records.push(record.to_vec());
        }
        rest = after;
    }
    replay.damaged_bytes = rest.len() as u64;
    if head.boot_id != own.boot_id {
        replay.other_boot = count;
    } else if head.abi != own.abi {
        replay.other_abi = count;
    } else {
        replay.valid_bytes = (bytes.len() - rest.len()) as u64;
    }
    replay
}

/// The first record, and what is behind it.
fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<FRAME>()?;
    let (length, sum) = head.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok().filter(|length| (1..=RECORD).contains(length))?;
    let (record, rest) = rest.split_at_checked(length)?;
    (checksum(record).to_ne_bytes() == *sum).then_some((record, rest))
}

/// 32 bits are enough to find half a frame.
fn checksum(bytes: &[u8]) -> u32 {
    let [a, b, c, d, ..] = Digest::EMPTY.with(bytes).value().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOOT: &str = "0f1c2d3e-4b5a-6978-8796-a5b4c3d2e1f0";

    fn spool(boot_id: &str, records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Head::of(boot_id).bytes().to_vec();
        records.iter().for_each(|record| append(&mut bytes, record));
        bytes
    }

    #[test]
    fn records_come_back_in_their_order() {
        let bytes = spool(BOOT, &[b"one", b"two"]);
        let replay = read(&bytes, BOOT);
        assert_eq!(replay.records, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!((replay.valid_bytes, replay.damaged_bytes), (bytes.len() as u64, 0));
    }

    #[test]
    fn a_write_that_was_cut_short_costs_its_own_record_alone() {
        let whole = spool(BOOT, &[b"one"]);
        let bytes = spool(BOOT, &[b"one", b"two"]);
        for end in whole.len() + 1..bytes.len() {
            let replay = read(&bytes[..end], BOOT);
            assert_eq!(replay.records, [b"one".to_vec()]);
            assert_eq!((replay.valid_bytes, replay.damaged_bytes), (whole.len() as u64, (end - whole.len()) as u64));
        }
    }

    #[test]
    fn records_of_another_boot_are_counted_and_dropped() {
        let replay = read(&spool("another", &[b"one", b"two"]), BOOT);
        assert_eq!((replay.other_boot, replay.other_abi, replay.valid_bytes), (2, 0, 0));
        assert!(replay.records.is_empty());
    }

    #[test]
    fn records_of_another_version_are_counted_and_dropped() {
        let mut bytes = spool(BOOT, &[b"one"]);
        bytes[MAGIC.len()] ^= 0xff;
        let replay = read(&bytes, BOOT);
        assert_eq!((replay.other_boot, replay.other_abi, replay.valid_bytes), (0, 1, 0));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_foreign(bytes in proptest::collection::vec(any::<u8>(), 0..200), begins_right: bool) {
            let mut all = if begins_right { spool(BOOT, &[b"one"]) } else { Vec::new() };
            all.extend(bytes);
            let replay = read(&all, BOOT);
            prop_assert!(replay.records.len() >= usize::from(begins_right));
        }

        #[test]
        fn a_changed_byte_never_changes_a_record(at in 0usize..20, to: u8) {
            let mut bytes = spool(BOOT, &[b"one", b"two"]);
            let at = HEAD + at % (bytes.len() - HEAD);
            bytes[at] = to;
            let replay = read(&bytes, BOOT);
            prop_assert!([b"one".to_vec(), b"two".to_vec()].starts_with(&replay.records));
        }
    }
}
