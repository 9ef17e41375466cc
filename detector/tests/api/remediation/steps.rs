//! Each step: its requests to the letter, and what it leaves alone.

use super::{super::fake_api::Scenario, *};

fn cordon_patch(incident: &str) -> Value {
    json!({
        "metadata": {"uid": "uid-of-node", "resourceVersion": "7", "annotations": {"detector.dev/cordoned-for": incident}},
        "spec": {"unschedulable": true},
    })
}

#[tokio::test]
async fn a_cordon_is_one_guarded_patch_and_done_again_none() {
    let rig = Rig::new();
    assert_eq!(rig.done(StepKind::Cordon).await, "cordoned");
    assert_eq!(rig.written(), [("PATCH".to_owned(), NODE.to_owned(), cordon_patch(INCIDENT))]);
    assert_eq!(rig.done(StepKind::Cordon).await, "cordoned");
    assert_eq!(rig.written().len(), 1);
    assert_eq!(rig.node()["metadata"]["annotations"]["a"], "b");
}

#[tokio::test]
async fn a_persons_cordon_is_left_as_it_is_and_never_taken_back() {
    let rig = Rig::new();
    rig.put_node(|node| node["spec"]["unschedulable"] = true.into());
    assert_eq!(rig.done(StepKind::Cordon).await, "left as it is: somebody else cordoned the node");
    assert_eq!(rig.done(StepKind::Uncordon).await, "left cordoned: the cordon is not ours");
    assert!(rig.written().is_empty());
}

#[tokio::test]
async fn a_persons_uncordon_is_not_taken_back() {
    let rig = Rig::new();
    rig.put_node(|node| node["metadata"]["annotations"]["detector.dev/cordoned-for"] = INCIDENT.into());
    assert_eq!(rig.done(StepKind::Cordon).await, "left as it is: somebody took our cordon back");
    assert!(rig.written().is_empty());
}

#[tokio::test]
async fn a_cordon_of_an_earlier_incident_becomes_ours() {
    let rig = Rig::new();
    rig.put_node(|node| {
        node["metadata"]["annotations"]["detector.dev/cordoned-for"] = "earlier".into();
        node["spec"]["unschedulable"] = true.into();
    });
    rig.done(StepKind::Cordon).await;
    assert_eq!(rig.node()["metadata"]["annotations"]["detector.dev/cordoned-for"], INCIDENT);
}

#[tokio::test]
async fn only_our_own_cordon_is_taken_back() {
    let rig = Rig::new();
    rig.done(StepKind::Cordon).await;
    assert_eq!(rig.done(StepKind::Uncordon).await, "uncordoned");
    let node = rig.node();
    assert_eq!(node["spec"]["unschedulable"], false);
    assert_eq!(node["metadata"]["annotations"], json!({"a": "b"}));
    rig.put_node(|node| node["metadata"]["annotations"]["detector.dev/cordoned-for"] = "later".into());
    assert_eq!(rig.done(StepKind::Uncordon).await, "left cordoned: the cordon is another incident's by now");
}

#[tokio::test]
async fn a_node_of_the_same_name_is_another_node() {
    let rig = Rig::new();
    rig.put_node(|node| node["metadata"]["uid"] = "another".into());
    for kind in [StepKind::Cordon, StepKind::Uncordon, StepKind::TaintOutOfService, StepKind::Untaint] {
        assert_eq!(rig.done(kind).await, "the Node was deleted, and another one has its name");
    }
    assert!(rig.written().is_empty());
    rig.api.remove(NODE);
    assert_eq!(rig.done(StepKind::Cordon).await, "there is no such Node any more");
}

#[tokio::test]
async fn the_reason_is_one_patch_a_pod_the_suspects_first() {
    let rig = Rig::new();
    let message = rig.done(StepKind::Annotate).await;
    assert_eq!(message, "5 pods told the reason; left: 1 mirror of a static pod, 1 ended before");
    let written = rig.written();
    let node = json!({"metadata": {"uid": "uid-of-node", "annotations": {
        "detector.dev/termination-reason": REASON,
        "detector.dev/incident": INCIDENT,
        "node.house.example/reason": REASON,
    }}});
    assert_eq!(written[0], ("PATCH".to_owned(), NODE.to_owned(), node));
    let cart = json!({
        "metadata": {"uid": "uid-of-cart-0", "annotations": {
            "detector.dev/termination-reason": REASON,
            "detector.dev/incident": INCIDENT,
            "pod.house.example/reason": REASON,
        }},
        "status": {"conditions": [{
            "type": "detector.dev/KernelCrash",
            "status": "True",
            "reason": "KernelPanic",
            "message": REASON,
            "lastTransitionTime": "2026-11-22T12:00:00Z",
        }]},
    });
    assert_eq!(written[1], ("PATCH".to_owned(), "/api/v1/namespaces/shop/pods/cart-0/status".to_owned(), cart));
    let paths: Vec<_> = written[2..].iter().map(|(_, path, _)| path.rsplit('/').nth(1).expect("a name")).collect();
    assert_eq!(paths, ["web-1", "import-x", "quiet-1", "agent-x"]);
    let asked = rig.api.asked();
    assert!(asked.iter().all(|asked| asked.query == "fieldManager=detector-controller"));
    assert_eq!(asked[1].content_type, "application/strategic-merge-patch+json");
}

