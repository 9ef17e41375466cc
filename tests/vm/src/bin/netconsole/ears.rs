//! Gateway and receivers in a network namespace of their own, behind a network card: what does not come by the right frame
//! is not heard.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::thread::gettid;

use crate::machine::ip;

/// Port of netconsole, and that of the endpoint which says what was heard.
const PORT: u16 = 6666;
const HEALTH: u16 = 20260;

/// Orders that wait for the namespace.
const ORDERS: usize = 4;

/// Lines that are kept.
const LINES: usize = 4096;

/// How often a line is spoken until it is heard.
const SPEAK_INTERVAL: Duration = Duration::from_millis(500);

/// The other side.
pub(crate) struct Ears {
    orders: mpsc::SyncSender<(String, mpsc::SyncSender<Result<()>>)>,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    lines: Mutex<Vec<String>>,
    came: Condvar,
}

impl Ears {
    /// Moves the third card into a namespace, gives it this MAC, and listens there. The second card is the node's.
    pub(crate) fn open(mac: &str) -> Result<Self> {
        let (tell_id, id) = mpsc::sync_channel(1);
        let (orders, to_do) = mpsc::sync_channel::<(String, mpsc::SyncSender<Result<()>>)>(ORDERS);
        thread::spawn(move || {
            // SAFETY: only the network namespace of this thread becomes another.
            let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            let id = (done == 0).then(|| gettid().as_raw_nonzero());
            if tell_id.send(id).is_err() {
                return;
            }
            for (words, answer) in to_do {
                let done = if words == LISTEN { listen() } else { ip(&words) };
                // Who gave the order may have given up.
                answer.send(done).ok();
            }
        });
        let id = id.recv().context("making a namespace")?.context("making a namespace")?;
        ip(&format!("link set eth2 netns {id}"))?;
        let heard = HEARD.with_lines();
        let ears = Self { orders, heard };
        for words in [
            "link set lo up",
            &format!("link set eth2 address {mac}"),
            "link set eth2 up",
            "addr add 10.77.0.1/24 dev eth2",
            "addr add 10.78.0.1/32 dev lo",
            "addr add 10.78.0.2/32 dev lo",
            "addr add 10.78.0.3/32 dev lo",
            LISTEN,
        ] {
            ears.order(words)?;
        }
        for words in
            ["link set eth1 up", "addr add 10.77.0.2/24 dev eth1", "route add 10.78.0.0/24 via 10.77.0.1 dev eth1"]
        {
            ip(words)?;
        }
        Ok(ears)
    }

    fn order(&self, words: &str) -> Result<()> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.orders.send((words.to_owned(), answer)).map_err(|_| anyhow!("the namespace is gone"))?;
        answered.recv().context("the namespace is gone")?.with_context(|| format!("in the namespace: {words}"))
    }

    /// Gives the gateway another MAC; nobody is told.
    pub(crate) fn change_mac(&self, mac: &str) -> Result<()> {
        for words in ["link set eth2 down", &format!("link set eth2 address {mac}"), "link set eth2 up"] {
            self.order(words)?;
        }
        Ok(())
    }

    /// Gives gateway and receiver addresses of IPv6, which a card loses as it goes down.
    pub(crate) fn take_ipv6(&self) -> Result<()> {
        ["addr add fd00:77::1/64 dev eth2", "addr add fd00:78::1/128 dev lo"]
            .into_iter()
            .try_for_each(|words| self.order(words))
    }

    /// Speaks `line` into the kernel's log until it is heard, and gives the datagram.
    pub(crate) fn hear(&self, line: &str, patience: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            fs::write("/dev/kmsg", format!("<4>{line}\n")).context("speaking")?;
            let lines = self.heard.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let told = |lines: &mut Vec<String>| !lines.iter().any(|told| told.contains(line));
            let waited = self.heard.came.wait_timeout_while(lines, SPEAK_INTERVAL, told);
            let (lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if let Some(told) = lines.iter().find(|told| told.contains(line)) {
                return Ok(told.clone());
            }
            ensure!(
                start.elapsed() < patience,
                "{line:?} was not heard; of {} lines the last is {:?}",
                lines.len(),
                lines.last()
            );
        }
    }
}

/// The order to begin to listen.
const LISTEN: &str = "listen";

/// What was heard, for all threads.
static HEARD: Shared = Shared(std::sync::OnceLock::new());

struct Shared(std::sync::OnceLock<Arc<Heard>>);

impl Shared {
    fn with_lines(&self) -> Arc<Heard> {
        Arc::clone(self.0.get_or_init(Arc::default))
    }
}

/// Listens in the namespace of this thread; threads that it starts are in the same.
fn listen() -> Result<()> {
    // IPv4 as well.
    let socket = UdpSocket::bind(("::", PORT)).context("listening for datagrams")?;
    let questions = TcpListener::bind(("::", HEALTH)).context("listening for questions")?;
    thread::spawn(move || {
        let heard = HEARD.with_lines();
        let mut buffer = [0; 2048];
        while let Ok(count) = socket.recv(&mut buffer) {
            let mut lines = heard.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() < LINES {
                lines.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
            }
            heard.came.notify_all();
        }
    });
    thread::spawn(move || {
        for stream in questions.incoming().flatten() {
            // Who asked and went away asks again.
            answer(stream).ok();
        }
    });
    Ok(())
}

/// 200 if a datagram had the nonce that stands at the end of the path.
fn answer(mut stream: TcpStream) -> Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default();
    let nonce = path.strip_prefix("/netconsole/heard/").filter(|nonce| !nonce.is_empty());
    let heard = HEARD.with_lines();
    let lines = heard.lines.lock().unwrap_or_else(PoisonError::into_inner);
    let came = nonce.is_some_and(|nonce| lines.iter().any(|line| line.contains(nonce)));
    drop(lines);
    let status = if came { "200 OK" } else { "404 Not Found" };
    Ok(write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?)
}
