//! Podman: the lists of containers/storage, `<driver>-containers/containers.json` and, for containers that go with their
//! end (`--rm`), `volatile-containers.json` (containers/storage, `containers.go`): `id` and `names`. conmon writes
//! `userdata/pidfile` into the run directory.
//!
//! A rootless container's files lie in its user's home: they are read only for a container in that user's slice, and
//! believed only if they belong to that user.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    Files, LIST_LIMIT, NameError, Names, Wanted,
    crio::{CONTAINERS, LASTING, RUN},
    name, owned_json, pid,
};
use crate::agent::locate::place::Runtime;

const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// Most home directories that are searched for one container.
const HOMES: usize = 64;

#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

pub(super) fn names(files: &Files<'_>, wanted: Wanted<'_>) -> Result<Option<Names>, NameError> {
    if let Some(user) = wanted.user {
        let run = files.path("/run/user").join(user.to_string()).join("containers");
        for home in homes(files, user) {
            let storage = [home.join(".local/share/containers/storage")];
            if let Some(names) = listed(files, &storage, &run, wanted.id, Some(user))? {
                return Ok(Some(names));
            }
        }
    }
    let run = files.path(RUN);
    listed(files, &[files.path(LASTING), run.clone()], &run, wanted.id, None)
}

fn listed(
    files: &Files<'_>,
    storages: &[PathBuf],
    run: &Path,
    id: &str,
    owner: Option<u32>,
) -> Result<Option<Names>, NameError> {
    let directories = storages.iter().flat_map(|storage| CONTAINERS.map(|part| (storage.join(part), part)));
    for (list, part) in directories.flat_map(|(directory, part)| LISTS.map(|list| (directory.join(list), part))) {
        let Some(stored) = owned_json::<Vec<Stored>>(files, &list, LIST_LIMIT, owner)? else { continue };
        let Some(container) = stored.into_iter().find(|container| container.id == id) else { continue };
        return Ok(Some(Names {
            runtime: Some(Runtime::Podman),
            container: name(container.names.into_iter().next()),
            init_pid: pid(files, &run.join(part).join(id).join("userdata/pidfile")),
            ..Names::default()
        }));
    }
    Ok(None)
}

/// Homes that belong to `user`: under `/home`, and root's.
fn homes(files: &Files<'_>, user: u32) -> Vec<PathBuf> {
    if user == 0 {
        return vec![files.path("/root")];
    }
    let homes = files.list(&files.path("/home"), HOMES);
    homes.into_iter().filter(|home| files.is_directory_of(home, user)).collect()
}
