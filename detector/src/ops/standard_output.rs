//! Standard output that a stalled reader cannot hold the program with.

use std::{
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What a pipe that has room takes without waiting: `PIPE_BUF` (pipe(7)).
const PIECE: usize = 4096;

/// Writes to standard output, and gives up where the reader takes nothing while the program is asked to end.
#[derive(Debug)]
pub struct StandardOutput {
    target: BorrowedFd<'static>,
    /// Becomes readable with the first request to end, and stays so.
    stop: UnixStream,
}

impl StandardOutput {
    /// Opens it, and listens for requests to end (SIGINT, SIGTERM, SIGHUP) besides whoever else does.
    ///
    /// # Errors
    /// If no socket pair can be made or a signal cannot be listened for.
    pub fn open() -> io::Result<Self> {
        let (stop, sender) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { target: rustix::stdio::stdout(), stop })
    }

    fn wait(&self) -> io::Result<()> {
        let mut wanted =
            [PollFd::new(&self.target, PollFlags::OUT), PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN)];
        loop {
            match poll(&mut wanted, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Anything but silence means that a write will not wait: room, or an error that it will tell.
        if wanted[0].revents().is_empty() {
            return Err(io::Error::other("asked to end while its reader takes nothing: what it has not read is lost"));
        }
        Ok(())
    }
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait()?;
        Ok(rustix::io::write(self.target, &bytes[..bytes.len().min(PIECE)])?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    /// An output to a pipe that nobody reads, and what asks it to end.
    fn stalled() -> (StandardOutput, UnixStream, OwnedFd) {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        let (stop, sender) = UnixStream::pair().expect("a pair");
        let target: &'static OwnedFd = Box::leak(Box::new(writer));
        (StandardOutput { target: target.as_fd(), stop }, sender, reader)
    }

    #[test]
    fn a_stalled_reader_does_not_hold_up_the_end() {
        let (mut output, mut sender, _reader) = stalled();
        sender.write_all(b"x").expect("room");
        let error = output.write_all(&[b'x'; 1 << 20]).expect_err("nobody reads");
        assert!(error.to_string().starts_with("asked to end"), "{error}");
    }

    #[test]
    fn a_request_to_end_does_not_keep_the_last_lines_from_a_reader() {
        let (mut output, mut sender, _reader) = stalled();
        sender.write_all(b"x").expect("room");
        output.write_all(b"summary\n").expect("the pipe has room");
    }

    #[test]
    fn a_reader_that_has_gone_is_a_broken_pipe() {
        let (mut output, _sender, reader) = stalled();
        drop(reader);
        assert_eq!(output.write_all(b"x").expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
    }
}
