//! One file of pstore: what its name, its first line and its times tell. Pure.
//!
//! The kernel names it `TYPE-BACKEND-ID`, with `.enc.z` behind where it could not unpack it (`fs/pstore/inode.c`). The log
//! of a dying kernel is cut into parts, each a file of its own of the type `dmesg`, which begins with `REASON#COUNT PartN`
//! (`fs/pstore/platform.c`). Part 1 has the newest lines.

use jiff::Timestamp;

/// What a kernel dumped its log for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It died.
    Panic,
    /// It faulted, and perhaps lived on.
    Oops,
    /// It was shut down or restarted in order. Only with `printk.always_kmsg_dump`.
    Shutdown,
    /// Anything else, such as an emergency restart.
    Other,
}

impl Reason {
    /// `kmsg_dump_reason_str` in `kernel/printk/printk.c`; `Restart`, `Halt` and `Poweroff` are those of kernels before 5.8.
    fn of_word(word: &str) -> Option<Self> {
        match word {
            "Panic" => Some(Self::Panic),
            "Oops" => Some(Self::Oops),
            "Shutdown" | "Restart" | "Halt" | "Poweroff" => Some(Self::Shutdown),
            "Emergency" | "Unknown" => Some(Self::Other),
            _ => None,
        }
    }
}

/// The first line of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Header {
    /// Why.
    pub reason: Reason,
    /// Number of the dump since boot.
    pub count: u32,
    /// Number of the part; 1 is the newest.
    pub part: u32,
}

impl Header {
    /// Reads `Panic#1 Part2`.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (reason, rest) = line.split_once('#')?;
        let (count, part) = rest.trim_end().split_once(" Part")?;
        Some(Self { reason: Reason::of_word(reason)?, count: count.parse().ok()?, part: part.parse().ok()? })
    }
}

/// Types of files that hold lines of the kernel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Part of a dump.
    Dump,
    /// All that the console showed until the end of the boot before.
    Console,
}

/// Name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// What it holds.
    pub kind: Kind,
    /// Where the kernel kept it: `erst`, `efi_pstore`, `ramoops` and others.
    pub backend: String,
    /// Number that the backend gave it.
    pub id: u64,
    /// Whether the kernel could unpack it.
    pub readable: bool,
}

/// Longest name of a backend that is taken for one.
const BACKEND_BYTES: usize = 32;

impl Name {
    /// Reads `dmesg-erst-7319283498172`. `None`: of another type, or no file of pstore.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (kind, rest) = [("dmesg-", Kind::Dump), ("console-", Kind::Console)]
            .into_iter()
            .find_map(|(prefix, kind)| Some((kind, name.strip_prefix(prefix)?)))?;
        let (rest, readable) = rest.strip_suffix(".enc.z").map_or((rest, true), |rest| (rest, false));
        let (backend, id) = rest.rsplit_once('-')?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let is_bounded = !backend.is_empty() && backend.len() <= BACKEND_BYTES && !backend.ends_with('-');
        if !is_bounded || !backend.chars().all(is_word) {
            return None;
        }
        Some(Self { kind, backend: backend.to_owned(), id: id.parse().ok()?, readable })
    }

    /// When the kernel stored it, by its number alone. EFI: seconds since 1970, part and count in decimal digits
    /// (`generic_id` in `drivers/firmware/efi/efi-pstore.c`).
    fn time(&self) -> Option<Timestamp> {
        let second = || i64::try_from(self.id / 100_000).ok();
        self.is_efi().then(|| plausible(Timestamp::from_second(second()?).ok()?)).flatten()
    }

    fn is_efi(&self) -> bool {
        matches!(self.backend.as_str(), "efi" | "efi_pstore")
    }

    /// Its number, if the backend gives no number twice; others number their places.
    pub(super) fn unique_id(&self) -> Option<u64> {
        (self.is_efi() || self.backend == "erst").then_some(self.id)
    }
}

/// A file of pstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its name.
    pub name: Name,
    /// Its first line. `None`: it has none, as those of type `console`; a dump without one cannot be read: it is packed, cut
    /// short, or somebody else's.
    pub header: Option<Header>,
    /// When the kernel stored it.
    pub at: Option<Timestamp>,
    /// Its lines, without the first.
    pub text: String,
}

impl Piece {
    /// Reads the file `name` with the time of its last change and its `bytes`. `None`: it is of another type, or no file of
    /// pstore.
    #[must_use]
    pub fn read(name: &str, changed: Option<Timestamp>, bytes: &[u8]) -> Option<Self> {
        let name = Name::parse(name)?;
        let at = name.time().or_else(|| changed.and_then(plausible));
        let text = String::from_utf8_lossy(bytes).into_owned();
        if !name.readable || name.kind == Kind::Console {
            return Some(Self { name, header: None, at, text });
        }
        let mut rest = text.as_str();
        // pstore_zone puts a line of its own before it (`Panic: Total 1 times`, `fs/pstore/zone.c`).
        for _ in 0..2 {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            rest = after;
            if let Some(header) = Header::parse(line) {
                return Some(Self { name, header: Some(header), at, text: rest.to_owned() });
            }
        }
        Some(Self { name, header: None, at, text })
    }
}

