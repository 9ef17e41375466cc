//! Which receivers a node speaks to: two of all, chosen so that the fleet spreads over them and a change moves few.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::RECEIVERS;

/// One address at which a receiver may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// Node that it runs on; `None` if that is not known.
    pub node: Option<String>,
    /// It is ready (EndpointSlice, `conditions.ready`; unknown counts as yes).
    pub ready: bool,
    /// It serves, though perhaps on its way out (`conditions.serving`).
    pub serving: bool,
}

impl Endpoint {
    /// An address that somebody wrote down.
    #[must_use]
    pub fn fixed(address: SocketAddr) -> Self {
        Self { address, node: None, ready: true, serving: true }
    }
}

/// A receiver: one program on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Node that it runs on, if known.
    pub node: Option<String>,
    /// Its addresses: IPv4 before IPv6. Never empty.
    pub addresses: Vec<SocketAddr>,
}

/// The receivers of the node named `own`, at most [`RECEIVERS`], best first: ready ones before those that only serve, and
/// those before the rest; equals by a hash of both nodes' names (rendezvous hashing, Thaler and Ravishankar 1998), so that
/// only those nodes change that had a receiver which is gone.
///
/// Never itself: its last words would have to pass its own dead network stack.
#[must_use]
pub fn choose(own: &str, endpoints: &[Endpoint]) -> Vec<Receiver> {
    let mut by_place: BTreeMap<Place<'_>, (bool, bool, Vec<SocketAddr>)> = BTreeMap::new();
    for one in endpoints.iter().filter(|one| one.node.as_deref() != Some(own) && is_reachable(one.address)) {
        let place = one.node.as_deref().map_or(Place::Address(one.address), Place::Node);
        let (ready, serving, addresses) = by_place.entry(place).or_default();
        *ready |= one.ready;
        *serving |= one.serving;
        addresses.push(one.address);
    }
    let mut ranked: Vec<_> = by_place.into_iter().collect();
    ranked.sort_by_cached_key(|(place, (ready, serving, _))| {
        (Reverse(*ready), Reverse(*serving), hash(&[own.as_bytes(), place.text().as_bytes()]))
    });
    let receiver = |(place, (_, _, mut addresses)): (Place<'_>, (bool, bool, Vec<SocketAddr>))| {
        addresses.sort_unstable();
        addresses.dedup();
        Receiver { node: place.node(), addresses }
    };
    ranked.into_iter().take(RECEIVERS).map(receiver).collect()
}

/// Part of `spread` after which the node named `own` turns to these receivers, in thousandths: so that a fleet does not do
/// it at once.
#[must_use]
pub fn turn(own: &str, receivers: &[Receiver]) -> u32 {
    let texts: Vec<_> = receivers.iter().flat_map(|one| &one.addresses).map(SocketAddr::to_string).collect();
    let parts: Vec<_> = [own.as_bytes()].into_iter().chain(texts.iter().map(String::as_bytes)).collect();
    u32::try_from(hash(&parts) % 1000).unwrap_or_default()
}

/// A frame can be addressed to it from another machine. Link-local addresses of IPv6 would need a zone.
fn is_reachable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let link_local = match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local && address.port() != 0
}

/// What two endpoints of one receiver have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Node(&'a str),
    Address(SocketAddr),
}

impl Place<'_> {
    fn text(self) -> String {
        match self {
            Self::Node(name) => name.to_owned(),
            Self::Address(address) => address.to_string(),
        }
    }

    fn node(self) -> Option<String> {
        match self {
            Self::Node(name) => Some(name.to_owned()),
            Self::Address(_) => None,
        }
    }
}

/// FNV-1a of 64 bits with the last step of SplitMix64, which spreads a change of the last bytes over all bits. The same in
/// every version of this program, as the standard library's is not.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        // A byte that is in no UTF-8 keeps the parts apart.
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(node: &str, address: &str) -> Endpoint {
        Endpoint { node: Some(node.into()), ..Endpoint::fixed(address.parse().unwrap()) }
    }

    fn nodes(own: &str, endpoints: &[Endpoint]) -> Vec<String> {
        choose(own, endpoints).into_iter().map(|one| one.node.unwrap_or_default()).collect()
    }

    fn fleet(size: usize) -> Vec<Endpoint> {
        (0..size).map(|number| on(&format!("c{number}"), &format!("10.0.0.{}:6666", number + 1))).collect()
    }

    #[test]
    fn a_node_never_chooses_itself() {
        for own in ["c0", "c1", "c2"] {
            let chosen = nodes(own, &fleet(3));
            assert_eq!(chosen.len(), 2);
            assert!(!chosen.contains(&own.to_owned()));
        }
        assert!(choose("c0", &fleet(1)).is_empty());
    }

    #[test]
    fn ready_receivers_come_first_then_those_that_serve() {
        let mut endpoints = fleet(4);
        (endpoints[0].ready, endpoints[0].serving) = (false, false);
        endpoints[1].ready = false;
        endpoints[2].ready = false;
        endpoints[2].serving = false;
        assert_eq!(nodes("n", &endpoints), ["c3", "c1"]);
    }

    #[test]
    fn addresses_of_one_node_are_one_receiver() {
        let endpoints = [on("a", "[fd00::1]:6666"), on("a", "10.0.0.1:6666"), on("a", "10.0.0.1:6666")];
        let chosen = choose("n", &endpoints);
        assert_eq!(chosen.len(), 1);
        assert_eq!(chosen[0].addresses, ["10.0.0.1:6666".parse().unwrap(), "[fd00::1]:6666".parse().unwrap()]);
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let mut endpoints = fleet(9);
        let chosen = choose("n", &endpoints);
        endpoints.reverse();
        assert_eq!(choose("n", &endpoints), chosen);
    }

    #[test]
    fn a_fleet_spreads_over_the_receivers() {
        let (endpoints, mut counts) = (fleet(5), BTreeMap::<String, u32>::new());
        for number in 0..1000 {
            nodes(&format!("node-{number}"), &endpoints)
                .into_iter()
                .for_each(|node| *counts.entry(node).or_default() += 1);
        }
        assert!(counts.len() == 5 && counts.values().all(|count| (320..480).contains(count)), "{counts:?}");
    }

    #[test]
    fn only_nodes_of_a_receiver_that_is_gone_change() {
        let (all, left) = (fleet(5), &fleet(5)[1..]);
        for number in 0..200 {
            let (own, before) = (format!("node-{number}"), nodes(&format!("node-{number}"), &all));
            let after = nodes(&own, left);
            let kept = before.iter().filter(|node| *node != "c0");
            assert!(kept.clone().all(|node| after.contains(node)), "{before:?} {after:?}");
        }
    }

    #[test]
    fn addresses_that_no_frame_reaches_are_left_out() {
        for address in
            ["0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "[::1]:1", "[fe80::1]:1", "[ff02::1]:1", "10.0.0.1:0"]
        {
            assert!(choose("n", &[Endpoint::fixed(address.parse().unwrap())]).is_empty(), "{address}");
        }
    }

    #[test]
    fn nodes_turn_to_new_receivers_at_different_times() {
        let receivers = choose("n", &fleet(2));
        let turns: std::collections::BTreeSet<_> =
            (0..100).map(|number| turn(&format!("node-{number}"), &receivers)).collect();
        assert!(turns.len() > 80 && turns.iter().all(|turn| *turn < 1000), "{turns:?}");
    }
}
