//! A line of the node's own log that each receiver must hear: the only proof that the way works, from the kernel's log to
//! the receiver's socket.
//!
//! The line has a user's facility, so that it is no evidence of anything, and is seen in the node's log by design.

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::secret;
use crate::contract::netconsole::{HEARD_PATH, SELF_TEST_MARK};

/// How long a receiver may take to have heard it.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Time between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(3);

/// Bytes of an answer that are read: its first line says all.
const ANSWER: usize = 512;

/// Level of the line (syslog(2)): informational, unless the console takes less.
const MILDEST: u32 = 6;

/// Where the log's level for consoles is (proc_sys_kernel(5)).
const PRINTK: &str = "proc/sys/kernel/printk";

/// The module's parameter that keeps it silent but in an oops.
const OOPS_ONLY: &str = "sys/module/netconsole/parameters/oops_only";

/// The kernel's log.
const KMSG: &str = "dev/kmsg";

/// Why no line can be heard although the targets may be right: a panic raises the console's level by itself.
#[derive(Debug, Error)]
pub enum Untestable {
    /// Only emergencies pass, which go to all terminals as well.
    #[error("the console takes no line but emergencies (kernel.printk: {0}): a panic is sent all the same")]
    Quiet(u32),
    /// Lines are sent in an oops only.
    #[error("netconsole was loaded with oops_only: a panic is sent, a test is not")]
    OopsOnly,
    /// The kernel's log cannot be written.
    #[error("{attempt} {path}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// No nonce.
    #[error("make a nonce")]
    Nonce(#[source] secret::SecretError),
}

/// Writes the line for `node` into the kernel's log below `root`, and gives its nonce.
///
/// # Errors
/// If no receiver can hear it.
pub fn speak(root: &Path, node: &str) -> Result<String, Untestable> {
    if fs::read_to_string(root.join(OOPS_ONLY)).is_ok_and(|text| text.starts_with('Y')) {
        return Err(Untestable::OopsOnly);
    }
    let file = |attempt, path| move |source| Untestable::File { attempt, path, source };
    let printk = fs::read_to_string(root.join(PRINTK)).map_err(file("read", PRINTK))?;
    let level = level(&printk)?;
    let nonce = secret::make().map_err(Untestable::Nonce)?;
    // One write is one record. A user's facility is set by the kernel where none is given (`devkmsg_write`).
    let kmsg = fs::OpenOptions::new().write(true).open(root.join(KMSG));
    kmsg.and_then(|mut kmsg| kmsg.write_all(line(level, node, &nonce).as_bytes())).map_err(file("write to", KMSG))?;
    Ok(nonce)
}

/// Level of a line that passes, from the file `printk`: the console takes what is below its first number.
fn level(printk: &str) -> Result<u32, Untestable> {
    let console = printk.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(MILDEST + 1);
    match u32::saturating_sub(console, 1).min(MILDEST) {
        0 => Err(Untestable::Quiet(console)),
        level => Ok(level),
    }
}

fn line(level: u32, node: &str, nonce: &str) -> String {
    format!("<{level}>{SELF_TEST_MARK}{node} {nonce}\n")
}

/// What became of a test at one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It heard the line.
    Yes,
    /// It answered, and did not hear it.
    No,
    /// It could not be asked; why.
    Unknown(String),
}

/// Asks the receiver at `health` until it heard the line with `nonce`, at most [`PATIENCE`].
pub async fn listen(health: SocketAddr, nonce: &str) -> Heard {
    let mut last = Heard::Unknown(format!("{health} did not answer"));
    let asking = async {
        loop {
            last = match timeout(QUESTION, ask(health, nonce)).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => Heard::No,
                Ok(Err(error)) => Heard::Unknown(format!("{health}: {error}")),
                Err(_) => Heard::Unknown(format!("{health} did not answer within {} s", QUESTION.as_secs())),
            };
            sleep(PAUSE).await;
        }
    };
    match timeout(PATIENCE, asking).await {
        Ok(()) => Heard::Yes,
        Err(_) => last,
    }
}

