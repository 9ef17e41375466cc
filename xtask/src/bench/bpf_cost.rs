//! What the kernel says that the sensor's BPF programs cost: run time and number of runs, by hook.
//!
//! The kernel counts only while somebody asks it to: `tests/vm/src/bin/count_bpf` does. The counts are in
//! `/proc/PID/fdinfo` of who holds the programs.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::vm;

/// `BPF_TRACE_RAW_TP` (`include/uapi/linux/bpf.h`), as `/proc/PID/fdinfo` prints it.
const BTF_TRACEPOINT: &str = "23";

/// Counting is on as long as this lives.
pub(super) struct Counting(Child);

/// What the programs of one hook used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Nanoseconds of run time.
    pub(super) run_ns: u64,
    /// Runs.
    pub(super) runs: u64,
}

impl Counting {
    /// Switches the kernel's counting on.
    pub(super) fn start() -> Result<Self> {
        let program = vm::program("count_bpf")?;
        let process = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut counting = Self(process.with_context(|| format!("start {}", program.display()))?);
        let output = counting.0.stdout.take().context("count_bpf has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("wait for count_bpf")?;
        ensure!(line.trim_end() == "counting", "have the kernel count the run time of BPF: it refused");
        Ok(counting)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // It ends with its input; waiting fails only if it is gone.
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

/// Costs since each program was loaded, by the name of its hook, of all programs that process `pid` holds.
pub(super) fn of(pid: u32) -> Result<BTreeMap<String, Cost>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut infos = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("read {directory}"))? {
        // A descriptor may be closed meanwhile.
        if let Ok(info) = fs::read_to_string(entry?.path()) {
            infos.push(info);
        }
    }
    Ok(sum(&infos))
}

/// Links tell which hook a program has, programs what they cost; both tell the program's id.
fn sum(infos: &[String]) -> BTreeMap<String, Cost> {
    let number = |info: &str, key| super::vitals::field(info, key).ok();
    let hooks: HashMap<u64, String> = infos
        .iter()
        .filter(|info| info.contains("link_type:"))
        .filter_map(|info| Some((number(info, "prog_id:")?, hook(info))))
        .collect();
    let mut costs = BTreeMap::new();
    for info in infos {
        let cost = || {
            let id = number(info, "prog_id:")?;
            Some((hooks.get(&id)?, number(info, "run_time_ns:")?, number(info, "run_cnt:")?))
        };
        if let Some((hook, run_ns, runs)) = cost() {
            let sum: &mut Cost = costs.entry(hook.clone()).or_default();
            sum.run_ns += run_ns;
            sum.runs += runs;
        }
    }
    costs
}

/// The tracepoint's name, else what the kind of link is used for here.
fn hook(info: &str) -> String {
    let value = |key| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    match (value("tp_name:"), value("attach_type:")) {
        (Some(tracepoint), _) => tracepoint.to_owned(),
        (None, Some(BTF_TRACEPOINT)) => "sched_process_hang".to_owned(),
        _ => "oom_kill_process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_a_program_go_to_the_hook_of_its_link() {
        let program = "prog_type:\t17\nprog_id:\t361\nrun_time_ns:\t5000\nrun_cnt:\t2\n".to_owned();
        let link = "link_type:\traw_tracepoint\nprog_id:\t361\ntp_name:\tmark_victim\ncookie:\t0\n".to_owned();
        let unattached = "prog_type:\t2\nprog_id:\t359\nrun_time_ns:\t0\nrun_cnt:\t0\n".to_owned();
        let costs = sum(&[program, link, unattached, "pos:\t0\n".to_owned()]);
        assert_eq!(costs, BTreeMap::from([("mark_victim".to_owned(), Cost { run_ns: 5000, runs: 2 })]));
    }
}
