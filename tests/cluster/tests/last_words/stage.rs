//! What deaths need around them: nodes that live, two controllers, and a third Node that does not die.

use anyhow::{Context as _, Result};
use detector_cluster_tests::{
    Rig,
    controller::{self, Fleet, Replica},
};
use futures_util::future::try_join_all;
use serde_json::json;

use crate::{
    install,
    mortal::{Mortal, revive},
};

/// A stage for deaths.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    controller: controller::Stage,
    replicas: Vec<Replica>,
    /// Only in the API; its Lease is renewed always: who sees no fresh Lease at all takes himself for blind.
    other: Fleet,
}

impl Stage {
    /// Has all nodes alive, and two controllers that may do all there is to be done.
    pub(crate) async fn set(purpose: &str) -> Result<Self> {
        let rig = alive().await?;
        let controller = controller::Stage::set(purpose, controller::policy(&json!({}))).await?;
        let mut replicas = Vec::new();
        for ports in install::ports()? {
            replicas.push(controller.spawn_at(ports)?);
        }
        for replica in &mut replicas {
            replica.ready().await?;
        }
        let other = Fleet::make(&rig, "other", 1).await?;
        Ok(Self { rig, controller, replicas, other })
    }

    /// A node that is going to die.
    pub(crate) async fn mortal(&self, single_process_oom_kill: bool) -> Result<Mortal> {
        Mortal::of(&self.rig, single_process_oom_kill).await
    }

    /// Ends the controllers, and removes what they and the test left in the cluster.
    pub(crate) async fn clear(self) -> Result<()> {
        for replica in self.replicas {
            replica.stop().await?;
        }
        self.controller.clear(self.other).await
    }
}

/// The rig with all nodes alive, and what has their kernels speak.
pub(crate) async fn alive() -> Result<Rig> {
    let rig = Rig::connect().await?;
    let revived = rig
        .nodes()
        .into_iter()
        .map(|node| async move { revive(&node).await.with_context(|| format!("have {} back", node.name())) });
    try_join_all(revived).await?;
    install::once(&rig).await?;
    Ok(rig)
}
