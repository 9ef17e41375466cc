//! Kernels that die, of one thing after the other, with the agent on them: the last words on the serial console and in
//! netconsole's datagrams, read as the controller reads them, must be those of the table in `docs/last-words.md`. The guest is
//! `tests/vm/src/last_words`; it says beforehand who will be the culprit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    abreast, image,
    kernels::Kernel,
    netconsole::{self, Dying, Heard},
};
use crate::test::Outcome;

/// Name of the case on the command line.
pub(super) const NAME: &str = "last-words";

/// Kernels: before and after what the oldest ones do differently.
pub(super) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// What a kernel dies of.
struct Class {
    name: &'static str,
    /// How `panic` puts it.
    panic: &'static str,
    /// Kernel that dies of it where one is enough.
    series: &'static str,
}

const CLASSES: [Class; 5] = [
    Class { name: "sysrq", panic: "sysrq triggered crash", series: "6.12" },
    Class { name: "oops", panic: "Fatal exception", series: "6.1" },
    Class { name: "hung", panic: "hung_task: blocked tasks", series: "6.12" },
    // The one that asks most of the verifier, and the older one is the stricter.
    Class { name: "oom", panic: "Out of memory: compulsory panic_on_oom is enabled", series: "6.1" },
    Class { name: "init", panic: "Attempted to kill init!", series: "6.12" },
];

/// One card, to the host.
const DEVICES: &[&str] = &["-netdev", "user,id=host", "-device", "virtio-net-pci,netdev=host,romfile="];

/// What the guest says that must be said.
const EXPECT: &str = "EXPECT ";

/// What a kernel that is to boot again says last.
const END: &str = "Rebooting in ";

/// Boots until all that the kernel said came over the network, too. Once a packet finds the card's queue locked for a tick,
/// netpoll keeps it and all behind it for later (`__netpoll_send_skb`, `net/core/netpoll.c`), and for a kernel in panic there
/// is no later. A busy host that stops the guest's other processor has just that effect.
const BOOTS: u32 = 3;

/// Files for a guest: name in the guest, file of the host.
type Files = Vec<(String, PathBuf)>;

/// Has each of `kernels` die of everything, or, with `once`, of everything one of them.
pub(super) fn run(cache: &Path, kernels: Vec<Kernel>, once: bool) -> Result<Outcome> {
    let (detector, reader) = (crate::build::detector()?, crate::build::reader()?);
    let disk = image::make_disk(cache)?;
    let files = [("init", image::build_guest("guest")?), ("detector", detector), ("ext4.img", disk)];
    let mut jobs = Vec::new();
    for kernel in kernels {
        let files = netconsole::with_modules(cache, &kernel, &files)?;
        let classes = CLASSES.iter().filter(|class| !once || class.series == kernel.series);
        jobs.extend(classes.map(|class| (kernel.clone(), files.clone(), class)));
    }
    let judged = abreast::each(jobs, |(kernel, files, class): (Kernel, Files, &Class)| {
        let start = Instant::now();
        let judged = judge(cache, &kernel, &files, &reader, class);
        let seconds = start.elapsed().as_secs_f64();
        match &judged {
            Ok(said) => println!("vm: {NAME} {} {} ok in {seconds:.0} s: {said}", kernel.series, class.name),
            Err(cause) => println!("vm: {NAME} {} {} FAIL in {seconds:.0} s: {cause:#}", kernel.series, class.name),
        }
        judged.is_ok()
    });
    let passed = judged.iter().filter(|good| **good).count() as u32;
    Ok(Outcome { passed, failed: judged.len() as u32 - passed, skipped: 0 })
}

/// Boots one kernel to its end; its last words.
fn judge(cache: &Path, kernel: &Kernel, files: &Files, reader: &Path, class: &Class) -> Result<String> {
    let stem = cache.join(format!("{NAME}-{}-{}", kernel.series, class.name));
    let parameters = format!("detector.guest=1 detector.last_words={}", class.name);
    let dying = Dying { kernel, files, stem: &stem, parameters: &parameters, devices: DEVICES };
    let mut heard = netconsole::booted(&dying)?;
    let written = stem.with_added_extension("console");
    for _ in 1..BOOTS {
        if !is_cut_short(&heard) {
            break;
        }
        // What the kernel said must be right: only that it did not come may be the network's fault.
        hold(reader, "console", &written, class, &heard)?;
        let (name, count) = (class.name, heard.datagrams.len());
        println!("vm: {NAME} {} {name}: netpoll kept all behind datagram {count}; boots again", kernel.series);
        heard = netconsole::booted(&dying)?;
    }
    let recording = stem.with_added_extension("datagrams");
    fs::write(&recording, recorded(&heard.datagrams)?).with_context(|| format!("writing {}", recording.display()))?;
    hold(reader, "console", &written, class, &heard)?;
    hold(reader, "datagrams", &recording, class, &heard)
}

