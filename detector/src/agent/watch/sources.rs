//! All that the flow listens to: the kernel side's rings and the kernel's log. Either may be missing.

use std::{
    io,
    path::{Path, PathBuf},
};

use detector_common::counter::Ring;

use super::ladder::{Refused, Rungs};
use crate::agent::{
    options::{Detector, Method},
    pipeline::chain,
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
    },
};

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
}

impl Sources {
    /// Loads the kernel side, if the kernel lets it, and has it learn the paths of cgroups. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// If this binary was built without its kernel side: it would watch by the log alone, and nobody would know why.
    pub(super) fn open(root: &Path, memory_hierarchy: u32) -> Result<Self, ProbeError> {
        let (offsets, unreadable) = match Offsets::read(root) {
            Ok(offsets) => (offsets, None),
            // Also where they are damaged: what needs none of them still works.
            Err(error) => (Offsets::unknown(), Some(chain(&error))),
        };
        let missing_fields =
            offsets.missing().filter(|_| unreadable.is_none()).map(|(_, error)| error.to_string()).collect();
        let probe = match Probe::start(offsets, memory_hierarchy) {
            Err(error @ ProbeError::Object(ObjectError::Stub)) => return Err(error),
            other => other,
        };
        let probe_denied = matches!(&probe, Err(ProbeError::Object(ObjectError::Maps(error))) if is_denial(error));
        let mut probe = probe.map_err(|error| chain(&error));
        let cgroup_life = probe.as_mut().ok().map(Probe::attach_cgroup_life);
        let no_cgroup_life = cgroup_life.and_then(Result::err).map(|error| chain(&error));
        Ok(Self {
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
        probe.attach_cgroup_life().map_err(|error| chain(&error))
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
        self.probe.as_mut().is_ok_and(|probe| probe.next(ring, record))
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
                Refused { reason: chain(&error), denied }
            });
        }
        let probe = match &mut self.probe {
            Ok(probe) => probe,
            // Without the right to make maps nothing is loaded.
            Err(reason) => return Err(Refused { reason: reason.clone(), denied: self.probe_denied }),
        };
        match probe.attach(detector, method) {
            // Only what raw tracepoints add to a better method can be done without.
            Ok(parts) => Ok(parts.iter().map(|error| (Method::RawTracepoint, chain(error))).collect()),
            Err(error) => Err(Refused { denied: error.reason() == Refusal::NotPermitted, reason: chain(&error) }),
        }
    }

    fn detach(&mut self, detector: Detector, method: Method) {
        // The log stays open: it stands witness for the methods above it.
        if let (Ok(probe), true) = (&mut self.probe, method != Method::Kmsg) {
            probe.detach(detector);
        }
    }
}
