//! The leader is killed, and another one goes on.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    world::{Cut, set},
    *,
};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/";

/// Writes of a whole run are fewer.
const MOST_WRITES: usize = 200;

/// To the end: the Node is deleted last.
fn to_the_end() -> Policy {
    Policy { delete_node: true, reboot_window: Duration::from_secs(60), ..acting() }
}

struct Run {
    /// What was told of steps.
    told: BTreeSet<(String, String, String)>,
    was_cut: bool,
}

/// A node dies and is given up; the first leader is cut off at `cut`, if it comes to that, and another one goes on.
async fn killed(cut: Option<Cut>) -> Run {
    let (world, begun) = (cluster(), now());
    world.lock().cut = cut;
    let first = Replica::start(&world, "one", begun, to_the_end());
    world.kill("node-a", second(begun));
    world.ready("node-a", "Unknown");
    first.hears("node-a", Confidence::Medium);
    let is_over = || world.phase() == "Closed";
    until(300, "neither cut nor closed", || world.lock().was_cut || is_over()).await;
    // What it has still to tell.
    sleep(Duration::from_secs(5)).await;
    let was_cut = world.lock().was_cut;
    drop(first);
    {
        let mut state = world.lock();
        (state.cut, state.was_cut) = (None, false);
    }
    let next = Replica::start(&world, "two", begun, to_the_end());
    if !is_over() {
        // What was heard is heard by each replica.
        next.hears("node-a", Confidence::Medium);
    }
    until(400, &format!("{cut:?}: not closed: {:?}", world.steps()), is_over).await;
    sleep(Duration::from_secs(60)).await;
    let effects = world.effects();
    assert_eq!(effects.len(), set(&effects).len(), "{cut:?}: {effects:?}");
    assert_eq!(world.incidents().len(), 1, "{cut:?}");
    let steps = world.steps();
    assert!(steps.iter().all(|(_, state)| state == "Done"), "{cut:?}: {steps:?}");
    assert!(steps.contains(&step("DeleteNode", "Done")), "{cut:?}: {steps:?}");
    Run { told: told_of_steps(&world), was_cut }
}

/// Reason, step and object of each event about a step.
fn told_of_steps(world: &World) -> BTreeSet<(String, String, String)> {
    let state = world.lock();
    let events = state.objects.iter().filter(|(path, _)| path.starts_with(EVENTS)).map(|(_, event)| event);
    let steps = events.filter(|event| event["reason"] != "StepHeld");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    steps.map(|event| (text(&event["reason"]), text(&event["action"]), text(&event["regarding"]["name"]))).collect()
}

fn run_killed(cut: Option<Cut>) -> Run {
    let mut ended = None;
    run(|| async { ended = Some(killed(cut).await) });
    ended.expect("it ran")
}

#[test]
fn a_leader_that_is_killed_before_or_after_any_write_leaves_one_effect_of_each_and_all_of_it_is_told() {
    let whole = run_killed(None);
    assert!(whole.told.iter().any(|(reason, _, object)| reason == "NodeDeleted" && object == "node-a"));
    let mut number = 0;
    loop {
        number += 1;
        assert!(number < MOST_WRITES, "a run has no end");
        let [before, after] = [Cut::Before(number), Cut::After(number)].map(|cut| {
            let cut_off = run_killed(Some(cut));
            assert_eq!(cut_off.told, whole.told, "{cut:?}");
            cut_off.was_cut
        });
        if !(before || after) {
            break;
        }
    }
}
