//! A tenant whose file is damaged or gone: whose fault that is, and who is told.

use crate::support::{Actor, TestServer, errors_with, expect_error, pause};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NOTES: &str = "/api/collections/notes/records";
const PAGE_BYTES: usize = 4_096;

fn file_of(folder: &Path, id: &str) -> PathBuf {
    folder.join("tenants").join(id).join("data.db")
}

/// A tenant with notes that anybody may list; its id.
async fn with_notes(server: &TestServer, slug: &str) -> String {
    let admin = server.tenant(slug).await;
    let notes =
        json!({ "name": "notes", "type": "base", "listRule": "", "fields": [{ "name": "text", "type": "text" }] });
    admin.post("/api/collections", notes).await.created();
    for n in 0..60 {
        let text = format!("{slug}-needle-{n} {}", "x".repeat(600));
        admin.post(NOTES, json!({ "text": text })).await.created();
    }
    let shown = server.node().get(&format!("/api/tenants/{slug}")).await.ok();
    shown["id"].as_str().unwrap().to_owned()
}

/// Asks once for the notes of the tenant `id`, whose errors are announced: the node's fault, in words that say nothing of the
/// inside.
async fn refused(id: &str, stranger: Actor) {
    let stranger = stranger.with_header("x-request-id", format!("refused-{id}"));
    let problem = stranger.get(NOTES).await.has_status(500).problem("tenant_damaged");
    let said = problem.to_string();
    assert!(!said.contains("SQLite") && !said.contains("data.db") && !said.contains("malformed"), "{said}");
}

/// An overwritten first page looked like a mistake of whoever asked, a file that was gone like a tenant that never was, and
/// neither the log nor `/health` said a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_missing_file_is_the_nodes_fault_and_named_to_the_operator() {
    let server = TestServer::start().await;
    let (head, gone, sound) =
        (with_notes(&server, "head").await, with_notes(&server, "gone").await, with_notes(&server, "sound").await);
    let mut whole = Vec::new();
    for id in [&head, &gone] {
        expect_error(id);
    }
    assert_eq!(server.anon().get("/health").await.ok()["checks"]["tenants"], "ok");
    let server = server
        .restart_after(|folder| {
            let path = file_of(folder, &head);
            let mut bytes = fs::read(&path).unwrap();
            bytes[..PAGE_BYTES].fill(0x5a);
            fs::write(path, bytes).unwrap();
            whole = fs::read(file_of(folder, &sound)).unwrap();
            fs::remove_file(file_of(folder, &gone)).unwrap();
        })
        .await;
    // Found without anybody asking for them.
    let mut health = server.anon().get("/health").await.ok();
    for _ in 0..200 {
        if health["status"] != "ok" {
            break;
        }
        pause(Duration::from_millis(25)).await;
        health = server.anon().get("/health").await.ok();
    }
    assert_eq!(health["status"], "degraded", "{health}");
    for (id, slug) in [(&head, "head"), (&gone, "gone")] {
        refused(id, server.anon().at(slug)).await;
        refused(id, server.node().at(slug)).await;
        let said = health["checks"]["tenants"].as_str().unwrap();
        assert!(said.contains(id.as_str()) && said.contains("doctor") && !said.contains(slug), "{health}");
        let logged = errors_with(&format!("{id}/data.db"));
        assert_eq!(logged.len(), 1, "told once: {logged:#?}");
        assert!(logged[0].contains("tenantry doctor"), "{logged:#?}");
    }
    assert_eq!(server.anon().at("sound").get(NOTES).await.ok()["totalItems"], 60);
    let metrics = String::from_utf8(server.anon().get("/metrics").await.body).unwrap();
    assert!(metrics.contains("\ntenantry_tenants_damaged 2\n"), "{metrics}");

    // A file that is put back is one again, and a tenant that is deleted is nobody's trouble.
    fs::write(file_of(server.folder(), &gone), whole).unwrap();
    assert_eq!(server.anon().at("gone").get(NOTES).await.ok()["totalItems"], 60);
    server.node().delete("/api/tenants/head").await.gone();
    assert_eq!(server.anon().get("/health").await.ok()["status"], "ok");
    server.anon().at("head").get(NOTES).await.has_status(404).problem("tenant_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_met_inside_a_file_is_told_too() {
    let server = TestServer::start().await;
    let id = with_notes(&server, "worn").await;
    expect_error(&id);
    let server = server
        .restart_after(|folder| {
            let path = file_of(folder, &id);
            let mut bytes = fs::read(&path).unwrap();
            let page = bytes
                .chunks_mut(PAGE_BYTES)
                .find(|page| page.windows(12).any(|text| text == b"worn-needle-"))
                .expect("a page with records");
            page.fill(0xff);
            fs::write(path, bytes).unwrap();
        })
        .await;
    refused(&id, server.anon().at("worn")).await;
    let health = server.anon().get("/health").await.ok();
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health["checks"]["tenants"].as_str().unwrap().contains(&id), "{health}");
    assert_eq!(errors_with(&format!("{id}/data.db")).len(), 1);
}

/// What a client sends is the client's.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_a_bad_file_is_the_clients_fault() {
    let server = TestServer::start().await;
    with_notes(&server, "acme").await;
    let whole = server.node().get("/api/tenants/acme/export").await.has_status(200).body;
    let mut torn = whole.clone();
    torn[..PAGE_BYTES].fill(0x5a);
    let mut worn = whole;
    let from = worn.len() / 2;
    worn[from..].fill(0xff);
    for (name, body) in [("torn", torn), ("worn", worn)] {
        let import = server.node().request(reqwest::Method::POST, &format!("/api/tenants/import?slug={name}"));
        let answer = crate::support::Answer::of(import.body(body)).await;
        answer.has_status(400).problem("request_invalid");
    }
    assert_eq!(server.anon().get("/health").await.ok()["status"], "ok");
}

/// A folder that came back without its `node.secret` got a new one in silence, and everybody was logged out.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_missing_from_a_used_folder_is_told_and_can_be_put_back() {
    let server = TestServer::start().await;
    let secret = server.folder().join("node.secret");
    let place = secret.display().to_string();
    expect_error(&place);
    let root = server.superuser().await;
    root.get("/api/tenants").await.ok();
    let token = root.authorization();
    let (server, kept) = {
        let mut kept = Vec::new();
        let server = server.restart_after(|_| kept = fs::read(&secret).unwrap()).await;
        assert!(errors_with(&place).is_empty(), "a new folder and a whole one say nothing");
        (server, kept)
    };
    let server = server.restart_after(|_| fs::remove_file(&secret).unwrap()).await;
    let told = errors_with(&place);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("tokens") && told[0].contains("put the old node.secret"), "{told:#?}");
    server.anon().with_authorization(&token).get("/api/tenants").await.has_status(401);

    // As it says.
    let server = server
        .restart_after(|_| {
            fs::write(&secret, &kept).unwrap();
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        })
        .await;
    server.anon().with_authorization(&token).get("/api/tenants").await.ok();
    assert_eq!(errors_with(&place).len(), 1);
}
