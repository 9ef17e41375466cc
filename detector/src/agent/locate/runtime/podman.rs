//! Podman: the lists of containers/storage, `overlay-containers/containers.json` and, for containers that go with their
//! end (`--rm`), `volatile-containers.json` (containers/storage, `containers.go`): `id` and `names`. conmon writes
//! `userdata/pidfile` into the run directory.
//!
//! A rootless container's files lie in its user's home: they are read only for a container in that user's slice, and
//! believed only if they belong to that user.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    LIST_LIMIT, NameError, Names, Wanted,
    crio::{LASTING, RUN},
    name, owned_json, pid, under,
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

pub(super) fn names(root: &Path, wanted: Wanted<'_>) -> Result<Option<Names>, NameError> {
    if let Some(user) = wanted.user {
        let run = under(root, "/run/user").join(user.to_string()).join("containers");
        for home in homes(root, user) {
            if let Some(names) = listed(&[home.join(".local/share/containers/storage")], &run, wanted.id, Some(user))? {
                return Ok(Some(names));
            }
        }
    }
    let run = under(root, RUN);
    listed(&[under(root, LASTING), run.clone()], &run, wanted.id, None)
}

fn listed(storages: &[PathBuf], run: &Path, id: &str, owner: Option<u32>) -> Result<Option<Names>, NameError> {
    for list in storages.iter().flat_map(|storage| LISTS.map(|list| storage.join("overlay-containers").join(list))) {
        let Some(stored) = owned_json::<Vec<Stored>>(&list, LIST_LIMIT, owner)? else { continue };
        let Some(container) = stored.into_iter().find(|container| container.id == id) else { continue };
        return Ok(Some(Names {
            runtime: Some(Runtime::Podman),
            container: name(container.names.into_iter().next()),
            init_pid: pid(&run.join("overlay-containers").join(id).join("userdata/pidfile")),
            ..Names::default()
        }));
    }
    Ok(None)
}

/// Homes that belong to `user`: under `/home`, and root's.
fn homes(root: &Path, user: u32) -> Vec<PathBuf> {
    if user == 0 {
        return vec![under(root, "/root")];
    }
    let Ok(entries) = fs::read_dir(under(root, "/home")) else { return Vec::new() };
    let belongs = |path: &PathBuf| fs::metadata(path).is_ok_and(|about| about.is_dir() && about.uid() == user);
    entries.flatten().take(HOMES).map(|entry| entry.path()).filter(belongs).collect()
}
