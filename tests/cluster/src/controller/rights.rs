//! The controller's service account, its rights and the admission policies that narrow them, as the chart makes them.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{Namespace, Rig};

/// Name of the service account.
pub(super) const ACCOUNT: &str = "detector-controller";

/// Values of the chart with which the controller may do all that a policy can want; `xtask/src/deploy/check.rs` renders them.
const RENDERING: &str = "controller.enabled=true,controller.config.policy.mode=act,controller.config.policy.deletePods=true,\
    controller.config.policy.release=outOfService,controller.config.policy.deleteNode=true.yaml";

/// What the account needs; the rest of the chart is not wanted here.
const KINDS: [&str; 7] = [
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Makes the service account in `namespace`, with the rights that the chart gives it.
pub(super) async fn grant(rig: &Rig, namespace: &Namespace) -> Result<()> {
    rig.apply(&manifests(rig, &namespace.name)?).await.context("grant the controller's rights").map(drop)
}

/// Takes them back.
pub(super) async fn revoke(rig: &Rig, namespace: &str) -> Result<()> {
    rig.delete(&manifests(rig, namespace)?).await.context("take the controller's rights back").map(drop)
}

fn manifests(rig: &Rig, namespace: &str) -> Result<String> {
    let path = rig.facts.renderings.join(RENDERING);
    let chart = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let wanted = wanted(&chart);
    ensure!(!wanted.is_empty(), "{} has nothing of the controller", path.display());
    let moved = wanted.join("\n---\n").replace("namespace: detector\n", &format!("namespace: {namespace}\n"));
    Ok(moved.replace("system:serviceaccount:detector:", &format!("system:serviceaccount:{namespace}:")))
}

/// The objects of the controller that are of use.
fn wanted(chart: &str) -> Vec<String> {
    let is_wanted = |object: &&str| {
        let kind = object.lines().find_map(|line| line.strip_prefix("kind: "));
        let name = object.lines().find_map(|line| line.strip_prefix("  name: "));
        kind.is_some_and(|kind| KINDS.contains(&kind)) && name.is_some_and(|name| name.starts_with(ACCOUNT))
    };
    chart.split("\n---\n").filter(is_wanted).map(|object| format!("{}\n", object.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_account_needs_is_taken() {
        let chart = "kind: ServiceAccount\nmetadata:\n  name: detector-agent\n---\nkind: Deployment\nmetadata:\n  name: \
                     detector-controller\n---\n# Why.\nkind: Role\nmetadata:\n  name: detector-controller\n";
        assert_eq!(wanted(chart), ["# Why.\nkind: Role\nmetadata:\n  name: detector-controller\n"]);
    }
}
