//! Takes in changes of the settings' file while the controller runs.

use std::{path::PathBuf, rc::Rc};

use tracing::{error, info, warn};

use super::core::Core;
use crate::{
    cause::error_chain,
    config::{
        Applies, Reload, Watch,
        controller::{CONTROLLER, ControllerConfig},
    },
    ops::log::LogHandle,
};

/// Watches `file` for ever; `running` is what it said at the start. A change that is wrong leaves in force what is.
pub(super) async fn watch(file: PathBuf, running: ControllerConfig, core: Rc<Core>, log: LogHandle) {
    let mut watch = match Watch::start(&file, &running, |name, bytes| CONTROLLER.parse(name, bytes)) {
        Ok(watch) => watch,
        Err(cause) => {
            error!(error = error_chain(&cause), "changes of the settings are not noticed");
            return;
        }
    };
    loop {
        match watch.changed().await {
            Ok(Reload::Changed(read)) => apply(&running, &read, &core, &log),
            Ok(Reload::Refused(mistakes)) => {
                mistakes.lines().for_each(|line| error!("{line}"));
                error!("the settings in force stay");
            }
            Err(cause) => {
                error!(error = error_chain(&cause), "changes of the settings are noticed no more");
                return;
            }
        }
    }
}

fn apply(started: &ControllerConfig, read: &ControllerConfig, core: &Core, log: &LogHandle) {
    let config = CONTROLLER.at_run_time(started, read);
    if let Err(cause) = log.set_level(config.log.level) {
        warn!(error = error_chain(&cause), "the level of the log stays");
    }
    let differences = CONTROLLER.differences(started, read);
    let waiting = differences.iter().filter(|changed| changed.applies == Applies::AtRestart);
    let waiting: Vec<_> = waiting.map(|changed| changed.key).collect();
    info!(after_restart = waiting.join(", "), act = config.policy.act, "settings were read again");
    core.config.replace(Rc::new(config));
    // What waited for the policy may go on.
    for incident in core.incidents.borrow().open() {
        core.wake(incident);
    }
}
