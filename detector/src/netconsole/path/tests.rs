//! The way to a receiver, from tables that a test wrote.

use std::collections::BTreeMap;

use rstest::rstest;

use super::{message::NUD_REACHABLE, *};

/// Tables as values.
#[derive(Default)]
struct Fake {
    routes: BTreeMap<IpAddr, Route>,
    links: BTreeMap<u32, Link>,
    neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
}

impl Network for Fake {
    fn route(&self, to: IpAddr) -> Result<Option<Route>, NetlinkError> {
        Ok(self.routes.get(&to).cloned())
    }

    fn link(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links.get(&index).cloned())
    }

    fn neighbour(&self, index: u32, address: IpAddr) -> Result<Option<Neighbour>, NetlinkError> {
        Ok(self.neighbours.get(&(index, address)).copied())
    }
}

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const STALE: u16 = 0x04;
const INCOMPLETE: u16 = 0x01;
const FAILED: u16 = 0x20;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A receiver behind a gateway, by `eth0`, which has index 2.
fn behind_a_gateway() -> Fake {
    let route = Route {
        kind: RouteKind::Unicast,
        device: Some(2),
        source: Some(ip("10.0.0.5")),
        gateway: Some(ip("10.0.0.1")),
    };
    let link = Link { name: "eth0".into(), master: None, up: true, ethernet: true };
    Fake {
        routes: [(ip("10.9.0.1"), route)].into(),
        links: [(2, link)].into(),
        neighbours: [((2, ip("10.0.0.1")), Neighbour { state: NUD_REACHABLE, mac: Some(MAC) })].into(),
    }
}

fn way(fake: &Fake, to: &[&str]) -> Result<Path, NoPath> {
    let addresses: Vec<_> = to.iter().map(|to| SocketAddr::new(ip(to), 6666)).collect();
    find(fake, &addresses, 6665, &mut BTreeSet::new())
}

#[test]
fn behind_a_gateway_the_gateways_mac_counts() {
    let path = way(&behind_a_gateway(), &["10.9.0.1"]).expect("a way");
    let expected = Target {
        device: "eth0".into(),
        local: ip("10.0.0.5"),
        local_port: 6665,
        mac: MAC,
        remote: "10.9.0.1:6666".parse().expect("an address"),
    };
    assert_eq!(path, Path { target: expected, index: 2, confirmed: true });
}

#[test]
fn on_the_same_wire_the_receivers_own_mac_counts() {
    let mut fake = behind_a_gateway();
    fake.routes.get_mut(&ip("10.9.0.1")).expect("there").gateway = None;
    assert!(matches!(way(&fake, &["10.9.0.1"]), Err(NoPath::Unresolved { hop, .. }) if hop == ip("10.9.0.1")));
    fake.neighbours.insert((2, ip("10.9.0.1")), Neighbour { state: STALE, mac: Some(MAC) });
    let path = way(&fake, &["10.9.0.1"]).expect("a way");
    assert!(!path.confirmed, "a stale entry is used, and asked for again");
}

#[rstest]
#[case(INCOMPLETE, None)]
#[case(FAILED, Some(MAC))]
#[case(NUD_REACHABLE, None)]
#[case(NUD_REACHABLE, Some(Mac([0xff; 6])))]
#[case(NUD_REACHABLE, Some(Mac([0; 6])))]
fn an_entry_that_the_kernel_would_not_use_is_no_way(#[case] state: u16, #[case] mac: Option<Mac>) {
    let mut fake = behind_a_gateway();
    fake.neighbours.insert((2, ip("10.0.0.1")), Neighbour { state, mac });
    assert!(matches!(way(&fake, &["10.9.0.1"]), Err(NoPath::Unresolved { .. })));
}

#[test]
fn this_machine_is_no_receiver() {
    let mut fake = behind_a_gateway();
    fake.routes.get_mut(&ip("10.9.0.1")).expect("there").kind = RouteKind::Local;
    assert!(matches!(way(&fake, &["10.9.0.1"]), Err(NoPath::Itself(_))));
}

#[test]
fn devices_that_netpoll_refuses_are_told_apart() {
    let with = |change: fn(&mut Link)| {
        let mut fake = behind_a_gateway();
        change(fake.links.get_mut(&2).expect("there"));
        way(&fake, &["10.9.0.1"])
    };
    assert!(matches!(with(|link| link.master = Some(7)), Err(NoPath::Part { master: 7, .. })));
    assert!(matches!(with(|link| link.ethernet = false), Err(NoPath::NotEthernet(_))));
    assert!(matches!(with(|link| link.up = false), Err(NoPath::Down(_))));
}

#[test]
fn the_first_address_with_a_way_is_taken_and_else_the_best_reason_told() {
    let fake = behind_a_gateway();
    let path = way(&fake, &["fd00::1", "10.9.0.1"]).expect("a way");
    assert_eq!(path.target.remote.ip(), ip("10.9.0.1"));
    let mut unresolved = behind_a_gateway();
    unresolved.neighbours.clear();
    assert!(matches!(way(&unresolved, &["fd00::1", "10.9.0.1"]), Err(NoPath::Unresolved { .. })));
    assert!(matches!(way(&fake, &["fd00::1"]), Err(NoPath::NoRoute(_))));
    assert!(matches!(way(&fake, &[]), Err(NoPath::NoRoute(_))));
}

#[test]
fn a_device_that_matters_is_told_even_where_there_is_no_way() {
    let (mut fake, mut devices) = (behind_a_gateway(), BTreeSet::new());
    fake.neighbours.clear();
    let addresses = ["10.9.0.1:6666".parse().expect("an address")];
    find(&fake, &addresses, 6665, &mut devices).expect_err("not resolved");
    assert_eq!(devices, [2].into());
}
