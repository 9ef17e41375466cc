//! Why a rung could not be attached, in full for people and as one of few reasons for `doctor`.

use std::io;

use aya::{
    BtfError,
    programs::{KProbeError, ProgramError, TracePointError},
};
use thiserror::Error;

use super::{event_fields::FieldError, offsets::OffsetError, rung::Hook};
use crate::agent::{options::Method, source::btf::minimal::MinimalError};

/// Why a program could not be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The object has no such program: kernel side and user side are not of one build.
    #[error("the kernel object has no program {0}")]
    Missing(&'static str),
    /// The kernel refused the program.
    #[error("loading program {program}")]
    Load {
        /// Name of the program.
        program: &'static str,
        /// Why, with the verifier's log.
        #[source]
        source: Box<ProgramError>,
    },
    /// The kernel refused to call the program.
    #[error("attaching program {program} to {hook}")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// Hook that it was to be attached to.
        hook: Hook,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The method has no programs: it does not use BPF.
    #[error("method {0} has no programs to attach")]
    NoPrograms(Method),
    /// The running kernel has no such function or tracepoint.
    #[error("the running kernel has no {0} in its BTF")]
    NoFunction(&'static str),
    /// A field that the method cannot do without is missing in the kernel, or nothing is known of any.
    #[error(transparent)]
    Field(#[from] OffsetError),
    /// The same of a classic tracepoint.
    #[error(transparent)]
    Event(#[from] FieldError),
    /// The BTF with which the hook is named to the loader could not be made.
    #[error("naming a hook to the loader")]
    Minimal(#[from] MinimalError),
    /// The loader refused that BTF.
    #[error("naming a hook to the loader")]
    Btf(#[from] BtfError),
}

/// Why the kernel does not offer a rung, as far as it can be told from the refusal alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The kernel tells nothing of its types: no `/sys/kernel/btf/vmlinux` (`CONFIG_DEBUG_INFO_BTF`).
    NoBtf,
    /// A structure or tracepoint lacks a field that the rung cannot do without, or has it in an unknown form.
    NoField,
    /// The kernel has no such tracepoint or function, or none that can be probed (ENOENT).
    NoHook,
    /// The kernel has no kprobes (`CONFIG_KPROBE_EVENTS`): `/sys/bus/event_source/devices/kprobe/type` is missing.
    NoKprobes,
    /// tracefs is not mounted where it is looked for.
    NoTracefs,
    /// The kernel refused for want of a right (EPERM, EACCES). If the process has `CAP_BPF` and `CAP_PERFMON`, it refuses
    /// this kind of hook to everybody: trampolines or kprobes switched off, lockdown, a security module. For files of
    /// tracefs: they are not readable for this user.
    NotPermitted,
    /// The verifier found the program unfit for this kernel.
    Verifier,
    /// Something else: the error tells.
    Other,
}

/// Helpers that lockdown (confidentiality) takes away; to the verifier they are then unknown.
const LOCKED_HELPER: &str = "bpf_probe_read_kernel";

impl AttachError {
    /// The reason as one of few.
    #[must_use]
    pub fn reason(&self) -> Refusal {
        match self {
            Self::Load { source, .. } | Self::Attach { source, .. } => of_program(source),
            Self::NoFunction(_) => Refusal::NoHook,
            Self::Field(OffsetError::NoBtf(_)) => Refusal::NoBtf,
            Self::Field(OffsetError::Missing(_)) => Refusal::NoField,
            Self::Event(error) => of_event(error),
            Self::Missing(_) | Self::NoPrograms(_) | Self::Minimal(_) | Self::Btf(_) => Refusal::Other,
        }
    }

    /// Whether the kernel found the program to be of the wrong form for its hook.
    pub(super) fn is_invalid_argument(&self) -> bool {
        let Self::Attach { source, .. } = self else { return false };
        let ProgramError::SyscallError(error) = source.as_ref() else { return false };
        error.io_error.kind() == io::ErrorKind::InvalidInput
    }
}

fn of_program(error: &ProgramError) -> Refusal {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => of_load(io_error, &verifier_log.to_string()),
        ProgramError::SyscallError(error) => of_io(&error.io_error, Refusal::NoHook),
        ProgramError::KProbeError(KProbeError::FileError { io_error, .. }) => of_io(io_error, Refusal::NoKprobes),
        ProgramError::TracePointError(TracePointError::FileError { io_error, .. }) => of_io(io_error, Refusal::NoHook),
        _ => Refusal::Other,
    }
}

fn of_load(error: &io::Error, log: &str) -> Refusal {
    let helper_refused = log.lines().any(|line| {
        line.contains(LOCKED_HELPER) && (line.contains("unknown func") || line.contains("cannot use helper"))
    });
    // The verifier itself says EACCES; a right is missing only where it said nothing.
    match error.raw_os_error() {
        Some(libc::EPERM) => Refusal::NotPermitted,
        _ if helper_refused => Refusal::NotPermitted,
        Some(libc::EACCES) if log.trim().is_empty() => Refusal::NotPermitted,
        _ if !log.trim().is_empty() => Refusal::Verifier,
        _ => Refusal::Other,
    }
}

fn of_event(error: &FieldError) -> Refusal {
    match error {
        FieldError::NoTracefs => Refusal::NoTracefs,
        FieldError::NoEvent { .. } => Refusal::NoHook,
        FieldError::Read { source, .. } => of_io(source, Refusal::NoHook),
        FieldError::Parse { .. } | FieldError::Missing { .. } => Refusal::NoField,
    }
}

fn of_io(error: &io::Error, missing: Refusal) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound => missing,
        io::ErrorKind::PermissionDenied => Refusal::NotPermitted,
        _ => Refusal::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use aya::sys::SyscallError;
    use aya_obj::VerifierLog;
    use rstest::rstest;

    use super::*;

    fn errno(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    fn load(number: i32, log: &str) -> AttachError {
        let verifier_log = VerifierLog::new(log.to_owned());
        let source = ProgramError::LoadError { io_error: errno(number), verifier_log };
        AttachError::Load { program: "p", source: Box::new(source) }
    }

    fn attach(number: i32) -> AttachError {
        let source = ProgramError::SyscallError(SyscallError { call: "c", io_error: errno(number) });
        AttachError::Attach { program: "p", hook: Hook::Raw("h"), source: Box::new(source) }
    }

    fn kprobe(number: i32) -> AttachError {
        let error = KProbeError::FileError { filename: PathBuf::from("type"), io_error: errno(number) };
        AttachError::Attach { program: "p", hook: Hook::Kprobe("h"), source: Box::new(error.into()) }
    }

    fn read(number: i32) -> AttachError {
        FieldError::Read { path: PathBuf::from("format"), source: Arc::new(errno(number)) }.into()
    }

    #[rstest]
    #[case::right_missing(load(libc::EPERM, ""), Refusal::NotPermitted)]
    #[case::trampoline_refused(attach(libc::EPERM), Refusal::NotPermitted)]
    #[case::verifier(load(libc::EACCES, "R1 invalid mem access 'inv'"), Refusal::Verifier)]
    #[case::lockdown(
        load(libc::EINVAL, "12: (85) call\nunknown func bpf_probe_read_kernel#113"),
        Refusal::NotPermitted
    )]
    #[case::unknown_type(load(libc::EINVAL, ""), Refusal::Other)]
    #[case::no_tracepoint(attach(libc::ENOENT), Refusal::NoHook)]
    #[case::wrong_form(attach(libc::EINVAL), Refusal::Other)]
    #[case::no_kprobes(kprobe(libc::ENOENT), Refusal::NoKprobes)]
    #[case::no_btf(OffsetError::NoBtf("TASK_PID").into(), Refusal::NoBtf)]
    #[case::no_function(AttachError::NoFunction("f"), Refusal::NoHook)]
    #[case::no_tracefs(FieldError::NoTracefs.into(), Refusal::NoTracefs)]
    #[case::no_event(FieldError::NoEvent { event: "a/b" }.into(), Refusal::NoHook)]
    #[case::no_field(FieldError::Missing { event: "a/b", field: "c" }.into(), Refusal::NoField)]
    #[case::tracefs_of_root(read(libc::EACCES), Refusal::NotPermitted)]
    #[case::no_programs(AttachError::NoPrograms(Method::Kmsg), Refusal::Other)]
    fn each_refusal_has_its_reason(#[case] error: AttachError, #[case] expected: Refusal) {
        assert_eq!(error.reason(), expected);
    }

    #[test]
    fn only_a_refused_hook_is_of_the_wrong_form() {
        assert!(attach(libc::EINVAL).is_invalid_argument());
        assert!(!attach(libc::ENOENT).is_invalid_argument());
        assert!(!load(libc::EINVAL, "").is_invalid_argument());
    }
}
