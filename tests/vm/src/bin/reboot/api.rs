//! Stands in for the API server: answers every write as if it stood, and writes down what was asked.

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

/// Where it listens.
pub(crate) const ADDRESS: &str = "127.0.0.1:8001";

/// Longest wait for a request: the agent attaches its probes first, on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(120);

/// The condition that this is about.
const CONDITION: &str = "PreviousBootCrash";

/// A Node on which nothing stands.
const NODE: &str = r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"node-a"},"status":{"conditions":[]}}"#;

/// One request.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    body: Value,
}

#[derive(Debug, Default)]
struct Asked {
    requests: Mutex<Vec<Request>>,
    more: Condvar,
}

/// The server.
pub(crate) struct Api(Arc<Asked>);

impl Api {
    /// Listens, until the machine ends.
    pub(crate) fn start() -> Result<Self> {
        let asked = Arc::new(Asked::default());
        let listener = TcpListener::bind(ADDRESS).with_context(|| format!("listening on {ADDRESS}"))?;
        let shared = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&shared);
                // A connection that breaks is made anew by the client.
                thread::spawn(move || serve(&stream, &asked).ok());
            }
        });
        Ok(Self(asked))
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The condition as it was written first after `seen` requests.
    pub(crate) fn condition(&self, seen: usize) -> Result<Value> {
        let found = |requests: &[Request]| {
            let written = requests.iter().skip(seen).filter(|request| request.method == "PATCH");
            let mut all = written.filter_map(|request| request.body["status"]["conditions"].as_array());
            all.find_map(|all| all.iter().find(|condition| condition["type"] == CONDITION)).cloned()
        };
        self.wait(found).with_context(|| format!("the condition {CONDITION} was not written within {PATIENCE:?}"))
    }

    /// The event of this reason.
    pub(crate) fn event(&self, reason: &str) -> Result<Value> {
        let found = |requests: &[Request]| events(requests).into_iter().find(|event| event["reason"] == reason);
        self.wait(found).with_context(|| format!("no event {reason} was written within {PATIENCE:?}"))
    }

    /// All events so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        events(&self.0.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wait<T>(&self, found: impl Fn(&[Request]) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        let mut requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = found(&requests) {
                return Some(found);
            }
            let left = PATIENCE.checked_sub(start.elapsed())?;
            requests = self.0.more.wait_timeout(requests, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn events(requests: &[Request]) -> Vec<Value> {
    let made = requests.iter().filter(|request| request.method == "POST" && request.path.contains("/events"));
    made.map(|request| request.body.clone()).collect()
}

/// Serves one connection, request after request (RFC 9112); bodies have a length.
fn serve(stream: &TcpStream, asked: &Asked) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        let (method, path) = words.next().zip(words.next()).context("no request")?;
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (status, answer) =
            if method == "POST" { ("201 Created", body.to_string()) } else { ("200 OK", NODE.to_owned()) };
        asked.requests.lock().unwrap_or_else(PoisonError::into_inner).push(Request { method, path, body });
        asked.more.notify_all();
        let length = answer.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        (&*stream).write_all(head.as_bytes())?;
        (&*stream).write_all(answer.as_bytes())?;
    }
}
