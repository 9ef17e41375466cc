//! The pods of this node by the API server, for clusters that allow it (list and watch pods): their names and the ids of
//! their containers.
//!
//! Only what [`PodFacts`] needs is ever taken out of an answer. The list is streamed where the server can
//! (`sendInitialEvents`, Kubernetes 1.32), else read in one from its cache; a watch that has become too old (410) is begun
//! anew.

mod pace;
mod watched;

use std::{ops::ControlFlow, pin::pin, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::{
        utils::{Backoff as _, ResetTimerBackoff},
        watcher::{self, DefaultBackoff, Event, InitialListStrategy, watcher},
    },
};
use tokio::{sync::mpsc, time::sleep};

use pace::Doubling;
use watched::WatchedPod;

/// Room for updates before the flow takes them; the watch is read no faster.
pub const UPDATES: usize = 64;

/// Longest pause after a refusal: somebody may give the right. A server that starts refuses for a moment, too, before it
/// knows its roles.
const LONGEST_REFUSED: Duration = Duration::from_secs(600);

/// After so long without a refusal the next one is the first again: longer than any pause.
const REFUSED_FORGOTTEN: Duration = Duration::from_secs(720);

/// Pause where the library has none to propose; its own grow from 0.8 s to 30 s and more at random.
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// What is kept of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// `metadata.uid`.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// For a static pod the uid that its cgroup's path has, which is the one that events about it carry.
    pub config_hash: Option<String>,
    /// Id and name of its containers, init and ephemeral ones too, with their last ended instance.
    pub containers: Vec<(String, String)>,
}

/// What the watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodUpdate {
    /// A list begins: pods that are not seen until it ends are gone.
    ListBegins,
    /// A pod is there.
    Seen(PodFacts),
    /// The pod with this uid is gone.
    Gone {
        /// Its uid.
        uid: String,
    },
    /// The list is complete.
    ListEnds,
    /// There is no right to watch pods: told once until it works. Names come from the runtime's files alone.
    Refused {
        /// What the server said.
        reason: String,
    },
    /// The server did not answer as it should: told once until it works; it is tried again.
    Failed {
        /// What was wrong.
        reason: String,
    },
}

/// Watches the pods of `node` until nobody takes updates any more.
pub async fn watch_pods(client: Client, node: String, updates: mpsc::Sender<PodUpdate>) {
    let api: Api<WatchedPod> = Api::all(pace::paced(client));
    let mut watch = Watch {
        updates,
        told: None,
        streams: true,
        listing: false,
        failed: DefaultBackoff::default(),
        refused: ResetTimerBackoff::new(Doubling::up_to(LONGEST_REFUSED), REFUSED_FORGOTTEN),
    };
    while watch.run(&api, &node).await.is_continue() {}
}

/// What kind of failure was told last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Refused,
    Failed,
}

struct Watch {
    updates: mpsc::Sender<PodUpdate>,
    told: Option<Told>,
    /// The server can stream lists, as far as is known.
    streams: bool,
    /// A list has begun and not ended.
    listing: bool,
    failed: DefaultBackoff,
    refused: ResetTimerBackoff<Doubling>,
}

/// Breaks off when nobody takes updates any more.
type Goes<T = ()> = ControlFlow<(), T>;

impl Watch {
    /// Watches until the list has to be asked for in another way.
    async fn run(&mut self, api: &Api<WatchedPod>, node: &str) -> Goes {
        let mut events = pin!(watcher(api.clone(), self.config(node)));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.told(event).await?,
                Err(error) if self.streams && self.cannot_stream(&error) => {
                    self.streams = false;
                    break;
                }
                Err(error) => {
                    let pause = self.failed(&error).await?;
                    sleep(pause).await;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn config(&self, node: &str) -> watcher::Config {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        if self.streams {
            return watcher::Config { initial_list_strategy: InitialListStrategy::StreamingList, ..config };
        }
        // From the server's cache, which is asked for by version 0 and knows no pages: the library leaves the version out
        // if there is a limit, and the server then reads the pods of all nodes from etcd.
        watcher::Config { page_size: None, ..config.any_semantic() }
    }

    async fn told(&mut self, event: Event<WatchedPod>) -> Goes {
        let update = match event {
            Event::Init => PodUpdate::ListBegins,
            Event::InitApply(pod) | Event::Apply(pod) => PodUpdate::Seen(pod.into_facts()),
            Event::Delete(pod) => PodUpdate::Gone { uid: pod.metadata.uid.unwrap_or_default() },
            Event::InitDone => PodUpdate::ListEnds,
        };
        self.listing = match update {
            PodUpdate::ListBegins => true,
            PodUpdate::ListEnds => false,
            _ => self.listing,
        };
        // A list that only begins has not worked yet: without streams it is told before the server is asked.
        if update != PodUpdate::ListBegins {
            self.told = None;
        }
        // Nor has one that never ends: what is asked again and again is a list.
        if !self.listing {
            self.failed.reset();
            self.refused.reset();
        }
        self.send(update).await
    }

    /// Whether `error` is the answer of a server that does not offer streamed lists.
    fn cannot_stream(&self, error: &watcher::Error) -> bool {
        match error {
            // It does not know the parameters, or refuses them without the feature gate `WatchList`
            // (`ValidateListOptions`, apimachinery's `meta/internalversion/validation`).
            watcher::Error::WatchStartFailed(kube::Error::Api(status)) => matches!(status.code, 400 | 422),
            // Its storage cannot.
            watcher::Error::WatchError(status) => self.listing && matches!(status.code, 400 | 422 | 500),
            _ => false,
        }
    }

    /// Tells of the failure and how long to wait after it.
    async fn failed(&mut self, error: &watcher::Error) -> Goes<Duration> {
        let (code, reason) = (code(error), error.to_string());
        let pause = match code {
            Some(401 | 403) => {
                self.tell_once(Told::Refused, PodUpdate::Refused { reason }).await?;
                self.refused.next()
            }
            // Too many requests, or too old: the watcher begins anew by itself.
            Some(410 | 429) => self.failed.next(),
            _ => {
                self.tell_once(Told::Failed, PodUpdate::Failed { reason }).await?;
                self.failed.next()
            }
        };
        ControlFlow::Continue(pause.unwrap_or(LONG_PAUSE))
    }

    async fn tell_once(&mut self, kind: Told, update: PodUpdate) -> Goes {
        if self.told == Some(kind) {
            return ControlFlow::Continue(());
        }
        self.told = Some(kind);
        self.send(update).await
    }

    async fn send(&self, update: PodUpdate) -> Goes {
        match self.updates.send(update).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// The HTTP status that the server answered with.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
