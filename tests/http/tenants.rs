//! The life of tenants over the wire, while the node runs, and how they are addressed.

use crate::support::{Actor, TestServer};
use serde_json::{Value, json};

async fn create(root: &Actor, slug: &str) -> Value {
    root.post("/api/tenants", json!({"slug": slug, "name": slug.to_uppercase()})).await.created()
}

async fn add_user(tenant: &Actor, email: &str) -> String {
    let body = json!({"email": email, "password": "correct horse", "passwordConfirm": "correct horse"});
    let user = tenant.post("/api/collections/users/records", body).await.created();
    user["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_created_renamed_suspended_resumed_and_deleted() {
    let server = TestServer::start().await;
    let root = server.node();
    let made = create(&root, "acme").await;
    assert_eq!((&made["state"], &made["name"]), (&json!("active"), &json!("ACME")));
    root.post("/api/tenants", json!({"slug": "acme"})).await.problem("tenant_exists");
    root.post("/api/tenants", json!({"slug": "Not A Slug"})).await.problem("tenant_slug_invalid");
    add_user(&server.anon().at("acme"), "ada@a.test").await;
    let shown = root.get("/api/tenants/acme").await.ok();
    assert_eq!(shown["records"], 1);
    assert!(shown["sizeBytes"].as_u64().unwrap() > 0 && shown["position"].as_i64().unwrap() > 0);

    root.post("/api/tenants/acme/suspend", json!({})).await.ok();
    server.anon().at("acme").get("/api/collections/users/auth-methods").await.problem("tenant_suspended");
    root.post("/api/tenants/acme/resume", json!({})).await.ok();
    root.patch("/api/tenants/acme", json!({"slug": "apex", "hosts": ["apex.test"]})).await.ok();
    server.anon().at("acme").get("/api/collections/users/auth-methods").await.problem("tenant_not_found");
    server.anon().at("apex").get("/api/collections/users/auth-methods").await.ok();
    server.anon().with_header("host", "apex.test").get("/api/collections/users/auth-methods").await.ok();

    let server = server.restart().await;
    let root = server.node();
    assert_eq!(root.get("/api/tenants/apex").await.ok()["id"], made["id"]);
    root.delete("/api/tenants/apex").await.gone();
    root.get("/api/tenants/apex").await.problem("tenant_not_found");
    server.anon().at("apex").get("/api/collections/users/auth-methods").await.problem("tenant_not_found");
    let id = made["id"].as_str().unwrap();
    assert!(!server.folder().join("tenants").join(id).exists(), "nothing of it is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn main_answers_without_a_name_and_cannot_go() {
    let server = TestServer::start().await;
    server.anon().get("/api/collections/users/auth-methods").await.ok();
    server.anon().at("main").get("/api/collections/users/auth-methods").await.ok();
    server.node().delete("/api/tenants/main").await.problem("conflict");
    server.node().patch("/api/tenants/main", json!({"slug": "other"})).await.problem("conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_disagree_are_refused() {
    let server = TestServer::start().await;
    let root = server.node();
    create(&root, "one").await;
    create(&root, "two").await;
    let path = "/api/collections/users/auth-methods";
    server.anon().with_header("x-tenant", "one").get(path).await.ok();
    server.anon().at("one").with_header("x-tenant", "one").get(path).await.ok();
    server.anon().at("one").with_header("x-tenant", "two").get(path).await.problem("tenant_ambiguous");
    for unknown in ["nothing", "../one", "ONE", "_control", "%5fcontrol", "one%2f..%2ftwo"] {
        let answer = server.anon().at(unknown).get(path).await;
        assert_eq!(answer.status, 404, "{unknown}");
    }
    for unknown in ["nothing", "_control", "../one", ""] {
        let answer = server.anon().with_header("x-tenant", unknown).get(path).await;
        assert_eq!(answer.status, 404, "{unknown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_hold_the_same_and_live_apart() {
    let server = TestServer::start().await;
    let root = server.node();
    create(&root, "source").await;
    let source = server.anon().at("source");
    let id = add_user(&source, "ada@a.test").await;
    root.post("/api/tenants/source/clone", json!({"slug": "copy"})).await.created();
    let own = format!("/api/collections/users/records/{id}");
    let copy = root.clone().at("copy");
    copy.get(&own).await.ok();
    copy.delete(&own).await.gone();
    root.clone().at("source").get(&own).await.ok();

    let exported = root.get("/api/tenants/source/export").await.has_status(200);
    assert!(exported.body.starts_with(b"SQLite format 3\0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_is_for_administrators() {
    let server = TestServer::start().await;
    add_user(&server.anon(), "ada@a.test").await;
    let body = json!({"identity": "ada@a.test", "password": "correct horse"});
    let grant = server.anon().post("/api/collections/users/auth-with-password", body).await.ok();
    let ada = server.anon().with_authorization(grant["token"].as_str().unwrap());
    for (actor, code) in [(server.anon(), "auth_required"), (ada, "token_invalid")] {
        actor.get("/api/tenants").await.problem(code);
        actor.post("/api/tenants", json!({"slug": "x"})).await.problem(code);
        actor.get("/api/tenants/main/export").await.problem(code);
        actor.delete("/api/tenants/main").await.problem(code);
    }
    server.anon().with_authorization("Node guess").get("/api/tenants").await.problem("token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_paged() {
    let server = TestServer::start().await;
    let root = server.node();
    for slug in ["b-one", "a-two", "a-one"] {
        create(&root, slug).await;
    }
    root.post("/api/tenants/a-two/suspend", json!({})).await.ok();
    let slugs = |page: Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(slugs(root.get("/api/tenants?slug=a-").await.ok()), ["a-one", "a-two"]);
    assert_eq!(slugs(root.get("/api/tenants?state=suspended").await.ok()), ["a-two"]);
    let second = root.get("/api/tenants?perPage=2&page=2").await.ok();
    assert_eq!((second["totalItems"].as_u64(), second["totalPages"].as_u64()), (Some(4), Some(2)));
    assert_eq!(slugs(second), ["b-one", "main"]);
    root.get("/api/tenants?state=lost").await.problem("parameter_invalid");
}

/// A repeated request at a copy was answered with what the original had done.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_starts_without_receipts_and_half_finished_logins() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    server.user(&admin, "ada").await;
    let notes = json!({ "name": "notes", "type": "base", "fields": [{ "name": "text", "type": "text" }] });
    admin.post("/api/collections", notes).await.created();
    let path = "/api/collections/notes/records";
    let once = |actor: &Actor| actor.clone().with_header("idempotency-key", "once");
    once(&admin).post(path, json!({ "text": "a" })).await.created();
    admin.patch("/api/collections/users", json!({ "mfa": { "enabled": true } })).await.ok();
    let login = json!({ "identity": "ada@example.com", "password": crate::support::PASSWORD });
    let guest = admin.clone().without_authorization();
    guest.post("/api/collections/users/auth-with-password", login).await.problem("mfa_required");

    server.node().post("/api/tenants/acme/clone", json!({ "slug": "copy" })).await.created();
    let copy = server.node().at("copy");
    assert_eq!(admin.get("/api/collections/_mfas/records").await.ok()["totalItems"], 1);
    assert_eq!(copy.get("/api/collections/_mfas/records").await.ok()["totalItems"], 0);
    once(&copy).post(path, json!({ "text": "a" })).await.created();
    assert_eq!(copy.get(path).await.ok()["totalItems"], 2);
    once(&admin).post(path, json!({ "text": "a" })).await.created();
    assert_eq!(admin.get(path).await.ok()["totalItems"], 1, "the original remembers");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_of_the_tenant_that_is_named_and_the_nodes_own_routes_name_none() {
    let server = TestServer::start().await;
    let acme = server.tenant("acme").await.without_authorization();
    assert_eq!(acme.get("/api/health").await.ok()["code"], 200);
    let nobody = server.anon().at("nobody");
    nobody.get("/api/health").await.has_status(404).problem("tenant_not_found");
    let by_header = server.anon().with_header("x-tenant", "nobody");
    by_header.get("/api/health").await.has_status(404).problem("tenant_not_found");
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        server.anon().get(path).await.has_status(200);
        acme.get(path).await.has_status(404).problem("route_not_found");
        nobody.get(path).await.has_status(404).problem("route_not_found");
    }
    server.node().post("/api/tenants/acme/suspend", json!({})).await.ok();
    acme.get("/api/health").await.has_status(403).problem("tenant_suspended");
    server.anon().get("/api/health").await.ok();
}
