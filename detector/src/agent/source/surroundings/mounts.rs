//! Where tracefs and the BPF file system are mounted: lines of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

/// Places where the loader of BPF programs looks for tracefs, best first.
pub const TRACEFS_PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// File systems that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Where tracefs is: at one of [`TRACEFS_PLACES`] if at all there.
    pub tracefs: Option<String>,
    /// Whether this process may list it.
    pub tracefs_readable: bool,
    /// Where a BPF file system is.
    pub bpffs: Option<String>,
}

impl Mounts {
    /// Finds them among the lines of `mountinfo`. `may_list` tells whether a directory can be listed.
    #[must_use]
    pub fn parse(mountinfo: &str, may_list: impl Fn(&str) -> bool) -> Self {
        let of_kind = |wanted: &str| -> Vec<&str> {
            let mounts = mountinfo.lines().filter_map(point_and_kind);
            mounts.filter(|(_, kind)| *kind == wanted).map(|(point, _)| point).collect()
        };
        let tracefs = of_kind("tracefs");
        let usual = TRACEFS_PLACES.into_iter().find(|place| tracefs.contains(place));
        let tracefs = usual.or_else(|| tracefs.first().copied());
        Self {
            tracefs: tracefs.map(str::to_owned),
            tracefs_readable: tracefs.is_some_and(may_list),
            bpffs: of_kind("bpf").first().map(|point| (*point).to_owned()),
        }
    }
}

/// `36 35 98:0 /root /point options optional… - type source super-options`.
fn point_and_kind(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    Some((before.split(' ').nth(4)?, after.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const USUAL: &str = "35 23 0:12 / /sys/kernel/tracing rw,nosuid shared:15 - tracefs tracefs rw";
    const OLD: &str = "36 24 0:12 / /sys/kernel/debug/tracing rw - tracefs tracefs rw";
    const ELSEWHERE: &str = "37 24 0:12 / /mnt/trace rw - tracefs none rw";
    const BPF: &str = "33 23 0:31 / /sys/fs/bpf rw,nosuid shared:11 - bpf bpf rw,mode=700";

    #[rstest]
    #[case::both(&[OLD, BPF, USUAL], Some("/sys/kernel/tracing"), Some("/sys/fs/bpf"))]
    #[case::old(&[ELSEWHERE, OLD], Some("/sys/kernel/debug/tracing"), None)]
    #[case::elsewhere(&[ELSEWHERE], Some("/mnt/trace"), None)]
    #[case::neither(&["22 1 0:1 / / rw - ext4 /dev/vda rw"], None, None)]
    #[case::damaged(&["", " - ", "x - tracefs", "1 2 3 4"], None, None)]
    fn mounts_are_found(#[case] lines: &[&str], #[case] tracefs: Option<&str>, #[case] bpffs: Option<&str>) {
        let mounts = Mounts::parse(&lines.join("\n"), |_| true);
        assert_eq!((mounts.tracefs.as_deref(), mounts.bpffs.as_deref()), (tracefs, bpffs));
        assert_eq!(mounts.tracefs_readable, tracefs.is_some());
    }

    #[test]
    fn a_closed_tracefs_says_so() {
        assert!(!Mounts::parse(USUAL, |_| false).tracefs_readable);
    }
}
