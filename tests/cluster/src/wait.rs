//! Waits on conditions: watches the API, never sleeps.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use futures_util::StreamExt as _;
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ListParams, WatchParams},
    core::WatchEvent,
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

/// For what the API server and controllers do by themselves.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// For what a kubelet in a virtual machine does, such as starting a pod. Measured: 4 to 22 s, threefold on a busy machine,
/// and machines differ.
pub const POD_PATIENCE: Duration = Duration::from_secs(300);

/// Time until a server that has no time now is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Seconds after which the API server ends a watch; then it begins anew. Its own limit is 295.
const WATCH_SECONDS: u32 = 60;

/// "Gone": the version from which to watch is forgotten.
const GONE: u16 = 410;

/// "Too Many Requests".
const TOO_MANY: u16 = 429;

/// Waits until `holds` for the object `name`, and gives that object; `None` is told while there is none. `what` words the
/// condition for the error, which shows the object as it was seen last.
///
/// # Errors
/// It did not hold within `patience`, or the API server refuses.
pub async fn until<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    patience: Duration,
    mut holds: impl FnMut(Option<&K>) -> bool,
) -> Result<Option<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let parameters = ListParams::default().fields(&format!("metadata.name={name}"));
    let mut last = all(api, &parameters, what, patience, |objects| holds(objects.first())).await?;
    Ok(last.pop())
}

/// Waits until `holds` for all objects that `parameters` select, and gives them.
///
/// # Errors
/// It did not hold within `patience`, or the API server refuses.
pub async fn all<K>(
    api: &Api<K>,
    parameters: &ListParams,
    what: &str,
    patience: Duration,
    mut holds: impl FnMut(&[K]) -> bool,
) -> Result<Vec<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let deadline = Instant::now() + patience;
    let mut seen = Vec::new();
    match timeout_at(deadline, watch(api, parameters, &mut seen, &mut holds)).await {
        Ok(watched) => watched.with_context(|| format!("wait until {what}"))?,
        Err(_) => {
            let kind = K::kind(&K::DynamicType::default()).into_owned();
            return Err(anyhow!("wait until {what}: not so after {patience:?}; {kind} seen last: {seen:#?}"));
        }
    }
    Ok(seen)
}

/// Lists, then keeps the list up to date by a watch, until the condition holds.
async fn watch<K>(
    api: &Api<K>,
    parameters: &ListParams,
    seen: &mut Vec<K>,
    holds: &mut impl FnMut(&[K]) -> bool,
) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    loop {
        let list = match api.list(parameters).await {
            Err(error) if passes(&error) => {
                sleep(AGAIN).await;
                continue;
            }
            list => list.context("list")?,
        };
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        *seen = list.items;
        if holds(seen) {
            return Ok(());
        }
        let mut watching = WatchParams::default().timeout(WATCH_SECONDS);
        watching.field_selector.clone_from(&parameters.field_selector);
        watching.label_selector.clone_from(&parameters.label_selector);
        let mut events = match api.watch(&watching, &version).await {
            Err(error) if passes(&error) => continue,
            events => events.context("watch")?.boxed(),
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Error(status)) if status.code == GONE => break,
                Ok(WatchEvent::Error(status)) => return Err(anyhow!("watch: {status:?}")),
                Ok(event) => update(seen, event),
                // The connection broke: list again.
                Err(_) => break,
            }
            if holds(seen) {
                return Ok(());
            }
        }
    }
}

fn update<K: Resource>(seen: &mut Vec<K>, event: WatchEvent<K>) {
    let same = |a: &K, b: &K| a.name_any() == b.name_any() && a.namespace() == b.namespace();
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            seen.retain(|other| !same(other, &object));
            seen.push(object);
        }
        WatchEvent::Deleted(object) => seen.retain(|other| !same(other, &object)),
        WatchEvent::Bookmark(_) | WatchEvent::Error(_) => {}
    }
}

/// Whether the API server says nothing of the request, but that it cannot be asked now.
pub fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == TOO_MANY || status.code >= 500,
        kube::Error::Service(_) | kube::Error::HyperError(_) => true,
        _ => false,
    }
}

/// The HTTP code of the API server's refusal, if it was one.
pub fn refusal<T>(result: &Result<T, kube::Error>) -> Option<u16> {
    match result {
        Err(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}
