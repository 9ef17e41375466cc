//! What the running kernel's BTF says about its structs: a small reader over borrowed bytes.
//!
//! The kernel exports a description of all its types as `/sys/kernel/btf/vmlinux`: some 130,000 records in 5 MB. We
//! want about forty facts of it, so this reader makes no objects of the records. [`Btf::parse`] walks the records once,
//! checks that each lies within its section and is of a known kind, and keeps two small things: where every 32nd record
//! starts, and the ids of the types whose names it was told to expect. Everything else is read when asked for.
//!
//! The bytes are trusted in nothing: every reference is checked when followed, chains and depth have limits, and a
//! look-up visits a bounded number of members. A damaged file is a [`BtfError`] that says where.

#[cfg(test)]
mod build;
pub(in crate::agent::source) mod file;
mod lookup;
pub mod minimal;
mod record;

pub use lookup::{Array, LookupError, Member};
pub use record::{BtfError, Rule};
use record::{Kind, Record, words};

/// Length of the header's fields that we read (`struct btf_header`).
const HEADER_LENGTH: u32 = 24;
const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;

/// `BTF_MAX_TYPE`: the largest type id.
const MAX_TYPES: u32 = 0x000f_ffff;

/// The start of each of these many records is kept: 16 KB for a whole kernel, and finding a type costs at most 31 short
/// steps.
const START_EVERY: u32 = 32;

/// Most typedefs, qualifiers and arrays that may follow one another; the kernel has the same limit
/// (`MAX_RESOLVE_DEPTH`).
const MAX_CHAIN: usize = 32;

/// BTF over borrowed bytes.
#[derive(Debug)]
pub struct Btf<'a> {
    /// The file up to the end of the type section, so that offsets of the file are valid in it.
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset of the first record, of the 33rd, and so on.
    starts: Vec<u32>,
    /// Number of types, void not counted: the largest id.
    count: u32,
    wanted: Wanted<'a>,
}

