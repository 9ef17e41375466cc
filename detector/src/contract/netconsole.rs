//! What node and controller tell each other about netconsole: names of targets and userdata, the Node's annotation, the self
//! test.

/// UDP port that the controller listens on by default, and that netconsole speaks to by default
/// (`Documentation/networking/netconsole.rst`).
pub const PORT: u16 = 6666;

/// Names of the targets that we make in configfs begin so; nothing else is ever touched.
pub const TARGET_PREFIX: &str = "detector-";

/// Key in `userdata/`: `metadata.name` of the Node.
pub const USERDATA_NODE: &str = "detector_node";

/// Key in `userdata/`: `/proc/sys/kernel/random/boot_id`.
pub const USERDATA_BOOT: &str = "detector_boot";

/// Key in `userdata/`: a secret that the node made for this boot, [`SECRET_BYTES`] random bytes in hexadecimal.
///
/// It travels in clear: it keeps those out who can send packets and cannot read the node's. Datagrams are signed with
/// nothing else, so that more than a reason is written only with a witness besides.
pub const USERDATA_SECRET: &str = "detector_secret";

/// Random bytes of the secret.
pub const SECRET_BYTES: usize = 16;

/// Annotation of the Node: SHA-256 of the secret's text, in lower-case hexadecimal.
pub const NODE_ANNOTATION: &str = "detector.dev/netconsole-secret-sha256";

/// A self test is one line that the node writes into its own `/dev/kmsg`: this, the name of the node, a blank, and a nonce of
/// up to [`MAX_NONCE_BYTES`] letters and digits. It has a facility that is not the kernel's, and is no evidence of anything.
pub const SELF_TEST_MARK: &str = "detector: netconsole self test ";

/// Bytes of a nonce at most.
pub const MAX_NONCE_BYTES: usize = 32;

/// TCP port at which the controller serves health and metrics by default, and self tests ask: another one than the agent's
/// two, in whose network it is.
pub const CONTROLLER_PORT: u16 = 20260;

/// Path at the controller's health port that answers 200 if a self test with the nonce that follows has arrived in the last
/// minutes, else 404.
pub const HEARD_PATH: &str = "/netconsole/heard/";

/// Label of the controller's headless Service whose EndpointSlices name the receivers, and name of their port.
pub const RECEIVER_PORT_NAME: &str = "netconsole";

/// SHA-256 of `secret` in lower-case hexadecimal, as it stands in [`NODE_ANNOTATION`].
#[cfg(any(feature = "agent", feature = "controller"))]
#[must_use]
pub fn secret_sha256(secret: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
