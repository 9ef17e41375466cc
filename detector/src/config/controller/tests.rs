//! The controller's file: defaults, mistakes, contradictions.

use rstest::rstest;

use super::*;

fn parse(text: &str) -> Result<ControllerConfig, String> {
    CONTROLLER.parse("f", text.as_bytes()).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn the_default_file_says_the_defaults_and_does_nothing() {
    let config = parse(&default_file()).expect("right");
    assert_eq!(config, ControllerConfig::default());
    assert_eq!(parse("").expect("right"), config);
    let policy = config.policy;
    assert!(!policy.act && !policy.delete_pods && !policy.fail_pods && !policy.delete_node);
    assert_eq!(policy.release, Release::Disabled);
}

#[test]
fn every_key_is_in_the_page_and_in_the_default_file() {
    let (page, file) = (page(), default_file());
    for key in CONTROLLER.keys {
        assert!(page.contains(&format!("| `{}` |", key.path)), "{}", key.path);
        let name = key.path.rsplit('.').next().expect("a name");
        assert!(file.contains(&format!("{name}:")), "{}", key.path);
    }
}

#[test]
fn a_whole_policy_is_read() {
    let config = parse(
        "policy:\n  mode: act\n  deletePods: true\n  failPods: true\n  release: outOfService\n  deleteNode: true\n  \
         podReasonKeys: [pod.titus.netflix.com/pod-termination-reason]\n  controlPlaneNodes: [cp-1]\n  rebootWindow: \
         15m\n  budget: {nodesAtOnce: 5, notReadyPercent: 20}\nretention: {age: 720h, number: 10}\n",
    )
    .expect("right");
    let policy = config.policy;
    assert!(policy.act && policy.delete_pods && policy.fail_pods && policy.delete_node);
    assert_eq!((policy.release, policy.reboot_window.as_secs()), (Release::OutOfService, 900));
    assert_eq!(policy.pod_reason_keys, ["pod.titus.netflix.com/pod-termination-reason"]);
    assert_eq!(policy.control_plane_nodes, ["cp-1"]);
    assert_eq!((policy.budget.nodes_at_once, policy.budget.not_ready_percent), (5, 20));
    assert_eq!((config.retention.age.as_secs(), config.retention.number), (720 * 3600, 10));
}

#[rstest]
#[case(
    "policy: {deletePods: true, annotate: false}",
    "`policy.deletePods` needs `policy.cordon` and `policy.annotate`"
)]
#[case("policy: {deletePods: true, cordon: false}", "`policy.deletePods` needs `policy.cordon` and `policy.annotate`")]
#[case("policy: {failPods: true}", "`policy.failPods` needs `policy.deletePods`")]
#[case("policy: {release: forceDelete, cordon: false}", "`policy.release` needs `policy.cordon` and `policy.annotate`")]
#[case("policy: {deleteNode: true}", "`policy.deleteNode` needs `policy.release`")]
#[case("policy: {deleteNode: true, release: outOfService, rebootWindow: 1m}", "it must be 2m or longer")]
#[case("policy: {budget: {nodesPerZone: 4}}", "must not be above `policy.budget.nodesAtOnce`: they are 4 and 3")]
#[case("policy: {budget: {nodesAtOnce: 7}}", "must not be above `policy.budget.nodesPerHour`: they are 7 and 6")]
#[case("netconsole: {rate: {burst: 100}}", "`netconsole.rate.guaranteed` must not be above")]
#[case("netconsole: {rate: {perSource: 60000}}", "`netconsole.rate.perSource` must not be above")]
#[case("metrics: {listen: '0.0.0.0:20256'}\nhealth: {listen: '127.0.0.1:20256'}", "cannot both be listened on")]
fn what_contradicts_is_refused(#[case] text: &str, #[case] rule: &str) {
    let mistakes = parse(text).expect_err("a contradiction");
    assert!(mistakes.contains(rule), "{mistakes}");
    assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
}

#[rstest]
#[case("policy: {mode: on}", "must be `dryRun` or `act`")]
#[case("policy: {podReasonKeys: [detector.dev/incident]}", "not below `detector.dev/`")]
#[case("policy: {podReasonKeys: [reason]}", "keys of annotations with their prefix")]
#[case("policy: {nodeReasonKeys: [a.b/c, a.b/c]}", "must stand once")]
#[case("policy: {controlPlaneNodes: cp-1}", "a list of at most 64 names of Nodes")]
#[case("policy: {controlPlaneNodes: [Cp_1]}", "names of Nodes")]
#[case("policy: {budget: {notReadyPercent: 101}}", "a whole number from 1 to 100")]
#[case("policy: {release: yes}", "must be `disabled`, `outOfService` or `forceDelete`")]
#[case("policy: {dryRun: true}", "there is no such key")]
#[case("events: {}", "there is no such key")]
fn each_mistake_is_told_with_its_rule(#[case] text: &str, #[case] rule: &str) {
    let mistakes = parse(text).expect_err("a mistake");
    assert!(mistakes.contains(rule), "{mistakes}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mistakes = parse("policy: {mode: x, cordon: 1}\nretention: {age: 5}").expect_err("mistakes");
    assert_eq!(mistakes.lines().count(), 3, "{mistakes}");
}

#[test]
fn the_policy_applies_at_once_and_sockets_at_restart() {
    let new = parse("policy: {mode: act}\nnetconsole: {listen: disabled}").expect("right");
    let merged = CONTROLLER.at_run_time(&ControllerConfig::default(), &new);
    assert!(merged.policy.act);
    assert!(merged.netconsole.listen.is_some());
}
