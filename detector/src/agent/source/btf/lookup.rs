//! The questions asked of BTF: where a member lies, how large a struct is, the value of an enumerator, the id of a
//! function or typedef, the number of parameters of a prototype.
//!
//! An answer is given only if there is exactly one: several structs of a name that disagree, a bitfield, or an array
//! within an array are refused, because a wrong offset would make the kernel side read another field without a sign.

use thiserror::Error;

use super::{Btf, BtfError, Kind, MAX_CHAIN, Record, Rule};

/// Most anonymous structs in one another.
const MAX_DEPTH: usize = 32;

/// Most members one look-up visits; `task_struct`, the largest we ask for, has about 300.
const MAX_VISITS: u32 = 65_536;

/// Bytes of a pointer. BTF does not tell; the running kernel's is ours.
const POINTER_SIZE: u32 = size_of::<usize>() as u32;

/// Where a member lies, counted from the start of the struct that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the struct. Where the path goes into an array: in its first element.
    pub offset: u32,
    /// Bytes of the member; of an array, of all its elements (0 for a flexible array).
    pub size: u32,
    /// Id of the member's type, typedefs and qualifiers not followed. 0 is void.
    pub type_id: u32,
    /// The array that the path ends at or goes through. The same member of element `n` lies at
    /// `offset + n * stride`.
    pub array: Option<Array>,
}

/// Shape of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// Bytes from one element to the next.
    pub stride: u32,
    /// Number of elements; 0 for a flexible array.
    pub length: u32,
}

/// Why a look-up has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LookupError {
    /// No type of that name and kind.
    #[error("looking up {name} in BTF: there is no such {kind}")]
    Missing {
        /// Kind looked for.
        kind: &'static str,
        /// Name looked for.
        name: String,
    },
    /// The type exists, the member or enumerator does not.
    #[error("looking up {path} in BTF: the type has no such part")]
    PartMissing {
        /// Type and path, joined by dots.
        path: String,
    },
    /// Several types of that name give different answers.
    #[error("looking up {path} in BTF: several types of the name give different answers")]
    Ambiguous {
        /// Type and path, joined by dots.
        path: String,
    },
    /// The member is a bitfield, which has no byte offset.
    #[error("looking up {path} in BTF: a bitfield has no byte offset")]
    Bitfield {
        /// Type and path, joined by dots.
        path: String,
    },
    /// The path goes on through something that has no members, such as a pointer.
    #[error("looking up {path} in BTF: it goes through something that is no struct, such as a pointer")]
    NotAStruct {
        /// Type and path, joined by dots.
        path: String,
    },
    /// The path meets a second array, for which one stride is no answer.
    #[error("looking up {path} in BTF: there is an array within an array")]
    ArrayInArray {
        /// Type and path, joined by dots.
        path: String,
    },
    /// The enumerator's value does not fit 64 bits with a sign.
    #[error("looking up {path} in BTF: its value is above 2^63 - 1")]
    ValueTooLarge {
        /// Enumeration and enumerator, joined by a dot.
        path: String,
    },
    /// The look-up ran into damage.
    #[error("looking up {path} in BTF")]
    Damaged {
        /// Type and path, joined by dots.
        path: String,
        /// What is damaged.
        #[source]
        source: BtfError,
    },
}

/// Why a walk within one struct stopped; the caller adds the path.
enum Stop {
    Bitfield,
    NotAStruct,
    ArrayInArray,
    Damage(BtfError),
}

impl From<BtfError> for Stop {
    fn from(damage: BtfError) -> Self {
        Self::Damage(damage)
    }
}

impl Stop {
    fn at(self, path: String) -> LookupError {
        match self {
            Self::Bitfield => LookupError::Bitfield { path },
            Self::NotAStruct => LookupError::NotAStruct { path },
            Self::ArrayInArray => LookupError::ArrayInArray { path },
            Self::Damage(source) => LookupError::Damaged { path, source },
        }
    }
}

/// A member found in one struct.
struct Found {
    /// Bits from the start of that struct.
    bits: u32,
    bitfield: bool,
    type_id: u32,
    /// The struct that directly holds it, to blame for damage.
    holder: Record,
}

