//! The table of codes: each has one status, and each is reached by some test of this suite.

use crate::support::{TestServer, expect_error};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tenantry::app::Parts;
use tenantry::http::problem::status_of;
use tenantry::kernel::clock::{Clock, SystemClock};
use tenantry::kernel::error::Code;
use tenantry::store::{FaultPoint, Faults, Injected};

/// Code and status, in the order of the table in the kernel. A change here is a change of the contract.
const CONTRACT: &str = include_str!("errors.txt");

/// Codes that no request of this suite can provoke, each with the reason.
const OUT_OF_REACH: &[(&str, &str)] = &[
    (
        "shutting_down",
        "a stop closes idle connections at once, so nobody is left to hear it; told to whoever waits in the store",
    ),
    ("oauth_refused", "needs an identity provider; reached in tests/oidc"),
    ("oauth_unverified", "needs an identity provider; reached in tests/oidc"),
];

#[test]
fn the_table_of_codes_is_the_contract() {
    let table: String =
        Code::ALL.iter().map(|code| format!("{} {}\n", code.as_str(), status_of(code.kind()).as_u16())).collect();
    assert_eq!(table, CONTRACT, "the codes changed; is that a change every client can bear? Then update errors.txt");
}

#[test]
fn every_code_is_reached_by_some_test() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http");
    let mut suites = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            suites.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    let unreached: Vec<_> = Code::ALL
        .iter()
        .map(|code| code.as_str())
        .filter(|code| !suites.contains(&format!("\"{code}\"")) && !suites.contains(&format!("\"{code}\\")))
        .filter(|code| OUT_OF_REACH.iter().all(|(known, _)| known != code))
        .collect();
    assert!(unreached.is_empty(), "codes without a test: {unreached:?}");
}

/// A disk that fails when told to.
#[derive(Debug, Default)]
struct BadDisk(AtomicU8);

impl Faults for BadDisk {
    fn at(&self, _: FaultPoint) -> Option<Injected> {
        match self.0.load(Ordering::SeqCst) {
            1 => Some(Injected::StorageFull),
            2 => Some(Injected::Io),
            _ => None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_broken_disk_stops_writes_and_nothing_else() {
    let disk = Arc::new(BadDisk::default());
    let server = TestServer::start_parts("", Parts { faults: disk.clone(), ..Parts::default() }).await;
    let admin = server.expect_errors("acme", server.tenant("acme").await).await;
    let body =
        json!({ "name": "notes", "type": "base", "listRule": "", "fields": [{ "name": "text", "type": "text" }] });
    admin.post("/api/collections", body).await.created();
    let path = "/api/collections/notes/records";
    admin.post(path, json!({ "text": "before" })).await.created();
    disk.0.store(1, Ordering::SeqCst);
    admin.post(path, json!({ "text": "full" })).await.has_status(507).problem("storage_full");
    assert_eq!(admin.get(path).await.ok()["totalItems"], 1);
    disk.0.store(2, Ordering::SeqCst);
    let problem = admin.post(path, json!({ "text": "broken" })).await.has_status(500).problem("internal");
    assert!(!problem.to_string().contains("injected"), "nothing of the inside shows: {problem}");
    assert_eq!(admin.get(path).await.ok()["totalItems"], 1);
    disk.0.store(0, Ordering::SeqCst);
    admin.post(path, json!({ "text": "after" })).await.created();
    assert_eq!(admin.get(path).await.ok()["totalItems"], 2);
}

/// A clock that panics when told to, once, for a thread that answers requests; others look at it at any time.
#[derive(Debug, Default)]
struct BrokenClock(AtomicU8);

impl Clock for BrokenClock {
    fn now_ms(&self) -> i64 {
        let answering = std::thread::current().name().is_some_and(|name| name.starts_with("actix"));
        assert!(!answering || self.0.swap(0, Ordering::SeqCst) == 0, "the clock is broken");
        SystemClock.now_ms()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_one_request_and_is_counted() {
    expect_error("panicked-for-this-test");
    let clock = Arc::new(BrokenClock::default());
    let server = TestServer::start_with("", clock.clone()).await;
    server.anon().get("/health").await.ok();
    clock.0.store(1, Ordering::SeqCst);
    let visitor = server.anon().with_header("x-request-id", "panicked-for-this-test");
    let problem = visitor.get("/health").await.has_status(500).problem("internal");
    assert!(!problem.to_string().contains("clock"), "{problem}");
    server.anon().get("/health").await.ok();
    let metrics = String::from_utf8(server.anon().get("/metrics").await.body).unwrap();
    assert!(metrics.contains("\ntenantry_http_panics_total 1\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_part_of_the_request_it_is_about() {
    let server = TestServer::start_with("[http]\nbody_bytes_max = 20000", Arc::new(SystemClock)).await;
    let admin = server.tenant("acme").await;
    let body = json!({ "name": "notes", "type": "base", "fields": [{ "name": "text", "type": "text" }] });
    admin.post("/api/collections", body.clone()).await.created();
    let path = "/api/collections/notes/records";
    let made = admin.post(path, json!({ "text": "a" })).await.created();
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    let keyed = admin.clone().with_header("idempotency-key", "k");
    keyed.post(path, json!({ "text": "b" })).await.created();
    let deep = format!("{}{}", "{\"a\":".repeat(70), "1}".repeat(70));
    let stale = admin.clone().with_header("if-match", "\"stale\"");
    let bad_key = admin.clone().with_header("idempotency-key", "k".repeat(300));
    for (answer, code, place) in [
        (admin.send_raw(reqwest::Method::POST, path, deep).await, "json_invalid", "body"),
        (admin.send_raw(reqwest::Method::POST, path, "{\"text\"").await, "json_invalid", "body"),
        (admin.post(path, json!({ "text": "x".repeat(30_000) })).await, "body_too_large", "body"),
        (stale.patch(&one, json!({ "text": "c" })).await, "precondition_failed", "If-Match"),
        (keyed.post(path, json!({ "text": "other" })).await, "idempotency_mismatch", "Idempotency-Key"),
        (bad_key.post(path, json!({ "text": "d" })).await, "parameter_invalid", "Idempotency-Key"),
        (admin.get(&format!("{path}?page=first")).await, "parameter_invalid", "page"),
        (admin.get(&format!("{path}?perPage=abc")).await, "parameter_invalid", "perPage"),
        (admin.get(&format!("{path}?limit=abc")).await, "parameter_invalid", "limit"),
        (admin.get("/api/changes?since=then").await, "parameter_invalid", "since"),
        // The name is taken; that the id made from it is taken too is nobody's concern.
        (admin.post("/api/collections", body).await, "schema_invalid", "name"),
    ] {
        let problem = answer.problem(code);
        assert_eq!(problem["errors"][0]["field"], place, "{problem}");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{problem}");
    }
}
