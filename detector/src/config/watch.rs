//! Notices that the file of settings changed, and reads it again.
//!
//! It is the directory that is watched, for files of settings are replaced and not written: a ConfigMap volume swaps the
//! symbolic link `..data` beside them, editors rename. Nothing wakes the process while nothing changes. A file mounted
//! with `subPath` is never updated by the kubelet, and a link that leads out of the directory is followed but not
//! watched: SIGHUP has the file read again, as daemons do by custom.
//!
//! A file that is gone changes nothing: the settings in force stay, and the next start tells.

use std::{
    ffi::{OsStr, OsString},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{Mistakes, file};

/// What came of reading the file again.
#[derive(Debug)]
pub enum Reload<C> {
    /// It is right. It may still say what is in force already.
    Changed(Box<C>),
    /// It is wrong, or cannot be read: what is in force stays.
    Refused(Mistakes),
}

/// Bytes of events that are read at once: many, each of at most `NAME_MAX` and a header (inotify(7)).
const BUFFER: usize = 4096;

/// Watches one file.
#[derive(Debug)]
pub struct Watch<C> {
    parse: fn(&str, &[u8]) -> Result<C, Mistakes>,
    file: PathBuf,
    directory: PathBuf,
    events: AsyncFd<OwnedFd>,
    hang_up: Signal,
    /// What the file was when it was read last: its bytes, or why there were none. A hash, for it is only compared.
    seen: u64,
    /// What is to be told at the next call.
    pending: Option<Reload<C>>,
}

impl<C: PartialEq> Watch<C> {
    /// Watches `file`, which was read before by `parse` and gave `running`. A change since then is the first thing to be
    /// told.
    ///
    /// Takes SIGHUP over. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the directory of the file cannot be watched, or the signal cannot be taken.
    pub fn start(file: &Path, running: &C, parse: fn(&str, &[u8]) -> Result<C, Mistakes>) -> io::Result<Self> {
        let directory = match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its unsafe successor asks that the descriptor stays open, which an `OwnedFd` sees to"
        )]
        let events = AsyncFd::new(queue)?;
        let hang_up = signal(SignalKind::hangup())?;
        let mut watch = Self { parse, file: file.to_owned(), directory, events, hang_up, seen: 0, pending: None };
        watch.arm()?;
        let first = watch.read();
        watch.pending = first.filter(|reload| !matches!(reload, Reload::Changed(config) if **config == *running));
        Ok(watch)
    }

    /// Waits until the file is another than before, and reads it.
    ///
    /// Cancelling it loses nothing.
    ///
    /// # Errors
    ///
    /// If the kernel's queue of events cannot be read.
    pub async fn changed(&mut self) -> io::Result<Reload<C>> {
        loop {
            if let Some(reload) = self.pending.take() {
                return Ok(reload);
            }
            tokio::select! {
                ready = self.events.readable() => {
                    let mut ready = ready?;
                    let sign = signs(ready.get_inner(), &self.names(), &self.file)?;
                    ready.clear_ready();
                    self.pending = match sign {
                        Sign::None => None,
                        Sign::File => self.read(),
                        Sign::DirectoryGone => self.arm_again(),
                    };
                }
                _ = self.hang_up.recv() => self.pending = self.arm_again(),
            }
        }
    }

    fn arm(&self) -> io::Result<()> {
        let wanted = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::MOVE_SELF;
        inotify::add_watch(&self.events, &self.directory, wanted | WatchFlags::ONLYDIR)?;
        Ok(())
    }

    /// Watches what has the directory's path now; watching twice is watching once.
    fn arm_again(&mut self) -> Option<Reload<C>> {
        match self.arm() {
            Ok(()) => self.read(),
            Err(error) => Some(Reload::Refused(Mistakes::unreadable(&self.directory.to_string_lossy(), error))),
        }
    }

    /// Reads the file, if it is another than before.
    fn read(&mut self) -> Option<Reload<C>> {
        let name = self.file.to_string_lossy().into_owned();
        let bytes = file::read(&self.file);
        let mut hasher = DefaultHasher::new();
        bytes.as_ref().map_err(io::Error::raw_os_error).hash(&mut hasher);
        let seen = hasher.finish();
        if self.seen == seen {
            return None;
        }
        self.seen = seen;
        let config =
            bytes.map_err(|error| Mistakes::unreadable(&name, error)).and_then(|bytes| (self.parse)(&name, &bytes));
        Some(match config {
            Ok(config) => Reload::Changed(Box::new(config)),
            Err(mistakes) => Reload::Refused(mistakes),
        })
    }

    /// Names in the directory on which the file's content depends: its own, and where that is a link, what it leads
    /// through, which is `..data` in a volume of a ConfigMap.
    fn names(&self) -> Vec<OsString> {
        let own = self.file.file_name().map(OsStr::to_owned);
        let link = fs::read_link(&self.file).ok();
        let through = link.as_deref().and_then(|link| match link.components().next() {
            Some(Component::Normal(name)) => Some(name.to_owned()),
            _ => None,
        });
        own.into_iter().chain(through).collect()
    }
}

/// What the events since the last look mean.
enum Sign {
    None,
    File,
    DirectoryGone,
}

