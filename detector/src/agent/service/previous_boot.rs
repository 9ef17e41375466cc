//! How the boot before ended: looked for once, told, and written down together with the note of this boot.
//!
//! ```text
//! thread: look ─▶ write ─▶ orders: alive, told, stop ─▶ write …
//!           └─▶ tell: metrics, condition, events that were never written
//! ```
//!
//! A disk may hang, and a note that is to outlive a crash has to wait for it: so one thread of its own reads and writes, and
//! nobody waits for it but for a moment, at the end and before conditions are written for the first time.

use std::{
    path::Path,
    rc::Rc,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use crate::{
    agent::{
        sink::{condition::deliver::Desk, event::deliver::Handle, metric::Instruments, report::CrashReport},
        source::previous_boot::{
            self, Looked, Present,
            boots::{BootsError, BootsFile, Kept, Note},
        },
        state,
    },
    cause::error_chain,
    clock::{self, WallClock},
    contract::{event::Reason, metric::CrashEnd, problem::previous_boot::End},
};

/// Orders that wait; what finds no room is left out. Of most the next one says the same or more.
const ORDERS: usize = 16;
/// How long the end of the agent waits for the disk.
const AT_THE_END: Duration = Duration::from_secs(2);
/// How long the first write of conditions waits for the look, so that they do not change right after it.
pub(super) const BEFORE_CONDITIONS: Duration = Duration::from_secs(10);

/// What the thread is to write down.
#[derive(Debug)]
enum Order {
    /// The agent was there at this time.
    Alive(Timestamp),
    /// The event of all findings of this kind stands, or never will.
    Told(End),
    /// The agent was told to stop.
    Stop(Timestamp),
}

/// Whoever has something to be written down.
#[derive(Clone, Debug)]
pub(super) struct Orders(SyncSender<Order>);

impl Orders {
    /// The agent is there. To be called now and then.
    pub(super) fn alive(&self) {
        self.0.try_send(Order::Alive(now())).ok();
    }

    /// The event of this reason needs not be written again.
    pub(super) fn written(&self, reason: Reason) {
        let end = match reason {
            Reason::KernelPanicFound => End::Panic,
            Reason::UncleanShutdownFound => End::Unclean,
            _ => return,
        };
        self.told(end);
    }

    fn told(&self, end: End) {
        self.0.try_send(Order::Told(end)).ok();
    }
}

/// The thread. When this is dropped, the agent was told to stop; one that fails has to say so ([`Self::failed`]).
#[derive(Debug)]
pub(super) struct Chronicler {
    orders: SyncSender<Order>,
    /// Is closed when the thread has ended.
    ended: Receiver<()>,
    /// How long its end may take ([`AT_THE_END`]).
    patience: Duration,
    told_to_stop: bool,
}

impl Chronicler {
    /// Begins to look below `root`, with the note in `file`. What it found comes once.
    pub(super) fn start(
        root: &'static Path,
        file: Option<&Path>,
        present: Present,
        instruments: Instruments,
    ) -> (Self, oneshot::Receiver<Looked>) {
        let (orders, taken) = mpsc::sync_channel(ORDERS);
        let (alive, ended) = mpsc::sync_channel(1);
        let (found, looked) = oneshot::channel();
        let keeper = Keeper { file: file.map(BootsFile::at), instruments, failing: false };
        let spawned = thread::Builder::new().name("previous-boot".to_owned()).spawn(move || {
            let _alive: SyncSender<()> = alive;
            keeper.work(root, &present, found, &taken);
        });
        if let Err(error) = spawned {
            error!(%error, "nobody looks how the boot before ended");
        }
        (Self { orders, ended, patience: AT_THE_END, told_to_stop: true }, looked)
    }

    /// The agent ends, and nobody told it to: if this boot ends now, it ends without a shutdown.
    pub(super) fn failed(mut self) {
        self.told_to_stop = false;
    }

    /// For those who have something to be written down.
    pub(super) fn orders(&self) -> Orders {
        Orders(self.orders.clone())
    }
}

impl Drop for Chronicler {
    fn drop(&mut self) {
        if !self.told_to_stop {
            return;
        }
        let asked = self.orders.try_send(Order::Stop(now())).is_ok();
        if !asked || self.ended.recv_timeout(self.patience) == Err(RecvTimeoutError::Timeout) {
            warn!("the disk did not take in time that the agent was told to stop");
        }
    }
}

/// Reads and writes.
struct Keeper {
    file: Option<BootsFile>,
    instruments: Instruments,
    /// The last attempt to write failed, which was told.
    failing: bool,
}

impl Keeper {
    fn work(mut self, root: &Path, present: &Present, found: oneshot::Sender<Looked>, orders: &Receiver<Order>) {
        let looked = previous_boot::look(root, self.file.as_ref(), present);
        let mut note = looked.note.clone();
        self.write(&note);
        // Nobody waits any more: the agent ends.
        found.send(looked).ok();
        while let Ok(order) = orders.recv() {
            let stops = matches!(order, Order::Stop(_));
            if apply(&mut note, &order) {
                self.write(&note);
            }
            if stops {
                return;
            }
        }
    }

    fn write(&mut self, note: &Note) {
        let Some(file) = &self.file else { return };
        match file.write(note) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    info!("which boot this is can be written down again");
                }
            }
            Err(cause) => {
                if let BootsError::Write { source, .. } = &cause {
                    self.instruments.state_write_failed(state::failure(source));
                }
                if !std::mem::replace(&mut self.failing, true) {
                    error!(error = error_chain(&cause), "after a crash it will not be known that this boot was");
                }
            }
        }
    }
}

