//! Takes in changes of the settings' file while the agent runs.

use std::{path::PathBuf, rc::Rc};

use tracing::{error, info, warn};

use crate::{
    agent::sink::{condition::deliver::Desk, event::deliver::Handle, metric::Instruments},
    cause::error_chain,
    config::{self, Applies, Config, Reload as Read, Watch},
    contract::metric::Reload,
    ops::log::LogHandle,
};

/// What can be changed while it runs.
pub(super) struct Changeable {
    pub(super) events: Handle,
    pub(super) conditions: Rc<Desk>,
    pub(super) log: LogHandle,
    pub(super) instruments: Instruments,
}

/// Watches `file` for ever; `running` is what it said at the start. A change that is wrong leaves in force what is.
pub(super) async fn watch(file: PathBuf, running: Config, parts: Changeable) {
    let mut watch = match Watch::start(&file, &running, config::parse) {
        Ok(watch) => watch,
        Err(cause) => {
            error!(error = error_chain(&cause), "changes of the settings are not noticed");
            return;
        }
    };
    loop {
        match watch.changed().await {
            Ok(Read::Changed(config)) => parts.apply(&running, &config),
            Ok(Read::Refused(mistakes)) => {
                parts.instruments.config_reloaded(Reload::Refused);
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

impl Changeable {
    /// Puts in force what can be, by the table of keys; the rest differs from what the agent was started with until it is
    /// started again.
    fn apply(&self, started: &Config, read: &Config) {
        self.instruments.config_reloaded(Reload::Applied);
        let Config { events, conditions, log, .. } = started.at_run_time(read);
        self.events.configure(events);
        self.conditions.tell(|desk| desk.configure(conditions));
        if let Err(cause) = self.log.set_level(log.level) {
            warn!(error = error_chain(&cause), "the level of the log stays");
        }
        let differences = started.differences(read);
        let waiting = differences.iter().filter(|changed| changed.applies == Applies::AtRestart);
        let waiting: Vec<_> = waiting.map(|changed| changed.key).collect();
        info!(after_restart = waiting.join(", "), "settings were read again");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        agent::sink::{
            condition::{Conditions, Setup},
            delivery::Next,
            event::Events,
            fixture,
            metric::Metrics,
            report::KillReport,
        },
        cluster::{Answer, Identity, Outcome},
        config::Budget,
    };

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1000 * SECOND;

    /// The parts of an agent that was started with `config`.
    fn parts(config: &Config) -> Changeable {
        let identity = Identity { node: "node-a".to_owned(), node_uid: None };
        let setup = Setup {
            config: config.conditions.clone(),
            node: "node-a".to_owned(),
            boot_id: "b0".to_owned(),
            scan: None,
            wall: fixture::UNITS.wall,
        };
        Changeable {
            events: Handle::new(Events::new(config.events.clone(), identity, "b0")),
            conditions: Rc::new(Desk::new(Conditions::new(setup, 0))),
            log: LogHandle::of_nobody(),
            instruments: Metrics::new(&config.metrics).instruments(),
        }
    }

    /// Kill number `number`, in a pod of its own.
    fn kill(number: u64) -> KillReport {
        let mut kill = KillReport::of(&fixture::container_kill(), &fixture::UNITS, "b0");
        kill.id.sequence = number;
        kill.subject.pod = Some(format!("pod-{number}"));
        kill.subject.pod_uid = Some(format!("uid-{number}"));
        kill.subject.container_id = Some(format!("id-{number}"));
        kill
    }

    #[test]
    fn events_that_are_on_since_the_start_stay_on_and_those_that_are_off_stay_off() {
        let (on, mut off) = (Config::default(), Config::default());
        off.events.enabled = false;
        for (started, read, waiting) in [(&on, &off, 1), (&off, &on, 0)] {
            let parts = parts(started);
            parts.apply(started, read);
            parts.events.kill(&kill(1), NOW);
            assert_eq!(parts.events.counts().waiting, waiting);
        }
    }

    #[test]
    fn conditions_that_are_on_since_the_start_stay_on() {
        let (on, mut off) = (Config::default(), Config::default());
        off.conditions.enabled = false;
        let parts = parts(&on);
        parts.apply(&on, &off);
        assert!(parts.conditions.tell(|conditions| matches!(conditions.next(NOW), Next::Write(_))));
    }

    #[test]
    fn budgets_hold_as_soon_as_they_are_read() {
        let with = |every| {
            let (mut config, budget) = (Config::default(), Budget { burst: 1, every: Duration::from_secs(every) });
            (config.events.node_budget, config.events.pod_budget) = (budget, budget);
            config
        };
        let (started, read) = (with(3600), with(1));
        let parts = parts(&started);
        (1..=2).for_each(|number| parts.events.kill(&kill(number), NOW));
        assert!(matches!(parts.events.next(NOW), Next::Write(_)));
        parts.events.done(&Answer { status: Some(201), outcome: Outcome::Done }, NOW);
        assert!(matches!(parts.events.next(NOW + 2 * SECOND), Next::At(at) if at > NOW + 1000 * SECOND));
        parts.apply(&started, &read);
        assert!(matches!(parts.events.next(NOW + 3 * SECOND), Next::Write(_)));
    }

    #[test]
    fn the_heartbeat_holds_as_soon_as_it_is_read() {
        let (started, mut read) = (Config::default(), Config::default());
        read.conditions.heartbeat = Duration::from_secs(60);
        let parts = parts(&started);
        let due = |parts: &Changeable| match parts.conditions.tell(|conditions| conditions.next(NOW)) {
            Next::At(at) => at - NOW,
            other => panic!("{other:?}"),
        };
        parts.conditions.tell(|conditions| {
            assert!(matches!(conditions.next(NOW), Next::Write(_)));
            conditions.adopt(&[], NOW);
            assert!(matches!(conditions.next(NOW), Next::Write(_)));
            conditions.done(Outcome::Done, NOW);
        });
        assert!(due(&parts) >= 1800 * SECOND);
        parts.apply(&started, &read);
        assert!((60 * SECOND..=66 * SECOND).contains(&due(&parts)));
    }
}
