//! Budgets of tenants: what refuses, what it says, whom it leaves alone, and the live view of who uses what.

use crate::support::{Actor, RawConnection, TestServer};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tenantry::kernel::clock::{Clock, ManualClock};

const NOTES: &str = "/api/collections/notes/records";
/// Ten seconds into a minute.
const NOW_MS: i64 = 1_800_000_010_000;

async fn start(toml: &str) -> (TestServer, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    (TestServer::start_with(toml, Arc::clone(&clock) as Arc<dyn Clock>).await, clock)
}

/// A tenant whose notes everybody may read and write: its administrator and a stranger.
async fn open(server: &TestServer, slug: &str) -> (Actor, Actor) {
    let admin = server.tenant(slug).await;
    let body = json!({ "name": "notes", "type": "base", "listRule": "", "viewRule": "", "createRule": "",
        "deleteRule": "", "fields": [{ "name": "text", "type": "text", "max": 100_000 }] });
    admin.post("/api/collections", body).await.created();
    (admin.clone(), admin.without_authorization())
}

async fn limit(server: &TestServer, slug: &str, limits: Value) -> Value {
    server.node().patch(&format!("/api/tenants/{slug}"), json!({ "limits": limits })).await.ok()
}

async fn usage(server: &TestServer, slug: &str) -> Value {
    server.node().get(&format!("/api/admin/usage?tenant={slug}")).await.ok()["items"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_past_a_budget_are_refused_by_name_and_other_tenants_go_on() {
    let (server, clock) = start("").await;
    let (admin, noisy) = open(&server, "noisy").await;
    let (_, quiet) = open(&server, "quiet").await;
    let used = usage(&server, "noisy").await["used"]["requestsPerMinute"].as_u64().unwrap();
    limit(&server, "noisy", json!({ "requestsPerMinute": used + 3 })).await;
    for _ in 0..3 {
        noisy.get(NOTES).await.ok();
    }
    for _ in 0..20 {
        let refused = noisy.get(NOTES).await.has_status(429);
        assert_eq!(refused.header("retry-after"), Some("50"));
        let said = refused.problem("quota_exceeded")["message"].as_str().unwrap().to_owned();
        assert!(said.contains("requestsPerMinute") && said.contains("try again in 50 s"), "{said}");
        quiet.get(NOTES).await.ok();
    }
    admin.get(NOTES).await.ok();
    let seen = usage(&server, "noisy").await;
    assert_eq!((&seen["used"]["refused"], &seen["limits"]["requestsPerMinute"]), (&json!(20), &json!(used + 3)));
    assert_eq!(usage(&server, "quiet").await["used"]["refused"], 0);
    clock.advance_ms(50_000);
    noisy.get(NOTES).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_and_rows_have_budgets_of_their_own() {
    let (server, clock) = start("[cache]\nenabled = false").await;
    let (admin, guest) = open(&server, "acme").await;
    clock.advance_ms(60_000);
    limit(&server, "acme", json!({ "writesPerMinute": 5 })).await;
    for text in 0..5 {
        guest.post(NOTES, json!({ "text": format!("{text}") })).await.created();
    }
    guest.post(NOTES, json!({ "text": "6" })).await.has_status(429).problem("quota_exceeded");
    guest.get(NOTES).await.ok();
    admin.post(NOTES, json!({ "text": "by a superuser" })).await.created();
    let used = usage(&server, "acme").await["used"].clone();
    assert_eq!(used["writesPerMinute"], 6);
    let rows = used["rows"].as_u64().unwrap();
    guest.get(NOTES).await.ok();
    let after = usage(&server, "acme").await["used"].clone();
    assert!(after["rows"].as_u64().unwrap() >= rows + 6, "six notes were read: {used} {after}");

    clock.advance_ms(60_000);
    limit(&server, "acme", json!({ "writesPerMinute": null, "readStepsPerMinute": 1 })).await;
    guest.get(NOTES).await.has_status(200);
    let refused = guest.get(NOTES).await.has_status(429).problem("quota_exceeded");
    assert!(refused["message"].as_str().unwrap().contains("readStepsPerMinute"), "{refused}");
    clock.advance_ms(60_000);
    guest.get(NOTES).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn full_storage_refuses_writes_but_not_reads_and_deletions() {
    let (server, _clock) = start("").await;
    let (_, guest) = open(&server, "acme").await;
    let first = guest.post(NOTES, json!({ "text": "first" })).await.created()["id"].as_str().unwrap().to_owned();
    limit(&server, "acme", json!({ "storageBytes": 1_000 })).await;
    // The disk is looked at beside the requests.
    let filled = async {
        loop {
            let answer = guest.post(NOTES, json!({ "text": "x".repeat(1_000) })).await;
            if answer.status == 507 {
                break answer.problem("storage_full");
            }
            answer.created();
            crate::support::pause(Duration::from_millis(20)).await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(60), filled).await.expect("the storage is noticed");
    assert!(refused["message"].as_str().unwrap().contains("storageBytes"), "{refused}");
    guest.get(NOTES).await.ok();
    guest.delete(&format!("{NOTES}/{first}")).await.gone();
    let seen = usage(&server, "acme").await;
    assert!(seen["used"]["storageBytes"].as_u64().unwrap() > 1_000, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_the_same_moment_are_bounded_per_tenant() {
    let (server, _clock) = start("").await;
    let (_, guest) = open(&server, "acme").await;
    let (_, other) = open(&server, "other").await;
    limit(&server, "acme", json!({ "concurrentRequests": 1 })).await;
    let mut slow = RawConnection::open(&server.url()).await;
    let head = format!("POST /t/acme{NOTES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    slow.send(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).await;
    let arrived = async {
        while usage(&server, "acme").await["used"]["concurrentRequests"] != 1 {
            crate::support::pause(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), arrived).await.expect("the slow request is under way");
    let refused = guest.get(NOTES).await.has_status(503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.problem("busy");
    other.get(NOTES).await.ok();
    drop(slow);
    let over = async {
        while guest.get(NOTES).await.status != 200 {
            crate::support::pause(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), over).await.expect("a client that left is not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_defaults_hold_where_a_tenant_has_none_and_limits_outlive_a_restart() {
    let (server, _clock) = start("[budgets]\nrequests_per_day = 1000\nwrites_per_minute = 7").await;
    open(&server, "acme").await;
    let shown = limit(&server, "acme", json!({ "requestsPerDay": 5_000, "storageBytes": 123_456 })).await;
    assert_eq!(shown["limits"], json!({ "requestsPerDay": 5_000, "storageBytes": 123_456 }));
    let refused = server.node().patch("/api/tenants/acme", json!({ "limits": { "requests": 1 } })).await;
    let refused = refused.has_status(400).problem("validation_failed");
    assert_eq!(refused["errors"][0]["field"], "limits.requests");
    let limits = usage(&server, "acme").await["limits"].clone();
    assert_eq!(limits, json!({ "requestsPerDay": 5_000, "writesPerMinute": 7, "storageBytes": 123_456 }));
    let server = server.restart().await;
    let limits = usage(&server, "acme").await["limits"].clone();
    assert_eq!(limits, json!({ "requestsPerDay": 5_000, "storageBytes": 123_456 }));
    let back = limit(&server, "acme", json!({ "requestsPerDay": null, "storageBytes": 0 })).await;
    assert_eq!(back["limits"], json!({ "storageBytes": 0 }));
    server.anon().get("/api/admin/usage").await.problem("auth_required");
    let metrics = server.node().get("/metrics").await.has_status(200);
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(metrics.contains("tenantry_tenant_requests_total{tenant=\"acme\"}"), "{metrics}");
}

fn asked_of(slug: &str) -> String {
    format!("GET /t/{slug}{NOTES} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A connection that has asked `slug` and stays.
async fn stay_at(server: &TestServer, slug: &str) -> RawConnection {
    let mut connection = RawConnection::open(&server.url()).await;
    for _ in 0..3 {
        let answer = connection.exchange(&asked_of(slug)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    connection
}

async fn open_connections(server: &TestServer, slug: &str) -> u64 {
    usage(server, slug).await["used"]["connections"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_are_bounded_per_tenant_also_where_answers_are_remembered() {
    // One worker, so that every connection meets the answers it remembers.
    let (server, _clock) = start("[http]\nworkers = 1").await;
    open(&server, "acme").await;
    open(&server, "other").await;
    // The look itself is at no tenant.
    let before = open_connections(&server, "acme").await;
    limit(&server, "acme", json!({ "connections": before + 2 })).await;
    let mut first = stay_at(&server, "acme").await;
    let second = stay_at(&server, "acme").await;
    assert_eq!(open_connections(&server, "acme").await, before + 2);
    let mut third = RawConnection::open(&server.url()).await;
    third.send(asked_of("acme").as_bytes()).await;
    let refused = third.read_until(|_| false).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("busy"), "{refused}");
    assert!(
        refused.to_ascii_lowercase().contains("connection: close") && refused.contains("budget connections"),
        "{refused}"
    );
    assert!(first.exchange(&asked_of("acme")).await.starts_with("HTTP/1.1 200"), "who is in stays in");
    assert_eq!(usage(&server, "acme").await["used"]["refused"], 1);
    // One goes to another tenant, and there is a place.
    assert!(first.exchange(&asked_of("other")).await.starts_with("HTTP/1.1 200"));
    let _third = stay_at(&server, "acme").await;
    drop(second);
    let left = async {
        while open_connections(&server, "acme").await != before + 1 {
            crate::support::pause(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), left).await.expect("a connection that ended is not counted");
    assert!(first.exchange(&asked_of("acme")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_so_many_connections_and_no_more() {
    let (server, _clock) = start("[http]\nconnections_per_ip_max = 6").await;
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..10 {
        let mut connection = RawConnection::open(&server.url()).await;
        connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        match connection.read_until(crate::support::has_head).await.is_empty() {
            true => refused += 1,
            false => held.push(connection),
        }
    }
    assert_eq!((held.len(), refused), (6, 4));
    held.truncate(2);
    let again = async {
        loop {
            let mut connection = RawConnection::open(&server.url()).await;
            connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            if !connection.read_until(crate::support::has_head).await.is_empty() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("places come back");
    let metrics = String::from_utf8(server.anon().get("/metrics").await.has_status(200).body).unwrap();
    assert!(metrics.contains("\ntenantry_http_connections_refused_total "), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_that_deletions_made_counts_once_their_log_is_over() {
    let (server, clock) = start("").await;
    let (_, guest) = open(&server, "acme").await;
    limit(&server, "acme", json!({ "storageBytes": 4_000_000 })).await;
    let post = async || guest.post(NOTES, json!({ "text": "x".repeat(90_000) })).await;
    let mut made = Vec::new();
    let filled = async {
        loop {
            let answer = post().await;
            if answer.status == 507 {
                break;
            }
            made.push(answer.created()["id"].as_str().unwrap().to_owned());
            crate::support::pause(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), filled).await.expect("the storage is noticed");
    for id in &made {
        guest.delete(&format!("{NOTES}/{id}")).await.gone();
    }
    // Until then history and audit hold what the records were.
    clock.advance_ms(31 * 86_400_000);
    let emptied = async {
        while post().await.status != 200 {
            crate::support::pause(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), emptied).await.expect("the room is given back");
}
