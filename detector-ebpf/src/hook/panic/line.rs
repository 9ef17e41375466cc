//! The line itself, made in memory of the CPU and written to the trace buffer whole.

use aya_ebpf::{
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str},
    },
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use detector_common::{
    gate::Writer,
    last_words::{CONTAINERS, Cgroup, MARK, NAMES, Names, ONCE_NS},
    oom::COMM_LENGTH,
};

use super::domain::Domain;
use crate::{
    gate,
    offset::{CGROUP_KN, CSS_CGROUP, CSS_PARENT, KN_ID, TASK_COMM, TASK_TGID, pointer, read},
    task,
};

/// Cgroups above a task's own that may be a container's.
const LEVELS: u32 = 8;
/// Bytes of the line at most, with the closing NUL; a power of 2.
const LINE: usize = 512;
/// Digits of the largest number.
const DIGITS: usize = 20;

/// Container's cgroup → its names.
#[map]
static LAST_WORDS: HashMap<Cgroup, Names> = HashMap::with_max_entries(CONTAINERS, 0);

/// When the last line was written, nanoseconds since boot.
#[map]
static PANIC_SAID: Array<u64> = Array::with_max_entries(1, 0);

/// Where a line is made. What is read back from here is nothing that the compiler may know beforehand: so the bounds that
/// the verifier wants stay in the program.
#[repr(C)]
pub(super) struct Work {
    line: [u8; 2 * LINE],
    at: u64,
    pub(super) format: [u64; 3],
    digits: [u8; 24],
    length: u64,
    comm: [u8; COMM_LENGTH],
    pub(super) domain: Domain,
}

#[map]
static PANIC_WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Who is named: a task, or else a memory cgroup (`struct cgroup_subsys_state`); 0 is nobody.
pub(super) struct Suspect {
    pub(super) task: u64,
    pub(super) css: u64,
}

/// An empty line; `None` if others write, or if the line of this death is written.
#[inline(always)]
pub(super) fn begin() -> Option<&'static mut Work> {
    if !gate::is_open(Writer::Panic) {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let said = PANIC_SAID.get_ptr(0)?;
    // SAFETY: a number, valid at any time.
    let said = unsafe { said.read_volatile() };
    if said != 0 && now.wrapping_sub(said) < ONCE_NS {
        return None;
    }
    let work = PANIC_WORK.get_ptr_mut(0)?;
    // SAFETY: this CPU's own, and no program of ours interrupts another.
    let work = unsafe { &mut *work };
    work.at = 0;
    append_text(work, MARK.as_bytes());
    Some(work)
}

/// Completes the line and writes it to the trace buffer.
#[inline(always)]
pub(super) fn end(work: &mut Work, suspect: Suspect) {
    let mut pid = 0u32;
    if read(&mut pid, suspect.task, &TASK_TGID) {
        append_text(work, b"pid=");
        append_number(work, u64::from(pid));
    }
    of_cgroup(work, if suspect.task == 0 { suspect.css } else { task::memory_css(suspect.task) });
    append_comm(work, suspect.task);
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    PANIC_SAID.set(0, now, 0).ok();
    let at = at(work);
    // SAFETY: `at` is below half of the line.
    unsafe { *work.line.as_mut_ptr().add(at) = 0 };
    /// `BPF_FUNC_trace_printk` (`include/uapi/linux/bpf.h`).
    const TRACE_PRINTK: usize = 6;
    // The line is the format: what fits it is all printable and without `%`. An argument would be cut to 63 bytes before
    // Linux 5.13.
    // SAFETY: on this target a call to a small number is a call of the helper with that number, whose first two arguments
    // are these.
    let print: unsafe extern "C" fn(*const u8, u32) -> i64 = unsafe { core::mem::transmute(TRACE_PRINTK) };
    // SAFETY: so many bytes of the line are initialised, the last of them NUL.
    unsafe { print(work.line.as_ptr(), at as u32 + 1) };
}

