//! The kernel's side: a socket that asks for routes, devices and neighbours, and one that hears of their changes.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv, send,
        socket_with,
    },
};
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::{
    Link, Neighbour, Network, Route,
    message::{self, Change, Message, NLMSG_ERROR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE},
};

/// Room for one answer: the kernel's own are at most a page, but for a device with many virtual functions.
const ANSWER: usize = 32 * 1024;

/// Messages that are looked at for one answer, and batches of notices that are read in one turn.
const LOOKS: usize = 64;

/// Groups of notices (`RTMGRP_*`): devices, neighbours, addresses, routes and rules of both families.
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << (RTNLGRP_IPV6_RULE - 1);
const RTNLGRP_IPV6_RULE: u32 = 19;

/// Where a datagram is sent that nobody waits for (RFC 863): all that counts is that the kernel looks for the next hop.
const DISCARD: u16 = 9;

/// Why the kernel's tables are not known.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The socket.
    #[error("{attempt} a netlink socket")]
    Socket {
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses to tell.
    #[error("the kernel refuses to tell about {0}")]
    Refused(&'static str, #[source] io::Error),
    /// The answer is not one to what was asked.
    #[error("the kernel's answer about {0} cannot be read")]
    Unreadable(&'static str),
}

fn socket(attempt: &'static str) -> impl Fn(Errno) -> NetlinkError {
    move |errno| NetlinkError::Socket { attempt, source: errno.into() }
}

fn open(groups: u32) -> Result<OwnedFd, NetlinkError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is `NETLINK_ROUTE`.
    let descriptor = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).map_err(socket("make"))?;
    bind(&descriptor, &SocketAddrNetlink::new(0, groups)).map_err(socket("bind"))?;
    Ok(descriptor)
}

/// The tables of the network namespace of this process.
#[derive(Debug)]
pub struct Tables {
    descriptor: OwnedFd,
    sequence: AtomicU32,
}

impl Tables {
    /// Opens them; needs no right.
    ///
    /// # Errors
    /// If there are no netlink sockets.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { descriptor: open(0)?, sequence: AtomicU32::new(1) })
    }

    /// Asks, and gives what `read` makes of the answer of this `kind`; `None` if the kernel says with `absent` that there is
    /// none. The kernel answers while it takes the question (`netlink_rcv_skb`), so that nobody waits.
    fn ask<T>(
        &self,
        about: &'static str,
        question: impl Fn(u32) -> Vec<u8>,
        kind: u16,
        read: impl Fn(&[u8]) -> Option<T>,
        absent: &[Errno],
    ) -> Result<Option<T>, NetlinkError> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        send(&self.descriptor, &question(sequence), SendFlags::empty()).map_err(socket("write to"))?;
        let mut buffer = vec![0; ANSWER];
        for _ in 0..LOOKS {
            let (length, _) = recv(&self.descriptor, &mut buffer, RecvFlags::empty()).map_err(socket("read from"))?;
            let ours = |message: &Message<'_>| message.sequence == sequence;
            let Some(message) = message::messages(&buffer[..length]).find(ours) else { continue };
            if message.kind == kind {
                return read(message.payload).map(Some).ok_or(NetlinkError::Unreadable(about));
            }
            let number = (message.kind == NLMSG_ERROR).then(|| message::error(message.payload)).flatten();
            let number = number.ok_or(NetlinkError::Unreadable(about))?;
            let errno = Errno::from_raw_os_error(number);
            return if absent.contains(&errno) { Ok(None) } else { Err(NetlinkError::Refused(about, errno.into())) };
        }
        Err(NetlinkError::Unreadable(about))
    }
}

impl Network for Tables {
    fn route(&self, to: IpAddr) -> Result<Option<Route>, NetlinkError> {
        // EINVAL, EACCES and EHOSTUNREACH are routes of the kinds blackhole, prohibit and unreachable (ip-route(8)).
        let absent = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL, Errno::AFNOSUPPORT];
        self.ask("a route", |sequence| message::ask_route(sequence, to), RTM_NEWROUTE, message::route, &absent)
    }

    fn link(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let question = |sequence| message::ask_link(sequence, index);
        self.ask("a device", question, RTM_NEWLINK, message::link, &[Errno::NODEV])
    }

    fn neighbour(&self, index: u32, address: IpAddr) -> Result<Option<Neighbour>, NetlinkError> {
        let question = |sequence| message::ask_neighbour(sequence, index, address);
        self.ask("a neighbour", question, RTM_NEWNEIGH, message::neighbour, &[Errno::NOENT, Errno::NODEV])
    }
}

