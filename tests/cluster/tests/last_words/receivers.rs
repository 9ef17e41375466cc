//! Receivers that move: kernels follow the EndpointSlices of the real API server, one target after the other, and what has
//! them speak goes on running.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use detector_cluster_tests::{Node, Rig, agent::NAMESPACE, wait};
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::ListParams};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout},
};

use crate::{
    install::{self, HOST_IN_GUESTS, SPREAD},
    stage,
};

/// Until when all kernels have turned, besides the time over which they spread: the news come by a watch, and a look takes less
/// than a second; the guests are slow.
const TURNED: Duration = Duration::from_secs(120);

/// Time between two lines of a kernel that has to be heard: a datagram may get lost.
const SAID_AGAIN: Duration = Duration::from_millis(500);

/// Shows the targets of `detector netconsole` in a guest, one a line: whether it speaks, and to whom.
const TARGETS: &str = "for one in /sys/kernel/config/netconsole/detector-*; do \
    echo $(cat $one/enabled) $(cat $one/remote_ip):$(cat $one/remote_port); done";

#[tokio::test]
async fn kernels_turn_to_other_receivers_when_slices_change_and_nothing_is_restarted() -> Result<()> {
    let rig = stage::alive().await?;
    let [one, other] = install::ports()?.map(|ports| ports.netconsole);
    all_speak_to(&rig, &[one, other], None, wait::POD_PATIENCE).await.context("before")?;
    let before = speakers(&rig).await?;
    let moved = is_followed(&rig, one).await;
    // Who dies in another test speaks to these.
    install::point(&rig, 1, other).await?;
    moved?;
    all_speak_to(&rig, &[one, other], Some(one), SPREAD + TURNED).await.context("when the first are back")?;
    let after = speakers(&rig).await?;
    ensure!(before == after, "pods and their restarts were {before:?} and are {after:?}");
    Ok(())
}

/// The second receiver goes to another port, where the kernels are heard then; and goes for good. The first one keeps its target.
async fn is_followed(rig: &Rig, kept: u16) -> Result<()> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
    let port = receiver.local_addr().context("listen")?.port();
    let begun = Instant::now();
    install::point(rig, 1, port).await?;
    // Nodes died and were cut off before: who watches slices may rest after that for longer than a turn takes.
    all_speak_to(rig, &[kept, port], Some(kept), wait::POD_PATIENCE).await.context("after a slice changed")?;
    println!("all kernels turned to another receiver {:.1} s after its slice", begun.elapsed().as_secs_f64());
    for node in rig.nodes() {
        let line = format!("heard from {} at port {port}", node.name());
        let speaks = async {
            let mut again = tokio::time::interval(SAID_AGAIN);
            loop {
                again.tick().await;
                node.run(&format!("echo '<0>{line}' > /dev/kmsg")).await?;
            }
        };
        let heard = async {
            tokio::select! {
                heard = hears(&receiver, &line) => heard,
                failed = speaks => failed,
            }
        };
        let heard = timeout(TURNED, heard).await;
        heard.with_context(|| format!("{} is not heard at the new port", node.name()))??;
    }
    let begun = Instant::now();
    install::point_nowhere(rig, 1).await?;
    all_speak_to(rig, &[kept], Some(kept), SPREAD + TURNED).await.context("after a slice was deleted")?;
    println!(
        "the target of a receiver that is gone was removed {:.1} s after its slice",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Waits until each kernel speaks to these ports of this machine and to nobody else; at each look it speaks to `kept`, if that is told.
async fn all_speak_to(rig: &Rig, ports: &[u16], kept: Option<u16>, patience: Duration) -> Result<()> {
    let to = |port: &u16| format!("1 {HOST_IN_GUESTS}:{port}");
    let wanted: BTreeSet<_> = ports.iter().map(to).collect();
    let kept = kept.as_ref().map(to);
    let speaks = |node: Node| {
        let (wanted, kept) = (&wanted, &kept);
        async move {
            let mut lost = None;
            let holds = |targets: &str| {
                let now: BTreeSet<_> = targets.lines().map(str::to_owned).collect();
                if kept.as_ref().is_some_and(|kept| !now.contains(kept)) {
                    lost = Some(targets.to_owned());
                }
                now == *wanted
            };
            let what = format!("{} speaks to {wanted:?}", node.name());
            node.wait_for(&what, TARGETS, patience, holds).await?;
            ensure!(lost.is_none(), "{} did not speak to {kept:?} meanwhile: {lost:?}", node.name());
            Ok(())
        }
    };
    try_join_all(rig.nodes().into_iter().map(speaks)).await?;
    Ok(())
}

/// Waits for a datagram with this text.
async fn hears(receiver: &UdpSocket, line: &str) -> Result<()> {
    let mut datagram = [0; 2048];
    loop {
        let length = receiver.recv(&mut datagram).await.context("receive")?;
        if String::from_utf8_lossy(datagram.get(..length).unwrap_or_default()).contains(line) {
            return Ok(());
        }
    }
}

/// Pods that have kernels speak, with the number of their restarts.
async fn speakers(rig: &Rig) -> Result<BTreeSet<(String, i32)>> {
    let own = ListParams::default().labels("app.kubernetes.io/component=netconsole");
    let pods = rig.api::<Pod>(NAMESPACE).list(&own).await.context("list pods")?.items;
    let restarts = |pod: &Pod| {
        let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
        containers.into_iter().flatten().map(|one| one.restart_count).sum()
    };
    let all: BTreeSet<_> = pods.iter().map(|pod| (pod.uid().unwrap_or_default(), restarts(pod))).collect();
    ensure!(all.len() == rig.nodes().len(), "{} pods on {} nodes", all.len(), rig.nodes().len());
    Ok(all)
}
