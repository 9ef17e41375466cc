//! Sees to it that netconsole is there: in the kernel, and visible in configfs.
//!
//! No program is run: an image without a shell has no modprobe, and modules lie on the host. The kernel itself is asked,
//! which then runs the host's modprobe (`/proc/sys/kernel/modprobe`) in the host's own mounts.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
    net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with},
};
use thiserror::Error;

use super::tree::{Directory, NETCONSOLE};

/// Where configfs is mounted.
const CONFIGFS: &str = "/sys/kernel/config";

/// Directory of a module that is there.
const MODULE: &str = "/sys/module/netconsole";

/// Name of the module.
const NAME: &str = "netconsole";

/// Why there is no netconsole to configure.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// The module is not loaded, and must not be.
    #[error(
        "the kernel module netconsole is not loaded: load it on the host (`modprobe netconsole`), or allow it \
         (modules.load: true)"
    )]
    NotLoaded,
    /// It could not be loaded.
    #[error(
        "the kernel module netconsole could not be loaded: this takes CAP_SYS_MODULE, and a kernel that has the module"
    )]
    NotLoadable,
    /// configfs is not there.
    #[error(
        "{CONFIGFS} shows no netconsole: the host's must be mounted there (`mount -t configfs configfs {CONFIGFS}`), and \
         the kernel must be built with CONFIG_NETCONSOLE_DYNAMIC"
    )]
    NotShown,
    /// configfs could not be mounted.
    #[error("mount configfs at {CONFIGFS}, which takes CAP_SYS_ADMIN")]
    Mount(#[source] io::Error),
}

/// netconsole's directory below `root`. Loads the module and mounts configfs only if `may_load`.
///
/// # Errors
/// What is missing, and what to do about it.
pub fn provide(root: &Path, may_load: bool) -> Result<Directory, ModuleError> {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let directory = Directory::at(below(NETCONSOLE));
    if directory.is_there() {
        return Ok(directory);
    }
    if !may_load {
        return Err(if below(MODULE).is_dir() { ModuleError::NotShown } else { ModuleError::NotLoaded });
    }
    if !below(MODULE).is_dir() {
        load();
    }
    if !directory.is_there() && below(MODULE).is_dir() {
        mount_configfs(&below(CONFIGFS))?;
    }
    match directory.is_there() {
        true => Ok(directory),
        false if below(MODULE).is_dir() => Err(ModuleError::NotShown),
        false => Err(ModuleError::NotLoadable),
    }
}

/// Whether the machine seen through `root` has netconsole in its kernel.
#[must_use]
pub fn is_loaded(root: &Path) -> bool {
    root.join(MODULE.trim_start_matches('/')).is_dir()
}

/// Who has CAP_SYS_MODULE and asks for a network device that is not there has the kernel load the module of that name
/// (`dev_load`, `net/core/dev_ioctl.c`): a custom of old that was kept. Whether it worked shows in `/sys/module`.
fn load() {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    // The device does not exist, so that an error is the only answer.
    socket.and_then(|socket| netdevice::name_to_index(socket, NAME)).ok();
}

fn mount_configfs(point: &PathBuf) -> Result<(), ModuleError> {
    match mount("configfs", point, "configfs", MountFlags::empty(), None) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(ModuleError::Mount(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_missing_is_told_apart() {
        let root = tempfile::tempdir().expect("a directory");
        assert!(matches!(provide(root.path(), false), Err(ModuleError::NotLoaded)));
        fs::create_dir_all(root.path().join("sys/module/netconsole")).expect("made");
        assert!(matches!(provide(root.path(), false), Err(ModuleError::NotShown)));
        fs::create_dir_all(root.path().join("sys/kernel/config/netconsole")).expect("made");
        assert!(provide(root.path(), false).is_ok());
    }
}
