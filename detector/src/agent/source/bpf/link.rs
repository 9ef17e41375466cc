//! What holds a program to its hook, and whether it still does.
//!
//! A link is a descriptor of this process, and somebody else can close it there: a debugger, or a mistake. The number may
//! by then be another file's. So the kernel's own number of the link is remembered, and a descriptor that is not that link
//! any more is never closed by us.

use std::{
    any::Any,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use aya::{
    programs::{
        Program,
        links::{FdLink, LinkError},
    },
    sys::SyscallError,
};

use super::rung::Hook;
use crate::agent::{
    options::Detector,
    source::pin::{Keeper, Lasting, PinError, Pinned},
};

/// `PERF_EVENT_IOC_ID` (`include/uapi/linux/perf_event.h`): `_IOR('$', 7, __u64 *)`.
const PERF_EVENT_IOC_ID: u32 = 0x8008_2407;

/// A program held to its hook. Dropping it lets go.
pub(super) struct Link {
    /// Detector that it belongs to; `None`: to what learns the paths of cgroups.
    pub(super) detector: Option<Detector>,
    pub(super) program: &'static str,
    pub(super) hook: Hook,
    /// How long it lasts.
    pub(super) lasting: Lasting,
    /// `None` only while it is dropped, or pinned.
    held: Option<Held>,
}

/// By what a program is held.
pub(super) enum Held {
    /// A link of the kernel with its id.
    Link(FdLink, Option<u32>),
    /// A perf event, where the kernel has no links of it (Linux 5.14 and older).
    Perf {
        /// The loader's hold of it: goes when dropped.
        _hold: Box<dyn Any>,
        /// Descriptor and id.
        event: Option<(RawFd, u64)>,
    },
}

impl Link {
    pub(super) fn new(pinned: Pinned, held: Held, lasting: Lasting) -> Self {
        let Pinned { owner, program, hook } = pinned;
        Self { detector: owner, program, hook, lasting, held: Some(held) }
    }

    /// Its pin, if it has one.
    pub(super) fn pin(&self) -> Option<Pinned> {
        matches!(self.lasting, Lasting::Adopted | Lasting::Kept).then(|| self.named())
    }

    const fn named(&self) -> Pinned {
        Pinned { owner: self.detector, program: self.program, hook: self.hook }
    }

    /// The kernel's id of the program, if it is held by a link.
    pub(super) fn program_id(&self) -> Option<u32> {
        match &self.held {
            Some(Held::Link(link, _)) => link.info().ok().map(|info| info.program_id()),
            _ => None,
        }
    }

    /// Pins it, unless it is or the kernel cannot do so. If it refuses, it is held no more.
    pub(super) fn keep(&mut self, keeper: &Keeper, program: Option<&mut Program>) -> Result<(), PinError> {
        if self.lasting != Lasting::Process {
            return Ok(());
        }
        match self.held.take() {
            Some(Held::Link(link, id)) => {
                let link = keeper.keep(&self.named(), link, program)?;
                self.held = Some(Held::Link(link, id));
                self.lasting = Lasting::Kept;
            }
            other => {
                self.held = other;
                self.lasting = Lasting::NotKeepable;
            }
        }
        Ok(())
    }

    /// Whether the program is surely held no more. What cannot be told counts as held.
    pub(super) fn is_broken(&self) -> bool {
        self.held.as_ref().is_some_and(Held::is_broken)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        if held.is_broken() {
            mem::forget(held);
        }
    }
}

impl Held {
    /// A link of the kernel.
    pub(super) fn link(link: FdLink) -> Self {
        let id = link.info().ok().map(|info| info.id());
        Self::Link(link, id)
    }

    /// A perf event, whose descriptor is probably `descriptor`: see [`next_descriptor`].
    pub(super) fn perf(hold: Box<dyn Any>, descriptor: Option<RawFd>) -> Self {
        let event = descriptor.and_then(|descriptor| Some((descriptor, perf_event_id(descriptor).ok()?)));
        Self::Perf { _hold: hold, event }
    }

    fn is_broken(&self) -> bool {
        match self {
            Self::Link(link, Some(id)) => match link.info() {
                Ok(info) => info.id() != *id,
                Err(LinkError::SyscallError(SyscallError { io_error, .. })) => is_no_link(&io_error),
                Err(_) => false,
            },
            Self::Perf { event: Some((descriptor, id)), .. } => match perf_event_id(*descriptor) {
                Ok(now) => now != *id,
                Err(error) => is_no_link(&error),
            },
            Self::Link(_, None) | Self::Perf { event: None, .. } => false,
        }
    }
}

/// Whether the kernel said that the descriptor is closed, or is something else. It may refuse for other reasons, such as a
/// right that was given up since, which say nothing.
fn is_no_link(error: &io::Error) -> bool {
    // EBADFD is what `bpf_obj_get_info_by_fd` (`kernel/bpf/syscall.c`) says of a closed one.
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::EBADFD | libc::EINVAL | libc::ENOTTY))
}

/// The number that the next descriptor of this process will have: the lowest that is free (`open(2)`). The loader does not
/// tell the descriptor of a perf event; it opens one and keeps it. A wrong guess is found out by asking for the id.
pub(super) fn next_descriptor(any: BorrowedFd<'_>) -> Option<RawFd> {
    any.try_clone_to_owned().ok().map(|copy| copy.as_fd().as_raw_fd())
}

fn perf_event_id(descriptor: RawFd) -> io::Result<u64> {
    let mut id = 0u64;
    // SAFETY: the request writes eight bytes to its argument if the descriptor is a perf event's; of any other it is
    // refused, because the number stands for no request of other files.
    match unsafe { libc::ioctl(descriptor, PERF_EVENT_IOC_ID as _, &raw mut id) } {
        0 => Ok(id),
        _ => Err(io::Error::last_os_error()),
    }
}
