//! Targets in an imitation of configfs that refuses what the kernel refuses.

use std::cell::RefCell;

use super::*;
use crate::netconsole::plan::{self, Mac, NAMES, Wanted};

/// Directories and attributes, with the rules of `drivers/net/netconsole.c`.
#[derive(Default)]
struct Kernel {
    entries: RefCell<BTreeMap<String, Option<String>>>,
    /// It has `release` and `userdata`.
    new: bool,
    /// Devices that netpoll refuses.
    refused: Vec<&'static str>,
}

impl Kernel {
    fn new() -> Self {
        Self { new: true, ..Self::default() }
    }

    fn get(&self, path: &str) -> Option<String> {
        self.entries.borrow().get(path).cloned().flatten()
    }

    fn is_enabled(&self, target: &str) -> bool {
        self.get(&format!("{target}/enabled")).as_deref() == Some("1")
    }
}

fn refuse<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

impl Tree for &Kernel {
    fn list(&self, path: &str, most: usize) -> io::Result<Vec<String>> {
        let entries = self.entries.borrow();
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        if !path.is_empty() && entries.get(path) != Some(&None) {
            return refuse(libc::ENOENT);
        }
        let inside = entries.iter().filter(|(_, content)| content.is_none());
        let names = inside.filter_map(|(name, _)| name.strip_prefix(&prefix)).filter(|name| !name.contains('/'));
        Ok(names.take(most).map(str::to_owned).collect())
    }

    fn read(&self, path: &str) -> io::Result<String> {
        self.get(path).map_or_else(|| refuse(libc::ENOENT), Ok)
    }

    fn write(&self, path: &str, value: &str) -> io::Result<()> {
        if self.get(path).is_none() {
            return refuse(libc::ENOENT);
        }
        let (target, attribute) = path.split_once('/').expect("an attribute of a target");
        let enabled = self.is_enabled(target);
        if attribute == "enabled" {
            if enabled == (value == "1") {
                return refuse(libc::EINVAL);
            }
            let device = self.get(&format!("{target}/dev_name")).unwrap_or_default();
            if value == "1" && self.refused.contains(&device.as_str()) {
                return refuse(ENOTSUPP);
            }
        } else if enabled && !attribute.starts_with("userdata/") {
            return refuse(libc::EINVAL);
        }
        self.entries.borrow_mut().insert(path.to_owned(), Some(value.to_owned()));
        Ok(())
    }

