//! The parts of the report that are read, not tried.

use super::{fields, verdict::Seen};
use crate::{
    agent::{
        locate::{
            Hierarchy,
            hierarchy::{HierarchyError, Version, View},
        },
        source::{
            bpf::offsets::{Offsets, OffsetsError},
            surroundings::{self, Surroundings, traces::Traces},
        },
    },
    cause::error_chain,
    contract::doctor,
    ops::{
        capability::{Capability, Rights},
        privilege,
    },
};

pub(super) fn kernel(found: &Surroundings, btf: Option<&OffsetsError>) -> doctor::Kernel {
    doctor::Kernel {
        release: found.release.clone(),
        architecture: found.architecture.clone(),
        btf_bytes: found.btf_bytes,
        btf_problem: btf.map(|error| error_chain(error)),
        lockdown: found.lockdown.name(),
        tracefs: found.mounts.tracefs.clone(),
        tracefs_readable: found.mounts.tracefs_readable,
        bpffs: found.mounts.bpffs.clone(),
    }
}

pub(super) fn cgroups(hierarchy: &Result<Hierarchy, HierarchyError>) -> doctor::Cgroups {
    match hierarchy {
        Ok(found) => doctor::Cgroups {
            version: Some(match found.version {
                Version::V1 => "1",
                Version::V2 => "2",
                Version::Hybrid => "hybrid",
            }),
            memory_hierarchy: Some(found.number),
            memory_mount: Some(found.mount.display().to_string()),
            memory_view: Some(match found.view {
                View::Whole => "whole",
                View::Part => "part",
            }),
            problem: None,
        },
        Err(error) => doctor::Cgroups { problem: Some(error_chain(error)), ..doctor::Cgroups::default() },
    }
}

pub(super) fn process(rights: Option<Rights>) -> doctor::Process {
    let user_namespace = match rights.map(Rights::whole_machine) {
        Some(true) => "machine",
        Some(false) => "own",
        None => "unknown",
    };
    doctor::Process { uid: rustix::process::geteuid().as_raw(), user_namespace }
}

pub(super) fn capabilities(rights: Rights) -> Vec<doctor::Capability> {
    let row = |capability: Capability| {
        let line = privilege::of(capability);
        let held_by = rights.held_by(capability);
        doctor::Capability {
            name: capability.name(),
            held: held_by.is_some(),
            held_by: held_by.filter(|by| *by != capability).map(Capability::name),
            need: privilege::need(capability, rights).name(),
            used_for: line.used_for,
            lost_without: line.lost_without,
        }
    };
    Capability::ALL.map(row).to_vec()
}

pub(super) fn settings(seen: &Seen) -> Vec<doctor::Setting> {
    let row = |(name, value): &(&'static str, Option<String>)| doctor::Setting {
        name,
        value: value.clone(),
        effect: seen.effect(name, value.as_deref()),
    };
    seen.surroundings.settings.iter().map(row).collect()
}

pub(super) fn runtimes(found: &Surroundings) -> Vec<doctor::Runtime> {
    let row = |place: &surroundings::runtimes::Place| doctor::Runtime {
        name: place.name,
        shipped_by: place.shipped_by,
        path: place.path,
        state: place.state.name(),
    };
    found.runtimes.iter().map(row).collect()
}

pub(super) fn last_traces(found: &Traces) -> doctor::LastTraces {
    let mut warnings = Vec::new();
    if found.backend.is_none() {
        warnings.push("the kernel has no place that keeps its log over a panic (pstore)".to_owned());
    }
    if found.kdump_loaded == Some(true) && found.notifiers_first != Some(true) {
        let text = "kdump takes over before pstore is written: boot with crash_kexec_post_notifiers=Y for both";
        warnings.push(text.to_owned());
    }
    doctor::LastTraces {
        pstore_backend: found.backend.clone(),
        pstore: found.pstore.name(),
        archive: found.archive.name(),
        crashes: found.crashes.name(),
        kdump_loaded: found.kdump_loaded,
        pstore_before_kdump: found.notifiers_first,
        warnings,
    }
}

pub(super) fn missing_fields(offsets: &Offsets) -> Vec<doctor::MissingField> {
    let row = |name: &'static str, message: String| doctor::MissingField { name, message, lost: fields::loss(name) };
    offsets.missing().map(|(name, error)| row(name, error.to_string())).collect()
}
