//! The agent's way to the API server, which a test may cut.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// How long a port that was just closed may refuse to be opened again.
const REOPEN: Duration = Duration::from_secs(5);

/// Passes connections on. While it is cut, open ones are broken and new ones refused, as with a server that has died.
pub struct Proxy {
    port: u16,
    server: u16,
    passing: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port and leads to `server`, another one of this machine.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn open(server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen for the agent")?;
        let port = listener.local_addr().context("find the proxy's port")?.port();
        Ok(Self { port, server, passing: Some(tokio::spawn(pass(listener, server))) })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts.
    pub async fn cut(&mut self) {
        if let Some(passing) = self.passing.take() {
            passing.abort();
            // All it held is closed once it has ended; that it was aborted is no news.
            passing.await.ok();
        }
    }

    /// Joins again.
    ///
    /// # Errors
    /// Somebody else has taken the port.
    pub async fn join(&mut self) -> Result<()> {
        let bind = async {
            loop {
                match listen(self.port) {
                    Ok(listener) => return listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let listener = tokio::time::timeout(REOPEN, bind).await.context("listen for the agent again")?;
        self.passing = Some(tokio::spawn(pass(listener, self.server)));
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(passing) = &self.passing {
            passing.abort();
        }
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(64)
}

/// Until it is aborted, with all connections.
async fn pass(listener: TcpListener, server: u16) {
    let mut connections = JoinSet::new();
    // An agent that gives up connecting is no failure of the proxy.
    while let Ok((mut client, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await {
                copy_bidirectional(&mut client, &mut stream).await.ok();
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
