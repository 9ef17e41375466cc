//! The journal of steps in the incident's object: each entry stands before what it tells is done.

use std::{cell::RefCell, time::Duration};

use super::super::core::Core;
use crate::{
    contract::incident::{KernelIncident, KernelIncidentStatus, StepEntry, StepState},
    controller::{
        incident::store::StoreError,
        remediation::journal::{Ledger, Unwritten},
    },
};

/// How often an end is written down anew because somebody else wrote to the incident meanwhile.
const ATTEMPTS: u32 = 5;

/// The object of one incident as this replica wrote it last.
pub(super) struct Book<'a> {
    core: &'a Core,
    incident: RefCell<KernelIncident>,
}

impl<'a> Book<'a> {
    pub(super) fn new(core: &'a Core, incident: KernelIncident) -> Self {
        Self { core, incident: RefCell::new(incident) }
    }

    /// The incident as it stands now.
    pub(super) fn incident(&self) -> KernelIncident {
        self.incident.borrow().clone()
    }

    /// Leaves `status`, if nobody wrote meanwhile.
    pub(super) async fn leave(&self, status: &KernelIncidentStatus) -> Result<(), StoreError> {
        let seen = self.incident();
        let written = self.core.store.lead(&seen, status).await?;
        self.core.wrote(written.clone());
        self.incident.replace(written);
        Ok(())
    }

    async fn read(&self) -> Result<(), StoreError> {
        let name = self.incident.borrow().metadata.name.clone().unwrap_or_default();
        let read = self.core.store.read(&name).await?;
        self.core.wrote(read.clone());
        self.incident.replace(read);
        Ok(())
    }

    /// Whether the entry may still be put in the place of what stands: a step that is told to end is intended, by the same
    /// plan.
    fn fits(&self, entry: &StepEntry) -> bool {
        let incident = self.incident.borrow();
        let mut steps = incident.status.iter().flat_map(|status| &status.steps);
        match steps.find(|known| known.kind == entry.kind) {
            Some(known) => {
                known.state == StepState::Intended && known.time.0.as_microsecond() == entry.time.0.as_microsecond()
            }
            None => entry.state == StepState::Told,
        }
    }
}

impl Ledger for Book<'_> {
    async fn write(&self, _: &KernelIncident, entry: &StepEntry) -> Result<(), Unwritten> {
        let mut tried = 0;
        loop {
            tried += 1;
            let mut status = self.incident.borrow().status.clone().unwrap_or_default();
            put(&mut status, entry);
            match self.leave(&status).await {
                Ok(()) => return Ok(()),
                // What a plan was made of has changed: the next plan may be another one. An end stays the end.
                Err(StoreError::Changed) if entry.state != StepState::Intended && tried < ATTEMPTS => {
                    self.read().await.map_err(|error| unwritten(&error))?;
                    if !self.fits(entry) {
                        return Err(unwritten(&StoreError::Changed));
                    }
                }
                Err(error) => return Err(unwritten(&error)),
            }
        }
    }
}

fn put(status: &mut KernelIncidentStatus, entry: &StepEntry) {
    // A step that is written down does not wait any more.
    status.holds.retain(|hold| hold.step != entry.kind);
    match status.steps.iter_mut().find(|known| known.kind == entry.kind) {
        Some(known) => *known = entry.clone(),
        None => status.steps.push(entry.clone()),
    }
}

fn unwritten(error: &StoreError) -> Unwritten {
    let after = match error {
        StoreError::Later { after, .. } => *after,
        StoreError::Changed => Some(Duration::ZERO),
        _ => None,
    };
    Unwritten { after, reason: error.to_string() }
}
