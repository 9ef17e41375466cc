//! Runs one guest in QEMU until it powers off, is stuck, or takes too long.

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
const STUCK: [&str; 5] = [
    "Kernel panic - not syncing",
    "rcu: INFO: rcu_sched detected stalls",
    "watchdog: BUG: soft lockup",
    "Attempted to kill init",
    "Unable to mount root fs",
];

/// What always goes to the kernel. Level 3 keeps the OOM killer's own report off the slow console.
///
/// `no_timer_check`: at boot the kernel counts ticks of the timer over a moment of its own time, and panics if the busy host
/// let too few of them through.
const COMMAND_LINE: &str = "console=ttyS0 rdinit=/init quiet loglevel=3 panic=-1 no_timer_check";

/// Boots `kernel` with `memory` MiB and returns what it wrote to the serial console, which also stays in the file `log`.
pub(super) fn run(kernel: &Kernel, memory: u32, initramfs: &Path, parameters: &str, log: &Path) -> Result<String> {
    fs::write(log, "").with_context(|| format!("making {}", log.display()))?;
    let mut machine = Machine(start(kernel, memory, initramfs, parameters, log)?);
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
        if let Some(reason) = stuck(&text, start.elapsed(), heard.elapsed()) {
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
fn start(kernel: &Kernel, memory: u32, initramfs: &Path, parameters: &str, log: &Path) -> Result<Child> {
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

fn stuck(text: &str, age: Duration, silence: Duration) -> Option<String> {
    if let Some(signature) = STUCK.iter().find(|signature| text.contains(*signature)) {
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
        assert!(stuck(text, Duration::ZERO, Duration::ZERO).is_some_and(|reason| reason.contains("panic")));
    }

    #[test]
    fn a_silent_guest_is_given_up_earlier_than_a_busy_one() {
        assert_eq!(stuck("CASE a b ok", SILENCE, Duration::ZERO), None);
        assert!(stuck("CASE a b ok", SILENCE, SILENCE + LOOK_INTERVAL).is_some());
        assert!(stuck("CASE a b ok", DEADLINE + LOOK_INTERVAL, Duration::ZERO).is_some());
    }
}
