//! The ladder: which programs are attached, by what the running kernel offers.
//!
//! ```text
//! always            cgroup_mkdir, cgroup_rename, cgroup_rmdir      raw tracepoints
//!                   signal_generate, mark_victim                   raw tracepoints
//!                   mm_vmscan_{direct,memcg}_reclaim_begin         raw tracepoints
//! fentry            + oom_kill_process by trampoline
//! kprobe            + oom_kill_process by kprobe
//! raw_tracepoint    nothing more: the last reclaim and the walk of each mark stand in for the decision
//! ```
//!
//! No step is chosen by the kernel's version: each is tried, best first, and a refusal leads to the next one.

use std::io;

use aya::{
    Btf, BtfError, Ebpf, Endianness,
    programs::{FEntry, KProbe, ProgramError, RawTracePoint},
};
use thiserror::Error;

use super::{
    btf_minimal::{MinimalError, minimal_for},
    offsets::{OOM_KILL_PROCESS, Offsets},
};
use crate::agent::options::OomMethod;

/// What is attached, and why nothing better is.
#[derive(Debug)]
pub struct Attached {
    /// Method in use.
    pub method: OomMethod,
    /// Better methods that this kernel refused, with the reason.
    pub refused: Vec<(OomMethod, AttachError)>,
}

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
        source: ProgramError,
    },
    /// The kernel refused to call the program.
    #[error("attaching program {program} to {hook}")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// Hook that it was to be attached to.
        hook: &'static str,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// The method that was asked for.
    #[error(
        "this kernel refuses method `{method}`, which was asked for; without `--method` the best one that works is taken"
    )]
    Forced {
        /// The method.
        method: OomMethod,
        /// Why.
        #[source]
        source: Box<AttachError>,
    },
    /// The running kernel has no such function.
    #[error("the running kernel has no function {0} in its BTF")]
    NoFunction(&'static str),
    /// The BTF with which the function is named to the loader could not be made.
    #[error("naming function {OOM_KILL_PROCESS} to the loader")]
    Minimal(#[from] MinimalError),
    /// The loader refused that BTF.
    #[error("naming function {OOM_KILL_PROCESS} to the loader")]
    Btf(#[from] BtfError),
}

impl AttachError {
    /// Whether the kernel found the program to be of the wrong form for its hook.
    fn is_invalid_argument(&self) -> bool {
        let Self::Attach { source: ProgramError::SyscallError(error), .. } = self else { return false };
        error.io_error.kind() == io::ErrorKind::InvalidInput
    }
}

/// Attaches the programs that learn the paths of cgroups. Must come before the cgroups are walked, so that none falls
/// between.
///
/// # Errors
/// If the kernel refuses one of them.
pub fn cgroup_life(ebpf: &mut Ebpf) -> Result<(), AttachError> {
    for hook in ["cgroup_mkdir", "cgroup_rename", "cgroup_rmdir"] {
        raw_tracepoint(ebpf, hook, hook)?;
    }
    Ok(())
}

/// Attaches the programs that see OOM kills, by `forced` or the best method that the kernel offers.
///
/// # Errors
/// If `forced` is refused, or no method works.
pub fn oom(ebpf: &mut Ebpf, offsets: &Offsets, forced: Option<OomMethod>) -> Result<Attached, AttachError> {
    let (method, mut refused) = best_decision(ebpf, offsets, forced)?;
    // What is remembered for the mark comes before it: without its signal a mark would read "already dying".
    match reclaim(ebpf) {
        // The other methods name the decision themselves.
        Err(error) if method != OomMethod::RawTracepoint => refused.push((OomMethod::RawTracepoint, error)),
        other => other?,
    }
    raw_tracepoint(ebpf, "signal_generate", "signal_generate")?;
    mark_victim(ebpf)?;
    Ok(Attached { method, refused })
}

/// What the trigger tried before a kill.
fn reclaim(ebpf: &mut Ebpf) -> Result<(), AttachError> {
    raw_tracepoint(ebpf, "reclaim_machine", "mm_vmscan_direct_reclaim_begin")?;
    raw_tracepoint(ebpf, "reclaim_cgroup", "mm_vmscan_memcg_reclaim_begin")
}

fn best_decision(
    ebpf: &mut Ebpf,
    offsets: &Offsets,
    forced: Option<OomMethod>,
) -> Result<(OomMethod, Vec<(OomMethod, AttachError)>), AttachError> {
    if let Some(method) = forced {
        let forced = |error| AttachError::Forced { method, source: Box::new(error) };
        return decision(ebpf, offsets, method).map(|()| (method, Vec::new())).map_err(forced);
    }
    let mut refused = Vec::new();
    for method in OomMethod::ALL {
        match decision(ebpf, offsets, method) {
            Ok(()) => return Ok((method, refused)),
            Err(error) => refused.push((method, error)),
        }
    }
    // The last method has the fewest needs: its refusal is the one to tell.
    Err(refused.pop().map_or(AttachError::Missing("oom_decision_fentry"), |(_, error)| error))
}

/// Attaches to `mark_victim` by the prototype that the running kernel has: it refuses (EINVAL) a program that reads more
/// arguments than the tracepoint has.
fn mark_victim(ebpf: &mut Ebpf) -> Result<(), AttachError> {
    match raw_tracepoint(ebpf, "mark_victim_task", "mark_victim") {
        Err(error) if error.is_invalid_argument() => raw_tracepoint(ebpf, "mark_victim_pid", "mark_victim"),
        other => other,
    }
}

fn decision(ebpf: &mut Ebpf, offsets: &Offsets, method: OomMethod) -> Result<(), AttachError> {
    match method {
        OomMethod::Fentry => decision_by_fentry(ebpf, offsets),
        OomMethod::Kprobe => decision_by_kprobe(ebpf),
        OomMethod::RawTracepoint => Ok(()),
    }
}

fn decision_by_fentry(ebpf: &mut Ebpf, offsets: &Offsets) -> Result<(), AttachError> {
    const PROGRAM: &str = "oom_decision_fentry";
    let id = offsets.oom_kill_process().ok_or(AttachError::NoFunction(OOM_KILL_PROCESS))?;
    // The loader takes the id of the function from a BTF that it parses whole. One in which this function alone is real
    // spares it 120,000 types.
    let btf = Btf::parse(&minimal_for(OOM_KILL_PROCESS, id)?, Endianness::default())?;
    let program: &mut FEntry = program(ebpf, PROGRAM)?;
    program.load(OOM_KILL_PROCESS, &btf).map_err(|source| AttachError::Load { program: PROGRAM, source })?;
    let attached = program.attach();
    attached.map_err(|source| AttachError::Attach { program: PROGRAM, hook: OOM_KILL_PROCESS, source })?;
    Ok(())
}

fn decision_by_kprobe(ebpf: &mut Ebpf) -> Result<(), AttachError> {
    const PROGRAM: &str = "oom_decision_kprobe";
    let program: &mut KProbe = program(ebpf, PROGRAM)?;
    program.load().map_err(|source| AttachError::Load { program: PROGRAM, source })?;
    let attached = program.attach(OOM_KILL_PROCESS, 0);
    attached.map_err(|source| AttachError::Attach { program: PROGRAM, hook: OOM_KILL_PROCESS, source })?;
    Ok(())
}

fn raw_tracepoint(ebpf: &mut Ebpf, name: &'static str, hook: &'static str) -> Result<(), AttachError> {
    let program: &mut RawTracePoint = program(ebpf, name)?;
    program.load().map_err(|source| AttachError::Load { program: name, source })?;
    program.attach(hook).map_err(|source| AttachError::Attach { program: name, hook, source })?;
    Ok(())
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, AttachError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(AttachError::Missing(name))
}
