//! Garbage and pressure: clear refusals, no panic, and the node is still quick.

use crate::support::{RawConnection, TestServer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenantry::kernel::clock::SystemClock;

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_cut_off() {
    let server = TestServer::start_with("[http]\nhead_timeout_ms = 300", Arc::new(SystemClock)).await;
    let mut slow = RawConnection::open(&server.url()).await;
    slow.send(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    let said = slow.read_all(Duration::from_secs(5)).await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_silent_connections_do_not_slow_the_others() {
    let server = TestServer::start().await;
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(RawConnection::open(&server.url()).await);
    }
    let begun = Instant::now();
    for _ in 0..20 {
        server.anon().get("/livez").await.ok();
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_on_the_wire_is_refused() {
    let server = TestServer::start().await;
    for nonsense in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        let mut raw = RawConnection::open(&server.url()).await;
        raw.send(nonsense).await;
        let said = raw.read_all(Duration::from_millis(500)).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    let long = format!("/livez?q={}", "x".repeat(20_000));
    server.anon().get(&long).await.problem("request_invalid");
    server.anon().get("/livez").await.ok();
}
