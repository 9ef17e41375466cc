//! Lines for a reader who may stall: what an output has no room for is dropped and counted, and nobody waits.

use std::{
    io::{self, Write},
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// Bytes of a line at most: what a pipe that is ready takes without waiting (`PIPE_BUF`, pipe(7)).
pub const MAX_LINE: usize = 4096;

/// An output that takes one whole line with each write.
#[derive(Debug)]
pub struct Lines {
    target: BorrowedFd<'static>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// Standard output.
    #[must_use]
    pub fn of_standard_output() -> Self {
        Self { target: rustix::stdio::stdout(), dropped: Arc::default() }
    }

    /// Counts lines that were dropped: there was no room, or they were too long.
    #[must_use]
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

impl Write for Lines {
    /// Takes one line. Never fails: who reads it is nobody's condition for working.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !send(self.target, line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether `line` went out.
pub(super) fn send(target: BorrowedFd<'_>, line: &[u8]) -> bool {
    if line.len() > MAX_LINE {
        return false;
    }
    let mut wanted = [PollFd::from_borrowed_fd(target, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        match poll(&mut wanted, Some(&now)) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return false,
        }
        return match rustix::io::write(target, line) {
            Ok(written) => written == line.len(),
            Err(Errno::INTR) => continue,
            Err(_) => false,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{BufRead, BufReader},
        os::fd::AsFd,
    };

    use rustix::pipe;

    use super::*;

    #[test]
    fn a_reader_who_takes_nothing_holds_nobody_and_finds_whole_lines() {
        let (reader, writer) = pipe::pipe().expect("a pipe");
        let line = [vec![b'x'; 999], vec![b'\n']].concat();
        let taken = (0..1_000).filter(|_| send(writer.as_fd(), &line)).count();
        assert!((1..1_000).contains(&taken), "{taken}");
        drop(writer);
        let lines: Vec<_> = BufReader::new(File::from(reader)).split(b'\n').map(|line| line.expect("a line")).collect();
        assert_eq!(lines.len(), taken);
        assert!(lines.iter().all(|line| line.len() == 999));
    }

    #[test]
    fn a_line_that_may_wait_is_not_sent() {
        let (_reader, writer) = pipe::pipe().expect("a pipe");
        assert!(!send(writer.as_fd(), &vec![b'x'; MAX_LINE + 1]));
    }
}
