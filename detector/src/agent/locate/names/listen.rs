//! For those who want to be told when names become known: what was heard, and when to listen again.
//!
//! The reader cannot wake the flow. While an answer is due somebody looks soon, then ever more seldom: a reader that a
//! file system holds up costs a look every ten seconds.

use std::sync::Arc;

use super::{NameCache, RETRY_NS, known::NAMES_CAPACITY};
use crate::agent::{
    decode::event::CgroupKey,
    locate::{cgroup_path::ContainerPart, runtime::Names},
};

/// First pause before somebody looks for an answer. A healthy read takes less than a millisecond.
const FIRST_PAUSE_NS: u64 = 10_000_000;

/// Longest pause.
const LAST_PAUSE_NS: u64 = 10 * RETRY_NS;

/// Most containers between two calls of [`NameCache::take_heard`].
pub(super) const HEARD_CAPACITY: usize = NAMES_CAPACITY;

#[derive(Debug, Default)]
pub(super) struct Listening {
    heard: Vec<Box<str>>,
    unheard: u64,
    /// Something came since the last look.
    progress: bool,
    pause_ns: u64,
    next_ns: Option<u64>,
}

impl NameCache {
    /// From now on whoever becomes known is remembered for [`NameCache::take_heard`].
    pub(in crate::agent::locate) fn listen(&mut self, now_ns: u64) {
        self.listening = Some(Listening { next_ns: Some(now_ns), progress: true, ..Listening::default() });
    }

    /// Containers of which something new became known since the last call, or that the reader has answered for the first
    /// time; one may stand there twice.
    pub(in crate::agent::locate) fn take_heard(&mut self) -> Vec<Box<str>> {
        self.listening.as_mut().map(|listening| std::mem::take(&mut listening.heard)).unwrap_or_default()
    }

    /// Containers that there was no room to remember for [`NameCache::take_heard`].
    pub(in crate::agent::locate) fn unheard(&self) -> u64 {
        self.listening.as_ref().map_or(0, |listening| listening.unheard)
    }

    /// Decides when to look for answers again, after a look at `now_ns`.
    pub(in crate::agent::locate) fn looked(&mut self, now_ns: u64) {
        let outstanding = self.open > 0 || !self.fresh.is_empty() || !self.again.is_empty();
        let Some(listening) = &mut self.listening else { return };
        listening.pause_ns = match std::mem::take(&mut listening.progress) {
            true => FIRST_PAUSE_NS,
            false => listening.pause_ns.saturating_mul(2).clamp(FIRST_PAUSE_NS, LAST_PAUSE_NS),
        };
        listening.next_ns = outstanding.then(|| now_ns.saturating_add(listening.pause_ns));
    }

    /// When to look for answers, nanoseconds since boot; `None`: none is due.
    pub(in crate::agent::locate) fn next_look(&self) -> Option<u64> {
        self.listening.as_ref()?.next_ns
    }

    /// Puts a container before the reader whose names are not complete, and waits for nothing; as often as
    /// [`NameCache::ask`] would.
    pub(in crate::agent::locate) fn request_again(
        &mut self,
        part: ContainerPart<'_>,
        user: Option<u32>,
        removed_at: Option<u64>,
        boot_ns: u64,
    ) {
        let pending = self.known.get(part.id).is_some_and(|known| known.pending.is_some());
        if !pending {
            self.question(part, user, removed_at, boot_ns, false);
        }
    }

    /// Whether it is known what the runtimes' files say of a container, be it nothing.
    pub(in crate::agent::locate) fn has_answered(&self, id: &str) -> bool {
        self.known.get(id).is_some_and(|known| known.answered)
    }

    /// The cgroup that was last made for a container.
    pub(in crate::agent::locate) fn key(&self, id: &str) -> Option<CgroupKey> {
        self.known.get(id)?.key
    }

    /// Takes in what an earlier run knew of a container.
    pub(in crate::agent::locate) fn restore(
        &mut self,
        part: ContainerPart<'_>,
        user: Option<u32>,
        key: CgroupKey,
        names: Option<Names>,
        removed_at: Option<u64>,
    ) {
        let Some(known) = self.known.entry(part, user) else { return };
        (known.key, known.answered) = (Some(key), names.is_some());
        known.names = names.map(Arc::new);
        let wanted = !known.complete() && removed_at.is_none();
        self.generation += 1;
        match removed_at {
            Some(removed_at) => self.forget(part.id, removed_at),
            None if wanted => self.want(part, user, key),
            None => {}
        }
    }

    pub(super) fn heard(&mut self, id: &str) {
        let Some(listening) = &mut self.listening else { return };
        listening.progress = true;
        if listening.heard.len() < HEARD_CAPACITY {
            listening.heard.push(id.into());
        } else {
            listening.unheard += 1;
        }
    }
}
