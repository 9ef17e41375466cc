//! A guest whose kernel dies, of what the host asks for (`detector.last_words=CLASS`), while the agent runs on it. It says
//! beforehand what the kernel's last words must be (`EXPECT role=… confidence=… pid=… pod=… comm=…`); the host reads them on
//! the serial console and from netconsole.

#[path = "../bin/reboot/api.rs"]
#[allow(dead_code, reason = "the guest that boots again asks for more")]
mod api;
mod faulty;
mod machine;

use std::{
    fs,
    io::{BufRead as _, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use detector_provoke::{Ending, Hierarchy, Limits, scenario};

use self::api::Api;
use crate::{init::DISK, kube::Pod};

/// Where the agent serves its metrics.
const METRICS: &str = "127.0.0.1:20257";

/// The container as the agent names it.
const CONTAINER: &str = "shop/cart-0/app";

/// Longest wait for the agent: it attaches its probes on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(180);

/// Longest wait for the end of the world.
const DOOM: Duration = Duration::from_secs(120);

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Memory of the container that runs out, and of the two processes in it: the bigger one rests when the smaller one asks
/// for too much.
const LIMIT_MIB: u64 = 64;
const HOG_MIB: usize = 40;

/// What the kernel is to die of, if the host asks for that.
pub(crate) fn asked() -> Option<String> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix("detector.last_words=").map(str::to_owned))
}

/// What this program is told to be, if it is not process 1: `culprit CGROUP COMM DEED`.
pub(crate) fn culprit(arguments: &[String]) -> Result<()> {
    let [_, cgroup, comm, deed] = arguments else { bail!("{arguments:?}") };
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0").context("going into the container")?;
    fs::write("/proc/self/comm", comm).context("taking a name")?;
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    match deed.as_str() {
        "sysrq" => fs::write("/proc/sysrq-trigger", "c").context("asking for a panic")?,
        "oops" => faulty::run(Path::new("/loop.ko"))?,
        "hog" => {
            let hoard = hoard(HOG_MIB);
            println!("hoarded");
            thread::sleep(DOOM);
            drop(hoard);
        }
        "trigger" => {
            let mut all = Vec::new();
            loop {
                all.push(hoard(1));
            }
        }
        _ => bail!("no such deed: {deed}"),
    }
    Ok(())
}

/// So many MiB that are really there.
fn hoard(mib: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; mib << 20];
    // Not zero, or the pages might be one.
    bytes.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(bytes)
}

/// Has the kernel die of `class`. Returns only if it does not.
pub(crate) fn run(class: &str) -> Result<()> {
    machine::speak_to_the_host().context("setting up netconsole")?;
    machine::raise("lo")?;
    // The last packets need a moment to leave the machine.
    set("panic", "5")?;
    // It answers as long as the machine lives.
    std::mem::forget(Api::start()?);
    let mut agent = start_agent()?;
    let hierarchy = Hierarchy::find()?;
    let none = Limits { bytes: None, group: false };
    let limit = if class == "oom" { Limits::mib(LIMIT_MIB) } else { none };
    let pod = Pod::make(&hierarchy, none, none, limit)?;
    wait_for("detector_probe_attached{probe=\"panic\",method=\"kprobe\"} 1")?;
    // As soon as the agent knows a container's names, it has series and the probe has its line.
    wait_for("container=\"app\"")?;
    let printing = fs::read_to_string("/proc/sys/kernel/ftrace_dump_on_oops")?;
    ensure!(printing.trim() == "2", "the agent did not set kernel.ftrace_dump_on_oops: {printing}");
    println!("GUEST dies of {class}");
    die(class, &pod, &mut agent)?;
    thread::sleep(DOOM);
    bail!("the kernel lives on")
}

