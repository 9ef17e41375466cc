//! Containers and pods on their way to sinks that keep account of them; kills and hangs wait for nobody here, but their
//! names are looked for afterwards.

use super::Pipeline;
use crate::agent::{
    locate::{LocatorSnapshot, Place, SEEK_NS},
    sink::{Handover, Stage, report::Subject},
    source::{pods::PodUpdate, spool::Moment},
    watch::AgentError,
};

impl Pipeline<'_> {
    /// Takes in what the watch of pods told.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn take_pods(&mut self, update: PodUpdate) -> Result<(), AgentError> {
        match &update {
            PodUpdate::Refused { reason } => self.note(Stage::Locate, "pods_refused", || {
                format!("pods cannot be watched, names come from the runtimes' files alone: {reason}")
            }),
            PodUpdate::Failed { reason } => {
                self.note(Stage::Locate, "pods_unwatched", || format!("watching pods, tried again: {reason}"));
            }
            PodUpdate::ListBegins | PodUpdate::Seen(_) | PodUpdate::Gone { .. } | PodUpdate::ListEnds => {}
        }
        self.locator.apply_pods(update, (self.clock)());
        self.end_batch()
    }

    /// Looks once a second for the names of the container that the cgroup of this path belongs to, until `until_ns`,
    /// nanoseconds since boot: for what was held back when an earlier run ended.
    pub fn seek_names(&mut self, cgroup: &str, until_ns: u64) {
        self.locator.seek_names(cgroup, (self.clock)(), until_ns);
    }

    /// What a later run of this boot must know of cgroups, see [`Pipeline::resume`].
    #[must_use]
    pub fn snapshot(&self) -> LocatorSnapshot {
        self.locator.snapshot()
    }

    /// Has the sink save what must survive, if it wants to now, or if it is `urgent`: where records wait for it; not for
    /// that alone after an attempt that failed. `taken`: the records that were taken. Returns whether it is on disk.
    pub fn save_if_due(&mut self, urgent: bool, taken: impl FnOnce() -> Vec<(u32, Moment)>) -> bool {
        let due = self.sink.wants_saving((self.clock)()) || (urgent && !self.saving_failed);
        due && self.save(taken)
    }

    /// Has the sink save what must survive.
    pub fn save(&mut self, taken: impl FnOnce() -> Vec<(u32, Moment)>) -> bool {
        let dropped = self.losses.told(|kind| self.notices.waiting(Stage::Source, kind));
        let (cgroups, hangs) = (self.locator.snapshot(), self.hangs.handover());
        let saved = self.sink.save(Handover { cgroups, taken: taken(), dropped, hangs });
        self.saving_failed = !saved;
        saved
    }

    /// Changes whenever [`Pipeline::snapshot`] has something new to say.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.locator.revision()
    }

    /// Tells what became of containers and pods.
    pub(super) fn tell_containers(&mut self) -> Result<(), AgentError> {
        if !self.tells_containers {
            return Ok(());
        }
        let changes = self.locator.take_changes((self.clock)());
        changes.iter().try_for_each(|change| self.sink.container(change)).map_err(AgentError::Output)
    }

    /// The same, and the container at `place` in any case: something that happened there is told next.
    pub(super) fn tell_container_at(&mut self, place: Option<&Place>) -> Result<(), AgentError> {
        let Some(place) = place.filter(|_| self.tells_containers) else { return Ok(()) };
        let now = (self.clock)();
        let changes = self.locator.changes_before(place, now);
        changes.iter().try_for_each(|change| self.sink.container(change)).map_err(AgentError::Output)?;
        if Subject::of(Some(place)).lacks_names() {
            self.locator.seek_names(&place.path, now, now.saturating_add(SEEK_NS));
        }
        Ok(())
    }
}
