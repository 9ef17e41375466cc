//! The service `kubernetes` as pods see it. A real node has kube-proxy for that; here every connection to the service's
//! address is handed on to the API server on the host. It may be closed for a time, so that a test sees what a program does
//! without API server, while the kubelet has its own way.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};

/// Port of the service.
const PORT: u16 = 443;

/// Connections from pods to the API server.
pub(crate) struct Relay {
    /// Host and port of the API server.
    to: String,
    state: Mutex<State>,
}

struct State {
    open: bool,
    /// Ends of connections that may still live, to break them.
    connections: Vec<TcpStream>,
}

impl Relay {
    pub(crate) fn new(to: String) -> Arc<Self> {
        Arc::new(Self { to, state: Mutex::new(State { open: true, connections: Vec::new() }) })
    }

    /// Closing breaks all connections.
    pub(crate) fn set_open(&self, open: bool) {
        let mut state = self.state();
        state.open = open;
        if !open {
            for connection in state.connections.drain(..) {
                // It may have ended already.
                connection.shutdown(Shutdown::Both).ok();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands bytes on in both directions until both have ended.
    fn carry(&self, pod: TcpStream) -> io::Result<()> {
        if !self.state().open {
            return Ok(());
        }
        let api = TcpStream::connect(&self.to)?;
        let (pod_reads, api_reads) = (pod.try_clone()?, api.try_clone()?);
        {
            let mut state = self.state();
            state.connections.retain(|connection| connection.peer_addr().is_ok());
            state.connections.extend([pod.try_clone()?, api.try_clone()?]);
            if !state.open {
                return Ok(());
            }
        }
        let there = thread::spawn(move || copy(pod_reads, api));
        copy(api_reads, pod);
        there.join().ok();
        Ok(())
    }
}

/// Begins to serve in a thread of its own.
pub(crate) fn serve(address: &str, relay: &Arc<Relay>) -> Result<()> {
    let listener = TcpListener::bind((address, PORT)).with_context(|| format!("listening on {address}:{PORT}"))?;
    let relay = Arc::clone(relay);
    thread::spawn(move || {
        for pod in listener.incoming().flatten() {
            let relay = Arc::clone(&relay);
            // A connection that could not be made ends for the pod, too: that is all it needs to know.
            thread::spawn(move || relay.carry(pod).ok());
        }
    });
    Ok(())
}

/// Hands on one direction. Its end is handed on, too, and leaves the other direction alone; a failure ends both.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let ended = io::copy(&mut from, &mut to);
    let how = if ended.is_ok() { Shutdown::Write } else { Shutdown::Both };
    // It may have ended already.
    to.shutdown(how).ok();
    if ended.is_err() {
        from.shutdown(how).ok();
    }
}
