//! Connections that cost little, whoever makes them: bounded in number, time and bytes read.
//!
//! When there are too many, the oldest is closed. So nobody who merely holds connections keeps a probe of kubelet out,
//! which would have the agent killed: a request is answered within milliseconds, long before it is the oldest.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{Sleep, sleep},
};

/// Connections of one listener at once.
pub(super) const CONNECTIONS: usize = 32;

/// Time for the whole of a connection: request, answer and end.
pub(super) const LIFETIME: Duration = Duration::from_secs(10);

/// Bytes of a request, head and whatever follows: a scrape has some 500.
pub(super) const REQUEST: usize = 16 << 10;

/// A listener that guards its connections.
pub(super) struct Guarded {
    listener: TcpListener,
    /// One for each connection, oldest first: dropping it closes the connection.
    open: VecDeque<oneshot::Sender<()>>,
}

impl Guarded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, open: VecDeque::with_capacity(CONNECTIONS) }
    }
}

impl Listener for Guarded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Retries, and waits a second when the process has no descriptors left.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        self.open.retain(|connection| !connection.is_closed());
        if self.open.len() >= CONNECTIONS {
            self.open.pop_front();
        }
        let (open, closed) = oneshot::channel();
        self.open.push_back(open);
        (Connection { stream, closed, deadline: Box::pin(sleep(LIFETIME)), room: REQUEST }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with an end.
pub(super) struct Connection {
    stream: TcpStream,
    closed: oneshot::Receiver<()>,
    deadline: Pin<Box<Sleep>>,
    /// Bytes that may still be read.
    room: usize,
}

impl Connection {
    /// Fails once the connection's time is over or its place is wanted.
    fn over(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.deadline.as_mut().poll(context).is_ready() || Pin::new(&mut self.closed).poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.over(context)?;
        if self.room == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        // One read is as large as the reader's buffer, so that this is passed by no more than that.
        self.room = self.room.saturating_sub(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.over(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.over(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
