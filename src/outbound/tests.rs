//! What is reached and what is not, over real sockets on loopback.

use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn nobody() -> Outbound {
    Outbound::new(Arc::new(|_| false))
}

fn loopback() -> Outbound {
    Outbound::new(Arc::new(|address| address.is_loopback()))
}

/// Answers every connection with `answer`; returns the port and counts the connections.
async fn serve(answer: String) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = [0_u8; 4_096];
                let _ = socket.read(&mut buffer).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    (port, seen)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn the_registries_decide_what_is_public() {
    let public = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2606:4700::1111", "2a00::1"];
    let reserved = [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.168.1.1",
        "198.19.0.1",
        "203.0.113.5",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];
    for text in public {
        assert!(is_public(text.parse().unwrap()), "{text}");
    }
    for text in reserved {
        assert!(!is_public(text.parse().unwrap()), "{text}");
    }
}

proptest! {
    #[test]
    fn an_address_in_ipv6_clothes_is_judged_by_what_it_is(number: u32) {
        let v4 = Ipv4Addr::from(number);
        prop_assert_eq!(is_public(v4.into()), is_public(v4.to_ipv6_mapped().into()));
    }

    #[test]
    fn nothing_outside_global_unicast_is_public(number: u128) {
        let outside = number & !(0b111 << 125);
        prop_assert!(!is_public(Ipv6Addr::from(outside).into()) || Ipv6Addr::from(outside).to_ipv4_mapped().is_some());
    }
}

#[tokio::test]
async fn private_addresses_are_not_even_connected_to() {
    let (port, seen) = serve(ok("{}")).await;
    for url in [
        format!("https://127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("https://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        // Other ways of writing loopback.
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://127.1:{port}/"),
    ] {
        let refused = nobody().get(&url, &[]).await;
        assert!(matches!(refused, Err(OutboundError::Private(_))), "{url}: {refused:?}");
    }
    // Cloud metadata, whether or not loopback is allowed.
    let refused = loopback().get("http://169.254.169.254/latest/meta-data/", &[]).await;
    assert!(matches!(refused, Err(OutboundError::Private(_))));
    for url in ["ftp://example.com/", "file:///etc/passwd", "http://user:pw@127.0.0.1/", "nonsense", "http://"] {
        assert!(matches!(loopback().get(url, &[]).await, Err(OutboundError::Address(_))), "{url}");
    }
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_named_range_is_reached_by_address_and_by_name() {
    let (port, _) = serve(ok("{\"a\":1}")).await;
    for host in ["127.0.0.1", "localhost"] {
        let reply = loopback().get(&format!("http://{host}:{port}/x"), &[]).await.unwrap();
        assert!(reply.is_success());
        assert_eq!(reply.body, b"{\"a\":1}");
    }
    let reply = loopback().post_form(&format!("http://127.0.0.1:{port}/"), &[], &[("a", "b")]).await.unwrap();
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (inside, seen) = serve(ok("secret")).await;
    let moved = format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{inside}/\r\ncontent-length: 0\r\n\r\n");
    let (port, _) = serve(moved).await;
    let reply = loopback().get(&format!("http://127.0.0.1:{port}/"), &[]).await.unwrap();
    assert_eq!((reply.status, reply.is_success()), (302, false));
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let (port, _) = serve(ok(&"x".repeat(limits::OUTBOUND_BODY_BYTES_MAX + 1))).await;
    let refused = loopback().get(&format!("http://127.0.0.1:{port}/"), &[]).await;
    assert!(matches!(refused, Err(OutboundError::TooLong(_))), "{refused:?}");
}

#[tokio::test]
async fn nobody_waits_for_a_turn() {
    let outbound = loopback();
    let turns = outbound.0.turns.acquire_many(u32::try_from(limits::OUTBOUND_CONCURRENCY_MAX).unwrap()).await.unwrap();
    assert!(matches!(outbound.get("http://127.0.0.1:9/", &[]).await, Err(OutboundError::Busy)));
    drop(turns);
}
