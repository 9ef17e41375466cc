//! What dying kernels sent: recordings (`tests/fixtures/netconsole`), told of another node, and sent from an address of this
//! machine.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
};

use anyhow::{Context as _, Result};

/// The secret that the recorded kernels sign with.
pub const SECRET: &str = "00112233445566778899aabbccddeeff";

/// SHA-256 of [`SECRET`], as it stands in a Node's annotation.
pub const SECRET_SHA256: &str = "5947d7c33d783f94b3b4c1a96ebc8991ed28f1b069b71e03376cba8caa98a720";

/// Names in the recordings.
const NODE: &str = "detector_node=node-a\n";
const BOOT: &str = "detector_boot=";

/// Datagrams of one death.
#[derive(Clone, Debug)]
pub struct Recording {
    /// In the order in which they were sent.
    pub datagrams: Vec<Vec<u8>>,
}

impl Recording {
    /// The recording of this name, as it is: `oom-6.12` and `sysrq-6.12` sign, `sysrq-6.1` does not.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("find the source tree")?;
        let path = root.join(format!("tests/fixtures/netconsole/{name}.bin"));
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self { datagrams: split(&bytes).with_context(|| format!("understand {}", path.display()))? })
    }

    /// The same, said by another node in another boot. Fragments cannot be told anew.
    #[must_use]
    pub fn of(&self, node: &str, boot: &str) -> Self {
        Self { datagrams: self.datagrams.iter().map(|datagram| retold(datagram, node, boot)).collect() }
    }

    /// Without what the node says of itself: known by its address alone.
    #[must_use]
    pub fn unsigned(&self) -> Self {
        let bare = |datagram: &Vec<u8>| {
            let end = datagram.iter().position(|byte| *byte == b'\n').map_or(datagram.len(), |at| at + 1);
            datagram[..end].to_vec()
        };
        Self { datagrams: self.datagrams.iter().map(bare).collect() }
    }

    /// The same with another secret.
    #[must_use]
    pub fn with_secret(&self, secret: &str) -> Self {
        let other = |datagram: &Vec<u8>| text(datagram).replace(SECRET, secret).into_bytes();
        Self { datagrams: self.datagrams.iter().map(other).collect() }
    }
}

/// Sends datagrams from an address of the loopback network to ports of this machine, each to all of them in turn.
///
/// # Errors
/// The kernel refuses.
pub fn send(from: Ipv4Addr, to: &[u16], datagrams: &[impl AsRef<[u8]>]) -> Result<()> {
    let socket = UdpSocket::bind((from, 0)).with_context(|| format!("send from {from}"))?;
    for datagram in datagrams {
        for port in to {
            socket.send_to(datagram.as_ref(), (Ipv4Addr::LOCALHOST, *port)).context("send a datagram")?;
        }
    }
    Ok(())
}

/// Each datagram stands after its length, two bytes, little endian.
fn split(mut recording: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    while let Some((length, rest)) = recording.split_first_chunk::<2>() {
        let (datagram, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        all.push(datagram.to_vec());
        recording = rest;
    }
    Some(all)
}

fn retold(datagram: &[u8], node: &str, boot: &str) -> Vec<u8> {
    let text = text(datagram).replace(NODE, &format!("detector_node={node}\n"));
    let Some((before, rest)) = text.split_once(BOOT) else { return text.into_bytes() };
    let after = rest.split_once('\n').map_or("", |(_, after)| after);
    format!("{before}{BOOT}{boot}\n{after}").into_bytes()
}

fn text(datagram: &[u8]) -> String {
    String::from_utf8_lossy(datagram).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_told_of_another_node() {
        let told = Recording::named("oom-6.12").unwrap().of("node-7", "b-1");
        for datagram in &told.datagrams {
            let text = text(datagram);
            assert!(text.contains(" detector_node=node-7\n detector_boot=b-1\n detector_secret="), "{text}");
        }
        assert!(told.datagrams.iter().any(|datagram| text(datagram).contains("compulsory panic_on_oom")));
    }

    #[test]
    fn what_is_unsigned_names_nobody() {
        let bare = Recording::named("oom-6.12").unwrap().unsigned();
        assert!(
            bare.datagrams
                .iter()
                .all(|datagram| !text(datagram).contains("detector_") || text(datagram).contains("self test"))
        );
    }
}