fn die(class: &str, pod: &Pod, agent: &mut Child) -> Result<()> {
    match class {
        "sysrq" => {
            if keeps_probes() {
                agent.kill()?;
                agent.wait()?;
            }
            let culprit = Culprit::start(pod, "asker", "sysrq")?;
            expect("sysrq", "high", culprit.0.id(), "asker");
            culprit.go()
        }
        "oops" => {
            set("panic_on_oops", "1")?;
            let culprit = Culprit::start(pod, "fau%lty one", "oops")?;
            expect("current", "high", culprit.0.id(), "fau?lty one");
            culprit.go()
        }
        "hung" => {
            let hanging = scenario::hang(&[(&pod.container, Ending::Runs)], Path::new(DISK))?;
            let task = hanging.tasks().next().context("nobody hangs")?;
            expect("hung-task", "medium", task.pid, task.comm);
            std::mem::forget(hanging);
            set("hung_task_timeout_secs", "2")?;
            set("hung_task_panic", "1")
        }
        "oom" => {
            fs::write("/proc/sys/vm/panic_on_oom", "2").context("setting vm.panic_on_oom")?;
            let mut hog = Culprit::start(pod, "the hog", "hog")?;
            let trigger = Culprit::start(pod, "bystander", "trigger")?;
            expect("oom-domain", "high", hog.0.id(), "the hog");
            hog.go_until("hoarded")?;
            trigger.go()
        }
        "init" => {
            println!("EXPECT role=init confidence=high pid=1 comm=init");
            std::process::exit(7);
        }
        _ => bail!("no such class: {class}"),
    }
}

/// Whether the probe on panic outlives the agent: before Linux 5.15 there are no links of perf events that could be pinned.
fn keeps_probes() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(15))
}

fn expect(role: &str, confidence: &str, pid: u32, comm: &str) {
    println!("EXPECT role={role} confidence={confidence} pid={pid} pod={CONTAINER} comm={comm}");
}

fn set(name: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/kernel/{name}"), value).with_context(|| format!("setting kernel.{name}"))
}

/// A process in the container that waits for a word.
struct Culprit(Child);

impl Culprit {
    fn start(pod: &Pod, comm: &str, deed: &str) -> Result<Self> {
        let cgroup = format!("/sys/fs/cgroup{}", pod.container.path());
        let mut command = Command::new("/proc/self/exe");
        command.args(["culprit", &cgroup, comm, deed]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut culprit = Self(command.spawn().context("starting the culprit")?);
        culprit.hear("ready")?;
        Ok(culprit)
    }

    fn hear(&mut self, word: &str) -> Result<()> {
        let output = self.0.stdout.as_mut().context("it has no output")?;
        let mut heard = vec![0; word.len() + 1];
        output.read_exact(&mut heard).with_context(|| format!("waiting for {word:?} of the culprit"))?;
        ensure!(heard == format!("{word}\n").as_bytes(), "{heard:?}");
        Ok(())
    }

    fn tell(&mut self) -> Result<()> {
        let input = self.0.stdin.as_mut().context("it has no input")?;
        input.write_all(b"go\n").context("telling the culprit to go")
    }

    fn go(mut self) -> Result<()> {
        self.tell()?;
        std::mem::forget(self.0);
        Ok(())
    }

    fn go_until(&mut self, word: &str) -> Result<()> {
        self.tell()?;
        self.hear(word)
    }
}

fn start_agent() -> Result<Child> {
    let settings = format!(
        "lastWords: {{printByKernel: true}}\nstate: {{directory: /tmp/state, boots: disabled}}\n\
         metrics: {{listen: \"{METRICS}\"}}\nhealth: {{listen: disabled}}\n"
    );
    fs::write("/tmp/settings.yaml", settings)?;
    // No certificate at all, in base64: without any of its own the client wants those of the machine, which has none.
    let server = api::ADDRESS;
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{{name: c, cluster: {{server: 'http://{server}', certificate-authority-data: IwoK}}}}]\n\
         users: [{{name: u, user: {{token: t}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
    );
    fs::write("/tmp/kubeconfig", kubeconfig)?;
    let mut command = Command::new("/detector");
    command.args(["agent", "--config", "/tmp/settings.yaml", "--kubeconfig", "/tmp/kubeconfig"]);
    command.args(["--termination-log", "/tmp/termination"]).env("NODE_NAME", "node-a");
    command.stdout(Stdio::null()).spawn().context("starting the agent")
}

/// Waits until the agent's metrics hold these words.
fn wait_for(words: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let page = metrics().unwrap_or_else(|cause| format!("{cause:#}"));
        if page.contains(words) {
            return Ok(());
        }
        let attached = || page.lines().filter(|line| line.contains("probe")).collect::<Vec<_>>().join("; ");
        ensure!(start.elapsed() < PATIENCE, "there is no {words:?} in the agent's metrics: {}", attached());
        thread::sleep(LOOK_INTERVAL);
    }
}

fn metrics() -> Result<String> {
    let mut stream = TcpStream::connect(METRICS)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
