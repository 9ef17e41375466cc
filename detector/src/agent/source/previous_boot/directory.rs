//! Directories that others fill: bounded, without following links, and only what belongs to the directory's own owner.
//!
//! `/var/crash` is open to all users on some distributions: what one of them puts there is no kernel's word.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::fs::OFlags;

/// Names of one directory that are looked at; that a larger one was not read whole is told.
const NAMES: usize = 65_536;

/// Whom it is told what could not be read.
pub(super) type Failed<'a> = dyn FnMut(&Path, io::Error) + 'a;

/// Something in a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where.
    pub(super) path: PathBuf,
    /// Its name; not UTF-8 is none that we look for.
    pub(super) name: String,
    /// A directory, and not a regular file.
    pub(super) is_directory: bool,
    /// Time of its last change.
    pub(super) changed: Option<Timestamp>,
}

/// What is in `directory`, the last changed first, at most `most`. Links and special files are left out, and so is what
/// `owner` does not own. What cannot be listed is told to `failed`.
pub(super) fn newest(directory: &Path, owner: u32, most: usize, failed: &mut Failed<'_>) -> Vec<Entry> {
    let names = match fs::read_dir(directory) {
        Ok(names) => names,
        Err(error) => {
            failed(directory, error);
            return Vec::new();
        }
    };
    newest_of(directory, names, owner, most, NAMES, failed)
}

fn newest_of(
    directory: &Path,
    names: fs::ReadDir,
    owner: u32,
    most: usize,
    limit: usize,
    failed: &mut Failed<'_>,
) -> Vec<Entry> {
    let mut found = Vec::new();
    for (number, entry) in names.enumerate() {
        if number == limit {
            failed(directory, io::Error::other(format!("more than {limit} names; the rest is left out")));
            break;
        }
        match entry {
            Ok(entry) => found.extend(belonging(&entry, owner)),
            // Whoever cannot go on says so again and again.
            Err(error) => {
                failed(directory, error);
                break;
            }
        }
        if found.len() >= 2 * most.max(1) {
            keep_newest(&mut found, most);
        }
    }
    keep_newest(&mut found, most);
    found
}

/// `entry`, if it is a file or directory that `owner` owns.
fn belonging(entry: &fs::DirEntry, owner: u32) -> Option<Entry> {
    // Not followed, as `symlink_metadata`. What is gone meanwhile is none.
    let about = entry.metadata().ok()?;
    let name = entry.file_name().into_string().ok()?;
    let is_ours = about.uid() == owner && (about.is_dir() || about.is_file());
    is_ours.then(|| Entry { path: entry.path(), name, is_directory: about.is_dir(), changed: changed(&about) })
}

fn keep_newest(found: &mut Vec<Entry>, most: usize) {
    found.sort_by(|a, b| b.changed.cmp(&a.changed).then_with(|| b.name.cmp(&a.name)));
    found.truncate(most);
}

/// Who owns `directory`; `Ok(None)`: there is none.
pub(super) fn owner(directory: &Path) -> io::Result<Option<u32>> {
    match fs::metadata(directory) {
        Ok(about) => Ok(about.is_dir().then(|| about.uid())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last `most` bytes of the regular file `path`, which `owner` must own, and when it was changed.
pub(super) fn tail(path: &Path, owner: u32, most: u64) -> io::Result<(Vec<u8>, Option<Timestamp>)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let mut file = File::options().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() || about.uid() != owner {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file of the directory's owner"));
    }
    if about.len() > most {
        file.seek(SeekFrom::Start(about.len() - most))?;
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok((bytes, changed(&about)))
}

fn changed(about: &Metadata) -> Option<Timestamp> {
    Timestamp::new(about.mtime(), i32::try_from(about.mtime_nsec()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_last_changed_come_first_and_links_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let me = owner(root.path()).unwrap().expect("a directory");
        for (name, second) in [("old", 100), ("new", 300), ("middle", 200)] {
            let file = File::create(root.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(second)).unwrap();
        }
        symlink(root.path().join("old"), root.path().join("link")).unwrap();
        let names = |most| -> Vec<String> {
            let mut failed = |path: &Path, error: io::Error| panic!("{}: {error}", path.display());
            newest(root.path(), me, most, &mut failed).into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!(names(9), ["new", "middle", "old"]);
        assert_eq!(names(2), ["new", "middle"]);
        assert!(newest(root.path(), me + 1, 9, &mut |_, _| ()).is_empty(), "what belongs to somebody else");
        assert!(tail(&root.path().join("link"), me, 9).is_err());
        assert!(tail(&root.path().join("old"), me + 1, 9).is_err());
    }

    #[test]
    fn of_a_full_directory_the_newest_are_found_and_what_was_left_out_is_told() {
        let root = tempfile::tempdir().unwrap();
        let me = owner(root.path()).unwrap().expect("a directory");
        for second in 0..50 {
            let file = File::create(root.path().join(format!("{second:02}"))).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(second)).unwrap();
        }
        let list = |limit| {
            let mut told = Vec::new();
            let names = fs::read_dir(root.path()).unwrap();
            let mut failed = |_: &Path, error: io::Error| told.push(error.to_string());
            let found = newest_of(root.path(), names, me, 2, limit, &mut failed);
            (found.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), told)
        };
        assert_eq!(list(50), (vec!["49".to_owned(), "48".to_owned()], Vec::new()));
        let (found, told) = list(49);
        assert_eq!((found.len(), told), (2, vec!["more than 49 names; the rest is left out".to_owned()]));
    }

    #[test]
    fn a_directory_that_cannot_be_listed_is_told() {
        let root = tempfile::tempdir().unwrap();
        let mut told = 0;
        assert!(newest(&root.path().join("absent"), 0, 9, &mut |_, _| told += 1).is_empty());
        assert_eq!(told, 1);
        // Links in a circle: the place is there, and nobody can enter it.
        symlink(root.path().join("circle"), root.path().join("circle")).unwrap();
        assert!(owner(&root.path().join("circle")).is_err());
    }

    #[test]
    fn of_a_large_file_the_end_is_read() {
        let root = tempfile::tempdir().unwrap();
        let me = owner(root.path()).unwrap().expect("a directory");
        fs::write(root.path().join("file"), "0123456789").unwrap();
        assert_eq!(tail(&root.path().join("file"), me, 4).unwrap().0, b"6789");
        assert_eq!(tail(&root.path().join("file"), me, 99).unwrap().0, b"0123456789");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_answer() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(owner(&root.path().join("absent")).unwrap(), None);
    }
}
