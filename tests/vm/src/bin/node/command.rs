//! Runs commands as root for tests, one a connection: a line of JSON there, a line of JSON back. It is reached through a
//! port of the host's loopback interface and exists in test guests only.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::relay::Relay;

/// What a test may ask for; `tests/cluster/src/node.rs` does.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// Run this in a shell.
    Run(String),
    /// Whether pods reach the API server.
    Api(bool),
}

/// Begins to serve in a thread of its own.
pub(crate) fn serve(port: u16, relay: Arc<Relay>) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("listening for commands")?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let relay = Arc::clone(&relay);
            // A test that went away is no concern of the node's.
            thread::spawn(move || answer(&connection, &relay).ok());
        }
    });
    Ok(())
}

fn answer(mut connection: &TcpStream, relay: &Relay) -> Result<()> {
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(Request::Run(command)) => run(&command),
        Ok(Request::Api(reachable)) => {
            relay.set_open(reachable);
            json!({})
        }
        Err(cause) => json!({ "code": -1, "output": format!("not understood: {cause}") }),
    };
    connection.write_all(format!("{answer}\n").as_bytes())?;
    Ok(())
}

fn run(command: &str) -> Value {
    let mut shell = Command::new("/bin/sh");
    // Both streams in their order.
    shell.args(["-c", &format!("exec 2>&1\n{command}")]).stdin(Stdio::null());
    match shell.output() {
        Ok(output) => json!({ "code": code(output.status), "output": String::from_utf8_lossy(&output.stdout) }),
        Err(cause) => json!({ "code": -1, "output": format!("no shell: {cause}") }),
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
