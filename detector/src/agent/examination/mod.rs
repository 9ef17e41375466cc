//! What `detector doctor` asks the kernel: everything is tried, nothing stays.
//!
//! ```text
//! files below /proc, /sys ─ surroundings ─┐
//! capabilities ─ rights ──────────────────┼─ verdict: why, and what would change it ─▶ report
//! each method: attach, detach ────────────┘
//! ```

mod facts;
mod fields;
mod live;
mod verdict;

use std::{error::Error, io, path::Path, time::Duration};

use thiserror::Error;
use verdict::{Reason, Seen, Verdict};

use super::{
    locate::{Hierarchy, hierarchy::HierarchyError},
    options::{Detector, Method},
    source::{
        bpf::{
            attach::{AttachError, Refusal},
            object::ObjectError,
            offsets::Offsets,
            probe::{Probe, ProbeError},
        },
        surroundings::{self, Surroundings},
    },
};
use crate::{
    cause::error_chain,
    contract::doctor::{self, Report},
    ops::{
        capability::{Capability, Rights},
        privilege::Need,
    },
};

/// Longest message of the kernel that is told, in characters: the verifier's log may have thousands of lines.
const MESSAGE: usize = 1000;

/// The program cannot wait for anything.
#[derive(Debug, Error)]
#[error("setting up to wait for records and signals")]
pub struct ExaminationError(#[source] io::Error);

/// Examines this machine; with `live`, watches for that time or until Ctrl-C and tells what it cost. Blocks.
///
/// # Errors
/// If the program cannot wait for anything. Whatever the kernel refuses stands in the report.
pub fn examine(live: Option<Duration>) -> Result<Report, ExaminationError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ExaminationError)?;
    runtime.block_on(async {
        let root = Path::new("/");
        let mut report = examine_once(root);
        if let Some(duration) = live {
            match live::measure(root, duration).await {
                Ok(live) => report.live = Some(live),
                Err(error) => report.live_problem = Some(error_chain(&error)),
            }
        }
        Ok(report)
    })
}

fn examine_once(root: &Path) -> Report {
    let seen = Seen { rights: Rights::of_this_process().ok(), surroundings: Surroundings::read(root) };
    let offsets = Offsets::read(root);
    let hierarchy = Hierarchy::find(root);
    let mut report = Report {
        kernel: facts::kernel(&seen.surroundings, offsets.as_ref().err()),
        cgroups: facts::cgroups(&hierarchy),
        process: facts::process(seen.rights),
        capabilities: seen.rights.map(facts::capabilities).unwrap_or_default(),
        settings: facts::settings(&seen),
        runtimes: facts::runtimes(&seen.surroundings),
        last_traces: facts::last_traces(&seen.surroundings.traces),
        missing_fields: offsets.as_ref().map(facts::missing_fields).unwrap_or_default(),
        ..Report::default()
    };
    let mut kernel_side = load(&seen, offsets.unwrap_or_else(|_| Offsets::unknown()), hierarchy);
    report.kernel_side = match &mut kernel_side {
        Ok(probe) => match probe.attach_cgroup_life() {
            Ok(_) => doctor::KernelSide { state: "loaded", ..doctor::KernelSide::default() },
            Err(error) if error.reason() == Refusal::NotPermitted => {
                Refused::new(seen.refused(Method::RawTracepoint, error.reason()), &error).kernel_side()
            }
            // A method of a detector may work without it: then it finds paths in /proc.
            Err(error) => {
                let message = shortened(&format!("no paths of new cgroups: {}", error_chain(&error)));
                doctor::KernelSide { state: "loaded", message: Some(message), ..doctor::KernelSide::default() }
            }
        },
        Err(refused) => refused.kernel_side(),
    };
    if report.kernel_side.reason == Some(Reason::MemoryLockLimit.name()) {
        // Only the refusal tells that this kernel counts maps against the limit.
        let row = report.capabilities.iter_mut().find(|row| row.name == Capability::SysResource.name());
        row.into_iter().for_each(|row| row.need = Need::Required.name());
    }
    report.detectors =
        Detector::ALL.into_iter().map(|detector| examine_detector(detector, &mut kernel_side, &seen, root)).collect();
    report
}

/// What was refused, why, and what was said.
#[derive(Clone, Debug)]
struct Refused {
    verdict: Verdict,
    message: String,
}

impl Refused {
    fn new(verdict: Verdict, error: &dyn Error) -> Self {
        Self { verdict, message: shortened(&error_chain(error)) }
    }

    fn kernel_side(&self) -> doctor::KernelSide {
        let absent = self.verdict.reason == Reason::NoKernelSide;
        doctor::KernelSide {
            state: if absent { "absent" } else { "refused" },
            reason: Some(self.verdict.reason.name()),
            message: Some(self.message.clone()),
            remedy: self.verdict.remedy.clone(),
        }
    }
}

