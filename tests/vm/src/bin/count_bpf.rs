//! `count_bpf`: has the kernel count the run time of BPF programs until its input ends. Prints `counting` once it does.
//!
//! The kernel counts while somebody holds a descriptor of `BPF_ENABLE_STATS` (bpf(2), Linux 5.8), which leaves the
//! machine's setting (`kernel.bpf_stats_enabled`) alone. Needs `CAP_SYS_ADMIN`.

use std::io::{self, Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};

/// `BPF_ENABLE_STATS` and `BPF_STATS_RUN_TIME` (`include/uapi/linux/bpf.h`).
const BPF_ENABLE_STATS: libc::c_long = 32;
const BPF_STATS_RUN_TIME: u32 = 0;

fn main() -> Result<()> {
    let kind = BPF_STATS_RUN_TIME;
    // SAFETY: the attribute of this command is one `__u32`, which outlives the call; the kernel only reads it.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, &raw const kind, size_of_val(&kind)) };
    ensure!(fd >= 0, "having the kernel count the run time of BPF: {}", io::Error::last_os_error());
    println!("counting");
    io::stdout().flush()?;
    // The descriptor closes, and counting ends, with this process.
    io::stdin().read_to_end(&mut Vec::new()).map(drop).context("waiting for the end of the input")
}
