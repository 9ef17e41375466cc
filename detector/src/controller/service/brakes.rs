//! The brake as it was read lately: while many nodes die it is asked for once in a while, not for each of them.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use jiff::Timestamp;
use tracing::{error, warn};

use super::core::Core;
use crate::{
    cause::error_chain,
    controller::remediation::brake::{self, Brake, BrakeError},
};

/// How old what was read may be, for a plan. Before a step that destroys something it is read again.
const FRESH: Duration = Duration::from_secs(5);

/// What was read, and when.
#[derive(Debug, Default)]
pub(super) struct Brakes {
    read: RefCell<Option<(Brake, Duration)>>,
    troubled: Cell<bool>,
}

impl Brakes {
    /// The brake, at most [`FRESH`] old, or read right now if `now`. `None`: nobody knows, and every step waits.
    pub(super) async fn look(&self, core: &Core, now: bool) -> Option<Brake> {
        let at = core.monotonic();
        let known = self.read.borrow().clone().filter(|(_, read)| !now && at.saturating_sub(*read) < FRESH);
        if let Some((brake, _)) = known {
            return Some(brake);
        }
        let read = brake::read(&core.client, &core.namespace).await;
        self.take(core, read)
    }

    /// Pulls it.
    pub(super) async fn pull(&self, core: &Core, reason: &str, incident: &str, now: Timestamp) -> Option<Brake> {
        let pulled = brake::pull(&core.client, &core.namespace, reason, incident, now).await;
        match &pulled {
            Ok(_) => {
                error!(incident, reason, "the brake is pulled: no further step is begun until a person releases it");
            }
            Err(cause) => error!(incident, reason, error = error_chain(cause), "the brake cannot be pulled"),
        }
        self.take(core, pulled)
    }

    fn take(&self, core: &Core, read: Result<Brake, BrakeError>) -> Option<Brake> {
        match read {
            Ok(brake) => {
                self.troubled.set(false);
                core.metrics.braked(brake.pulled);
                *self.read.borrow_mut() = Some((brake.clone(), core.monotonic()));
                Some(brake)
            }
            Err(cause) => {
                if !self.troubled.replace(true) {
                    warn!(error = error_chain(&cause), "whether the brake is pulled is not known: every step waits");
                }
                *self.read.borrow_mut() = None;
                None
            }
        }
    }
}
