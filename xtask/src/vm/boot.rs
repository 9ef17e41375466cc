//! Runs one guest in QEMU until it powers off, is stuck, or takes too long.

pub(super) mod reboot;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{command::tail, kernels::Kernel, qemu::QEMU};

/// Longest life of a guest.
const DEADLINE: Duration = Duration::from_secs(600);

/// Longest silence on the serial console: more than any case takes.
const SILENCE: Duration = Duration::from_secs(180);

/// Time between two looks at the console.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Memory of a guest in MiB that tests the OOM killer: small, so that filling it is quick.
pub(super) const SMALL_MIB: u32 = 700;

/// What a kernel prints that will not go on.
const STUCK: [&str; 3] =
    ["Kernel panic - not syncing", "rcu: INFO: rcu_sched detected stalls", "watchdog: BUG: soft lockup"];

/// What always goes to the kernel. Level 3 keeps the OOM killer's own report off the slow console.
///
/// `no_timer_check`: at boot the kernel counts ticks of the timer over a moment of its own time, and panics if the busy host
/// let too few of them through.
const COMMAND_LINE: &str = "console=ttyS0 rdinit=/init quiet loglevel=3 panic=-1 no_timer_check";

/// One start of a machine.
pub(super) struct Boot<'a> {
    /// What runs.
    pub(super) kernel: &'a Kernel,
    /// Memory in MiB.
    pub(super) memory: u32,
    /// Its files.
    pub(super) initramfs: &'a Path,
    /// More for the kernel's command line.
    pub(super) parameters: &'a str,
    /// File for what it writes to its serial console.
    pub(super) log: &'a Path,
    /// More arguments of QEMU.
    pub(super) devices: &'a [&'a str],
    /// Whether the guest is to panic at the end.
    pub(super) dies: bool,
}

/// Boots and returns what the guest wrote to its serial console, once the machine has ended.
pub(super) fn run(boot: &Boot<'_>) -> Result<String> {
    let (log, mut machine) = (boot.log, Machine(start(boot)?));
    let signs: &[&str] = if boot.dies { &[] } else { &STUCK };
    let start = Instant::now();
    let (mut size, mut heard) = (0, Instant::now());
    loop {
        let ended = machine.0.try_wait().context("waiting for QEMU")?;
        let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
        if let Some(status) = ended {
            if status.success() {
                return Ok(text);
            }
            bail!("QEMU ended with {status}; the end of {}:\n{}", log.display(), tail(&text));
        }
        if text.len() > size {
            (size, heard) = (text.len(), Instant::now());
        }
        if let Some(reason) = stuck(&text, signs, start.elapsed(), heard.elapsed()) {
            bail!("{reason}; the end of {}:\n{}", log.display(), tail(&text));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// A running QEMU; killed when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// TCG, because hardware help is often missing or broken inside virtual machines; Nehalem, because with newer models TCG
/// spends its time on instructions that no kernel here needs.
fn start(boot: &Boot<'_>) -> Result<Child> {
    let Boot { kernel, memory, initramfs, parameters, log, devices, dies: _ } = boot;
    fs::write(log, "").with_context(|| format!("making {}", log.display()))?;
    Command::new(QEMU)
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "Nehalem",
            "-smp",
            "2",
            "-m",
            &memory.to_string(),
        ])
        .args(["-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults"])
        .args(*devices)
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &format!("{COMMAND_LINE} {parameters}")])
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {QEMU}"))
}

/// Why a machine will not end by itself, if it will not: of the text on its console, its age and its silence.
fn stuck(text: &str, signs: &[&str], age: Duration, silence: Duration) -> Option<String> {
    // A kernel's line begins with its time. Whoever else says this quotes what was found of an earlier boot.
    let of_kernel = |before: &str| before.is_empty() || before.ends_with("] ");
    let says = |sign: &str| text.lines().any(|line| line.split_once(sign).is_some_and(|(before, _)| of_kernel(before)));
    if let Some(signature) = signs.iter().find(|signature| says(signature)) {
        return Some(format!("the guest's kernel says {signature:?}"));
    }
    if silence > SILENCE {
        return Some(format!("the guest has been silent for {SILENCE:?}"));
    }
    (age > DEADLINE).then(|| format!("the guest was still running after {DEADLINE:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_recognised_before_any_deadline() {
        let text = "[    3.1] Kernel panic - not syncing: Attempted to kill init!";
        assert!(stuck(text, &STUCK, Duration::ZERO, Duration::ZERO).is_some_and(|reason| reason.contains("panic")));
    }

    #[test]
    fn an_agent_that_tells_of_an_earlier_panic_is_not_taken_for_one() {
        let panic = "Kernel panic - not syncing: sysrq triggered crash";
        let text = format!("{{\"message\":\"by pstore: {panic}\"}}\nNOTE {{\"message\":\"by pstore: {panic}\"}}\n");
        assert_eq!(stuck(&text, &STUCK, Duration::ZERO, Duration::ZERO), None);
    }

    #[test]
    fn a_silent_guest_is_given_up_earlier_than_a_busy_one() {
        assert_eq!(stuck("CASE a b ok", &STUCK, SILENCE, Duration::ZERO), None);
        assert!(stuck("CASE a b ok", &STUCK, SILENCE, SILENCE + LOOK_INTERVAL).is_some());
        assert!(stuck("CASE a b ok", &STUCK, DEADLINE + LOOK_INTERVAL, Duration::ZERO).is_some());
    }
}
