//! Builds small BTF for tests, by the same document the reader follows.

/// BTF being built: records in order, ids from 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Build {
    records: Vec<u32>,
    strings: Vec<u8>,
    count: u32,
}

impl Build {
    pub(super) fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    /// Offset of the string in the string section; strings are not shared.
    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    /// A record as the words say; returns its id.
    pub(super) fn raw(&mut self, name: &str, kind: u32, count: u32, size_or_type: u32, entries: &[u32]) -> u32 {
        let name = self.string(name);
        self.records.extend([name, kind << 24 | count, size_or_type]);
        self.records.extend(entries);
        self.count += 1;
        self.count
    }

    pub(super) fn int(&mut self, name: &str, size: u32) -> u32 {
        self.raw(name, 1, 0, size, &[size * 8])
    }

    pub(super) fn pointer(&mut self, to: u32) -> u32 {
        self.raw("", 2, 0, to, &[])
    }

    pub(super) fn array(&mut self, element: u32, length: u32) -> u32 {
        self.raw("", 3, 0, 0, &[element, 0, length])
    }

    /// Members as (name, type, offset in bits).
    pub(super) fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        self.with_members(4, name, size, members)
    }

    pub(super) fn union(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        self.with_members(5, name, size, members)
    }

    /// A struct with `kind_flag`: the upper byte of an offset is a bitfield's width.
    pub(super) fn structure_of_bits(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        self.with_members(0x84, name, size, members)
    }

    pub(super) fn typedef(&mut self, name: &str, to: u32) -> u32 {
        self.raw(name, 8, 0, to, &[])
    }

    /// Enumerators as (name, value).
    pub(super) fn enumeration(&mut self, name: &str, signed: bool, enumerators: &[(&str, u32)]) -> u32 {
        let words: Vec<u32> = enumerators.iter().flat_map(|(name, value)| [self.string(name), *value]).collect();
        self.raw(name, if signed { 0x86 } else { 6 }, enumerators.len() as u32, 4, &words)
    }

    /// Enumerators as (name, value).
    pub(super) fn enumeration64(&mut self, name: &str, signed: bool, enumerators: &[(&str, u64)]) -> u32 {
        let words: Vec<u32> = enumerators
            .iter()
            .flat_map(|(name, value)| [self.string(name), *value as u32, (*value >> 32) as u32])
            .collect();
        self.raw(name, if signed { 0x93 } else { 19 }, enumerators.len() as u32, 8, &words)
    }

    pub(super) fn prototype(&mut self, parameters: u32) -> u32 {
        self.raw("", 13, parameters, 0, &vec![0; parameters as usize * 2])
    }

    pub(super) fn function(&mut self, name: &str, prototype: u32) -> u32 {
        self.raw(name, 12, 1, prototype, &[])
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let types = self.records.len() as u32 * 4;
        let mut bytes = Vec::new();
        bytes.extend(0xeb9f_u16.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [24, 0, types, types, self.strings.len() as u32].iter().chain(&self.records) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(&self.strings);
        bytes
    }

    fn with_members(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let words: Vec<u32> =
            members.iter().flat_map(|(name, type_id, bits)| [self.string(name), *type_id, *bits]).collect();
        self.raw(name, kind, members.len() as u32, size, &words)
    }
}
