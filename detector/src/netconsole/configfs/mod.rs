//! Our targets in configfs: reads them, makes, labels and removes them. Names of others cannot be written here.
//!
//! Attributes change only while a target is disabled; `userdata/` always (`drivers/net/netconsole.c`,
//! `Documentation/networking/netconsole.rst`).

pub mod module;
pub mod tree;

use std::{collections::BTreeMap, io, net::SocketAddr};

use thiserror::Error;

pub use self::tree::{Directory, Tree};
use super::plan::{Identity, Name, Plan, Standing, Target};

/// Targets that are looked at: we make four at the most, others a handful.
pub const MAX_TARGETS: usize = 256;

/// Keys of userdata that are looked at: the kernel takes 16 (`MAX_USERDATA_ITEMS`; 256 in later kernels).
const MAX_KEYS: usize = 256;

/// `ENOTSUPP`, which is the kernel's own and not errno's (`include/linux/errno.h`).
const ENOTSUPP: i32 = 524;

/// What could not be done in configfs.
#[derive(Debug, Error)]
pub enum ConfigfsError {
    /// The list of targets.
    #[error("read the list of netconsole's targets")]
    List(#[source] io::Error),
    /// An attribute.
    #[error("{verb} `{attribute}` of the target {name}")]
    Attribute {
        /// `read` or `set`.
        verb: &'static str,
        /// Its name.
        attribute: String,
        /// Name of the target.
        name: Name,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not send from this device.
    #[error("enable the target {name}: {}", refusal(source))]
    Enable {
        /// Name of the target.
        name: Name,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A directory.
    #[error("{verb} the target {name}")]
    Directory {
        /// `make` or `remove`.
        verb: &'static str,
        /// Name of the target.
        name: Name,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a refusal of `enabled` means (`netpoll_setup`, `net/core/netpoll.c`); the log of the kernel has more.
fn refusal(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(ENOTSUPP) => "the device's driver refuses netpoll, as veth's does since Linux 6.12",
        Some(libc::EBUSY) => "the device is part of another, or used by netpoll already",
        Some(libc::ENODEV) => "there is no such device in this network namespace",
        Some(libc::EDESTADDRREQ) => "the device has no such address",
        _ => "the kernel refuses",
    }
}

/// netconsole's directory.
#[derive(Debug)]
pub struct Configfs<T> {
    tree: T,
}

impl<T: Tree> Configfs<T> {
    /// That which `tree` shows.
    pub const fn new(tree: T) -> Self {
        Self { tree }
    }

    /// The targets of ours that stand, in the order of their names.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn standing(&self) -> Result<Vec<Standing>, ConfigfsError> {
        let names = self.tree.list("", MAX_TARGETS).map_err(ConfigfsError::List)?;
        let mut standing: Vec<_> =
            names.iter().filter_map(|name| Name::ours(name)).map(|name| self.read(name)).collect();
        standing.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(standing)
    }

    /// What cannot be read is not what is wanted.
    fn read(&self, name: Name) -> Standing {
        let attribute = |attribute: &str| self.tree.read(&format!("{name}/{attribute}")).ok();
        let is_set = |text: &str| matches!(text, "1" | "Y" | "y");
        let target = || {
            Some(Target {
                device: attribute("dev_name")?,
                local: attribute("local_ip")?.parse().ok()?,
                local_port: attribute("local_port")?.parse().ok()?,
                mac: attribute("remote_mac")?.parse().ok()?,
                remote: SocketAddr::new(attribute("remote_ip")?.parse().ok()?, attribute("remote_port")?.parse().ok()?),
            })
        };
        let extended = attribute("extended").is_some_and(|text| is_set(&text));
        // Kernels before 6.6 have no such attribute.
        let release = attribute("release").is_none_or(|text| is_set(&text));
        Standing {
            enabled: attribute("enabled").is_some_and(|text| is_set(&text)),
            target: target(),
            sound: extended && release,
            userdata: self.userdata(&name),
            name,
        }
    }

    fn userdata(&self, name: &Name) -> Option<BTreeMap<String, String>> {
        let keys = self.tree.list(&format!("{name}/userdata"), MAX_KEYS).ok()?;
        let value = |key: String| {
            let value = self.tree.read(&format!("{name}/userdata/{key}/value")).ok()?;
            Some((key, value))
        };
        Some(keys.into_iter().filter_map(value).collect())
    }

    /// Makes a target, tells it who we are, and enables it. Leaves nothing if that fails.
    ///
    /// # Errors
    /// As [`ConfigfsError`] tells.
    pub fn make(&self, name: &Name, target: &Target, identity: &Identity) -> Result<(), ConfigfsError> {
        let made = self.configure(name, target, identity);
        if made.is_err() {
            // What is left is not enabled, and removed with the next plan at the latest.
            self.remove(name).ok();
        }
        made
    }

    fn configure(&self, name: &Name, target: &Target, identity: &Identity) -> Result<(), ConfigfsError> {
        let directory = |source| ConfigfsError::Directory { verb: "make", name: name.clone(), source };
        self.tree.make(name.as_str()).map_err(directory)?;
        let Target { device, local, local_port, mac, remote } = target;
        let attributes = [
            ("extended", "1".to_owned()),
            ("dev_name", device.clone()),
            ("local_port", local_port.to_string()),
            ("remote_port", remote.port().to_string()),
            ("local_ip", local.to_string()),
            ("remote_ip", remote.ip().to_string()),
            ("remote_mac", mac.to_string()),
        ];
        for (attribute, value) in &attributes {
            self.set(name, attribute, value)?;
        }
        if self.tree.read(&format!("{name}/release")).is_ok() {
            self.set(name, "release", "1")?;
        }
        self.label(name, identity)?;
        let enable = |source| ConfigfsError::Enable { name: name.clone(), source };
        self.tree.write(&format!("{name}/enabled"), "1").map_err(enable)
    }

    fn set(&self, name: &Name, attribute: &str, value: &str) -> Result<(), ConfigfsError> {
        self.tree.write(&format!("{name}/{attribute}"), value).map_err(|source| ConfigfsError::Attribute {
            verb: "set",
            attribute: attribute.to_owned(),
            name: name.clone(),
            source,
        })
    }

    /// Has each datagram of a target tell who we are, where the kernel can.
    ///
    /// # Errors
    /// As [`ConfigfsError`] tells.
    pub fn label(&self, name: &Name, identity: &Identity) -> Result<(), ConfigfsError> {
        let Some(told) = self.userdata(name) else { return Ok(()) };
        for (key, value) in identity.entries() {
            match told.get(key) {
                Some(told) if told == value => continue,
                Some(_) => {}
                None => match self.tree.make(&format!("{name}/userdata/{key}")) {
                    // A key that has no value yet.
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(ConfigfsError::Attribute {
                            verb: "make",
                            attribute: format!("userdata/{key}"),
                            name: name.clone(),
                            source: error,
                        });
                    }
                    _ => {}
                },
            }
            self.set(name, &format!("userdata/{key}/value"), value)?;
        }
        Ok(())
    }

    /// Removes a target.
    ///
    /// # Errors
    /// If it stays.
    pub fn remove(&self, name: &Name) -> Result<(), ConfigfsError> {
        // Fails if it is disabled, or gone: then the rest tells.
        self.tree.write(&format!("{name}/enabled"), "0").ok();
        for key in self.tree.list(&format!("{name}/userdata"), MAX_KEYS).unwrap_or_default() {
            self.tree.remove(&format!("{name}/userdata/{key}")).ok();
        }
        match self.tree.remove(name.as_str()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ConfigfsError::Directory { verb: "remove", name: name.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Carries a plan out; what was done and what failed is told one by one. Nothing is retired if something could not be
    /// made.
    pub fn carry_out(
        &self,
        plan: &Plan,
        identity: &Identity,
        mut told: impl FnMut(Deed<'_>, Result<(), ConfigfsError>),
    ) {
        for name in &plan.clear {
            told(Deed::Removed(name), self.remove(name));
        }
        for name in &plan.label {
            told(Deed::Labelled(name), self.label(name, identity));
        }
        let mut all_made = true;
        for (name, target) in &plan.make {
            let made = self.make(name, target, identity);
            all_made &= made.is_ok();
            told(Deed::Made(name, target), made);
        }
        for name in plan.retire.iter().filter(|_| all_made) {
            told(Deed::Removed(name), self.remove(name));
        }
    }
}

/// One thing done, or tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed<'a> {
    /// A target was made and enabled.
    Made(&'a Name, &'a Target),
    /// A target was told who we are.
    Labelled(&'a Name),
    /// A target was removed.
    Removed(&'a Name),
}

/// Removes all targets of ours, and tells how many there were. Without netconsole in the kernel there are none.
///
/// # Errors
/// The first failure; the others are tried all the same.
pub fn remove_all(tree: impl Tree) -> Result<usize, ConfigfsError> {
    let configfs = Configfs::new(tree);
    let standing = match configfs.standing() {
        Err(ConfigfsError::List(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        standing => standing?,
    };
    let (mut removed, mut failure) = (0, Ok(()));
    for one in &standing {
        match configfs.remove(&one.name) {
            Ok(()) => removed += 1,
            Err(error) => failure = failure.and(Err(error)),
        }
    }
    failure.map(|()| removed)
}

#[cfg(test)]
mod tests;
