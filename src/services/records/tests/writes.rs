//! Writes: checks, modifiers, cascades, preconditions, dry runs, receipts.

use super::*;

#[tokio::test]
async fn a_record_is_made_read_changed_and_deleted() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let ada = admin.create("authors", json!({"name": "Ada"})).await;
    let id = ada["id"].as_str().unwrap();
    assert!(id.len() == 15 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{id}");
    assert_eq!(ada["collectionName"], "authors");
    let post = admin
        .create(
            "posts",
            json!({"title": "First", "score": 10, "tags": ["red"], "author": id, "editors": [id],
            "meta": {"deep": [1, "two", null]}, "published": true}),
        )
        .await;
    assert_eq!(post["meta"], json!({"deep": [1, "two", null]}));
    assert_eq!(post["created"], "2023-11-14 22:13:20.000Z");
    let post_id = post["id"].as_str().unwrap();
    world.clock.advance_ms(5_000);
    let changed = admin.update("posts", post_id, json!({"score+": 5, "tags+": "green", "published": false})).await;
    assert_eq!((&changed["score"], &changed["tags"]), (&json!(15), &json!(["red", "green"])));
    assert_eq!((&changed["created"], &changed["updated"]), (&post["created"], &json!("2023-11-14 22:13:25.000Z")));
    let less = admin.update("posts", post_id, json!({"score-": 3, "tags-": "red"})).await;
    assert_eq!((&less["score"], &less["tags"]), (&json!(12), &json!(["green"])));
    assert_eq!(admin.get("posts", post_id).await, less);
    admin.delete("posts", post_id).await.unwrap();
    assert_eq!(code(admin.try_get("posts", post_id, &[]).await), Code::RecordNotFound);
    assert_eq!(code(admin.delete("posts", post_id).await), Code::RecordNotFound);
    let empty = admin.create("posts", json!({"title": "Empty"})).await;
    for (member, value) in [
        ("body", json!("")),
        ("published", json!(false)),
        ("score", json!(0)),
        ("tags", json!([])),
        ("author", json!("")),
        ("editors", json!([])),
        ("meta", Value::Null),
    ] {
        assert_eq!(empty[member], value, "{member}");
    }
    world.stop().await;
}

#[tokio::test]
async fn refusals_name_the_field_and_change_nothing() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    admin.create("authors", json!({"name": "Ada"})).await;
    let one = |field: &str, code: &str| vec![(field.to_owned(), code.to_owned())];
    assert_eq!(refused(admin.try_create("authors", json!({})).await), one("name", "validation_required"));
    assert_eq!(
        refused(admin.try_create("authors", json!({"name": "Ada"})).await),
        one("name", "validation_not_unique")
    );
    let dangling = json!({"title": "x", "author": "nobodynobody123", "editors": ["alsonobody12345"]});
    assert_eq!(
        refused(admin.try_create("posts", dangling).await),
        [one("author", "validation_missing_rel_records"), one("editors", "validation_missing_rel_records")].concat()
    );
    let post = admin.create("posts", json!({"title": "x", "score": 999})).await;
    let id = post["id"].as_str().unwrap();
    assert!(
        refused(admin.try_update("posts", id, json!({"score+": 2})).await).iter().any(|(field, _)| field == "score")
    );
    assert_eq!(
        refused(admin.try_update("posts", id, json!({"id": "anotheridanothe"})).await),
        one("id", "validation_pk_change")
    );
    let twice = json!({"id": id, "title": "same id"});
    assert_eq!(refused(admin.try_create("posts", twice).await), one("id", "validation_not_unique"));
    assert_eq!(admin.get("posts", id).await, post);
    assert_eq!(code(admin.try_create("nothing", json!({})).await), Code::CollectionNotFound);
    assert_eq!(admin.list("authors", &[]).await["totalItems"], 1);
    world.stop().await;
}

#[tokio::test]
async fn hidden_fields_are_not_written_by_others() {
    let world = World::new(&library()).await;
    let made = world.guest().create("authors", json!({"name": "Guest", "secret": "mine"})).await;
    assert_eq!(made.get("secret"), None);
    let id = made["id"].as_str().unwrap();
    assert_eq!(world.admin().get("authors", id).await["secret"], "");
    world.admin().update("authors", id, json!({"secret": "kept"})).await;
    world.guest().update("authors", id, json!({"secret": "lost"})).await;
    assert_eq!(world.admin().get("authors", id).await["secret"], "kept");
    world.stop().await;
}