impl Btf<'_> {
    /// Where the member at the end of `path` lies in the struct or union `base`. Each step of the path is the name of a
    /// member held by value; anonymous structs and unions are entered by themselves, an array at its first element. An
    /// empty path is the struct itself.
    ///
    /// # Errors
    ///
    /// See [`LookupError`]; of several structs of that name, those without the member are passed over, the others must
    /// agree.
    pub fn member(&self, base: &str, path: &[&str]) -> Result<Member, LookupError> {
        let whole = || std::iter::once(base).chain(path.iter().copied()).collect::<Vec<_>>().join(".");
        let structs = self.all_named(base, "struct or union", Kind::has_members)?;
        let mut visits = 0;
        let mut answer: Option<Member> = None;
        for holder in structs {
            let Some(member) = self.walk(holder, path, &mut visits).map_err(|stop| stop.at(whole()))? else { continue };
            let differs = |known: &Member| Member { type_id: 0, ..*known } != Member { type_id: 0, ..member };
            if answer.as_ref().is_some_and(differs) {
                return Err(LookupError::Ambiguous { path: whole() });
            }
            answer.get_or_insert(member);
        }
        answer.ok_or_else(|| LookupError::PartMissing { path: whole() })
    }

    /// Bytes of the struct or union `name`.
    ///
    /// # Errors
    ///
    /// There is none of that name, or several of different size.
    pub fn size_of(&self, name: &str) -> Result<u32, LookupError> {
        self.member(name, &[]).map(|whole| whole.size)
    }

    /// Value of an enumerator of the enumeration `name`.
    ///
    /// Negative values of kernels before 6.1 read as `2^32 - n`: their BTF does not tell them from large ones.
    ///
    /// # Errors
    ///
    /// There is no such enumeration or enumerator, or several with different values.
    pub fn enumerator(&self, name: &str, enumerator: &str) -> Result<i64, LookupError> {
        let path = || format!("{name}.{enumerator}");
        let mut answer = None;
        for holder in self.all_named(name, "enumeration", |kind| matches!(kind, Kind::Enum | Kind::Enum64))? {
            let Some(value) = self.enumerator_in(&holder, enumerator) else { continue };
            let value = value.ok_or_else(|| LookupError::ValueTooLarge { path: path() })?;
            if answer.is_some_and(|known| known != value) {
                return Err(LookupError::Ambiguous { path: path() });
            }
            answer = Some(value);
        }
        answer.ok_or_else(|| LookupError::PartMissing { path: path() })
    }

    /// Type id of the function `name`: what a program that attaches to the function's entry is loaded with.
    ///
    /// # Errors
    ///
    /// There is no such function, or there are several: the id would be that of one by chance.
    pub fn function_id(&self, name: &str) -> Result<u32, LookupError> {
        self.only_id(name, "function", |kind| kind == Kind::Function)
    }

    /// Type id of the typedef `name`. That of `btf_trace_x` is what a program on tracepoint `x` is loaded with, if it is
    /// to be given arguments with types.
    ///
    /// # Errors
    ///
    /// There is no such typedef, or there are several.
    pub fn typedef_id(&self, name: &str) -> Result<u32, LookupError> {
        self.only_id(name, "typedef", |kind| kind == Kind::Typedef)
    }

    fn only_id(&self, name: &str, kind: &'static str, of_kind: fn(Kind) -> bool) -> Result<u32, LookupError> {
        match self.all_named(name, kind, of_kind)?.as_slice() {
            [one] => Ok(one.id),
            _ => Err(LookupError::Ambiguous { path: name.to_owned() }),
        }
    }

    /// Number of parameters of a function, or of the function that a typedef of a function pointer describes. The
    /// prototype of tracepoint `x` is the typedef `btf_trace_x`; its first parameter is the tracepoint's own data, so it
    /// has one more than the tracepoint has arguments.
    ///
    /// # Errors
    ///
    /// There is none of that name, or several with different numbers.
    pub fn prototype_arity(&self, name: &str) -> Result<u32, LookupError> {
        let damaged = |source| LookupError::Damaged { path: name.to_owned(), source };
        let mut answer = None;
        for holder in self.all_named(name, "prototype", |kind| matches!(kind, Kind::Function | Kind::Typedef))? {
            let Some(arity) = self.arity_of(&holder).map_err(damaged)? else { continue };
            if answer.is_some_and(|known| known != arity) {
                return Err(LookupError::Ambiguous { path: name.to_owned() });
            }
            answer = Some(arity);
        }
        answer.ok_or_else(|| LookupError::Missing { kind: "prototype", name: name.to_owned() })
    }

    /// The types of that name and kind: at least one.
    fn all_named(&self, name: &str, kind: &'static str, of_kind: fn(Kind) -> bool) -> Result<Vec<Record>, LookupError> {
        match self.named(name, of_kind) {
            Ok(found) if found.is_empty() => Err(LookupError::Missing { kind, name: name.to_owned() }),
            Ok(found) => Ok(found),
            Err(source) => Err(LookupError::Damaged { path: name.to_owned(), source }),
        }
    }

    /// Follows `path` from the struct `base`. `None`: a step's name is not there.
    fn walk(&self, base: Record, path: &[&str], visits: &mut u32) -> Result<Option<Member>, Stop> {
        let mut member = Member { offset: 0, size: base.size_or_type, type_id: base.id, array: None };
        let mut last = base;
        for step in path {
            let holder = self.through_array(&mut member, &last)?;
            let Some(holder) = holder.filter(|record| record.kind.has_members()) else {
                return Err(Stop::NotAStruct);
            };
            let Some(found) = self.find(&holder, step, visits, 0)? else { return Ok(None) };
            if found.bitfield {
                return Err(Stop::Bitfield);
            }
            member.size = self.size_within(&found, &holder)?;
            member.offset = member
                .offset
                .checked_add(found.bits / 8)
                .ok_or_else(|| Stop::Damage(found.holder.damage(Rule::MemberOutside)))?;
            member.type_id = found.type_id;
            last = found.holder;
        }
        let at_end = self.resolve(member.type_id, &last)?.filter(|record| record.kind == Kind::Array);
        if let Some(array) = at_end {
            self.note_array(&mut member, &array)?;
        }
        Ok(Some(member))
    }

    /// What the member is, or what its first element is if it is an array.
    fn through_array(&self, member: &mut Member, from: &Record) -> Result<Option<Record>, Stop> {
        let Some(record) = self.resolve(member.type_id, from)? else { return Ok(None) };
        if record.kind != Kind::Array {
            return Ok(Some(record));
        }
        let element = self.note_array(member, &record)?;
        match self.resolve(element, &record)? {
            Some(inner) if inner.kind == Kind::Array => Err(Stop::ArrayInArray),
            inner => Ok(inner),
        }
    }

    /// Writes down the array's shape and returns the type of its elements.
    fn note_array(&self, member: &mut Member, array: &Record) -> Result<u32, Stop> {
        if member.array.is_some() {
            return Err(Stop::ArrayInArray);
        }
        let [element, _, length] = array.fixed(self.types)?;
        member.array = Some(Array { stride: self.size_of_type(element, array)?, length });
        Ok(element)
    }

    /// The member of that name, in the struct itself or in an anonymous one within.
    fn find(&self, holder: &Record, name: &str, visits: &mut u32, depth: usize) -> Result<Option<Found>, BtfError> {
        if depth > MAX_DEPTH {
            return Err(holder.damage(Rule::Depth));
        }
        for [member_name, type_id, offset] in holder.entries(self.types) {
            *visits += 1;
            if *visits > MAX_VISITS {
                return Err(holder.damage(Rule::Work));
            }
            // With kind_flag the upper 8 bits are the width of a bitfield, without it the offset has all 32.
            let (bits, width) = if holder.flag { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            if self.name_is(member_name, name) {
                let bitfield = width != 0 || !bits.is_multiple_of(8) || self.is_partial_integer(type_id, holder)?;
                return Ok(Some(Found { bits, bitfield, type_id, holder: *holder }));
            }
            if !self.name_is(member_name, "") {
                continue;
            }
            let Some(inner) = self.resolve(type_id, holder)?.filter(|inner| inner.kind.has_members()) else { continue };
            if let Some(mut found) = self.find(&inner, name, visits, depth + 1)? {
                found.bits = found.bits.checked_add(bits).ok_or_else(|| holder.damage(Rule::MemberOutside))?;
                found.bitfield |= !bits.is_multiple_of(8);
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Whether the type is an integer of fewer bits than its bytes have: how bitfields were written before `kind_flag`.
    fn is_partial_integer(&self, type_id: u32, from: &Record) -> Result<bool, BtfError> {
        let Some(record) = self.resolve(type_id, from)?.filter(|record| record.kind == Kind::Int) else {
            return Ok(false);
        };
        let [encoding] = record.fixed(self.types)?;
        let (shift, width) = ((encoding >> 16) & 0xff, encoding & 0xff);
        Ok(shift != 0 || u64::from(width) != u64::from(record.size_or_type) * 8)
    }

    /// Size of the member found, which must end within `holder`.
    fn size_within(&self, found: &Found, holder: &Record) -> Result<u32, BtfError> {
        let size = self.size_of_type(found.type_id, &found.holder)?;
        if u64::from(found.bits / 8) + u64::from(size) > u64::from(holder.size_or_type) {
            return Err(found.holder.damage(Rule::MemberOutside));
        }
        Ok(size)
    }

    /// Bytes of a value of that type.
    fn size_of_type(&self, type_id: u32, from: &Record) -> Result<u32, BtfError> {
        let no_size = || from.damage(Rule::NoSize(type_id));
        let (mut id, mut elements) = (type_id, 1_u32);
        for _ in 0..=MAX_CHAIN {
            let record = self.resolve(id, from)?.ok_or_else(no_size)?;
            let size = match record.kind {
                Kind::Array => {
                    let [element, _, length] = record.fixed(self.types)?;
                    elements = elements.checked_mul(length).ok_or_else(no_size)?;
                    id = element;
                    continue;
                }
                Kind::Pointer => POINTER_SIZE,
                Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float => record.size_or_type,
                _ => return Err(no_size()),
            };
            return size.checked_mul(elements).ok_or_else(no_size);
        }
        Err(from.damage(Rule::Chain))
    }

    /// The enumerator's value; `Some(None)` if it is there but too large.
    fn enumerator_in(&self, holder: &Record, enumerator: &str) -> Option<Option<i64>> {
        if holder.kind == Kind::Enum64 {
            let [_, low, high] = holder.entries::<3>(self.types).find(|[name, ..]| self.name_is(*name, enumerator))?;
            let value = u64::from(high) << 32 | u64::from(low);
            return Some(if holder.flag { Some(value.cast_signed()) } else { i64::try_from(value).ok() });
        }
        let [_, value] = holder.entries::<2>(self.types).find(|[name, _]| self.name_is(*name, enumerator))?;
        Some(Some(if holder.flag { i64::from(value.cast_signed()) } else { i64::from(value) }))
    }

    /// Parameters of the function or function pointer; `None` if it is neither.
    fn arity_of(&self, holder: &Record) -> Result<Option<u32>, BtfError> {
        let mut prototype = self.resolve(holder.size_or_type, holder)?;
        if holder.kind == Kind::Typedef {
            let Some(pointer) = prototype.filter(|record| record.kind == Kind::Pointer) else { return Ok(None) };
            prototype = self.resolve(pointer.size_or_type, &pointer)?;
        }
        Ok(prototype.filter(|record| record.kind == Kind::Prototype).map(|record| record.count))
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::Build;
    use super::*;

    /// The offset, or the error.
    fn offset(build: &Build, base: &str, path: &[&str]) -> Result<u32, LookupError> {
        let bytes = build.bytes();
        Btf::parse(&bytes, &[base]).expect("readable BTF").member(base, path).map(|member| member.offset)
    }

    fn rule(answer: Result<u32, LookupError>) -> Rule {
        match answer {
            Err(LookupError::Damaged { source, .. }) => source.rule,
            other => panic!("expected damage, got {other:?}"),
        }
    }

    #[test]
    fn a_path_adds_up_through_structs_held_by_value() {
        let mut build = Build::new();
        let long = build.int("long", 8);
        let counter = build.structure("page_counter", 24, &[("usage", long, 0), ("max", long, 128)]);
        build.structure("mem_cgroup", 64, &[("css", long, 0), ("memory", counter, 256)]);
        let bytes = build.bytes();
        let btf = Btf::parse(&bytes, &["mem_cgroup"]).expect("readable BTF");
        let max = btf.member("mem_cgroup", &["memory", "max"]);
        assert_eq!(max, Ok(Member { offset: 48, size: 8, type_id: long, array: None }));
        assert_eq!(btf.member("mem_cgroup", &[]).map(|whole| (whole.offset, whole.size)), Ok((0, 64)));
        assert_eq!(btf.size_of("page_counter"), Ok(24));
    }

    #[test]
    fn anonymous_structs_are_entered_by_themselves() {
        let mut build = Build::new();
        let int = build.int("int", 4);
        let inner = build.structure("", 8, &[("a", int, 0), ("b", int, 32)]);
        let qualified = build.raw("", 9, 0, inner, &[]);
        let outer = build.union("", 8, &[("", int, 0), ("", qualified, 0)]);
        build.structure("s", 16, &[("first", int, 0), ("", outer, 64)]);
        assert_eq!(offset(&build, "s", &["b"]), Ok(12));
    }

    #[test]
    fn both_shapes_of_rss_stat_give_offset_and_stride() {
        let mut build = Build::new();
        let long = build.int("long", 8);
        let atomic = build.structure("atomic64_t", 8, &[("counter", long, 0)]);
        let counts = build.array(atomic, 4);
        let old = build.structure("mm_rss_stat", 32, &[("count", counts, 0)]);
        build.structure("old_mm", 64, &[("rss_stat", old, 64)]);
        let percpu = build.structure("percpu_counter", 40, &[("lock", long, 0), ("count", long, 64)]);
        let new = build.array(percpu, 4);
        build.structure("new_mm", 200, &[("rss_stat", new, 64)]);
        let bytes = build.bytes();
        let btf = Btf::parse(&bytes, &["old_mm", "new_mm"]).expect("readable BTF");
        let of = |name| btf.member(name, &["rss_stat", "count"]).map(|found| (found.offset, found.array));
        assert_eq!(of("old_mm"), Ok((8, Some(Array { stride: 8, length: 4 }))));
        assert_eq!(of("new_mm"), Ok((16, Some(Array { stride: 40, length: 4 }))));
        let array = |name| btf.member(name, &["rss_stat"]).map(|found| found.array.is_some());
        assert_eq!((array("old_mm"), array("new_mm")), (Ok(false), Ok(true)));
    }

    #[test]
    fn a_flexible_array_has_a_stride_and_no_size() {
        let mut build = Build::new();
        let int = build.int("int", 4);
        let upid = build.structure("upid", 16, &[("nr", int, 0)]);
        let numbers = build.array(upid, 0);
        build.structure("pid", 8, &[("level", int, 0), ("numbers", numbers, 64)]);
        let bytes = build.bytes();
        let found = Btf::parse(&bytes, &[]).expect("readable BTF").member("pid", &["numbers"]).expect("found");
        assert_eq!((found.offset, found.size, found.array), (8, 0, Some(Array { stride: 16, length: 0 })));
    }

    #[test]
    fn an_array_within_an_array_is_refused() {
        let mut build = Build::new();
        let int = build.int("int", 4);
        let row = build.array(int, 2);
        let table = build.array(row, 3);
        let cell = build.structure("cell", 8, &[("row", row, 0)]);
        let cells = build.array(cell, 3);
        build.structure("s", 64, &[("table", table, 0), ("cells", cells, 192)]);
        let refused = |path: &[&str]| matches!(offset(&build, "s", path), Err(LookupError::ArrayInArray { .. }));
        assert!(refused(&["table", "x"]));
        assert!(refused(&["cells", "row"]));
        assert_eq!(offset(&build, "s", &["table"]), Ok(0));
    }

    #[test]
    fn bitfields_of_both_encodings_are_refused() {
        let mut build = Build::new();
        let int = build.int("int", 4);
        let three_bits = build.raw("int", 1, 0, 4, &[3]);
        let shifted = build.raw("int", 1, 0, 4, &[(8 << 16) | 32]);
        build.structure_of_bits("new", 8, &[("one", int, 1 << 24), ("whole", int, 32)]);
        build.structure("old", 12, &[("three", three_bits, 0), ("shifted", shifted, 0), ("crooked", int, 33)]);
        let refused = |base, name| matches!(offset(&build, base, &[name]), Err(LookupError::Bitfield { .. }));
        assert!(refused("new", "one"));
        assert!(refused("old", "three"));
        assert!(refused("old", "shifted"));
        assert!(refused("old", "crooked"));
        assert_eq!(offset(&build, "new", &["whole"]), Ok(4));
    }

    #[test]
    fn structs_of_one_name_must_agree() {
        let mut build = Build::new();
        let int = build.int("int", 4);
        for place in [32, 32, 0] {
            build.structure("s", 8, &[("same", int, 0), ("differs", int, place)]);
        }
        build.structure("s", 0, &[]);
        build.raw("s", 7, 0, 0, &[]);
        assert_eq!(offset(&build, "s", &["same"]), Ok(0));
        assert_eq!(offset(&build, "s", &["differs"]), Err(LookupError::Ambiguous { path: "s.differs".into() }));
        assert!(matches!(offset(&build, "s", &[]), Err(LookupError::Ambiguous { .. })));
    }

    #[test]
    fn what_is_absent_is_named() {
        let mut build = Build::new();
        let int = build.int("int", 4);
        let pointer = build.pointer(int);
        build.structure("s", 16, &[("a", int, 0), ("p", pointer, 64)]);
        let told = |base, path: &[&str]| offset(&build, base, path).map_err(|error| error.to_string());
        assert_eq!(told("t", &["a"]), Err("looking up t in BTF: there is no such struct or union".into()));
        assert_eq!(told("int", &[]), Err("looking up int in BTF: there is no such struct or union".into()));
        assert_eq!(told("s", &["b"]), Err("looking up s.b in BTF: the type has no such part".into()));
        assert!(matches!(offset(&build, "s", &["p", "a"]), Err(LookupError::NotAStruct { path }) if path == "s.p.a"));
        assert!(matches!(offset(&build, "s", &["a", "a"]), Err(LookupError::NotAStruct { .. })));
    }

    #[test]
    fn enumerators_are_read_by_their_sign_and_width() {
        let mut build = Build::new();
        build.enumeration("e", false, &[("ZERO", 0), ("HIGH", u32::MAX)]);
        build.enumeration("signed", true, &[("MINUS", u32::MAX)]);
        build.enumeration64("wide", false, &[("BIG", 1 << 40), ("HUGE", u64::MAX)]);
        build.enumeration64("signed_wide", true, &[("MINUS", u64::MAX)]);
        build.enumeration("twice", false, &[("SAME", 1), ("DIFFERS", 1)]);
        build.enumeration("twice", false, &[("SAME", 1), ("DIFFERS", 2)]);
        let bytes = build.bytes();
        let btf = Btf::parse(&bytes, &["e", "wide"]).expect("readable BTF");
        assert_eq!(btf.enumerator("e", "HIGH"), Ok(i64::from(u32::MAX)));
        assert_eq!(btf.enumerator("signed", "MINUS"), Ok(-1));
        assert_eq!(btf.enumerator("wide", "BIG"), Ok(1 << 40));
        assert!(matches!(btf.enumerator("wide", "HUGE"), Err(LookupError::ValueTooLarge { .. })));
        assert_eq!(btf.enumerator("signed_wide", "MINUS"), Ok(-1));
        assert_eq!(btf.enumerator("twice", "SAME"), Ok(1));
        assert!(matches!(btf.enumerator("twice", "DIFFERS"), Err(LookupError::Ambiguous { .. })));
        assert!(matches!(btf.enumerator("e", "NONE"), Err(LookupError::PartMissing { .. })));
        assert!(matches!(btf.enumerator("none", "NONE"), Err(LookupError::Missing { kind: "enumeration", .. })));
    }

    #[test]
    fn a_function_has_an_id_unless_there_are_two() {
        let mut build = Build::new();
        let prototype = build.prototype(3);
        let one = build.function("one", prototype);
        build.function("two", prototype);
        build.function("two", prototype);
        let bytes = build.bytes();
        let btf = Btf::parse(&bytes, &[]).expect("readable BTF");
        assert_eq!(btf.function_id("one"), Ok(one));
        assert!(matches!(btf.function_id("two"), Err(LookupError::Ambiguous { .. })));
        assert!(matches!(btf.function_id("none"), Err(LookupError::Missing { .. })));
        assert_eq!(btf.prototype_arity("two"), Ok(3));
    }

    #[test]
    fn a_typedef_has_an_id_and_a_function_of_its_name_has_another() {
        let mut build = Build::new();
        let prototype = build.prototype(1);
        let function = build.function("hang", prototype);
        let typedef = build.typedef("hang", prototype);
        let bytes = build.bytes();
        let btf = Btf::parse(&bytes, &["hang"]).expect("readable BTF");
        assert_eq!((btf.function_id("hang"), btf.typedef_id("hang")), (Ok(function), Ok(typedef)));
        assert!(matches!(btf.typedef_id("none"), Err(LookupError::Missing { kind: "typedef", .. })));
    }

    #[test]
    fn a_tracepoints_prototype_tells_its_parameters() {
        let mut build = Build::new();
        let prototype = build.prototype(3);
        let pointer = build.pointer(prototype);
        build.typedef("btf_trace_mark_victim", pointer);
        build.typedef("pointer_to_void", pointer + 3);
        build.pointer(0);
        build.typedef("number", pointer + 5);
        build.int("int", 4);
        let bytes = build.bytes();
        let btf = Btf::parse(&bytes, &["btf_trace_mark_victim"]).expect("readable BTF");
        assert_eq!(btf.prototype_arity("btf_trace_mark_victim"), Ok(3));
        for name in ["pointer_to_void", "number", "none"] {
            assert!(matches!(btf.prototype_arity(name), Err(LookupError::Missing { kind: "prototype", .. })), "{name}");
        }
    }

    #[test]
    fn references_to_nowhere_are_damage() {
        let mut build = Build::new();
        let int = build.int("int", 4);
        build.structure("s", 8, &[("a", 99, 0), ("", 98, 0), ("v", 0, 0)]);
        build.structure("outside", 4, &[("late", int, 32), ("far", int, u32::MAX - 7)]);
        assert_eq!(rule(offset(&build, "s", &["a"])), Rule::DanglingType(99));
        assert_eq!(rule(offset(&build, "s", &["b"])), Rule::DanglingType(98));
        assert_eq!(rule(offset(&build, "outside", &["late"])), Rule::MemberOutside);
        assert_eq!(rule(offset(&build, "outside", &["far"])), Rule::MemberOutside);
    }

    #[test]
    fn members_without_a_size_are_damage() {
        let mut build = Build::new();
        let forward = build.raw("f", 7, 0, 0, &[]);
        let long = build.int("long", 8);
        let huge = build.array(long, u32::MAX);
        build.structure("s", 8, &[("f", forward, 0), ("v", 0, 0), ("huge", huge, 0)]);
        assert_eq!(rule(offset(&build, "s", &["f"])), Rule::NoSize(forward));
        assert_eq!(rule(offset(&build, "s", &["v"])), Rule::NoSize(0));
        assert_eq!(rule(offset(&build, "s", &["huge"])), Rule::NoSize(huge));
    }

    #[test]
    fn circles_end() {
        let mut build = Build::new();
        let typedef = build.typedef("t", 1);
        let array = build.array(2, 1);
        let itself = build.structure("s", 8, &[("", 3, 0), ("t", typedef, 0), ("a", array, 0)]);
        assert_eq!(itself, 3);
        assert_eq!(rule(offset(&build, "s", &["x"])), Rule::Depth);
        build.structure("q", 8, &[("t", typedef, 0), ("a", array, 0)]);
        assert_eq!(rule(offset(&build, "q", &["t"])), Rule::Chain);
        assert_eq!(rule(offset(&build, "q", &["a"])), Rule::Chain);
    }

    #[test]
    fn a_tree_that_doubles_with_each_level_ends() {
        let mut build = Build::new();
        let mut inner = build.structure("", 8, &[]);
        for _ in 0..30 {
            inner = build.structure("", 8, &[("", inner, 0), ("", inner, 0)]);
        }
        build.structure("s", 8, &[("", inner, 0)]);
        assert_eq!(rule(offset(&build, "s", &["x"])), Rule::Work);
    }
}