/// One question by HTTP, of which only the status counts.
async fn ask(health: SocketAddr, nonce: &str) -> io::Result<bool> {
    let stream = TcpStream::connect(health).await?;
    let question = format!("GET {HEARD_PATH}{nonce} HTTP/1.1\r\nHost: {health}\r\nConnection: close\r\n\r\n");
    let (mut rest, mut answer) = (question.as_bytes(), Vec::new());
    loop {
        let interest = if rest.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready: Ready = stream.ready(interest).await?;
        if ready.is_writable() && !rest.is_empty() {
            match stream.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if ready.is_readable() {
            let mut bytes = [0; ANSWER];
            match stream.try_read(&mut bytes) {
                Ok(0) => return status(&answer),
                Ok(count) => answer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if answer.len() >= ANSWER || answer.contains(&b'\n') {
                return status(&answer);
            }
        }
    }
}

/// Whether the status line says 200; 404 is no; anything else is no answer to this question.
fn status(answer: &[u8]) -> io::Result<bool> {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let code = words.next().filter(|version| version.starts_with("HTTP/1.")).and_then(|_| words.next());
    match code {
        Some("200") => Ok(true),
        Some("404") => Ok(false),
        Some(code) => Err(io::Error::other(format!("it answered {code}"))),
        None => Err(io::Error::other("it does not speak HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::contract::netconsole::MAX_NONCE_BYTES;

    #[rstest]
    #[case("7\t4\t1\t7\n", 6)]
    #[case("8\t4\t1\t7\n", 6)]
    #[case("4 4 1 7", 3)]
    #[case("2", 1)]
    #[case("what", 6)]
    fn the_line_is_as_mild_as_the_console_takes(#[case] printk: &str, #[case] expected: u32) {
        assert_eq!(level(printk).expect("a level"), expected);
    }

    #[rstest]
    fn a_silent_console_is_told(#[values("1 4 1 7", "0")] printk: &str) {
        assert!(matches!(level(printk), Err(Untestable::Quiet(_))));
    }

    #[test]
    fn what_is_spoken_is_one_marked_line_with_a_new_nonce() {
        let root = tempfile::tempdir().expect("a directory");
        for directory in ["proc/sys/kernel", "dev"] {
            fs::create_dir_all(root.path().join(directory)).expect("made");
        }
        fs::write(root.path().join(PRINTK), "7 4 1 7").expect("written");
        assert!(matches!(speak(root.path(), "node-a"), Err(Untestable::File { .. })), "a log is never made");
        fs::write(root.path().join(KMSG), "").expect("made");
        let nonce = speak(root.path(), "node-a").expect("spoken");
        assert!(nonce.len() <= MAX_NONCE_BYTES && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let told = fs::read_to_string(root.path().join(KMSG)).expect("written");
        assert_eq!(told, format!("<6>detector: netconsole self test node-a {nonce}\n"));
        fs::write(root.path().join(KMSG), "").expect("emptied");
        assert_ne!(speak(root.path(), "node-a").expect("spoken"), nonce);
    }

    #[rstest]
    #[case("HTTP/1.1 200 OK\r\n", Some(true))]
    #[case("HTTP/1.0 404 Not Found\r\n", Some(false))]
    #[case("HTTP/1.1 503 x\r\n", None)]
    #[case("SSH-2.0-x\r\n", None)]
    #[case("", None)]
    fn only_the_status_counts(#[case] answer: &str, #[case] expected: Option<bool>) {
        assert_eq!(status(answer.as_bytes()).ok(), expected);
    }

    /// Answers one question after the other.
    async fn receiver(answers: &'static [&'static str]) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a question");
                let mut question = [0; 512];
                let count = stream.read(&mut question).await.expect("a question");
                assert!(question[..count].starts_with(b"GET /netconsole/heard/abc HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.expect("an answer");
            }
        });
        address
    }

    #[tokio::test]
    async fn a_receiver_is_asked_and_says_what_it_heard() {
        let address = receiver(&["HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"]).await;
        assert!(!ask(address, "abc").await.expect("an answer"));
        assert!(ask(address, "abc").await.expect("an answer"));
    }

    #[tokio::test]
    async fn a_receiver_that_heard_ends_the_test_at_once() {
        let address = receiver(&["HTTP/1.1 200 OK\r\n\r\n"]).await;
        assert_eq!(listen(address, "abc").await, Heard::Yes);
    }
}
