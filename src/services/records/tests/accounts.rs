//! Accounts: passwords, e-mail, `verified`, token keys.

use super::*;
use crate::services::records::account::Prepared;
use crate::services::records::preparing;

fn users(manage: Value) -> Vec<Value> {
    vec![
        json!({"name": "users", "type": "auth", "fields": [{"name": "name", "type": "text"}, {"name": "boss", "type": "bool"}],
        "listRule": "", "viewRule": "", "createRule": "", "updateRule": "id = @request.auth.id || @request.auth.boss = true",
        "manageRule": manage}),
    ]
}

fn account(email: &str) -> Value {
    json!({"email": email, "password": "12 blue horses", "passwordConfirm": "12 blue horses"})
}

async fn stored(world: &World, id: &str, field: &str) -> String {
    let (id, field) = (id.to_owned(), field.to_owned());
    let found = world.db.read(move |reader| {
        let collection = reader.schema().find("users").unwrap().clone();
        let number = collection.find_field(&field).unwrap().number;
        let record = reader.find_record(&collection, &id)?.unwrap();
        Ok::<_, RecordError>(record.get(number).unwrap().as_text().unwrap_or_default().to_owned())
    });
    found.await.unwrap()
}

#[tokio::test]
async fn passwords_are_hashed_confirmed_and_never_shown() {
    let world = World::new(&users(json!(null))).await;
    let guest = world.guest();
    let made = guest.create("users", account("ada@x.test")).await;
    let id = made["id"].as_str().unwrap();
    for secret in ["password", "tokenKey", "passwordConfirm"] {
        assert_eq!(made.get(secret), None, "{secret}");
        assert_eq!(world.admin().get("users", id).await.get(secret), None, "{secret}");
    }
    assert!(stored(&world, id, "password").await.starts_with("$argon2id$"));
    assert!(stored(&world, id, "tokenKey").await.len() >= 30);
    let one = |field: &str, code: &str| vec![(field.to_owned(), code.to_owned())];
    let mut unconfirmed = account("b@x.test");
    unconfirmed["passwordConfirm"] = json!("87 green lamps");
    assert_eq!(
        refused(guest.try_create("users", unconfirmed).await),
        one("passwordConfirm", "validation_values_mismatch")
    );
    assert_eq!(refused(guest.try_create("users", json!({"email": "c@x.test"})).await)[0].0, "password");
    let mut short = account("d@x.test");
    short["password"] = json!("1");
    short["passwordConfirm"] = json!("1");
    assert_eq!(refused(guest.try_create("users", short).await)[0].0, "password");
    assert_eq!(refused(guest.try_create("users", account("ada@x.test")).await), one("email", "validation_not_unique"));
    let mut verified = account("e@x.test");
    verified["verified"] = json!(true);
    assert_eq!(refused(guest.try_create("users", verified).await)[0].0, "verified");
    assert_eq!(world.admin().list("users", &[]).await["totalItems"], 1);
    world.stop().await;
}

#[tokio::test]
async fn the_email_shows_to_its_owner_managers_and_superusers() {
    let world = World::new(&users(json!("@request.auth.boss = true"))).await;
    let admin = world.admin();
    let ada = admin.create("users", account("ada@x.test")).await["id"].as_str().unwrap().to_owned();
    let mut boss = account("boss@x.test");
    boss["boss"] = json!(true);
    let boss = admin.create("users", boss).await["id"].as_str().unwrap().to_owned();
    let mut public = account("pub@x.test");
    public["emailVisibility"] = json!(true);
    admin.create("users", public).await;
    let emails = async |caller: Caller| caller.column("users", "email", &[("sort", "@rowid")]).await;
    let hidden = "null".to_owned();
    assert_eq!(emails(world.guest()).await, [hidden.clone(), hidden.clone(), "pub@x.test".into()]);
    assert_eq!(emails(world.user("users", &ada).await).await, ["ada@x.test".into(), hidden, "pub@x.test".to_owned()]);
    assert_eq!(emails(world.user("users", &boss).await).await, ["ada@x.test", "boss@x.test", "pub@x.test"]);
    assert_eq!(emails(admin).await, ["ada@x.test", "boss@x.test", "pub@x.test"]);
    assert_eq!(
        world.guest().list("users", &[("filter", "email = 'ada@x.test'")]).await["totalItems"],
        0,
        "nor by asking"
    );
    world.stop().await;
}