/// Takes all events that wait.
fn signs(queue: &OwnedFd, names: &[OsString], file: &Path) -> io::Result<Sign> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut events = inotify::Reader::new(queue, &mut buffer);
    let (mut changed, mut gone) = (false, false);
    loop {
        let event = match events.next() {
            Ok(event) => event,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let what = event.events();
        gone |= what.intersects(ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT);
        // Events were lost: any may have been the one.
        changed |= what.contains(ReadFlags::QUEUE_OVERFLOW);
        let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
        let ours = name.is_some_and(|name| names.contains(&name));
        // A file that is only made is still empty, and an empty file is valid; a link is whole at once.
        changed |= ours && (!what.contains(ReadFlags::CREATE) || file.is_symlink());
    }
    Ok(match (gone, changed) {
        (true, _) => Sign::DirectoryGone,
        (false, true) => Sign::File,
        (false, false) => Sign::None,
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use tempfile::TempDir;

    use super::{
        super::{Config, parse},
        *,
    };
    use crate::config::LogLevel;

    /// A volume as the kubelet makes and updates it (`pkg/volume/util/atomic_writer.go`).
    struct Volume {
        dir: TempDir,
        updates: u32,
    }

    impl Volume {
        fn new(text: &str) -> Self {
            let mut volume = Self { dir: tempfile::tempdir().expect("a directory"), updates: 0 };
            volume.update(text);
            symlink("..data/agent.yaml", volume.file()).expect("a link");
            volume
        }

        fn file(&self) -> PathBuf {
            self.dir.path().join("agent.yaml")
        }

        fn update(&mut self, text: &str) {
            self.updates += 1;
            let stamp = format!("..2026_{}", self.updates);
            fs::create_dir(self.dir.path().join(&stamp)).expect("a directory");
            fs::write(self.dir.path().join(&stamp).join("agent.yaml"), text).expect("a file");
            symlink(&stamp, self.dir.path().join("..data_tmp")).expect("a link");
            fs::rename(self.dir.path().join("..data_tmp"), self.dir.path().join("..data")).expect("a rename");
            let old = self.dir.path().join(format!("..2026_{}", self.updates - 1));
            fs::remove_dir_all(old).ok();
        }
    }

    fn run<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("in time") })
    }

    async fn level(watch: &mut Watch<Config>) -> LogLevel {
        match watch.changed().await.expect("events") {
            Reload::Changed(config) => config.log.level,
            Reload::Refused(mistakes) => panic!("{mistakes}"),
        }
    }

    /// Nothing to tell: what is asked for is ready at once or never.
    async fn is_quiet(watch: &mut Watch<Config>) -> bool {
        tokio::select! {
            biased;
            _ = watch.changed() => false,
            () = tokio::task::yield_now() => true,
        }
    }

    #[test]
    fn a_change_of_a_config_map_is_noticed() {
        run(async {
            let mut volume = Volume::new("");
            let mut watch = Watch::start(&volume.file(), &Config::default(), parse).expect("inotify");
            assert!(is_quiet(&mut watch).await);
            volume.update("log: {level: debug}");
            assert_eq!(level(&mut watch).await, LogLevel::Debug);
            volume.update("log: {level: debug}");
            assert!(is_quiet(&mut watch).await, "the same text is no change");
            volume.update("log: {level: warn}");
            assert_eq!(level(&mut watch).await, LogLevel::Warn);
        });
    }

    #[test]
    fn a_bad_file_is_refused_and_a_good_one_after_it_taken() {
        run(async {
            let mut volume = Volume::new("");
            let mut watch = Watch::start(&volume.file(), &Config::default(), parse).expect("inotify");
            volume.update("log: {level: loud}");
            let Reload::Refused(mistakes) = watch.changed().await.expect("events") else { panic!("taken") };
            assert_eq!(mistakes.count(), 1);
            volume.update("");
            assert_eq!(level(&mut watch).await, LogLevel::Info);
        });
    }

    #[test]
    fn a_change_before_the_watch_is_told_first() {
        run(async {
            let volume = Volume::new("log: {level: debug}");
            let mut watch = Watch::start(&volume.file(), &Config::default(), parse).expect("inotify");
            assert_eq!(level(&mut watch).await, LogLevel::Debug);
        });
    }

    #[test]
    fn a_plain_file_is_read_when_it_is_whole_and_not_when_it_is_made() {
        run(async {
            let dir = tempfile::tempdir().expect("a directory");
            let file = dir.path().join("agent.yaml");
            fs::write(&file, "log: {level: debug}").expect("a file");
            let running = crate::config::load(&file).expect("right");
            let mut watch = Watch::start(&file, &running, parse).expect("inotify");
            fs::write(dir.path().join("other"), "x").expect("a file");
            fs::remove_file(&file).expect("removed");
            let made = fs::File::create(&file).expect("made");
            assert!(is_quiet(&mut watch).await, "empty, but not closed");
            drop(made);
            assert_eq!(level(&mut watch).await, LogLevel::Info);
            fs::write(dir.path().join("new"), "log: {level: warn}").expect("a file");
            fs::rename(dir.path().join("new"), &file).expect("a rename");
            assert_eq!(level(&mut watch).await, LogLevel::Warn);
        });
    }

    #[test]
    fn a_directory_that_is_gone_is_told_and_one_in_its_place_is_watched() {
        run(async {
            let dir = tempfile::tempdir().expect("a directory");
            let conf = dir.path().join("conf");
            fs::create_dir(&conf).expect("a directory");
            let file = conf.join("agent.yaml");
            fs::write(&file, "").expect("a file");
            let mut watch = Watch::start(&file, &Config::default(), parse).expect("inotify");
            fs::remove_dir_all(&conf).expect("removed");
            assert!(matches!(watch.changed().await, Ok(Reload::Refused(_))));
            fs::create_dir(&conf).expect("a directory");
            fs::write(&file, "log: {level: warn}").expect("a file");
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).expect("a signal");
            assert_eq!(level(&mut watch).await, LogLevel::Warn);
        });
    }
}
