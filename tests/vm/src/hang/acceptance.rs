//! What each method of the detector of hung tasks must tell. The best tell all; the others must never tell what is wrong.

/// What must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acceptance {
    /// Each fact but the task itself and its length may be unknown.
    pub(crate) lenient: bool,
    /// Where the task waits in the kernel.
    pub(crate) stack: bool,
    /// The lock and its holder, where the kernel keeps account of them.
    pub(crate) lock: bool,
    /// Also those hangs that the kernel has no warning left for.
    pub(crate) beyond_warnings: bool,
    /// That a task hangs still.
    pub(crate) every_scan: bool,
}

const WHOLE: Acceptance =
    Acceptance { lenient: false, stack: true, lock: true, beyond_warnings: true, every_scan: true };

impl Acceptance {
    /// That of a method.
    pub(crate) fn of(method: &str) -> Self {
        match method {
            "tracepoint" => Self { lenient: true, lock: false, ..WHOLE },
            "kmsg" => Self { lenient: true, stack: false, lock: false, beyond_warnings: false, every_scan: false },
            _ => WHOLE,
        }
    }
}
