//! Where container runtimes keep their state, and whether it is there.

use std::{io, path::Path};

use crate::agent::source::small_file::under;

/// A place of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The runtime.
    pub name: &'static str,
    /// What brought it along.
    pub shipped_by: Option<&'static str>,
    /// The directory.
    pub path: &'static str,
    /// Whether it is there.
    pub state: State,
}

/// Whether a directory is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It can be listed.
    Found,
    /// It is there, but this process may not list it.
    Closed,
    /// It is not there.
    Absent,
}

impl State {
    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Closed => "closed",
            Self::Absent => "absent",
        }
    }
}

/// Runtime, what brought it along, directory.
const PLACES: [(&str, Option<&str>, &str); 11] = [
    ("containerd", None, "/run/containerd"),
    ("containerd", Some("k3s"), "/run/k3s/containerd"),
    ("containerd", Some("k0s"), "/run/k0s/containerd"),
    ("containerd", Some("microk8s"), "/var/snap/microk8s/common/run/containerd"),
    ("containerd", Some("docker"), "/run/docker/containerd"),
    ("docker", None, "/var/lib/docker"),
    ("docker", Some("snap"), "/var/snap/docker/common/var-lib-docker"),
    ("cri-o", None, "/run/crio"),
    ("podman", None, "/run/libpod"),
    ("containers-storage", None, "/run/containers/storage"),
    ("containers-storage", None, "/var/lib/containers/storage"),
];

/// Looks at all of them below `root`.
#[must_use]
pub fn find(root: &Path) -> Vec<Place> {
    let look = |(name, shipped_by, path)| Place { name, shipped_by, path, state: state(&under(root, path)) };
    PLACES.map(look).to_vec()
}

fn state(directory: &Path) -> State {
    match directory.read_dir() {
        Ok(_) => State::Found,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => State::Closed,
        Err(_) => State::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_the_rest_absent() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(under(root.path(), "/run/k3s/containerd")).unwrap();
        std::fs::create_dir_all(under(root.path(), "/var/lib")).unwrap();
        std::fs::write(under(root.path(), "/var/lib/docker"), "a file").unwrap();
        let found: Vec<_> = find(root.path()).into_iter().filter(|place| place.state != State::Absent).collect();
        let [k3s] = found[..] else { panic!("{found:?}") };
        assert_eq!((k3s.shipped_by, k3s.state), (Some("k3s"), State::Found));
    }
}
