//! What survives a restart of the agent, and when it is written.

use std::path::Path;

use serde::Serialize;
use tracing::{error, info};

use super::{missed::Missed, parts::Unreadable};

use crate::agent::{
    sink::{Handover, condition, event, hold::HoldSnapshot, metric, metric::Instruments},
    state::{Loaded, StateError, StateFile},
};
use crate::cause::error_chain;

/// Between two saves at least. What happens meanwhile is in the spool.
const INTERVAL_NS: u64 = 1_000_000_000;

/// How long what can be learned anew (cgroups and their names) may wait.
const LATER_NS: u64 = 10 * INTERVAL_NS;

/// What is written. Each part is read by itself, see [`super::parts`].
#[derive(Debug, Default, Serialize)]
pub(super) struct Saved {
    /// What the flow had in mind.
    pub(super) handover: Handover,
    pub(super) metrics: metric::Snapshot,
    pub(super) held: HoldSnapshot,
    pub(super) events: event::Snapshot,
    pub(super) conditions: condition::Snapshot,
    pub(super) missed: Missed,
    /// What of it could not be read.
    #[serde(skip)]
    pub(super) unreadable: Vec<Unreadable>,
}

impl Saved {
    /// What of it holds after the machine has booted: counts, and what is still to be told.
    pub(super) fn of_another_boot(self) -> Self {
        Self { handover: Handover::default(), missed: Missed::default(), ..self }
    }
}

/// Writes the state when it is due.
#[derive(Debug)]
pub(super) struct Keeping {
    file: Option<StateFile<Saved>>,
    due: Option<u64>,
    saved_ns: u64,
    /// How far writes to the API server had come when it was looked last, and when.
    written: u64,
    looked_ns: u64,
    /// Whether writes wait, whose end is to be looked for.
    awaits: bool,
    /// The last attempt failed, which was told.
    failing: bool,
}

impl Keeping {
    /// Nothing is kept.
    pub(super) const fn nowhere() -> Self {
        Self { file: None, due: None, saved_ns: 0, written: 0, looked_ns: 0, awaits: false, failing: false }
    }

    /// Takes the file in `directory`, and reads what an earlier run left there.
    pub(super) fn open(directory: &Path, boot_id: &str) -> Result<(Self, Saved), StateError> {
        let file = StateFile::open(directory, boot_id)?;
        let saved = match file.load()? {
            Loaded::Fresh => Saved::default(),
            Loaded::Restored { value, same_boot: true } => value,
            Loaded::Restored { value, same_boot: false } => value.of_another_boot(),
            Loaded::Unusable { reason, set_aside } => {
                let set_aside = set_aside.as_deref().map(Path::display).map(tracing::field::display);
                error!(reason, set_aside, "the state of the earlier run is not to be understood: counts begin anew");
                Saved::default()
            }
        };
        for Unreadable { part, reason } in &saved.unreadable {
            error!(part, reason, "a part of the state of the earlier run is not to be understood, and begins anew");
        }
        Ok((Self { file: Some(file), ..Self::nowhere() }, saved))
    }

    /// Something happened that must not be lost.
    pub(super) fn touch(&mut self, now_ns: u64) {
        self.touch_at(now_ns.max(self.saved_ns.saturating_add(INTERVAL_NS)));
    }

    /// Something changed that can be learned anew.
    pub(super) fn touch_later(&mut self, now_ns: u64) {
        self.touch_at(now_ns.saturating_add(LATER_NS));
    }

    /// Writes to the API server have come to `revision`, and some wait still if it `awaits` them. An event that a later run
    /// does not know to be written would be made a second time when its time to live is over.
    pub(super) fn follow(&mut self, revision: u64, awaits: bool, now_ns: u64) {
        (self.looked_ns, self.awaits) = (now_ns, awaits);
        if std::mem::replace(&mut self.written, revision) != revision {
            self.touch_later(now_ns);
        }
    }

    /// When there is something to do or to look for.
    pub(super) fn next_due(&self) -> Option<u64> {
        let look = (self.awaits && self.file.is_some()).then(|| self.looked_ns.saturating_add(LATER_NS));
        self.due.into_iter().chain(look).min()
    }

    fn touch_at(&mut self, at: u64) {
        if self.file.is_some() {
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    /// When it is to be written.
    pub(super) const fn due(&self) -> Option<u64> {
        self.due
    }

    /// Writes it. Returns whether it is on disk.
    pub(super) fn save(&mut self, saved: &Saved, now_ns: u64, instruments: &Instruments) -> bool {
        let Some(file) = &self.file else { return false };
        self.due = None;
        self.saved_ns = now_ns;
        match file.save(saved) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    info!("the state is saved again");
                }
                true
            }
            Err(cause) => {
                instruments.state_write_failed(cause.reason());
                if !std::mem::replace(&mut self.failing, true) {
                    error!(error = error_chain(&cause), "the state cannot be saved");
                }
                self.touch_later(now_ns);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn keeping() -> (tempfile::TempDir, Keeping) {
        let directory = tempfile::tempdir().unwrap();
        let (keeping, _) = Keeping::open(directory.path(), "b0").unwrap();
        (directory, keeping)
    }

    #[test]
    fn that_an_event_was_written_is_saved_although_nothing_else_happens() {
        let (_directory, mut keeping) = keeping();
        keeping.touch(SECOND);
        keeping.follow(0, true, SECOND);
        assert!(keeping.save(&Saved::default(), SECOND, &Instruments::default()));
        assert_eq!((keeping.due(), keeping.next_due()), (None, Some(SECOND + LATER_NS)), "it is looked for the end");
        keeping.follow(1, false, SECOND + LATER_NS);
        assert_eq!(keeping.due(), Some(SECOND + 2 * LATER_NS));
        assert!(keeping.save(&Saved::default(), SECOND + 2 * LATER_NS, &Instruments::default()));
        keeping.follow(1, false, SECOND + 3 * LATER_NS);
        assert_eq!((keeping.due(), keeping.next_due()), (None, None), "nothing wakes who has nothing to do");
    }

    #[test]
    fn an_agent_without_a_place_for_its_state_is_not_woken_for_it() {
        let mut keeping = Keeping::nowhere();
        keeping.follow(1, true, SECOND);
        assert_eq!((keeping.due(), keeping.next_due()), (None, None));
    }
}
