//! Takes rights away from a program before it starts, as a container runtime does.

use std::{io, os::unix::process::CommandExt, process::Command};

/// An ordinary user.
pub(super) const USER: u32 = 1000;

/// Capabilities that are kept (`include/uapi/linux/capability.h`).
const KEPT: [u32; 4] = [
    // CAP_DAC_READ_SEARCH: files of container runtimes, tracefs.
    2,  // CAP_SYSLOG: the kernel's log, addresses of its symbols.
    34, // CAP_PERFMON: attach to tracepoints.
    38, // CAP_BPF: load programs and maps.
    39,
];

/// `_LINUX_CAPABILITY_VERSION_3` (`include/uapi/linux/capability.h`).
const VERSION: u32 = 0x2008_0522;

/// Argument of capset(2), first part.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Argument of capset(2), second part, once for the lower and once for the upper 32 capabilities.
#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Has `command` start with the kept capabilities alone: as root, or as `user`.
///
/// Its memory limit for locked pages is lifted, as a runtime or service manager does: before Linux 5.11 BPF maps count
/// against it, and to lift it itself a program needs `CAP_SYS_RESOURCE`.
pub(super) fn limit(command: &mut Command, user: Option<u32>) {
    // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(move || drop_rights(user)) };
}

fn drop_rights(user: Option<u32>) -> io::Result<()> {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) })?;
    // The kernel refuses the first number behind its last capability.
    for capability in (0..64).filter(|capability| !KEPT.contains(capability)) {
        if prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).is_err() {
            break;
        }
    }
    // Root gets all of its bounding set when it executes a program.
    let Some(user) = user else { return Ok(()) };
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
    // SAFETY: no pointer is followed, the list is empty.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: these take numbers only; the process has a single thread.
    check(unsafe { libc::setgid(user) })?;
    // SAFETY: as above.
    check(unsafe { libc::setuid(user) })?;
    keep_over_exec()
}

/// Gives the kept capabilities to the program that is executed next, although it is not root's.
fn keep_over_exec() -> io::Result<()> {
    let word = |upper: bool| {
        let bits = KEPT.iter().filter(|capability| (**capability >= 32) == upper);
        let set = bits.fold(0, |set, capability| set | 1_u32 << (capability % 32));
        Data { effective: set, permitted: set, inheritable: set }
    };
    let (header, data) = (Header { version: VERSION, pid: 0 }, [word(false), word(true)]);
    // SAFETY: both structures are laid out as the kernel's and outlive the call.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    check(if set == 0 { 0 } else { -1 })?;
    KEPT.iter().try_for_each(|capability| {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, (*capability).into())
    })
}

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take numbers only.
    check(unsafe { libc::prctl(option, first, second, 0, 0) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