/// Takes an order over into the note; false: it says so already.
fn apply(note: &mut Note, order: &Order) -> bool {
    match order {
        Order::Alive(at) => note.boot.alive = *at,
        Order::Stop(at) => (note.boot.alive, note.boot.stopped) = (*at, Some(*at)),
        Order::Told(end) => {
            let is_meant = |kept: &&mut Kept| !kept.told && kept.found().is_none_or(|found| found.end == *end);
            let mut changed = false;
            for kept in note.findings.iter_mut().filter(is_meant) {
                (kept.told, changed) = (true, true);
            }
            return changed;
        }
    }
    true
}

/// Whom it is told.
pub(super) struct Listeners {
    pub(super) conditions: Rc<Desk>,
    /// `None`: no events are written.
    pub(super) events: Option<Handle>,
    pub(super) orders: Orders,
    pub(super) instruments: Instruments,
    /// How long after the boot the condition tells of it.
    pub(super) keep: Duration,
    /// When this boot began.
    pub(super) booted: Timestamp,
}

/// Waits for what was found, and tells it.
pub(super) async fn tell(looked: oneshot::Receiver<Looked>, to: Listeners) {
    let Ok(Looked { note, failures }) = looked.await else { return };
    for failure in failures {
        warn!(failure, "looking how the boot before ended");
    }
    to.instruments.crashed(CrashEnd::Panic, note.totals.panic);
    to.instruments.crashed(CrashEnd::Unclean, note.totals.unclean);
    let now_ns = clock::boot_ns();
    if let Some(found) = note.latest().and_then(Kept::found) {
        let until_ns = clock::nanoseconds(to.keep);
        to.conditions.tell(|conditions| conditions.previous_boot(&found, until_ns, now_ns));
    } else {
        debug!("of the boot before no end is known");
    }
    for kept in &note.findings {
        let Some(found) = kept.found() else { continue };
        let message = found.message(usize::MAX);
        let Some(report) = CrashReport::of(&found, kept.id, to.booted).filter(|_| !kept.told) else {
            info!(end = found.end.reason(), boot_id = found.boot_id, "{message}");
            continue;
        };
        warn!(end = found.end.reason(), boot_id = found.boot_id, "{message}");
        match &to.events {
            Some(events) => events.crash(&report, now_ns),
            // This line was all.
            None => to.orders.told(found.end),
        }
    }
}

fn now() -> Timestamp {
    WallClock::measure().time(clock::boot_ns())
}

#[cfg(test)]
mod tests;
