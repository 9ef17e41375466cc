//! Dashboards and alerts return data from a real run: a real Prometheus with our rules scrapes real agents, after a real kill
//! of a child. What the agents tell, that is: the controller's are not here.

use std::{fs, net::TcpListener, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use detector_cluster_tests::{Rig, agent::METRICS_PORT, eater, metrics::get};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// Variable with the path of Prometheus, if it is not in `PATH`.
const PROGRAM: &str = "DETECTOR_PROMETHEUS";

/// How long until everything was scraped and evaluated often enough; the rates look back over a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at what Prometheus has.
const LOOK: Duration = Duration::from_millis(500);

/// Series of programs that do not run here, the controller and `detector netconsole`. That the metrics exist, and which values
/// their labels have, is tested where dashboards and alerts meet the contract (`detector/tests/monitoring.rs`).
const OF_OTHERS: [&str; 5] = [
    "detector_controller_",
    "detector_receiver_",
    "detector_netconsole_",
    "job=\"detector-controller\"",
    "job=\"detector-netconsole\"",
];

/// What Grafana puts in the place of its variables.
const VARIABLES: [(&str, &str); 4] =
    [("$__rate_interval", "1m"), ("$__range", "10m"), ("$namespace", ".*"), ("$node", ".*")];

/// A Prometheus with the rules of `deploy/monitoring`. It ends when dropped.
struct Prometheus {
    port: u16,
    _child: Child,
}

impl Prometheus {
    /// Starts it; it scrapes each `(node, port of this machine)` every second. State and log go to `directory`.
    async fn start(directory: &Path, targets: &[(String, u16)]) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let jobs: Vec<_> = targets
            .iter()
            .map(|(node, port)| json!({ "targets": [format!("127.0.0.1:{port}")], "labels": { "node": node } }))
            .collect();
        // JSON is YAML.
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [monitoring()?.join("alerts.yaml")],
            "scrape_configs": [{ "job_name": "detector", "honor_labels": true, "static_configs": jobs }],
        });
        let file = directory.join("prometheus.yaml");
        fs::write(&file, config.to_string()).with_context(|| format!("write {}", file.display()))?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context("find a port")?.port();
        let log = fs::File::create(directory.join("prometheus.log")).context("make Prometheus's log")?;
        let mut command = Command::new(std::env::var_os(PROGRAM).unwrap_or_else(|| "prometheus".into()));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn();
        let child = child.with_context(|| format!("start Prometheus (install it, or name it in {PROGRAM})"))?;
        Ok(Self { port, _child: child })
    }

    /// The samples of an expression, now.
    async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let answer = self.ask(&format!("/api/v1/query?query={}", escaped(expression))).await?;
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// All alerting rules: name, expression, health.
    async fn rules(&self) -> Result<Vec<(String, String, String)>> {
        let answer = self.ask("/api/v1/rules?type=alert").await?;
        let groups = answer["data"]["groups"].as_array().context("no groups of rules")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        Ok(rules.map(|rule| (text(rule, "name"), text(rule, "query"), text(rule, "health"))).collect())
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        let body = get(self.port, path).await?;
        serde_json::from_str(&body).with_context(|| format!("understand Prometheus's answer to {path}"))
    }

    /// Whether an expression returns data.
    async fn has_data(&self, expression: &str) -> Result<bool> {
        Ok(self.query(expression).await?.iter().any(is_number))
    }

    /// Looks again and again until an expression has data.
    async fn wait_for(&self, expression: &str) -> Result<()> {
        let mut again = tokio::time::interval(LOOK);
        let looking = async {
            loop {
                again.tick().await;
                // It does not answer before it has started.
                if self.has_data(expression).await.unwrap_or(false) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.with_context(|| format!("wait until `{expression}` has data"))
    }
}

/// Whether a sample of an answer is data: a quantile over nothing is NaN, and a panel with it is empty.
fn is_number(sample: &Value) -> bool {
    sample["value"][1].as_str().and_then(|text| text.parse::<f64>().ok()).is_some_and(|value| !value.is_nan())
}

/// Characters of a query in a URL.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn monitoring() -> Result<std::path::PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("find the root of the source tree")?;
    Ok(root.join("deploy/monitoring"))
}

/// All expressions of the dashboards, each with where it stands; of a variable, what its values are taken from.
fn of_dashboards() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(monitoring()?.join("dashboards")).context("list the dashboards")? {
        let path = entry.context("list the dashboards")?.path();
        let page: Value =
            serde_json::from_slice(&fs::read(&path)?).with_context(|| format!("read {}", path.display()))?;
        for variable in page["templating"]["list"].as_array().into_iter().flatten() {
            if variable["type"] == "query" {
                let title = format!("{}: variable {}", page["title"], variable["name"]);
                let text = variable["query"]["query"].as_str().with_context(|| format!("{title}: no query"))?;
                found.push((title.clone(), of_variable(text).with_context(|| format!("{title}: `{text}`"))?));
            }
        }
        for panel in page["panels"].as_array().context("a dashboard without panels")? {
            let title = format!("{}: {}", page["title"], panel["title"]);
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text =
                    target["expr"].as_str().with_context(|| format!("{title}: a target without an expression"))?;
                let filled = VARIABLES.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
                found.push((title.clone(), filled));
            }
        }
    }
    Ok(found)
}

