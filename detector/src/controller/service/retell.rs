//! What another leader did lately is told again: it may have ended before it told. Told twice it is one event.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;
use tracing::debug;

use super::{core::Core, turn::act};
use crate::{
    contract::incident::KernelIncident,
    controller::incident::store::{StoreError, known::is_closed},
};

/// What was done within this time is told again.
const RETOLD: Duration = Duration::from_secs(120);
/// Closed incidents that are told again.
const MAX_CLOSED: usize = 256;
/// How often one is tried to be read, and how long is waited in between.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

/// Tells the steps and holds of all incidents. Closed ones are read before: of them little is kept in memory.
pub(super) async fn retell(core: &Core) {
    let since = core.wall().checked_sub(RETOLD).unwrap_or(Timestamp::MIN);
    let closed: Vec<String> = {
        let incidents = core.incidents.borrow();
        incidents.open().for_each(|incident| act::retell(core, incident, since));
        let lately = incidents.iter().filter(|incident| is_closed(incident) && has_news(incident, since));
        lately.filter_map(|incident| incident.metadata.name.clone()).take(MAX_CLOSED).collect()
    };
    for name in closed {
        if let Some(incident) = read(core, &name).await {
            act::retell(core, &incident, since);
        }
    }
}

fn has_news(incident: &KernelIncident, since: Timestamp) -> bool {
    let Some(status) = &incident.status else { return false };
    let ended = status.steps.iter().filter_map(|step| step.ended.as_ref());
    ended.chain(status.holds.iter().map(|hold| &hold.since)).any(|time| time.0 >= since)
}

async fn read(core: &Core, name: &str) -> Option<KernelIncident> {
    for _ in 0..ATTEMPTS {
        match core.store.read(name).await {
            Ok(incident) => return Some(incident),
            Err(StoreError::Gone) => return None,
            Err(error) => {
                debug!(incident = name, reason = %error, "what was done lately is not told again yet");
                let asked = if let StoreError::Later { after, .. } = &error { *after } else { None };
                sleep(asked.unwrap_or(PAUSE).max(PAUSE)).await;
            }
        }
    }
    None
}
