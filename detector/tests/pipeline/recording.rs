//! Records as they were recorded, and ways to change them.

use std::{collections::VecDeque, fs, path::Path};

use detector::agent::source::{
    Records,
    bpf::health::{Dropped, HealthError},
};
use detector_common::{
    Kind,
    cgroup::CgroupLife,
    counter::Ring,
    oom::{OomMark, flags},
};
use zerocopy::{FromBytes, IntoBytes};

/// Records in two rings.
#[derive(Clone, Default)]
pub(crate) struct Recording {
    pub(crate) bulk: VecDeque<Vec<u8>>,
    pub(crate) precious: VecDeque<Vec<u8>>,
    /// What the kernel side says it lost.
    pub(crate) dropped: Vec<Dropped>,
    /// The bulk ring shows its records only after one of the precious ring was read.
    pub(crate) bulk_is_late: bool,
}

impl Recording {
    /// Reads `tests/fixtures/ring/<name>.bin`.
    pub(crate) fn of(name: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/ring").join(name);
        let bytes = fs::read(file.with_extension("bin")).expect("the recording exists");
        let mut recording = Self::default();
        let mut rest = bytes.as_slice();
        while let Ok((frame, tail)) = <[u32; 2]>::read_from_prefix(rest) {
            let (record, tail) = tail.split_at(u32::from_le(frame[1]) as usize);
            match u32::from_le(frame[0]) {
                ring if ring == Ring::Precious as u32 => recording.precious.push_back(record.to_vec()),
                _ => recording.bulk.push_back(record.to_vec()),
            }
            rest = tail;
        }
        assert!(rest.is_empty(), "{name} ends inside a frame");
        recording
    }

    /// All recordings that hold a kill or the life of cgroups.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let names = [
            "plain-child",
            "kubepods-cgroupfs",
            "kubepods-systemd",
            "pod-limit",
            "ancestor-limit",
            "equal-limits",
            "two-in-turn",
            "four-threads",
            "thread-victim",
            "namespace-init",
            "namespace-child",
            "removed-at-once",
            "life",
        ];
        names.into_iter().map(Self::of)
    }

    /// The first recorded mark.
    pub(crate) fn mark(&self) -> OomMark {
        OomMark::read_from_bytes(&self.precious[0]).expect("a whole mark")
    }

    /// Puts `marks` in place of the recorded ones.
    pub(crate) fn with_marks(mut self, marks: impl IntoIterator<Item = OomMark>) -> Self {
        self.precious = marks.into_iter().map(|mark| mark.as_bytes().to_vec()).collect();
        self
    }

    /// Changes the one recorded mark.
    pub(crate) fn with_mark(self, change: impl FnOnce(&mut OomMark)) -> Self {
        let mut mark = self.mark();
        change(&mut mark);
        self.with_marks([mark])
    }

    /// The same records as a machine with cgroup v2 would have written them.
    pub(crate) fn on_version_2(mut self) -> Self {
        for record in &mut self.bulk {
            let (life, _) = CgroupLife::mut_from_prefix(record).expect("a record of cgroup life");
            life.cgroup.hierarchy = 0;
        }
        for record in &mut self.precious {
            let mark = OomMark::mut_from_bytes(record).expect("a whole mark");
            mark.victim.cgroup.hierarchy = 0;
            mark.trigger.cgroup.hierarchy = 0;
        }
        self
    }

    /// A record of a cgroup that has nothing to do with any other, `boot_ns` after boot.
    pub(crate) fn unrelated_cgroup(&self, boot_ns: u64) -> Vec<u8> {
        let (mut life, _) = CgroupLife::read_from_prefix(&self.bulk[0]).expect("a record of cgroup life");
        life.header.boot_ns = boot_ns;
        life.header.kind = Kind::CGROUP_MADE;
        life.header.length = size_of::<CgroupLife>() as u32 + 8;
        life.cgroup.id = u64::MAX;
        life.path_length = 6;
        [life.as_bytes(), b"/other\0\0"].concat()
    }
}

impl Records for Recording {
    fn next(&mut self, ring: Ring, record: &mut Vec<u8>) -> bool {
        let next = match ring {
            Ring::Precious => {
                self.bulk_is_late = false;
                self.precious.pop_front()
            }
            Ring::Bulk if self.bulk_is_late => None,
            Ring::Bulk => self.bulk.pop_front(),
        };
        let Some(bytes) = next else { return false };
        *record = bytes;
        true
    }

    fn dropped(&self) -> Result<Vec<Dropped>, HealthError> {
        Ok(self.dropped.clone())
    }
}

/// Victim number `index` of the decision that killed `mark`: another process of the same cgroup.
pub(crate) fn further_victim(mark: &OomMark, index: u32) -> OomMark {
    let mut further = *mark;
    further.header.sequence += u64::from(index);
    further.header.boot_ns += u64::from(index) * 1000;
    further.victim.tgid += index;
    further.victim.pid += index;
    further.victim.leader_start_ns += u64::from(index);
    further
}

/// The task was already dying.
pub(crate) fn dying(mark: &mut OomMark) {
    mark.flags &= !flags::REAL_KILL;
}
