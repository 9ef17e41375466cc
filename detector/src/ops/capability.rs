//! Which Linux capabilities this process has, and which of those it needs are missing, each with its reason.

use std::{fmt, fs, io};

use thiserror::Error;

use super::privilege;

/// A capability: its number as in `include/uapi/linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Read files of other users.
    DacReadSearch = 2,
    /// Look into processes of other users.
    SysPtrace = 19,
    /// Much, tracing among it; before Linux 5.8 the only one that allows it.
    SysAdmin = 21,
    /// Raise limits.
    SysResource = 24,
    /// Read the kernel's log, and its addresses.
    Syslog = 34,
    /// Trace the kernel.
    Perfmon = 38,
    /// Load programs into the kernel.
    Bpf = 39,
}

impl Capability {
    /// All that the program can use, the most needed first.
    pub const ALL: [Self; 7] = [
        Self::Bpf,
        Self::Perfmon,
        Self::Syslog,
        Self::DacReadSearch,
        Self::SysAdmin,
        Self::SysPtrace,
        Self::SysResource,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Syslog => "CAP_SYSLOG",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }

    const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// What a process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    effective: u64,
    /// Number of the last capability that the running kernel knows.
    last: u32,
    /// Whether the capabilities hold for the machine, not for a user namespace only.
    whole_machine: bool,
    /// Effective user id.
    uid: Option<u32>,
}

/// Why the rights of this process could not be told.
#[derive(Debug, Error)]
pub enum CapabilityError {
    /// A file of `/proc` cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file of `/proc` does not say what it should.
    #[error("{path} has no {wanted}")]
    Malformed {
        /// The file.
        path: &'static str,
        /// What was looked for in it.
        wanted: &'static str,
    },
}

const STATUS: &str = "/proc/self/status";
const LAST: &str = "/proc/sys/kernel/cap_last_cap";
const UID_MAP: &str = "/proc/self/uid_map";

impl Rights {
    /// The rights of this process.
    ///
    /// # Errors
    ///
    /// `/proc` is not there or unlike any kernel's.
    pub fn of_this_process() -> Result<Self, CapabilityError> {
        let read = |path| fs::read_to_string(path).map_err(|source| CapabilityError::Unreadable { path, source });
        // A kernel without user namespaces has no such file, and only the whole machine to give rights for.
        let uid_map = fs::read_to_string(UID_MAP).ok();
        Self::parse(&read(STATUS)?, &read(LAST)?, uid_map.as_deref())
    }

    /// Reads the rights from the texts of `/proc/PID/status`, `/proc/sys/kernel/cap_last_cap` and, where there is one,
    /// `/proc/PID/uid_map`.
    ///
    /// # Errors
    ///
    /// A text lacks its number.
    pub fn parse(status: &str, last: &str, uid_map: Option<&str>) -> Result<Self, CapabilityError> {
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
            .ok_or(CapabilityError::Malformed { path: STATUS, wanted: "line CapEff with a hexadecimal number" })?;
        let last = last
            .trim()
            .parse()
            .map_err(|_| CapabilityError::Malformed { path: LAST, wanted: "number of a capability" })?;
        let whole_machine = uid_map.is_none_or(maps_every_user);
        Ok(Self { effective, last, whole_machine, uid: effective_uid(status) })
    }

    /// Whether `capability` holds, itself or by `CAP_SYS_ADMIN` where that includes it.
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        self.held_by(capability).is_some()
    }

    /// What `capability` is held by: itself, else `CAP_SYS_ADMIN` where that includes it (capabilities(7)).
    #[must_use]
    pub fn held_by(self, capability: Capability) -> Option<Capability> {
        let wider = matches!(capability, Capability::Perfmon | Capability::Bpf).then_some(Capability::SysAdmin);
        let holds = |one: &Capability| self.effective & one.bit() != 0;
        [Some(capability), wider].into_iter().flatten().find(holds)
    }

    /// Whether the running kernel has this capability.
    #[must_use]
    pub const fn knows(self, capability: Capability) -> bool {
        capability as u32 <= self.last
    }

    /// Whether the capabilities hold for the machine, not for a user namespace only.
    #[must_use]
    pub const fn whole_machine(self) -> bool {
        self.whole_machine
    }

    /// Whether the files of root are this process's own.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.uid == Some(0)
    }

    /// What the probes need on the running kernel. Whether it has the finer capabilities is told by the number of its
    /// last one, not by its version.
    #[must_use]
    pub fn needed_for_probes(self) -> &'static [Capability] {
        if self.last >= Capability::Bpf as u32 {
            &[Capability::Bpf, Capability::Perfmon]
        } else {
            &[Capability::SysAdmin]
        }
    }

    /// What the probes need and this process has not; `None` if it has all.
    #[must_use]
    pub fn missing_for_probes(self) -> Option<Missing> {
        let needed = self.needed_for_probes();
        let missing = Missing { needed, rights: self };
        (!self.whole_machine || missing.capabilities().next().is_some()).then_some(missing)
    }
}

