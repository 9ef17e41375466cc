//! Bytes of a datagram → lines of a kernel's log → what they say. Pure.
//!
//! ```text
//! datagram ─▶ frame: header, fragment, body ─▶ reassemble: whole lines in order ─▶ signature: findings ─┬▶ boot
//!                                                                               └▶ excerpt: the log ────┘
//! ```

pub mod boot;
pub mod excerpt;
pub mod frame;
pub mod reassemble;
pub mod signature;
pub mod text;

use std::time::Duration;

use crate::contract::{incident::Cause, last_words::LastWords};

/// A line of a kernel's log, as one source told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Level, number and time; `None`: basic format, which has none.
    pub header: Option<Header>,
    /// Release of the kernel, if the datagram began with it.
    pub release: Option<String>,
    /// The text, without its end of line; escapes (`\xNN`) undone, what is not printable replaced.
    pub text: String,
    /// What the node said about itself beside the line.
    pub userdata: Userdata,
    /// Pieces of it are missing: a fragment was lost.
    pub torn: bool,
}

/// Head of a record in extended format (`Documentation/ABI/testing/dev-kmsg`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who wrote the record: 0 is the kernel; anything else came in through `/dev/kmsg`.
    pub facility: u16,
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Number of the record since boot.
    pub sequence: u64,
    /// Time since boot.
    pub uptime: Duration,
}

/// Userdata of ours ([`crate::contract::netconsole`]); that of others is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Userdata {
    /// Name of the Node.
    pub node: Option<String>,
    /// Id of the boot.
    pub boot_id: Option<String>,
    /// The secret.
    pub secret: Option<String>,
}

/// What the lines of one panic say together, as far as they were heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Text after `Kernel panic - not syncing: `; the panic itself. Without it the machine may live on.
    pub panic: Option<String>,
    /// The line that goes before a panic, if there was one: an oops, a lockup, a machine check.
    pub signature: Option<String>,
    /// The cause that panic text and signature speak for together.
    pub cause: Option<Cause>,
    /// Symbol at the instruction pointer (`RIP: 0010:SYMBOL+0x1/0x2`).
    pub symbol: Option<String>,
    /// Task on the dying CPU (`CPU: 1 UID: 0 PID: 4711 Comm: php-fpm`).
    pub task: Option<(u32, String)>,
    /// Modules outside of the kernel's tree that are named with the symbol or the taint.
    pub modules: Vec<String>,
    /// Letters of the taint (`Tainted: G        W  O`), blanks left out.
    pub taint: Option<String>,
    /// Release of the kernel.
    pub release: Option<String>,
    /// Our own line.
    pub last_words: Option<LastWords>,
}

#[cfg(test)]
mod recorded;
