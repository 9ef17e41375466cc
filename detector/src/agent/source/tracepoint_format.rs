//! What tracefs says of the record of a classic tracepoint: which field lies where. Pure.
//!
//! ```text
//! name: sched_process_hang
//! ID: 361
//! format:
//!         field:int common_pid;   offset:4;       size:4; signed:1;
//!
//!         field:__data_loc char[] comm;   offset:8;       size:4; signed:0;
//!
//! print fmt: "comm=%s pid=%d", __get_str(comm), REC->pid
//! ```
//!
//! Written by `f_show`, `kernel/trace/trace_events.c`.

use thiserror::Error;

/// Fields of one record that are looked at; the kernel's largest tracepoints have about 40.
const MAX_FIELDS: usize = 128;

/// No record is longer (`PERF_MAX_TRACE_SIZE`, `include/linux/trace_events.h`).
const MAX_RECORD: u32 = 8192;

/// Fields of a tracepoint's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    fields: Vec<Field>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Bytes from the start of the record.
    pub offset: u32,
    /// Bytes that it takes.
    pub size: u32,
    /// What is in these bytes.
    pub content: Content,
}

/// What the bytes of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The value.
    Value,
    /// Where the value lies (`__data_loc`): offset from the start of the record in the lower 16 bits, length in the upper.
    Location,
    /// Where the value lies, counted from this field (`__rel_loc`).
    RelativeLocation,
}

/// A text that is no format: line, from 1, and the rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line} of the format of a tracepoint: {rule}")]
pub struct FormatError {
    /// Line, from 1.
    pub line: usize,
    /// The broken rule.
    pub rule: Rule,
}

/// What the format of a tracepoint keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rule {
    /// The text ends before its fields begin.
    #[error("there is a line `format:`")]
    NoFormat,
    /// A line between `format:` and `print fmt:` is something else.
    #[error("a line that is not empty is `field:TYPE NAME; offset:NUMBER; size:NUMBER;`")]
    NoField,
    /// A field lies beyond every record.
    #[error("a field ends within 8192 bytes")]
    Outside,
    /// Too many fields.
    #[error("there are no more than 128 fields")]
    TooMany,
}

