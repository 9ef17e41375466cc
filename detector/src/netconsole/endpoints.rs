//! Where the receivers are: the EndpointSlices of the controller's headless Service, watched.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client,
    runtime::{
        utils::Backoff as _,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};
use tokio::{sync::watch, time::sleep};
use tracing::warn;

use super::plan::Endpoint;
use crate::config::netconsole::Service;

/// Label by which slices name their Service (KEP-752).
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Slices that are kept: a controller has a handful of replicas, in one slice for each family of addresses.
pub(super) const MAX_SLICES: u32 = 64;

/// Endpoints that are kept of one slice: the API server takes 1,000 at the most.
const MAX_ENDPOINTS: usize = 1000;

/// Slices of one page of the list.
const PAGE: u32 = 16;

/// Pause after a failure where the library has none to propose; its own grow from 0.8 s to 30 s.
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// The slices of one Service.
#[derive(Debug, Default)]
struct Slices {
    kept: BTreeMap<String, Vec<Endpoint>>,
    /// What a list that has begun told so far.
    listing: Option<BTreeMap<String, Vec<Endpoint>>>,
    port: String,
}

impl Slices {
    /// Takes an event in; whether what is known may be another than before.
    fn take(&mut self, event: Event<EndpointSlice>) -> bool {
        match event {
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                false
            }
            Event::InitApply(slice) => {
                let (name, endpoints) = (slice.metadata.name.clone().unwrap_or_default(), of_slice(&slice, &self.port));
                insert(self.listing.get_or_insert_default(), name, endpoints);
                false
            }
            Event::InitDone => {
                self.kept = self.listing.take().unwrap_or_default();
                true
            }
            Event::Apply(slice) => {
                let (name, endpoints) = (slice.metadata.name.clone().unwrap_or_default(), of_slice(&slice, &self.port));
                insert(&mut self.kept, name, endpoints);
                true
            }
            Event::Delete(slice) => self.kept.remove(&slice.metadata.name.unwrap_or_default()).is_some(),
        }
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.kept.values().flatten().cloned().collect()
    }
}

fn insert(slices: &mut BTreeMap<String, Vec<Endpoint>>, name: String, endpoints: Vec<Endpoint>) {
    if slices.len() < MAX_SLICES as usize || slices.contains_key(&name) {
        slices.insert(name, endpoints);
    } else {
        warn!(slice = name, "more than {MAX_SLICES} EndpointSlices of one Service: this one is left out");
    }
}

/// The endpoints of a slice, by its port of that name.
pub(super) fn of_slice(slice: &EndpointSlice, port: &str) -> Vec<Endpoint> {
    let ports = slice.ports.iter().flatten();
    let mut named = ports.filter(|one| one.name.as_deref() == Some(port));
    let Some(port) = named.find_map(|one| u16::try_from(one.port?).ok()) else { return Vec::new() };
    let mut endpoints = Vec::new();
    for endpoint in slice.endpoints.iter().take(MAX_ENDPOINTS) {
        let conditions = endpoint.conditions.as_ref();
        // All addresses of an endpoint are the same; clients take the first (API reference of EndpointSlice).
        let Some(address) = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok()) else { continue };
        // Unknown counts as ready, and serving as ready (the same reference).
        let ready = conditions.and_then(|all| all.ready).unwrap_or(true);
        endpoints.push(Endpoint {
            address: SocketAddr::new(address, port),
            node: endpoint.node_name.clone(),
            ready,
            serving: conditions.and_then(|all| all.serving).unwrap_or(ready),
        });
    }
    endpoints
}

/// Selects the slices of `service`.
pub(super) fn selector(service: &Service) -> String {
    format!("{SERVICE_LABEL}={}", service.name)
}

/// Watches the slices of `service` until nobody wants to know any more. Before the first answer nothing is told.
///
/// While the API server does not answer, what was told last holds.
pub async fn watch(client: Client, service: Service, told: watch::Sender<Option<Vec<Endpoint>>>) {
    let api: Api<EndpointSlice> = Api::namespaced(client, &service.namespace);
    let mut events = pin!(watcher(api, watcher::Config::default().labels(&selector(&service)).page_size(PAGE)));
    let mut slices = Slices { port: service.port, ..Slices::default() };
    let mut backoff = DefaultBackoff::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A list that only begins has not worked yet: the library tells it before the server is asked.
                if !matches!(event, Event::Init | Event::InitApply(_)) {
                    backoff.reset();
                }
                if slices.take(event) && told.send(Some(slices.endpoints())).is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(error = error.to_string(), "the EndpointSlices of the receivers' Service cannot be watched");
                sleep(backoff.next().unwrap_or(LONG_PAUSE)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;
    use crate::cluster::fake_server::{FakeServer, status};

    fn slice(name: &str, endpoints: &serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "health", "port": 1, "protocol": "TCP"}, {"name": "netconsole", "port": 6666, "protocol": "UDP"}],
        }))
        .expect("a slice")
    }

    fn slices() -> Slices {
        Slices { port: "netconsole".into(), ..Slices::default() }
    }

    #[test]
    fn an_endpoint_is_its_first_address_with_the_named_port() {
        let one = slice(
            "a",
            &json!([
                {"addresses": ["10.0.0.1", "10.0.0.9"], "nodeName": "n1", "conditions": {"ready": false, "serving": true}},
                {"addresses": ["no address"]},
                {"addresses": ["10.0.0.2"], "conditions": {}},
            ]),
        );
        let read = of_slice(&one, "netconsole");
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].address, read[0].node.as_deref()), ("10.0.0.1:6666".parse().unwrap(), Some("n1")));
        assert_eq!((read[0].ready, read[0].serving, read[1].ready, read[1].serving), (false, true, true, true));
        assert!(of_slice(&one, "other").is_empty());
    }

    #[test]
    fn a_list_counts_only_when_it_is_whole() {
        let mut slices = slices();
        let one = |name| slice(name, &json!([{"addresses": ["10.0.0.1"]}]));
        assert!(slices.take(Event::Apply(one("a"))));
        assert!(!slices.take(Event::Init) && !slices.take(Event::InitApply(one("b"))));
        assert_eq!(slices.kept.keys().collect::<Vec<_>>(), ["a"]);
        assert!(slices.take(Event::InitDone));
        assert_eq!(slices.kept.keys().collect::<Vec<_>>(), ["b"]);
        assert!(slices.take(Event::Delete(one("b"))) && slices.endpoints().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_fails_is_asked_at_a_growing_pace() {
        let server = FakeServer::new(|_| Some(status(503, "Unavailable", "")));
        let service = Service { namespace: "n".into(), name: "s".into(), port: "netconsole".into() };
        let (told, _slices) = watch::channel(None);
        let two_minutes = timeout(Duration::from_secs(120), watch(server.client(), service, told)).await;
        assert!(two_minutes.is_err(), "it goes on");
        let asked = server.requests().len();
        assert!((4..=20).contains(&asked), "{asked} times");
    }

    #[test]
    fn the_number_of_slices_is_bounded() {
        let mut slices = slices();
        for number in 0..2 * MAX_SLICES {
            slices.take(Event::Apply(slice(&format!("s{number}"), &json!([]))));
        }
        assert_eq!(slices.kept.len(), MAX_SLICES as usize);
    }
}
