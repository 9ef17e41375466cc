//! Containers and pods on their way to sinks that keep account of them; kills and hangs wait for nobody here, but their
//! names are looked for afterwards.

use super::Pipeline;
use crate::{
    agent::{
        locate::{Container, ContainerChange, Locator, LocatorSnapshot, Owner, Place, SEEK_NS},
        sink::{Handover, Stage, report::Subject},
        source::{last_words::Naming, pods::PodUpdate, spool::Moment},
        watch::AgentError,
    },
    contract::last_words,
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
        if !self.tells_containers && self.namings.is_none() {
            return Ok(());
        }
        let changes = self.locator.take_changes((self.clock)());
        self.hand_on(&changes)
    }

    /// From now on [`Pipeline::take_namings`] tells of containers, beginning with all that are known.
    pub fn name_containers(&mut self) {
        if !self.tells_containers {
            self.locator.watch_changes((self.clock)());
        }
        self.namings = Some(Vec::new());
    }

    /// From now on [`Pipeline::take_namings`] tells of none.
    pub fn name_no_containers(&mut self) {
        self.namings = None;
    }

    /// What became known of containers since the last call; nothing before [`Pipeline::name_containers`].
    pub fn take_namings(&mut self) -> Vec<Naming> {
        self.namings.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn hand_on(&mut self, changes: &[ContainerChange]) -> Result<(), AgentError> {
        if let Some(namings) = &mut self.namings {
            namings.extend(changes.iter().filter_map(|change| naming(change, &self.locator)));
        }
        if !self.tells_containers {
            return Ok(());
        }
        changes.iter().try_for_each(|change| self.sink.container(change)).map_err(AgentError::Output)
    }

    /// The same, and the container at `place` in any case: something that happened there is told next.
    pub(super) fn tell_container_at(&mut self, place: Option<&Place>) -> Result<(), AgentError> {
        let Some(place) = place.filter(|_| self.tells_containers) else { return Ok(()) };
        let now = (self.clock)();
        let changes = self.locator.changes_before(place, now);
        self.hand_on(&changes)?;
        if Subject::of(Some(place)).lacks_names() {
            self.locator.seek_names(&place.path, now, now.saturating_add(SEEK_NS));
        }
        Ok(())
    }
}

/// What a change means for the kernel's last words, if anything.
fn naming(change: &ContainerChange, locator: &Locator) -> Option<Naming> {
    let place = match change {
        ContainerChange::Seen(place) => place,
        ContainerChange::Gone { id } => return Some(Naming::Gone { container: id.clone() }),
        ContainerChange::PodGone { .. } => return None,
    };
    let Owner::Container(container) = &place.owner else { return None };
    let cgroup = locator.cgroup_of(&container.id)?;
    Some(Naming::Named { container: container.id.clone(), cgroup, names: names(container) })
}

/// The names of a container as the line has them.
fn names(container: &Container) -> String {
    let Some(pod) = &container.pod else { return String::new() };
    let whole = pod.namespace.as_deref().zip(pod.name.as_deref()).zip(container.name.as_deref());
    last_words::names(whole.map(|((namespace, pod), container)| (namespace, pod, container)), Some(&pod.uid))
}
