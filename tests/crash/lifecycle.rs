//! Power cuts while tenants are made, cloned, brought in and deleted: a whole node that kills itself at a planned point.
//!
//! After each cut the tenant that was worked on is there whole or not at all, the ones beside it are untouched, the doctor
//! finds nothing, and what was cut off can be done again.

use super::cache::Node;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;

/// Deleting moves a folder away and so never passes the point before the renaming of a file.
const CUTS: [(&str, &str); 11] = [
    ("create", "before_rename"),
    ("create", "before_commit"),
    ("create", "after_commit"),
    ("clone", "before_rename"),
    ("clone", "before_commit"),
    ("clone", "after_commit"),
    ("import", "before_rename"),
    ("import", "before_commit"),
    ("import", "after_commit"),
    ("delete", "before_commit"),
    ("delete", "after_commit"),
];

pub(super) async fn kills() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let node = Node::start(folder, "none");
    make_source(&node).await;
    let export = node.request(Method::GET, "/api/tenants/source/export").send().await.unwrap();
    let export = export.bytes().await.unwrap().to_vec();
    node.stop();
    for (round, (what, point)) in CUTS.into_iter().enumerate() {
        let slug = format!("target{round}");
        if what == "delete" {
            let node = Node::start(folder, "none");
            assert_eq!(perform(&node, "clone", &slug, &export).await, Some(200));
            node.stop();
        }
        let node = Node::start(folder, point);
        // The source is open, so that only the lifecycle itself passes the point.
        assert_eq!(count(&node, "source").await, Some(3));
        std::fs::write(folder.join("armed"), "").unwrap();
        let status = perform(&node, what, &slug, &export).await;
        assert_eq!(status, None, "{what}, {point}: the node outlived its death");
        drop(node);
        std::fs::remove_file(folder.join("armed")).unwrap();
        verify(folder, &slug, what, &format!("{what}, {point}"), &export).await;
    }
    println!("crash: {} cuts while tenants came and went, each whole or not at all", CUTS.len());
}

async fn make_source(node: &Node) {
    node.send(Method::POST, "/api/tenants", json!({"slug": "source", "name": "Source"})).await.unwrap();
    let body = json!({"name": "notes", "type": "base", "fields": [{"name": "text", "type": "text"}]});
    node.send(Method::POST, "/t/source/api/collections", body).await.unwrap();
    for text in ["a", "b", "c"] {
        node.send(Method::POST, "/t/source/api/collections/notes/records", json!({"text": text})).await.unwrap();
    }
}

/// Does one step of a tenant's life; its status, or `None` if the node died.
async fn perform(node: &Node, what: &str, slug: &str, export: &[u8]) -> Option<u16> {
    let named = || Some(json!({"slug": slug, "name": slug}));
    match what {
        "create" => node.status(Method::POST, "/api/tenants", named()).await,
        "clone" => node.status(Method::POST, "/api/tenants/source/clone", named()).await,
        "delete" => node.status(Method::DELETE, &format!("/api/tenants/{slug}"), None).await,
        _ => {
            let path = format!("/api/tenants/import?slug={slug}&name={slug}");
            let request = node.request(Method::POST, &path).header("content-type", "application/octet-stream");
            Some(request.body(export.to_vec()).send().await.ok()?.status().as_u16())
        }
    }
}

/// Records of a tenant's notes; `None` if there is no such tenant.
async fn count(node: &Node, slug: &str) -> Option<u64> {
    let path = format!("/t/{slug}/api/collections/notes/records");
    let response = node.request(Method::GET, &path).send().await.unwrap();
    match response.status().as_u16() {
        200 => response.json::<Value>().await.unwrap()["totalItems"].as_u64(),
        404 => None,
        other => panic!("{path}: {other}"),
    }
}

async fn verify(folder: &Path, slug: &str, what: &str, cut: &str, export: &[u8]) {
    let node = Node::start(folder, "none");
    assert_eq!(count(&node, "source").await, Some(3), "{cut}: the source");
    let listed = node.status(Method::GET, &format!("/api/tenants/{slug}"), None).await.unwrap();
    assert!([200, 404].contains(&listed), "{cut}: {listed}");
    if listed == 200 {
        let held = (what != "create").then_some(3);
        assert_eq!(count(&node, slug).await, held, "{cut}: a tenant that is there is whole");
        assert_eq!(perform(&node, "delete", slug, export).await, Some(204), "{cut}");
    }
    if what != "delete" {
        assert_eq!(perform(&node, what, slug, export).await, Some(200), "{cut}: again");
        assert_eq!(perform(&node, "delete", slug, export).await, Some(204), "{cut}: away");
    }
    let report = node.get("/api/admin/doctor").await.1;
    let checks = report["checks"].as_array().unwrap();
    let files: Vec<_> = checks.iter().filter(|check| check["what"] != "free space").collect();
    assert!(files.iter().all(|check| check["result"] == "ok"), "{cut}: {report}");
    node.stop();
    let left: Vec<_> = std::fs::read_dir(folder.join("tenants")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), files.len() - 1, "{cut}: nothing is left beside the tenants: {left:?}");
}
