//! A watch of objects that never gives up: what it sees, and in what words it tells of a server that refuses or fails.
//!
//! The list is streamed where the server can (`sendInitialEvents`, Kubernetes 1.32), else read as [`Lists`] says; a watch
//! that has become too old (410) is begun anew. Pauses grow, and watches begin at least a second apart.

mod pace;

use std::{fmt::Debug, ops::ControlFlow, pin::pin, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client, Resource,
    runtime::{
        utils::{Backoff as _, ResetTimerBackoff},
        watcher::{self, DefaultBackoff, Event, InitialListStrategy, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, time::sleep};

use pace::Doubling;

/// Longest pause after a refusal: somebody may give the right. A server that starts refuses for a moment, too, before it
/// knows its roles.
const LONGEST_REFUSED: Duration = Duration::from_secs(600);

/// After so long without a refusal the next one is the first again: longer than any pause.
const REFUSED_FORGOTTEN: Duration = Duration::from_secs(720);

/// Pause where the library has none to propose; its own grow from 0.8 s to 30 s and more at random.
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update<K> {
    /// A list begins: objects that are not seen until it ends are gone.
    ListBegins,
    /// The object is there, and is so.
    Seen(K),
    /// The object is gone; so it was at last.
    Gone(K),
    /// The list is complete.
    ListEnds,
    /// There is no right to watch: told once until it works.
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

/// How a server that cannot stream lists is asked for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// From the server's cache, which is asked for by version 0 and knows no pages: all comes in one body. For selections
    /// that are small where all objects together are many: with a limit the library leaves the version out, and such a
    /// server then reads all objects from etcd.
    Cached,
    /// In pages of so many from its storage. For all objects of a kind: one body with all of them would not fit our memory.
    Pages(u32),
}

/// Watches what the field selector `fields` selects (empty: all objects) until nobody takes updates any more.
pub async fn watch<K, U>(client: Client, fields: &str, lists: Lists, updates: mpsc::Sender<U>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    U: From<Update<K>>,
{
    let api: Api<K> = Api::all(pace::paced(client));
    let mut watch = Watch {
        updates,
        fields: (!fields.is_empty()).then(|| fields.to_owned()),
        lists,
        told: None,
        streams: true,
        listing: false,
        failed: DefaultBackoff::default(),
        refused: ResetTimerBackoff::new(Doubling::up_to(LONGEST_REFUSED), REFUSED_FORGOTTEN),
    };
    while watch.run(&api).await.is_continue() {}
}

/// What kind of failure was told last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Refused,
    Failed,
}

struct Watch<U> {
    updates: mpsc::Sender<U>,
    fields: Option<String>,
    lists: Lists,
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

impl<U> Watch<U> {
    /// Watches until the list has to be asked for in another way.
    async fn run<K>(&mut self, api: &Api<K>) -> Goes
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
        U: From<Update<K>>,
    {
        let mut events = pin!(watcher(api.clone(), self.config()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.told(event).await?,
                Err(error) if self.streams && self.cannot_stream(&error) => {
                    self.streams = false;
                    break;
                }
                Err(error) => {
                    let pause = self.failed::<K>(&error).await?;
                    sleep(pause).await;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn config(&self) -> watcher::Config {
        let config = watcher::Config { field_selector: self.fields.clone(), ..watcher::Config::default() };
        if self.streams {
            return watcher::Config { initial_list_strategy: InitialListStrategy::StreamingList, ..config };
        }
        match self.lists {
            Lists::Cached => watcher::Config { page_size: None, ..config.any_semantic() },
            Lists::Pages(size) => config.page_size(size),
        }
    }

    async fn told<K>(&mut self, event: Event<K>) -> Goes
    where
        U: From<Update<K>>,
    {
        let update = match event {
            Event::Init => Update::ListBegins,
            Event::InitApply(object) | Event::Apply(object) => Update::Seen(object),
            Event::Delete(object) => Update::Gone(object),
            Event::InitDone => Update::ListEnds,
        };
        self.listing = match update {
            Update::ListBegins => true,
            Update::ListEnds => false,
            _ => self.listing,
        };
        // A list that only begins has not worked yet: without streams it is told before the server is asked.
        if !matches!(update, Update::ListBegins) {
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
    async fn failed<K>(&mut self, error: &watcher::Error) -> Goes<Duration>
    where
        U: From<Update<K>>,
    {
        let (code, reason) = (code(error), error.to_string());
        let pause = match code {
            Some(401 | 403) => {
                self.tell_once(Told::Refused, Update::Refused { reason }).await?;
                self.refused.next()
            }
            // Too many requests, or too old: the watcher begins anew by itself.
            Some(410 | 429) => self.failed.next(),
            _ => {
                self.tell_once(Told::Failed, Update::Failed { reason }).await?;
                self.failed.next()
            }
        };
        ControlFlow::Continue(pause.unwrap_or(LONG_PAUSE))
    }

    async fn tell_once<K>(&mut self, kind: Told, update: Update<K>) -> Goes
    where
        U: From<Update<K>>,
    {
        if self.told == Some(kind) {
            return ControlFlow::Continue(());
        }
        self.told = Some(kind);
        self.send(update).await
    }

    async fn send<K>(&self, update: Update<K>) -> Goes
    where
        U: From<Update<K>>,
    {
        match self.updates.send(update.into()).await {
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
