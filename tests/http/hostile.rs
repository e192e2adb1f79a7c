//! What somebody tries who wants in: forged claims, forged headers, tokens after their time, pages of other origins.

use crate::support::{PASSWORD, TestServer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ring::hmac;
use serde_json::{Value, json};
use std::sync::Arc;
use tenantry::kernel::clock::{Clock, ManualClock, SystemClock};

const SESSIONS: &str = "/api/collections/users/sessions";

/// The claims of a token, changed, and signed with `key`.
fn reforged(token: &str, key: &[u8], change: impl FnOnce(&mut Value)) -> String {
    let mut parts = token.split('.');
    let head = parts.next().unwrap();
    let mut claims: Value = serde_json::from_slice(&B64.decode(parts.next().unwrap()).unwrap()).unwrap();
    change(&mut claims);
    let signed = format!("{head}.{}", B64.encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", B64.encode(tag))
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_cannot_be_changed_and_an_expired_token_is_none() {
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let server = TestServer::start_with("", Arc::clone(&clock) as Arc<dyn Clock>).await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    ada.actor.get(SESSIONS).await.ok();
    let far = json!(99_999_999_999_u64);
    let changes: [fn(&mut Value, &Value); 5] = [
        |claims, far| claims["exp"] = far.clone(),
        |claims, _| claims["aud"] = json!("somebody-else"),
        |claims, _| claims["id"] = json!("abcdefghijklmno"),
        |claims, _| claims["collectionId"] = json!("pbc_3142635823"),
        |claims, _| claims["type"] = json!("file"),
    ];
    for change in changes {
        for key in [&b""[..], b"secret", PASSWORD.as_bytes()] {
            let forged = reforged(&ada.token, key, |claims| change(claims, &far));
            ada.actor.clone().with_authorization(forged).get(SESSIONS).await.problem("token_invalid");
        }
    }
    clock.advance_ms(200 * 86_400_000);
    ada.actor.get(SESSIONS).await.problem("token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_own_tenant_and_purpose_alone() {
    let server = TestServer::start().await;
    let (one, two) = (server.tenant("one").await, server.tenant("two").await);
    let (ada, _twin) = (server.user(&one, "ada").await, server.user(&two, "ada").await);
    let file_token = ada.actor.post("/api/files/token", json!({})).await.ok()["token"].as_str().unwrap().to_owned();
    // Wrong audience, both ways; and a token for files does not log in.
    ada.actor.clone().at("two").get(SESSIONS).await.problem("token_invalid");
    ada.actor.clone().with_authorization(file_token).get(SESSIONS).await.problem("token_invalid");
    ada.actor.get("/api/admin/usage").await.problem("token_invalid");
    ada.actor.get("/api/admin/audit").await.problem("token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_headers_count_only_from_trusted_proxies() {
    let server = TestServer::start_with("[limits]\nlogin_failures_per_ip_max = 3", Arc::new(SystemClock)).await;
    let admin = server.tenant("acme").await;
    let guest = admin.clone().without_authorization();
    let body = json!({ "email": "ada@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD });
    let liar = guest.clone().with_header("x-forwarded-for", "203.0.113.9").with_header("x-real-ip", "203.0.113.9");
    let liar = liar.with_header("forwarded", "for=203.0.113.9").with_header("x-forwarded-host", "beta.localhost");
    let made = liar.post("/api/collections/users/records", body).await.created();
    let trail = admin.get(&format!("/api/audit?record={}", made["id"].as_str().unwrap())).await.ok();
    assert_eq!(trail["items"][0]["ip"], "127.0.0.1", "{trail}");

    // Changing the claimed address does not buy more tries.
    let mut refused = 0;
    for number in 0..10 {
        let liar = guest.clone().with_header("x-forwarded-for", format!("203.0.113.{number}"));
        let login = json!({ "identity": "ada@example.com", "password": "wrong" });
        refused += u32::from(liar.post("/api/collections/users/auth-with-password", login).await.status == 429);
    }
    assert_eq!(refused, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_vouches_for_one_hop_and_no_further() {
    let toml = "[http]\ntrusted_proxies = ['127.0.0.0/8', '10.0.0.0/8']";
    let server = TestServer::start_with(toml, Arc::new(SystemClock)).await;
    let admin = server.tenant("acme").await;
    let guest = admin.clone().without_authorization();
    let body = |name: &str| json!({ "email": format!("{name}@example.com"), "password": PASSWORD, "passwordConfirm": PASSWORD });
    for (name, header, seen) in [
        ("a", "198.51.100.7", "198.51.100.7"),
        ("b", "203.0.113.1, 198.51.100.7", "198.51.100.7"),
        ("c", "203.0.113.1, 198.51.100.7, 10.1.2.3", "198.51.100.7"),
        ("d", "198.51.100.7:5678", "198.51.100.7"),
        ("e", "198.51.100.7, unknown, 10.1.2.3", "10.1.2.3"),
    ] {
        let made = guest.clone().with_header("x-forwarded-for", header);
        let made = made.post("/api/collections/users/records", body(name)).await.created();
        let trail = admin.get(&format!("/api/audit?record={}", made["id"].as_str().unwrap())).await.ok();
        assert_eq!(trail["items"][0]["ip"], seen, "{header}");
    }
    // The folder's key is for this machine; a proxy in front must not lend it to others.
    let lent = server.node().with_header("x-forwarded-for", "198.51.100.7");
    lent.get("/api/tenants").await.problem("token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_about_the_host_name_no_other_tenant() {
    let server = TestServer::start().await;
    let (one, two) = (server.tenant("one").await, server.tenant("two").await);
    server.user(&one, "ada").await;
    drop(two);
    // Not by the node's own key, which is good for nobody whom a proxy speaks for.
    let root = server.superuser().await.at("one");
    for header in ["x-forwarded-host", "x-original-host", "forwarded", "x-host", "x-forwarded-server"] {
        let liar = root.clone().with_header(header, "two.localhost");
        assert_eq!(liar.get("/api/collections/users/records").await.ok()["totalItems"], 1, "{header}");
    }
    one.with_header("x-tenant", "two").get("/api/collections/users/records").await.problem("tenant_ambiguous");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_or_suspended_account_is_out_at_once() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let change = json!({ "authRule": "suspended = false",
        "fields": admin.get("/api/collections/users").await.ok()["fields"].as_array().unwrap().iter().cloned()
            .chain([json!({ "name": "suspended", "type": "bool" })]).collect::<Vec<_>>() });
    admin.patch("/api/collections/users", change).await.ok();
    let (ada, bob) = (server.user(&admin, "ada").await, server.user(&admin, "bob").await);
    let guest = admin.clone().without_authorization();
    let login = |name: &str| json!({ "identity": format!("{name}@example.com"), "password": PASSWORD });
    let path = "/api/collections/users/auth-with-password";
    let session = guest.post(&format!("{path}?session=1"), login("ada")).await.ok();
    ada.actor.get(SESSIONS).await.ok();

    admin.patch(&format!("/api/collections/users/records/{}", ada.id), json!({ "suspended": true })).await.ok();
    guest.post(path, login("ada")).await.has_status(403);
    let refresh = json!({ "refreshToken": session["refreshToken"] });
    let refused = guest.post("/api/collections/users/auth-refresh", refresh).await.status;
    assert!([401, 403].contains(&refused.as_u16()), "{refused}");

    admin.delete(&format!("/api/collections/users/records/{}", bob.id)).await.gone();
    bob.actor.get(SESSIONS).await.problem("token_invalid");
    guest.post(path, login("bob")).await.problem("credentials_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_suspended_during_a_request_answers_nothing_afterwards() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    // Requests run all the while; each ends whole: answered before the suspension or refused by it, nothing between.
    let busy = ada.actor.clone();
    let running = tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            let answer = busy.get(SESSIONS).await;
            seen.push(answer.status.as_u16());
            if answer.status == 403 {
                return (seen, answer);
            }
        }
    });
    server.node().post("/api/tenants/acme/suspend", json!({})).await.ok();
    // What is asked after the suspension was acknowledged is refused, without exception.
    for _ in 0..20 {
        ada.actor.get(SESSIONS).await.has_status(403).problem("tenant_suspended");
    }
    let (seen, last) = tokio::time::timeout(std::time::Duration::from_secs(60), running).await.unwrap().unwrap();
    last.problem("tenant_suspended");
    assert!(seen.iter().all(|status| [200, 403].contains(status)), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_meet_the_tenants_own_list() {
    let server = TestServer::start_with("[http]\ncors_origins = ['https://node.example']", Arc::new(SystemClock)).await;
    let (one, two) = (server.tenant("one").await, server.tenant("two").await);
    let change = json!({ "corsOrigins": ["https://app.one.example"] });
    let shown = server.node().patch("/api/tenants/one", change).await.ok();
    assert_eq!(shown["corsOrigins"], json!(["https://app.one.example"]));
    for wrong in ["app.example", "https://app.example/", "https://app.example/path", "null", "ftp://app.example"] {
        let refused = server.node().patch("/api/tenants/one", json!({ "corsOrigins": [wrong] })).await;
        refused.has_status(400).problem("validation_failed");
    }
    let path = "/api/collections/users/records";
    for (tenant, origin, allowed) in [
        (&one, "https://app.one.example", true),
        (&one, "https://node.example", false),
        (&one, "https://evil.example", false),
        (&one, "https://app.one.example.evil.example", false),
        (&one, "null", false),
        (&two, "https://node.example", true),
        (&two, "https://app.one.example", false),
    ] {
        let page = tenant.clone().with_header("origin", origin);
        let answer = page.get(path).await.has_status(200);
        let asked = page.with_header("access-control-request-method", "PATCH");
        let asked = asked.with_header("access-control-request-headers", "authorization");
        let preflight = asked.send_raw(reqwest::Method::OPTIONS, path, "").await.has_status(204);
        for seen in [&answer, &preflight] {
            assert_eq!(seen.header("access-control-allow-origin"), allowed.then_some(origin), "{origin}");
            assert!(seen.header("access-control-allow-credentials").is_none(), "cookies are never allowed");
            assert!(seen.varies_by_origin(), "{origin}: {:?}", seen.vary());
        }
        assert_eq!(preflight.header("access-control-allow-methods").is_some(), allowed, "{origin}");
    }
    server.node().patch("/api/tenants/one", json!({ "corsOrigins": null })).await.ok();
    let plain = one.get(path).await;
    assert!(plain.varies_by_origin(), "a cache keeps it from pages: {:?}", plain.vary());
    let answer = one.with_header("origin", "https://node.example").get(path).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://node.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_the_security_headers() {
    let server = TestServer::start().await;
    for (path, status) in [
        ("/api/health", 200),
        ("/api/nothing", 404),
        ("/api/collections/users/records", 200),
        ("/livez", 200),
        ("/t/nobody/api/health", 404),
    ] {
        let answer = server.anon().get(path).await.has_status(status);
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert!(answer.header("server").is_none() && answer.header("x-powered-by").is_none(), "{path}");
        assert!(answer.header("strict-transport-security").is_none(), "plain HTTP must not send it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_wrong_passwords_leave_another_users_login_alone() {
    const TRIES: usize = 10_000;
    let toml =
        "[http]\ntrusted_proxies = ['127.0.0.1']\n[limits]\nlogin_failures_per_ip_max = 50\nlogin_window_s = 86400";
    let server = TestServer::start_with(toml, Arc::new(SystemClock)).await;
    let admin = server.tenant("acme").await;
    server.user(&admin, "ada").await;
    server.user(&admin, "bob").await;
    let guest = admin.without_authorization();
    let login = |from: &'static str, name: String, password: &'static str| {
        let actor = guest.clone().with_header("x-forwarded-for", from);
        let body = json!({ "identity": format!("{name}@example.com"), "password": password });
        async move { actor.post("/api/collections/users/auth-with-password", body).await.status.as_u16() }
    };
    let attackers: Vec<_> = (0..8)
        .map(|attacker| {
            async move {
                let mut refused = 0;
                for number in 0..TRIES / 8 {
                    // Half of them at ada, half at whoever.
                    let name = if number % 2 == 0 { "ada".to_owned() } else { format!("x{attacker}-{number}") };
                    refused += usize::from(login("10.0.0.66", name, "wrong").await == 429);
                }
                refused
            }
        })
        .collect();
    let victims = async {
        for _ in 0..5 {
            // Both log in while the attack runs, the one attacked by name as well.
            assert_eq!(login("10.0.0.1", "ada".to_owned(), PASSWORD).await, 200);
            assert_eq!(login("10.0.0.2", "bob".to_owned(), PASSWORD).await, 200);
        }
    };
    let (refused, ()) = futures_util::join!(futures_util::future::join_all(attackers), victims);
    // Guesses under way when the bound was reached may pass it; the others cost no hashing.
    let refused: usize = refused.into_iter().sum();
    assert!(refused >= TRIES - 100, "{refused} of {TRIES} were refused");
    assert_eq!(login("10.0.0.66", "ada".to_owned(), PASSWORD).await, 429, "the attacker's address is out");
    assert_eq!(login("10.0.0.1", "ada".to_owned(), PASSWORD).await, 200);
}

/// The names in a body become places in the answer; one with a million dots overflowed the stack there, before anybody was
/// asked who they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_many_levels_or_bytes_is_refused_in_few_words() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let body = json!({ "name": "notes", "type": "base", "fields": [{ "name": "text", "type": "text" }] });
    admin.post("/api/collections", body).await.created();
    let (deep, long) = (format!("a{}", ".a".repeat(1_000_000)), "a".repeat(3_000_000));
    let in_query = format!("/api/collections/notes/import?{}=1", deep.get(..8_001).unwrap());
    for actor in [admin.clone().without_authorization(), admin.clone()] {
        for name in [&deep, &long] {
            for path in
                ["/api/cache", "/api/keys", "/api/locks/a", "/api/collections", "/api/collections/users/impersonate/a"]
            {
                let text = format!("{{\"name\":\"a\",\"scopes\":{{\"{name}\":1}},\"{name}\":1}}");
                let answer = actor.send_raw(reqwest::Method::POST, path, text).await;
                assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
                assert!(answer.body.len() < 10_000, "{path}: {} bytes", answer.body.len());
            }
        }
        let answer = actor.post(&in_query, json!({})).await;
        assert!(answer.status.is_client_error() && answer.body.len() < 10_000, "{}", answer.body.len());
    }
    let many: String = (0..50_000).map(|number| format!("\"m{number}\":1,")).collect();
    let many = format!("{{{many}\"name\":\"more\",\"type\":\"base\"}}");
    let answer = admin.send_raw(reqwest::Method::POST, "/api/collections", many).await.has_status(400);
    assert!(answer.body.len() < 200_000, "{} bytes", answer.body.len());
    server.anon().get("/health").await.ok();
}
