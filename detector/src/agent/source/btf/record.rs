//! One type record of BTF as it lies in the file: its kinds, its length, and the rules a damaged file breaks.
//!
//! The format is the kernel's: `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h`.

use thiserror::Error;

/// Length of the part that every record has: name, info, size or type; four bytes each.
pub(super) const RECORD_LENGTH: usize = 12;

/// What a record describes: the 19 numbered kinds of `include/uapi/linux/btf.h`. The 20th, 0, stands for void and is
/// never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Pointer,
    Array,
    Struct,
    Union,
    Enum,
    Forward,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Function,
    Prototype,
    Variable,
    Section,
    Float,
    DeclarationTag,
    TypeTag,
    Enum64,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Int,
            2 => Self::Pointer,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Forward,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Function,
            13 => Self::Prototype,
            14 => Self::Variable,
            15 => Self::Section,
            16 => Self::Float,
            17 => Self::DeclarationTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// A kind that says nothing about layout and only points to the next type.
    pub(super) fn is_modifier(self) -> bool {
        matches!(self, Self::Typedef | Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag)
    }

    pub(super) fn has_members(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }

    /// Bytes of each of the `count` entries behind the record.
    fn entry_length(self) -> usize {
        match self {
            Self::Struct | Self::Union | Self::Section | Self::Enum64 => 12,
            Self::Enum | Self::Prototype => 8,
            _ => 0,
        }
    }

    /// Bytes behind the record that do not depend on `count`.
    fn fixed_length(self) -> usize {
        match self {
            Self::Int | Self::Variable | Self::DeclarationTag => 4,
            Self::Array => 12,
            _ => 0,
        }
    }
}

/// One type record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Type id: records count from 1 in the order of the file.
    pub(super) id: u32,
    /// Offset of the record in the file.
    pub(super) at: usize,
    /// Offset of its name in the string section; 0 is no name.
    pub(super) name: u32,
    pub(super) kind: Kind,
    /// `kind_flag`: bitfields among the members, or an enumeration with negative values.
    pub(super) flag: bool,
    /// Number of members, enumerators or parameters.
    pub(super) count: u32,
    /// Size in bytes, or the type pointed to: the kind decides.
    pub(super) size_or_type: u32,
}

impl Record {
    /// Reads the record at `at`. Everything that belongs to it lies within `bytes`, or it is an error.
    pub(super) fn read(bytes: &[u8], at: usize, id: u32) -> Result<Self, BtfError> {
        let damage = |rule| BtfError { at, type_id: id, rule };
        let [name, info, size_or_type] = words(bytes, at).ok_or(damage(Rule::RecordEnds))?;
        // The kernel leaves bits 16-23 and 29-30 zero as long as it does not use them. Reading them as the upper part
        // of count and kind understands a longer count and refuses a foreign kind, instead of mistaking either.
        let number = (info >> 24) & 0x7f;
        let kind = Kind::from_number(number).ok_or(damage(Rule::UnknownKind(number)))?;
        let record = Self { id, at, name, kind, flag: info >> 31 == 1, count: info & 0x00ff_ffff, size_or_type };
        if record.end() > bytes.len() { Err(damage(Rule::RecordEnds)) } else { Ok(record) }
    }

    /// Offset of the first byte behind the record and its entries.
    pub(super) fn end(&self) -> usize {
        self.entries_at() + self.kind.fixed_length() + self.count as usize * self.kind.entry_length()
    }

    /// Offset of the first entry, or of the fixed part behind the record.
    pub(super) fn entries_at(&self) -> usize {
        self.at + RECORD_LENGTH
    }

    pub(super) fn damage(&self, rule: Rule) -> BtfError {
        BtfError { at: self.at, type_id: self.id, rule }
    }

    /// The `N` words of each entry in turn; `N` must be the kind's entry length in words.
    pub(super) fn entries<'a, const N: usize>(&self, bytes: &'a [u8]) -> impl Iterator<Item = [u32; N]> + use<'a, N> {
        debug_assert_eq!(self.kind.entry_length(), N * 4);
        let start = self.entries_at();
        (0..self.count as usize).map_while(move |index| words(bytes, start + index * N * 4))
    }

    /// The words of the fixed part: four bytes of an integer, three words of an array.
    pub(super) fn fixed<const N: usize>(&self, bytes: &[u8]) -> Result<[u32; N], BtfError> {
        words(bytes, self.entries_at()).ok_or(self.damage(Rule::RecordEnds))
    }
}

/// `N` words in this machine's byte order, or `None` beyond the end.
pub(super) fn words<const N: usize>(bytes: &[u8], at: usize) -> Option<[u32; N]> {
    let (words, _) = bytes.get(at..)?.get(..N * 4)?.as_chunks::<4>();
    let mut out = [0; N];
    for (slot, word) in out.iter_mut().zip(words) {
        *slot = u32::from_ne_bytes(*word);
    }
    Some(out)
}

/// Damaged or foreign BTF: where, and which rule it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("BTF is not readable at byte {at}, type {type_id}: {rule}")]
pub struct BtfError {
    /// Offset in the file.
    pub at: usize,
    /// Type the damage belongs to; 0 for the header and the string section.
    pub type_id: u32,
    /// The broken rule.
    pub rule: Rule,
}

/// What readable BTF keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Rule {
    /// The file is shorter than the header.
    #[error("the header has at least 24 bytes")]
    HeaderEnds,
    /// Not BTF at all.
    #[error("the first two bytes are the magic number 0xeb9f, not {0:#06x}")]
    Magic(u16),
    /// BTF of a machine of the other byte order.
    #[error("the byte order is this machine's")]
    ByteOrder,
    /// A version this reader does not know.
    #[error("the version is 1, not {0}")]
    Version(u8),
    /// Flags this reader does not know.
    #[error("no flags are set, not {0:#04x}")]
    Flags(u8),
    /// The header says it is longer than the file, or shorter than its own fields.
    #[error("the header's length lies between 24 and the file's, not at {0}")]
    HeaderLength(u32),
    /// The type section does not lie within the file, or not on a multiple of four bytes.
    #[error("the type section lies within the file, on a multiple of four bytes")]
    TypeSection,
    /// The string section does not lie within the file.
    #[error("the string section lies within the file")]
    StringSection,
    /// The string section is not framed by zero bytes.
    #[error("the string section begins and ends with a zero byte")]
    StringFrame,
    /// More types than the kernel allows.
    #[error("there are no more than 1048575 types")]
    TooManyTypes,
    /// A record is longer than the type section.
    #[error("a record ends within the type section")]
    RecordEnds,
    /// A kind beyond those of `include/uapi/linux/btf.h`.
    #[error("kind {0} is one of 1 to 19")]
    UnknownKind(u32),
    /// A name lies outside the string section.
    #[error("a name lies in the string section, not at its offset {0}")]
    Name(u32),
    /// A reference to a type that is not there.
    #[error("type {0} it refers to exists")]
    DanglingType(u32),
    /// Typedefs, qualifiers or arrays follow one another without end.
    #[error("no more than 32 typedefs, qualifiers and arrays follow one another")]
    Chain,
    /// Anonymous structs lie too deep in one another.
    #[error("no more than 32 anonymous structs lie in one another")]
    Depth,
    /// A look-up would visit too many members.
    #[error("a look-up visits no more than 65536 members")]
    Work,
    /// A member of something that has no size.
    #[error("type {0} used for a member has a size below 4 GiB")]
    NoSize(u32),
    /// A member does not lie within its struct.
    #[error("a member lies within its struct")]
    MemberOutside,
}
