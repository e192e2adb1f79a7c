//! Batches: many requests, one transaction, or each on its own.

use crate::support::{Actor, TestServer};
use serde_json::{Value, json};

const NOTES: &str = "/api/collections/notes/records";

async fn notes(server: &TestServer) -> Actor {
    let admin = server.tenant("acme").await;
    let fields = json!([{ "name": "title", "type": "text", "required": true }, { "name": "parent", "type": "text" }]);
    admin.post("/api/collections", json!({ "name": "notes", "type": "base", "fields": fields })).await.created();
    admin
}

fn create(title: &str) -> Value {
    json!({ "method": "POST", "url": NOTES, "body": { "title": title } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_happens_as_a_whole() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let requests = json!({ "requests": [
        create("one"),
        { "method": "POST", "url": NOTES, "body": { "title": "two", "parent": "$0.id" } },
        { "method": "PUT", "url": NOTES, "body": { "id": "abcdefghijklmno", "title": "upserted" } },
        { "method": "PUT", "url": NOTES, "body": { "id": "abcdefghijklmno", "title": "again" } },
        { "method": "GET", "url": "/api/collections/notes/records/abcdefghijklmno" },
        { "method": "DELETE", "url": "/api/collections/notes/records/abcdefghijklmno" },
    ] });
    let answers = admin.post("/api/batch", requests).await.ok();
    let statuses: Vec<_> =
        answers.as_array().unwrap().iter().map(|answer| answer["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 204]);
    assert_eq!(answers[1]["body"]["parent"], answers[0]["body"]["id"]);
    assert_eq!(answers[4]["body"]["title"], "again");
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_undoes_all_and_says_which() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let requests = json!({ "requests": [create("kept out"), create("")] });
    let problem = admin.post("/api/batch", requests).await.has_status(400).problem("batch_request_failed");
    let failed = &problem["data"]["requests"]["1"];
    assert_eq!(failed["code"], "batch_request_failed", "{problem}");
    assert_eq!(failed["response"]["data"]["title"]["code"], "validation_required", "{problem}");
    assert_eq!(
        (&failed["response"]["status"], &failed["response"]["code"]),
        (&json!(400), &json!("validation_failed"))
    );
    // A failure that is about no field is told as completely.
    let missing = json!({ "method": "DELETE", "url": "/api/collections/notes/records/nothere00000000" });
    let requests = json!({ "requests": [create("kept out"), missing] });
    let problem = admin.post("/api/batch", requests).await.has_status(400).problem("batch_request_failed");
    let response = &problem["data"]["requests"]["1"]["response"];
    assert_eq!((&response["status"], &response["code"]), (&json!(404), &json!("record_not_found")), "{problem}");
    assert!(response["message"].is_string() && response["data"].is_object(), "{problem}");
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_batch_keeps_what_worked() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let requests = json!({ "transactional": false, "requests": [create("kept"), create(""), create("also kept")] });
    let answers = admin.post("/api/batch", requests).await.ok();
    let statuses: Vec<_> =
        answers.as_array().unwrap().iter().map(|answer| answer["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 400, 200]);
    assert_eq!(answers[1]["body"]["code"], "validation_failed");
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_makes_no_sense_is_refused_whole() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let many: Vec<_> = (0..501).map(|n| create(&n.to_string())).collect();
    for requests in [
        json!({ "requests": "all of them" }),
        json!({ "requests": many }),
        json!({ "requests": [{ "method": "BREW", "url": NOTES }] }),
        json!({ "requests": [{ "method": "POST", "url": "/api/tenants", "body": { "slug": "x" } }] }),
        json!({ "requests": [{ "method": "POST", "url": "/api/batch", "body": {} }] }),
    ] {
        admin.post("/api/batch", requests).await.has_status(400);
    }
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_a_key_happens_once() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let keyed = admin.clone().with_header("idempotency-key", "batch-1");
    let requests = json!({ "requests": [create("a"), create("b")] });
    let first = keyed.post("/api/batch", requests.clone()).await.ok();
    assert_eq!(keyed.post("/api/batch", requests).await.ok(), first);
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 2);
}