/// Has the kernel look for the next hop on the way to `to`: by an empty datagram. An answer is not waited for.
///
/// # Errors
/// If it cannot be sent.
pub fn provoke(local: IpAddr, to: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::new(local, 0))?;
    socket.set_nonblocking(true)?;
    socket.send_to(&[], SocketAddr::new(to, DISCARD)).map(drop)
}

/// Hears when something changes.
#[derive(Debug)]
pub struct Monitor {
    descriptor: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Listens from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If there are no netlink sockets.
    pub fn open() -> Result<Self, NetlinkError> {
        let descriptor = open(GROUPS)?;
        #[expect(
            deprecated,
            reason = "its unsafe successor asks that the descriptor stays open, which an `OwnedFd` sees to"
        )]
        let descriptor = AsyncFd::new(descriptor);
        let descriptor = descriptor.map_err(|source| NetlinkError::Socket { attempt: "wait for", source })?;
        Ok(Self { descriptor, buffer: vec![0; ANSWER] })
    }

    /// Waits for a change that may matter: of neighbours only one behind the `devices`. May be dropped half way.
    ///
    /// # Errors
    /// If the socket cannot be read.
    pub async fn changed(&mut self, devices: impl Fn(u32) -> bool + Copy) -> Result<Change, NetlinkError> {
        loop {
            let ready = self.descriptor.readable().await;
            let mut ready = ready.map_err(|source| NetlinkError::Socket { attempt: "wait for", source })?;
            if let Some(change) = drain(ready.get_inner(), &mut self.buffer, devices)? {
                return Ok(change);
            }
            ready.clear_ready();
        }
    }
}

/// Reads the notices that wait; what changed, if it matters.
fn drain(
    descriptor: &OwnedFd,
    buffer: &mut [u8],
    devices: impl Fn(u32) -> bool + Copy,
) -> Result<Option<Change>, NetlinkError> {
    let mut most = None;
    for _ in 0..LOOKS {
        match recv(descriptor, &mut *buffer, RecvFlags::empty()) {
            Ok((length, _)) => {
                let changes = message::messages(&buffer[..length]).map(|message| message::change(&message, devices));
                most = most.max(changes.max().flatten());
            }
            // Some were lost: any of them may matter.
            Err(Errno::NOBUFS) => most = Some(Change::Device),
            Err(Errno::AGAIN) => return Ok(most),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(socket("read from")(errno)),
        }
    }
    // There may be more, which are read with the next turn.
    Ok(most.or(Some(Change::Way)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netconsole::path::RouteKind;

    #[test]
    fn the_way_to_this_very_machine_is_local_and_leads_to_the_loopback_device() {
        let tables = Tables::open().expect("a socket");
        let route = tables.route([127, 0, 0, 1].into()).expect("an answer").expect("a route");
        assert_eq!(route.kind, RouteKind::Local);
        let link = tables.link(route.device.expect("a device")).expect("an answer").expect("a device");
        assert!(!link.ethernet && link.name == "lo", "{link:?}");
    }

    #[test]
    fn what_is_not_there_is_an_answer() {
        let tables = Tables::open().expect("a socket");
        assert_eq!(tables.link(0x7fff_fff0).expect("an answer"), None);
        assert_eq!(tables.neighbour(1, [192, 0, 2, 1].into()).expect("an answer"), None);
    }

    #[tokio::test]
    async fn at_rest_nothing_is_told() {
        let mut monitor = Monitor::open().expect("a socket");
        let told = tokio::time::timeout(std::time::Duration::ZERO, monitor.changed(|_| false)).await;
        assert!(told.is_err() || told.is_ok_and(|changed| changed.is_ok()));
    }
}