#[tokio::test]
async fn the_same_reason_again_changes_nothing() {
    let rig = Rig::new();
    rig.done(StepKind::Annotate).await;
    rig.done(StepKind::Annotate).await;
    assert_eq!(rig.api.changes(NODE), 1);
    assert!(rig.pods.iter().all(|pod| rig.api.changes(&pod_path(pod)) <= 1));
    let ready = &rig.api.objects(&pod_path(&rig.pods[0]))[0]["status"]["conditions"][0];
    assert_eq!(ready["type"], "Ready", "conditions of others stay");
}

#[tokio::test]
async fn pods_are_deleted_with_their_uid_and_their_own_grace() {
    let mut rig = Rig::new();
    rig.api.guard_deletions();
    rig.done(StepKind::Annotate).await;
    rig.list();
    let before = rig.written().len();
    let message = rig.done(StepKind::DeletePods).await;
    assert_eq!(
        message,
        "3 pods deleted; left: 1 of a DaemonSet, 1 mirror of a static pod, 1 in a namespace that opted out, 1 ended before"
    );
    let written = &rig.written()[before..];
    let body = |uid: &str| json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
    let cart = ("DELETE".to_owned(), "/api/v1/namespaces/shop/pods/cart-0".to_owned(), body("uid-of-cart-0"));
    assert_eq!((written.len(), &written[0]), (3, &cart));
    assert!(rig.api.asked().iter().all(|asked| !asked.query.contains("dryRun")));
    rig.list();
    rig.done(StepKind::DeletePods).await;
    assert_eq!(rig.written().len(), before + 3, "what is being deleted is not asked for again");
}

#[tokio::test]
async fn a_pod_that_came_later_is_told_the_reason_before_it_is_deleted() {
    let rig = Rig::new();
    rig.api.guard_deletions();
    rig.done(StepKind::DeletePods).await;
    let written = rig.written();
    let of_cart: Vec<_> = written.iter().filter(|(_, path, _)| path.contains("/cart-0")).collect();
    assert_eq!((of_cart[0].0.as_str(), of_cart[1].0.as_str()), ("PATCH", "DELETE"));
}

#[tokio::test]
async fn pods_that_are_gone_or_replaced_are_no_failure() {
    let rig = Rig::new();
    rig.api.remove(&pod_path(&rig.pods[0]));
    let replaced = json!({"metadata": {"uid": "another"}, "status": {"phase": "Running"}});
    rig.api.put(&pod_path(&rig.pods[1]), replaced.clone());
    let message = rig.done(StepKind::DeletePods).await;
    assert!(message.starts_with("1 pod deleted, 2 gone already"), "{message}");
    assert_eq!(rig.api.objects(&pod_path(&rig.pods[1]))[0], replaced, "whoever has its name now is not touched");
}

#[tokio::test]
async fn pods_are_failed_in_one_patch_of_their_status() {
    let mut rig = Rig::new();
    rig.done(StepKind::Annotate).await;
    rig.list();
    let before = rig.written().len();
    let message = rig.done(StepKind::FailPods).await;
    assert!(message.starts_with("3 pods failed; left: 1 of a DaemonSet"), "{message}");
    let expected = json!({
        "metadata": {"uid": "uid-of-cart-0"},
        "status": {"phase": "Failed", "reason": "KernelPanic", "message": REASON, "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "KernelPanic", "message": REASON,
            "lastTransitionTime": NOW,
        }]},
    });
    let path = "/api/v1/namespaces/shop/pods/cart-0/status".to_owned();
    assert_eq!(rig.written()[before], ("PATCH".to_owned(), path, expected));
    rig.list();
    rig.done(StepKind::FailPods).await;
    assert_eq!(rig.written().len(), before + 3, "what failed is not failed again");
}

