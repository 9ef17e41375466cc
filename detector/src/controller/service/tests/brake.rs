//! The brake, from the panic too many to the person who releases it.

use super::*;
use crate::controller::remediation::{Budget, brake};

const NODES: [&str; 4] = ["node-a", "node-b", "node-c", "node-d"];

fn three_an_hour() -> Policy {
    let budget = Budget { nodes_at_once: 9, nodes_per_zone: 9, nodes_per_hour: 3, not_ready_percent: 100 };
    Policy { budget, ..acting() }
}

#[test]
fn a_panic_too_many_pulls_the_brake_and_every_leader_waits_until_a_person_releases_it() {
    run(|| async {
        let (world, begun) = (World::new(&NODES), now());
        let deaths = || NODES.into_iter();
        let cordoned = |node: &str| world.effects().iter().any(|effect| effect.starts_with(&format!("cordon {node} ")));
        let replica = Replica::start(&world, "one", begun, three_an_hour());
        until(30, "leads", || replica.service.core.leadership.is_leader() && replica.service.core.complete.get()).await;
        for node in deaths() {
            world.kill(node, second(begun));
            replica.hears(node, Confidence::Medium);
            sleep(Duration::from_secs(5)).await;
        }
        let pulled = || async { brake::read(&world.server.client(), "detector").await.expect("read") };
        let brake = pulled().await;
        assert!(brake.pulled && brake.incident.as_deref().is_some_and(|name| name.starts_with("node-d-")), "{brake:?}");
        assert_eq!(deaths().filter(|node| cordoned(node)).collect::<Vec<_>>(), NODES[..3]);
        sleep(Duration::from_secs(2 * 3600)).await;
        drop(replica);
        let _next = Replica::start(&world, "two", begun, three_an_hour());
        sleep(Duration::from_secs(600)).await;
        assert!(pulled().await.pulled && !cordoned("node-d"), "no time and no leader releases it");
        let now = Timestamp::from_second(second(begun)).unwrap();
        brake::release(&world.server.client(), "detector", "ann", now).await.expect("released");
        until(60, "goes on", || cordoned("node-d")).await;
        assert!(!pulled().await.pulled);
    });
}
