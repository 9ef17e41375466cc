//! Slow servers, pods that cannot be written to, people who opt out, and whoever floods it with forged panics.

use super::*;
use crate::controller::remediation::{Budget, take::PROOF_LASTS};

fn count(world: &World, what: &str) -> usize {
    world.effects().iter().filter(|effect| effect.starts_with(what)).count()
}

/// A node with a hundred pods, which is dead, and a server that takes its time to delete.
fn slow(begun: Instant) -> (World, Replica) {
    let world = World::new(&["node-a", "node-b", "node-c"]);
    for number in 0..100 {
        world.pod("node-a", "shop", &format!("web-{number}"), "ReplicaSet");
    }
    world.server.slow_down("DELETE", Duration::from_secs(3));
    let replica = Replica::start(&world, "one", begun, acting());
    world.kill("node-a", second(begun));
    replica.hears("node-a", Confidence::Medium);
    (world, replica)
}

#[test]
fn a_long_step_ends_with_what_was_done_when_the_node_is_back() {
    run(|| async {
        let (world, _replica) = slow(now());
        until(120, "the first deletions", || count(&world, "delete") > 0).await;
        world.revive("node-a", "boot-2");
        sleep(Duration::from_secs(120)).await;
        let deleted = count(&world, "delete");
        assert!(deleted <= 24, "it went on with {deleted} pods of a node that runs again");
    });
}

#[test]
fn a_long_step_is_taken_to_its_end_piece_by_piece() {
    run(|| async {
        let (world, _replica) = slow(now());
        until(300, "deletions", || world.steps().contains(&step("DeletePods", "Done"))).await;
        assert_eq!(count(&world, "delete"), 100);
    });
}

#[test]
fn nothing_is_deleted_on_a_proof_that_took_too_long_to_read() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        replica.hears("node-a", Confidence::Medium);
        until(15, "reasons", || world.steps().contains(&step("Annotate", "Done"))).await;
        world.server.slow_down("GET", PROOF_LASTS + Duration::from_secs(1));
        sleep(Duration::from_secs(120)).await;
        assert_eq!(count(&world, "delete"), 0, "{:?}", world.effects());
        world.server.slow_down("GET", Duration::from_millis(1));
        until(120, "goes on", || count(&world, "delete") > 0).await;
    });
}

#[test]
fn a_pod_that_cannot_be_told_the_reason_is_left_and_keeps_no_other() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        world.lock().broken.insert("web-1".to_owned());
        let replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        world.ready("node-a", "Unknown");
        replica.hears("node-a", Confidence::Medium);
        until(1200, "all", || world.steps().contains(&step("ForceDeletePods", "Done"))).await;
        assert_eq!(count(&world, "remove db-0"), 1);
        assert_eq!(count(&world, "delete web-1") + count(&world, "remove web-1"), 0, "it does not carry the reason");
        let steps = world.incidents()[0]["status"]["steps"].clone();
        let message = steps[1]["message"].as_str().unwrap_or_default();
        assert!(message.contains("1 pod not told the reason: "), "{steps}");
    });
}

fn tainting() -> Policy {
    Policy { release: Release::OutOfService, ..acting() }
}

#[test]
fn a_daemonsets_pod_of_a_namespace_that_opted_out_keeps_no_node_from_being_tainted() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        world.pod("node-a", "alone", "proxy-1", "DaemonSet");
        let replica = Replica::start(&world, "one", begun, tainting());
        world.kill("node-a", second(begun));
        world.ready("node-a", "Unknown");
        replica.hears("node-a", Confidence::Medium);
        until(120, "tainted", || world.steps().contains(&step("TaintOutOfService", "Done"))).await;
    });
}

#[test]
fn any_other_pod_of_it_does_and_is_not_asked_about_all_the_time() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        world.pod("node-a", "alone", "quiet-1", "ReplicaSet");
        let replica = Replica::start(&world, "one", begun, tainting());
        world.kill("node-a", second(begun));
        world.ready("node-a", "Unknown");
        replica.hears("node-a", Confidence::Medium);
        until(120, "held", || world.holds().contains_key("TaintOutOfService")).await;
        assert_eq!(world.holds()["TaintOutOfService"], "Excluded");
        let lists = || world.server.requests().iter().filter(|one| one.contains("/api/v1/pods?")).count();
        let before = lists();
        sleep(Duration::from_secs(1800)).await;
        assert!(lists() - before <= 12, "{}", lists() - before);
        assert_eq!(count(&world, "taint"), 0);
    });
}

