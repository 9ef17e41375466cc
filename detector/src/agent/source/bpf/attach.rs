//! Attaches the rungs of `rung.rs`, and takes them off again.
//!
//! No rung is chosen by the kernel's version: each is tried, best first, and a refusal leads to the next one.

use std::{
    io,
    os::fd::{AsFd, RawFd},
};

use aya::{
    Btf, Ebpf, Endianness,
    programs::{
        BtfTracePoint, FEntry, KProbe, Program, ProgramError, RawTracePoint, TracePoint,
        links::{FdLink, LinkError},
    },
};

pub use super::attach_error::{AttachError, Refusal};
use super::{
    event_fields::EventFields,
    link::{Held, Link, next_descriptor},
    offsets::{HANG_PROTOTYPE, OOM_KILL_PROCESS, Offsets},
    rung::{CGROUP_LIFE, Hook, Part, Rung, rung},
};
use crate::agent::{
    options::{Detector, Method},
    source::{
        btf::minimal::{Named, minimal_for},
        pin::{Keeper, Lasting, Owner, PinError, Pinned},
    },
};

/// Programs attached to the running kernel. Dropping it takes all of them off.
pub(super) struct Attached {
    links: Vec<Link>,
}

/// What the kernel tells of itself, and what it kept.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) offsets: &'a Offsets,
    pub(super) fields: &'a EventFields,
    pub(super) keeper: Option<&'a Keeper>,
}

impl Attached {
    /// Nothing yet.
    pub(super) const fn none() -> Self {
        Self { links: Vec::new() }
    }

    /// Attaches what learns the paths of cgroups, by the best method that works, which it returns. Nothing is kept yet.
    ///
    /// # Errors
    /// Why the last way was refused; then nothing of it is attached.
    pub(super) fn cgroup_life(&mut self, ebpf: &mut Ebpf, facts: Facts<'_>) -> Result<Method, AttachError> {
        let mut refused = None;
        for (method, rung) in CGROUP_LIFE {
            match self.rung(ebpf, facts, None, rung) {
                Ok(_) => return Ok(*method),
                // That the kernel does not tell its types explains more than what came of it.
                Err(error) => refused = refused.or(Some(error)),
            }
            self.let_go(ebpf, None);
        }
        Err(refused.unwrap_or(AttachError::Missing("cgroup_mkdir")))
    }

    /// Attaches `method` of `detector`. What it can do without and the kernel refused is returned. Nothing is kept yet.
    ///
    /// # Errors
    /// If the kernel refuses what the method needs. Some of its programs may be attached by then.
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        facts: Facts<'_>,
        detector: Detector,
        method: Method,
    ) -> Result<Vec<AttachError>, AttachError> {
        let rung = rung(detector, method).ok_or(AttachError::NoPrograms(method))?;
        self.rung(ebpf, facts, Some(detector), rung)
    }

    /// Lets go of all programs of `owner`, which detaches those that are not kept, and unloads them, so that they may be
    /// loaded again.
    pub(super) fn let_go(&mut self, ebpf: &mut Ebpf, owner: Owner) {
        self.links.retain(|link| link.detector != owner);
        match owner {
            Some(detector) => unload(ebpf, detector.methods().iter().filter_map(|method| rung(detector, *method))),
            None => unload(ebpf, CGROUP_LIFE.iter().map(|(_, rung)| *rung)),
        }
    }

    /// Has the kernel keep the programs of `owner`.
    ///
    /// # Errors
    /// If it refuses one, which is attached no more then.
    pub(super) fn keep(&mut self, ebpf: &mut Ebpf, keeper: &Keeper, owner: Owner) -> Result<(), PinError> {
        let mut links = self.links.iter_mut().filter(|link| link.detector == owner);
        links.try_for_each(|link| link.keep(keeper, ebpf.program_mut(link.program)))
    }

    /// The pins of `owner`.
    pub(super) fn pins(&self, owner: Owner) -> Vec<Pinned> {
        self.links.iter().filter(|link| link.detector == owner).filter_map(Link::pin).collect()
    }

    /// All links.
    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    /// Programs and what they are attached to.
    pub(super) fn programs(&self) -> Vec<(&'static str, Hook)> {
        self.links.iter().map(|link| (link.program, link.hook)).collect()
    }

    /// Links that hold their program no more: detector, program, hook.
    pub(super) fn broken(&self) -> impl Iterator<Item = (Option<Detector>, &'static str, Hook)> {
        self.links.iter().filter(|link| link.is_broken()).map(|link| (link.detector, link.program, link.hook))
    }

    fn rung(
        &mut self,
        ebpf: &mut Ebpf,
        facts: Facts<'_>,
        detector: Option<Detector>,
        rung: &'static Rung,
    ) -> Result<Vec<AttachError>, AttachError> {
        facts.offsets.require(rung.offsets)?;
        facts.fields.require(rung.fields)?;
        let mut refused = Vec::new();
        for part in rung.parts {
            let link = match adopt_part(facts.keeper, detector, part) {
                Some(link) => Ok(link),
                None => attach_part(ebpf, facts.offsets, part).map(|(program, held)| {
                    Link::new(Pinned { owner: detector, program, hook: part.hook }, held, Lasting::Process)
                }),
            };
            match link {
                Ok(link) => self.links.push(link),
                Err(error) if part.optional => refused.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }
}

/// The program of the part that is attached already, if one is kept.
fn adopt_part(keeper: Option<&Keeper>, owner: Owner, part: &Part) -> Option<Link> {
    let adopt = |program: &&'static str| {
        let pinned = Pinned { owner, program, hook: part.hook };
        // What cannot be removed cannot be adopted either: what is attached in its place silences it.
        let link = keeper?.adopt(&pinned).ok().flatten()?;
        Some(Link::new(pinned, Held::link(link), Lasting::Adopted))
    };
    part.programs.iter().find_map(adopt)
}

