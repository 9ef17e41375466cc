//! Detaches a program behind its owner's back: has the owner itself close the descriptor of the link, by ptrace(2).

use std::{
    fs, io,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use libc::{c_long, c_uint, c_void, pid_t, user_regs_struct};

/// How long the owner may take to be found waiting in a system call.
const DEADLINE: Duration = Duration::from_secs(10);

/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// What a system call returns inside the kernel to be started anew (`include/linux/errno.h`).
const RESTART: std::ops::RangeInclusive<i64> = -516..=-512;

/// Closes the link by which process `owner` has a program on raw tracepoint `hook`; how many there were.
pub(super) fn close(owner: u32, hook: &str) -> Result<usize> {
    let links = links(owner, hook)?;
    for descriptor in &links {
        inject_close(pid_t::try_from(owner)?, *descriptor)
            .with_context(|| format!("closing descriptor {descriptor} of process {owner}"))?;
    }
    let left = self::links(owner, hook)?;
    ensure!(left.is_empty(), "process {owner} still has links {left:?} to {hook}");
    Ok(links.len())
}

/// Descriptors of links to raw tracepoint `hook` (`bpf_link_show_fdinfo`, `kernel/bpf/syscall.c`). Also a program with
/// typed arguments is linked so.
fn links(owner: u32, hook: &str) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{owner}/fdinfo")).context("listing descriptors")? {
        let entry = entry?;
        // It may have been closed meanwhile.
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let has = |key: &str, value: &str| {
            text.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.trim() == value))
        };
        if has("link_type:", "raw_tracepoint") && has("tp_name:", hook) {
            found.push(entry.file_name().to_string_lossy().parse()?);
        }
    }
    Ok(found)
}

/// Has the main thread of `pid`, which waits in a system call, make one more.
fn inject_close(pid: pid_t, descriptor: u64) -> Result<()> {
    let start = Instant::now();
    request(libc::PTRACE_SEIZE, pid, 0)?;
    loop {
        request(libc::PTRACE_INTERRUPT, pid, 0)?;
        wait_for_stop(pid)?;
        let saved = registers(pid)?;
        if in_system_call(pid, &saved) {
            let closed = close_there(pid, saved, descriptor);
            request(libc::PTRACE_DETACH, pid, 0)?;
            return closed;
        }
        request(libc::PTRACE_CONT, pid, 0)?;
        if start.elapsed() > DEADLINE {
            request(libc::PTRACE_INTERRUPT, pid, 0)?;
            wait_for_stop(pid)?;
            request(libc::PTRACE_DETACH, pid, 0)?;
            bail!("it was never found waiting in a system call");
        }
    }
}

/// Whether it was stopped behind the instruction of a system call.
fn in_system_call(pid: pid_t, registers: &user_regs_struct) -> bool {
    let mut code = [0; 2];
    let memory = fs::File::open(format!("/proc/{pid}/mem"));
    let at = registers.rip.wrapping_sub(SYSCALL.len() as u64);
    let read = memory.and_then(|file| std::os::unix::fs::FileExt::read_exact_at(&file, &mut code, at));
    read.is_ok() && code == SYSCALL && registers.orig_rax.cast_signed() >= 0
}

fn close_there(pid: pid_t, saved: user_regs_struct, descriptor: u64) -> Result<()> {
    let call = user_regs_struct {
        rip: saved.rip - SYSCALL.len() as u64,
        rax: libc::SYS_close.cast_unsigned(),
        // The interrupted call must not be started anew before this one.
        orig_rax: u64::MAX,
        rdi: descriptor,
        ..saved
    };
    set_registers(pid, &call)?;
    // It stops when it enters the call, and when it leaves it.
    for _ in 0..2 {
        request(libc::PTRACE_SYSCALL, pid, 0)?;
        wait_for_stop(pid)?;
    }
    let result = registers(pid)?.rax.cast_signed();
    // Here the kernel starts nothing anew any more, so the program must hear that it was interrupted.
    let interrupted = RESTART.contains(&saved.rax.cast_signed());
    let rax = if interrupted { i64::from(-libc::EINTR).cast_unsigned() } else { saved.rax };
    set_registers(pid, &user_regs_struct { rax, orig_rax: u64::MAX, ..saved })?;
    ensure!(result == 0, "close returned {result}");
    Ok(())
}

fn registers(pid: pid_t) -> Result<user_regs_struct> {
    // SAFETY: the structure has numbers only; zero is a value of each.
    let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETREGS, pid, (&raw mut registers) as c_long)?;
    Ok(registers)
}

fn set_registers(pid: pid_t, registers: &user_regs_struct) -> Result<()> {
    request(libc::PTRACE_SETREGS, pid, std::ptr::from_ref(registers) as c_long)
}

/// `data`: a number, or the address of what the request reads or writes.
fn request(request: c_uint, pid: pid_t, data: c_long) -> Result<()> {
    let null = std::ptr::null_mut::<c_void>();
    // SAFETY: the callers hand over either 0 or the address of a structure as this request wants it.
    let result = unsafe { libc::ptrace(request, pid, null, data) };
    ensure!(result != -1, "ptrace request {request:#x}: {}", io::Error::last_os_error());
    Ok(())
}

fn wait_for_stop(pid: pid_t) -> Result<()> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    ensure!(waited == pid, "waitpid: {}", io::Error::last_os_error());
    ensure!(libc::WIFSTOPPED(status), "it ended while it was traced");
    Ok(())
}
