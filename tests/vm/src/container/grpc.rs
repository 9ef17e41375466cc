//! As much of gRPC as a test needs: one call at a time, one message each way, over HTTP/2 (RFC 9113) on a Unix socket.
//! Header fields are sent literally (RFC 7541, section 6.2.2) and not read at all: a call without an answer was refused.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

/// What a client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// Flags of frames. `ACK` is that of settings and pings.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Length of a frame's head, and of the head of a gRPC message.
const FRAME_HEAD: usize = 9;
const MESSAGE_HEAD: usize = 5;

/// Largest frame without an agreement on larger ones.
const FRAME_LIMIT: usize = 16_384;

/// A connection.
pub(super) struct Channel {
    socket: UnixStream,
    /// Next stream; a client's are odd.
    stream: u32,
}

impl Channel {
    /// Connects to the socket at `path`; an answer may take `deadline`.
    pub(super) fn connect(path: &str, deadline: Duration) -> Result<Self> {
        let socket = UnixStream::connect(path).with_context(|| format!("connecting to {path}"))?;
        socket.set_read_timeout(Some(deadline))?;
        let mut channel = Self { socket, stream: 1 };
        channel.socket.write_all(PREFACE)?;
        channel.send(SETTINGS, 0, 0, &[])?;
        Ok(channel)
    }

    /// Calls `method`, such as `/package.Service/Method`, with an encoded message; returns the encoded answer.
    pub(super) fn call(&mut self, method: &str, message: &[u8]) -> Result<Vec<u8>> {
        let stream = self.stream;
        self.stream += 2;
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let headers: Vec<u8> = fields.into_iter().flat_map(|(name, value)| literal(name, value)).collect();
        self.send(HEADERS, END_HEADERS, stream, &headers)?;
        let mut body = vec![0];
        body.extend(u32::try_from(message.len())?.to_be_bytes());
        body.extend_from_slice(message);
        self.send(DATA, END_STREAM, stream, &body)?;
        let answer = self.answer(stream).with_context(|| format!("waiting for the answer to {method}"))?;
        ensure!(answer.len() >= MESSAGE_HEAD, "{method} was refused");
        Ok(answer[MESSAGE_HEAD..].to_vec())
    }

    /// All data of a stream up to its end.
    fn answer(&mut self, stream: u32) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        loop {
            let (kind, flags, of, payload) = self.receive()?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[])?,
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload)?,
                GOAWAY => bail!("the server goes away"),
                RST_STREAM if of == stream => bail!("the server gave up"),
                DATA if of == stream => data.extend(payload),
                _ => {}
            }
            if of == stream && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return Ok(data);
            }
        }
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<()> {
        ensure!(payload.len() <= FRAME_LIMIT, "{} bytes do not fit into a frame", payload.len());
        let mut frame = u32::try_from(payload.len())?.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.socket.write_all(&frame).context("writing a frame")
    }

    fn receive(&mut self) -> Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; FRAME_HEAD];
        self.socket.read_exact(&mut head).context("reading a frame")?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.socket.read_exact(&mut payload).context("reading a frame's payload")?;
        Ok((kind, flags, u32::from_be_bytes(stream) & (u32::MAX >> 1), payload))
    }
}

/// A header field that is not to be remembered. Lengths below 127 take one byte.
fn literal(name: &str, value: &str) -> Vec<u8> {
    debug_assert!(name.len() < 127 && value.len() < 127, "{name}");
    let mut field = vec![0, name.len() as u8];
    field.extend_from_slice(name.as_bytes());
    field.push(value.len() as u8);
    field.extend_from_slice(value.as_bytes());
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    fn answered(frames: &[Vec<u8>]) -> Result<Vec<u8>> {
        let (socket, mut server) = UnixStream::pair()?;
        server.write_all(&frames.concat())?;
        Channel { socket, stream: 1 }.call("/a/b", b"x")
    }

    #[test]
    fn an_answer_is_taken_out_of_its_frames() {
        let frames = [
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, &[0x88]),
            frame(DATA, 0, 3, b"of another stream"),
            frame(DATA, 0, 1, b"\0\0\0\0\x02o"),
            frame(DATA, 0, 1, b"k"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[]),
        ];
        assert_eq!(answered(&frames).expect("answered"), b"ok");
    }

    #[test]
    fn a_call_that_ends_without_a_message_was_refused() {
        let refused = answered(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88])]);
        assert_eq!(refused.expect_err("refused").to_string(), "/a/b was refused");
    }
}
