//! All that the flow listens to: the kernel side's rings and the kernel's log. Either may be missing.

use std::{
    io,
    path::{Path, PathBuf},
};

use detector_common::{Header, counter::Ring};
use zerocopy::FromBytes as _;

use super::ladder::{Refused, Rungs};
use crate::agent::{
    options::{Detector, Method},
    sink::Handover,
    source::{
        Records,
        bpf::{
            attach::Refusal,
            health::{Dropped, HealthError},
            object::ObjectError,
            offsets::Offsets,
            probe::{Broken, Probe, ProbeError},
            ring::RingError,
        },
        kmsg::{Kmsg, KmsgError},
        last_words::{LastWordsError, Naming},
        pin::{Counts, KillCountsError, Pins},
        spool::{Moment, Replay, Seen, Spool, SpoolError},
    },
};
use crate::cause::error_chain;

/// What an earlier run of the agent left, and where to leave it for a later one. Nothing, for who leaves nothing behind.
#[derive(Default)]
pub(in crate::agent) struct Inherited {
    /// Where programs and rings outlive the process.
    pub(in crate::agent) pins: Option<Pins>,
    /// Where records lie until what they led to is saved.
    pub(in crate::agent) spool: Option<Spool>,
    /// What an earlier run of this boot had in mind.
    pub(in crate::agent) handover: Handover,
    /// Whether detectors that tell of nothing while the kernel lives are attached once all else works: the verifier takes
    /// its time for them.
    pub(in crate::agent) late: bool,
}

/// What the flow listens to.
pub(super) struct Sources {
    root: PathBuf,
    /// The kernel side, or why there is none.
    probe: Result<Probe, String>,
    /// It was refused for want of a right.
    probe_denied: bool,
    /// Why nothing learns the paths of cgroups, if the kernel side cannot.
    no_cgroup_life: Option<String>,
    /// The kernel's log, once it was opened.
    log: Option<Kmsg>,
    /// Why the kernel's types cannot be read, if they cannot.
    no_types: Option<String>,
    /// Fields that the running kernel lacks.
    missing_fields: Vec<String>,
    /// Records that were taken, where there may be some twice.
    seen: Option<Seen>,
    spool_not_cleared: Option<SpoolError>,
    /// What the kernel side's counters said when an earlier run last told of them; nothing, where they began anew.
    dropped_before: Vec<(String, u64)>,
}

impl Sources {
    /// Loads the kernel side, if the kernel lets it, and has it learn the paths of cgroups. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// If this binary was built without its kernel side: it would watch by the log alone, and nobody would know why.
    pub(super) fn open(root: &Path, memory_hierarchy: u32, inherited: Inherited) -> Result<Self, ProbeError> {
        let Inherited { pins, spool, handover: Handover { taken, dropped, .. }, late: _ } = inherited;
        let (offsets, unreadable) = match Offsets::read(root) {
            Ok(offsets) => (offsets, None),
            // Also where they are damaged: what needs none of them still works.
            Err(error) => (Offsets::unknown(), Some(error_chain(&error))),
        };
        let missing_fields =
            offsets.missing().filter(|_| unreadable.is_none()).map(|(_, error)| error.to_string()).collect();
        let probe = match Probe::start(offsets, memory_hierarchy, pins.as_ref()) {
            Err(error @ (ProbeError::Object(ObjectError::Stub) | ProbeError::Pins(_))) => return Err(error),
            other => other,
        };
        let probe_denied = matches!(&probe, Err(ProbeError::Object(ObjectError::Maps(error))) if is_denial(error));
        let mut probe = probe.map_err(|error| error_chain(&error));
        let cgroup_life = probe.as_mut().ok().map(Probe::attach_cgroup_life);
        let no_cgroup_life = cgroup_life.and_then(Result::err).map(|error| error_chain(&error));
        let seen = spool.is_some().then(|| Seen::restore(taken));
        if let (Ok(probe), Some(spool)) = (&mut probe, spool) {
            probe.set_spool(spool);
        }
        let counters_go_on = probe.as_ref().is_ok_and(Probe::adopted_counters);
        Ok(Self {
            dropped_before: if counters_go_on { dropped } else { Vec::new() },
            seen,
            spool_not_cleared: None,
            root: root.to_owned(),
            probe,
            probe_denied,
            no_cgroup_life,
            log: None,
            no_types: unreadable,
            missing_fields,
        })
    }

    /// Why the kernel's types cannot be read, if they cannot.
    pub(super) fn without_types(&self) -> Option<&str> {
        self.no_types.as_deref()
    }

    /// Fields that the running kernel lacks: each a sentence.
    pub(super) fn missing_fields(&self) -> &[String] {
        &self.missing_fields
    }

    /// The kernel side, if there is one.
    pub(super) fn probe(&self) -> Option<&Probe> {
        self.probe.as_ref().ok()
    }

