//! Elections over a server in memory: with clocks that differ, servers that fail and networks that part.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::cluster::fake_server::{Asked, FakeServer, Said, clocks, now, status};

/// The one Lease and its version, as a server keeps it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<(u64, Option<Value>)>>);

impl Kept {
    fn answers(&self, asked: &Asked) -> Said {
        let mut kept = self.0.lock().unwrap();
        let (version, lease) = &mut *kept;
        let spec = asked.body["spec"].clone();
        match (asked.method.as_str(), &lease) {
            ("GET", None) | ("PATCH", None) => return Some(status(404, "NotFound", LEADER_LEASE)),
            ("GET", Some(_)) => {}
            ("POST", Some(_)) => return Some(status(409, "AlreadyExists", LEADER_LEASE)),
            ("PATCH", _) if asked.body["metadata"]["resourceVersion"] != json!(version.to_string()) => {
                return Some(status(409, "Conflict", LEADER_LEASE));
            }
            _ => {
                *version += 1;
                *lease = Some(spec);
            }
        }
        let object =
            json!({ "metadata": { "name": LEADER_LEASE, "resourceVersion": version.to_string() }, "spec": lease });
        Some((200, object.to_string()))
    }

    fn spec(&self, key: &str) -> Value {
        self.0.lock().unwrap().1.clone().unwrap_or_default()[key].clone()
    }
}

/// What stands between a replica and the server.
#[derive(Default)]
struct Network {
    /// Nothing gets through.
    cut: AtomicBool,
    /// Requests arrive, answers do not.
    deaf: AtomicBool,
    broken: AtomicBool,
}

