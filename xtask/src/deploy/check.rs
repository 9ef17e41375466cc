//! Checks of `deploy/` that need no cluster: the chart renders, its schema holds, its alerts pass their tests.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use super::{CHART, MONITORING, helm, path, read, render, values};
use crate::{process, toolchain::prometheus};

/// Values that a user may set, and a line that must come of them.
const ACCEPTED: &[(&str, &str)] = &[
    ("privileged=true", "privileged: true"),
    ("podWatch=true", "resources: [pods]"),
    ("policies=false", "kind: DaemonSet"),
    ("config.log.level=debug", "level: debug"),
    ("config.conditions.enabled=false", "enabled: false"),
    ("hostNetwork=false", "hostNetwork: false"),
    ("apiServer.host=192.0.2.1", "KUBERNETES_SERVICE_HOST"),
    ("listen.address=[::]", "listen: '[::]:20256'"),
    ("maxUnavailable=3", "maxUnavailable: 3"),
    ("criticalPodsQuota=true", "kind: ResourceQuota"),
    ("monitoring.serviceMonitor.enabled=true", "honorLabels: true"),
    ("monitoring.prometheusRule.enabled=true", "alert: NodeOutOfMemory"),
    ("monitoring.dashboards.enabled=true", "detector-dashboard-oom"),
    ("cleanup.enabled=true", "args: [\"cleanup\""),
    ("cleanup.enabled=true,netconsole.enabled=true", "mountPath: /sys/kernel/config"),
    ("controller.enabled=true", "args: [\"controller\""),
    ("controller.enabled=true,policies=false", "kind: PodDisruptionBudget"),
    ("controller.enabled=true,controller.receiver.port=7000", "listen: '[::]:7000'"),
    ("controller.enabled=true,criticalPodsQuota=true", "- system-cluster-critical"),
    // All that a policy may want; tests/cluster/tests/api tries its rights.
    (
        "controller.enabled=true,controller.config.policy.mode=act,controller.config.policy.deletePods=true,\
         controller.config.policy.release=outOfService,controller.config.policy.deleteNode=true",
        "may not taint a node that is Ready",
    ),
    ("controller.enabled=true,controller.config.policy.podReasonKeys={example.org/why}", "'example.org/why'"),
    ("netconsole.enabled=true", "args: [\"netconsole\""),
    ("netconsole.enabled=true,netconsole.privileged=true", "path: /dev/kmsg"),
    ("netconsole.enabled=true,netconsole.loadModule=true", "add: [SYS_MODULE, SYS_ADMIN]"),
    ("netconsole.enabled=true,netconsole.config.receivers.fixed={10.0.0.1:6666}", "- 10.0.0.1:6666"),
    (
        "netconsole.enabled=true,controller.enabled=true,monitoring.serviceMonitor.enabled=true",
        "detector-netconsole-metrics",
    ),
    // Alerts and dashboards know the job by its name, whatever the objects are called.
    ("nameOverride=other,monitoring.serviceMonitor.enabled=true", "app.kubernetes.io/part-of: detector"),
];

/// Settings, and whether a change of them has to replace the pods: the agent takes the others while it runs.
const REPLACES: &[(&str, bool)] = &[
    ("config.log.level=debug", false),
    ("config.events.podBudget.burst=5", false),
    ("config.log.format=text", true),
    ("config.metrics.series=5000", true),
    ("podWatch=true", true),
    ("listen.metricsPort=9999", true),
];

/// Annotation of the pods that changes with these.
const RESTART: &str = "detector.dev/restart-settings: ";

/// Values that the schema must refuse.
const REFUSED: &[&str] = &[
    "privileged=perhaps",
    "nonsense=1",
    "image.pullPolicy=Sometimes",
    "image.digest=sha256:12",
    "listen.healthPort=70000",
    "listen.address=localhost",
    "config.nonsense.a=1",
    "config.locate.podWatch=true",
    "config.metrics.listen=1.2.3.4:5",
    "config.state.pins=/a",
    "capabilities={CAP_BPF}",
    "capabilities={bpf}",
    "maxUnavailable=0%",
    "paths.state=relative",
    "paths.runtimes={/a:b}",
    "seccompProfile.type=None",
    "monitoring.nonsense.enabled=true",
    "controller.config.policy.mode=perhaps",
    "controller.config.policy.release=true",
    "controller.config.metrics.listen=1.2.3.4:5",
    "controller.config.policy.podReasonKeys={it's}",
    "controller.replicas=0",
    "netconsole.config.modules.load=true",
    "netconsole.config.receivers.service.name=a",
];

/// Runs all of them.
pub(crate) fn check() -> Result<()> {
    let text = read(&path(CHART).join("values.yaml"))?;
    values::fits_schema(&text, &read(&path(CHART).join("values.schema.json"))?)?;
    version()?;
    process::capture(helm(&["lint", "--strict", "--quiet"])?.arg(path(CHART)), "lint the chart")?;
    for (set, wanted) in ACCEPTED {
        let rendered = rendered_with(set)?;
        ensure!(rendered.contains(wanted), "render the chart with {set}: there is no `{wanted}`");
    }
    for set in REFUSED {
        ensure!(render(&["--set", set]).is_err(), "the chart takes {set}, which its schema should refuse");
    }
    restarts()?;
    rights()?;
    alerts()
}

