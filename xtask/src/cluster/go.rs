//! The programs of Kubernetes, compiled once per pinned version: tools of the Go module in `tests/cluster/control-plane`.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    process,
    toolchain::debian,
    vm::{apt::Apt, qemu},
    workspace,
};

/// The module that pins the versions.
const MODULE: &str = "tests/cluster/control-plane";

/// What a rig needs, the server that others wait for first.
const TOOLS: [&str; 5] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet"];

/// Oldest Go that can fetch the version that the module names by itself (`GOTOOLCHAIN`, Go 1.21).
const OLDEST_GO: (u32, u32) = (1, 21);

/// Places of Go outside of `PATH`, newest first.
const PLACES: [&str; 3] = ["/usr/local/go/bin/go", "/usr/lib/go/bin/go", "/usr/lib/go-1.24/bin/go"];

/// The build is long and others want the processors too.
const NICENESS: &str = "10";

/// One build at a time in this process: `cargo xtask test` begins it before the level that needs it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// Path of a program of Kubernetes, such as `kubectl`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Makes sure of all programs; builds those that the cache lacks.
pub(crate) fn ensure_tools() -> Result<Tools> {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let tools = Tools { directory: workspace::cache()?.join(format!("control-plane-{}", pinned()?)) };
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| !tools.path(tool).is_file()).collect();
    if missing.is_empty() {
        return Ok(tools);
    }
    fs::create_dir_all(&tools.directory).with_context(|| format!("make {}", tools.directory.display()))?;
    let go = ensure_go()?;
    let version = kubernetes_version(&read(&module().join("go.mod"))?)?;
    for tool in missing {
        build(&go, tool, &version, &tools.directory)?;
    }
    Ok(tools)
}

/// Builds one program. It gets its name only when it is whole.
fn build(go: &Path, tool: &str, version: &str, directory: &Path) -> Result<()> {
    let unfinished = directory.join(format!("{tool}.unfinished"));
    let mut command = Command::new("nice");
    command.args(["-n", NICENESS]).arg(go).current_dir(module());
    command.env("CGO_ENABLED", "0").env("GOFLAGS", "-trimpath").env("GOTOOLCHAIN", "auto");
    let flags = format!("-ldflags=-s -w -X k8s.io/component-base/version.gitVersion={version}");
    command.args(["build", &flags, "-o"]).arg(&unfinished).arg(format!("k8s.io/kubernetes/cmd/{tool}"));
    process::long(&mut command, &format!("build {tool} {version}"), "4 minutes for the first, less for the others")?;
    fs::rename(&unfinished, directory.join(tool)).with_context(|| format!("put {tool} into the cache"))
}

fn module() -> PathBuf {
    workspace::root().join(MODULE)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Name of what is pinned: other versions get another directory of the cache.
fn pinned() -> Result<String> {
    let content = read(&module().join("go.mod"))? + &read(&module().join("go.sum"))?;
    let mut child = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("start sha256sum")?;
    child.stdin.take().context("write to sha256sum")?.write_all(content.as_bytes()).context("write to sha256sum")?;
    let output = child.wait_with_output().context("read from sha256sum")?;
    let sum = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && sum.len() > 16, "sha256sum of {MODULE} gave {sum:?}");
    Ok(sum[..16].to_owned())
}

/// The version of the line `k8s.io/kubernetes vX` of a go.mod.
fn kubernetes_version(go_mod: &str) -> Result<String> {
    let line = go_mod
        .lines()
        .map(|line| line.trim().trim_start_matches("require "))
        .find_map(|line| line.strip_prefix("k8s.io/kubernetes ").and_then(|rest| rest.split_whitespace().next()));
    line.map(str::to_owned).with_context(|| format!("{MODULE}/go.mod requires no k8s.io/kubernetes"))
}

/// A Go that is new enough; Debian's from backports if there is none.
fn ensure_go() -> Result<PathBuf> {
    if let Some(go) = find_go() {
        return Ok(go);
    }
    if !debian::is_debian() {
        bail!("build the control plane: there is no Go {}.{} or newer; install it", OLDEST_GO.0, OLDEST_GO.1);
    }
    let codename = qemu::codename_here()?;
    process::say(format_args!("install Go of {codename} or its backports (usually a minute)"));
    let (security, backports) = (format!("{codename}-security"), format!("{codename}-backports"));
    let apt = Apt::configure(&workspace::cache()?.join("vm/apt-go"), &[&codename, &security, &backports])?;
    apt.update()?;
    for package in ["golang-go", "git"] {
        apt.install(package, &backports).with_context(|| format!("install {package}"))?;
    }
    find_go().context("install Go: the package is there, but no Go that is new enough was found")
}

fn find_go() -> Option<PathBuf> {
    let places = process::find("go").into_iter().chain(PLACES.map(PathBuf::from));
    places.into_iter().find(|go| go_version(go).is_some_and(|version| version >= OLDEST_GO))
}

fn go_version(go: &Path) -> Option<(u32, u32)> {
    // `local`: what is installed is asked, not what it would fetch.
    let output = Command::new(go).arg("version").env("GOTOOLCHAIN", "local").output().ok()?;
    parse_go_version(&String::from_utf8_lossy(&output.stdout))
}

/// `go version go1.26.8 linux/amd64`
fn parse_go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("go version go")?.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_kubernetes_comes_from_the_module() {
        let go_mod = "module x\n\nrequire (\n\tk8s.io/kube-proxy v0.36.1 // indirect\n\tk8s.io/kubernetes v1.36.1\n)\n";
        assert_eq!(kubernetes_version(go_mod).unwrap(), "v1.36.1");
        assert!(kubernetes_version("module x\n").is_err());
    }

    #[test]
    fn an_old_go_is_known_by_its_version() {
        assert_eq!(parse_go_version("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert!(parse_go_version("go version go1.19 linux/amd64").unwrap() < OLDEST_GO);
        assert_eq!(parse_go_version("gccgo"), None);
    }
}
