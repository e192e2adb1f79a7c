//! The purge hook, against a real HTTP server: what changed is told to whoever caches in front, and never in the way.

use crate::support::{Actor, Manner, Posted, Sink, TestServer};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tenantry::kernel::clock::SystemClock;

const NOTES: &str = "/api/collections/notes/records";

async fn start(sink: &Sink, more: &str) -> TestServer {
    let toml = format!(
        "[cache]\npurge_url = '{}/purge/{{tenant}}'\npurge_header = 'X-Purge-Key'\npurge_secret = 'sesame'\n{more}",
        sink.url()
    );
    TestServer::start_with(&toml, Arc::new(SystemClock)).await
}

async fn collection(admin: &Actor, name: &str, cache: Value) {
    let body = json!({"name": name, "type": "base", "listRule": "", "viewRule": "", "cache": cache,
        "fields": [{"name": "title", "type": "text"}]});
    admin.post("/api/collections", body).await.created();
}

fn tags(posted: &[Posted]) -> BTreeSet<String> {
    let tags = posted.iter().flat_map(|one| one.body["tags"].as_array().cloned().unwrap_or_default());
    tags.map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

/// The tenant's id: the first word of any `Cache-Tag`.
async fn tenant_id(admin: &Actor) -> String {
    let answer = admin.clone().without_authorization().get(NOTES).await;
    answer.header("cache-tag").unwrap().split(',').next().unwrap().to_owned()
}

/// One line of `/metrics`.
async fn metric(server: &TestServer, name: &str) -> u64 {
    let text = String::from_utf8(server.anon().get("/metrics").await.body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Waits until everything that changed so far has been posted. What is written before that may be told by the name of its
/// tenant alone: while a change of the schema waits, whatever else changes is part of it.
async fn told(server: &TestServer) {
    for _ in 0..1_200 {
        if metric(server, "tenantry_purge_hook_waiting").await == 0 {
            return;
        }
        crate::support::pause(std::time::Duration::from_millis(25)).await;
    }
    panic!("there is always something to post");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_posts_the_tags_under_which_answers_were_given_out() {
    let sink = Sink::start().await;
    let server = start(&sink, "").await;
    let admin = server.tenant("acme").await;
    collection(&admin, "notes", Value::Null).await;
    collection(&admin, "quiet", json!({"purge": false})).await;
    let notes_id = admin.get("/api/collections/notes").await.ok()["id"].clone();
    let marks = json!({"name": "marks", "type": "base", "listRule": "", "viewRule": "",
        "fields": [{"name": "note", "type": "relation", "collectionId": notes_id, "maxSelect": 1}]});
    admin.post("/api/collections", marks).await.created();
    let id = tenant_id(&admin).await;
    sink.until("the new schema", |posted| tags(posted).contains(&id)).await;
    told(&server).await;

    admin.post("/api/collections/quiet/records", json!({"title": "hush"})).await.created();
    let note = admin.post(NOTES, json!({"title": "a"})).await.created()["id"].as_str().unwrap().to_owned();
    let (lists, record) = (format!("{id}:notes:lists"), format!("{id}:notes:{note}"));
    let posted =
        sink.until("a write", |posted| tags(posted).is_superset(&[lists.clone(), record.clone()].into())).await;
    assert!(!tags(&posted).iter().any(|tag| tag.contains("quiet")), "{posted:#?}");
    let last = posted.last().unwrap();
    assert!(last.head.starts_with("post /purge/acme "), "{}", last.head);
    assert!(last.head.contains("x-purge-key: sesame"), "{}", last.head);

    // Every answer that shows the record carries one of the tags that its change posts.
    let mark = admin.post("/api/collections/marks/records", json!({"note": note})).await.created();
    let anon = admin.clone().without_authorization();
    let mark = format!("/api/collections/marks/records/{}?expand=note", mark["id"].as_str().unwrap());
    let one = format!("{NOTES}/{note}");
    for path in [NOTES, &one, "/api/collections/marks/records?expand=note", &mark] {
        let answer = anon.get(path).await;
        let carried: Vec<&str> = answer.header("cache-tag").unwrap().split(',').collect();
        assert!(carried.contains(&&*lists) || carried.contains(&&*record), "{path}: {carried:?}");
        assert!(carried.contains(&&*id), "{path}: {carried:?}");
    }

    // What only a superuser knows to have changed, and the end of a tenant.
    admin.post("/api/admin/cache/purge", json!({"tag": "front"})).await.ok();
    sink.until("a purge by tag", |posted| tags(posted).contains(&format!("{id}:front"))).await;
    let before = sink.posted().len();
    admin.post("/api/admin/cache/purge", json!({"tag": format!("notes:{note}")})).await.ok();
    sink.until("a purge of a record", |posted| tags(&posted[before..]).contains(&record)).await;
    told(&server).await;
    let of_record = tags(&sink.posted()[before..]);
    assert!(!of_record.contains(&format!("{id}:notes")), "the others stay: {of_record:?}");
    admin.post("/api/admin/cache/purge", json!({"collection": "notes"})).await.ok();
    sink.until("a purge of a collection", |posted| tags(posted).contains(&format!("{id}:notes"))).await;
    let before = sink.posted().len();
    server.node().delete("/api/tenants/acme").await.gone();
    sink.until("the end of a tenant", |posted| tags(&posted[before..]).contains(&id)).await;
    assert_eq!(metric(&server, "tenantry_purge_hook_dropped_total").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_receiver_is_tried_again_and_a_refusing_one_is_not() {
    let sink = Sink::start().await;
    let server = start(&sink, "purge_window_ms = 0").await;
    let admin = server.tenant("acme").await;
    collection(&admin, "notes", Value::Null).await;
    let id = tenant_id(&admin).await;
    sink.until("the new schema", |posted| tags(posted).contains(&id)).await;
    told(&server).await;

    sink.answer_next([Manner::Status(503), Manner::Status(429)]);
    let note = admin.post(NOTES, json!({"title": "a"})).await.created()["id"].as_str().unwrap().to_owned();
    let wanted = format!("{id}:notes:{note}");
    let times = |posted: &[Posted]| posted.iter().filter(|one| one.body.to_string().contains(&wanted)).count();
    sink.until("the third attempt", |posted| times(posted) >= 3).await;
    assert!(metric(&server, "tenantry_purge_hook_failures_total").await >= 2);
    assert_eq!(metric(&server, "tenantry_purge_hook_dropped_total").await, 0);

    sink.answer_next([Manner::Status(401)]);
    let note = admin.post(NOTES, json!({"title": "b"})).await.created()["id"].as_str().unwrap().to_owned();
    let wanted = format!("{id}:notes:{note}");
    let times = |posted: &[Posted]| posted.iter().filter(|one| one.body.to_string().contains(&wanted)).count();
    sink.until("the refused post", |posted| times(posted) == 1).await;
    for _ in 0..1_200 {
        if metric(&server, "tenantry_purge_hook_dropped_total").await == 2 {
            break;
        }
        crate::support::pause(std::time::Duration::from_millis(25)).await;
    }
    assert_eq!(metric(&server, "tenantry_purge_hook_dropped_total").await, 2, "the list and the record");
    let health = server.anon().get("/health").await.ok();
    let said = health["checks"]["purge_hook"].as_str().unwrap();
    assert!(said.starts_with("error: 1 posts in a row failed") && said.contains("401"), "{health}");
    assert_eq!(times(&sink.posted()), 1, "a refusal is final");

    // The next success ends the complaint.
    admin.post(NOTES, json!({"title": "c"})).await.created();
    for _ in 0..1_200 {
        if server.anon().get("/health").await.ok()["checks"]["purge_hook"] == "ok" {
            return;
        }
        crate::support::pause(std::time::Duration::from_millis(25)).await;
    }
    panic!("health never recovered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_receiver_holds_up_nobody() {
    let sink = Sink::start().await;
    let server = start(&sink, "purge_window_ms = 0").await;
    sink.answer_next(std::iter::repeat_n(Manner::Silence, 1_000));
    let admin = server.tenant("acme").await;
    collection(&admin, "notes", Value::Null).await;
    sink.until("the first post", |posted| !posted.is_empty()).await;
    // The one post that hangs has ten seconds; if writes waited for it, these alone would take ten minutes.
    let writes = async {
        for number in 0..60 {
            admin.post(NOTES, json!({"title": format!("{number}")})).await.created();
        }
    };
    writes.await;
    assert!(metric(&server, "tenantry_purge_hook_waiting").await <= 2);
    assert!(sink.posted().len() < 30, "writes did not wait for posts: {}", sink.posted().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_can_be_posted_instead_and_a_stop_posts_what_waits() {
    let sink = Sink::start().await;
    let more = "purge_sends = 'urls'\npurge_window_ms = 60000\npurge_tenants = ['acme']\n[http]\npublic_url = 'https://api.example.com/'";
    let server = start(&sink, more).await;
    let (admin, other) = (server.tenant("acme").await, server.tenant("other").await);
    for actor in [&admin, &other] {
        collection(actor, "notes", Value::Null).await;
        actor.post(NOTES, json!({"title": "a"})).await.created();
    }
    assert!(sink.posted().is_empty(), "gathering takes a minute");
    drop(server);
    let posted = sink.posted();
    assert_eq!(posted.len(), 1, "{posted:#?}");
    assert!(posted[0].head.starts_with("post /purge/acme "));
    assert_eq!(posted[0].body, json!({"urls": ["https://api.example.com/t/acme/api/collections"]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_there_is_no_hook() {
    let server = TestServer::start().await;
    let text = String::from_utf8(server.anon().get("/metrics").await.body).unwrap();
    assert!(!text.contains("purge_hook"));
    assert!(server.anon().get("/health").await.ok()["checks"]["purge_hook"].is_null());
}