/// Clocks of machines without a battery begin in 1970 or a little later: no time of day.
const EARLIEST_SECOND: i64 = 1_400_000_000;

/// `time`, if it can be one of a machine in service.
#[must_use]
pub fn plausible(time: Timestamp) -> Option<Timestamp> {
    (time.as_second() >= EARLIEST_SECOND).then_some(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::erst("dmesg-erst-7319283498172645377", "erst", 7_319_283_498_172_645_377)]
    #[case::efi("dmesg-efi_pstore-176381280001001", "efi_pstore", 176_381_280_001_001)]
    #[case::ramoops("dmesg-ramoops-0", "ramoops", 0)]
    #[case::with_a_hyphen("dmesg-my-store-7", "my-store", 7)]
    fn a_name_tells_backend_and_number(#[case] name: &str, #[case] backend: &str, #[case] id: u64) {
        let read = Name::parse(name).expect("a name of pstore");
        assert_eq!((read.kind, read.backend.as_str(), read.id, read.readable), (Kind::Dump, backend, id, true));
    }

    #[rstest]
    #[case("dmesg.txt")]
    #[case("dmesg-erst-")]
    #[case("dmesg--1")]
    #[case("dmesg-erst--1")]
    #[case("dmesg-erst-99999999999999999999999")]
    #[case("pmsg-ramoops-0")]
    #[case("dmesg-a/../b-1")]
    #[case("")]
    fn what_is_no_such_name_is_none(#[case] name: &str) {
        assert_eq!(Name::parse(name), None);
    }

    #[rstest]
    #[case::packed("dmesg-ramoops-0.enc.z", b"Panic#1 Part1\nx\n")]
    #[case::cut_short("dmesg-erst-5", b"Panic#1 Pa")]
    #[case::empty("dmesg-erst-5", b"")]
    #[case::of_somebody_else("dmesg-efi-5", b"\x00\x01\x02 crash of another system\n")]
    fn a_dump_that_cannot_be_read_has_no_header(#[case] name: &str, #[case] bytes: &[u8]) {
        let piece = Piece::read(name, None, bytes).expect("a file of pstore");
        assert_eq!((piece.name.kind, piece.header), (Kind::Dump, None));
    }

    #[rstest]
    #[case("Panic#1 Part2", Some((Reason::Panic, 1, 2)))]
    #[case("Oops#12 Part1", Some((Reason::Oops, 12, 1)))]
    #[case("Poweroff#3 Part1", Some((Reason::Shutdown, 3, 1)))]
    #[case("Emergency#2 Part1", Some((Reason::Other, 2, 1)))]
    #[case("Panic# Part1", None)]
    #[case("Panic#1", None)]
    #[case("Picnic#1 Part1", None)]
    fn the_first_line_tells_reason_and_part(#[case] line: &str, #[case] told: Option<(Reason, u32, u32)>) {
        assert_eq!(Header::parse(line).map(|header| (header.reason, header.count, header.part)), told);
    }

    #[test]
    fn the_time_is_that_of_the_number_before_that_of_the_file() {
        let changed = "2026-11-22T13:00:00Z".parse().ok();
        let at = |name| Piece::read(name, changed, b"Panic#1 Part1\nx\n").expect("a piece").at.map(|at| at.to_string());
        assert_eq!(at("dmesg-efi_pstore-176381280001001").as_deref(), Some("2025-11-22T12:00:00Z"));
        assert_eq!(at("dmesg-erst-7319283498172645377").as_deref(), Some("2026-11-22T13:00:00Z"));
        assert_eq!(
            Piece::read("dmesg-erst-1", Timestamp::from_second(7).ok(), b"Panic#1 Part1\n").expect("it").at,
            None
        );
    }

    #[test]
    fn a_line_of_the_zones_own_may_stand_before_the_header() {
        let piece =
            Piece::read("dmesg-pstore_blk-1", None, b"Panic: Total 1 times\nPanic#1 Part1\n<0>x\n").expect("it");
        assert_eq!((piece.header.map(|header| header.part), piece.text.as_str()), (Some(1), "<0>x\n"));
        let foreign = Piece::read("dmesg-pstore_blk-1", None, b"a\nb\nPanic#1 Part1\n").expect("it");
        assert_eq!(foreign.header, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_piece_or_none(name in "(dmesg|console)-[a-z_]{1,8}-[0-9]{1,20}|.{0,40}",
                                         bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(piece) = Piece::read(&name, None, &bytes) {
                prop_assert!(piece.text.len() <= bytes.len() * 3);
            }
        }
    }
}