/// `Uid: real effective saved file-system` (proc_pid_status(5)).
fn effective_uid(status: &str) -> Option<u32> {
    let numbers = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    numbers.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The initial user namespace maps all ids to themselves (user_namespaces(7)); the length is 2³² - 1.
fn maps_every_user(uid_map: &str) -> bool {
    uid_map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Capabilities that the probes need and the process has not. As text, a whole sentence for the one who typed the
/// command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    needed: &'static [Capability],
    rights: Rights,
}

impl Missing {
    /// The missing ones.
    pub fn capabilities(&self) -> impl Iterator<Item = Capability> + use<> {
        let rights = self.rights;
        self.needed.iter().copied().filter(move |capability| !rights.has(*capability))
    }
}

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fine = self.rights.knows(Capability::Bpf);
        let with_reason = |one: &Capability| format!("{} ({})", one.name(), privilege::reason_for_probes(*one, fine));
        let needed: Vec<String> = self.needed.iter().map(with_reason).collect();
        write!(f, "detector needs {}; ", needed.join(" and "))?;
        let missing: Vec<Capability> = self.capabilities().collect();
        match (missing.as_slice(), self.needed.len()) {
            ([], _) => {
                return write!(
                    f,
                    "this process has the right names, but in a user namespace of its own only: run it as the \
                     machine's root, not in a rootless container or under unshare"
                );
            }
            ([_], 1) => write!(f, "this process has it not")?,
            ([one], _) => write!(f, "this process lacks {}", one.name())?,
            (_, _) => write!(f, "this process has neither")?,
        }
        let remedy = if self.rights.is_root() { "give it what it lacks" } else { "run it as root or with sudo" };
        write!(f, ": {remedy}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE_MACHINE: &str = "         0          0 4294967295\n";

    fn rights(effective: &str, last: &str, uid_map: &str) -> Rights {
        let status = format!("Name:\tdetector\nCapPrm:\tffffffffffffffff\nCapEff:\t{effective}\nSeccomp:\t0\n");
        Rights::parse(&status, last, Some(uid_map)).expect("a status")
    }

    fn complaint(effective: &str, last: &str, uid_map: &str) -> Option<String> {
        rights(effective, last, uid_map).missing_for_probes().map(|missing| missing.to_string())
    }

    #[test]
    fn root_has_all() {
        assert_eq!(complaint("000001ffffffffff", "40\n", WHOLE_MACHINE), None);
        assert!(rights("000001ffffffffff", "40\n", WHOLE_MACHINE).has(Capability::DacReadSearch));
    }

    #[test]
    fn a_user_without_rights_is_told_both_with_their_reasons() {
        insta::assert_snapshot!(
            complaint("0000000000000000", "40\n", WHOLE_MACHINE).unwrap_or_default(),
            @"detector needs CAP_BPF (load programs and maps) and CAP_PERFMON (attach to tracepoints); this process has neither: run it as root or with sudo"
        );
    }

    #[test]
    fn the_one_missing_right_is_named() {
        insta::assert_snapshot!(
            complaint("0000008000000000", "40\n", WHOLE_MACHINE).unwrap_or_default(),
            @"detector needs CAP_BPF (load programs and maps) and CAP_PERFMON (attach to tracepoints); this process lacks CAP_PERFMON: run it as root or with sudo"
        );
    }

    #[test]
    fn the_two_fine_rights_are_enough() {
        assert_eq!(complaint("000000c000000000", "40\n", WHOLE_MACHINE), None);
    }

    #[test]
    fn sys_admin_stands_for_both_but_reads_no_files() {
        let rights = rights("0000000000200000", "40\n", WHOLE_MACHINE);
        assert_eq!(rights.missing_for_probes(), None);
        assert!(!rights.has(Capability::DacReadSearch));
    }

    #[test]
    fn a_kernel_without_the_finer_rights_wants_sys_admin() {
        assert_eq!(complaint("0000000000200000", "37\n", WHOLE_MACHINE), None);
        let text = complaint("0000000000000000", "37\n", WHOLE_MACHINE).unwrap_or_default();
        assert!(text.starts_with("detector needs CAP_SYS_ADMIN (load"), "{text}");
        assert!(text.ends_with("this process has it not: run it as root or with sudo"), "{text}");
    }

    #[test]
    fn root_of_a_user_namespace_is_not_root() {
        let text = complaint("000001ffffffffff", "40\n", "0 100000 65536\n").unwrap_or_default();
        assert!(text.contains("in a user namespace of its own only"), "{text}");
    }

    #[test]
    fn a_text_without_its_number_is_an_error() {
        let error = Rights::parse("Name:\tx\n", "40", None).expect_err("no CapEff");
        assert_eq!(error.to_string(), "/proc/self/status has no line CapEff with a hexadecimal number");
        assert!(Rights::parse("CapEff:\txyz\n", "40", None).is_err());
        assert!(Rights::parse("CapEff:\t0\n", "many", None).is_err());
    }

    #[test]
    fn this_process_can_be_asked() {
        assert!(Rights::of_this_process().is_ok());
    }
}