impl<'a> Btf<'a> {
    /// Walks all records once. `names` are the names of types that will be asked for: those are found at once later.
    /// Any other name may be asked for too, at the price of another walk.
    ///
    /// # Errors
    ///
    /// The header, a section, a record or a name is not as the format demands, or a kind is unknown.
    pub fn parse(bytes: &'a [u8], names: &[&'a str]) -> Result<Self, BtfError> {
        let header = Header::read(bytes)?;
        let types = bytes.get(..header.types_end).ok_or(header_damage(Rule::TypeSection))?;
        let mut btf = Self { types, strings: header.strings, starts: Vec::new(), count: 0, wanted: Wanted::new(names) };
        let mut at = header.types_start;
        while at < types.len() {
            let id = btf.count + 1;
            if id > MAX_TYPES {
                return Err(BtfError { at, type_id: id, rule: Rule::TooManyTypes });
            }
            let record = Record::read(types, at, id)?;
            if btf.count.is_multiple_of(START_EVERY) {
                btf.starts.push(u32::try_from(at).map_err(|_| record.damage(Rule::TypeSection))?);
            }
            btf.wanted.note(btf.text_from(record.name).ok_or(record.damage(Rule::Name(record.name)))?, id);
            btf.count = id;
            at = record.end();
        }
        Ok(btf)
    }

    /// Number of types; ids run from 1 to this.
    #[must_use]
    pub fn type_count(&self) -> u32 {
        self.count
    }

    /// The record of `id`, referred to by `from`. Void (0) has none.
    fn record(&self, id: u32, from: &Record) -> Result<Record, BtfError> {
        let dangling = || from.damage(Rule::DanglingType(id));
        if id == 0 || id > self.count {
            return Err(dangling());
        }
        let (block, steps) = ((id - 1) / START_EVERY, (id - 1) % START_EVERY);
        let start = *self.starts.get(block as usize).ok_or_else(dangling)?;
        let first = block * START_EVERY + 1;
        let mut record = Record::read(self.types, start as usize, first)?;
        for step in 1..=steps {
            record = Record::read(self.types, record.end(), first + step)?;
        }
        Ok(record)
    }

    /// Follows typedefs and qualifiers from `id`. `None` is void.
    fn resolve(&self, mut id: u32, from: &Record) -> Result<Option<Record>, BtfError> {
        for _ in 0..=MAX_CHAIN {
            if id == 0 {
                return Ok(None);
            }
            let record = self.record(id, from)?;
            if !record.kind.is_modifier() {
                return Ok(Some(record));
            }
            id = record.size_or_type;
        }
        Err(from.damage(Rule::Chain))
    }

    /// All types of that name and of a kind that `of_kind` accepts.
    fn named(&self, name: &str, of_kind: fn(Kind) -> bool) -> Result<Vec<Record>, BtfError> {
        let mut found = Vec::new();
        if let Some(ids) = self.wanted.ids(name) {
            for id in ids {
                found.push(self.record_from_index(id)?);
            }
            found.retain(|record| of_kind(record.kind));
            return Ok(found);
        }
        let mut at = self.starts.first().map_or(self.types.len(), |start| *start as usize);
        for id in 1..=self.count {
            let record = Record::read(self.types, at, id)?;
            if of_kind(record.kind) && self.name_is(record.name, name) {
                found.push(record);
            }
            at = record.end();
        }
        Ok(found)
    }

    /// Whether the string at `offset` is `name`. An offset outside the section is nobody's name.
    fn name_is(&self, offset: u32, name: &str) -> bool {
        self.text_from(offset).is_some_and(|text| begins_with_string(text, name))
    }

    /// The string section from `offset` on.
    fn text_from(&self, offset: u32) -> Option<&'a [u8]> {
        self.strings.get(offset as usize..).filter(|text| !text.is_empty())
    }

    fn record_from_index(&self, id: u32) -> Result<Record, BtfError> {
        let nowhere = Record { id, at: 0, name: 0, kind: Kind::Forward, flag: false, count: 0, size_or_type: 0 };
        self.record(id, &nowhere)
    }
}

fn begins_with_string(text: &[u8], name: &str) -> bool {
    text.starts_with(name.as_bytes()) && text.get(name.len()) == Some(&0)
}

fn header_damage(rule: Rule) -> BtfError {
    BtfError { at: 0, type_id: 0, rule }
}

/// Where the sections lie.
struct Header<'a> {
    types_start: usize,
    types_end: usize,
    strings: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let magic = match bytes {
            [first, second, ..] => u16::from_ne_bytes([*first, *second]),
            _ => return Err(header_damage(Rule::HeaderEnds)),
        };
        if magic == MAGIC.swap_bytes() {
            return Err(header_damage(Rule::ByteOrder));
        }
        if magic != MAGIC {
            return Err(header_damage(Rule::Magic(magic)));
        }
        let [_, length, type_offset, type_length, string_offset, string_length] =
            words(bytes, 0).ok_or(header_damage(Rule::HeaderEnds))?;
        match (bytes.get(2), bytes.get(3)) {
            (Some(&VERSION), Some(0)) => {}
            (Some(&VERSION), flags) => return Err(header_damage(Rule::Flags(flags.copied().unwrap_or_default()))),
            (version, _) => return Err(header_damage(Rule::Version(version.copied().unwrap_or_default()))),
        }
        if length < HEADER_LENGTH || length as usize > bytes.len() {
            return Err(header_damage(Rule::HeaderLength(length)));
        }
        let section = |offset: u32, section_length: u32| {
            let start = (length as usize).checked_add(offset as usize)?;
            let end = start.checked_add(section_length as usize)?;
            (end <= bytes.len()).then_some((start, end))
        };
        let (types_start, types_end) = section(type_offset, type_length)
            .filter(|_| type_offset.is_multiple_of(4))
            .ok_or(header_damage(Rule::TypeSection))?;
        let strings = section(string_offset, string_length)
            .and_then(|(start, end)| bytes.get(start..end))
            .ok_or(header_damage(Rule::StringSection))?;
        match strings {
            [0] | [0, .., 0] => Ok(Self { types_start, types_end, strings }),
            _ => Err(header_damage(Rule::StringFrame)),
        }
    }
}

