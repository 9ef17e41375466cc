//! Pinned links: adopted if the kernel confirms what their place says of them, made, removed.

use std::path::{Path, PathBuf};

use aya::programs::{
    Program, ProgramInfo,
    links::{FdLink, PinnedLink},
};

use super::{
    PinError, maps,
    place::{self, Place},
};
use crate::agent::{options::Detector, source::bpf::rung::Hook};

/// Whose a program is; `None`: of what learns the paths of cgroups.
pub(in crate::agent::source) type Owner = Option<Detector>;

/// Longest name of a program that the kernel keeps (`BPF_OBJ_NAME_LEN` less the closing NUL, `include/uapi/linux/bpf.h`).
const NAME_LENGTH: usize = 15;

/// A link as its file names it.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent::source) struct Pinned {
    pub(in crate::agent::source) owner: Owner,
    pub(in crate::agent::source) program: &'static str,
    pub(in crate::agent::source) hook: Hook,
}

impl Pinned {
    /// A BPF file system takes no name with a dot in it (`bpf_lookup`, `kernel/bpf/inode.c`).
    fn file(&self) -> String {
        format!("{}{}-{}", prefix(self.owner), self.program, self.hook)
    }
}

/// What the names of all links of an owner begin with.
fn prefix(owner: Owner) -> String {
    format!("{}-", owner.map_or("cgroup_life", Detector::name))
}

/// The links of one generation, and those of others beside it.
#[derive(Debug)]
pub(super) struct Links {
    /// Directory of the version of the records.
    all: PathBuf,
    /// Directory of the generation.
    own: PathBuf,
}

impl Links {
    /// Makes the directory of `generation`.
    pub(super) fn open(place: &Place, generation: u64) -> Result<Self, PinError> {
        let links = Self { all: place.own().to_owned(), own: place.own().join(format!("{generation:016x}")) };
        place::make(&links.links())?;
        place::make(&links.programs())?;
        Ok(links)
    }

    /// Removes the links of all generations, and waits until they are detached.
    pub(super) fn remove_all_of(place: &Place) -> Result<(), PinError> {
        let generations: Vec<_> = generations(place.own()).collect();
        generations.iter().try_for_each(|path| place::remove(path))?;
        if !generations.is_empty() {
            place::wait_for_release();
        }
        Ok(())
    }

    /// The link that is pinned under that name, if it is one, of the very program that is pinned beside it, which uses our
    /// maps. Anything else under that name is removed.
    pub(super) fn adopt(&self, pinned: &Pinned, maps: impl Iterator<Item = u32>) -> Result<Option<FdLink>, PinError> {
        let path = self.links().join(pinned.file());
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let link = PinnedLink::from_pin(&path).ok().map(FdLink::from);
        let link = link.filter(|link| self.is_of(link, pinned.program, maps));
        if link.is_none() {
            place::remove(&path)?;
            place::wait_for_release();
        }
        Ok(link)
    }

    /// Pins a link and its program. If that is refused, the link is gone.
    pub(super) fn keep(
        &self,
        pinned: &Pinned,
        link: FdLink,
        program: Option<&mut Program>,
    ) -> Result<FdLink, PinError> {
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |source| PinError::Pin { path, source }
        };
        let path = self.programs().join(pinned.program);
        let id = link.info().map(|info| info.program_id());
        let is_there = ProgramInfo::from_pin(&path).is_ok_and(|there| id.is_ok_and(|id| id == there.id()));
        if let Some(program) = program.filter(|_| !is_there) {
            place::remove(&path)?;
            program.pin(&path).map_err(refused(&path))?;
        }
        let path = self.links().join(pinned.file());
        place::remove(&path)?;
        Ok(link.pin(&path).map_err(refused(&path))?.into())
    }

    /// Removes these links. Who holds them must let go of them [later](place::wait_for_release).
    pub(super) fn remove<'a>(&self, mut pinned: impl Iterator<Item = &'a Pinned>) -> Result<(), PinError> {
        pinned.try_for_each(|pinned| place::remove(&self.links().join(pinned.file())))
    }

    /// Removes all links of `owner` but `kept`, also of other generations. Whether there were any.
    pub(super) fn remove_others(&self, owner: Owner, kept: &[Pinned]) -> Result<bool, PinError> {
        let prefix = prefix(owner);
        let kept: Vec<_> = kept.iter().map(Pinned::file).collect();
        let others = generations(&self.all).flat_map(|generation| {
            let is_own = generation == self.own;
            place::entries(&generation.join("links")).into_iter().map(move |path| (is_own, path))
        });
        let mut found = false;
        for (is_own, path) in others.collect::<Vec<_>>() {
            let name = place::name(&path);
            if name.starts_with(&prefix) && !(is_own && kept.contains(&name)) {
                place::remove(&path)?;
                found = true;
            }
        }
        Ok(found)
    }

    /// Removes everything but `kept`: other generations, links and programs. Whether there was any.
    pub(super) fn settle(&self, kept: &[Pinned]) -> Result<bool, PinError> {
        let files: Vec<_> = kept.iter().map(Pinned::file).collect();
        let links = place::entries(&self.links()).into_iter().filter(|path| !files.contains(&place::name(path)));
        let unused = |path: &PathBuf| kept.iter().all(|pinned| pinned.program != place::name(path));
        let programs = place::entries(&self.programs()).into_iter().filter(unused);
        let generations = generations(&self.all).filter(|path| *path != self.own);
        let others: Vec<_> = links.chain(programs).chain(generations).collect();
        others.iter().try_for_each(|path| place::remove(path))?;
        Ok(!others.is_empty())
    }

    /// Whether the link holds the program that is pinned as `program`, and that uses one of `maps` at least. A program's maps
    /// are told to `CAP_SYS_ADMIN` only, because it is asked by its id (`bpf_prog_get_fd_by_id`, `kernel/bpf/syscall.c`);
    /// without it the generation must do, which is made of the maps' ids.
    fn is_of(&self, link: &FdLink, program: &str, mut maps: impl Iterator<Item = u32>) -> bool {
        let (Ok(link), Ok(there)) = (link.info(), ProgramInfo::from_pin(self.programs().join(program))) else {
            return false;
        };
        let name = &program.as_bytes()[..program.len().min(NAME_LENGTH)];
        let uses_maps = match there.map_ids() {
            Ok(Some(used)) => maps.any(|map| used.contains(&map)),
            Ok(None) | Err(_) => true,
        };
        link.program_id() == there.id() && there.name() == name && uses_maps
    }

    fn links(&self) -> PathBuf {
        self.own.join("links")
    }

    fn programs(&self) -> PathBuf {
        self.own.join("programs")
    }
}

