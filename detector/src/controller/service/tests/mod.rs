//! The service on a small cluster: what it does, in which order, and that a replica that is killed anywhere changes nothing.

mod brake;
mod killed;
mod merge;
mod orders;
mod trouble;
mod world;

use std::time::Duration;

use tokio::{
    task::LocalSet,
    time::{Instant, sleep, timeout},
};

use self::world::{SEALED, World};
use super::*;
use crate::{
    cluster::fake_server::{BEGIN, moments, now},
    contract::{
        incident::{Cause, Confidence},
        problem::NODE_LOST,
    },
    controller::{
        decode::Findings,
        incident::{Evidence, Fact},
        remediation::{Policy, Release},
    },
};

/// A test with a world of its own; time goes by only while nothing is to do.
fn run<F: Future>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async { test().await });
}

/// One replica.
struct Replica {
    service: Service,
    begun: Instant,
}

impl Replica {
    fn start(world: &World, name: &str, begun: Instant, policy: Policy) -> Self {
        let config = ControllerConfig { policy, ..ControllerConfig::default() };
        let setup = Setup {
            client: world.server.client(),
            config,
            replica: name.to_owned(),
            namespace: "detector".to_owned(),
            moments: moments_since(begun),
        };
        Self { service: Service::start(setup, None), begun }
    }

    /// The kernel of `node` told its panic.
    fn hears(&self, node: &str, author: Confidence) {
        self.hears_of(node, &format!("boot-{node}"), author);
    }

    /// The boot `boot` of it did.
    fn hears_of(&self, node: &str, boot: &str, author: Confidence) {
        let findings =
            Findings { panic: Some("Fatal exception".to_owned()), cause: Some(Cause::Oops), ..Findings::default() };
        let log = "Kernel panic - not syncing: Fatal exception\n".to_owned();
        self.service.core.tell(Evidence {
            node: node.to_owned(),
            at: Timestamp::from_second(second(self.begun)).unwrap(),
            boot_id: Some(boot.to_owned()).filter(|_| author >= Confidence::Medium),
            fact: Fact::Spoke { findings, author, log, lines_missing: 0 },
        });
    }
}

use jiff::Timestamp;

fn moments_since(begun: Instant) -> Moments {
    let clock = moments();
    let offset = begun.elapsed();
    Arc::new(move || {
        let moment = clock();
        Moment {
            monotonic: moment.monotonic + offset,
            boot: moment.boot + offset,
            wall: moment.wall.checked_add(offset).unwrap(),
        }
    })
}

/// Seconds after 1970 by the clock of the test.
fn second(since: Instant) -> i64 {
    BEGIN + since.elapsed().as_secs().cast_signed()
}

/// Waits until `is` holds, for at most `seconds` of the test's clock.
async fn until(seconds: u64, what: &str, is: impl Fn() -> bool) {
    let waited = timeout(Duration::from_secs(seconds), async {
        while !is() {
            sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

fn acting() -> Policy {
    Policy { act: true, delete_pods: true, fail_pods: true, release: Release::ForceDelete, ..Policy::default() }
}

fn cluster() -> World {
    let world = World::new(&["node-a", "node-b", "node-c"]);
    world.pod("node-a", "shop", "web-1", "ReplicaSet");
    world.pod("node-a", "shop", "db-0", "StatefulSet");
    world.pod("node-a", "kube-system", "log-1", "DaemonSet");
    world.pod("node-b", "shop", "web-2", "ReplicaSet");
    world
}

fn step(kind: &str, state: &str) -> (String, String) {
    (kind.to_owned(), state.to_owned())
}

#[test]
fn in_dry_run_a_panic_that_was_heard_is_an_incident_and_everything_else_is_only_told() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, Policy::default());
        world.kill("node-a", second(begun));
        replica.hears("node-a", Confidence::Medium);
        until(60, "told", || world.steps() == [step("Cordon", "Told"), step("Annotate", "Told")]).await;
        let incidents = world.incidents();
        assert_eq!(incidents.len(), 1);
        let status = &incidents[0]["status"];
        assert_eq!((&status["cause"], &status["podCount"]), (&"Oops".into(), &3.into()), "{status}");
        assert!(status["evidence"].as_array().unwrap().iter().any(|entry| entry["id"] == "one/Panic"));
        assert_eq!(world.effects(), [""; 0]);
    });
}