#[test]
fn pods_of_a_namespace_that_cannot_be_read_stay_and_the_incident_says_why() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        world.pod("node-a", SEALED, "web-1", "ReplicaSet");
        let replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        replica.hears("node-a", Confidence::Medium);
        until(15, "reasons", || world.steps().contains(&step("Annotate", "Done"))).await;
        sleep(Duration::from_secs(200)).await;
        assert_eq!(count(&world, "delete"), 0, "{:?}", world.effects());
        assert_eq!(world.holds()["DeletePods"], "Unverified");
        let incidents = world.incidents();
        let pods = incidents[0]["status"]["pods"].as_array().expect("pods");
        let sealed = pods.iter().find(|pod| pod["namespace"] == SEALED).expect("the pod");
        assert_eq!(sealed["left"], "its namespace cannot be read");
    });
}

#[test]
fn a_namespace_that_opts_out_at_the_last_moment_is_left_alone() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, acting());
        world.kill("node-a", second(begun));
        replica.hears("node-a", Confidence::Medium);
        until(15, "reasons", || world.steps().contains(&step("Annotate", "Done"))).await;
        world.lock().opted_out.insert("shop".to_owned());
        sleep(Duration::from_secs(200)).await;
        assert_eq!(count(&world, "delete"), 0, "{:?}", world.effects());
    });
}

#[test]
fn pods_of_nodes_that_fall_silent_at_once_get_their_reason_within_the_budget() {
    run(|| async {
        let names: Vec<String> = (0..20).map(|number| format!("node-{number:02}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let (world, begun) = (World::new(&all), now());
        let budget = Budget { nodes_at_once: 3, nodes_per_zone: 3, nodes_per_hour: 20, not_ready_percent: 100 };
        let replica = Replica::start(&world, "one", begun, Policy { cordon: false, budget, ..acting() });
        until(30, "leads", || replica.service.core.leadership.is_leader() && replica.service.core.complete.get()).await;
        world.server.slow_down("PATCH", Duration::from_secs(2));
        for node in &all[..8] {
            world.pod(node, "shop", &format!("web-{node}"), "ReplicaSet");
            world.kill(node, second(begun));
            world.ready_since(node, "Unknown", second(begun));
        }
        until(120, "a reason", || count(&world, "annotate web-") > 0).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(count(&world, "annotate web-"), 3, "{:?}", world.effects());
    });
}

#[test]
fn panics_that_many_addresses_tell_open_incidents_one_by_one_and_a_proved_one_waits_for_none() {
    run(|| async {
        let names: Vec<String> = (0..200).map(|number| format!("node-{number:03}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let (world, begun) = (World::new(&all), now());
        let replica = Replica::start(&world, "one", begun, Policy::default());
        until(30, "known", || replica.service.core.complete.get()).await;
        all[..199].iter().for_each(|name| replica.hears(name, Confidence::Low));
        sleep(Duration::from_secs(5)).await;
        let opened = world.incidents().len();
        assert!((50..=60).contains(&opened), "{opened}");
        replica.hears("node-199", Confidence::Medium);
        let of_proved = || world.incidents().iter().any(|one| one["spec"]["node"] == "node-199");
        until(2, "the proved one", of_proved).await;
    });
}

#[test]
fn a_false_alarm_that_is_told_again_and_again_is_one_incident() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, acting());
        until(30, "known", || replica.service.core.complete.get()).await;
        replica.hears("node-a", Confidence::Low);
        until(120, "closed", || world.phase() == "Closed").await;
        for _ in 0..10 {
            replica.hears("node-a", Confidence::Low);
            sleep(Duration::from_secs(30)).await;
        }
        assert_eq!(world.incidents().len(), 1);
        world.kill("node-a", second(begun));
        world.ready("node-a", "Unknown");
        let told = |incident: &serde_json::Value| {
            let evidence = incident["status"]["evidence"].as_array().cloned().unwrap_or_default();
            incident["status"]["phase"] != "Closed" && evidence.iter().any(|entry| entry["id"] == "one/Panic")
        };
        until(180, "joined", || world.incidents().iter().any(told)).await;
    });
}

#[test]
fn what_is_heard_before_incidents_are_known_is_bounded_by_its_bytes() {
    run(|| async {
        let (world, begun) = (cluster(), now());
        let replica = Replica::start(&world, "one", begun, Policy::default());
        let core = &replica.service.core;
        let log = "x".repeat(32 << 10);
        for _ in 0..1000 {
            let findings = Findings { panic: Some("x".to_owned()), ..Findings::default() };
            let fact = Fact::Spoke { findings, author: Confidence::Medium, log: log.clone(), lines_missing: 0 };
            core.tell(Evidence { node: "node-a".to_owned(), at: Timestamp::UNIX_EPOCH, boot_id: None, fact });
        }
        assert!((8 << 20..=16 << 20).contains(&core.fact_bytes.get()), "{}", core.fact_bytes.get());
        let page = core.metrics.encoder()(false);
        let lost = page.lines().find_map(|line| line.strip_prefix("detector_controller_facts_lost_total "));
        assert!(lost.and_then(|lost| lost.parse::<usize>().ok()) > Some(400), "{lost:?}");
        until(60, "said", || core.is_idle()).await;
        assert_eq!(core.fact_bytes.get(), 0);
    });
}
