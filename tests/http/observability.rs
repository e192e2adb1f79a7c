//! Health, metrics, request ids: what an operator sees.

use crate::support::TestServer;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn health_says_how_every_part_is() {
    let server = TestServer::start().await;
    let health = server.anon().get("/health").await.ok();
    assert_eq!(health["status"], "ok");
    assert!(health["timestamp"].as_str().is_some_and(|text| text.ends_with('Z')));
    assert!(health["checks"].is_object());
    server.anon().get("/livez").await.ok();
    server.anon().get("/readyz").await.ok();
    assert_eq!(server.anon().get("/api/health").await.ok()["code"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_requests_and_can_be_kept_private() {
    let server = TestServer::start().await;
    server.anon().get("/livez").await.ok();
    let text = String::from_utf8(server.anon().get("/metrics").await.has_status(200).body).unwrap();
    assert!(text.contains("tenantry_http_requests_total{route=\"ops\",method=\"GET\",status=\"2xx\"}"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("tenantry_") && value.parse::<f64>().is_ok(), "{line}");
    }

    for counted in ["joined", "stale", "expired", "swept", "trims", "rejected", "decisions"] {
        assert!(text.contains(&format!("\ntenantry_cache_{counted}_total 0\n")), "{counted}: {text}");
    }
    for name in ["tenantry_cache_stamp_bytes", "tenantry_values_bytes", "tenantry_values_evictions_total"] {
        assert!(text.contains(&format!("\n# TYPE {name} ")), "{name}: {text}");
    }

    let clock = std::sync::Arc::new(tenantry::kernel::clock::SystemClock);
    let private = TestServer::start_with("[http]\nmetrics_token = 'sesame'", clock).await;
    private.anon().get("/metrics").await.problem("auth_required");
    private.anon().with_authorization("Bearer wrong").get("/metrics").await.problem("token_invalid");
    private.anon().with_authorization("Bearer sesame").get("/metrics").await.has_status(200);
    private.node().get("/metrics").await.problem("auth_required");
}

/// Metrics name tenants and what they do, and were told to anybody behind a proxy on the same machine.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_metrics_are_for_this_machine_and_for_superusers() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await.actor;
    let root = server.superuser().await;
    server.anon().get("/metrics").await.has_status(200);
    // The last three are of a proxy that hides whom it speaks for, and of a page in a browser on this machine.
    for (header, value) in [
        ("x-forwarded-for", "203.0.113.7"),
        ("forwarded", "for=203.0.113.7"),
        ("x-real-ip", "203.0.113.7"),
        ("via", "1.1 proxy"),
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let refused = server.anon().with_header(header, value).get("/metrics").await.has_status(401);
        let said = refused.problem("auth_required")["message"].as_str().unwrap().to_owned();
        assert!(said.contains("http.metrics_token"), "{said}");
        ada.clone().with_header(header, value).get("/metrics").await.problem("route_not_found");
        server.node().with_header(header, value).get("/metrics").await.problem("token_invalid");
        root.clone().with_header(header, value).get("/metrics").await.has_status(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_a_well_formed_id_and_gets_one_otherwise() {
    let server = TestServer::start().await;
    let kept = server.anon().with_header("x-request-id", "trace-0123.abc").get("/livez").await;
    assert_eq!(kept.header("x-request-id"), Some("trace-0123.abc"));
    for bad in ["short", "has space in it", "quote\"quote\"quote", &"x".repeat(65)] {
        let made = server.anon().with_header("x-request-id", bad).get("/livez").await;
        assert_ne!(made.header("x-request-id"), Some(bad));
        assert!(made.header("x-request-id").is_some_and(|id| id.len() >= 8));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_call_as_far_as_they_are_allowed() {
    let server = TestServer::start().await;
    let page = server.anon().with_header("origin", "https://app.example.com");
    let answer = page.get("/api/health").await.has_status(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let asking = page.clone().with_header("access-control-request-method", "PATCH");
    let asking = asking.with_header("access-control-request-headers", "authorization");
    let preflight =
        asking.send_raw(reqwest::Method::OPTIONS, "/api/collections/users/records/x", "").await.has_status(204);
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization"));
    assert!(preflight.header("access-control-allow-methods").is_some_and(|methods| methods.contains("PATCH")));

    let clock = std::sync::Arc::new(tenantry::kernel::clock::SystemClock);
    let strict = TestServer::start_with("[http]\ncors_origins = ['https://app.example.com']", clock).await;
    for (origin, allowed) in [("https://app.example.com", true), ("https://evil.example.com", false)] {
        let answer = strict.anon().with_header("origin", origin).get("/api/health").await.has_status(200);
        assert_eq!(answer.header("access-control-allow-origin"), allowed.then_some(origin));
        assert!(answer.varies_by_origin(), "{origin}: {:?}", answer.vary());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_say_so() {
    let server = TestServer::start().await;
    server.anon().get("/api/nothing/here").await.has_status(404).problem("route_not_found");
    let refused = server.anon().delete("/health").await.has_status(405);
    assert_eq!(refused.header("allow"), Some("GET"));
    refused.problem("method_not_allowed");
    let head = reqwest::Method::HEAD;
    let answer = server.anon().send_raw(head, "/api/health", "").await.has_status(200);
    assert!(answer.body.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named_as_it_was_asked_for() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let stranger = server.anon().at("acme");
    let login = json!({ "identity": "a", "password": "b" });
    for (answer, code, name) in [
        (stranger.get("/api/collections/nots/records").await, "collection_not_found", "\"nots\""),
        (admin.get("/api/collections/nots/records/x").await, "collection_not_found", "\"nots\""),
        (admin.post("/api/collections/nots/records", json!({})).await, "collection_not_found", "\"nots\""),
        (stranger.post("/api/collections/nots/auth-with-password", login).await, "collection_not_found", "\"nots\""),
        (stranger.get("/api/nope?secret=1").await, "route_not_found", "GET /api/nope."),
        (server.anon().delete("/nope").await, "route_not_found", "DELETE /nope."),
    ] {
        let problem = answer.has_status(404).problem(code);
        assert!(
            problem["message"]
                .as_str()
                .unwrap()
                .ends_with(&format!("{name}{}", if name.ends_with('.') { "" } else { "." })),
            "{problem}"
        );
    }
}
