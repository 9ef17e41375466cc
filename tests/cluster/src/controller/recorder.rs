//! What happened to Nodes and pods, by a watch of both: each change once, with its time.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ListParams, WatchParams},
    core::WatchEvent,
};
use serde::de::DeserializeOwned;
use tokio::{task::JoinHandle, time::sleep};

use super::{INCIDENT_ANNOTATION, OUT_OF_SERVICE};
use crate::{Rig, wait};

/// How long an effect may take to be seen, and between two looks for it.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

/// A change of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// The Node is unschedulable.
    Cordoned,
    /// It is schedulable again.
    Uncordoned,
    /// It is out of service.
    Tainted,
    /// It is not any more.
    Untainted,
    /// It has the name of an incident, or of another one.
    NodeTold,
    /// It has none any more.
    NodeCleared,
    /// It is gone.
    NodeGone,
    /// The pod has the name of an incident, or of another one.
    PodTold,
    /// It has none any more.
    PodCleared,
    /// It is being deleted.
    PodDeleting,
    /// Its phase is Failed.
    PodFailed,
    /// It is gone.
    PodGone,
}

/// An effect on the object of this name.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub object: String,
    /// What happened.
    pub effect: Effect,
    /// When a watch saw it.
    pub seen: Instant,
}

/// What the watches saw.
#[derive(Default)]
struct Seen {
    entries: Vec<Entry>,
    /// Why a watch sees nothing any more.
    broken: Option<String>,
}

/// Watches from its start until it is dropped. If a watch breaks so that something may have been missed, nothing is told any
/// more: that nothing was seen would prove nothing.
pub struct Recorder {
    seen: Arc<Mutex<Seen>>,
    watching: [JoinHandle<()>; 2],
}

impl Recorder {
    /// Begins with what is there.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn start(rig: &Rig) -> Result<Self> {
        let seen = Arc::default();
        let nodes = watch(Api::<Node>::all(rig.client.clone()), Arc::clone(&seen)).await?;
        let pods = watch(Api::<Pod>::all(rig.client.clone()), Arc::clone(&seen)).await?;
        Ok(Self { seen, watching: [nodes, pods] })
    }

    /// All that happened to objects whose names begin so.
    ///
    /// # Errors
    /// A watch broke, and something may be missing.
    pub fn of(&self, prefix: &str) -> Result<Vec<Entry>> {
        locked(&self.seen).of(prefix)
    }

    /// Waits until an effect happened to so many objects whose names begin so, and gives when the last of them was seen.
    ///
    /// # Errors
    /// It did not in time.
    pub async fn until(&self, prefix: &str, effect: Effect, objects: usize) -> Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        let mut again = tokio::time::interval(LOOK);
        loop {
            again.tick().await;
            let all = self.of(prefix)?;
            let times: Vec<_> = all.iter().filter(|entry| entry.effect == effect).map(|entry| entry.seen).collect();
            if let Some(last) = times.iter().max().filter(|_| times.len() >= objects) {
                return Ok(*last);
            }
            ensure!(Instant::now() < deadline, "wait for {objects} × {effect:?}: there are {}", times.len());
        }
    }

    /// How often each effect happened to objects whose names begin so, each object by itself: the most and the number of
    /// objects.
    ///
    /// # Errors
    /// As those of [`Self::of`].
    pub fn counts(&self, prefix: &str) -> Result<HashMap<Effect, (usize, usize)>> {
        let mut each: HashMap<(Effect, String), usize> = HashMap::new();
        for entry in self.of(prefix)? {
            *each.entry((entry.effect, entry.object)).or_default() += 1;
        }
        let mut counts: HashMap<Effect, (usize, usize)> = HashMap::new();
        for ((effect, _), times) in each {
            let count = counts.entry(effect).or_default();
            *count = (count.0.max(times), count.1 + 1);
        }
        Ok(counts)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.watching.iter().for_each(JoinHandle::abort);
    }
}

impl Seen {
    fn of(&self, prefix: &str) -> Result<Vec<Entry>> {
        ensure!(
            self.broken.is_none(),
            "a watch of Nodes or pods broke: {}",
            self.broken.as_deref().unwrap_or_default()
        );
        Ok(self.entries.iter().filter(|entry| entry.object.starts_with(prefix)).cloned().collect())
    }
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is remembered of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Marks {
    incident: Option<String>,
    /// Unschedulable; being deleted.
    first: bool,
    /// Out of service; Failed.
    second: bool,
}

trait Watched: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {
    /// Effects of the incident's name coming and going, of the first and of the second mark, and of the end.
    const EFFECTS: [Effect; 7];

