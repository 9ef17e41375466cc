//! Real sockets on free ports of the loopback address.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime,
    task::LocalSet,
    time::timeout,
};

use super::*;

fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

fn pages() -> (Pages, Heart) {
    let (pulse, heart) = Pulse::new();
    let metrics: Encode = Arc::new(|open| if open { "# EOF\n".to_owned() } else { "# text\n".to_owned() });
    (Pages { pulse, readiness: Readiness::new(["oom", "hung_task"]), metrics }, heart)
}

fn free() -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// A server with all pages on one address.
async fn serve(pages: Pages) -> SocketAddr {
    let server = Server::bind(free(), free()).await.unwrap();
    let addresses = server.addresses().unwrap();
    assert_eq!(addresses.len(), 1, "equal addresses are one listener");
    tokio::task::spawn_local(server.serve(pages));
    addresses[0]
}

async fn request(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn page(address: SocketAddr, path: &str) -> String {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

#[test]
fn a_flow_that_comes_round_is_live_and_one_that_does_not_is_not() {
    on_one_thread(async {
        let (pages, mut heart) = pages();
        let address = serve(pages).await;
        let flow = tokio::task::spawn_local(async move {
            drop(heart.asked().await);
            drop(heart.asked().await);
            heart
        });
        assert!(page(address, "/livez").await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(page(address, "/healthz").await.ends_with("\r\n\r\nok\n"));
        let heart = flow.await.unwrap();
        let stuck = page(address, "/livez").await;
        assert!(stuck.starts_with("HTTP/1.1 503 ") && stuck.contains("has not come round"), "{stuck}");
        drop(heart);
        assert!(page(address, "/livez").await.contains("the loop has ended"));
    });
}

#[test]
fn the_answer_comes_when_the_turn_is_done() {
    on_one_thread(async {
        let (pulse, mut heart) = Pulse::new();
        let feeling = tokio::task::spawn_local(async move { pulse.feel().await });
        let asked = heart.asked().await;
        tokio::task::yield_now().await;
        assert!(!feeling.is_finished());
        drop(asked);
        assert_eq!(feeling.await.unwrap(), Ok(()));
    });
}

#[test]
fn who_asks_while_too_many_wait_is_refused_at_once() {
    on_one_thread(async {
        let (pulse, _heart) = Pulse::new();
        let waiting: Vec<_> = (0..32).map(|_| Box::pin(pulse.feel())).collect();
        let all = futures::future::join_all(waiting);
        let one_more = async {
            tokio::task::yield_now().await;
            pulse.feel().await
        };
        let (waited, refused) = futures::join!(all, one_more);
        assert_eq!(refused, Err(Lifeless::Full));
        assert!(waited.iter().all(|answer| *answer == Err(Lifeless::Late)));
    });
}

#[test]
fn readiness_names_what_is_missing_until_all_is_there() {
    on_one_thread(async {
        let (pages, _heart) = pages();
        let readiness = pages.readiness.clone();
        let address = serve(pages).await;
        readiness.there("oom");
        let answer = page(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nhung_task: has not started yet\n"), "{answer}");
        readiness.there("hung_task");
        assert!(page(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
        readiness.gone("oom", "no method is left".to_owned());
        assert!(page(address, "/readyz").await.ends_with("oom: no method is left\n"));
    });
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    on_one_thread(async {
        let (pages, _heart) = pages();
        let address = serve(pages).await;
        let plain = page(address, "/metrics").await;
        assert!(plain.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{plain}");
        assert!(plain.contains("connection: close\r\n") && plain.ends_with("# text\n"), "{plain}");
        let accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.2";
        let open = request(address, &format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")).await;
        assert!(
            open.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
            "{open}"
        );
        assert!(open.ends_with("# EOF\n"), "{open}");
    });
}

#[test]
fn each_listener_has_its_own_pages_and_other_paths_and_methods_are_refused() {
    on_one_thread(async {
        let (pages, _heart) = pages();
        let other = Some(SocketAddr::from(([127, 0, 0, 2], 0)));
        let server = Server::bind(free(), other).await.unwrap();
        let addresses = server.addresses().unwrap();
        tokio::task::spawn_local(server.serve(pages));
        assert!(page(addresses[0], "/metrics").await.starts_with("HTTP/1.1 404 "));
        assert!(page(addresses[1], "/readyz").await.starts_with("HTTP/1.1 404 "));
        assert!(page(addresses[1], "/metrics").await.starts_with("HTTP/1.1 200 "));
        let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab";
        assert!(request(addresses[1], post).await.starts_with("HTTP/1.1 405 "));
    });
}

#[test]
fn a_taken_address_is_refused_with_setting_and_address() {
    on_one_thread(async {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = Server::bind(None, Some(address)).await.map(|_| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "metrics.listen: listening on {address}: must be an address of this machine with a port that nobody else \
                 listens on"
            )
        );
    });
}

#[test]
fn who_holds_all_connections_keeps_nobody_out() {
    on_one_thread(async {
        let (pages, _heart) = pages();
        let address = serve(pages).await;
        let mut held = Vec::new();
        for _ in 0..guard::CONNECTIONS + 8 {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(page(address, "/metrics").await.starts_with("HTTP/1.1 200 "));
        // The oldest one gave way: its end is seen.
        let mut byte = [0];
        assert!(matches!(held[0].read(&mut byte).await, Ok(0) | Err(_)));
    });
}

#[test]
fn a_request_without_end_is_cut() {
    on_one_thread(async {
        let (pages, _heart) = pages();
        let address = serve(pages).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").await.unwrap();
        let flood = vec![b'a'; 64 << 10];
        let mut sent = 0_usize;
        // Ends when the server closes: the sockets' own buffers are a few megabytes.
        while stream.write_all(&flood).await.is_ok() {
            sent += flood.len();
            assert!(sent < 64 << 20, "the server reads on");
        }
    });
}

#[test]
fn a_slow_request_is_closed_when_its_time_is_over() {
    let runtime = runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (pages, _heart) = pages();
        let address = serve(pages).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metr").await.unwrap();
        let almost = guard::LIFETIME - Duration::from_secs(1);
        assert!(timeout(almost, stream.read_u8()).await.is_err(), "it had time left");
        assert!(stream.read_u8().await.is_err(), "its time is over");
    });
}
