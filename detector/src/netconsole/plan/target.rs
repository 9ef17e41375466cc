//! A target as values: what it is made of, what stands in configfs, and which names are ours.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::contract::netconsole::{TARGET_PREFIX, USERDATA_BOOT, USERDATA_NODE, USERDATA_SECRET};

/// Receivers that a node speaks to at the most: one may die with its node.
pub const RECEIVERS: usize = 2;

/// Names that we give. Twice as many as receivers, so that a new target stands beside the one that it takes the place of.
pub const NAMES: [&str; 2 * RECEIVERS] = ["detector-0a", "detector-0b", "detector-1a", "detector-1b"];

/// Bytes of a device's name at most: `IFNAMSIZ` less its end (`include/uapi/linux/if.h`).
pub const MAX_DEVICE: usize = 15;

/// Bytes of a value of userdata at most: 200 with the closing NUL (`MAX_EXTRADATA_VALUE_LEN`, `drivers/net/netconsole.c`). The
/// name of a Node may have 253.
const MAX_VALUE: usize = 199;

/// Address of an Ethernet device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// The text is no address of an Ethernet device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be six bytes in hexadecimal with colons between")]
pub struct NoMac;

impl Mac {
    /// Whether one device can have it: neither zero nor a group's (IEEE 802, first bit sent).
    #[must_use]
    pub fn is_of_one(self) -> bool {
        self.0 != [0; 6] && self.0[0] & 1 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Mac {
    type Err = NoMac;

    fn from_str(text: &str) -> Result<Self, NoMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()));
            *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or(NoMac)?;
        }
        if parts.next().is_some() { Err(NoMac) } else { Ok(Self(bytes)) }
    }
}

/// Name of a target of ours: nobody else's can be written so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// `name`, if it is one of ours: it begins with [`TARGET_PREFIX`], and is the name of a directory.
    #[must_use]
    pub fn ours(name: &str) -> Option<Self> {
        let own = name.strip_prefix(TARGET_PREFIX).is_some_and(|rest| !rest.is_empty());
        (own && !name.contains(['/', '\0'])).then(|| Self(name.to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Where a target speaks to, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Name of the device that it sends from.
    pub device: String,
    /// Source address.
    pub local: IpAddr,
    /// Source port.
    pub local_port: u16,
    /// Address of the next hop: the receiver's own, or that of the gateway.
    pub mac: Mac,
    /// The receiver.
    pub remote: SocketAddr,
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, local, local_port, mac, remote } = self;
        write!(formatter, "{} from {} at {device} by {mac}", remote, SocketAddr::new(*local, *local_port))
    }
}

/// A target of ours as it stands in configfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: Name,
    /// The kernel sends to it.
    pub enabled: bool,
    /// What it is made of; `None` if that cannot be read as a target, as before it was configured.
    pub target: Option<Target>,
    /// It speaks the extended format, and tells the kernel's release where the kernel can.
    pub sound: bool,
    /// Its userdata; `None` where the kernel knows none (before 6.9).
    pub userdata: Option<BTreeMap<String, String>>,
}

/// Who this node is, as each of its datagrams tells.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// `metadata.name` of the Node.
    pub node: String,
    /// Id of this boot.
    pub boot: String,
    /// The secret of this boot.
    pub secret: String,
}

impl Identity {
    /// Keys and values in `userdata/`, as far as the kernel takes them.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.all().into_iter().filter(|(_, value)| value.len() <= MAX_VALUE)
    }

    /// Keys whose value the kernel does not take.
    pub fn too_long(&self) -> impl Iterator<Item = &'static str> {
        self.all().into_iter().filter(|(_, value)| value.len() > MAX_VALUE).map(|(key, _)| key)
    }

    fn all(&self) -> [(&'static str, &str); 3] {
        [(USERDATA_NODE, &self.node), (USERDATA_BOOT, &self.boot), (USERDATA_SECRET, &self.secret)]
    }

    /// Whether `userdata` tells it.
    #[must_use]
    pub fn stands_in(&self, userdata: &BTreeMap<String, String>) -> bool {
        self.entries().all(|(key, value)| userdata.get(key).is_some_and(|told| told == value))
    }
}

impl fmt::Debug for Identity {
    /// Without the secret: this is what gets into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("node", &self.node).field("boot", &self.boot).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("02:00:5e:10:00:fF", "02:00:5e:10:00:ff")]
    #[case("00:00:00:00:00:00", "00:00:00:00:00:00")]
    fn a_mac_is_read_as_the_kernel_writes_it(#[case] text: &str, #[case] written: &str) {
        assert_eq!(text.parse::<Mac>().map(|mac| mac.to_string()).as_deref(), Ok(written));
    }

    #[rstest]
    fn any_other_text_is_no_mac(
        #[values("", "02", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "+2:00:5e:10:00:01", "2:0:5e:10:0:1")] text: &str,
    ) {
        assert_eq!(text.parse::<Mac>(), Err(NoMac));
    }

    #[test]
    fn a_group_is_no_next_hop() {
        let of_one = |text: &str| text.parse().is_ok_and(Mac::is_of_one);
        assert!(of_one("52:54:00:12:34:56"));
        assert!(!of_one("ff:ff:ff:ff:ff:ff") && !of_one("01:00:5e:00:00:01") && !of_one("00:00:00:00:00:00"));
    }

    #[test]
    fn only_names_with_our_prefix_are_ours() {
        assert!(NAMES.iter().all(|name| Name::ours(name).is_some()));
        for foreign in ["", "cmdline0", "detector", "detector-", "xdetector-0a", "detector-/../cmdline0", "../x"] {
            assert_eq!(Name::ours(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_name_that_the_kernel_does_not_take_is_left_out() {
        let identity = Identity { node: "n".repeat(253), boot: "b".into(), secret: "s".into() };
        assert_eq!(identity.entries().map(|(key, _)| key).collect::<Vec<_>>(), [USERDATA_BOOT, USERDATA_SECRET]);
        assert_eq!(identity.too_long().collect::<Vec<_>>(), [USERDATA_NODE]);
        let told = identity.entries().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        assert!(identity.stands_in(&told));
    }

    #[test]
    fn the_secret_is_in_no_log() {
        let identity = Identity { node: "n".into(), boot: "b".into(), secret: "tell-nobody".into() };
        assert!(!format!("{identity:?}").contains("tell"));
    }
}