/// All that lies beside the maps.
fn generations(directory: &Path) -> impl Iterator<Item = PathBuf> {
    place::entries(directory).into_iter().filter(|path| place::name(path) != maps::DIRECTORY)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MARK: Pinned =
        Pinned { owner: Some(Detector::Oom), program: "mark_victim_task", hook: Hook::Raw("mark_victim") };
    const HANG: Pinned =
        Pinned { owner: Some(Detector::HungTask), program: "event_hung_task", hook: Hook::Event("sched", "hang") };

    /// Files in place of links: what is removed, and when, needs no BPF file system.
    fn filled() -> (tempfile::TempDir, Links) {
        let root = tempfile::tempdir().unwrap();
        let links = Links { all: root.path().to_owned(), own: root.path().join("0000000000000001") };
        let former = root.path().join("0000000000000002/links");
        for directory in [links.links(), links.programs(), former.clone(), root.path().join("maps")] {
            fs::create_dir_all(directory).unwrap();
        }
        for pinned in [MARK, HANG] {
            fs::write(links.links().join(pinned.file()), "").unwrap();
            fs::write(links.programs().join(pinned.program), "").unwrap();
            fs::write(former.join(pinned.file()), "").unwrap();
        }
        (root, links)
    }

    fn names(directory: &Path) -> Vec<String> {
        place::entries(directory).iter().map(|path| place::name(path)).collect()
    }

    #[test]
    fn no_name_has_a_dot() {
        assert_eq!(MARK.file(), "oom-mark_victim_task-mark_victim");
        assert_eq!(HANG.file(), "hung_task-event_hung_task-sched:hang");
        assert_eq!(Pinned { owner: None, ..MARK }.file(), "cgroup_life-mark_victim_task-mark_victim");
    }

    #[test]
    fn what_takes_the_place_of_others_leaves_those_of_other_detectors() {
        let (root, links) = filled();
        assert!(links.remove_others(MARK.owner, &[MARK]).unwrap());
        assert_eq!(names(&links.links()), [HANG.file(), MARK.file()]);
        assert_eq!(names(&root.path().join("0000000000000002/links")), [HANG.file()]);
        assert!(!links.remove_others(MARK.owner, &[MARK]).unwrap());
    }

    #[test]
    fn after_settling_there_is_what_is_in_use_and_the_maps() {
        let (root, links) = filled();
        assert!(links.settle(&[MARK]).unwrap());
        assert_eq!(names(root.path()), ["0000000000000001", "maps"]);
        assert_eq!(names(&links.links()), [MARK.file()]);
        assert_eq!(names(&links.programs()), [MARK.program]);
        assert!(!links.settle(&[MARK]).unwrap());
    }

    #[test]
    fn what_is_no_link_is_not_adopted_but_removed() {
        let (_root, links) = filled();
        assert!(links.adopt(&MARK, std::iter::empty()).unwrap().is_none());
        assert_eq!(names(&links.links()), [HANG.file()]);
        assert!(links.adopt(&MARK, std::iter::empty()).unwrap().is_none());
    }
}
