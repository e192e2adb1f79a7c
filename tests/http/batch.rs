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

#[tokio::test(flavor = "multi_thread")]
async fn rules_see_each_request_of_a_batch_and_not_the_batch() {
    // They saw the POST that carried the batch, without the item's query and headers.
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let rule = |method: &str| {
        format!("@request.method = '{method}' && @request.query.reason = 'asked' && @request.headers.x_form = 'f1'")
    };
    let definition = json!({ "name": "notes", "type": "base", "fields": [{ "name": "title", "type": "text" }],
        "listRule": rule("GET"), "viewRule": rule("GET"), "createRule": rule("POST"), "updateRule": rule("PATCH"),
        "deleteRule": rule("DELETE") });
    admin.post("/api/collections", definition).await.created();
    let one = "/api/collections/notes/records/abcdefghijklmno";
    let items = |query: &str, form: &str| -> Vec<Value> {
        let item = |method: &str, url: &str| {
            json!({ "method": method, "url": format!("{url}?reason={query}"), "headers": { "X-Form": form },
                "body": { "id": "abcdefghijklmno", "title": "t" } })
        };
        vec![
            item("POST", NOTES),
            item("PATCH", one),
            item("PUT", NOTES),
            item("GET", NOTES),
            item("GET", one),
            item("DELETE", one),
        ]
    };
    let guest = admin.clone().without_authorization();
    for transactional in [true, false] {
        let batch = json!({ "transactional": transactional, "requests": items("asked", "f1") });
        let answers = guest.post("/api/batch?reason=none", batch).await.ok();
        let statuses: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["status"].clone()).collect();
        assert_eq!(statuses, [200, 200, 200, 200, 200, 204], "{answers}");
        assert_eq!(answers[3]["body"]["totalItems"], 1);
    }
    admin.post(NOTES, json!({ "id": "abcdefghijklmno" })).await.created();
    for (query, form) in [("other", "f1"), ("asked", "f2")] {
        let batch = json!({ "transactional": false, "requests": items(query, form) });
        let answers = guest.post("/api/batch?reason=asked", batch).await.ok();
        let statuses: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["status"].clone()).collect();
        assert_eq!(statuses, [400, 404, 400, 200, 404, 404], "{answers}");
        assert_eq!(answers[3]["body"]["totalItems"], 0);
    }
    // What a proxy in front says about the caller is not for an item to replace.
    let outer = guest.with_header("x-form", "f2");
    let batch = json!({ "requests": [items("asked", "f1").remove(0)] });
    outer.post("/api/batch", batch).await.problem("batch_request_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn references_work_in_filters_and_conditions() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let hostile = "it's \" || title != '";
    let list = |filter: &str| {
        let query = url_encoded(filter);
        json!({ "method": "GET", "url": format!("{NOTES}?filter={query}&sort=title") })
    };
    let requests = json!({ "requests": [
        create(hostile),
        { "method": "POST", "url": NOTES, "body": { "title": "child", "parent": "$0.id" } },
        list("parent = '$0.id'"),
        list("title = '$0.title'"),
        list("title = \"$0.title\" || parent = '$0.id'"),
        list("title = '$$0.id'"),
    ] });
    for transactional in [true, false] {
        let mut requests = requests.clone();
        requests["transactional"] = json!(transactional);
        let answers = admin.post("/api/batch", requests).await.ok();
        let found = |at: usize| answers[at]["body"]["totalItems"].clone();
        let expected = if transactional { [1, 1, 2, 0] } else { [1, 2, 3, 0] };
        assert_eq!([found(2), found(3), found(4), found(5)], expected, "{answers}");
    }
    let missing = json!({ "requests": [create("a"), list("parent = '$0.nothing'")] });
    let problem = admin.post("/api/batch", missing).await.problem("batch_request_failed");
    let failed = &problem["data"]["requests"]["1"]["response"];
    assert_eq!(failed["data"]["$0"]["nothing"]["code"], "validation_invalid_reference", "{problem}");
}

fn url_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_makes_only_so_many_hashes() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let account = |number: usize| {
        json!({ "method": "POST", "url": "/api/collections/users/records", "body": {
            "email": format!("u{number}@example.com"), "password": "some password", "passwordConfirm": "some password" } })
    };
    for transactional in [true, false] {
        let requests: Vec<_> = (0..51).map(account).collect();
        let batch = json!({ "requests": requests, "transactional": transactional });
        let problem = admin.post("/api/batch", batch).await.problem("validation_failed");
        assert_eq!(problem["errors"][0]["field"], "requests.50.body.password", "{problem}");
    }
    assert_eq!(admin.get("/api/collections/users/records").await.ok()["totalItems"], 0);
}
