//! A thread that does nothing but read the runtimes' files: those may lie on a file system that is frozen, or on a
//! server that does not answer, and a read of them cannot be given up.
//!
//! It starts with the first request and sleeps while there is none. Nobody waits for its end: where it is stuck, it is
//! the kernel that does not let it go.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::reader::{NameReader, Reply, Request, read};
use crate::{agent::locate::runtime::Files, clock};

/// Stack of the thread in bytes. Only what is touched is taken from memory.
const STACK: usize = 256 << 10;

/// Name of the thread, as `ps -L` shows it.
const THREAD: &str = "names";

/// Reads on a thread of its own.
#[derive(Debug)]
pub struct Worker {
    root: PathBuf,
    /// Once the thread runs.
    shared: Option<Arc<Shared>>,
}

/// What both threads see.
#[derive(Debug, Default)]
struct Shared {
    desk: Mutex<Desk>,
    asked: Condvar,
    answered: Condvar,
    /// A lock of its own, because it is taken for each file.
    reading: Mutex<Option<PathBuf>>,
}

/// Bounded by the caller, who counts how many requests are open.
#[derive(Debug, Default)]
struct Desk {
    requests: VecDeque<Request>,
    replies: VecDeque<Reply>,
    closed: bool,
}

impl Worker {
    /// Reads the files of the machine seen through `root`. No thread is started yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), shared: None }
    }

    fn start(&mut self) -> io::Result<Arc<Shared>> {
        if let Some(shared) = &self.shared {
            return Ok(Arc::clone(shared));
        }
        let shared = Arc::new(Shared::default());
        let (root, own) = (self.root.clone(), Arc::clone(&shared));
        thread::Builder::new().name(THREAD.to_owned()).stack_size(STACK).spawn(move || own.serve(&root))?;
        self.shared = Some(Arc::clone(&shared));
        Ok(shared)
    }
}

impl NameReader for Worker {
    fn ask(&mut self, request: Request) -> io::Result<()> {
        let shared = self.start()?;
        locked(&shared.desk).requests.push_back(request);
        shared.asked.notify_one();
        Ok(())
    }

    fn hurry(&mut self, id: &str) {
        let Some(shared) = &self.shared else { return };
        let mut desk = locked(&shared.desk);
        if let Some(at) = desk.requests.iter().position(|request| *request.id == *id)
            && let Some(request) = desk.requests.remove(at)
        {
            desk.requests.push_front(request);
        }
    }

    fn take(&mut self) -> Option<Reply> {
        locked(&self.shared.as_ref()?.desk).replies.pop_front()
    }

    fn wait(&mut self, patience: Duration) -> Duration {
        let Some(shared) = &self.shared else { return Duration::ZERO };
        let began = clock::monotonic_now();
        let silent = |desk: &mut Desk| desk.replies.is_empty();
        // Whether it was answered or gave up is seen by what it left on the desk.
        drop(shared.answered.wait_timeout_while(locked(&shared.desk), patience, silent));
        began.elapsed()
    }

    fn reading(&self) -> Option<PathBuf> {
        locked(&self.shared.as_ref()?.reading).clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            locked(&shared.desk).closed = true;
            shared.asked.notify_one();
        }
    }
}

impl Shared {
    /// The life of the thread.
    fn serve(&self, root: &Path) {
        let note = |path: &Path| *locked(&self.reading) = Some(path.to_owned());
        let files = Files::noting(root, &note);
        while let Some(request) = self.next() {
            let reply = read(&files, request);
            *locked(&self.reading) = None;
            locked(&self.desk).replies.push_back(reply);
            self.answered.notify_one();
        }
    }

    /// Waits for a request; `None`: nobody asks any more.
    fn next(&self) -> Option<Request> {
        let idle = |desk: &mut Desk| desk.requests.is_empty() && !desk.closed;
        let mut desk = self.asked.wait_while(locked(&self.desk), idle).unwrap_or_else(PoisonError::into_inner);
        if desk.closed { None } else { desk.requests.pop_front() }
    }
}

/// What is behind the locks is whole at any time, also after a panic of the other thread.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::agent::{locate::place::Runtime, source::small_file::under};

    const ID: &str = "a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333";

    /// Longer than any healthy read takes.
    const LONG: Duration = Duration::from_secs(60);

    fn request(number: u64, id: &str) -> Request {
        Request { number, id: id.into(), runtime: Runtime::Docker, user: None }
    }

    fn answered(worker: &mut Worker) -> Reply {
        worker.wait(LONG);
        worker.take().expect("a reply within the time")
    }

    #[test]
    fn a_request_is_answered_by_another_thread() {
        let root = tempfile::tempdir().unwrap();
        let directory = under(root.path(), "/var/lib/docker/containers").join(ID);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.v2.json"), r#"{"Name": "/web"}"#).unwrap();
        let mut worker = Worker::new(root.path());
        worker.ask(request(7, ID)).unwrap();
        let reply = answered(&mut worker);
        assert_eq!((reply.number, &*reply.id), (7, ID));
        assert_eq!(reply.names.unwrap().unwrap().container.as_deref(), Some("web"));
        assert_eq!((worker.take().is_none(), worker.reading()), (true, None));
    }

    #[test]
    fn nothing_runs_before_the_first_request_and_nothing_is_waited_for() {
        let mut worker = Worker::new(Path::new("/"));
        assert!(worker.shared.is_none());
        assert_eq!(worker.wait(LONG), Duration::ZERO);
        assert!(worker.take().is_none());
    }

    #[test]
    fn who_is_in_a_hurry_goes_first() {
        let mut worker = Worker { root: PathBuf::from("/"), shared: Some(Arc::default()) };
        for (number, id) in ["a", "b", "c"].into_iter().enumerate() {
            worker.ask(request(number as u64, id)).unwrap();
        }
        worker.hurry("c");
        worker.hurry("unknown");
        let shared = Arc::clone(worker.shared.as_ref().unwrap());
        let order: Vec<_> = (0..3).map(|_| shared.next().unwrap().id).collect();
        assert_eq!(order, ["c".into(), "a".into(), Box::<str>::from("b")]);
    }

    #[test]
    fn the_thread_ends_with_its_owner() {
        let root = tempfile::tempdir().unwrap();
        let mut worker = Worker::new(root.path());
        worker.ask(request(1, ID)).unwrap();
        answered(&mut worker);
        let shared = Arc::clone(worker.shared.as_ref().unwrap());
        drop(worker);
        assert!(locked(&shared.desk).closed);
        assert!(shared.next().is_none());
    }

    #[test]
    fn while_a_read_hangs_a_wait_ends_in_time() {
        let root = tempfile::tempdir().unwrap();
        let mut worker = Worker::new(root.path());
        let shared = worker.start().unwrap();
        // Holding this lock stops the thread where it says what it reads, as a dead file system would right after.
        let held = locked(&shared.reading);
        worker.ask(request(1, ID)).unwrap();
        let spent = worker.wait(Duration::from_millis(1));
        assert!(spent >= Duration::from_millis(1) && worker.take().is_none());
        drop(held);
        assert!(answered(&mut worker).names.unwrap().is_none());
    }
}