fn restarts() -> Result<()> {
    let sum = |words: &[&str]| {
        let rendered = render(words)?;
        let sum = rendered.lines().find_map(|line| line.trim().strip_prefix(RESTART).map(str::to_owned));
        sum.with_context(|| format!("render the chart: no pod has `{RESTART}`"))
    };
    let before = sum(&[])?;
    for (set, replaces) in REPLACES {
        let changed = sum(&["--set", set])? != before;
        ensure!(changed == *replaces, "render the chart with {set}: whether pods are replaced must be {replaces}");
    }
    Ok(())
}

/// Rules of roles that a setting of the policy alone gives: the setting, and the line of the rule's verbs below its resources.
const RIGHTS: &[(&str, &str)] = &[
    ("mode=act", "resources: [nodes]\n    verbs: [patch]"),
    ("mode=act", "resources: [pods/status]\n    verbs: [patch]"),
    ("deletePods=true", "resources: [pods]\n    verbs: [delete]"),
    ("release=forceDelete", "resources: [pods]\n    verbs: [delete]"),
    ("deleteNode=true", "resources: [nodes]\n    verbs: [delete]"),
];

/// Who may not act has no right to; who may has no more than the policy wants.
fn rights() -> Result<()> {
    let rendered = |settings: &[&str]| {
        let policy: String = settings.iter().map(|setting| format!(",controller.config.policy.{setting}")).collect();
        let set = format!("controller.enabled=true{policy}");
        render(&["--show-only", "templates/controller/rbac.yaml", "--set", &set]).with_context(|| format!("with {set}"))
    };
    let (default, act) = (rendered(&[])?, rendered(&["mode=act"])?);
    for (setting, right) in RIGHTS {
        ensure!(!default.contains(right), "render the chart: the controller has `{right}` in dry run");
        ensure!(!rendered(&[setting])?.contains(right) || *setting == "mode=act", "`{right}` is given in dry run");
        ensure!(
            rendered(&["mode=act", setting])?.contains(right),
            "render the chart with {setting}: there is no `{right}`"
        );
        ensure!(!act.contains(right) || *setting == "mode=act", "`{right}` is given without {setting}");
    }
    Ok(())
}

/// Writes the chart's manifests with each set of values that a user may set into `directory`, as `VALUES.yaml`.
pub(crate) fn write_renderings(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    for (set, _) in ACCEPTED {
        let file = directory.join(format!("{}.yaml", set.replace('/', "|")));
        fs::write(&file, rendered_with(set)?).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

fn rendered_with(set: &str) -> Result<String> {
    render(&["--set", set]).with_context(|| format!("with {set}"))
}

/// The chart's version is the program's.
fn version() -> Result<()> {
    let chart = read(&path(CHART).join("Chart.yaml"))?;
    for key in ["version", "appVersion"] {
        let line = format!("{key}: {}", env!("CARGO_PKG_VERSION"));
        ensure!(chart.lines().any(|other| other == line), "compare the chart's version: Chart.yaml lacks `{line}`");
    }
    Ok(())
}

fn alerts() -> Result<()> {
    let promtool = prometheus::ensure_promtool()?;
    for words in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let mut command = Command::new(&promtool);
        process::capture(command.current_dir(path(MONITORING)).args(words), "check the alerts")?;
    }
    let rules = read(&path(MONITORING).join("alerts.yaml"))?;
    let names = alert_names(&rules);
    let runbook = read(&path("docs/runbook.md"))?;
    let tests = read(&path(MONITORING).join("alerts_test.yaml"))?;
    let mut wrong = Vec::new();
    for name in &names {
        if !runbook.lines().any(|line| line == format!("## {name}")) {
            wrong.push(format!("docs/runbook.md has no section `## {name}`"));
        }
        if !tests.contains(&format!("alertname=\"{name}\"")) {
            wrong.push(format!("alerts_test.yaml has no test of {name}"));
        }
    }
    let sections: BTreeSet<_> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    wrong
        .extend(sections.iter().filter(|name| !names.contains(**name)).map(|name| format!("there is no alert {name}")));
    wrong.extend(dashboards()?);
    if !wrong.is_empty() {
        bail!("compare alerts, their tests and the runbook:\n{}", wrong.join("\n"));
    }
    Ok(())
}

fn alert_names(rules: &str) -> BTreeSet<&str> {
    rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect()
}

/// Dashboards that the chart would not have.
fn dashboards() -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let directory = path(MONITORING).join("dashboards");
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let name = entry.context("list the dashboards")?.file_name().to_string_lossy().into_owned();
        let made = format!("{CHART}/files/dashboards/{name}");
        if !super::MADE.iter().any(|(path, _)| *path == made) {
            wrong.push(format!("xtask/src/deploy/mod.rs does not copy {name} into the chart"));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_found_by_their_names() {
        let rules = "groups:\n  - name: a\n    rules:\n      - alert: B\n        expr: up == 0\n      - alert: C\n";
        assert_eq!(alert_names(rules), BTreeSet::from(["B", "C"]));
    }
}