    /// Why nothing learns the paths of cgroups, if the kernel side is there and cannot.
    pub(super) fn without_cgroup_life(&self) -> Option<&str> {
        self.no_cgroup_life.as_deref()
    }

    /// Why there is no kernel side, if there is none.
    pub(super) fn without_probe(&self) -> Option<&str> {
        self.probe.as_ref().err().map(String::as_str)
    }

    /// What was found of earlier programs and cannot be used, and why nothing will be found of this one: kind and sentence.
    pub(super) fn troubles_of_pins(&self) -> Vec<(&'static str, u64, String)> {
        let Ok(probe) = &self.probe else { return Vec::new() };
        let mut troubles = Vec::new();
        for abandoned in probe.abandoned() {
            let (name, records) = (&abandoned.name, abandoned.count());
            if let Some(reason) = &abandoned.unreadable {
                let sentence = format!("records that another version left in {name} cannot be counted: {reason}");
                troubles.push(("abi_unreadable", 1, sentence));
            }
            if records > 0 {
                troubles.push(("abi", records, format!("records of {name} were left unread by another version")));
            }
        }
        if !probe.replaced_maps().is_empty() {
            let names = probe.replaced_maps().join(", ");
            troubles.push(("pins_replaced", 1, format!("maps of an earlier program have another shape: {names}")));
        }
        if let Some(error) = probe.not_kept() {
            troubles.push(("not_kept", 1, format!("not all goes on while no agent runs: {}", error_chain(error))));
        }
        troubles
    }

    /// What was found in the spool of an earlier run and is no use.
    pub(super) fn spool_found(&mut self) -> Option<&Replay> {
        self.spool().map(|spool| spool.found())
    }

    /// Records that could not be written to the spool since the last call.
    pub(super) fn take_unspooled(&mut self) -> u64 {
        self.spool().map_or(0, Spool::take_unspooled)
    }

    /// Whether there may be records from before the start: nothing wakes the flow for these.
    pub(super) fn may_have_records(&mut self) -> bool {
        self.spool().is_some_and(|spool| spool.has_left()) || self.probe.as_ref().is_ok_and(Probe::adopted_maps)
    }

    /// Removes what an earlier program kept attached and nobody wants any more. Once all detectors are attached.
    pub(super) fn settle(&mut self) {
        if let Ok(probe) = &mut self.probe {
            probe.settle();
        }
    }

    /// Records that were taken, and are known again.
    pub(super) fn taken(&self) -> Vec<(u32, Moment)> {
        self.seen.iter().flat_map(Seen::snapshot).collect()
    }

    /// What the kernel side had counted as lost, and an earlier run told.
    pub(super) fn dropped_before(&self) -> &[(String, u64)] {
        &self.dropped_before
    }

    /// Why records are not safe against a sudden end, if that is new.
    pub(super) fn spool_trouble(&mut self) -> Option<SpoolError> {
        let cleared = self.spool_not_cleared.take();
        cleared.or_else(|| self.spool()?.take_trouble())
    }

    /// Whether what records led to is to be saved soon, because the spool grows.
    pub(super) fn wants_clearing(&mut self) -> bool {
        self.spool().is_some_and(|spool| spool.wants_clearing())
    }

    fn spool(&mut self) -> Option<&mut Spool> {
        self.probe.as_mut().ok().and_then(Probe::spool)
    }

    /// All that the records taken led to is saved: they may go.
    pub(super) fn clear_spool(&mut self) {
        if let Some(spool) = self.spool()
            && !spool.is_empty()
            && let Err(error) = spool.clear()
        {
            self.spool_not_cleared = Some(error);
        }
    }

