//! What outlives a process: a reader that is killed again and again in a burst of kills tells each once, and the kernel side
//! counts them all.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, ensure};
use detector_provoke::{Limits, scenario};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::run::Rig;

/// Example of `detector` that keeps the kernel side as the agent does.
const KEEPER: &str = "/keeper";

/// Kills of the burst.
const KILLS: usize = 200;

/// Kills that each reader takes at least, before it is killed.
const ROUNDS: [usize; 4] = [1, 9, 3, 14];

/// Whether the host packed the program.
pub(super) fn is_possible() -> bool {
    Path::new(KEEPER).exists()
}

/// By the best methods: links of these are kept everywhere, but for kprobes before Linux 5.15.
pub(super) fn best(rig: &Rig) -> Result<Vec<String>> {
    let (first, ended, id) = burst(rig, "pins-best", &[])?;
    let mut wrong = once(&ended, id, KILLS);
    let counted = ended["counts"].as_array().and_then(|counts| counts.iter().find(|count| count[0][1] == id));
    if counted.is_none_or(|count| count[1] != KILLS) {
        wrong.push(format!("the kernel side counted {}", ended["counts"]));
    }
    let later = start("pins-best", &[])?;
    let programs = |started: &Value| {
        let links = started["attachments"].as_array().cloned().unwrap_or_default();
        let links = links.into_iter().filter(|link| link["lasting"] != "not_keepable");
        links.map(|link| link["id"].clone()).collect::<Vec<_>>()
    };
    if programs(&later.1) != programs(&first) {
        wrong.push(format!("other programs are attached: {} and {first}", later.1));
    }
    stop(later.0)?;
    clean(&mut wrong, "pins-best")?;
    Ok(wrong)
}

/// By classic tracepoints: before Linux 5.15 nothing of them can be kept, and that is told. What is told is told once.
pub(super) fn classic(rig: &Rig) -> Result<Vec<String>> {
    let words = ["oom=tracepoint", "hung_task=tracepoint"];
    let (first, ended, _) = burst(rig, "pins-classic", &words)?;
    let links = first["attachments"].as_array().cloned().unwrap_or_default();
    let of_oom = |link: &&Value| link["detector"] == "oom";
    let kept = links.iter().filter(of_oom).all(|link| link["lasting"] == "kept");
    let told: u64 = all(&ended).iter().sum();
    let mut wrong = Vec::new();
    if kept && told != KILLS as u64 {
        wrong.push(format!("{told} of {KILLS} kills were told"));
    }
    if !kept && !links.iter().filter(of_oom).all(|link| link["lasting"] == "not_keepable") {
        wrong.push(format!("some are kept and some not: {links:?}"));
    }
    if all(&ended).iter().any(|times| *times != 1) {
        wrong.push(format!("told twice: {ended}"));
    }
    println!("GUEST classic tracepoints are kept: {kept}; {told} of {KILLS} told");
    clean(&mut wrong, "pins-classic")?;
    Ok(wrong)
}

/// Kills go on while readers come and are killed. The first reader's first line, the last one's last, the cgroup's id.
fn burst(rig: &Rig, name: &str, words: &[&str]) -> Result<(Value, Value, u64)> {
    fs::create_dir_all(format!("/tmp/{name}"))?;
    let leaf = rig.make(name, Limits::mib(12))?;
    let id = leaf.id()?;
    let (process, first, _output) = start(name, words)?.split();
    println!("GUEST {name} {}", first["methods"]);
    kill(process)?;
    thread::scope(|scope| {
        let readers = scope.spawn(|| {
            for count in ROUNDS {
                let (process, _, mut output) = start(name, words)?.split();
                for _ in 0..count {
                    line(&mut output)?;
                }
                kill(process)?;
            }
            Ok::<_, anyhow::Error>(())
        });
        scenario::burst(&leaf, KILLS, 2)?;
        readers.join().map_err(|_| anyhow::anyhow!("the readers' thread panicked"))?
    })?;
    Ok((first, stop(start(name, words)?.0)?, id))
}

/// A running keeper, its first line, and the rest of its output.
struct Running(Reader, Value);

/// The process and its output.
struct Reader {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn split(self) -> (Child, Value, BufReader<ChildStdout>) {
        (self.0.process, self.1, self.0.output)
    }
}

fn start(name: &str, words: &[&str]) -> Result<Running> {
    let (pins, state) = (format!("/sys/fs/bpf/{name}"), format!("/tmp/{name}"));
    let mut command = Command::new(KEEPER);
    command.args(["run", &pins, &state]).args(words).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = command.spawn().with_context(|| format!("starting {KEEPER}"))?;
    let mut output = BufReader::new(process.stdout.take().context("its output is no pipe")?);
    let started = line(&mut output)?;
    Ok(Running(Reader { process, output }, started))
}

fn line(output: &mut BufReader<ChildStdout>) -> Result<Value> {
    let mut line = String::new();
    ensure!(output.read_line(&mut line)? > 0, "the keeper ended");
    serde_json::from_str(&line).with_context(|| format!("reading line {line}"))
}

fn kill(mut process: Child) -> Result<()> {
    process.kill()?;
    process.wait()?;
    Ok(())
}

/// Ends a keeper as an upgrade does, and gives its last line.
fn stop(mut reader: Reader) -> Result<Value> {
    let pid = i32::try_from(reader.process.id()).ok().and_then(Pid::from_raw).context("the keeper's pid")?;
    kill_process(pid, Signal::TERM).context("sending SIGTERM")?;
    loop {
        let line = line(&mut reader.output)?;
        if line["type"] == "ended" {
            ensure!(reader.process.wait()?.success(), "it failed");
            return Ok(line);
        }
    }
}

/// Complaints unless so many processes were told in the cgroup, each once.
fn once(ended: &Value, cgroup: u64, kills: usize) -> Vec<String> {
    let told = ended["told"][cgroup.to_string()].as_object().cloned().unwrap_or_default();
    let twice: Vec<_> = told.iter().filter(|(_, times)| **times != 1).map(|(pid, _)| pid.clone()).collect();
    let mut wrong = Vec::new();
    if told.len() != kills {
        wrong.push(format!("{} of {kills} processes were told", told.len()));
    }
    if !twice.is_empty() {
        wrong.push(format!("told more than once: {twice:?}"));
    }
    wrong
}

/// How often each process was told, in whatever cgroup.
fn all(ended: &Value) -> Vec<u64> {
    let cgroups = ended["told"].as_object().cloned().unwrap_or_default();
    let processes = cgroups.values().filter_map(Value::as_object).flat_map(|told| told.values().cloned());
    processes.filter_map(|times| times.as_u64()).collect()
}

fn clean(wrong: &mut Vec<String>, name: &str) -> Result<()> {
    let pins = format!("/sys/fs/bpf/{name}");
    let output = Command::new(KEEPER).args(["clean", &pins]).output()?;
    if !output.status.success() || Path::new(&pins).exists() {
        wrong.push(format!("cleaning up: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}
