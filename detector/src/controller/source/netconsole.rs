//! The UDP socket that netconsole of all nodes speaks to.
//!
//! One datagram is one recvfrom(2). recvmmsg(2) was measured and takes as long for each (0.70 µs of either, 200 bytes, batches
//! of 64): copying and freeing are the work, not the call. What the kernel itself dropped is read from its table of sockets,
//! which has the same number as `SO_RXQ_OVFL` would add to datagrams, and has it also when none follows.

mod drops;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::net::UdpSocket;

use self::drops::Drops;
use super::{Datagram, MAX_DATAGRAM};
use crate::clock;

/// Bytes that the kernel is asked to hold for us; it counts its own bookkeeping of 500 to 1,000 bytes a datagram, doubles the
/// number for that (socket(7)), and takes the memory only for what is there. Enough for a hundred panics at once where the
/// node allows so much: `net.core.rmem_max`, by default 208 KiB, bounds it without a word.
pub const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Datagrams that are read before others get their turn.
pub const BATCH: usize = 256;

/// A socket that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for netconsole on {address}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// The socket.
#[derive(Debug)]
pub struct Receiver {
    socket: UdpSocket,
    address: SocketAddr,
    buffer_bytes: usize,
    drops: Drops,
    /// One byte more than is looked at, by which a datagram that is too long is known.
    datagram: Box<[u8; MAX_DATAGRAM + 1]>,
}

impl Receiver {
    /// Listens on `address`. An IPv6 address without a host part (`[::]`) hears IPv4 as well, and becomes `0.0.0.0` where the
    /// kernel has no IPv6. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    ///
    /// The address is not the machine's, or taken.
    pub fn listen(address: SocketAddr) -> Result<Self, ListenError> {
        Self::open(address).map_err(|source| ListenError { address, source })
    }

    fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = match bound(address) {
            Err(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL)
                if address.ip() == Ipv6Addr::UNSPECIFIED =>
            {
                bound(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))?
            }
            other => other?,
        };
        let buffer_bytes = sockopt::socket_recv_buffer_size(&socket)?;
        let inode = rustix::fs::fstat(socket.as_fd())?.st_ino;
        let socket = UdpSocket::from_std(StdSocket::from(socket))?;
        let address = socket.local_addr()?;
        let datagram = Box::new([0; MAX_DATAGRAM + 1]);
        Ok(Self { socket, address, buffer_bytes, drops: Drops::new(inode, address.is_ipv6()), datagram })
    }

    /// Where it listens: with the port that it got, if it asked for any.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that the kernel holds for us at most, by its own count.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Waits for datagrams and hands up to [`BATCH`] of them to `each`, in the order of their arrival. Tells the time that
    /// they carry. Safe to be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    ///
    /// The socket broke. What others do (ICMP) is no error.
    pub async fn receive(&mut self, mut each: impl FnMut(Datagram<'_>)) -> io::Result<Duration> {
        self.socket.readable().await?;
        let at = Duration::from_nanos(clock::boot_ns());
        for _ in 0..BATCH {
            match self.socket.try_recv_from(self.datagram.as_mut_slice()) {
                Ok((length, from)) => {
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    each(Datagram { from, at, bytes: self.datagram.get(..length).unwrap_or_default() });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_of_others(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(at)
    }

    /// Datagrams that the kernel had no room for since the start. Reads a file whose length is the number of UDP sockets of
    /// the machine: for a scrape, not for each datagram. `None`: the kernel does not tell (no `/proc`).
    pub fn kernel_dropped(&mut self) -> Option<u64> {
        self.drops.read()
    }
}

fn bound(address: SocketAddr) -> Result<OwnedFd, rustix::io::Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, address.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    // Beyond `net.core.rmem_max` only with CAP_NET_ADMIN; without it the kernel gives what it may.
    if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// A datagram with a wrong checksum, an interrupted call, or an error that a network reports: none is about the socket.
fn is_of_others(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(error.kind(), Interrupted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

#[cfg(test)]
mod tests;