/// `cgroup`, and the names of the container that it is or lies in.
#[inline(always)]
fn of_cgroup(work: &mut Work, css: u64) {
    let mut css = css;
    let mut id: Cgroup = 0;
    if !read(&mut id, pointer(pointer(css, &CSS_CGROUP), &CGROUP_KN), &KN_ID) {
        return;
    }
    append_text(work, b"cgroup=");
    append_number(work, id);
    for _ in 0..LEVELS {
        if let Some(names) = LAST_WORDS.get_ptr(id) {
            append_names(work, names as u64);
            return;
        }
        css = pointer(css, &CSS_PARENT);
        if css == 0 || !read(&mut id, pointer(pointer(css, &CSS_CGROUP), &CGROUP_KN), &KN_ID) {
            return;
        }
    }
}

/// Where the next byte goes.
#[inline(always)]
fn at(work: &Work) -> usize {
    // SAFETY: a reference is valid.
    let at = unsafe { core::ptr::from_ref(&work.at).read_volatile() };
    (at as usize) & (LINE - 1)
}

/// Copies `length` bytes, at most 511.
#[inline(always)]
fn append(work: &mut Work, address: u64, length: usize) {
    let at = at(work);
    // SAFETY: both are below half of the line. The helper checks the source, and fails instead of faulting.
    if unsafe { bpf_probe_read_kernel(work.line.as_mut_ptr().add(at).cast(), length as u32, address as *const _) } == 0
    {
        work.at = (at + length) as u64;
    }
}

#[inline(always)]
pub(super) fn append_text(work: &mut Work, text: &'static [u8]) {
    append(work, text.as_ptr() as u64, text.len());
}

/// The length that was noted in `work`, within bounds that the verifier sees.
#[inline(always)]
fn noted(work: &Work, mask: usize) -> usize {
    // SAFETY: a reference is valid.
    let length = unsafe { core::ptr::from_ref(&work.length).read_volatile() };
    (length as usize) & mask
}

/// Digits and a blank.
#[inline(always)]
fn append_number(work: &mut Work, value: u64) {
    let mut rest = value;
    work.digits[DIGITS] = b' ';
    work.length = 0;
    for place in (0..DIGITS).rev() {
        work.digits[place] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            // SAFETY: a reference is valid.
            unsafe { core::ptr::from_mut(&mut work.length).write_volatile((DIGITS + 1 - place) as u64) };
            break;
        }
    }
    let length = noted(work, 31);
    let first = work.digits.as_ptr() as u64 + (DIGITS as u64 + 1) - length as u64;
    append(work, first, length);
}

/// The names that user space prepared; they end with a blank.
#[inline(always)]
fn append_names(work: &mut Work, names: u64) {
    let at = at(work);
    // SAFETY: as in `append`; the names are shorter than half of the line.
    let read =
        unsafe { bpf_probe_read_kernel_str(work.line.as_mut_ptr().add(at).cast(), NAMES as u32, names as *const _) };
    if read > 0 {
        work.at = (at as u64) + (read as u64) - 1;
    }
}

/// Name of the task, to the end of the line.
#[inline(always)]
fn append_comm(work: &mut Work, task: u64) {
    let mut comm = [0u8; COMM_LENGTH];
    if !read(&mut comm, task, &TASK_COMM) {
        return;
    }
    work.length = 0;
    #[expect(clippy::needless_range_loop, reason = "the verifier follows an index, and not the end of an iterator")]
    for place in 0..COMM_LENGTH {
        let byte = comm[place];
        if byte == 0 {
            break;
        }
        let shown = (0x20..0x7f).contains(&byte) && byte != b'%';
        work.comm[place] = if shown { byte } else { b'?' };
        // SAFETY: a reference is valid.
        unsafe { core::ptr::from_mut(&mut work.length).write_volatile(place as u64 + 1) };
    }
    let length = noted(work, 31);
    append_text(work, b"comm=");
    let source = work.comm.as_ptr() as u64;
    append(work, source, length);
}
