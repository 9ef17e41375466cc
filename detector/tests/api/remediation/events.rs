//! Events about steps, delivered.

use std::{cell::RefCell, time::Duration};

use detector::{
    contract::incident::{StepEntry, StepState},
    controller::sink::event::{
        Subject,
        deliver::{Counts, MAX_WAITING, Queue},
        of_step,
    },
};

use super::{super::fake_api::Scenario, *};

fn step() -> StepEntry {
    let at = MicroTime(time(NOW));
    let (kind, state, message) = (StepKind::DeletePods, StepState::Done, "3 pods deleted".to_owned());
    StepEntry { kind, state, time: at.clone(), ended: Some(at), message }
}

fn push(queue: &Queue, rig: &Rig) {
    let subject = Subject { incident: &rig.incident, node_uid: Some("uid-of-node"), pods: &rig.pods, instance: "r-1" };
    queue.push(of_step(&subject, &step()));
}

async fn run(queue: &Queue, rig: &Rig, seconds: u64) -> Vec<String> {
    run_for(queue, rig, Duration::from_secs(seconds)).await
}

async fn run_for(queue: &Queue, rig: &Rig, time: Duration) -> Vec<String> {
    let told = RefCell::new(Vec::new());
    let tell = |_: &detector::controller::sink::event::Event, reason: &str| told.borrow_mut().push(reason.to_owned());
    let client = rig.api.client();
    let begin = tokio::time::Instant::now();
    let now = || begin.elapsed();
    tokio::time::timeout(time, queue.deliver(&client, &now, &tell)).await.expect_err("it never ends");
    told.into_inner()
}

#[tokio::test(start_paused = true)]
async fn a_step_is_told_once_whoever_tells_it() {
    let (rig, queue) = (Rig::new(), Queue::default());
    push(&queue, &rig);
    run(&queue, &rig, 1).await;
    assert_eq!(queue.counts(), Counts { created: 5, ..Counts::default() });
    let asked = rig.api.asked();
    let namespaces: Vec<_> = asked.iter().map(|asked| asked.path.split('/').nth(5).expect("a namespace")).collect();
    assert_eq!(namespaces, ["default", "default", "shop", "shop", "shop"]);
    push(&queue, &rig);
    run(&queue, &rig, 1).await;
    assert_eq!(queue.counts().already_there, 5);
    assert_eq!(rig.api.objects("/apis/events.k8s.io/").len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_outage_delays_events_and_loses_none() {
    let (rig, queue) = (Rig::new(), Queue::default());
    rig.api.answer_all(Scenario::Down);
    push(&queue, &rig);
    run(&queue, &rig, 120).await;
    assert!((5..=12).contains(&queue.counts().failed), "{:?}", queue.counts());
    rig.api.answer_all(Scenario::Ok);
    run(&queue, &rig, 60).await;
    assert_eq!((queue.counts().created, queue.waiting()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn one_event_that_is_not_allowed_holds_up_no_other() {
    let (rig, queue) = (Rig::new(), Queue::default());
    rig.api.answer_next([Scenario::Forbidden, Scenario::Unprocessable]);
    push(&queue, &rig);
    let told = run_for(&queue, &rig, Duration::from_millis(500)).await;
    assert_eq!(told.len(), 2);
    let at_once = Counts { created: 3, refused: 1, failed: 1, ..Counts::default() };
    assert_eq!((queue.counts(), queue.waiting()), (at_once, 1), "it waits for itself alone");
    run(&queue, &rig, 2).await;
    assert_eq!((queue.counts(), queue.waiting()), (Counts { created: 4, ..at_once }, 0));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_and_what_goes_beyond_is_counted() {
    let (mut rig, queue) = (Rig::new(), Queue::default());
    rig.pods = (0..256).map(|number| target(&format!("web-{number}"), "ReplicaSet")).collect();
    for _ in 0..20 {
        push(&queue, &rig);
    }
    assert_eq!(queue.waiting(), MAX_WAITING + 20 * 2, "those about incident and Node are not crowded out");
    assert_eq!(queue.counts().dropped, 20 * 256 - u64::try_from(MAX_WAITING).expect("small"));
}
