//! Batches: together and apart, references, preconditions, receipts.

use super::*;
use crate::services::records::batch::ItemAnswer;

fn post(collection: &str, body: Value) -> Value {
    json!({"method": "POST", "url": format!("/api/collections/{collection}/records"), "body": body})
}

fn bodies(answer: &BatchAnswer) -> Vec<Value> {
    let items = answer.items.iter();
    items
        .map(|item| match item {
            ItemAnswer::Done(done) => parsed(&done.answer),
            ItemAnswer::Failed(fault) => json!(fault.code().as_str()),
        })
        .collect()
}

#[tokio::test]
async fn one_failure_undoes_all_and_points() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let body = json!({"requests": [post("authors", json!({"name": "One"})), post("authors", json!({"name": ""}))]});
    let error = admin.batch(body, BatchOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::BatchFailed);
    let fields: Vec<String> = error.details().into_iter().map(|detail| detail.field).collect();
    assert_eq!(fields, ["requests.1", "requests.1.response.data.name"]);
    assert_eq!(admin.list("authors", &[]).await["totalItems"], 0);
    world.stop().await;
}

#[tokio::test]
async fn items_see_each_other_and_refer_to_each_other() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let body = json!({"requests": [
        post("authors", json!({"name": "Ada"})),
        post("posts", json!({"title": "By Ada", "author": "$0.id", "meta": {"who": ["$0.name"]}})),
        {"method": "GET", "url": "/api/collections/posts/records/$1.id?expand=author&fields=title,expand.author.name"},
        {"method": "GET", "url": "/api/collections/authors/records?filter=name%3D'Ada'"},
        {"method": "PATCH", "url": "/api/collections/authors/records/$0.id", "body": {"name": "Ada L."}},
        {"method": "PUT", "url": "/api/collections/authors/records", "body": {"id": "upsertedupserte", "name": "Up"}},
        {"method": "DELETE", "url": "/api/collections/posts/records/$1.id"}
    ]});
    let answer = admin.batch(body, BatchOptions::default()).await.unwrap();
    let bodies = bodies(&answer);
    assert_eq!(bodies[1]["author"], bodies[0]["id"]);
    assert_eq!(bodies[1]["meta"], json!({"who": ["Ada"]}));
    assert_eq!(bodies[2], json!({"title": "By Ada", "expand": {"author": {"name": "Ada"}}}));
    assert_eq!(bodies[3]["totalItems"], 1);
    assert_eq!(
        (&bodies[4]["name"], &bodies[5]["id"], &bodies[6]),
        (&json!("Ada L."), &json!("upsertedupserte"), &Value::Null)
    );
    assert!(answer.token.is_some());
    assert_eq!(admin.list("posts", &[]).await["totalItems"], 0);
    world.stop().await;
}

#[tokio::test]
async fn a_partial_batch_keeps_what_succeeds() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let body = json!({"transactional": false, "requests": [
        post("authors", json!({"name": "One"})), post("authors", json!({"name": "One"})),
        post("posts", json!({"title": "x", "author": "$1.id"})), post("posts", json!({"title": "y", "author": "$0.id"})),
        {"method": "GET", "url": "/api/collections/authors/records"}
    ]});
    let found = bodies(&admin.batch(body, BatchOptions::default()).await.unwrap());
    assert_eq!((&found[1], &found[2]), (&json!("validation_failed"), &json!("validation_failed")));
    assert_eq!((&found[3]["author"], &found[4]["totalItems"]), (&found[0]["id"], &json!(1)));
    world.stop().await;
}

#[tokio::test]
async fn items_carry_their_own_precondition() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let made = admin.create("authors", json!({"name": "Ada"})).await;
    let url = format!("/api/collections/authors/records/{}", made["id"].as_str().unwrap());
    let body = json!({"requests": [
        post("authors", json!({"name": "Beside"})),
        {"method": "PATCH", "url": url, "headers": {"If-Match": "\"stale\""}, "body": {"name": "x"}}]});
    let error = admin.batch(body, BatchOptions::default()).await.unwrap_err();
    assert!(matches!(error, RecordError::Batch { index: 1, fault } if fault.code() == Code::PreconditionFailed));
    assert_eq!(admin.column("authors", "name", &[]).await, ["Ada"]);
    world.stop().await;
}

#[tokio::test]
async fn a_repeated_batch_happens_once() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let body = json!({"requests": [post("authors", json!({"name": "One"})), post("authors", json!({"name": "Two"}))]});
    let send = |text: &str, body: Value| {
        let idempotency = Some(key(text, &admin, &body.to_string()));
        admin.batch(body, BatchOptions { idempotency, ..BatchOptions::default() })
    };
    let first = send("k", body.clone()).await.unwrap();
    let again = send("k", body.clone()).await.unwrap();
    assert_eq!(bodies(&first), bodies(&again));
    assert!(again.replayed && !first.replayed);
    assert_eq!(
        code(send("k", json!({"requests": [post("authors", json!({"name": "Three"}))]})).await),
        Code::IdempotencyMismatch
    );
    let partial = json!({"transactional": false, "requests": [post("authors", json!({"name": "Four"})), post("authors", json!({"name": "One"}))]});
    let failed = bodies(&send("p", partial.clone()).await.unwrap());
    assert_eq!(failed[1], "validation_failed");
    assert_eq!(
        bodies(&send("p", partial).await.unwrap()),
        failed,
        "done items are answered again, failed ones tried again"
    );
    assert_eq!(admin.list("authors", &[]).await["totalItems"], 3);
    world.stop().await;
}

#[tokio::test]
async fn a_dry_batch_changes_nothing() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let body = json!({"requests": [post("authors", json!({"name": "One"})), post("posts", json!({"title": "x", "author": "$0.id"}))]});
    let answer = admin.batch(body, BatchOptions { dry_run: true, ..BatchOptions::default() }).await.unwrap();
    assert_eq!(answer.items.len(), 2);
    assert_eq!(admin.list("authors", &[]).await["totalItems"], 0);
    world.stop().await;
}

#[tokio::test]
async fn rules_hold_inside_a_batch() {
    let mut collections = library();
    collections[0]["createRule"] = json!("@request.body.name != 'Forbidden'");
    let world = World::new(&collections).await;
    let guest = world.guest();
    let body = |name: &str| json!({"requests": [post("authors", json!({"name": name}))]});
    guest.batch(body("Allowed"), BatchOptions::default()).await.unwrap();
    assert_eq!(code(guest.batch(body("Forbidden"), BatchOptions::default()).await), Code::BatchFailed);
    world.stop().await;
}

#[tokio::test]
async fn reads_alone_are_one_snapshot_and_write_nothing() {
    let world = World::new(&library()).await;
    let made = world.admin().create("authors", json!({"name": "Ada"})).await;
    let before = world.db.position();
    let get = |url: String| json!({"method": "GET", "url": url});
    let body = json!({"requests": [get("/api/collections/authors/records".into()),
        get(format!("/api/collections/authors/records/{}", made["id"].as_str().unwrap())),
        get("/api/collections/authors/records/$1.id?fields=name".into())]});
    let answer = world.guest().batch(body, BatchOptions::default()).await.unwrap();
    assert_eq!(bodies(&answer)[2], json!({"name": "Ada"}));
    assert_eq!((answer.lsn, answer.token, world.db.position()), (before, None, before));
    let missing = json!({"requests": [get("/api/collections/authors/records/absent".into())]});
    assert_eq!(code(world.guest().batch(missing, BatchOptions::default()).await), Code::BatchFailed);
    world.stop().await;
}