/// What has data if a variable (`label_values(SERIES, LABEL)`) has values: series with that label.
fn of_variable(query: &str) -> Option<String> {
    let (series, label) = query.strip_prefix("label_values(")?.strip_suffix(')')?.rsplit_once(',')?;
    let with_label = format!("{}!=\"\"}}", label.trim());
    Some(
        series
            .strip_suffix('}')
            .map_or_else(|| format!("{series}{{{with_label}"), |open| format!("{open},{with_label}")),
    )
}

/// The series that an expression reads: names of metrics with their braces.
fn selectors(expression: &str) -> Vec<String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_name) {
        rest = &rest[start..];
        let end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let braces = if after.starts_with('{') { after.find('}').map_or(0, |at| at + 1) } else { 0 };
        if name.starts_with("detector_") || name == "up" {
            found.push(format!("{name}{}", &after[..braces]));
        }
        rest = &after[braces..];
    }
    found
}

/// Fails and names all that return nothing, until all return data at the same time.
async fn judge(prometheus: &Prometheus) -> Result<()> {
    prometheus.wait_for("detector_container_oom_kills_by_total{process=\"child\"} > 0").await?;
    prometheus.wait_for("ALERTS{alertname=\"ContainerChildOOMKilled\",alertstate=\"firing\"}").await?;
    let mut again = tokio::time::interval(LOOK);
    let mut silent = Vec::new();
    let looking = async {
        loop {
            again.tick().await;
            silent = self::silent(prometheus).await?;
            if silent.is_empty() {
                return Ok(());
            }
        }
    };
    let judged = tokio::time::timeout(PATIENCE, looking).await;
    judged.unwrap_or_else(|_| bail!("these return no data:\n{}", silent.join("\n")))
}

/// All that returns no data now.
async fn silent(prometheus: &Prometheus) -> Result<Vec<String>> {
    let mut silent = Vec::new();
    let of_others = |expression: &str| OF_OTHERS.iter().any(|part| expression.contains(part));
    for (place, expression) in of_dashboards()? {
        if !of_others(&expression)
            && !prometheus.has_data(&expression).await.with_context(|| format!("{place}: `{expression}`"))?
        {
            silent.push(format!("{place}: `{expression}`"));
        }
    }
    let rules = prometheus.rules().await?;
    ensure!(!rules.is_empty(), "Prometheus has no rules");
    for (name, expression, health) in rules {
        if health != "ok" {
            silent.push(format!("alert {name}: its evaluation is {health}"));
        }
        // An alert that does not fire returns nothing; what it reads must be there.
        for selector in selectors(&expression) {
            if !of_others(&selector) && !prometheus.has_data(&selector).await? {
                silent.push(format!("alert {name}: `{selector}`"));
            }
        }
    }
    Ok(silent)
}

#[tokio::test]
async fn dashboards_and_alerts_return_data_from_a_real_run() -> Result<()> {
    let rig = Rig::connect().await?;
    rig.agent().await?;
    let mut targets = Vec::new();
    for node in rig.nodes() {
        targets.push((node.name().to_owned(), node.port(METRICS_PORT)?));
    }
    let node = rig.node_with(true)?;
    let namespace = rig.namespace("monitoring").await?;
    let container = eater::on_cue(&rig, "eats");
    namespace.running_pod("eats", json!({ "nodeName": node.name(), "containers": [container] })).await?;
    let directory = rig.facts.logs.join(&namespace.name);
    let prometheus = Prometheus::start(&directory, &targets).await?;
    // What happens before there are samples raises no rate, and the first evaluation of the rules comes after the first
    // scrape.
    prometheus.wait_for("count_over_time(detector_build_info[1m]) > 5").await?;
    namespace.cue("eats", "eats").await?;
    judge(&prometheus).await
}

#[test]
fn what_an_expression_reads_is_found() {
    let found = selectors("sum by (node) (increase(detector_hung_tasks{class=\"runtime\"}[5m])) > 0 or up == 0");
    assert_eq!(found, ["detector_hung_tasks{class=\"runtime\"}", "up"]);
    assert_eq!(escaped("a b"), "%61%20%62");
    assert_eq!(of_variable("label_values(up, node)").as_deref(), Some("up{node!=\"\"}"));
    assert_eq!(of_variable("label_values(up{a=\"b,c\"}, node)").as_deref(), Some("up{a=\"b,c\",node!=\"\"}"));
}

#[test]
fn a_quantile_over_nothing_is_no_data() {
    assert!(is_number(&json!({ "value": [1795343536.1, "0"] })));
    assert!(!is_number(&json!({ "value": [1795343536.1, "NaN"] })));
}