#[tokio::test]
async fn no_pod_is_called_disrupted_that_is_not_deleted() {
    let mut rig = Rig::new();
    rig.policy = Policy { release: Release::Disabled, delete_pods: false, ..rig.policy };
    assert!(rig.done(StepKind::FailPods).await.starts_with("0 pods failed"));
    assert!(rig.written().is_empty());
}

#[tokio::test]
async fn failed_pods_are_deleted_without_grace_and_ended_ones_are_not() {
    let mut rig = Rig::new();
    rig.api.guard_deletions();
    for kind in [StepKind::Annotate, StepKind::DeletePods, StepKind::FailPods] {
        rig.done(kind).await;
        rig.list();
    }
    let before = rig.written().len();
    let message = rig.done(StepKind::ForceDeletePods).await;
    assert!(message.starts_with("3 pods deleted without grace; left: "), "{message}");
    let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "uid-of-cart-0"},
        "gracePeriodSeconds": 0});
    assert_eq!(rig.written()[before].2, body);
    let left: Vec<_> =
        rig.api.objects("/api/v1/namespaces/").iter().map(|pod| pod["metadata"]["name"].clone()).collect();
    assert_eq!(left, ["done-x", "quiet-1", "static-node-a", "agent-x"]);
}

#[tokio::test]
async fn a_taint_is_added_beside_those_of_others() {
    let rig = Rig::new();
    assert_eq!(rig.done(StepKind::TaintOutOfService).await, "tainted as out of service");
    let taint = json!({"key": "node.kubernetes.io/out-of-service", "value": "detector", "effect": "NoExecute"});
    let body = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/spec/taints/-", "value": taint},
    ]);
    assert_eq!(rig.written(), [("PATCH".to_owned(), NODE.to_owned(), body)]);
    assert_eq!(rig.api.asked()[1].content_type, "application/json-patch+json");
    assert_eq!(rig.done(StepKind::TaintOutOfService).await, "the node has the taint");
    assert_eq!(rig.done(StepKind::Untaint).await, "the taint was taken off");
    assert_eq!(rig.node()["spec"]["taints"], json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]));
    let remove = &rig.written()[1].2;
    assert_eq!(remove[0], json!({"op": "test", "path": "/spec/taints/1", "value": taint}));
    assert_eq!(rig.done(StepKind::Untaint).await, "the node does not have the taint");
}

#[tokio::test]
async fn a_node_without_taints_gets_a_list() {
    let rig = Rig::new();
    rig.put_node(|node| node["spec"] = json!({}));
    rig.done(StepKind::TaintOutOfService).await;
    assert_eq!(rig.written()[0].2[1]["path"], "/spec/taints");
    assert_eq!(rig.node()["spec"]["taints"][0]["value"], "detector");
}

