//! BTF made up to hold one type under the id it has in the running kernel.
//!
//! The loader library finds what to attach to by its name in a parsed BTF and hands the position found to the kernel as
//! the id. Given the kernel's own BTF it would parse 130,000 types (80 ms, 40 MB) to learn a number that
//! [`Btf::function_id`](super::Btf::function_id) and [`Btf::typedef_id`](super::Btf::typedef_id) know already. So it is
//! given this instead: as many fillers as put the type in its place.

use thiserror::Error;

use super::MAX_TYPES;

/// `KSYM_NAME_LEN`: no name of the kernel is longer, its zero byte included.
const MAX_NAME: usize = 512;

const HEADER_LENGTH: u32 = 24;
const RECORD_LENGTH: u32 = 12;
const POINTER: u32 = 2 << 24;
const TYPEDEF: u32 = 8 << 24;
const PROTOTYPE: u32 = 13 << 24;
/// With the linkage (1, global) where other kinds have a count.
const FUNCTION: u32 = (12 << 24) | 1;

/// What is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A function: its entry.
    Function,
    /// A typedef. Tracepoint `x` is named by the typedef `btf_trace_x` of its prototype.
    Typedef,
}

/// A type that no BTF can hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MinimalError {
    /// Not an id.
    #[error("making BTF for {name}: its type id {id} lies between 1 and 1048575")]
    Id {
        /// Name of the type.
        name: String,
        /// Id asked for.
        id: u32,
    },
    /// Not a name.
    #[error("making BTF for {name:?}: a name has 1 to 511 bytes, none of them zero")]
    Name {
        /// Name of the type.
        name: String,
    },
}

/// BTF in this machine's byte order in which type `id` is the function or typedef `name`; all types before it are pointers
/// to void, the one behind is a prototype without parameters, to which it refers. 12 bytes a type: 0.7 MB for id 60,000.
///
/// # Errors
///
/// `id` or `name` is not one that BTF can hold.
pub fn minimal_for(kind: Named, name: &str, id: u32) -> Result<Vec<u8>, MinimalError> {
    if !(1..=MAX_TYPES).contains(&id) {
        return Err(MinimalError::Id { name: name.to_owned(), id });
    }
    if name.is_empty() || name.len() >= MAX_NAME || name.contains('\0') {
        return Err(MinimalError::Name { name: name.to_owned() });
    }
    let type_length = (id + 1) * RECORD_LENGTH;
    let name_length = name.len() as u32;
    // An empty string first, because offset 0 stands for no name.
    let string_length = name_length + 2;
    let mut blob = Vec::with_capacity((HEADER_LENGTH + type_length + string_length) as usize);
    blob.extend(0xeb9f_u16.to_ne_bytes());
    blob.extend([1, 0]);
    for word in [HEADER_LENGTH, 0, type_length, type_length, string_length] {
        blob.extend(word.to_ne_bytes());
    }
    let mut record = |[name, info, target]: [u32; 3]| {
        for word in [name, info, target] {
            blob.extend(word.to_ne_bytes());
        }
    };
    for _ in 1..id {
        record([0, POINTER, 0]);
    }
    let info = match kind {
        Named::Function => FUNCTION,
        Named::Typedef => TYPEDEF,
    };
    record([1, info, id + 1]);
    record([0, PROTOTYPE, 0]);
    blob.push(0);
    blob.extend(name.as_bytes());
    blob.push(0);
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::super::Btf;
    use super::*;

    #[test]
    fn our_own_reader_finds_the_function_under_its_id() {
        for id in [1, 2, 33, 61_234] {
            let blob = minimal_for(Named::Function, "oom_kill_process", id).expect("a valid name and id");
            let btf = Btf::parse(&blob, &[]).expect("readable BTF");
            assert_eq!(btf.function_id("oom_kill_process"), Ok(id));
            assert_eq!(btf.prototype_arity("oom_kill_process"), Ok(0));
        }
    }

    #[test]
    fn the_loader_library_finds_the_function_under_its_id() {
        let blob = minimal_for(Named::Function, "oom_kill_process", 61_234).expect("a valid name and id");
        let btf = aya::Btf::parse(&blob, aya::Endianness::default()).expect("BTF that the library reads");
        let id = btf.id_by_type_name_kind("oom_kill_process", aya_obj::btf::BtfKind::Func);
        assert_eq!(id.expect("a function of that name"), 61_234);
    }

    #[test]
    fn both_readers_find_a_typedef_under_its_id() {
        let name = "btf_trace_sched_process_hang";
        let blob = minimal_for(Named::Typedef, name, 4_321).expect("a valid name and id");
        assert_eq!(Btf::parse(&blob, &[]).expect("readable BTF").typedef_id(name), Ok(4_321));
        let btf = aya::Btf::parse(&blob, aya::Endianness::default()).expect("BTF that the library reads");
        assert_eq!(btf.id_by_type_name_kind(name, aya_obj::btf::BtfKind::Typedef).expect("a typedef of it"), 4_321);
    }

    #[test]
    fn what_no_btf_can_hold_is_refused() {
        for id in [0, MAX_TYPES + 1, u32::MAX] {
            assert!(matches!(minimal_for(Named::Function, "f", id), Err(MinimalError::Id { .. })), "{id}");
        }
        for name in ["", "a\0b", &"x".repeat(512)] {
            assert!(matches!(minimal_for(Named::Function, name, 1), Err(MinimalError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn the_largest_id_takes_12_bytes_a_type() {
        let blob = minimal_for(Named::Function, "f", MAX_TYPES).expect("a valid name and id");
        assert_eq!(blob.len(), 24 + 12 * (MAX_TYPES as usize + 1) + 3);
    }
}
