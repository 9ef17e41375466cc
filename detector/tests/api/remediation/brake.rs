//! The brake in its ConfigMap.

use detector::controller::remediation::brake::{self, Brake};

use super::{super::fake_api::Scenario, *};

const PATH: &str = "/api/v1/namespaces/detector/configmaps/detector-brake";

async fn pull(api: &FakeApi, reason: &str, incident: &str) -> Brake {
    brake::pull(&api.client(), "detector", reason, incident, time(NOW)).await.expect("pulled")
}

#[tokio::test]
async fn a_brake_that_was_never_pulled_is_not_there() {
    let api = FakeApi::new();
    assert_eq!(brake::read(&api.client(), "detector").await.expect("read"), Brake::default());
    let released = brake::release(&api.client(), "detector", "ann", time(NOW)).await.expect("released");
    assert!(!released.pulled);
    assert!(api.asked().iter().all(|asked| asked.method == http::Method::GET), "nothing is to be released");
}

#[tokio::test]
async fn a_pulled_brake_keeps_its_first_reason_until_a_person_releases_it() {
    let api = FakeApi::new();
    let first = pull(&api, "6 nodes within an hour", "node-a-0f3c").await;
    assert!(first.pulled);
    let object = &api.objects(PATH)[0];
    assert_eq!(
        object["data"],
        json!({"state": "pulled", "reason": "6 nodes within an hour", "incident": "node-a-0f3c", "pulledAt": NOW})
    );
    assert_eq!(object["metadata"]["name"], "detector-brake");
    assert_eq!(pull(&api, "another", "node-b-1").await, first);
    let released = brake::release(&api.client(), "detector", "ann", time(NOW)).await.expect("released");
    assert_eq!((released.pulled, released.released_by.as_deref()), (false, Some("ann")));
    assert_eq!((released.released_at, released.reason.as_deref()), (Some(time(NOW)), Some("6 nodes within an hour")));
    assert_eq!(pull(&api, "another", "node-b-1").await.reason.as_deref(), Some("another"));
    assert_eq!(api.changes(PATH), 3);
}

#[tokio::test]
async fn a_change_meanwhile_is_seen() {
    let api = FakeApi::new();
    pull(&api, "x", "").await;
    // The release is answered with a conflict, as if somebody had written in between.
    let stale = [Scenario::Ok, Scenario::Conflict];
    api.answer_next(stale);
    let released = brake::release(&api.client(), "detector", "ann", time(NOW)).await.expect("released");
    assert!(!released.pulled);
}

#[tokio::test]
async fn a_write_that_stands_at_the_last_attempt_is_no_failure() {
    let api = FakeApi::new();
    pull(&api, "x", "").await;
    api.answer_next([Scenario::Ok, Scenario::Conflict].repeat(3));
    let released = brake::release(&api.client(), "detector", "ann", time(NOW)).await.expect("released");
    assert_eq!((released.pulled, released.released_by.as_deref()), (false, Some("ann")));
}

#[tokio::test]
async fn a_brake_that_cannot_be_read_is_no_released_one() {
    let api = FakeApi::new();
    for scenario in [Scenario::Unavailable(1), Scenario::Forbidden, Scenario::NotJson, Scenario::Down] {
        api.put(PATH, json!({"metadata": {"resourceVersion": "1"}, "data": {"state": "released"}}));
        api.answer_all(scenario);
        let error = brake::read(&api.client(), "detector").await.expect_err("unknown");
        assert!(error.to_string().starts_with("read the brake detector-brake: "), "{error}");
    }
    assert!(brake::read(&api.client(), "../x").await.is_err());
}