    fn make(&self, path: &str) -> io::Result<()> {
        let mut entries = self.entries.borrow_mut();
        if entries.contains_key(path) {
            return refuse(libc::EEXIST);
        }
        entries.insert(path.to_owned(), None);
        let mut attribute = |name: &str, value: &str| entries.insert(format!("{path}/{name}"), Some(value.to_owned()));
        if path.contains('/') {
            attribute("value", "");
            return Ok(());
        }
        let defaults = [
            ("enabled", "0"),
            ("extended", "0"),
            ("dev_name", "eth0"),
            ("local_port", "6665"),
            ("remote_port", "6666"),
            ("local_ip", "0.0.0.0"),
            ("remote_ip", "0.0.0.0"),
            ("remote_mac", "ff:ff:ff:ff:ff:ff"),
        ];
        defaults.iter().for_each(|(name, value)| drop(attribute(name, value)));
        if self.new {
            attribute("release", "0");
            entries.insert(format!("{path}/userdata"), None);
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut entries = self.entries.borrow_mut();
        let made_below = format!("{path}/userdata/");
        if entries.keys().any(|name| name.starts_with(&made_below)) {
            return refuse(libc::ENOTEMPTY);
        }
        let below = format!("{path}/");
        if entries.remove(path).is_none() {
            return refuse(libc::ENOENT);
        }
        entries.retain(|name, _| !name.starts_with(&below));
        Ok(())
    }
}

fn me() -> Identity {
    Identity { node: "node-a".into(), boot: "boot".into(), secret: "secret".into() }
}

fn to(receiver: &str, hop: u8) -> Target {
    Target {
        device: "eth0".into(),
        local: if receiver.starts_with('[') { "fd00::5" } else { "10.0.0.5" }.parse().expect("an address"),
        local_port: 6665,
        mac: Mac([2, 0, 0, 0, 0, hop]),
        remote: receiver.parse().expect("an address"),
    }
}

fn wanted(target: Target) -> Wanted {
    Wanted { addresses: vec![target.remote], target: Some(target) }
}

/// Plans and carries out; what failed.
fn settle(kernel: &Kernel, wanted: &[Wanted]) -> Vec<String> {
    let configfs = Configfs::new(kernel);
    let plan = plan::plan(wanted, &configfs.standing().expect("a list"), &me());
    let mut failed = Vec::new();
    configfs.carry_out(&plan, &me(), |_, done| failed.extend(done.err().map(|error| error.to_string())));
    failed
}

#[test]
fn a_target_is_read_as_it_was_made() {
    let kernel = Kernel::new();
    for receiver in ["10.9.0.1:6666", "[fd00::1]:6666"] {
        let (configfs, name) = (Configfs::new(&kernel), Name::ours(NAMES[0]).expect("ours"));
        configfs.make(&name, &to(receiver, 1), &me()).expect("made");
        let standing = configfs.standing().expect("a list");
        assert_eq!(standing.len(), 1);
        assert!(standing[0].enabled && standing[0].sound);
        assert_eq!(standing[0].target, Some(to(receiver, 1)));
        assert!(me().stands_in(standing[0].userdata.as_ref().expect("userdata")));
        configfs.remove(&name).expect("removed");
    }
}

#[test]
fn an_older_kernel_has_neither_release_nor_userdata_and_that_is_no_reason_to_begin_anew() {
    let kernel = Kernel::default();
    assert!(settle(&kernel, &[wanted(to("10.9.0.1:6666", 1))]).is_empty());
    let standing = Configfs::new(&kernel).standing().expect("a list");
    assert!(standing[0].sound && standing[0].userdata.is_none());
    assert!(plan::plan(&[wanted(to("10.9.0.1:6666", 1))], &standing, &me()).is_empty());
}

#[test]
fn a_new_gateway_is_followed_and_targets_of_others_stay() {
    let kernel = Kernel::new();
    for foreign in ["cmdline0", "mine"] {
        (&kernel).make(foreign).expect("made");
        (&kernel).write(&format!("{foreign}/enabled"), "1").expect("enabled");
    }
    let both = |hop| [wanted(to("10.9.0.1:6666", hop)), wanted(to("10.9.0.2:6666", hop))];
    assert!(settle(&kernel, &both(1)).is_empty());
    assert!(settle(&kernel, &both(2)).is_empty());
    let standing = Configfs::new(&kernel).standing().expect("a list");
    assert_eq!(standing.len(), 2);
    assert!(standing.iter().all(|one| one.enabled && one.target.as_ref().is_some_and(|target| target.mac.0[5] == 2)));
    assert!(kernel.is_enabled("cmdline0") && kernel.is_enabled("mine"));
}

#[test]
fn a_device_that_is_refused_costs_no_target_that_works() {
    let mut kernel = Kernel::new();
    assert!(settle(&kernel, &[wanted(to("10.9.0.1:6666", 1))]).is_empty());
    kernel.refused = vec!["veth0"];
    let mut refused = to("10.9.0.1:6666", 1);
    refused.device = "veth0".into();
    let failed = settle(&kernel, &[wanted(refused)]);
    assert!(failed.len() == 1 && failed[0].contains("veth"), "{failed:?}");
    let standing = Configfs::new(&kernel).standing().expect("a list");
    assert_eq!(standing.len(), 1, "what was begun is gone: {standing:?}");
    assert!(standing[0].enabled);
}

#[test]
fn who_we_are_is_corrected_while_the_target_works() {
    let kernel = Kernel::new();
    let target = [wanted(to("10.9.0.1:6666", 1))];
    settle(&kernel, &target);
    (&kernel).write("detector-0a/userdata/detector_boot/value", "the boot before").expect("written");
    assert!(settle(&kernel, &target).is_empty());
    assert_eq!(kernel.get("detector-0a/userdata/detector_boot/value").as_deref(), Some("boot"));
    assert!(kernel.is_enabled("detector-0a"));
}

#[test]
fn cleaning_up_removes_all_of_ours_and_nothing_else() {
    let kernel = Kernel::new();
    (&kernel).make("cmdline0").expect("made");
    settle(&kernel, &[wanted(to("10.9.0.1:6666", 1)), wanted(to("[fd00::1]:6666", 1))]);
    assert_eq!(remove_all(&kernel).expect("removed"), 2);
    assert_eq!((&kernel).list("", 10).expect("a list"), ["cmdline0"]);
}

#[test]
fn without_netconsole_there_is_nothing_to_clean_up() {
    let root = tempfile::tempdir().expect("a directory");
    assert_eq!(remove_all(Directory::at(root.path().join("netconsole"))).expect("nothing to do"), 0);
}

#[test]
fn a_directory_is_listed_without_its_files_and_never_grows_one() {
    let root = tempfile::tempdir().expect("a directory");
    let tree = Directory::at(root.path());
    tree.make("detector-0a").expect("made");
    std::fs::write(root.path().join("file"), "x\n").expect("written");
    assert_eq!(tree.list("", 10).expect("a list"), ["detector-0a"]);
    assert_eq!(tree.read("file").expect("text"), "x");
    assert_eq!(tree.write("detector-0a/enabled", "1").expect_err("no such file").kind(), io::ErrorKind::NotFound);
}
