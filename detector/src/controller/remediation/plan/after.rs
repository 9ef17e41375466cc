//! Plans of a node that is deleted once it is back, and the words of a dry run.

use rstest::rstest;

use super::{
    tests::{Case, DONE, evidence, run, told},
    *,
};

#[rstest]
#[case::in_earnest(true, "6 nodes were remediated within the last hour: the brake is pulled")]
#[case::dry_run(false, "6 nodes would have been remediated within the last hour: the brake would be pulled")]
fn what_is_held_in_dry_run_is_told_as_what_would_be(#[case] act: bool, #[case] told_so: &str) {
    let mut case = Case::new(told(false, false), Vec::new());
    case.write(StepKind::Annotate, DONE);
    (case.usage.nodes_in_hour, case.policy.act) = (6, act);
    assert!(matches!(case.plan(), Plan::Hold { message, .. } if message == told_so));
}

#[test]
fn an_incident_of_a_node_that_is_deleted_once_it_is_back_is_closed() {
    let mut all = told(true, true);
    all.push(evidence(EvidenceKind::OtherBoot, Confidence::High, 70));
    all.push(evidence(EvidenceKind::LeaseFresh, Confidence::High, 71));
    all.push(evidence(EvidenceKind::NodeDeleted, Confidence::High, 72));
    let mut case = Case::new(all, Vec::new());
    for kind in [StepKind::Cordon, StepKind::Annotate, StepKind::TaintOutOfService] {
        case.write(kind, DONE);
    }
    case.node = None;
    let open = |case: &Case| unfinished(case.incident.status.as_ref().expect("a status"));
    assert!(open(&case), "the reason is still on its pods");
    assert_eq!(run(&mut case), [StepKind::Retract]);
    assert!(!open(&case), "taint and cordon went with the Node");
}
