//! The way to a receiver: source address, device, and the MAC address of the next hop, as the kernel's tables have them.
//!
//! netconsole neither routes nor resolves (`net/core/netpoll.c`): what it needs is looked up here, as any other packet to
//! the receiver would find it, and looked up again when the kernel says that it may have changed.

pub mod message;
pub mod socket;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use thiserror::Error;

pub use self::{
    message::{Link, Neighbour, Route, RouteKind},
    socket::{Monitor, NetlinkError, Tables},
};
use super::plan::{Mac, Target};

/// The kernel's tables, as one asks them.
pub trait Network {
    /// The route that a packet to `to` takes; `None`: there is none.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn route(&self, to: IpAddr) -> Result<Option<Route>, NetlinkError>;

    /// The device with this index; `None`: there is none.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn link(&self, index: u32) -> Result<Option<Link>, NetlinkError>;

    /// What is known of the neighbour with this address behind that device; `None`: nothing.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn neighbour(&self, index: u32, address: IpAddr) -> Result<Option<Neighbour>, NetlinkError>;
}

/// Why there is no way to a receiver, now.
#[derive(Debug, Error)]
pub enum NoPath {
    /// No address of the receiver has a route.
    #[error("there is no route to {0}")]
    NoRoute(IpAddr),
    /// It is this very machine.
    #[error("{0} is an address of this machine: netconsole's frames leave it, and none returns")]
    Itself(IpAddr),
    /// The route does not say which address to send from, or one of the other family.
    #[error("the route to {0} names no source address")]
    NoSource(IpAddr),
    /// The device went in between.
    #[error("the device with index {0} is gone")]
    NoDevice(u32),
    /// The device belongs to another; netpoll refuses it with EBUSY (`netpoll_setup`, `net/core/netpoll.c`).
    #[error(
        "{device} is part of the device with index {master}, and netconsole sends from that only; the route must lead there"
    )]
    Part {
        /// Its name.
        device: String,
        /// Index of the device that it is a part of.
        master: u32,
    },
    /// The device has no addresses as Ethernet has.
    #[error("{0} is not an Ethernet device, and netconsole sends frames of Ethernet only")]
    NotEthernet(String),
    /// The device is down.
    #[error("{0} is down")]
    Down(String),
    /// The next hop has not answered yet, or not any more.
    #[error("the MAC address of {hop} behind {device} is not known")]
    Unresolved {
        /// The next hop.
        hop: IpAddr,
        /// Name of the device.
        device: String,
        /// Where to send a datagram from, so that the kernel asks for it.
        local: IpAddr,
    },
    /// The kernel could not be asked.
    #[error("ask the kernel for the way to {to}")]
    Netlink {
        /// The receiver.
        to: IpAddr,
        /// Why.
        source: NetlinkError,
    },
}

/// The way to one address of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The target that leads there.
    pub target: Target,
    /// Index of the device.
    pub index: u32,
    /// The kernel heard from the next hop lately. If not, a datagram makes it ask again.
    pub confirmed: bool,
}

/// The way to a receiver: by the first of its addresses that has one; else why the first that has a route has none.
///
/// `devices` gets the index of each device that matters, also where there is no way.
///
/// # Errors
/// As [`NoPath`] tells.
pub fn find(
    network: &impl Network,
    addresses: &[SocketAddr],
    local_port: u16,
    devices: &mut BTreeSet<u32>,
) -> Result<Path, NoPath> {
    let mut why = None;
    for address in addresses {
        match find_one(network, *address, local_port, devices) {
            Ok(path) => return Ok(path),
            Err(cause) => {
                let better = matches!(why, None | Some(NoPath::NoRoute(_)));
                if better {
                    why = Some(cause);
                }
            }
        }
    }
    Err(why.unwrap_or(NoPath::NoRoute(IpAddr::from([0, 0, 0, 0]))))
}

fn find_one(
    network: &impl Network,
    remote: SocketAddr,
    local_port: u16,
    devices: &mut BTreeSet<u32>,
) -> Result<Path, NoPath> {
    let to = remote.ip();
    let asked = |source| NoPath::Netlink { to, source };
    let route = network.route(to).map_err(asked)?.ok_or(NoPath::NoRoute(to))?;
    match route.kind {
        RouteKind::Unicast => {}
        RouteKind::Local => return Err(NoPath::Itself(to)),
        RouteKind::Other(_) => return Err(NoPath::NoRoute(to)),
    }
    let index = route.device.ok_or(NoPath::NoRoute(to))?;
    devices.insert(index);
    let local = route.source.filter(|source| source.is_ipv4() == to.is_ipv4()).ok_or(NoPath::NoSource(to))?;
    let link = network.link(index).map_err(asked)?.ok_or(NoPath::NoDevice(index))?;
    let Link { name: device, master, up, ethernet } = link;
    if let Some(master) = master {
        return Err(NoPath::Part { device, master });
    }
    if !ethernet {
        return Err(NoPath::NotEthernet(device));
    }
    if !up {
        return Err(NoPath::Down(device));
    }
    let hop = route.gateway.unwrap_or(to);
    let neighbour = network.neighbour(index, hop).map_err(asked)?;
    let usable =
        neighbour.and_then(|known| Some((known.usable_mac().filter(|mac| mac.is_of_one())?, known.confirmed())));
    match usable {
        Some((mac, confirmed)) => {
            Ok(Path { target: Target { device, local, local_port, mac, remote }, index, confirmed })
        }
        None => Err(NoPath::Unresolved { hop, device, local }),
    }
}

impl Neighbour {
    /// Its address, as long as the kernel itself would send there.
    fn usable_mac(&self) -> Option<Mac> {
        (self.state & message::NUD_VALID != 0).then_some(self.mac)?
    }

    /// Whether it answered lately, or need not.
    fn confirmed(&self) -> bool {
        self.state & (message::NUD_REACHABLE | message::NUD_PERMANENT | message::NUD_NOARP) != 0
    }
}

#[cfg(test)]
mod tests;
