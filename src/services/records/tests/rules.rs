//! Rules: the outcome of each on every operation, what they read, field rules, explanations.

use super::*;
use crate::access::Action;
use crate::services::records::explain::{self, ExplainRequest};
use std::collections::BTreeMap;

fn guarded(rules: [Value; 5]) -> Vec<Value> {
    let [list, view, create, update, delete] = rules;
    vec![
        json!({"name": "users", "type": "auth", "fields": [{"name": "role", "type": "text"}],
            "listRule": "", "viewRule": "", "createRule": ""}),
        json!({"name": "notes", "type": "base", "fields": [
            {"name": "text", "type": "text"},
            {"name": "open", "type": "bool"},
            {"name": "owner", "type": "text"}],
            "listRule": list, "viewRule": view, "createRule": create, "updateRule": update, "deleteRule": delete}),
    ]
}

/// list, view, create, update, delete as codes; `None` is success.
async fn outcomes(caller: &Caller, id: &str) -> [Option<Code>; 5] {
    let failure = |result: Result<Value, RecordError>| result.err().map(|error| error.code());
    [
        failure(caller.try_list("notes", &[]).await),
        failure(caller.try_get("notes", id, &[]).await),
        failure(caller.try_create("notes", json!({"text": "new"})).await),
        failure(caller.try_update("notes", id, json!({"text": "changed"})).await),
        caller.delete("notes", id).await.err().map(|error| error.code()),
    ]
}

#[tokio::test]
async fn every_rule_has_its_outcome() {
    let locked = [Some(Code::SuperuserRequired); 5];
    let unmet = [
        None,
        Some(Code::RecordNotFound),
        Some(Code::CreateRefused),
        Some(Code::RecordNotFound),
        Some(Code::RecordNotFound),
    ];
    let cases = [
        (json!(null), locked, true),
        (json!("open = true"), unmet, true),
        (json!("@request.auth.id != ''"), unmet, true),
        (json!("1 = 2"), unmet, true),
        (json!(""), [None; 5], false),
        (json!("text != 'never'"), [None; 5], false),
    ];
    for (rule, expected, empty) in cases {
        let world = World::new(&guarded(std::array::from_fn(|_| rule.clone()))).await;
        let note = world.admin().create("notes", json!({"text": "old", "open": false})).await;
        let id = note["id"].as_str().unwrap();
        if expected[0].is_none() {
            let page = world.guest().list("notes", &[]).await;
            assert_eq!(page["totalItems"], i64::from(!empty), "{rule}: {page}");
        }
        assert_eq!(outcomes(&world.guest(), id).await, expected, "{rule}");
        assert_eq!(
            world.admin().list("notes", &[]).await["totalItems"],
            1,
            "{rule}: one created, one deleted, or none"
        );
        world.stop().await;
    }
}

#[tokio::test]
async fn rules_read_the_caller_and_the_body() {
    let owner = json!("owner = @request.auth.id");
    let create = json!("@request.auth.id != '' && owner = @request.auth.id && @request.body.open:isset = false");
    let update = json!("owner = @request.auth.id && @request.body.owner:isset = false");
    let world = World::new(&guarded([owner.clone(), owner.clone(), create, update, owner])).await;
    let password = json!({"email": "ada@x.test", "password": "12 blue horses", "passwordConfirm": "12 blue horses"});
    let ada = world.admin().create("users", password.clone()).await["id"].as_str().unwrap().to_owned();
    let mut other = password;
    other["email"] = json!("bob@x.test");
    let bob = world.admin().create("users", other).await["id"].as_str().unwrap().to_owned();
    let (ada_caller, bob_caller) = (world.user("users", &ada).await, world.user("users", &bob).await);
    let note = ada_caller.create("notes", json!({"text": "mine", "owner": ada})).await;
    let id = note["id"].as_str().unwrap();
    assert_eq!(code(ada_caller.try_create("notes", json!({"owner": bob})).await), Code::CreateRefused);
    assert_eq!(code(ada_caller.try_create("notes", json!({"owner": ada, "open": false})).await), Code::CreateRefused);
    assert_eq!(code(ada_caller.try_update("notes", id, json!({"owner": bob})).await), Code::RecordNotFound);
    ada_caller.update("notes", id, json!({"text": "changed"})).await;
    assert_eq!(outcomes(&bob_caller, id).await[3..], [Some(Code::RecordNotFound), Some(Code::RecordNotFound)]);
    assert_eq!(ada_caller.list("notes", &[]).await["totalItems"], 1);
    assert_eq!(bob_caller.list("notes", &[]).await["totalItems"], 0);
    assert_eq!(world.admin().list("notes", &[]).await["totalItems"], 1, "what was refused was rolled back");
    world.stop().await;
}