/// The names asked for, and the types found that carry them.
#[derive(Debug)]
struct Wanted<'a> {
    names: Vec<&'a str>,
    /// Which first two bytes any of the names has, one bit for each pair: rules out nearly every type at the price of
    /// one look.
    first_bytes: Box<[u64; 1024]>,
    /// (index into `names`, type id)
    found: Vec<(usize, u32)>,
}

impl<'a> Wanted<'a> {
    fn new(names: &[&'a str]) -> Self {
        let mut names: Vec<&str> = names.iter().copied().filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        let mut first_bytes = Box::new([0; 1024]);
        for name in &names {
            let bytes = name.as_bytes();
            let (word, bit) = place_of_pair(bytes.first().copied(), bytes.get(1).copied());
            if let Some(word) = first_bytes.get_mut(word) {
                *word |= bit;
            }
        }
        Self { names, first_bytes, found: Vec::new() }
    }

    /// Remembers `id` if the string that `text` begins with is one of the names.
    fn note(&mut self, text: &[u8], id: u32) {
        let (word, bit) = place_of_pair(text.first().copied(), text.get(1).copied());
        if self.first_bytes.get(word).is_none_or(|known| known & bit == 0) {
            return;
        }
        if let Some(index) = self.names.iter().position(|name| begins_with_string(text, name)) {
            self.found.push((index, id));
        }
    }

    /// Ids of the types of that name; `None` if the name was not asked for.
    fn ids(&self, name: &str) -> Option<impl Iterator<Item = u32>> {
        let wanted = self.names.iter().position(|known| *known == name)?;
        Some(self.found.iter().filter(move |(index, _)| *index == wanted).map(|(_, id)| *id))
    }
}

/// Word and bit of a pair of bytes in the table of first bytes. A string of one byte is followed by its zero.
fn place_of_pair(first: Option<u8>, second: Option<u8>) -> (usize, u64) {
    let pair = usize::from(first.unwrap_or(0)) << 8 | usize::from(second.unwrap_or(0));
    (pair / 64, 1 << (pair % 64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::build::Build;
    use super::*;

    /// One of each kind, and some of the shapes the agent asks for.
    fn valid() -> Vec<u8> {
        let mut build = Build::new();
        let long = build.int("long", 8);
        let int = build.int("int", 4);
        let list = build.array(long, 4);
        let inner = build.union("", 32, &[("count", list, 0), ("first", int, 0)]);
        let constant = build.raw("", 10, 0, inner, &[]);
        build.structure("page", 48, &[("flags", long, 0), ("", constant, 64), ("tail", int, 320)]);
        let prototype = build.prototype(2);
        build.function("oom", prototype);
        let pointer = build.pointer(prototype);
        build.typedef("btf_trace_oom", pointer);
        build.enumeration("choice", true, &[("YES", 1), ("NO", u32::MAX)]);
        build.enumeration64("wide", false, &[("BIG", 1 << 40)]);
        for (kind, count, entries) in
            [(7, 0, 0), (9, 0, 0), (11, 0, 0), (14, 0, 1), (15, 1, 3), (16, 0, 0), (17, 0, 1), (18, 0, 0)]
        {
            build.raw("other", kind, count, int, &vec![0; entries]);
        }
        build.bytes()
    }

    fn ask_everything(bytes: &[u8]) {
        let Ok(btf) = Btf::parse(bytes, &["page", "choice"]) else { return };
        for name in ["page", "choice", "wide", "oom", "btf_trace_oom", "other", ""] {
            let _answers = (btf.size_of(name), btf.function_id(name), btf.typedef_id(name), btf.prototype_arity(name));
            for path in [&["count"] as &[&str], &["count", "first"], &["tail"]] {
                let _answer = btf.member(name, path);
            }
            let _answers = (btf.enumerator(name, "NO"), btf.enumerator(name, "BIG"));
        }
    }

    #[test]
    fn every_kind_is_walked_over() {
        let bytes = valid();
        let btf = Btf::parse(&bytes, &["page"]).expect("valid BTF");
        assert_eq!(btf.type_count(), 20);
        assert_eq!(btf.member("page", &["tail"]).map(|member| member.offset), Ok(40));
    }

    #[test]
    fn a_name_not_announced_is_found_too() {
        let bytes = valid();
        let announced = Btf::parse(&bytes, &["page", "page", ""]).expect("valid BTF");
        let not = Btf::parse(&bytes, &[]).expect("valid BTF");
        assert_eq!(announced.member("page", &["tail"]), not.member("page", &["tail"]));
        assert_eq!(announced.function_id("oom"), Ok(8));
    }

    #[test]
    fn types_beyond_the_first_block_are_found_by_id() {
        let mut build = Build::new();
        for _ in 0..100 {
            build.int("filler", 4);
        }
        let pair = build.int("pair", 8);
        for number in 0..100 {
            build.structure(&format!("s{number}"), 8 + number, &[("value", pair, number * 8)]);
        }
        let bytes = build.bytes();
        let btf = Btf::parse(&bytes, &["s0", "s63", "s64", "s99"]).expect("valid BTF");
        for (name, offset) in [("s0", 0), ("s63", 63), ("s64", 64), ("s99", 99)] {
            assert_eq!(btf.member(name, &["value"]).map(|member| member.offset), Ok(offset));
        }
    }

    #[test]
    fn every_damage_is_named_with_its_place() {
        let record = 24;
        for (at, word, expected) in [
            (0, 0x1234, (0, 0, Rule::Magic(0x1234))),
            (0, u32::from(MAGIC.swap_bytes()), (0, 0, Rule::ByteOrder)),
            (0, u32::from(MAGIC) | 2 << 16, (0, 0, Rule::Version(2))),
            (0, u32::from(MAGIC) | 1 << 16 | 4 << 24, (0, 0, Rule::Flags(4))),
            (4, 23, (0, 0, Rule::HeaderLength(23))),
            (4, u32::MAX, (0, 0, Rule::HeaderLength(u32::MAX))),
            (8, 2, (0, 0, Rule::TypeSection)),
            (12, u32::MAX, (0, 0, Rule::TypeSection)),
            (16, u32::MAX, (0, 0, Rule::StringSection)),
            (20, 0, (0, 0, Rule::StringFrame)),
            (20, 3, (0, 0, Rule::StringFrame)),
            (record, 5000, (record, 1, Rule::Name(5000))),
            (record + 4, 20 << 24, (record, 1, Rule::UnknownKind(20))),
            (record + 4, 0, (record, 1, Rule::UnknownKind(0))),
            (record + 4, (4 << 24) | 0xffff, (record, 1, Rule::RecordEnds)),
        ] {
            let mut bytes = valid();
            bytes[at..at + 4].copy_from_slice(&u32::to_ne_bytes(word));
            let (at, type_id, rule) = expected;
            assert_eq!(Btf::parse(&bytes, &[]).map(|btf| btf.type_count()), Err(BtfError { at, type_id, rule }));
        }
    }

    #[test]
    fn a_cut_file_is_refused_at_any_length() {
        let bytes = valid();
        for length in 0..bytes.len() {
            assert!(Btf::parse(&bytes[..length], &[]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_type_section_that_ends_within_a_record_is_refused() {
        let mut bytes = valid();
        let length = u32::from_ne_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) - 4;
        bytes[12..16].copy_from_slice(&length.to_ne_bytes());
        let damage = Btf::parse(&bytes, &[]).expect_err("the last record is cut");
        assert_eq!((damage.type_id, damage.rule), (20, Rule::RecordEnds));
        assert_eq!(damage.to_string(), format!("BTF is not readable at byte {}, type 20: {}", damage.at, damage.rule));
    }

    #[test]
    fn a_longer_header_is_stepped_over() {
        let mut bytes = valid();
        bytes.splice(24..24, [7; 8]);
        bytes[4..8].copy_from_slice(&32_u32.to_ne_bytes());
        let btf = Btf::parse(&bytes, &[]).expect("valid BTF");
        assert_eq!(btf.size_of("page"), Ok(48));
    }

    #[test]
    fn no_types_at_all_are_valid() {
        let bytes = Build::new().bytes();
        let btf = Btf::parse(&bytes, &["page"]).expect("valid BTF");
        assert_eq!(btf.type_count(), 0);
        assert!(btf.size_of("page").is_err());
        assert!(btf.size_of("other").is_err());
    }

    #[test]
    fn more_types_than_the_kernel_allows_are_refused() {
        let types = MAX_TYPES + 1;
        let mut bytes = Build::new().bytes();
        bytes.truncate(24);
        for word in [(12, types * 12), (16, types * 12)] {
            bytes[word.0..word.0 + 4].copy_from_slice(&word.1.to_ne_bytes());
        }
        let pointer: Vec<u8> = [0, 2 << 24, 0_u32].into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.extend(pointer.repeat(types as usize));
        bytes.push(0);
        assert_eq!(Btf::parse(&bytes, &[]).expect_err("too many").rule, Rule::TooManyTypes);
    }

    /// Cut from a running kernel; the README beside it tells how.
    const LINUX_6_18: &[u8] =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/btf/linux-6.18.btf"));

    #[test]
    fn a_real_kernels_layout_is_read() {
        let btf = Btf::parse(LINUX_6_18, &["task_struct", "mm_struct"]).expect("real BTF");
        let member = |base: &str, path: &[&str]| btf.member(base, path).expect("a member of the real kernel");
        assert_eq!(member("kernfs_node", &["id"]).offset, 96);
        assert_eq!(member("mem_cgroup", &["memory", "max"]).offset, 416);
        let uid = member("cred", &["uid", "val"]);
        assert_eq!((uid.offset, uid.size, uid.array), (8, 4, None));
        let subsys = member("css_set", &["subsys"]);
        assert_eq!((subsys.offset, subsys.array.map(|array| array.stride)), (0, Some(8)));
        assert_eq!(btf.enumerator("cgroup_subsys_id", "memory_cgrp_id"), Ok(4));
        let rss = member("mm_struct", &["rss_stat", "count"]);
        assert_eq!((rss.offset, rss.array), (968, Some(Array { stride: 40, length: 4 })));
        let numbers = member("pid", &["numbers", "nr"]);
        assert_eq!((numbers.offset, numbers.array), (144, Some(Array { stride: 16, length: 0 })));
        assert!(matches!(btf.member("task_struct", &["sched_reset_on_fork"]), Err(LookupError::Bitfield { .. })));
        assert!(matches!(btf.member("kernfs_node", &["parent"]), Err(LookupError::PartMissing { .. })));
        assert_eq!(btf.prototype_arity("btf_trace_mark_victim"), Ok(3));
        assert!(btf.function_id("oom_kill_process").is_ok());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            ask_everything(&bytes);
        }

        #[test]
        fn mutations_of_valid_btf_never_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            let mut bytes = valid();
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            ask_everything(&bytes);
        }

        #[test]
        fn changed_words_of_records_never_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..24, 0_u32..32), 1..8),
        ) {
            let mut bytes = valid();
            for (index, low, kind) in changes {
                let at = 24 + index.index((bytes.len() - 24) / 4) * 4;
                let word = if kind == 0 || kind > 20 { low } else { kind << 24 | low };
                if let Some(slot) = bytes.get_mut(at..at + 4) {
                    slot.copy_from_slice(&word.to_ne_bytes());
                }
            }
            ask_everything(&bytes);
        }
    }
}