#[tokio::test]
async fn deleting_a_target_cascades_or_lets_go() {
    let mut collections = library();
    collections.push(json!({"name": "contracts", "type": "base", "fields": [
        {"name": "author", "type": "relation", "collectionId": "RELATION:authors", "maxSelect": 1, "required": true}]}));
    collections.push(json!({"name": "notes", "type": "base", "fields": [
        {"name": "post", "type": "relation", "collectionId": "RELATION:posts", "maxSelect": 1, "cascadeDelete": true}]}));
    let world = World::new(&collections).await;
    let admin = world.admin();
    let id = |record: &Value| record["id"].as_str().unwrap().to_owned();
    let gone = id(&admin.create("authors", json!({"name": "Gone"})).await);
    let other = id(&admin.create("authors", json!({"name": "Other"})).await);
    let owned = id(&admin.create("posts", json!({"title": "Owned", "author": gone})).await);
    let edited =
        id(&admin.create("posts", json!({"title": "Edited", "author": other, "editors": [gone, other]})).await);
    let note = id(&admin.create("notes", json!({"post": owned})).await);
    let contract = id(&admin.create("contracts", json!({"author": gone})).await);
    assert_eq!(
        code(admin.delete("authors", &gone).await),
        Code::RequestInvalid,
        "a required relation stands in the way"
    );
    assert_eq!(admin.get("posts", &owned).await["author"], gone.as_str(), "nothing happened");
    admin.delete("contracts", &contract).await.unwrap();
    admin.delete("authors", &gone).await.unwrap();
    assert_eq!(code(admin.try_get("posts", &owned, &[]).await), Code::RecordNotFound);
    assert_eq!(code(admin.try_get("notes", &note, &[]).await), Code::RecordNotFound);
    assert_eq!(admin.get("posts", &edited).await["editors"], json!([other]));
    world.stop().await;
}

#[tokio::test]
async fn if_match_guards_every_kind_of_write() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let made = admin.create("authors", json!({"name": "Ada"})).await;
    let id = made["id"].as_str().unwrap();
    let seen = read::get(&admin.0, "authors", id, &View::default()).await.unwrap().tag();
    let guarded = |verb, body: Value, tag: &str| {
        let request = admin.request(verb, "authors", Some(id), body);
        admin.send(WriteRequest { if_match: Some(tag.to_owned()), ..request })
    };
    guarded(WriteVerb::Update, json!({"name": "Ada L."}), &seen).await.unwrap();
    assert_eq!(code(guarded(WriteVerb::Update, json!({"name": "x"}), &seen).await), Code::PreconditionFailed);
    assert_eq!(code(guarded(WriteVerb::Delete, json!({}), &seen).await), Code::PreconditionFailed);
    assert_eq!(admin.get("authors", id).await["name"], "Ada L.");
    let now = read::get(&admin.0, "authors", id, &View::default()).await.unwrap().tag();
    guarded(WriteVerb::Delete, json!({}), &format!("\"other\", W/{now}")).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn upserts_make_and_change() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let upsert = |body: Value| admin.send(admin.request(WriteVerb::Upsert, "authors", None, body));
    let id = "upsertedupserte";
    assert_eq!(upsert(json!({"id": id, "name": "One"})).await.unwrap().done.effect, write::Effect::Created);
    assert_eq!(upsert(json!({"id": id, "name": "Two"})).await.unwrap().done.effect, write::Effect::Updated);
    assert_eq!(admin.get("authors", id).await["name"], "Two");
    world.stop().await;
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_keeps_nothing() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let dry = |body: Value| {
        let request = admin.request(WriteVerb::Create, "authors", None, body);
        admin.send(WriteRequest { dry_run: true, ..request })
    };
    let answer = dry(json!({"name": "Ada"})).await.unwrap();
    assert_eq!(parsed(&answer.done.answer)["name"], "Ada");
    assert_eq!(answer.token, None);
    admin.create("authors", json!({"name": "Bob"})).await;
    assert_eq!(refused(dry(json!({"name": "Bob"})).await).len(), 1);
    assert_eq!(admin.column("authors", "name", &[]).await, ["Bob"]);
    world.stop().await;
}

#[tokio::test]
async fn a_repeated_request_happens_once() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let send = |body: &'static str, text: &'static str| {
        let request = admin.request(WriteVerb::Create, "posts", None, serde_json::from_str(body).unwrap());
        write::write(&admin.0, request, Some(key(text, &admin, body)))
    };
    let first = send(r#"{"title":"Once"}"#, "k1").await.unwrap();
    let again = send(r#"{"title":"Once"}"#, "k1").await.unwrap();
    assert_eq!(first.done.answer, again.done.answer);
    assert_eq!((first.replayed, again.replayed, again.token), (false, true, None));
    assert_eq!(code(send(r#"{"title":"Else"}"#, "k1").await), Code::IdempotencyMismatch);
    assert_eq!(code(send(r#"{"title":""}"#, "k2").await), Code::ValidationFailed);
    assert_eq!(code(send(r#"{"title":""}"#, "k2").await), Code::ValidationFailed, "a refusal leaves no receipt");
    world.clock.advance_ms(crate::kernel::limits::RECEIPT_AGE_MS + 1);
    assert!(!send(r#"{"title":"Once"}"#, "k1").await.unwrap().replayed, "receipts grow old");
    assert_eq!(admin.list("posts", &[]).await["totalItems"], 2);
    world.stop().await;
}
