//! Who reads the runtimes' files for the flow: [`Worker`](super::worker::Worker) on a thread of its own, or [`InPlace`]
//! whoever asks.

use std::{
    collections::VecDeque,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::agent::locate::{
    place::Runtime,
    runtime::{self, Files, NameError, Names, Wanted},
};

/// One container whose names are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Tells requests for the same container apart.
    pub number: u64,
    /// Container id.
    pub id: Box<str>,
    /// Runtime, as far as the path told.
    pub runtime: Runtime,
    /// The user whose slice it runs in.
    pub user: Option<u32>,
}

/// The answer to one [`Request`].
#[derive(Debug)]
pub struct Reply {
    /// As in the request.
    pub number: u64,
    /// As in the request.
    pub id: Box<str>,
    /// What the files told; `Ok(None)`: no runtime has one for this container.
    pub names: Result<Option<Names>, NameError>,
}

/// Reads the runtimes' files. Each request that was taken gets one reply, in any order and at any time. How many
/// requests may be open is up to the caller.
pub trait NameReader: fmt::Debug {
    /// Takes a request over.
    ///
    /// # Errors
    /// Nobody is there to read, and nobody could be brought in.
    fn ask(&mut self, request: Request) -> io::Result<()>;

    /// The container `id` shall be read before all others that wait.
    fn hurry(&mut self, id: &str);

    /// A reply, if one is there.
    fn take(&mut self) -> Option<Reply>;

    /// Waits until [`NameReader::take`] has a reply, but at most `patience`; returns how long that took.
    fn wait(&mut self, patience: Duration) -> Duration;

    /// The file that is being read just now.
    fn reading(&self) -> Option<PathBuf>;
}

/// Reads at once, on the caller's thread, for as long as the file system pleases.
#[derive(Debug)]
pub struct InPlace {
    root: PathBuf,
    replies: VecDeque<Reply>,
}

impl InPlace {
    /// Reads the files of the machine seen through `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), replies: VecDeque::new() }
    }
}

impl NameReader for InPlace {
    fn ask(&mut self, request: Request) -> io::Result<()> {
        self.replies.push_back(read(&Files::under(&self.root), request));
        Ok(())
    }

    fn hurry(&mut self, _id: &str) {}

    fn take(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    fn wait(&mut self, _patience: Duration) -> Duration {
        Duration::ZERO
    }

    fn reading(&self) -> Option<PathBuf> {
        None
    }
}

/// Reads the files for one request.
pub(super) fn read(files: &Files<'_>, request: Request) -> Reply {
    let Request { number, id, runtime, user } = request;
    let names = runtime::names(files, Wanted { runtime, id: &id, user });
    Reply { number, id, names }
}
