//! New passwords that somebody would guess: refused wherever one is set, by name, and only there.

use crate::support::{Actor, Answer, TestServer};
use serde_json::json;

const USERS: &str = "/api/collections/users";

async fn register(actor: &Actor, email: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "password": password, "passwordConfirm": password });
    actor.post(&format!("{USERS}/records"), body).await
}

#[track_caller]
fn is_refused(answer: Answer) {
    let problem = answer.has_status(400).problem("validation_failed");
    assert_eq!(problem["data"]["password"]["code"], "validation_password_common", "{problem}");
    assert!(problem["data"]["password"]["message"].as_str().unwrap().contains("choose one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn common_passwords_are_refused_when_registering_changing_and_resetting() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let anyone = admin.clone().without_authorization();
    for password in ["password", "PASSWORD1", "12345678", "iloveyou", "qwertyuiop", "aaaaaaaaaa"] {
        is_refused(register(&anyone, "ada@example.com", password).await);
        is_refused(register(&admin, "ada@example.com", password).await);
    }
    let ada = server.user(&admin, "ada").await;
    let change = |password: &str| json!({ "oldPassword": crate::support::PASSWORD, "password": password, "passwordConfirm": password });
    let own = format!("{USERS}/records/{}", ada.id);
    is_refused(ada.actor.patch(&own, change("password1")).await);
    // It is refused before anything is hashed or guessed.
    let unproven = json!({ "oldPassword": "wrong horse", "password": "password1", "passwordConfirm": "password1" });
    let unproven = ada.actor.patch(&own, unproven).await.problem("validation_failed");
    assert!(unproven["data"]["oldPassword"].is_null(), "{unproven}");
    ada.actor.patch(&own, change("four blue lamps")).await.ok();
    // Superusers, who live in the control database.
    let root = json!({ "email": "root@example.com", "password": "superman", "passwordConfirm": "superman" });
    is_refused(server.node().post("/api/collections/_superusers/records", root).await);
    let batch = json!({ "requests": [{ "method": "POST", "url": "/api/collections/users/records", "body":
        { "email": "bob@example.com", "password": "password", "passwordConfirm": "password" } }] });
    anyone.post("/api/batch", batch).await.has_status(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_the_place_make_no_password() {
    let server = TestServer::start().await;
    let admin = server.tenant("zephyrine").await;
    let anyone = admin.clone().without_authorization();
    admin.patch("/api/settings", json!({ "meta": { "appName": "Quillfeather" } })).await.ok();
    for password in ["zephyrine", "Zephyrine1", "quillfeather", "xanthippe.k", "xanthippe.k@example.com"] {
        is_refused(register(&anyone, "xanthippe.k@example.com", password).await);
    }
    // Elsewhere they are no words of the place.
    let other = server.tenant("other").await.without_authorization();
    register(&other, "bob@example.com", "quillfeather").await.created();
    let made = register(&anyone, "xanthippe.k@example.com", "quill lamp zephyr").await.created();
    // The account's own address is one also when somebody else sets the password.
    let theirs = json!({ "password": "xanthippe.k", "passwordConfirm": "xanthippe.k" });
    is_refused(admin.patch(&format!("{USERS}/records/{}", made["id"].as_str().unwrap()), theirs).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_may_take_any_password() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let shown = admin.get(USERS).await.ok();
    assert_eq!(shown["passwordPolicy"], json!({ "refuseCommon": true }));
    let refused = admin.patch(USERS, json!({ "passwordPolicy": { "refuseCommon": "no" } })).await.has_status(400);
    assert!(refused.problem("schema_invalid")["errors"].to_string().contains("passwordPolicy.refuseCommon"));
    admin.patch(USERS, json!({ "passwordPolicy": { "refuseCommon": false } })).await.ok();
    let anyone = admin.without_authorization();
    register(&anyone, "ada@example.com", "password").await.created();
    register(&anyone, "bob@example.com", "short").await.problem("validation_failed");
}