    fn marks(&self) -> (bool, bool);
}

impl Watched for Node {
    const EFFECTS: [Effect; 7] = [
        Effect::NodeTold,
        Effect::NodeCleared,
        Effect::Cordoned,
        Effect::Uncordoned,
        Effect::Tainted,
        Effect::Untainted,
        Effect::NodeGone,
    ];

    fn marks(&self) -> (bool, bool) {
        let spec = self.spec.clone().unwrap_or_default();
        let tainted = spec.taints.iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE);
        (spec.unschedulable.unwrap_or_default(), tainted)
    }
}

impl Watched for Pod {
    /// Nothing of a pod's end is taken back.
    const EFFECTS: [Effect; 7] = [
        Effect::PodTold,
        Effect::PodCleared,
        Effect::PodDeleting,
        Effect::PodDeleting,
        Effect::PodFailed,
        Effect::PodFailed,
        Effect::PodGone,
    ];

    fn marks(&self) -> (bool, bool) {
        let failed = self.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Failed"));
        (self.metadata.deletion_timestamp.is_some(), failed)
    }
}

fn marks<K: Watched>(object: &K) -> Marks {
    let (first, second) = object.marks();
    Marks { incident: object.annotations().get(INCIDENT_ANNOTATION).cloned(), first, second }
}

async fn watch<K: Watched>(api: Api<K>, seen: Arc<Mutex<Seen>>) -> Result<JoinHandle<()>> {
    let list = api.list(&ListParams::default()).await.context("list what is recorded")?;
    let mut version = list.metadata.resource_version.clone().unwrap_or_default();
    let mut known: HashMap<String, Marks> = HashMap::new();
    for object in &list.items {
        known.insert(object.uid().unwrap_or_default(), marks(object));
    }
    Ok(tokio::spawn(async move {
        loop {
            // A watch that ended goes on from where it was: nothing is missed.
            match follow(&api, &mut version, &mut known, &seen).await {
                Err(error) if error.downcast_ref::<kube::Error>().is_some_and(wait::passes) => sleep(LOOK).await,
                Err(error) => {
                    locked(&seen).broken = Some(format!("{error:#}"));
                    return;
                }
                Ok(()) => {}
            }
        }
    }))
}

/// Notes effects until the server ends the watch.
async fn follow<K: Watched>(
    api: &Api<K>,
    version: &mut String,
    known: &mut HashMap<String, Marks>,
    seen: &Mutex<Seen>,
) -> Result<()> {
    let mut events = api.watch(&WatchParams::default(), version).await.context("watch")?.boxed();
    while let Some(Ok(event)) = events.next().await {
        let (object, gone) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(mark) => {
                *version = mark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(status) => bail!("the server says: {status:?}"),
        };
        *version = object.resource_version().unwrap_or_default();
        let before = known.entry(object.uid().unwrap_or_default()).or_default();
        let after = marks(&object);
        let effects = differences::<K>(before, &after, gone);
        *before = after;
        let now = Instant::now();
        let new = effects.into_iter().map(|effect| Entry { object: object.name_any(), effect, seen: now });
        locked(seen).entries.extend(new);
    }
    Ok(())
}

fn differences<K: Watched>(before: &Marks, after: &Marks, gone: bool) -> Vec<Effect> {
    let [told, cleared, first, no_first, second, no_second, end] = K::EFFECTS;
    let mut effects = Vec::new();
    let flag = |before: bool, after: bool, set, reset| match (before, after) {
        (false, true) => Some(set),
        (true, false) => Some(reset),
        _ => None,
    };
    if before.incident != after.incident {
        effects.push(if after.incident.is_some() { told } else { cleared });
    }
    effects.extend(flag(before.first, after.first, first, no_first));
    effects.extend(flag(before.second, after.second, second, no_second));
    effects.extend(gone.then_some(end));
    effects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_an_effect() {
        let told = Marks { incident: Some("a".to_owned()), ..Marks::default() };
        let cordoned = Marks { first: true, ..told.clone() };
        assert_eq!(differences::<Node>(&Marks::default(), &cordoned, false), [Effect::NodeTold, Effect::Cordoned]);
        assert_eq!(differences::<Node>(&cordoned, &cordoned, false), []);
        assert_eq!(differences::<Node>(&cordoned, &told, false), [Effect::Uncordoned]);
        assert_eq!(differences::<Pod>(&told, &Marks::default(), true), [Effect::PodCleared, Effect::PodGone]);
    }

    #[test]
    fn after_a_watch_broke_nothing_is_told() {
        let mut seen = Seen::default();
        seen.entries.push(Entry { object: "a-1".to_owned(), effect: Effect::Cordoned, seen: Instant::now() });
        assert_eq!(seen.of("a").map(|all| all.len()).ok(), Some(1));
        seen.broken = Some("too old resource version".to_owned());
        assert!(seen.of("b").is_err_and(|error| error.to_string().contains("too old")));
    }
}