/// Holds what is in `file` to what the guest expected, which it gives.
fn hold(reader: &Path, form: &str, file: &Path, class: &Class, heard: &Heard) -> Result<String> {
    let Heard { console, datagrams } = heard;
    let expected = console.lines().find_map(|line| line.split_once(EXPECT)).map(|(_, words)| words.trim_end());
    let expected = expected.with_context(|| {
        format!("the guest expected nothing; the end of its console:\n{}", super::command::tail(console))
    })?;
    let said = read(reader, form, file)?;
    compare(expected, class.panic, &said)
        .with_context(|| format!("{form} of {} datagrams: {said}", datagrams.len()))?;
    Ok(expected.to_owned())
}

/// Whether the network fell silent before the serial console did, in the middle of what it had begun to tell.
fn is_cut_short(heard: &Heard) -> bool {
    let came = |datagram: &Vec<u8>| String::from_utf8_lossy(datagram).contains(END);
    heard.console.contains(END) && !heard.datagrams.is_empty() && !heard.datagrams.iter().any(came)
}

/// Each datagram after its length.
fn recorded(datagrams: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for datagram in datagrams {
        bytes.extend(u16::try_from(datagram.len()).context("a datagram is too long")?.to_le_bytes());
        bytes.extend(datagram);
    }
    Ok(bytes)
}

fn read(reader: &Path, form: &str, file: &Path) -> Result<Value> {
    let output = Command::new(reader).arg(form).arg(file).output().context("reading last words")?;
    ensure!(output.status.success(), "reading last words: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Holds what was said to what the guest expected: `KEY=VALUE`, the last of which, `comm`, may have blanks. A key that is
/// missing must not be said.
fn compare(expected: &str, panic: &str, said: &Value) -> Result<()> {
    let (keys, comm) = expected.split_once(" comm=").context("the guest expects no name")?;
    let heard = said["panic"].as_str().unwrap_or_default();
    ensure!(heard.starts_with(panic), "the kernel should have died of {panic:?}");
    let words = &said["last_words"];
    ensure!(!words.is_null(), "there are no last words");
    let wanted = |key: &str| keys.split(' ').find_map(|word| word.split_once('=').filter(|(name, _)| *name == key));
    for key in ["role", "confidence", "pid", "pod"] {
        let wanted = wanted(key).map(|(_, value)| value.to_owned());
        let told = match &words[key] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        ensure!(told == wanted, "{key} is {told:?}, not {wanted:?}");
    }
    ensure!(words["comm"] == comm, "comm is {}, not {comm:?}", words["comm"]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_class_has_a_kernel_that_dies_of_it_by_default() {
        assert!(CLASSES.iter().all(|class| SERIES.contains(&class.series)));
    }

    fn said(role: &str, pod: Option<&str>) -> Value {
        let words = json!({ "role": role, "confidence": "high", "pid": 7, "pod": pod, "comm": "a b" });
        json!({ "panic": "Fatal exception", "last_words": words })
    }

    #[test]
    fn every_word_is_compared_and_a_missing_one_too() {
        let expected = "role=current confidence=high pid=7 pod=a/b/c comm=a b";
        let good = said("current", Some("a/b/c"));
        assert!(compare(expected, "Fatal", &good).is_ok());
        assert!(compare(expected, "Out of memory", &good).is_err());
        assert!(compare(expected, "Fatal", &said("init", Some("a/b/c"))).is_err());
        assert!(compare(expected, "Fatal", &said("current", None)).is_err());
        assert!(compare("role=current confidence=high pid=7 comm=a b", "Fatal", &good).is_err());
        assert!(compare(expected, "Fatal", &json!({ "panic": "Fatal", "last_words": null })).is_err());
    }

    #[test]
    fn a_network_that_falls_silent_first_is_known_from_one_that_never_spoke() {
        let heard = |console: &str, datagrams: &[&str]| Heard {
            console: console.to_owned(),
            datagrams: datagrams.iter().map(|text| text.as_bytes().to_vec()).collect(),
        };
        let console = "Kernel panic\nRebooting in 5 seconds..\n";
        assert!(is_cut_short(&heard(console, &["0,1,2,-;Kernel panic\n"])));
        assert!(!is_cut_short(&heard(console, &["0,1,2,-;Kernel panic\n", "0,2,3,-;Rebooting in 5 seconds..\n"])));
        assert!(!is_cut_short(&heard(console, &[])));
        assert!(!is_cut_short(&heard("Kernel panic\n", &["0,1,2,-;Kernel panic\n"])));
    }

    #[test]
    fn datagrams_stand_behind_their_length() {
        assert_eq!(recorded(&[b"ab".to_vec(), vec![]]).expect("short"), [2, 0, b'a', b'b', 0, 0]);
    }
}
