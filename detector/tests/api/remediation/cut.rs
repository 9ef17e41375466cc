//! The process ends before, in or after any request: whoever goes on leaves what one undisturbed run would have left.

use std::time::Duration;

use super::{super::fake_api::Scenario, *};

/// Steps of a node that is lost for good.
const FORTH: [StepKind; 7] = [
    StepKind::Cordon,
    StepKind::Annotate,
    StepKind::DeletePods,
    StepKind::FailPods,
    StepKind::TaintOutOfService,
    StepKind::ForceDeletePods,
    StepKind::DeleteNode,
];

/// Steps of a node that was lost and is back.
const BACK: [StepKind; 6] = [
    StepKind::Cordon,
    StepKind::Annotate,
    StepKind::TaintOutOfService,
    StepKind::Retract,
    StepKind::Untaint,
    StepKind::Uncordon,
];

/// Requests about seven pods and a Node are fewer.
const MOST_REQUESTS: usize = 100;

/// Objects, and how often each was changed.
fn world(rig: &Rig) -> (Vec<Value>, Vec<u32>) {
    let paths = rig.pods.iter().map(pod_path).chain([NODE.to_owned()]);
    (rig.api.objects("/api/v1/"), paths.map(|path| rig.api.changes(&path)).collect())
}

/// The world when all is done, and whether the last cut came before the end of what it cut.
struct Outcome {
    world: (Vec<Value>, Vec<u32>),
    was_cut: bool,
}

/// Takes all steps of `way` before `last`, then `last`: `cuts` say how often it is begun and cut off before.
async fn run(way: &[StepKind], last: StepKind, cuts: &[(usize, Scenario)]) -> Outcome {
    let mut rig = Rig::new();
    for kind in way.iter().copied().take_while(|kind| *kind != last) {
        is_back(&mut rig, kind);
        rig.done(kind).await;
    }
    is_back(&mut rig, last);
    let (pods, mut was_cut) = (rig.pods.clone(), false);
    for (requests, scenario) in cuts {
        rig.list();
        rig.api.answer_next(std::iter::repeat_n(Scenario::Ok, *requests).chain([*scenario]));
        rig.api.answer_all(Scenario::Hangs);
        // Paused time: what waits for an answer waits for ever, and the process ends.
        let before = rig.api.asked().len();
        tokio::time::timeout(Duration::from_secs(1), rig.take(last)).await.ok();
        was_cut = rig.api.asked().len() - before > *requests;
        rig.api.answer_all(Scenario::Ok);
        rig.api.forget_next();
    }
    rig.list();
    rig.done(last).await;
    rig.pods = pods;
    Outcome { world: world(&rig), was_cut }
}

/// From the first step on that takes something back the node is there again, well and with the boot that was lost.
fn is_back(rig: &mut Rig, kind: StepKind) {
    if kind == StepKind::Retract {
        rig.told(&[EvidenceKind::LeaseStale, EvidenceKind::SameBoot, EvidenceKind::LeaseFresh]);
        let mut node = rig.node();
        node["status"]["conditions"][0]["status"] = json!("True");
        rig.api.put(NODE, node);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_cut_off_anywhere_has_each_effect_once() {
    let back = BACK.into_iter().filter(|kind| !FORTH.contains(kind)).map(|kind| (&BACK[..], kind));
    for (way, last) in FORTH.into_iter().map(|kind| (&FORTH[..], kind)).chain(back) {
        let whole = run(way, last, &[]).await.world;
        let mut requests = 0;
        loop {
            let mut was_cut = false;
            for scenario in [Scenario::Hangs, Scenario::AnswerLost] {
                let cut = run(way, last, &[(requests, scenario)]).await;
                assert_eq!(cut.world, whole, "{last:?} cut at {requests} by {scenario:?}");
                was_cut |= cut.was_cut;
            }
            let cuts = [(requests, Scenario::AnswerLost), (0, Scenario::Hangs), (1, Scenario::AnswerLost)];
            assert_eq!(run(way, last, &cuts).await.world, whole, "{last:?} cut at {requests} and again");
            requests += 1;
            if !was_cut {
                break;
            }
            assert!(requests < MOST_REQUESTS, "{last:?} has no end");
        }
    }
}
