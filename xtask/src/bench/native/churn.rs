//! Makes and removes memory cgroups at a steady rate, as a busy machine does.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

/// Cgroup in which all others are made.
const PARENT: &str = "detector-bench-churn";

/// A running churn.
pub(super) struct Churn {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: JoinHandle<Result<u64>>,
}

impl Churn {
    /// Starts it, with `rate` cgroups per second, if the kernel can.
    pub(super) fn start(rate: u32) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
        let parent = memory_mount(&mounts).context("find the mount of the memory cgroups")?.join(PARENT);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, counted) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
        let made = Arc::clone(&counted);
        let thread = thread::spawn(move || turn(&parent, Duration::from_secs(1) / rate, &stopped, &counted));
        Ok(Self { stop, made, thread })
    }

    /// Waits until so many were made, or it failed.
    pub(super) fn wait_for(&self, count: u64) {
        while self.made.load(Ordering::Relaxed) < count && !self.thread.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it; how many cgroups were made and removed.
    pub(super) fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the thread that makes cgroups panicked"))?
    }
}

fn turn(parent: &PathBuf, interval: Duration, stop: &AtomicBool, told: &AtomicU64) -> Result<u64> {
    fs::create_dir(parent).with_context(|| format!("make {}", parent.display()))?;
    let (mut made, start) = (0, Instant::now());
    let outcome = loop {
        if stop.load(Ordering::Relaxed) {
            break Ok(made);
        }
        let child = parent.join(format!("leaf-{made}"));
        if let Err(cause) = fs::create_dir(&child).and_then(|()| fs::remove_dir(&child)) {
            break Err(cause).with_context(|| format!("make and remove {}", child.display()));
        }
        made += 1;
        told.store(made, Ordering::Relaxed);
        let due = interval.mul_f64(made as f64);
        thread::sleep(due.saturating_sub(start.elapsed()));
    };
    fs::remove_dir(parent).with_context(|| format!("remove {}", parent.display()))?;
    outcome
}

/// Where memory cgroups are: the hierarchy of cgroup v1 that has them, else that of cgroup v2.
fn memory_mount(mounts: &str) -> Option<PathBuf> {
    let lines = || mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let v1 = |line: &Vec<&str>| {
        line.get(2) == Some(&"cgroup") && line.get(3).is_some_and(|o| o.split(',').any(|o| o == "memory"))
    };
    let v2 = |line: &Vec<&str>| line.get(2) == Some(&"cgroup2");
    lines().find(v1).or_else(|| lines().find(v2)).and_then(|line| Some(PathBuf::from(line.get(1)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_with_the_memory_controller_comes_before_an_empty_unified_one() {
        let v2 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let v1 = "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n";
        assert_eq!(memory_mount(&format!("{v2}{v1}")), Some(PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!(memory_mount(v2), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(memory_mount("tmpfs /tmp tmpfs rw 0 0\n"), None);
    }
}
