//! What reaches the controller: datagrams, Nodes, Leases, pods.

pub mod gate;
pub mod lease;
pub mod netconsole;
pub mod node_facts;
pub mod nodes;
pub mod pods;

use std::{net::SocketAddr, time::Duration};

/// A datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it, as the packet says. An IPv4 address is one, also where the socket is IPv6.
    pub from: SocketAddr,
    /// When it was taken from the socket: [`crate::clock::boot_ns`].
    pub at: Duration,
    /// Its bytes. One that is longer than [`MAX_DATAGRAM`] has one byte more than that, and is refused.
    pub bytes: &'a [u8],
}

/// Bytes of a datagram that are looked at. netconsole sends 1,000 of text and a header (`MAX_PRINT_CHUNK`,
/// `drivers/net/netconsole.c`).
pub const MAX_DATAGRAM: usize = 2048;
