//! One frame of a kernel stack, as text of `/proc` tells it and as outputs tell it.

use std::{fmt, sync::Arc};

/// One frame of a kernel stack. Its address is never told: it would give away where the kernel lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Name of the function; `None` if no symbol covers the address.
    pub symbol: Option<Arc<str>>,
    /// Bytes from its start; 0 without a symbol.
    pub offset: u64,
    /// Module that it belongs to; `None` for the kernel itself.
    pub module: Option<Arc<str>>,
}

impl Frame {
    /// One line of `/proc/TID/stack`, such as `[<0>] ext4_map_blocks+0x12/0x5d0 [ext4]` (`proc_pid_stack`,
    /// `fs/proc/base.c`). `None` if it is no such line; a frame without a symbol if the kernel had none.
    #[must_use]
    pub fn of_line(line: &str) -> Option<Self> {
        let (_, place) = line.strip_prefix("[<")?.split_once(">] ")?;
        let (place, module) = match place.split_once(" [") {
            // The kernel may print the module's build id behind its name.
            Some((place, module)) => (place, module.trim_end().trim_end_matches(']').split(' ').next()),
            None => (place.trim_end(), None),
        };
        Some(Self::of_place(place, module).unwrap_or_default())
    }

    /// `io_schedule+0x46/0x80`: name, bytes from its start, its size.
    fn of_place(place: &str, module: Option<&str>) -> Option<Self> {
        let (symbol, numbers) = place.rsplit_once('+')?;
        let offset = numbers.split('/').next()?.strip_prefix("0x")?;
        let offset = u64::from_str_radix(offset, 16).ok()?;
        Some(Self { symbol: Some(symbol.into()), offset, module: module.map(Arc::from) })
    }
}

impl fmt::Display for Frame {
    /// `io_schedule+0x46`, `ext4_map_blocks+0x12 [ext4]`, or `?` without a symbol.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.symbol {
            Some(symbol) => write!(f, "{symbol}+{:#x}", self.offset)?,
            None => f.write_str("?")?,
        }
        self.module.as_ref().map_or(Ok(()), |module| write!(f, " [{module}]"))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::of_the_kernel("[<0>] io_schedule+0x46/0x80", "io_schedule+0x46")]
    #[case::of_a_module("[<0>] ext4_map_blocks+0x12/0x5d0 [ext4]", "ext4_map_blocks+0x12 [ext4]")]
    #[case::with_a_build_id("[<0>] f+0x1/0x2 [xfs 0123abcd]", "f+0x1 [xfs]")]
    #[case::of_an_old_kernel_with_addresses("[<ffffffff810f>] f.isra.0+0x1f/0x20", "f.isra.0+0x1f")]
    #[case::without_a_symbol("[<0>] 0xffffffffc0401000", "?")]
    fn a_line_of_a_stack_becomes_a_frame(#[case] line: &str, #[case] told: &str) {
        assert_eq!(Frame::of_line(line).expect("a frame").to_string(), told);
    }

    #[rstest]
    fn another_line_is_none(#[values("", "io_schedule+0x46/0x80", "[<0> f+0x1/0x2", "[<0>]")] line: &str) {
        assert_eq!(Frame::of_line(line), None);
    }
}
