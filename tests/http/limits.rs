//! Garbage and pressure: clear refusals, no panic, and the node is still quick.

use crate::support::{Actor, Answer, PASSWORD, RawConnection, TestServer, has_head, more_than_is_buffered};
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tenantry::kernel::clock;
use tenantry::kernel::clock::{Clock, ManualClock, SystemClock};

/// Long enough for any machine; what is waited for ends the wait.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_cut_off() {
    let server = TestServer::start_with("[http]\nhead_timeout_ms = 300", Arc::new(SystemClock)).await;
    let mut slow = RawConnection::open(&server.url()).await;
    slow.send(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    let said = slow.read_all(PATIENCE).await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_silent_connections_do_not_slow_the_others() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(RawConnection::open(&server.url()).await);
    }
    let others = async {
        for _ in 0..20 {
            server.anon().get("/livez").await.ok();
            admin.post(NOTES, json!({ "text": "meanwhile" })).await.created();
            admin.get(NOTES).await.ok();
        }
    };
    // Not a measure of speed: only that the silent ones hold nobody up for good.
    tokio::time::timeout(PATIENCE, others).await.expect("the others are answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_on_the_wire_is_refused() {
    let server = TestServer::start().await;
    for nonsense in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        let mut raw = RawConnection::open(&server.url()).await;
        raw.send(nonsense).await;
        let said = raw.read_all(PATIENCE).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    let long = format!("/livez?q={}", "x".repeat(20_000));
    server.anon().get(&long).await.problem("request_invalid");
    server.anon().get("/livez").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json_are_refused_with_the_place() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let deep = format!("{{\"text\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    for (body, said) in [
        (b"{\"text\": ".to_vec(), "line 1"),
        (b"\"just text\"".to_vec(), "expected"),
        (b"[1,2]".to_vec(), "expected"),
        (b"{\"text\": \"\xff\xfe\"}".to_vec(), "UTF-8"),
        (b"{\"text\": 1} {".to_vec(), "trailing"),
        (deep.into_bytes(), "nested"),
    ] {
        let problem = admin.send_raw(Method::POST, NOTES, body).await.has_status(400).problem("json_invalid");
        assert!(problem["message"].as_str().unwrap().contains(said), "{said}: {problem}");
    }
    let typed = admin.request(Method::POST, NOTES).header("content-type", "application/xml").body("<a/>");
    Answer::of(typed).await.has_status(400).problem("request_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_past_the_bound_are_refused_before_they_are_read() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let token = format!("Node {}", std::fs::read_to_string(server.folder().join("node.key")).unwrap());
    // Announced: refused from the head alone, though not a byte of the hundred million follows.
    let mut raw = RawConnection::open(&server.url()).await;
    let head = format!(
        "POST /t/acme{NOTES} HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n\
         Content-Length: 100000000\r\n\r\n"
    );
    raw.send(head.as_bytes()).await;
    let said = raw.read_all(PATIENCE).await;
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("body_too_large"), "{said}");
    // Not announced: cut off when the bound is reached.
    let mut raw = RawConnection::open(&server.url()).await;
    let head = head.replace("Content-Length: 100000000", "Transfer-Encoding: chunked");
    raw.send(head.as_bytes()).await;
    let piece = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
    for _ in 0..8 {
        raw.send(piece.as_bytes()).await;
    }
    // To the end: a connection that stays open after the refusal is one that anybody could keep for ever.
    let said = raw.read_until(|_| false).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 413"), "{said}");
    admin
        .post(NOTES, serde_json::json!({ "text": "x".repeat(5_000_000) }))
        .await
        .has_status(413)
        .problem("body_too_large");
    admin.post(NOTES, serde_json::json!({ "text": "fine" })).await.created();
}

/// Rows so long that a page of them does not fit into what the machine keeps of a connection.
async fn long_notes(admin: &Actor) -> usize {
    let row = json!({ "text": "x".repeat(200_000) });
    let rows = more_than_is_buffered() / 200_000 + 1;
    let lines = format!("{row}\n").repeat(rows);
    let request = admin.request(Method::POST, "/api/collections/notes/import").body(lines);
    let sent = request.header("content-type", "application/x-ndjson");
    assert_eq!(Answer::of(sent).await.ok()["created"], json!(rows));
    rows
}