#[tokio::test]
async fn field_rules_guard_reading_and_writing() {
    let collections = [
        guarded(std::array::from_fn(|_| json!("")))[0].clone(),
        json!({"name": "notes", "type": "base", "fields": [
            {"name": "text", "type": "text"},
            {"name": "salary", "type": "number", "readRule": "owner = @request.auth.id", "writeRule": "@request.auth.role = 'boss'"},
            {"name": "owner", "type": "text"}],
            "listRule": "", "viewRule": "", "createRule": "", "updateRule": ""}),
    ];
    let world = World::new(&collections).await;
    let account = |email: &str, role: &str| json!({"email": email, "role": role, "password": "12 blue horses", "passwordConfirm": "12 blue horses"});
    let boss = world.admin().create("users", account("boss@x.test", "boss")).await["id"].as_str().unwrap().to_owned();
    let clerk = world.admin().create("users", account("c@x.test", "clerk")).await["id"].as_str().unwrap().to_owned();
    let (boss_caller, clerk_caller) = (world.user("users", &boss).await, world.user("users", &clerk).await);
    let note = boss_caller.create("notes", json!({"text": "n", "owner": clerk, "salary": 5})).await;
    assert_eq!(note.get("salary"), None, "the boss does not own it");
    let id = note["id"].as_str().unwrap();
    assert_eq!(clerk_caller.get("notes", id).await["salary"], 5);
    assert_eq!(clerk_caller.list("notes", &[]).await["items"][0]["salary"], 5);
    assert_eq!(world.guest().list("notes", &[]).await["items"][0].get("salary"), None);
    let refusal = refused(clerk_caller.try_update("notes", id, json!({"salary": 9})).await);
    assert_eq!(refusal, [("salary".to_owned(), "validation_not_allowed".to_owned())]);
    clerk_caller.update("notes", id, json!({"text": "fine"})).await;
    world.stop().await;
}

#[tokio::test]
async fn superusers_learn_why() {
    let owner = json!("owner = @request.auth.id && open = true");
    let world = World::new(&guarded(std::array::from_fn(|_| owner.clone()))).await;
    let admin = world.admin();
    let body = json!({"email": "ada@x.test", "password": "12 blue horses", "passwordConfirm": "12 blue horses"});
    let ada = admin.create("users", body).await["id"].as_str().unwrap().to_owned();
    let note = admin.create("notes", json!({"text": "n", "owner": ada, "open": false})).await;
    let question = ExplainRequest {
        collection: "notes".into(),
        record: note["id"].as_str().map(str::to_owned),
        action: Action::Update,
        field: None,
        caller: Some(("users".into(), ada.clone())),
        query: BTreeMap::new(),
        headers: BTreeMap::new(),
        body: Map::new(),
    };
    let why = parsed(&explain::explain_access(&admin.0, question.clone()).await.unwrap());
    assert_eq!(why["allowed"], false);
    let seen: Vec<_> = why["comparisons"].as_array().unwrap().iter().map(|seen| seen["outcome"].clone()).collect();
    assert_eq!(seen, [json!(true), json!(false)], "{why}");
    assert_eq!(why["comparisons"][0]["right"], ada.as_str());
    admin.update("notes", note["id"].as_str().unwrap(), json!({"open": true})).await;
    let why = parsed(&explain::explain_access(&admin.0, question.clone()).await.unwrap());
    assert_eq!(why["allowed"], true);
    assert_eq!(code(explain::explain_access(&world.guest().0, question).await), Code::SuperuserRequired);
    world.stop().await;
}

#[tokio::test]
async fn a_creation_that_names_a_record_which_is_there_looks_at_it_once() {
    let rule = json!("@collection.notes.text ?= 'nowhere'");
    let world = World::new(&guarded(std::array::from_fn(|_| rule.clone()))).await;
    let admin = world.admin();
    let note = admin.create("notes", json!({"text": "old"})).await;
    let body = json!({"id": note["id"], "text": "new"});
    let question = ExplainRequest {
        collection: "notes".into(),
        record: None,
        action: Action::Create,
        field: None,
        caller: None,
        query: BTreeMap::new(),
        headers: BTreeMap::new(),
        body: object(body),
    };
    let why = parsed(&explain::explain_access(&admin.0, question).await.unwrap());
    let seen: Vec<_> = why["comparisons"].as_array().unwrap().iter().map(|seen| seen["left"].clone()).collect();
    assert_eq!(seen, [json!("new")], "{why}");
    world.stop().await;
}

/// A field that the server completes (here the id and the code) differs from what was sent, and was taken for changed.
#[tokio::test]
async fn nothing_of_a_new_record_has_changed() {
    let rule = "@request.body.code:changed = false && @request.body.role:changed = false";
    let notes = json!({"name": "notes", "type": "base", "createRule": rule, "updateRule": rule, "viewRule": "", "fields": [
        {"name": "code", "type": "text", "autogeneratePattern": "[a-z]{8}"},
        {"name": "role", "type": "text", "writeRule": "@request.body.role:changed = false"},
        {"name": "data", "type": "json", "writeRule": "@request.body.data:changed = false"}]});
    let world = World::new(&[notes]).await;
    let guest = world.guest();
    let note = guest.create("notes", json!({"id": "", "code": "", "role": "owner", "data": "text"})).await;
    let id = note["id"].as_str().unwrap();
    assert_eq!(note["code"].as_str().unwrap().len(), 8);
    let same = json!({"code": note["code"], "role": "owner", "data": "text"});
    guest.update("notes", id, same).await;
    assert_eq!(code(guest.try_update("notes", id, json!({"code": ""})).await), Code::RecordNotFound);
    assert_eq!(code(guest.try_update("notes", id, json!({"data": "other"})).await), Code::ValidationFailed);
    world.stop().await;
}