/// A replica that takes part.
struct Replica {
    network: Arc<Network>,
    server: FakeServer,
    leadership: Leadership,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Replica {
    fn starts(kept: &Kept, pod: &str, moments: Moments) -> Self {
        let (network, kept) = (Arc::new(Network::default()), kept.clone());
        let between = Arc::clone(&network);
        let server = FakeServer::new(move |asked| {
            let is = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
            match () {
                () if is(&between.cut) => None,
                () if is(&between.broken) => Some(status(500, "InternalError", "")),
                () => kept.answers(asked).filter(|_| !is(&between.deaf)),
            }
        });
        let election = Election::new(server.client(), "detector", pod, Timing::DEFAULT, moments);
        let leadership = election.leadership();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(election.run(async { drop(stopped.await) }));
        Self { network, server, leadership, stop: Some(stop), task }
    }

    fn leads(&self) -> bool {
        self.leadership.is_leader()
    }

    fn cut(&self, cut: bool) {
        self.network.cut.store(cut, Ordering::SeqCst);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets time pass, and looks all the while that no two of `replicas` lead; how often nobody did, in tenths of a second.
async fn pass(time: Duration, replicas: &[&Replica]) -> usize {
    let (mut vacant, until) = (0, now() + time);
    while now() < until {
        sleep(Duration::from_millis(100)).await;
        let leaders = replicas.iter().filter(|replica| replica.leads()).count();
        assert!(leaders <= 1, "{leaders} lead");
        vacant += usize::from(leaders == 0);
    }
    vacant
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn one_of_three_leads_and_stays_whatever_their_clocks_show() {
    let kept = Kept::default();
    let one = Replica::starts(&kept, "one", clocks(1.0, 0));
    let two = Replica::starts(&kept, "two", clocks(1.0, 86_400));
    let three = Replica::starts(&kept, "three", clocks(1.0, -86_400));
    let all = [&one, &two, &three];
    assert!(pass(MINUTE, &all).await <= 50);
    let leader = kept.spec("holderIdentity");
    assert_eq!(pass(60 * MINUTE, &all).await, 0);
    assert_eq!((kept.spec("holderIdentity"), kept.spec("leaseTransitions")), (leader, json!(0)));
    // One write each 2 s and a bit; the others read as often.
    let asked: usize = all.iter().map(|replica| replica.server.asked().len()).sum();
    assert!(asked <= 3 * 61 * 31, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_ceases_before_another_one_leads() {
    let kept = Kept::default();
    let one = Replica::starts(&kept, "one", clocks(1.0, 0));
    pass(MINUTE, &[&one]).await;
    let two = Replica::starts(&kept, "two", clocks(1.0, 0));
    assert_eq!(pass(MINUTE, &[&one, &two]).await, 0);
    one.cut(true);
    let vacant = pass(MINUTE, &[&one, &two]).await;
    assert!(two.leads() && (20..=120).contains(&vacant), "{vacant}");
    assert_eq!(kept.spec("leaseTransitions"), json!(1));
    one.cut(false);
    assert_eq!(pass(MINUTE, &[&one, &two]).await, 0);
    assert!(two.leads());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_answers_are_lost_ceases_while_its_lease_is_still_renewed() {
    let kept = Kept::default();
    let one = Replica::starts(&kept, "one", clocks(1.0, 0));
    pass(MINUTE, &[&one]).await;
    let two = Replica::starts(&kept, "two", clocks(1.0, 0));
    one.network.deaf.store(true, Ordering::SeqCst);
    pass(5 * MINUTE, &[&one, &two]).await;
    assert!(!one.leads());
    one.network.deaf.store(false, Ordering::SeqCst);
    pass(MINUTE, &[&one, &two]).await;
    assert!(one.leads() || two.leads());
}

#[tokio::test(start_paused = true)]
async fn clocks_that_go_faster_or_slower_than_others_make_no_second_leader() {
    // One in twenty: far more than any crystal, less than deadline and duration differ.
    for (leader, follower) in [(0.95, 1.05), (1.05, 0.95)] {
        let kept = Kept::default();
        let one = Replica::starts(&kept, "one", clocks(leader, 0));
        pass(MINUTE, &[&one]).await;
        let two = Replica::starts(&kept, "two", clocks(follower, 0));
        assert_eq!(pass(10 * MINUTE, &[&one, &two]).await, 0);
        one.cut(true);
        pass(MINUTE, &[&one, &two]).await;
        assert!(two.leads());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_for_a_moment_costs_no_leadership_and_for_long_it_does() {
    let kept = Kept::default();
    let one = Replica::starts(&kept, "one", clocks(1.0, 0));
    pass(MINUTE, &[&one]).await;
    let broken = |broken: bool| one.network.broken.store(broken, Ordering::SeqCst);
    broken(true);
    assert_eq!(pass(Duration::from_secs(5), &[&one]).await, 0);
    broken(false);
    assert_eq!(pass(MINUTE, &[&one]).await, 0);
    broken(true);
    let vacant = pass(MINUTE, &[&one]).await;
    assert!((490..=530).contains(&vacant), "{vacant}");
    broken(false);
    pass(MINUTE, &[&one]).await;
    assert!(one.leads());
    assert_eq!(kept.spec("leaseTransitions"), json!(0));
}

#[tokio::test(start_paused = true)]
async fn who_stops_gives_the_lease_free_and_the_next_leads_at_once() {
    let kept = Kept::default();
    let mut one = Replica::starts(&kept, "one", clocks(1.0, 0));
    pass(MINUTE, &[&one]).await;
    let two = Replica::starts(&kept, "two", clocks(1.0, 0));
    pass(MINUTE, &[&one, &two]).await;
    one.stop.take().unwrap().send(()).unwrap();
    let vacant = pass(MINUTE, &[&one, &two]).await;
    assert!(two.leads() && vacant <= 30, "{vacant}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_container_is_another_candidate() {
    let kept = Kept::default();
    let one = Replica::starts(&kept, "one", clocks(1.0, 0));
    pass(MINUTE, &[&one]).await;
    one.task.abort();
    let again = Replica::starts(&kept, "one", clocks(1.0, 0));
    let vacant = pass(MINUTE, &[&again]).await;
    assert!(again.leads() && vacant >= 140, "{vacant}");
}

#[tokio::test(start_paused = true)]
async fn becoming_and_ceasing_is_told_once_each() {
    let kept = Kept::default();
    let one = Replica::starts(&kept, "one", clocks(1.0, 0));
    let mut told = one.leadership.clone();
    assert_eq!(told.changed().await, Some(true));
    let renewals = timeout(10 * MINUTE, told.changed()).await;
    assert!(renewals.is_err(), "{renewals:?}");
    let cut = now();
    one.cut(true);
    assert_eq!(told.changed().await, Some(false));
    assert!(cut.elapsed() <= Timing::DEFAULT.renew_deadline && !one.leads());
}

#[tokio::test(start_paused = true)]
async fn why_it_cannot_take_part_is_told() {
    let server = FakeServer::new(|_| Some(status(403, "Forbidden", "")));
    let election = Election::new(server.client(), "detector", "one", Timing::DEFAULT, clocks(1.0, 0));
    let (mut trouble, leadership) = (election.trouble(), election.leadership());
    let task = tokio::spawn(election.run(std::future::pending()));
    trouble.changed().await.unwrap();
    assert!(trouble.borrow().as_deref().is_some_and(|why| why.contains("403")));
    assert!(!leadership.is_leader());
    task.abort();
}