#[test]
fn in_act_mode_steps_follow_the_evidence_in_their_order() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        replica.hears("node-a", Confidence::Medium);
        until(15, "reasons", || world.steps() == [step("Cordon", "Done"), step("Annotate", "Done")]).await;
        until(60, "deletions", || world.steps().contains(&step("DeletePods", "Done"))).await;
        sleep(Duration::from_secs(30)).await;
        assert!(!world.steps().iter().any(|(kind, _)| kind == "FailPods"), "the control plane has not given it up");
        world.ready("node-a", "Unknown");
        until(60, "all", || world.steps().contains(&step("ForceDeletePods", "Done"))).await;
        let effects = world.effects();
        let first = |what: &str| effects.iter().position(|effect| effect.starts_with(what)).expect("an effect");
        assert!(first("cordon") < first("annotate web-1"), "{effects:?}");
        assert!(first("annotate web-1") < first("delete web-1"), "{effects:?}");
        assert!(first("delete web-1") < first("phase web-1"), "{effects:?}");
        assert!(first("phase web-1") < first("remove web-1"), "{effects:?}");
        assert!(!effects.iter().any(|effect| effect.contains("delete log-1") || effect.contains("remove log-1")));
        assert!(!effects.iter().any(|effect| effect.contains("web-2")));
        let conditions = world.node("node-a")["status"]["conditions"].clone();
        until(10, "conditions", || world.node("node-a")["status"]["conditions"][1]["status"] == "Unknown").await;
        assert_eq!(world.node("node-a")["status"]["conditions"][1]["reason"], NODE_LOST, "{conditions}");
    });
}

#[test]
fn who_sees_no_fresh_lease_at_all_opens_no_incident() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let _replica = Replica::start(&world, "one", begun, acting());
        for node in ["node-a", "node-b", "node-c"] {
            world.kill(node, second(begun));
        }
        world.ready("node-a", "Unknown");
        sleep(Duration::from_secs(180)).await;
        assert!(world.incidents().is_empty());
    });
}

#[test]
fn a_node_that_falls_silent_is_an_incident_with_what_remains_possible_and_nothing_is_deleted() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let _replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        world.ready("node-a", "Unknown");
        until(60, "an incident", || world.steps().contains(&step("Annotate", "Done"))).await;
        sleep(Duration::from_secs(120)).await;
        let status = world.incidents()[0]["status"].clone();
        assert_eq!((&status["cause"], &status["phase"]), (&"Silent".into(), &"Suspected".into()), "{status}");
        assert!(status["possible"].as_array().unwrap().contains(&"Network".into()), "{status}");
        assert!(!world.effects().iter().any(|one| one.starts_with("delete") || one.starts_with("remove")));
        world.revive("node-a", "boot-node-a");
        until(90, "sharpened", || world.incidents()[0]["status"]["cause"] == "Stall").await;
        until(600, "closed", || world.phase() == "Closed").await;
        assert_eq!(world.node("node-a")["spec"]["unschedulable"], serde_json::Value::Bool(false));
    });
}

#[test]
fn a_node_that_comes_back_after_a_reboot_is_held_and_not_finished_off() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        replica.hears("node-a", Confidence::Medium);
        until(60, "deletions", || world.steps().contains(&step("DeletePods", "Done"))).await;
        world.revive("node-a", "boot-2");
        until(60, "taken back", || world.steps().contains(&step("Uncordon", "Done"))).await;
        assert_eq!(world.holds().get("FailPods").map(String::as_str), Some("NodeReturned"), "{:?}", world.holds());
        assert!(!world.effects().iter().any(|one| one.starts_with("phase") || one.starts_with("remove")));
        until(600, "closed", || world.phase() == "Closed").await;
    });
}

#[test]
fn an_incident_whose_last_step_comes_late_is_closed_by_it() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        replica.hears("node-a", Confidence::Medium);
        until(60, "deletions", || world.steps().contains(&step("DeletePods", "Done"))).await;
        world.revive("node-a", "boot-2");
        world.ready("node-a", "False");
        sleep(Duration::from_secs(600)).await;
        assert!(!world.steps().contains(&step("Uncordon", "Done")), "{:?}", world.steps());
        world.ready("node-a", "True");
        until(30, "uncordoned", || world.steps().contains(&step("Uncordon", "Done"))).await;
        until(30, "closed", || world.phase() == "Closed").await;
    });
}

