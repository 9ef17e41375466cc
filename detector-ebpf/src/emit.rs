//! The only place that writes to a ring. What does not fit is counted per kind.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use detector_common::{
    ABI, Header, Kind,
    counter::{self, COUNTERS as COUNTER_COUNT, Ring, dropped, written},
};

/// Room for 1,100 OOM kills that nobody has read yet: a group kill marks all processes of a container in one go.
const PRECIOUS_BYTES: u32 = 1024 * 1024;
/// Room for about 2,000 cgroups made or removed, at the length that paths of Kubernetes have.
const BULK_BYTES: u32 = 512 * 1024;

/// Shortest time between two wake-ups of the reader by the bulk ring. To wake it for each record would cost eight times as
/// much as the record itself, and nobody waits for bulk: what must be answered comes by the precious ring, which always
/// wakes and lets the reader drain both. The reader looks again [`counter::BULK_LOOK_AGAIN_MS`] after a wake-up, so that
/// what came without one is not left lying.
const BULK_WAKE_INTERVAL_NS: u64 = counter::BULK_WAKE_INTERVAL_MS * 1_000_000;
/// Bytes in the bulk ring above which each record wakes the reader.
const BULK_WAKE_BYTES: u64 = BULK_BYTES as u64 / 4;

#[map]
static PRECIOUS: RingBuf = RingBuf::with_byte_size(PRECIOUS_BYTES, 0);
#[map]
static BULK: RingBuf = RingBuf::with_byte_size(BULK_BYTES, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);
#[map]
static SEQUENCES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Ring::COUNT, 0);
/// When the bulk ring last woke the reader, nanoseconds since boot.
#[map]
static BULK_WOKEN: Array<u64> = Array::with_max_entries(1, 0);

/// Reserves a record of type `T` in the precious ring, zeroes it, writes the header and lets `fill` do the rest.
///
/// `T` must begin with a [`Header`], be a multiple of 8 bytes long and valid when all zero: the record types of
/// `detector_common` are.
#[inline(always)]
pub(crate) fn precious<T: 'static>(kind: Kind, fill: impl FnOnce(&mut T)) {
    let header = header(kind, size_of::<T>() as u32, Ring::Precious);
    let Some(mut entry) = PRECIOUS.reserve::<T>(0) else {
        count(dropped(kind));
        return;
    };
    let start = entry.as_mut_ptr();
    // SAFETY: the kernel reserved `size_of::<T>()` bytes, 8-byte aligned, for us alone; after the loop and the header all
    // of them are initialised, and `T` is valid for any bytes.
    let record = unsafe {
        for word in 0..size_of::<T>() / 8 {
            // Volatile, so that the compiler does not call memset, which goes byte by byte.
            start.cast::<u64>().add(word).write_volatile(0);
        }
        start.cast::<Header>().write(header);
        &mut *start
    };
    fill(record);
    entry.submit(0);
    count(written(kind));
}

/// Copies a finished record of varying length to the bulk ring. `boot_ns` is its time.
#[inline(always)]
pub(crate) fn bulk(kind: Kind, record: &[u8], boot_ns: u64) {
    match BULK.output::<[u8]>(record, bulk_wake(boot_ns)) {
        Ok(()) => count(written(kind)),
        Err(_) => count(dropped(kind)),
    }
}

/// Whether the record of that time wakes the reader.
#[inline(always)]
fn bulk_wake(boot_ns: u64) -> u64 {
    let Some(woken) = BULK_WOKEN.get_ptr_mut(0) else { return BPF_RB_FORCE_WAKEUP.into() };
    // SAFETY: one program at a time gets here: life of cgroups comes under `trace_cgroup_path_lock`.
    let woken = unsafe { &mut *woken };
    let due = boot_ns.wrapping_sub(*woken) > BULK_WAKE_INTERVAL_NS;
    if !due && BULK.query(BPF_RB_AVAIL_DATA.into()) < BULK_WAKE_BYTES {
        return BPF_RB_NO_WAKEUP.into();
    }
    *woken = boot_ns;
    BPF_RB_FORCE_WAKEUP.into()
}

/// Header of the next record of this CPU. Takes a number even if the record is lost afterwards: that is how a loss shows.
#[inline(always)]
pub(crate) fn header(kind: Kind, length: u32, ring: Ring) -> Header {
    let sequence = match SEQUENCES.get_ptr_mut(ring as u32) {
        // SAFETY: the slot is this CPU's own, and a program does not leave its CPU while it runs. Nor does another of its
        // kind write to the same ring meanwhile: marks come under `oom_lock`, life of cgroups under
        // `trace_cgroup_path_lock`, hung tasks in one thread. Should that thread take the CPU from a mark right here, both
        // records may get the same number: their times still tell them apart.
        Some(last) => unsafe {
            *last += 1;
            *last
        },
        None => 0,
    };
    Header {
        abi: ABI,
        kind,
        length,
        // SAFETY: the helper has no preconditions.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        sequence,
        // SAFETY: as above.
        cpu: unsafe { bpf_get_smp_processor_id() },
        ring: ring as u32,
    }
}

/// Counts one up in `COUNTERS`.
#[inline(always)]
pub(crate) fn count(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: as for the sequence.
        unsafe { *counter += 1 }
    }
}
