//! Datagrams over loopback.

use std::net::IpAddr;

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime")
}

fn loopback(ip: IpAddr) -> (StdSocket, SocketAddr) {
    let socket = StdSocket::bind((ip, 0)).expect("a socket");
    let address = socket.local_addr().expect("its address");
    (socket, address)
}

async fn read(receiver: &mut Receiver, many: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut read = Vec::new();
    while read.len() < many {
        receiver.receive(|datagram| read.push((datagram.from, datagram.bytes.to_vec()))).await.expect("datagrams");
    }
    read
}

#[test]
fn one_socket_hears_both_families_and_tells_ipv4_as_such() {
    runtime().block_on(async {
        let mut receiver = Receiver::listen((Ipv6Addr::UNSPECIFIED, 0).into()).expect("a socket");
        let port = receiver.address().port();
        let (four, from_four) = loopback(Ipv4Addr::LOCALHOST.into());
        four.send_to(b"four", (Ipv4Addr::LOCALHOST, port)).expect("sent");
        assert_eq!(read(&mut receiver, 1).await, [(from_four, b"four".to_vec())]);
        // A machine may have no IPv6 at all.
        if receiver.address().is_ipv6() && StdSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            let (six, from_six) = loopback(Ipv6Addr::LOCALHOST.into());
            six.send_to(b"six", (Ipv6Addr::LOCALHOST, port)).expect("sent");
            assert_eq!(read(&mut receiver, 1).await, [(from_six, b"six".to_vec())]);
        }
    });
}

#[test]
fn a_datagram_that_is_too_long_is_known_by_one_byte_and_an_empty_one_is_told() {
    runtime().block_on(async {
        let mut receiver = Receiver::listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        let (sender, _) = loopback(Ipv4Addr::LOCALHOST.into());
        for length in [MAX_DATAGRAM, MAX_DATAGRAM + 1, 60_000, 0] {
            sender.send_to(&vec![b'x'; length], receiver.address()).expect("sent");
        }
        let lengths: Vec<_> = read(&mut receiver, 4).await.iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lengths, [MAX_DATAGRAM, MAX_DATAGRAM + 1, MAX_DATAGRAM + 1, 0]);
    });
}

#[test]
fn what_the_kernel_had_no_room_for_is_counted() {
    runtime().block_on(async {
        let mut receiver = Receiver::listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        assert_eq!(receiver.kernel_dropped(), Some(0));
        let (sender, _) = loopback(Ipv4Addr::LOCALHOST.into());
        let mut sent = 0_u64;
        // Each takes 256 bytes of the buffer at least, whatever its length.
        while sent * 256 <= receiver.buffer_bytes() as u64 {
            sender.send_to(b"x", receiver.address()).expect("sent");
            sent += 1;
        }
        let dropped = receiver.kernel_dropped().expect("the kernel tells");
        assert!(dropped > 0);
        assert_eq!(read(&mut receiver, (sent - dropped) as usize).await.len() as u64 + dropped, sent);
    });
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    runtime().block_on(async {
        let first = Receiver::listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        let error = Receiver::listen(first.address()).expect_err("it is taken");
        assert_eq!(error.to_string(), format!("cannot listen for netconsole on {}", first.address()));
    });
}