/// A kubelet that starts renews its Lease, and tells its boot with its first status, some seconds later.
#[test]
fn a_node_that_renews_its_lease_before_it_tells_its_boot_refutes_no_panic() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        replica.hears("node-a", Confidence::Medium);
        until(60, "deletions", || world.steps().contains(&step("DeletePods", "Done"))).await;
        world.renews("node-a");
        until(60, "back", || world.phase() == "Returned").await;
        sleep(Duration::from_secs(5)).await;
        assert!(!world.steps().contains(&step("Retract", "Done")), "{:?}", world.steps());
        world.revive("node-a", "boot-2");
        until(600, "closed", || world.phase() == "Closed").await;
        let status = world.incidents()[0]["status"].clone();
        assert_eq!((&status["cause"], world.incidents().len()), (&"Oops".into(), 1), "{status}");
    });
}

/// The first incident is not closed yet, and its node was seen to live.
#[test]
fn a_node_that_panics_again_soon_after_its_reboot_is_no_false_alarm() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        replica.hears("node-a", Confidence::Medium);
        until(60, "deletions", || world.steps().contains(&step("DeletePods", "Done"))).await;
        world.revive("node-a", "boot-2");
        until(60, "taken back", || world.steps().contains(&step("Uncordon", "Done"))).await;
        world.kill("node-a", second(begun));
        replica.hears_of("node-a", "boot-2", Confidence::Medium);
        until(30, "the second", || world.incidents().len() == 2).await;
        sleep(Duration::from_secs(60)).await;
        let all = world.incidents();
        assert_eq!(all.len(), 2);
        let again = all.iter().find(|one| one["spec"]["bootId"] == "boot-2").expect("an incident of the second boot");
        assert_eq!(again["status"]["cause"], "Oops", "{again}");
        let steps = again["status"]["steps"].as_array().expect("steps");
        assert!(steps.iter().any(|one| one["kind"] == "DeletePods" && one["state"] == "Done"), "{again}");
    });
}

#[test]
fn a_node_that_falls_silent_after_its_reboot_is_not_dead_by_the_death_before() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        replica.hears("node-a", Confidence::Medium);
        until(60, "deletions", || world.steps().contains(&step("DeletePods", "Done"))).await;
        world.revive("node-a", "boot-2");
        until(60, "taken back", || world.steps().contains(&step("Uncordon", "Done"))).await;
        world.kill("node-a", second(begun));
        world.ready("node-a", "Unknown");
        until(90, "an incident of its own", || world.incidents().len() == 2).await;
        sleep(Duration::from_secs(120)).await;
        assert!(!world.effects().iter().any(|one| one.starts_with("phase") || one.starts_with("remove")));
        let of_boot = |boot: &str| world.incidents().into_iter().find(|one| one["spec"]["bootId"] == boot);
        let silent = of_boot("boot-2").expect("an incident of the second boot");
        assert_eq!(silent["status"]["cause"], "Silent", "{silent}");
    });
}

#[test]
fn a_forged_panic_of_a_node_that_lives_leads_to_no_step() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, acting());
        until(30, "known", || replica.service.core.complete.get()).await;
        replica.hears("node-a", Confidence::Low);
        until(120, "closed", || world.phase() == "Closed").await;
        assert_eq!(world.incidents()[0]["status"]["cause"], "FalseAlarm");
        assert_eq!((world.steps(), world.effects()), (Vec::new(), Vec::new()));
    });
}

#[test]
fn of_a_hundred_panics_at_once_all_are_told_and_no_more_are_remediated_than_the_budget_allows() {
    run(|| async {
        let names: Vec<String> = (0..100).map(|number| format!("node-{number:03}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let (world, begun) = (World::new(&all), now());
        for name in &all {
            world.pod(name, "shop", &format!("web-{name}"), "ReplicaSet");
        }
        let replica = Replica::start(&world, "one", begun, Policy { act: true, ..Policy::default() });
        until(30, "leads", || replica.service.core.leadership.is_leader() && replica.service.core.complete.get()).await;
        for name in &all {
            replica.hears(name, Confidence::Medium);
        }
        let count = |what: &str| world.effects().iter().filter(|effect| effect.starts_with(what)).count();
        until(60, "reasons on all pods", || count("annotate web-") == 100).await;
        assert_eq!(count("cordon"), 2, "nodes without a zone are one zone");
        let requests = world.server.requests();
        let lists = requests.iter().filter(|one| one.contains("/api/v1/pods?")).count();
        assert!(lists <= 200, "each node's pods are listed once or twice: {lists}");
        let namespaces = requests.iter().filter(|one| one.ends_with("/api/v1/namespaces/shop")).count();
        assert!(namespaces <= 100, "{namespaces}");
    });
}
