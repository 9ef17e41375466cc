//! A datagram's address and what it says of itself → the Node whose kernel sent it, and how sure that is.
//!
//! | the record names a Node | with the secret | its address is that of | is from |
//! |---|---|---|---|
//! | yes | yes, the right one | whoever | that Node, by its signature |
//! | yes | yes, another | whoever | nobody |
//! | yes | of a Node that published none | that Node alone | that Node, by its address |
//! | yes | no | that Node alone | that Node, by its address |
//! | yes | no | another, several, or none | nobody |
//! | no | | one Node | that Node, by its address |
//! | no | | several Nodes, or none | nobody |
//!
//! Nothing is from the controller's own node: netconsole leaves below the local stack and never arrives at its own machine, so
//! whatever has that sender was forged.

use core::net::IpAddr;
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use ring::digest::{SHA256, digest};

use super::NodeFacts;
use crate::{
    contract::metric::controller::SenderResult,
    controller::{decode::Userdata, source::node_facts::MAX_ADDRESSES},
};

const HASH_BYTES: usize = 32;

/// Who sent a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The Node of this name, as its secret proves.
    Signed(Arc<str>),
    /// The Node of this name, if its address was not forged.
    Address(Arc<str>),
    /// Nobody that it could be evidence of.
    Nobody(Doubt),
}

/// Why a record is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Neither address nor name is a Node's.
    Unknown,
    /// The address is that of several Nodes.
    Ambiguous,
    /// The secret is not that of the Node that it names.
    WrongSecret,
    /// It names a Node without proof, and comes from elsewhere.
    Contradicted,
    /// It claims to be the controller's own node.
    Own,
}

impl Sender {
    /// How it is counted.
    #[must_use]
    pub fn result(&self) -> SenderResult {
        match self {
            Self::Signed(_) => SenderResult::Signed,
            Self::Address(_) => SenderResult::Address,
            Self::Nobody(Doubt::Unknown) => SenderResult::Unknown,
            Self::Nobody(Doubt::Ambiguous) => SenderResult::Ambiguous,
            Self::Nobody(Doubt::WrongSecret) => SenderResult::WrongSecret,
            Self::Nobody(Doubt::Contradicted) => SenderResult::Contradicted,
            Self::Nobody(Doubt::Own) => SenderResult::Own,
        }
    }
}

/// Nodes by name and by address.
#[derive(Debug, Default)]
pub struct Senders {
    /// The controller's own node.
    own: Option<String>,
    nodes: HashMap<Arc<str>, Identity>,
    /// Most addresses have one holder.
    holders: HashMap<IpAddr, Vec<Arc<str>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Identity {
    /// In order, each once, unmapped.
    addresses: Vec<IpAddr>,
    /// `None`: not published, or not a hash.
    secret: Option<[u8; HASH_BYTES]>,
}

impl Senders {
    /// No Nodes yet. `own`: the node that the controller runs on, if it knows.
    #[must_use]
    pub fn new(own: Option<String>) -> Self {
        Self { own, ..Self::default() }
    }

    /// A Node is there or changed. Cheap where none of this changed, as with each heartbeat.
    pub fn upsert(&mut self, node: &NodeFacts) {
        let identity = Identity::of(node);
        let name = match self.nodes.get_key_value(node.name.as_str()) {
            Some((_, known)) if *known == identity => return,
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(node.name.as_str()),
        };
        self.leave_addresses(&name);
        for address in &identity.addresses {
            self.holders.entry(*address).or_default().push(Arc::clone(&name));
        }
        self.nodes.insert(name, identity);
    }

    /// A Node is gone.
    pub fn remove(&mut self, name: &str) {
        if let Some((name, _)) = self.nodes.get_key_value(name) {
            let name = Arc::clone(name);
            self.leave_addresses(&name);
            self.nodes.remove(&name);
        }
    }

    /// Whether the address is that of any Node.
    #[must_use]
    pub fn knows(&self, address: IpAddr) -> bool {
        self.holders.contains_key(&address.to_canonical())
    }

    /// Who sent a record that came from `address` and says `claim` of itself.
    #[must_use]
    pub fn sender(&self, address: IpAddr, claim: &Userdata) -> Sender {
        let holders = self.holders.get(&address.to_canonical()).map(Vec::as_slice).unwrap_or_default();
        let Some(named) = claim.node.as_deref() else { return self.holder(holders) };
        let (Some(secret), Some((name, identity))) = (claim.secret.as_deref(), self.nodes.get_key_value(named)) else {
            return self.named(holders, named);
        };
        if self.is_own(named) {
            return Sender::Nobody(Doubt::Own);
        }
        match &identity.secret {
            Some(hash) if is_hash_of(hash, secret) => Sender::Signed(Arc::clone(name)),
            Some(_) => Sender::Nobody(Doubt::WrongSecret),
            None => self.named(holders, named),
        }
    }

    /// The only holder of an address.
    fn holder(&self, holders: &[Arc<str>]) -> Sender {
        match holders {
            [] => Sender::Nobody(Doubt::Unknown),
            [own] if self.is_own(own) => Sender::Nobody(Doubt::Own),
            [only] => Sender::Address(Arc::clone(only)),
            _ => Sender::Nobody(Doubt::Ambiguous),
        }
    }

    /// The only holder of an address, if it is the one that is named.
    fn named(&self, holders: &[Arc<str>], named: &str) -> Sender {
        match self.holder(holders) {
            Sender::Address(holder) if *holder != *named => Sender::Nobody(Doubt::Contradicted),
            Sender::Nobody(Doubt::Unknown) if self.nodes.contains_key(named) => Sender::Nobody(Doubt::Contradicted),
            sender => sender,
        }
    }

    fn is_own(&self, node: &str) -> bool {
        self.own.as_deref() == Some(node)
    }

    fn leave_addresses(&mut self, name: &Arc<str>) {
        for address in self.nodes.get(name).map(|node| node.addresses.as_slice()).unwrap_or_default() {
            if let Entry::Occupied(mut holders) = self.holders.entry(*address) {
                holders.get_mut().retain(|holder| holder != name);
                if holders.get().is_empty() {
                    holders.remove();
                }
            }
        }
    }
}

impl Identity {
    fn of(node: &NodeFacts) -> Self {
        let mut addresses: Vec<_> = node.addresses.iter().map(IpAddr::to_canonical).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MAX_ADDRESSES);
        Self { addresses, secret: node.secret_sha256.as_deref().and_then(hash) }
    }
}

/// A hash of lower-case hexadecimal digits.
fn hash(text: &str) -> Option<[u8; HASH_BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut hash = [0; HASH_BYTES];
    if pairs.len() != HASH_BYTES || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(hash)
}

/// Compares all bytes, whichever differ. Everybody can read the hash of a Node, so that the time of the comparison tells
/// nothing new: this is so that it does not have to be thought about again if that changes.
fn is_hash_of(hash: &[u8; HASH_BYTES], secret: &str) -> bool {
    let told = digest(&SHA256, secret.as_bytes());
    let differing = hash.iter().zip(told.as_ref()).fold(0, |sum, (one, other)| sum | (one ^ other));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests;