/// Attaches the first program of the part that has the right form for the hook.
fn attach_part(ebpf: &mut Ebpf, offsets: &Offsets, part: &Part) -> Result<(&'static str, Held), AttachError> {
    let mut last = AttachError::Missing("any");
    for program in part.programs {
        match attach_program(ebpf, offsets, program, part.hook) {
            Ok(held) => return Ok((program, held)),
            Err(error) => last = error,
        }
        unload_program(ebpf, program);
        if !last.is_invalid_argument() {
            break;
        }
    }
    Err(last)
}

fn attach_program(ebpf: &mut Ebpf, offsets: &Offsets, name: &'static str, hook: Hook) -> Result<Held, AttachError> {
    let refused = |source| AttachError::Attach { program: name, hook, source: Box::new(source) };
    match hook {
        Hook::Raw(tracepoint) => {
            let program: &mut RawTracePoint = program(ebpf, name)?;
            loaded(name, program.load())?;
            let link = program.attach(tracepoint).and_then(|id| program.take_link(id)).map_err(refused)?;
            Ok(Held::link(FdLink::from(link)))
        }
        Hook::Typed(tracepoint) => {
            let id = offsets.hang_prototype().ok_or(AttachError::NoFunction(HANG_PROTOTYPE))?;
            let btf = Btf::parse(&minimal_for(Named::Typedef, HANG_PROTOTYPE, id)?, Endianness::default())?;
            let program: &mut BtfTracePoint = program(ebpf, name)?;
            loaded(name, program.load(tracepoint, &btf))?;
            let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
            Ok(Held::link(FdLink::from(link)))
        }
        Hook::Entry(function) => {
            let id = offsets.oom_kill_process().ok_or(AttachError::NoFunction(OOM_KILL_PROCESS))?;
            let btf = Btf::parse(&minimal_for(Named::Function, function, id)?, Endianness::default())?;
            let program: &mut FEntry = program(ebpf, name)?;
            loaded(name, program.load(function, &btf))?;
            let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
            Ok(Held::link(FdLink::from(link)))
        }
        Hook::Kprobe(function) => {
            let program: &mut KProbe = program(ebpf, name)?;
            loaded(name, program.load())?;
            let descriptor = program.fd().ok().and_then(|fd| next_descriptor(fd.as_fd()));
            let link = program.attach(function, 0).and_then(|id| program.take_link(id)).map_err(refused)?;
            held_by_perf(link, descriptor).map_err(refused)
        }
        Hook::Event(category, event) => {
            let program: &mut TracePoint = program(ebpf, name)?;
            loaded(name, program.load())?;
            let descriptor = program.fd().ok().and_then(|fd| next_descriptor(fd.as_fd()));
            let link = program.attach(category, event).and_then(|id| program.take_link(id)).map_err(refused)?;
            held_by_perf(link, descriptor).map_err(refused)
        }
    }
}

/// What holds a program to a perf event: a link where the kernel has them (Linux 5.15), else the event itself.
fn held_by_perf<L: 'static>(link: L, descriptor: Option<RawFd>) -> Result<Held, ProgramError>
where
    FdLink: TryFrom<L, Error = LinkError>,
{
    if aya::features().bpf_perf_link() {
        let link = FdLink::try_from(link).map_err(|error| ProgramError::IOError(io::Error::other(error)))?;
        return Ok(Held::link(link));
    }
    Ok(Held::perf(Box::new(link), descriptor))
}

/// A program may serve two hooks: then it is loaded by the first.
fn loaded(program: &'static str, outcome: Result<(), ProgramError>) -> Result<(), AttachError> {
    match outcome {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
        Err(source) => Err(AttachError::Load { program, source: Box::new(source) }),
    }
}

fn unload<'a>(ebpf: &mut Ebpf, rungs: impl Iterator<Item = &'a Rung>) {
    for program in rungs.flat_map(|rung| rung.parts).flat_map(|part| part.programs) {
        unload_program(ebpf, program);
    }
}

/// Unloads a program that no link holds; nothing if it is not loaded.
fn unload_program(ebpf: &mut Ebpf, name: &str) {
    // The only refusal is that it is not loaded.
    match ebpf.program_mut(name) {
        Some(Program::RawTracePoint(program)) => program.unload().ok(),
        Some(Program::BtfTracePoint(program)) => program.unload().ok(),
        Some(Program::FEntry(program)) => program.unload().ok(),
        Some(Program::KProbe(program)) => program.unload().ok(),
        Some(Program::TracePoint(program)) => program.unload().ok(),
        _ => None,
    };
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, AttachError>
where
    &'a mut T: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(AttachError::Missing(name))
}