/// Somebody who asks for much and then reads nothing once kept the connection, the answer and its reader for ever.
#[tokio::test(flavor = "multi_thread")]
async fn who_stops_reading_is_let_go_and_who_reads_slowly_is_not() {
    const TIMEOUT_MS: u64 = 2_000;
    let toml = format!("[http]\nwrite_timeout_ms = {TIMEOUT_MS}");
    let server = TestServer::start_with(&toml, Arc::new(SystemClock)).await;
    let admin = server.tenant("acme").await;
    let body = json!({ "name": "notes", "type": "base", "listRule": "", "fields": [{ "name": "text", "type": "text", "max": 200_000 }] });
    admin.post("/api/collections", body).await.created();
    let rows = long_notes(&admin).await;
    let open_at_acme = || async {
        server.node().get("/api/admin/usage?tenant=acme").await.ok()["items"][0]["used"]["connections"]
            .as_u64()
            .unwrap()
    };
    let kept = open_at_acme().await;
    let ask = |path: &str| format!("GET /t/acme/api/collections/notes/{path} HTTP/1.1\r\nhost: node\r\n\r\n");
    // One that is made while it is sent, and one that is whole in memory.
    let paths = ["export".to_owned(), format!("records?perPage={rows}")];
    let mut silent = Vec::new();
    for path in &paths {
        let mut one = RawConnection::open_narrow(&server.url()).await;
        one.send(ask(path).as_bytes()).await;
        assert!(one.read_until(has_head).await.starts_with("HTTP/1.1 200"), "{path}");
        silent.push(one);
    }
    // Two more read on, little by little, for longer than the others may be silent.
    let mut slow = Vec::new();
    for path in &paths {
        let mut one = RawConnection::open(&server.url()).await;
        one.send(ask(path).as_bytes()).await;
        let begun = one.read_some(4 * 1024).await.expect("an answer begins");
        slow.push((one, begun));
    }
    assert_eq!(open_at_acme().await, kept + 4);
    let until = clock::instant() + Duration::from_millis(4 * TIMEOUT_MS);
    while clock::instant() < until {
        for (one, read) in &mut slow {
            read.extend(one.read_some(16 * 1024).await.expect("a slow reader is not let go"));
        }
        crate::support::pause(Duration::from_millis(50)).await;
    }
    for _ in 0..600 {
        if open_at_acme().await == kept + 2 {
            break;
        }
        crate::support::pause(Duration::from_millis(100)).await;
    }
    assert_eq!(open_at_acme().await, kept + 2, "the silent ones are gone");
    for mut one in silent {
        let rest = one.read_until(|_| false).await;
        assert!(rest.matches("\"text\"").count() < rows, "the answer was cut");
    }
    for (mut one, read) in slow {
        let mut text = String::from_utf8(read).unwrap();
        while text.matches("\"text\"").count() < rows {
            let more = one.read_some(1 << 20).await.expect("the whole answer");
            text.push_str(std::str::from_utf8(&more).unwrap());
        }
    }
    admin.get("/api/collections/notes/records?perPage=1&fields=id").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_arriving_is_given_up() {
    let server = TestServer::start_with("[http]\nbody_timeout_ms = 300", Arc::new(SystemClock)).await;
    notes(&server).await;
    let mut slow = RawConnection::open(&server.url()).await;
    let head = format!(
        "POST /t/acme{NOTES} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{{\"te"
    );
    slow.send(head.as_bytes()).await;
    let said = slow.read_all(PATIENCE).await;
    assert!(said.starts_with("HTTP/1.1 408") && said.contains("\"request_timeout\""), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_that_never_ends_does_not_keep_its_connection() {
    let server = TestServer::start_with("[http]\nbody_timeout_ms = 300", Arc::new(SystemClock)).await;
    notes(&server).await;
    // Given up while a handler waits for the rest, and where no handler asks for it.
    for (path, status) in [(format!("/t/acme{NOTES}"), "408"), ("/nowhere".to_owned(), "404")] {
        let mut slow = RawConnection::open(&server.url()).await;
        let begun = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\n{{\"te\r\n"
        );
        slow.send(begun.as_bytes()).await;
        let said = slow.read_until(|_| false).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
    }
    // A body that ends leaves the connection as it was.
    let mut quick = RawConnection::open(&server.url()).await;
    for _ in 0..2 {
        let whole = b"POST /api/collections/_superusers/auth-with-password HTTP/1.1\r\nHost: a\r\n\
            Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        quick.send(whole).await;
        let said = quick.read_until(|said| said.ends_with(b"}}")).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_and_strange_questions_are_refused_by_name() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let long = format!("text='{}'", "x".repeat(4_000));
    let wide = vec!["n=1"; 300].join("||");
    let deep = format!("{}n=1{}", "(".repeat(60), ")".repeat(60));
    for filter in [long, wide, deep] {
        admin.get(&format!("{NOTES}?filter={}", encode(&filter))).await.has_status(400).problem("filter_invalid");
    }
    admin.get("/api/collections/nothing/records").await.has_status(404).problem("collection_not_found");
    admin.get(&format!("{NOTES}/{}", "x".repeat(300))).await.has_status(404).problem("record_not_found");
    admin.get(&format!("{NOTES}/%00%ff%2e%2e")).await.has_status(404);
    admin.get(&format!("{NOTES}?filter=%ff%fe")).await.has_status(400);
    admin.get(&format!("{NOTES}?perPage=999999999")).await.ok();
    server.anon().get("/health").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_by_name_while_the_others_are_served() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let kept = admin.post(NOTES, json!({ "text": "kept", "n": 1 })).await.created();
    let deep = format!("{{\"text\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    let wide = encode(&vec!["n=1"; 300].join("||"));
    let one = format!("{NOTES}/{}", kept["id"].as_str().unwrap());
    let garbage: Vec<(Method, String, Vec<u8>, u16, &str)> = vec![
        (Method::POST, NOTES.into(), b"{\"text\": ".to_vec(), 400, "json_invalid"),
        (Method::POST, NOTES.into(), b"{\"text\": \"\xff\"}".to_vec(), 400, "json_invalid"),
        (Method::POST, NOTES.into(), deep.clone().into_bytes(), 400, "json_invalid"),
        (Method::POST, NOTES.into(), vec![b' '; 20 << 20], 413, "body_too_large"),
        (Method::POST, NOTES.into(), b"{\"n\": \"many\"}".to_vec(), 400, "validation_failed"),
        (Method::POST, NOTES.into(), b"{\"n\": {\"a\": [1]}}".to_vec(), 400, "validation_failed"),
        (Method::PATCH, one.clone(), b"{\"n\": [true, null]}".to_vec(), 400, "validation_failed"),
        (Method::PATCH, one, b"[]".to_vec(), 400, "json_invalid"),
        (Method::POST, "/api/batch".into(), b"{\"requests\": 7}".to_vec(), 400, "validation_failed"),
        (
            Method::POST,
            "/api/collections".into(),
            b"{\"name\": 7}".to_vec(),
            400,
            "json_invalid|schema_invalid|validation_failed",
        ),
        (Method::POST, "/api/collections/nothing/records".into(), b"{}".to_vec(), 404, "collection_not_found"),
        (Method::GET, "/api/collections/nothing/records".into(), Vec::new(), 404, "collection_not_found"),
        (Method::GET, format!("{NOTES}?filter={wide}"), Vec::new(), 400, "filter_invalid"),
        (
            Method::GET,
            format!("{NOTES}?filter=%ff%fe"),
            Vec::new(),
            400,
            "filter_invalid|request_invalid|parameter_invalid",
        ),
        (Method::GET, format!("{NOTES}?sort=nothing,{}", "n,".repeat(50)), Vec::new(), 400, "sort_invalid"),
        (Method::GET, format!("{NOTES}/%00%ff%2e%2e"), Vec::new(), 404, "record_not_found|route_not_found"),
    ];
    let flood = async {
        for round in 0..5 {
            for (method, path, body, status, codes) in &garbage {
                let answer = admin.send_raw(method.clone(), path, body.clone()).await.has_status(*status);
                let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
                assert!(codes.split('|').any(|one| one == code), "{round} {method} {path}: {code}");
                answer.problem(&code);
            }
        }
    };
    let (ended, mut served) = (std::sync::atomic::AtomicBool::new(false), 0);
    let others = async {
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            admin.post(NOTES, json!({ "text": "meanwhile", "n": served })).await.created();
            assert!(admin.get(&format!("{NOTES}?perPage=1")).await.ok()["totalItems"].as_u64() > Some(1));
            served += 1;
        }
    };
    let flood = async {
        flood.await;
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let both = async { futures_util::join!(flood, others) };
    tokio::time::timeout(PATIENCE, both).await.expect("everybody is answered");
    assert!(served >= 5, "only {served} were served beside {} refusals", garbage.len() * 5);
    assert_eq!(admin.get(&format!("{NOTES}?filter=text='kept'")).await.ok()["totalItems"], 1);
    assert_eq!(admin.get(&format!("{NOTES}?perPage=1")).await.ok()["totalItems"], served + 1, "no garbage is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_import_does_not_keep_others_of_its_tenant_from_writing() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let rows = 30_000;
    let request = admin.request(Method::POST, "/api/collections/notes/import");
    let request =
        request.header("content-type", "application/x-ndjson").body("{\"text\":\"row\",\"n\":1}\n".repeat(rows));
    let import = tokio::spawn(Answer::of(request));
    let mut between = 0;
    while !import.is_finished() {
        admin.post(NOTES, json!({ "text": "between", "n": 2 })).await.created();
        between += i32::from(!import.is_finished());
    }
    assert_eq!(import.await.unwrap().ok()["created"], json!(rows));
    assert!(between >= 5, "{between} writes came between the pieces of the import");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_are_all_answered() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let writes = (0..200).map(|n| {
        let admin = admin.clone();
        tokio::spawn(async move { admin.post(NOTES, serde_json::json!({ "text": "t", "n": n })).await.status.as_u16() })
    });
    let mut answered = 0;
    for write in writes.collect::<Vec<_>>() {
        let status = write.await.unwrap();
        assert!([200, 503].contains(&status), "{status}");
        answered += i64::from(status == 200);
    }
    assert_eq!(admin.get(&format!("{NOTES}?perPage=1")).await.ok()["totalItems"], answered);
}

const NOTES: &str = "/api/collections/notes/records";

async fn notes(server: &TestServer) -> Actor {
    let admin = server.tenant("acme").await;
    let body = serde_json::json!({ "name": "notes", "type": "base", "listRule": "", "createRule": "",
        "fields": [{ "name": "text", "type": "text" }, { "name": "n", "type": "number" }] });
    admin.post("/api/collections", body).await.created();
    admin
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_limited_by_address_and_the_answer_says_how_and_until_when() {
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let toml = "[http]\ntrusted_proxies = ['127.0.0.1']\n[limits]\nwindow_s = 10\nrequests_per_ip_max = 5";
    let server = TestServer::start_with(toml, Arc::clone(&clock) as Arc<dyn Clock>).await;
    let from = |address: &str| server.anon().with_header("x-forwarded-for", address);
    for left in (0..5).rev() {
        let answer = from("2001:db8::1").get("/api/health").await.has_status(200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"address\";q=5;w=10"));
        assert!(answer.header("ratelimit").unwrap().starts_with(&format!("\"address\";r={left};t=")));
    }
    let refused = from("2001:db8::2").get("/api/health").await.has_status(429);
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit")), (Some("2"), Some("\"address\";r=0;t=10")));
    let said = refused.problem("rate_limited")["message"].as_str().unwrap().to_owned();
    assert!(said.contains("address") && said.contains("5 per 10 s") && said.contains("in 2 s"), "{said}");
    from("10.0.0.1").get("/api/health").await.ok();
    from("2001:db8::1").get("/livez").await.ok();
    clock.advance_ms(2_000);
    from("2001:db8::1").get("/api/health").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_accounts_have_limits_of_their_own_and_superusers_can_still_help() {
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let toml = "[limits]\nrequests_per_account_max = 3\nrequests_per_tenant_max = 7";
    let server = TestServer::start_with(toml, Arc::clone(&clock) as Arc<dyn Clock>).await;
    let (busy, quiet) = (server.tenant("busy").await, server.tenant("quiet").await);
    let ada = server.user(&busy, "ada").await;
    let own = format!("/api/collections/users/records/{}", ada.id);
    for _ in 0..3 {
        ada.actor.get(&own).await.ok();
    }
    let refused = ada.actor.get(&own).await.has_status(429);
    assert!(refused.header("ratelimit").is_some_and(|text| text.contains("\"account\";r=0")));
    refused.problem("rate_limited");
    let guest = busy.clone().without_authorization();
    for _ in 0..2 {
        guest.get("/api/collections/users/auth-methods").await.ok();
    }
    guest.get("/api/collections/users/auth-methods").await.has_status(429).problem("rate_limited");
    busy.get("/api/collections").await.ok();
    quiet.without_authorization().get("/api/collections/users/auth-methods").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_from_one_address_do_not_keep_the_owner_out() {
    let toml = "[http]\ntrusted_proxies = ['127.0.0.1']\n[limits]\nlogin_failures_max = 2\nlogin_window_s = 60";
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let server = TestServer::start_with(toml, Arc::clone(&clock) as Arc<dyn Clock>).await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let guest = ada.actor.without_authorization();
    let login = |from: &str, password: &str| {
        let actor = guest.clone().with_header("x-forwarded-for", from);
        let body = json!({ "identity": "ada@example.com", "password": password });
        async move { actor.post("/api/collections/users/auth-with-password", body).await }
    };
    for _ in 0..2 {
        login("10.0.0.66", "wrong").await.problem("credentials_invalid");
    }
    for _ in 0..100 {
        let refused = login("10.0.0.66", "wrong").await.has_status(429);
        assert_eq!(refused.header("retry-after"), Some("30"));
    }
    login("10.0.0.66", PASSWORD).await.has_status(429).problem("rate_limited");
    login("10.0.0.1", PASSWORD).await.ok();
}

/// One figure of the node's metrics.
async fn metric(server: &TestServer, name: &str) -> u64 {
    let text = String::from_utf8(server.anon().get("/metrics").await.body).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A connection that its client had closed was served to the end: the read behind it went on for up to ten seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_read_along() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let body = json!({ "name": "notes", "type": "base",
        "fields": [{ "name": "n", "type": "number" }, { "name": "m", "type": "number" }] });
    admin.post("/api/collections", body).await.created();
    // Compares every note with every other and finds none.
    let rule = json!({ "listRule": "@collection.notes:a.n ?> @collection.notes:b.m" });
    admin.patch("/api/collections/notes", rule).await.ok();
    let lines: String = (0..12_000).map(|n| format!("{{\"n\":{n},\"m\":{}}}\n", n + 100_000)).collect();
    admin.send_raw(Method::POST, "/api/collections/notes/import?format=ndjson", lines).await.ok();
    let request = format!("GET /t/acme{NOTES} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let usage = async || {
        let usage = server.node().get("/api/admin/usage?tenant=acme").await.ok();
        usage["items"][0]["used"]["concurrentRequests"].as_u64().unwrap()
    };
    let left = async {
        // Whoever leaves before the read has begun leaves nothing to stop; then once more.
        while metric(&server, "tenantry_store_reads_cancelled_total").await == 0 {
            let mut client = RawConnection::open(&server.url()).await;
            client.send(request.as_bytes()).await;
            while usage().await == 0 {
                tokio::task::yield_now().await;
            }
            drop(client);
            while usage().await > 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("the read ends with its client");
    assert_eq!(metric(&server, "tenantry_store_reads_refused_total").await, 0, "none had to end by its budget");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_brought_in_is_bounded_in_size_and_in_silence() {
    let head = |server: &TestServer| {
        let token = format!("Node {}", std::fs::read_to_string(server.folder().join("node.key")).unwrap());
        format!("POST /api/tenants/import?slug=acme HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n")
    };
    let left_behind = |server: &TestServer| std::fs::read_dir(server.folder().join("transit")).unwrap().count();
    let server = TestServer::start_with("[http]\nbody_timeout_ms = 300", Arc::new(SystemClock)).await;
    let mut silent = RawConnection::open(&server.url()).await;
    silent.send(format!("{}Content-Length: 1000\r\n\r\nSQLite", head(&server)).as_bytes()).await;
    let said = silent.read_until(|_| false).await;
    assert!(said.starts_with("HTTP/1.1 408") && said.contains("request_timeout"), "{said}");
    assert_eq!(left_behind(&server), 0, "what was refused is gone");
    // A node of its own that bears silence: on a busy machine this client may pause for longer than 300 ms between two
    // pieces, and is then told so instead.
    let server = TestServer::start_with("[http]\ntenant_import_bytes_max = 1048576", Arc::new(SystemClock)).await;
    let head = head(&server);
    let mut announced = RawConnection::open(&server.url()).await;
    announced.send(format!("{head}Content-Length: 1048577\r\n\r\n").as_bytes()).await;
    let said = announced.read_until(|_| false).await;
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("body_too_large"), "{said}");
    let mut endless = RawConnection::open(&server.url()).await;
    endless.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await;
    // As much as is allowed, and one byte: nothing is under way when the node closes, which would take its answer along.
    endless.send(format!("100000\r\n{}\r\n1\r\nx\r\n", "x".repeat(0x10_0000)).as_bytes()).await;
    let said = endless.read_until(|_| false).await;
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("body_too_large"), "{said}");
    assert_eq!(left_behind(&server), 0, "what was refused is gone");
}