impl Format {
    /// Reads a text as tracefs gives it.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        if !lines.by_ref().any(|(_, line)| line == "format:") {
            return Err(FormatError { line: text.lines().count(), rule: Rule::NoFormat });
        }
        let mut fields = Vec::new();
        for (line, text) in lines {
            if text.is_empty() {
                continue;
            }
            if text.starts_with("print fmt:") {
                break;
            }
            let broken = |rule| FormatError { line, rule };
            let field = Field::parse(text).ok_or(broken(Rule::NoField))?;
            if field.offset.checked_add(field.size).is_none_or(|end| end > MAX_RECORD) {
                return Err(broken(Rule::Outside));
            }
            if fields.len() == MAX_FIELDS {
                return Err(broken(Rule::TooMany));
            }
            fields.push(field);
        }
        Ok(Self { fields })
    }

    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Field {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(';').map(str::trim);
        let declaration = parts.next()?.strip_prefix("field:")?;
        let (kind, name) = declaration.rsplit_once(' ')?;
        // `char comm[16]` has its length behind the name, `__data_loc char[] comm` before it.
        let name = name.split('[').next().filter(|name| !name.is_empty())?;
        let offset = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
        let size = parts.next()?.strip_prefix("size:")?.parse().ok()?;
        let content = match kind.split(' ').next() {
            Some("__data_loc") => Content::Location,
            Some("__rel_loc") => Content::RelativeLocation,
            _ => Content::Value,
        };
        Some(Self { name: name.to_owned(), offset, size, content })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const COMMON: &str = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

";

    /// Linux 5.10 to 6.8.
    const MARK_OLD: &str = "\tfield:int pid;\toffset:8;\tsize:4;\tsigned:1;

print fmt: \"pid=%d\", REC->pid
";

    /// Linux 6.18.
    const MARK_NEW: &str = "\tfield:int pid;\toffset:8;\tsize:4;\tsigned:1;
\tfield:__data_loc char[] comm;\toffset:12;\tsize:4;\tsigned:0;
\tfield:unsigned long total_vm;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned long anon_rss;\toffset:24;\tsize:8;\tsigned:0;
\tfield:uid_t uid;\toffset:48;\tsize:4;\tsigned:0;
\tfield:short oom_score_adj;\toffset:64;\tsize:2;\tsigned:1;

print fmt: \"pid=%d comm=%s\", REC->pid, __get_str(comm)
";

    /// Linux 5.10 to 6.12.
    const HANG_OLD: &str = "\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;

print fmt: \"comm=%s pid=%d\", REC->comm, REC->pid
";

    /// Linux 6.18.
    const HANG_NEW: &str = "\tfield:__data_loc char[] comm;\toffset:8;\tsize:4;\tsigned:0;
\tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;

print fmt: \"comm=%s pid=%d\", __get_str(comm), REC->pid
";

    fn whole(fields: &str) -> String {
        format!("name: x\nID: 609\nformat:\n{COMMON}{fields}")
    }

    #[rstest]
    #[case::mark_old_pid(MARK_OLD, "pid", Some((8, 4, Content::Value)))]
    #[case::mark_old_comm(MARK_OLD, "comm", None)]
    #[case::mark_new_comm(MARK_NEW, "comm", Some((12, 4, Content::Location)))]
    #[case::mark_new_anon(MARK_NEW, "anon_rss", Some((24, 8, Content::Value)))]
    #[case::mark_new_score(MARK_NEW, "oom_score_adj", Some((64, 2, Content::Value)))]
    #[case::hang_old_comm(HANG_OLD, "comm", Some((8, 16, Content::Value)))]
    #[case::hang_old_pid(HANG_OLD, "pid", Some((24, 4, Content::Value)))]
    #[case::hang_new_comm(HANG_NEW, "comm", Some((8, 4, Content::Location)))]
    #[case::hang_new_pid(HANG_NEW, "pid", Some((12, 4, Content::Value)))]
    #[case::common(HANG_NEW, "common_pid", Some((4, 4, Content::Value)))]
    #[case::relative("\tfield:__rel_loc char[] s;\toffset:8;\tsize:4;\n", "s", Some((8, 4, Content::RelativeLocation)))]
    #[case::without_sign("\tfield:u64 id;\toffset:16;\tsize:8;\n", "id", Some((16, 8, Content::Value)))]
    fn a_field_lies_where_the_kernel_says(
        #[case] fields: &str,
        #[case] name: &str,
        #[case] expected: Option<(u32, u32, Content)>,
    ) {
        let format = Format::parse(&whole(fields)).unwrap();
        assert_eq!(format.field(name).map(|field| (field.offset, field.size, field.content)), expected);
    }

    #[rstest]
    #[case::empty("", 0, Rule::NoFormat)]
    #[case::other_file("on\noff\n", 2, Rule::NoFormat)]
    #[case::no_name("format:\n\tfield:int;\toffset:8;\tsize:4;\n", 2, Rule::NoField)]
    #[case::no_offset("format:\n\tfield:int a;\tsize:4;\n", 2, Rule::NoField)]
    #[case::negative("format:\n\tfield:int a;\toffset:-1;\tsize:4;\n", 2, Rule::NoField)]
    #[case::far("format:\n\tfield:int a;\toffset:8190;\tsize:4;\n", 2, Rule::Outside)]
    #[case::overflow("format:\n\tfield:int a;\toffset:4294967295;\tsize:4;\n", 2, Rule::Outside)]
    fn what_is_no_format_is_refused_with_its_line(#[case] text: &str, #[case] line: usize, #[case] rule: Rule) {
        assert_eq!(Format::parse(text), Err(FormatError { line, rule }));
    }

    #[test]
    fn more_fields_than_any_tracepoint_has_are_refused() {
        let fields = "\tfield:int a;\toffset:8;\tsize:4;\n".repeat(MAX_FIELDS + 1);
        let error = Format::parse(&format!("format:\n{fields}")).unwrap_err();
        assert_eq!(error.rule, Rule::TooMany);
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "(format:\n)?(\tfield:[a-z_ \\[\\]]{0,20};\toffset:[0-9]{0,11};?\tsize:.{0,4}\n?){0,5}.{0,40}") {
            if let Ok(format) = Format::parse(&text) {
                for field in &format.fields {
                    prop_assert!(field.offset + field.size <= MAX_RECORD);
                }
            }
        }
    }
}
