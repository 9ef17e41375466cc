//! rtnetlink messages (rtnetlink(7), `include/uapi/linux/{netlink,rtnetlink,neighbour,if_link}.h`): the three questions
//! that are asked, and what is read of the answers. Pure, and with bounds: an answer may have any length.
//!
//! Written here and not taken from a library, because three requests and a few attributes are all that is needed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Mac;
use crate::netconsole::plan::target::MAX_DEVICE;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct rtmsg`, `struct ndmsg` and `struct ifinfomsg`.
const ROUTE_HEAD: usize = 12;
const NEIGHBOUR_HEAD: usize = 12;
const LINK_HEAD: usize = 16;
/// Length of `struct rtattr`.
const ATTRIBUTE_HEAD: usize = 4;
/// `NLMSG_ALIGNTO` and `RTA_ALIGNTO`.
const ALIGN: usize = 4;

const NLM_F_REQUEST: u16 = 1;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
pub(super) const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_VIA: u16 = 18;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

pub(super) const NUD_REACHABLE: u16 = 0x02;
const NUD_STALE: u16 = 0x04;
const NUD_DELAY: u16 = 0x08;
const NUD_PROBE: u16 = 0x10;
pub(super) const NUD_NOARP: u16 = 0x40;
pub(super) const NUD_PERMANENT: u16 = 0x80;
/// States in which the kernel sends to the address that it knows (`include/net/neighbour.h`).
pub(super) const NUD_VALID: u16 = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;

const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
/// `ARPHRD_ETHER` (`include/uapi/linux/if_arp.h`).
const ARPHRD_ETHER: u16 = 1;

/// What a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Another machine.
    Unicast,
    /// This one.
    Local,
    /// Nothing that a frame can be addressed to: a refusal, a group (`RTN_*`).
    Other(u8),
}

/// A route, as the kernel found it for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it leads to.
    pub kind: RouteKind,
    /// Index of the device.
    pub device: Option<u32>,
    /// Address that the kernel would send from.
    pub source: Option<IpAddr>,
    /// The next hop, if it is not the receiver itself. May be of the other family (RFC 5549).
    pub gateway: Option<IpAddr>,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// `NUD_*`.
    pub state: u16,
    /// Its address on the wire, if it is one of Ethernet.
    pub mac: Option<Mac>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Index of the bond, bridge or the like that it is a part of.
    pub master: Option<u32>,
    /// It is switched on.
    pub up: bool,
    /// It speaks Ethernet to others.
    pub ethernet: bool,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'b> {
    /// Its type.
    pub kind: u16,
    /// Number of the request that it answers.
    pub sequence: u32,
    /// What it carries.
    pub payload: &'b [u8],
}

/// The messages in `bytes`. What is cut off or impossible ends it.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let payload = bytes.get(HEADER..length)?;
        let message = Message { kind: u16_at(bytes, 4)?, sequence: u32_at(bytes, 8)?, payload };
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(message)
    })
}

/// Attributes behind a head of `head` bytes.
fn attributes(payload: &[u8], head: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut bytes = payload.get(head..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(ATTRIBUTE_HEAD..length)?;
        // The two highest bits are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
        let kind = u16_at(bytes, 2)? & 0x3fff;
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Asks for the route to `to`.
#[must_use]
pub fn ask_route(sequence: u32, to: IpAddr) -> Vec<u8> {
    let (family, octets) = octets(to);
    let mut head = [0; ROUTE_HEAD];
    (head[0], head[1]) = (family, if to.is_ipv4() { 32 } else { 128 });
    request(RTM_GETROUTE, sequence, &head, &[(RTA_DST, &octets)])
}

/// Asks for the device with this index.
#[must_use]
pub fn ask_link(sequence: u32, index: u32) -> Vec<u8> {
    let mut head = [0; LINK_HEAD];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    request(RTM_GETLINK, sequence, &head, &[])
}

/// Asks for one neighbour (possible since Linux 5.0).
#[must_use]
pub fn ask_neighbour(sequence: u32, index: u32, address: IpAddr) -> Vec<u8> {
    let (family, octets) = octets(address);
    let mut head = [0; NEIGHBOUR_HEAD];
    head[0] = family;
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    request(RTM_GETNEIGH, sequence, &head, &[(NDA_DST, &octets)])
}

fn request(kind: u16, sequence: u32, head: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend_from_slice(head);
    for (kind, value) in attributes {
        // Addresses: at most 16 bytes.
        let length = u16::try_from(ATTRIBUTE_HEAD + value.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes
}

/// Number of an error as errno has it; 0 is none. `None` if the message is too short for one.
#[must_use]
pub fn error(payload: &[u8]) -> Option<i32> {
    let number = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    Some(number.saturating_neg())
}

/// A route. `None` if the message is too short for one.
#[must_use]
pub fn route(payload: &[u8]) -> Option<Route> {
    let (family, kind) = (*payload.first()?, *payload.get(7)?);
    let kind = match kind {
        RTN_UNICAST => RouteKind::Unicast,
        RTN_LOCAL => RouteKind::Local,
        other => RouteKind::Other(other),
    };
    let mut route = Route { kind, device: None, source: None, gateway: None };
    for (kind, value) in attributes(payload, ROUTE_HEAD) {
        match kind {
            RTA_OIF => route.device = u32_at(value, 0),
            RTA_PREFSRC => route.source = address(family, value),
            RTA_GATEWAY => route.gateway = address(family, value),
            // A family (as `sa_family_t`), then an address of it (`struct rtvia`).
            RTA_VIA => {
                let family = u16_at(value, 0).and_then(|family| u8::try_from(family).ok());
                route.gateway = family.and_then(|family| address(family, value.get(2..)?));
            }
            _ => {}
        }
    }
    Some(route)
}

/// A neighbour. `None` if the message is too short for one.
#[must_use]
pub fn neighbour(payload: &[u8]) -> Option<Neighbour> {
    let state = u16_at(payload, 8)?;
    let mac = attributes(payload, NEIGHBOUR_HEAD).find(|(kind, _)| *kind == NDA_LLADDR);
    Some(Neighbour { state, mac: mac.and_then(|(_, value)| Some(Mac(value.try_into().ok()?))) })
}

/// A device. `None` if the message is too short for one, or without a name that a device can have.
#[must_use]
pub fn link(payload: &[u8]) -> Option<Link> {
    let (hardware, flags) = (u16_at(payload, 2)?, u32_at(payload, 8)?);
    let (mut name, mut master) = (None, None);
    for (kind, value) in attributes(payload, LINK_HEAD) {
        match kind {
            IFLA_IFNAME => {
                let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
                name = std::str::from_utf8(text).ok().filter(|name| (1..=MAX_DEVICE).contains(&name.len()));
            }
            IFLA_MASTER => master = u32_at(value, 0).filter(|index| *index != 0),
            _ => {}
        }
    }
    let ethernet = hardware == ARPHRD_ETHER && flags & IFF_LOOPBACK == 0;
    Some(Link { name: name?.to_owned(), master, up: flags & IFF_UP != 0, ethernet })
}

/// What changed, as far as a way to a receiver may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Neighbours, routes or rules.
    Way,
    /// Devices or their addresses: what the kernel refused may work now.
    Device,
}

/// What a notice is about: any about routes, rules, addresses and devices counts; of neighbours those behind a device that
/// matters.
#[must_use]
pub fn change(message: &Message<'_>, devices: impl Fn(u32) -> bool) -> Option<Change> {
    match message.kind {
        RTM_NEWNEIGH | RTM_DELNEIGH => u32_at(message.payload, 4).is_none_or(devices).then_some(Change::Way),
        RTM_NEWROUTE | RTM_DELROUTE | RTM_NEWRULE | RTM_DELRULE => Some(Change::Way),
        RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => Some(Change::Device),
        _ => None,
    }
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    }
}

fn address(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message as the kernel would write it.
    fn answer(kind: u16, head: &[u8], parts: &[(u16, &[u8])]) -> Vec<u8> {
        request(kind, 7, head, parts)
    }

    fn only(bytes: &[u8]) -> Message<'_> {
        let all: Vec<_> = messages(bytes).collect();
        assert_eq!(all.len(), 1);
        all[0]
    }

    #[test]
    fn a_route_by_a_gateway_is_read() {
        let head = [AF_INET, 32, 0, 0, 0, 0, 0, RTN_UNICAST, 0, 0, 0, 0];
        let index = 3_u32.to_ne_bytes();
        let parts: [(u16, &[u8]); 4] = [
            (RTA_DST, &[8, 8, 8, 8]),
            (RTA_OIF, &index),
            (RTA_PREFSRC, &[10, 0, 2, 15]),
            (RTA_GATEWAY, &[10, 0, 2, 2]),
        ];
        let bytes = answer(RTM_NEWROUTE, &head, &parts);
        let read = route(only(&bytes).payload).expect("a route");
        assert_eq!((read.kind, read.device), (RouteKind::Unicast, Some(3)));
        assert_eq!((read.source, read.gateway), (Some([10, 0, 2, 15].into()), Some([10, 0, 2, 2].into())));
    }

    #[test]
    fn a_gateway_of_the_other_family_is_read() {
        let head = [AF_INET, 32, 0, 0, 0, 0, 0, RTN_UNICAST, 0, 0, 0, 0];
        let gateway: Ipv6Addr = "fe80::1".parse().expect("an address");
        let via = [&u16::from(AF_INET6).to_ne_bytes()[..], &gateway.octets()].concat();
        let bytes = answer(RTM_NEWROUTE, &head, &[(RTA_VIA, &via)]);
        assert_eq!(route(only(&bytes).payload).expect("a route").gateway, Some(gateway.into()));
    }

    #[test]
    fn a_neighbour_without_an_address_of_ethernet_has_none() {
        let mut head = [0; NEIGHBOUR_HEAD];
        head[8] = 2;
        let read = |value: &[u8]| neighbour(only(&answer(RTM_NEWNEIGH, &head, &[(NDA_LLADDR, value)])).payload);
        let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(read(&[2, 0, 0, 0, 0, 1]), Some(Neighbour { state: NUD_REACHABLE, mac }));
        assert_eq!(read(&[0; 20]).expect("a neighbour").mac, None);
    }

    #[test]
    fn a_part_of_a_bridge_names_its_master() {
        let mut head = [0; LINK_HEAD];
        head[2..4].copy_from_slice(&ARPHRD_ETHER.to_ne_bytes());
        head[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        let master = 9_u32.to_ne_bytes();
        let bytes = answer(RTM_NEWLINK, &head, &[(IFLA_IFNAME, b"eth0\0"), (IFLA_MASTER, &master)]);
        let expected = Link { name: "eth0".into(), master: Some(9), up: true, ethernet: true };
        assert_eq!(link(only(&bytes).payload), Some(expected));
    }

    #[test]
    fn neighbours_behind_other_devices_do_not_matter() {
        let mut head = [0; NEIGHBOUR_HEAD];
        head[4] = 5;
        let bytes = answer(RTM_NEWNEIGH, &head, &[]);
        assert_eq!(change(&only(&bytes), |index| index == 5), Some(Change::Way));
        assert_eq!(change(&only(&bytes), |index| index == 6), None);
        assert_eq!(change(&only(&answer(RTM_DELROUTE, &[], &[])), |_| false), Some(Change::Way));
        assert_eq!(change(&only(&answer(RTM_NEWLINK, &[], &[])), |_| false), Some(Change::Device));
    }

    #[test]
    fn an_error_tells_its_number() {
        assert_eq!(error(&(-101_i32).to_ne_bytes()), Some(101));
        assert_eq!(error(&[1, 2]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&bytes) {
                let Message { payload, .. } = message;
                let _ = (route(payload), neighbour(payload), link(payload), error(payload));
                std::hint::black_box(change(&message, |_| true));
            }
            let _ = (route(&bytes), neighbour(&bytes), link(&bytes));
        }

        #[test]
        fn an_answer_with_any_lengths_inside_is_read_without_harm(
            lengths in prop::collection::vec((any::<u16>(), any::<u16>()), 0..20),
        ) {
            let parts: Vec<u8> = lengths.iter().flat_map(|(length, kind)| {
                [(length % 24).to_ne_bytes(), (kind % 20).to_ne_bytes(), [1, 2], [3, 4]].concat()
            }).collect();
            let payload = [&[0; 16][..], &parts].concat();
            let _ = (route(&payload), neighbour(&payload), link(&payload));
        }
    }
}
