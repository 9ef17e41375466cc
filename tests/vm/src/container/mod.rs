//! The case `containerd`: a real containerd with its CRI plugin starts a pod as a kubelet asks for one, a container of
//! it overruns its limit, and a watcher must name container and pod.
//!
//! Real are containerd, its shim, runc, the sandbox, the annotations and all files. In place of the kubelet this program
//! makes the pod's cgroup with its limit and speaks CRI ([`cri`]). The pod uses the machine's network, which needs no
//! network plugin.

mod cri;
mod daemon;
mod grpc;
mod judge;
mod watch;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use detector_provoke::{Cgroup, Hierarchy, Limits};

use self::{cri::Cri, daemon::Daemon, judge::Expected, watch::Watch};

/// What the host packs if this case is to run.
const CONTAINERD: &str = "/usr/bin/containerd";

/// The pod, as its creator calls it. The kubelet gives it a limit no smaller than those of its containers.
const POD: cri::Pod<'static> =
    cri::Pod { namespace: "shop", name: "web-7d9c-x2x5k", uid: "0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11" };
const POD_LIMIT: Limits = Limits::mib(96);

/// Limit of each container.
const LIMIT_BYTES: u64 = 32 << 20;

/// Where containerd keeps bundles of containers made through CRI.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

/// Tells the process in a container that it may eat (`bin/contained.rs`).
const CUE: &str = "rootfs/go";

/// How long a step may take; generous, because a guest without hardware help is slow.
const DEADLINE: Duration = Duration::from_secs(60);

/// Time between two looks at something that cannot be waited for otherwise.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Whether the host packed what this case needs.
pub(crate) fn is_possible() -> bool {
    Path::new(CONTAINERD).exists()
}

/// Runs the case; returns complaints about the watcher.
pub(crate) fn run(hierarchy: &Hierarchy) -> Result<Vec<String>> {
    let daemon = Daemon::start(CONTAINERD)?;
    let outcome = with_daemon(hierarchy);
    outcome.with_context(|| format!("containerd's last words: {}", daemon.last_words()))
}

fn with_daemon(hierarchy: &Hierarchy) -> Result<Vec<String>> {
    let mut watch = Watch::start()?;
    let parent = format!("kubepods/burstable/pod{}", POD.uid);
    let pod_cgroup = Cgroup::make(hierarchy, &parent, POD_LIMIT).context("making the pod's cgroup")?;
    let mut cri = Cri::connect()?;
    let sandbox = cri.run_sandbox(&POD, &pod_cgroup.path()).context("running the pod's sandbox")?;

    let mut wrong = Vec::new();
    for (name, role) in [("app", "child"), ("cache", "init")] {
        let id = cri.create(&POD, &pod_cgroup.path(), &sandbox, &cri::Container { name, role, limit: LIMIT_BYTES })?;
        cri.start(&id).with_context(|| format!("starting container {name}"))?;
        let init = init_pid(&id)?;
        // The container that dies as a whole does so at once: its files go, too.
        if role == "child" {
            fs::write(Path::new(BUNDLES).join(&id).join(CUE), "").context("giving the container its cue")?;
        }
        let kill = watch.kill_in(&id)?;
        println!("GUEST {} of {}", kill["victim"]["process"], kill["owner"]);
        let cgroup = format!("{}/{id}", pod_cgroup.path());
        let expected = Expected { name, role, id: &id, init, cgroup: &cgroup, limit: LIMIT_BYTES };
        wrong.extend(judge::kill(&kill, &expected).into_iter().map(|text| format!("{name}: {text}")));
        if role == "init" {
            cri.wait_until_exited(&id)?;
        }
    }
    wrong.extend(judge::rest(&watch.stop()?));
    cri.remove_sandbox(&sandbox).context("removing the pod's sandbox")?;
    pod_cgroup.remove().context("removing the pod's cgroup")?;
    Ok(wrong)
}

/// Pid of the container's first process as the shim wrote it down; `None` where the container is gone already.
fn init_pid(id: &str) -> Result<Option<u64>> {
    match fs::read_to_string(Path::new(BUNDLES).join(id).join("init.pid")) {
        Ok(text) => Ok(Some(text.trim().parse().context("reading init.pid")?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("reading init.pid"),
    }
}