    /// Kills that the kernel side counted, by cgroup; `None`: there is none that counts.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn kills_counted(&self) -> Result<Option<Counts>, KillCountsError> {
        self.probe.as_ref().ok().map(|probe| probe.kills.all()).transpose()
    }

    /// Kills that other versions of the kernel side counted before this one took over.
    pub(super) fn kills_of_others(&self) -> Vec<Counts> {
        let abandoned = self.probe.as_ref().map(Probe::abandoned).unwrap_or_default();
        abandoned.iter().filter_map(|abandoned| abandoned.kills.clone()).collect()
    }

    /// Nobody needs the counts of these cgroups any more.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn forget_kills(&mut self, cgroups: &[(u32, u64)]) -> Result<(), KillCountsError> {
        let Ok(probe) = &mut self.probe else { return Ok(()) };
        cgroups.iter().try_for_each(|cgroup| probe.kills.forget(*cgroup))
    }

    /// Tells the probe on panic where the kernel has what it looks at.
    ///
    /// # Errors
    /// If some of it is not to be known.
    pub(super) fn find_symbols(&mut self) -> Result<(), LastWordsError> {
        self.probe.as_mut().map_or(Ok(()), |probe| probe.find_symbols(&self.root))
    }

    /// What became known of containers, for the probe on panic.
    ///
    /// # Errors
    /// If not all of it finds its place.
    pub(super) fn hear_names(&mut self, namings: Vec<Naming>) -> Result<(), LastWordsError> {
        self.probe.as_mut().map_or(Ok(()), |probe| probe.last_words.hear(namings))
    }

    /// Opens the kernel's log at its end, unless it is open.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn open_log(&mut self) -> Result<(), KmsgError> {
        if self.log.is_none() {
            self.log = Some(Kmsg::open(&self.root)?);
        }
        Ok(())
    }

    /// The kernel's log, if it is open.
    pub(super) fn log(&mut self) -> Option<&mut Kmsg> {
        self.log.as_mut()
    }

    /// Closes the kernel's log, which can be read no more.
    pub(super) fn close_log(&mut self) {
        self.log = None;
    }

    /// Programs that somebody outside detached.
    pub(super) fn broken(&self) -> Vec<Broken> {
        self.probe.as_ref().map(Probe::broken).unwrap_or_default()
    }

    /// Attaches anew what learns the paths of cgroups.
    ///
    /// # Errors
    /// If the kernel refuses, with the reason in a sentence.
    pub(super) fn mend_cgroup_life(&mut self) -> Result<Method, String> {
        let probe = self.probe.as_mut().map_err(|reason| reason.clone())?;
        probe.attach_cgroup_life().map_err(|error| error_chain(&error))
    }

    /// Waits until there may be something to read in a ring, or in the log; for ever, if there is neither.
    ///
    /// # Errors
    /// If one of them cannot be waited for.
    pub(super) async fn ready(&self) -> Result<Ready, ReadyError> {
        let rings = async {
            match &self.probe {
                Ok(probe) => tokio::select! {
                    ready = probe.precious.wait() => ready,
                    ready = probe.bulk.wait() => ready,
                },
                Err(_) => std::future::pending().await,
            }
        };
        let log = async {
            match &self.log {
                Some(log) => log.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = rings => Ok(ready.map(|()| Ready::Rings)?),
            ready = log => Ok(ready.map(|()| Ready::Log)?),
        }
    }
}

/// CPU of a record, and which of that one's records it is.
fn identity(record: &[u8]) -> Option<(u32, Moment)> {
    let (header, _) = Header::read_from_prefix(record).ok()?;
    Some((header.cpu, Moment::of(&header)))
}

fn is_denial(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Where there may be something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// In a ring.
    Rings,
    /// In the kernel's log.
    Log,
}

/// Why nothing can be waited for.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// A ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The kernel's log.
    #[error(transparent)]
    Log(#[from] KmsgError),
}

impl Records for Sources {
    fn next(&mut self, ring: Ring, record: &mut Vec<u8>) -> bool {
        loop {
            let left = if ring == Ring::Precious { self.spool().and_then(Spool::take_left) } else { None };
            match left {
                Some(left) => *record = left,
                None if self.probe.as_mut().is_ok_and(|probe| probe.next(ring, record)) => {}
                None => return false,
            }
            // What cannot be told apart is told: decoding says what is wrong with it.
            let is_new = |seen: &mut Seen| identity(record).is_none_or(|(cpu, moment)| seen.is_new(cpu, moment));
            if ring != Ring::Precious || self.seen.as_mut().is_none_or(is_new) {
                return true;
            }
        }
    }

    fn dropped(&self) -> Result<Vec<Dropped>, HealthError> {
        self.probe.as_ref().map_or_else(|_| Ok(Vec::new()), Probe::dropped)
    }
}

impl Rungs for Sources {
    fn attach(&mut self, detector: Detector, method: Method) -> Result<Vec<(Method, String)>, Refused> {
        if method == Method::Kmsg {
            return self.open_log().map(|()| Vec::new()).map_err(|error| {
                let denied = matches!(error, KmsgError::NotPermitted { .. });
                Refused { reason: error_chain(&error), denied }
            });
        }
        let probe = match &mut self.probe {
            Ok(probe) => probe,
            // Without the right to make maps nothing is loaded.
            Err(reason) => return Err(Refused { reason: reason.clone(), denied: self.probe_denied }),
        };
        match probe.attach(detector, method) {
            // Only what raw tracepoints add to a better method can be done without, and parts of the probe on panic.
            Ok(parts) => {
                let part = if detector.tells() { Method::RawTracepoint } else { method };
                Ok(parts.iter().map(|error| (part, error_chain(error))).collect())
            }
            Err(error) => Err(Refused { denied: error.reason() == Refusal::NotPermitted, reason: error_chain(&error) }),
        }
    }

    fn detach(&mut self, detector: Detector, method: Method) {
        // The log stays open: it stands witness for the methods above it.
        if let (Ok(probe), true) = (&mut self.probe, method != Method::Kmsg) {
            probe.detach(detector);
        }
    }
}
