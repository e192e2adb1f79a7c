//! Settings of a tenant: what a change keeps, and what it does not hand on.

use crate::support::TestServer;
use serde_json::{Value, json};

/// A superuser who names only another host would have been sent the password that was set for the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_password_does_not_follow_to_another_mail_server() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let smtp = json!({ "smtp": { "enabled": true, "host": "smtp.acme.example", "username": "u", "password": "for acme alone" } });
    admin.patch("/api/settings", smtp).await.ok();
    let refused =
        admin.patch("/api/settings", json!({ "smtp": { "host": "smtp.evil.example" } })).await.has_status(400);
    let problem = refused.problem("validation_failed");
    assert!(problem["errors"].as_array().unwrap().iter().any(|error| error["field"] == "smtp.password"), "{problem}");
    assert_eq!(admin.get("/api/settings").await.ok()["smtp"]["host"], "smtp.acme.example");
    for kept in [json!({ "smtp": { "host": "SMTP.acme.example" } }), json!({ "smtp": { "port": 2525 } })] {
        admin.patch("/api/settings", kept).await.ok();
    }
    for moved in [
        json!({ "smtp": { "host": "smtp.other.example", "password": "for the other" } }),
        json!({ "smtp": { "host": "smtp.third.example", "username": "", "password": "" } }),
        json!({ "smtp": { "host": "smtp.fourth.example" } }),
    ] {
        admin.patch("/api/settings", moved).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_time_all_stay() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let members = ["appName", "senderName", "appURL"];
    let values = ["Acme", "The Acme", "https://acme.example"];
    let changes = members.iter().zip(values).map(|(name, value)| {
        let (admin, body) = (admin.clone(), json!({ "meta": { *name: value } }));
        tokio::spawn(async move { admin.patch("/api/settings", body).await.ok() })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.unwrap();
    }
    let meta: Value = admin.get("/api/settings").await.ok()["meta"].clone();
    assert_eq!(
        (&meta["appName"], &meta["senderName"], &meta["appURL"]),
        (&json!(values[0]), &json!(values[1]), &json!(values[2]))
    );
}

/// Settings of a tenant were a way to connect to whatever the node can reach, and to read what it answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_mail_server_on_a_private_address_is_not_reached_unless_the_operator_names_it() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let inside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = inside.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost", "10.0.0.1", "::1", "169.254.169.254"] {
        let smtp = json!({ "smtp": { "enabled": true, "host": host, "port": port, "encryption": "none" } });
        admin.patch("/api/settings", smtp).await.ok();
        let tried = admin.post("/api/settings/test/email", json!({ "email": "a@example.com" })).await;
        assert_eq!(tried.status, 400, "{host}");
        assert!(tried.json().to_string().contains("outbound.private_allowed"), "{host}: {}", tried.json());
    }
    let asked = tokio::time::timeout(std::time::Duration::from_millis(200), inside.accept()).await;
    assert!(asked.is_err(), "nobody connected");
    let allowed = "[outbound]\nprivate_allowed = ['127.0.0.1']";
    let server = TestServer::start_with(allowed, std::sync::Arc::new(tenantry::kernel::clock::SystemClock)).await;
    let admin = server.tenant("acme").await;
    let smtp = json!({ "smtp": { "enabled": true, "host": "127.0.0.1", "port": port, "encryption": "none" } });
    admin.patch("/api/settings", smtp).await.ok();
    let trying =
        tokio::spawn(async move { admin.post("/api/settings/test/email", json!({ "email": "a@example.com" })).await });
    tokio::time::timeout(std::time::Duration::from_secs(20), inside.accept()).await.expect("a connection").unwrap();
    drop(inside);
    trying.await.unwrap().has_status(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_setting_is_refused_and_a_dashboards_own_is_passed_over() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    for (body, field, said) in [
        (json!({ "smtp": { "enabeld": true } }), "smtp.enabeld", "enabled, host, port"),
        (json!({ "meta": { "apName": "Acme" } }), "meta.apName", "did you mean appName"),
    ] {
        let refused = admin.patch("/api/settings", body).await.has_status(400).json();
        assert_eq!(refused["errors"][0]["field"], field, "{refused}");
        assert!(refused["errors"][0]["message"].as_str().unwrap().contains(said), "{refused}");
    }
    let sent =
        json!({ "meta": { "appName": "Acme", "hideControls": true, "accentColor": 3 }, "smtp": { "tls": false } });
    assert_eq!(admin.patch("/api/settings", sent).await.ok()["meta"]["appName"], "Acme");
}