/// Loads the programs and what every detector needs.
fn load(seen: &Seen, offsets: Offsets, hierarchy: Result<Hierarchy, HierarchyError>) -> Result<Probe, Refused> {
    let hierarchy = hierarchy.map_err(|error| {
        let remedy = "mount the memory cgroups, and give a container the machine's /sys/fs/cgroup";
        Refused::new(Verdict::new(Reason::NoCgroups, remedy), &error)
    })?;
    Probe::start(offsets, hierarchy.number, None).map_err(|error| {
        let verdict = match &error {
            ProbeError::Object(ObjectError::Stub) => {
                Verdict::new(Reason::NoKernelSide, "build one that has them: cargo xtask build")
            }
            ProbeError::Attach(attach) => seen.refused(Method::RawTracepoint, attach.reason()),
            other => seen.not_loaded(is_permission(other)),
        };
        Refused::new(verdict, &error)
    })
}

fn examine_detector(
    detector: Detector,
    kernel_side: &mut Result<Probe, Refused>,
    seen: &Seen,
    root: &Path,
) -> doctor::Detector {
    let mut taken = None;
    let mut methods = Vec::new();
    for method in detector.methods().iter().copied() {
        let mut rung = doctor::Method { name: method.name(), ..doctor::Method::default() };
        match attempt(detector, method, kernel_side, seen, root) {
            Ok(without) => {
                rung.state = if taken.is_none() { "taken" } else { "works" };
                rung.without = without.iter().map(|error| shortened(&error_chain(error))).collect();
                taken = taken.or(Some(method));
            }
            Err(Refused { verdict, message }) => {
                rung.state = "refused";
                rung.reason = Some(verdict.reason.name());
                rung.message = Some(message);
                rung.remedy = verdict.remedy;
            }
        }
        methods.push(rung);
    }
    let warnings = seen.warnings(detector, taken);
    doctor::Detector { name: detector.name(), method: taken.map(Method::name), methods, warnings }
}

/// Attaches and detaches. What works is told with what it can do without and the kernel refused.
fn attempt(
    detector: Detector,
    method: Method,
    kernel_side: &mut Result<Probe, Refused>,
    seen: &Seen,
    root: &Path,
) -> Result<Vec<AttachError>, Refused> {
    // Without them `watch` does not start.
    if let Err(refused) = kernel_side
        && refused.verdict.reason == Reason::NoCgroups
    {
        return Err(refused.clone());
    }
    if method == Method::Kmsg {
        let opened = surroundings::open_kernel_log(root);
        return opened.map(|()| Vec::new()).map_err(|error| {
            let verdict = seen.no_kernel_log(&error);
            Refused { verdict, message: format!("opening /dev/kmsg: {error}") }
        });
    }
    let probe = kernel_side.as_mut().map_err(|refused| refused.clone())?;
    let attached = probe.attach(detector, method);
    probe.detach(detector);
    attached.map_err(|error| Refused::new(seen.refused(method, error.reason()), &error))
}

/// Whether the kernel said EPERM or EACCES, wherever in the chain of causes that stands.
fn is_permission(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Start and end of a long text: what was attempted, and how the verifier's log closes.
fn shortened(text: &str) -> String {
    let length = text.chars().count();
    if length <= MESSAGE {
        return text.trim_end().to_owned();
    }
    let half = MESSAGE / 2;
    let start: String = text.chars().take(half).collect();
    let end: String = text.chars().skip(length - half).collect();
    format!("{start} … {}", end.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_keeps_its_start_and_its_end() {
        let text = format!("loading program x: {}: the last line\n", "y".repeat(50_000));
        let short = shortened(&text);
        assert!(short.starts_with("loading program x: ") && short.ends_with(": the last line"), "{short}");
        assert!(short.chars().count() <= MESSAGE + 3);
        assert_eq!(shortened("short\n"), "short");
    }

    #[test]
    fn a_refused_right_is_found_below_its_wrappings() {
        #[derive(Debug, Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        assert!(is_permission(&Outer(io::ErrorKind::PermissionDenied.into())));
        assert!(!is_permission(&Outer(io::ErrorKind::NotFound.into())));
    }

    #[test]
    fn without_any_right_the_report_is_whole() {
        // Test builds have no kernel side: whoever runs this, each method of BPF is refused.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let report = runtime.block_on(async { examine_once(Path::new("/")) });
        assert_eq!(report.detectors.len(), Detector::ALL.len());
        for detector in &report.detectors {
            for method in detector.methods.iter().filter(|method| method.state == "refused") {
                assert!(method.reason.is_some() && method.message.is_some(), "{method:?}");
            }
        }
        assert_eq!(report.settings.len(), surroundings::SETTINGS.len());
    }
}
