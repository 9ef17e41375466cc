//! Structs that document themselves: their doc comments become the rows of a Markdown reference.
//!
//! One text serves rustdoc and the reference, so that the two cannot tell different things.

use std::{collections::BTreeMap, fmt::Write};

/// One field of a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Its key.
    pub(crate) name: &'static str,
    /// Its type, in the words of JSON.
    pub(crate) json_type: &'static str,
    /// Whether it can be `null`.
    pub(crate) nullable: bool,
    /// Its doc comment, one entry a line.
    pub(crate) doc: &'static [&'static str],
}

/// A JSON object: its doc comment and its fields, in the order in which they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Doc comment of the struct, one entry a line.
    pub(crate) doc: &'static [&'static str],
    /// Its fields.
    pub(crate) fields: &'static [Field],
}

/// A Rust type as JSON knows it.
pub(crate) trait JsonType {
    /// Name of the type.
    const NAME: &'static str;
    /// Whether a value can be `null`.
    const NULLABLE: bool = false;
}

macro_rules! json_types {
    ($($type:ty => $name:literal),+ $(,)?) => {
        $(impl JsonType for $type { const NAME: &'static str = $name; })+
    };
}

json_types! {
    bool => "boolean",
    f64 => "number",
    i32 => "integer",
    i64 => "integer",
    u32 => "integer",
    u64 => "integer",
    &'static str => "string",
    String => "string",
    Vec<String> => "array of strings",
    BTreeMap<&'static str, u64> => "object, integers by name",
    BTreeMap<&'static str, Option<&'static str>> => "object, strings or `null` by name",
    BTreeMap<&'static str, BTreeMap<&'static str, String>> => "object of objects, strings by name",
    BTreeMap<&'static str, String> => "object, strings by name",
    BTreeMap<String, i64> => "object, integers by name",
}

impl<T: JsonType> JsonType for Option<T> {
    const NAME: &'static str = T::NAME;
    const NULLABLE: bool = true;
}

/// Declares structs that are serialised, each with a `SHAPE` made of its doc comments.
macro_rules! shapes {
    ($(
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            $( $(#[doc = $field_doc:literal])+ pub $field:ident: $type:ty, )+
        }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
        pub struct $name {
            $( $(#[doc = $field_doc])+ pub $field: $type, )+
        }

        impl $name {
            const SHAPE: $crate::contract::shape::Shape = $crate::contract::shape::Shape {
                doc: &[$($doc),+],
                fields: &[$( $crate::contract::shape::Field {
                    name: stringify!($field),
                    json_type: <$type as $crate::contract::shape::JsonType>::NAME,
                    nullable: <$type as $crate::contract::shape::JsonType>::NULLABLE,
                    doc: &[$($field_doc),+],
                } ),+],
            };
        }

        impl $crate::contract::shape::JsonType for $name {
            const NAME: &'static str = "object, see below";
        }

        impl $crate::contract::shape::JsonType for Vec<$name> {
            const NAME: &'static str = "array of objects, see below";
        }
    )+ };
}
pub(crate) use shapes;

/// Appends `shape` under `heading` as a Markdown table.
pub(crate) fn write_section(page: &mut String, heading: &str, shape: &Shape) {
    page.push_str(heading);
    page.push_str("\n\n");
    page.push_str(&prose(shape.doc));
    page.push_str("\n\n| field | type | null | meaning |\n|---|---|---|---|\n");
    for field in shape.fields {
        let null = if field.nullable { "yes" } else { "never" };
        let row =
            format_args!("| `{}` | {} | {null} | {} |", field.name, field.json_type, prose(field.doc)).to_string();
        page.push_str(&row);
        page.push('\n');
    }
    page.push('\n');
}

/// Lines of a doc comment as one line of prose that does not end a table's cell.
fn prose(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let gap = if text.is_empty() { "" } else { " " };
        // Writing to a `String` cannot fail.
        write!(text, "{gap}{}", line.trim().replace('|', "\\|")).ok();
    }
    text
}
