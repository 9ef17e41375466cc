//! Last words: what user space prepares for the probe on panic, and what the probe remembers until then.

/// What the line begins with, version included.
pub const MARK: &str = "detector: last words v1 ";

/// Bytes that the names of one container take, with the closing NUL: `pod=NAMESPACE/POD/CONTAINER uid=UID `, or only `uid=UID `
/// where that is longer. The rest of the line, at its longest, takes 123 of the 512 that it may have.
pub const NAMES: usize = 384;

/// Key of the hash `LAST_WORDS`: id of a cgroup in the hierarchy that memory is accounted in.
pub type Cgroup = u64;

/// Value of the hash `LAST_WORDS`: names that user space prepared, printable, without `%`, filled up with NUL.
pub type Names = [u8; NAMES];

/// Containers of which names are kept at the same time. Kubernetes allows 110 pods on a node by default.
pub const CONTAINERS: u32 = 1024;

/// Nanoseconds within which the kernel dies of one thing: a second line in this time would tell of the same.
pub const ONCE_NS: u64 = 60_000_000_000;

/// Index of the array `PANIC_ADDRESSES`, which holds addresses of the running kernel's symbols; 0 where one is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// `panic_on_oops`, an `int`: not 0 if each oops is a panic.
    PanicOnOops = 0,
    /// `__per_cpu_offset`, an array of `unsigned long`: what is added to the address of a per-CPU variable.
    PerCpuOffsets = 1,
    /// The per-CPU variable that holds the preempt count, where it does not lie in the task.
    PreemptCount = 2,
    /// `init_task`, at which the list of processes begins and ends.
    InitTask = 3,
}

impl Address {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::PanicOnOops, Self::PerCpuOffsets, Self::PreemptCount, Self::InitTask];
}