#[tokio::test]
async fn a_persons_taint_stays_and_a_ready_node_gets_none() {
    let rig = Rig::new();
    rig.put_node(|node| {
        node["spec"]["taints"] = json!([{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown"}]);
    });
    assert_eq!(rig.done(StepKind::Untaint).await, "left as it is: the taint is somebody else's");
    rig.put_node(|node| node["status"]["conditions"][0]["status"] = "True".into());
    assert!(matches!(rig.take(StepKind::TaintOutOfService).await, Report::Later { forbidden: false, .. }));
    assert!(rig.written().is_empty());
}

#[tokio::test]
async fn who_is_overtaken_reads_and_decides_again() {
    let rig = Rig::new();
    rig.api.answer_next([Scenario::Ok, Scenario::Unprocessable]);
    assert_eq!(rig.done(StepKind::TaintOutOfService).await, "tainted as out of service");
    assert_eq!(rig.api.changes(NODE), 1);
}

#[tokio::test]
async fn a_node_is_deleted_by_its_uid() {
    let mut rig = Rig::new();
    assert_eq!(rig.done(StepKind::DeleteNode).await, "the Node was deleted");
    let preconditions = json!({"uid": "uid-of-node", "resourceVersion": "7"});
    let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions});
    assert_eq!(rig.written(), [("DELETE".to_owned(), NODE.to_owned(), body)]);
    assert_eq!(rig.done(StepKind::DeleteNode).await, "there is no such Node any more");
    rig.put_node(|node| node["metadata"]["uid"] = "another".into());
    assert_eq!(rig.done(StepKind::DeleteNode).await, "there is no such Node any more");
    assert_eq!(rig.node()["metadata"]["uid"], "another");
    rig.node.uid = "another".to_owned();
    rig.done(StepKind::DeleteNode).await;
    assert_eq!(rig.written().len(), 1, "the Node of the incident is gone: nothing is asked");
}

#[tokio::test]
async fn a_node_whose_kubelet_speaks_again_is_not_deleted() {
    let rig = Rig::new();
    for status in ["True", "False"] {
        rig.put_node(|node| node["status"]["conditions"][0]["status"] = status.into());
        assert!(matches!(rig.take(StepKind::DeleteNode).await, Report::Later { .. }), "{status}");
    }
    assert!(rig.written().is_empty());
}

#[tokio::test]
async fn nothing_is_destroyed_once_the_proof_of_death_is_too_old() {
    let mut rig = Rig::new();
    rig.late = true;
    for kind in [
        StepKind::DeletePods,
        StepKind::FailPods,
        StepKind::TaintOutOfService,
        StepKind::ForceDeletePods,
        StepKind::DeleteNode,
    ] {
        let report = rig.take(kind).await;
        assert!(
            matches!(&report, Report::Later { after, .. } if after.is_some_and(|after| after.is_zero())),
            "{report:?}"
        );
    }
    assert!(rig.api.asked().is_empty());
}

#[tokio::test]
async fn after_a_false_alarm_all_is_taken_back() {
    let mut rig = Rig::new();
    let before = rig.node();
    rig.done(StepKind::Annotate).await;
    rig.list();
    rig.told(&[EvidenceKind::LeaseFresh, EvidenceKind::SameBoot]);
    assert_eq!(rig.done(StepKind::Retract).await, "5 pods cleared");
    assert_eq!(rig.node()["metadata"]["annotations"], before["metadata"]["annotations"]);
    let cart = &rig.api.objects("/api/v1/namespaces/shop/pods/cart-0")[0];
    assert_eq!(cart["metadata"]["annotations"], json!({"a": "b"}));
    let condition = &cart["status"]["conditions"][1];
    assert_eq!((&condition["status"], &condition["reason"]), (&"False".into(), &"FalseAlarm".into()));
    rig.list();
    assert_eq!(rig.done(StepKind::Retract).await, "0 pods cleared");
}

#[tokio::test]
async fn of_a_node_that_is_back_the_reason_stays_and_nothing_may_be_deleted_any_more() {
    let mut rig = Rig::new();
    rig.api.guard_deletions();
    rig.done(StepKind::Annotate).await;
    rig.list();
    rig.told(&[EvidenceKind::LeaseFresh, EvidenceKind::OtherBoot]);
    rig.done(StepKind::Retract).await;
    let cart = &rig.api.objects("/api/v1/namespaces/shop/pods/cart-0")[0];
    assert_eq!(cart["metadata"]["annotations"]["detector.dev/termination-reason"], REASON);
    assert!(cart["metadata"]["annotations"]["detector.dev/incident"].is_null());
    assert_eq!(cart["status"]["conditions"][1]["reason"], "NodeReturned");
    assert_eq!(cart["status"]["conditions"][1]["lastTransitionTime"], NOW);
}

#[tokio::test]
async fn what_a_later_incident_wrote_is_not_taken_back() {
    let mut rig = Rig::new();
    rig.done(StepKind::Annotate).await;
    rig.list();
    rig.put_node(|node| node["metadata"]["annotations"]["detector.dev/incident"] = "later".into());
    for pod in &mut rig.pods {
        pod.incident = Some("later".to_owned());
    }
    let before = rig.written().len();
    rig.done(StepKind::Retract).await;
    assert_eq!(rig.written().len(), before);
}

#[tokio::test]
async fn a_server_that_is_down_is_not_asked_for_every_pod() {
    let mut rig = Rig::new();
    rig.pods = (0..100).map(|number| target(&format!("web-{number}"), "ReplicaSet")).collect();
    rig.api.answer_all(Scenario::Unavailable(3));
    let Report::Later { after, reason, forbidden, .. } = rig.take(StepKind::DeletePods).await else { panic!("later") };
    assert_eq!((after.map(|after| after.as_secs()), forbidden), (Some(3), false));
    assert!(reason.starts_with("100 pods not deleted yet"), "{reason}");
    assert!(rig.api.asked().len() <= 8, "{}", rig.api.asked().len());
}

#[tokio::test]
async fn what_is_not_allowed_is_told_as_such() {
    let rig = Rig::new();
    rig.api.answer_all(Scenario::Forbidden);
    for kind in [StepKind::Cordon, StepKind::Annotate, StepKind::DeletePods, StepKind::DeleteNode] {
        let report = rig.take(kind).await;
        assert!(matches!(report, Report::Later { forbidden: true, .. }), "{kind:?}: {report:?}");
    }
    rig.api.answer_all(Scenario::Unprocessable);
    assert!(matches!(rig.take(StepKind::DeletePods).await, Report::Refused(_)));
}
