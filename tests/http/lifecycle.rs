//! Tenants: how they come, change and go, and how a request finds one.

use crate::support::{Actor, TestServer};
use serde_json::json;

async fn note(actor: &Actor, text: &str) -> String {
    actor.post("/api/collections/notes/records", json!({ "text": text })).await.created()["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn with_notes(server: &TestServer, slug: &str) -> Actor {
    let admin = server.tenant(slug).await;
    let notes = json!({ "name": "notes", "type": "base", "listRule": "", "viewRule": "", "createRule": "",
        "fields": [{ "name": "text", "type": "text" }] });
    admin.post("/api/collections", notes).await.created();
    admin
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_created_listed_shown_renamed_and_deleted() {
    let server = TestServer::start().await;
    let root = server.superuser().await;
    let made = root.post("/api/tenants", json!({ "name": "Acme & Söhne Ltd" })).await.created();
    assert_eq!((&made["slug"], &made["state"]), (&json!("acme-s-hne-ltd"), &json!("active")));
    root.post("/api/tenants", json!({ "name": "Other", "slug": "acme-s-hne-ltd" }))
        .await
        .has_status(409)
        .problem("tenant_exists");
    root.post("/api/tenants", json!({ "name": "Other", "slug": "Not Allowed" })).await.problem("tenant_slug_invalid");
    root.post("/api/tenants", json!({ "nam": "typo" })).await.problem("json_invalid");
    root.post("/api/tenants", json!({ "slug": "beta", "name": "Beta" })).await.created();

    let list = root.get("/api/tenants?perPage=2&page=1").await.ok();
    assert_eq!((&list["totalItems"], &list["totalPages"]), (&json!(3), &json!(2)));
    let slugs: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap().to_owned()).collect();
    assert_eq!(slugs, ["acme-s-hne-ltd", "beta"]);
    assert_eq!(root.get("/api/tenants?slug=be").await.ok()["totalItems"], 1);

    let shown = root.get("/api/tenants/beta").await.ok();
    assert!(shown["sizeBytes"].as_u64().unwrap() > 0 && shown["position"].as_i64().unwrap() > 0, "{shown}");
    let id = shown["id"].as_str().unwrap().to_owned();
    assert_eq!(root.get(&format!("/api/tenants/{id}")).await.ok()["slug"], "beta");
    let renamed = root.patch("/api/tenants/beta", json!({ "slug": "gamma", "name": "Gamma" })).await.ok();
    assert_eq!((&renamed["id"], &renamed["slug"], &renamed["name"]), (&json!(id), &json!("gamma"), &json!("Gamma")));
    root.get("/api/tenants/beta").await.has_status(404).problem("tenant_not_found");

    root.delete("/api/tenants/gamma").await.gone();
    root.delete("/api/tenants/gamma").await.problem("tenant_not_found");
    root.delete("/api/tenants/main").await.has_status(409).problem("conflict");
    server.anon().at("gamma").get("/api/collections/users/records").await.problem("tenant_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_superusers_administrate() {
    let server = TestServer::start().await;
    let acme = server.tenant("acme").await;
    let ada = server.user(&acme, "ada").await;
    for path in ["/api/tenants", "/api/tenants/acme", "/api/tenants/acme/export", "/api/admin/doctor", "/api/changes"] {
        server.anon().get(path).await.has_status(401).problem("auth_required");
        // The token of a tenant's user names nobody at the node.
        let refused = ada.actor.get(path).await;
        assert!([401, 403].contains(&refused.status.as_u16()), "{path}: {refused:?}");
    }
    server.anon().post("/api/tenants", json!({ "slug": "x" })).await.problem("auth_required");
    server.anon().with_authorization("Node wrong").get("/api/tenants").await.has_status(401).problem("token_invalid");
    let spoofed = server.node().with_header("x-forwarded-for", "127.0.0.1");
    spoofed.get("/api/tenants").await.problem("token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_answers_nobody_until_it_is_resumed() {
    let server = TestServer::start().await;
    let acme = with_notes(&server, "acme").await;
    let ada = server.user(&acme, "ada").await;
    note(&acme, "kept").await;
    assert_eq!(server.node().post("/api/tenants/acme/suspend", json!({})).await.ok()["state"], "suspended");
    for actor in [&ada.actor, &acme, &server.anon().at("acme")] {
        actor.get("/api/collections/notes/records").await.has_status(403).problem("tenant_suspended");
    }
    assert_eq!(server.node().post("/api/tenants/acme/resume", json!({})).await.ok()["state"], "active");
    assert_eq!(ada.actor.get("/api/collections/notes/records").await.ok()["totalItems"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_and_imported_copies_hold_the_data_and_live_apart() {
    let server = TestServer::start().await;
    let acme = with_notes(&server, "acme").await;
    let id = note(&acme, "shared").await;
    server.node().post("/api/tenants/acme/clone", json!({ "slug": "copy", "name": "Copy" })).await.created();
    let copy = server.node().at("copy");
    assert_eq!(copy.get(&format!("/api/collections/notes/records/{id}")).await.ok()["text"], "shared");
    copy.patch(&format!("/api/collections/notes/records/{id}"), json!({ "text": "changed" })).await.ok();
    assert_eq!(acme.get(&format!("/api/collections/notes/records/{id}")).await.ok()["text"], "shared");

    let file = server.node().get("/api/tenants/acme/export").await.has_status(200);
    assert_eq!(file.header("content-disposition"), Some("attachment; filename=\"acme.tenant\""));
    let import = server.node().request(reqwest::Method::POST, "/api/tenants/import?slug=again&name=Again");
    crate::support::Answer::of(import.body(file.body)).await.created();
    let again = server.node().at("again");
    assert_eq!(again.get(&format!("/api/collections/notes/records/{id}")).await.ok()["text"], "shared");
    let garbage = server.node().request(reqwest::Method::POST, "/api/tenants/import?slug=bad");
    let refused = crate::support::Answer::of(garbage.body("this is no database")).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
    server.node().get("/api/tenants/bad").await.problem("tenant_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn path_host_and_header_name_a_tenant_and_must_agree() {
    let server = TestServer::start().await;
    let acme = with_notes(&server, "acme").await;
    with_notes(&server, "beta").await;
    note(&acme, "of acme").await;
    let path = "/api/collections/notes/records";
    let anon = server.anon();
    let ways = [
        anon.clone().at("acme"),
        anon.clone().with_header("host", "acme.localhost"),
        anon.clone().with_header("host", "ACME.localhost:8090"),
        anon.clone().with_header("x-tenant", "acme"),
        anon.clone().at("acme").with_header("x-tenant", "acme").with_header("host", "acme.localhost"),
    ];
    for actor in &ways {
        assert_eq!(actor.get(path).await.ok()["totalItems"], 1);
    }
    for actor in [
        anon.clone().at("acme").with_header("x-tenant", "beta"),
        anon.clone().at("acme").with_header("host", "beta.localhost"),
        anon.clone().with_header("x-tenant", "acme").with_header("host", "beta.localhost"),
    ] {
        actor.get(path).await.has_status(400).problem("tenant_ambiguous");
    }
    for actor in [
        anon.clone().at("nobody"),
        anon.clone().at("No-Slug"),
        anon.clone().at("_control"),
        anon.clone().with_header("host", "nobody.localhost"),
        anon.clone().with_header("x-tenant", "nobody"),
        anon.clone().with_header("x-tenant", "../acme"),
    ] {
        actor.get(path).await.has_status(404).problem("tenant_not_found");
    }
    // Without any, and under a host that means nothing here, it is `main`.
    for actor in [anon.clone(), anon.clone().with_header("host", "elsewhere.example.com")] {
        actor.get(path).await.problem("collection_not_found");
        assert_eq!(actor.get("/api/collections/users/records").await.ok()["totalItems"], 0);
    }
    server.node().patch("/api/tenants/acme", json!({ "hosts": ["notes.example.com"] })).await.ok();
    assert_eq!(anon.clone().with_header("host", "notes.example.com").get(path).await.ok()["totalItems"], 1);
    server
        .node()
        .patch("/api/tenants/beta", json!({ "hosts": ["notes.example.com"] }))
        .await
        .has_status(409)
        .problem("conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart() {
    let server = TestServer::start().await;
    let acme = with_notes(&server, "acme").await;
    let id = note(&acme, "durable").await;
    let ada = server.user(&acme, "ada").await;
    let server = server.restart().await;
    let acme = server.node().at("acme");
    assert_eq!(acme.get(&format!("/api/collections/notes/records/{id}")).await.ok()["text"], "durable");
    let ada = server.anon().at("acme").with_authorization(ada.token);
    assert_eq!(ada.get("/api/collections/users/records").await.ok()["totalItems"], 1);
}