#[tokio::test]
async fn changing_a_password_needs_the_old_one_and_ends_tokens() {
    let world = World::new(&users(json!("@request.auth.boss = true"))).await;
    let admin = world.admin();
    let ada = admin.create("users", account("ada@x.test")).await["id"].as_str().unwrap().to_owned();
    let caller = world.user("users", &ada).await;
    let (hash, token_key) = (stored(&world, &ada, "password").await, stored(&world, &ada, "tokenKey").await);
    let change = |old: Option<&str>| {
        let mut body = json!({"password": "new-password", "passwordConfirm": "new-password"});
        if let Some(old) = old {
            body["oldPassword"] = json!(old);
        }
        body
    };
    for old in [None, Some("wrong")] {
        let refusal = refused(caller.try_update("users", &ada, change(old)).await);
        assert_eq!(refusal, [("oldPassword".to_owned(), "validation_invalid_old_password".to_owned())]);
    }
    caller.update("users", &ada, json!({"name": "Ada"})).await;
    assert_eq!(stored(&world, &ada, "tokenKey").await, token_key, "other changes keep tokens");
    caller.update("users", &ada, change(Some("12 blue horses"))).await;
    assert_ne!(stored(&world, &ada, "password").await, hash);
    assert_ne!(stored(&world, &ada, "tokenKey").await, token_key);
    let token_key = stored(&world, &ada, "tokenKey").await;
    for body in [json!({"email": "new@x.test"}), json!({"verified": true})] {
        assert_eq!(refused(caller.try_update("users", &ada, body).await).len(), 1);
    }
    caller.update("users", &ada, json!({"email": "ada@x.test", "verified": false})).await;
    let mut boss = account("boss@x.test");
    boss["boss"] = json!(true);
    let boss = admin.create("users", boss).await["id"].as_str().unwrap().to_owned();
    let boss = world.user("users", &boss).await;
    boss.update("users", &ada, change(None)).await;
    boss.update("users", &ada, json!({"email": "new@x.test", "verified": true})).await;
    assert_ne!(stored(&world, &ada, "tokenKey").await, token_key);
    assert_eq!(admin.get("users", &ada).await["verified"], true);
    world.stop().await;
}

/// A rule that changed between the early look and the transaction made the password look as if it had not been text.
#[tokio::test]
async fn a_write_that_is_let_through_after_all_is_prepared_then() {
    let world = World::new(&users(json!(null))).await;
    let guest = world.guest();
    let create = guest.request(WriteVerb::Create, "users", None, account("ada@x.test"));
    let made = write::run_prepared(&guest.0, create, Prepared::left_out(), None).await.unwrap();
    let id = parsed(&made.done.answer)["id"].as_str().unwrap().to_owned();
    let before = stored(&world, &id, "password").await;
    assert!(before.starts_with("$argon2id$"));
    let change = json!({"password": "87 green lamps", "passwordConfirm": "87 green lamps"});
    let update = world.admin().request(WriteVerb::Update, "users", Some(&id), change);
    write::run_prepared(&world.admin().0, update, Prepared::left_out(), None).await.unwrap();
    assert_ne!(stored(&world, &id, "password").await, before);
    world.stop().await;
}

#[tokio::test]
async fn an_upsert_costs_a_hash_only_where_one_of_its_rules_lets_it_through() {
    let mut collections = users(json!(null));
    collections[0]["createRule"] = json!("@request.body.name = 'invited' && @request.method = 'POST'");
    collections[0]["updateRule"] = json!("id = @request.auth.id && @request.method = 'PATCH'");
    let world = World::new(&collections).await;
    let ada = world.admin().create("users", account("ada@x.test")).await["id"].as_str().unwrap().to_owned();
    let (guest, herself) = (world.guest(), world.user("users", &ada).await);
    let left_out = async |caller: &Caller, id: &str, name: &str| {
        let mut body = account("ada@x.test");
        body["id"] = json!(id);
        body["name"] = json!(name);
        let request = caller.request(WriteVerb::Upsert, "users", None, body);
        preparing::prepare_alone(&caller.0, &request).await.unwrap().is_left_out()
    };
    assert!(left_out(&guest, &ada, "x").await, "not hers to change, and not to be made");
    assert!(left_out(&herself, "nobodynobody123", "x").await, "not there, and not to be made");
    assert!(!left_out(&herself, &ada, "x").await);
    assert!(!left_out(&guest, "nobodynobody123", "invited").await);
    world.stop().await;
}

/// What an item may do can follow from what one before it did; it is prepared then.
#[tokio::test]
async fn a_password_that_an_earlier_item_allows_is_set() {
    let mut collections = users(json!(null));
    collections[0]["updateRule"] =
        json!("id = @request.auth.id && (@request.body.password:isset = false || name = 'open')");
    let world = World::new(&collections).await;
    let ada = world.admin().create("users", account("ada@x.test")).await["id"].as_str().unwrap().to_owned();
    let herself = world.user("users", &ada).await;
    let url = format!("/api/collections/users/records/{ada}");
    let old = account("ada@x.test")["password"].clone();
    let change = json!({"oldPassword": old, "password": "13 green cows", "passwordConfirm": "13 green cows"});
    let change = json!({"method": "PATCH", "url": url, "body": change});
    let alone = herself.batch(json!({"requests": [change]}), BatchOptions::default()).await;
    assert_eq!(code(alone), Code::BatchFailed);
    let before = stored(&world, &ada, "password").await;
    let open = json!({"method": "PATCH", "url": url, "body": {"name": "open"}});
    let done = herself.batch(json!({"requests": [open, change]}), BatchOptions::default()).await.unwrap();
    assert_eq!(done.items.len(), 2);
    assert_ne!(stored(&world, &ada, "password").await, before);
    world.stop().await;
}
