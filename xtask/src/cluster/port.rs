//! Ports of the loopback interface that nobody uses, so that several rigs run side by side.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

/// `N` free ports, all different. Another program may take one before it is used; then the server that wanted it says so.
pub(crate) fn free<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
        *port = listener.local_addr().context("find a free port")?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn ports_differ_and_are_free() {
        let ports = super::free::<8>().unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 8);
        assert!(std::net::TcpListener::bind(("127.0.0.1", ports[0])).is_ok());
    }
}
