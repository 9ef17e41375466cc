//! What a console puts before a line, where the line comes without a head: the basic format of netconsole, pstore, dmesg.
//!
//! ```text
//! <6>[   12.345678][    T1] text      level and facility (`printk` with `console_msg_format=syslog`, pstore), time, caller
//! ```
//!
//! Each part may be missing (`printk.time=0`, no `CONFIG_PRINTK_CALLER`).

use std::time::Duration;

use super::is_number;

/// A line, apart from what the console put before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Console<'a> {
    /// Facility and level (syslog(2)), if told.
    pub priority: Option<u16>,
    /// Time since boot, if told.
    pub uptime: Option<Duration>,
    /// The line itself.
    pub text: &'a str,
}

impl Console<'_> {
    /// Somebody else than the kernel wrote it (to `/dev/kmsg`): its facility is not 0.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.priority.is_some_and(|priority| priority >> 3 != 0)
    }
}

/// Reads a line.
#[must_use]
pub fn read(line: &str) -> Console<'_> {
    let (priority, text) = match priority(line) {
        Some((priority, text)) => (Some(priority), text),
        None => (None, line),
    };
    let Some((uptime, text)) = time(text) else { return Console { priority, uptime: None, text } };
    let text = text.strip_prefix('[').and_then(caller).unwrap_or(text);
    Console { priority, uptime: Some(uptime), text: text.strip_prefix(' ').unwrap_or(text) }
}

/// Whether a datagram begins a line, for sure.
#[must_use]
pub fn begins_with_time(bytes: &[u8]) -> bool {
    let near = bytes.get(..32).unwrap_or(bytes);
    let end = near.iter().position(|byte| !byte.is_ascii()).unwrap_or(near.len());
    near.get(..end).and_then(|near| str::from_utf8(near).ok()).is_some_and(|near| read(near).uptime.is_some())
}

fn priority(line: &str) -> Option<(u16, &str)> {
    let (digits, text) = line.strip_prefix('<')?.split_once('>')?;
    // One that is too large is nobody's, and so not the kernel's.
    is_number(digits).then(|| (digits.parse().unwrap_or(u16::MAX), text))
}

/// `[   12.345678]`: seconds with six decimals.
fn time(text: &str) -> Option<(Duration, &str)> {
    let (time, text) = text.strip_prefix('[')?.split_once(']')?;
    let (seconds, decimals) = time.trim_start().split_once('.')?;
    if !is_number(seconds) || decimals.len() != 6 || !is_number(decimals) {
        return None;
    }
    let micros = Duration::from_micros(decimals.parse().ok()?);
    Some((Duration::from_secs(seconds.parse().ok()?).checked_add(micros)?, text))
}

/// `    T1]` or `    C3]`, the bracket before it taken off.
fn caller(text: &str) -> Option<&str> {
    let (caller, text) = text.split_once(']')?;
    let number = caller.trim_start().strip_prefix(['T', 'C'])?;
    is_number(number).then_some(text)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::bare("Kernel panic", None, None)]
    #[case::timed("[   12.500000] Kernel panic", None, Some(12_500_000))]
    #[case::with_its_caller("[   12.500000][    T1] Kernel panic", None, Some(12_500_000))]
    #[case::with_its_processor("[   12.500000][   C11] Kernel panic", None, Some(12_500_000))]
    #[case::of_pstore("<0>[   12.500000] Kernel panic", Some(0), Some(12_500_000))]
    #[case::of_nobody("<99999>[   12.500000] Kernel panic", Some(u16::MAX), Some(12_500_000))]
    #[case::of_a_program("<12>[   12.500000] Kernel panic", Some(12), Some(12_500_000))]
    fn what_a_console_puts_before_a_line_is_taken_off(
        #[case] line: &str,
        #[case] priority: Option<u16>,
        #[case] micros: Option<u64>,
    ) {
        let uptime = micros.map(Duration::from_micros);
        assert_eq!(read(line), Console { priority, uptime, text: "Kernel panic" });
        assert_eq!(read(line).is_foreign(), priority.is_some_and(|priority| priority > 7));
    }

    #[rstest]
    #[case("[ 12.5] x")]
    #[case("[12.345678 x")]
    #[case("[Hardware Error]: x")]
    #[case("[-1.345678] x")]
    #[case("[99999999999999999999.345678] x")]
    #[case("<x>y")]
    fn what_is_no_prefix_stays(#[case] line: &str) {
        assert_eq!(read(line), Console { priority: None, uptime: None, text: line });
    }

    #[test]
    fn a_datagram_with_a_time_begins_a_line() {
        assert!(begins_with_time(b"[   12.500000] text \xff"));
        assert!(!begins_with_time(b"rest of a line [   12.500000]"));
        assert!(!begins_with_time(b"\xff[   12.500000]"));
    }
}
