//! Registering where nobody is to learn who has an account: everything that could tell, side by side for an address that
//! is taken and one that is free.

use crate::support::{Actor, Answer, PASSWORD, TestServer, link, mails, pause};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tenantry::kernel::clock::{ManualClock, SystemClock};

const USERS: &str = "/api/collections/users";
const RECORDS: &str = "/api/collections/users/records";
const TAKEN: &str = "ada@example.com";
const FREE: &str = "eve@example.com";

fn account(email: &str) -> Value {
    json!({ "email": email, "password": PASSWORD, "passwordConfirm": PASSWORD })
}

/// A tenant whose users register quietly, and the account of [`TAKEN`], made by an administrator; who then answers for it.
async fn start(toml: &str) -> (TestServer, Actor, Actor) {
    let server = TestServer::start_with(toml, Arc::new(SystemClock)).await;
    let admin = server.tenant("acme").await;
    admin.patch(USERS, json!({ "quietRegistration": { "enabled": true } })).await.ok();
    let ada = server.user(&admin, "ada").await.actor;
    (server, admin, ada)
}

/// What of an answer may not differ: status, headers but those of the moment, body.
fn shape(answer: Answer) -> (u16, BTreeMap<String, String>, String) {
    let of_the_moment = ["date", "x-request-id", "ratelimit", "content-length"];
    let mut body = answer.json();
    if let Some(body) = body.as_object_mut() {
        body.remove("requestId");
    }
    let headers = answer.headers.iter().filter(|(name, _)| !of_the_moment.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    (answer.status.as_u16(), headers.collect(), body.to_string())
}

fn token_of(link: &str) -> &str {
    link.rsplit('/').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_and_a_free_address_are_answered_alike_and_only_the_mails_differ() {
    let (server, admin, _) = start("").await;
    let guest = admin.clone().without_authorization();
    let taken = guest.post(RECORDS, account(TAKEN)).await.has_status(202);
    let free = guest.post(RECORDS, account(FREE)).await.has_status(202);
    assert!(!String::from_utf8_lossy(&taken.body).contains("ada"), "nothing of what was sent comes back");
    assert_eq!(shape(taken), shape(free));
    assert_eq!(admin.get(RECORDS).await.ok()["totalItems"], 1, "nothing is made yet");

    // Neither can be entered with what was just sent, and neither is told apart by trying.
    let login = async |email: &str| {
        let body = json!({ "identity": email, "password": PASSWORD });
        guest.post(&format!("{USERS}/auth-with-password"), body).await
    };
    let changed = json!({ "identity": TAKEN, "password": "another password" });
    let taken = guest.post(&format!("{USERS}/auth-with-password"), changed).await.has_status(400);
    assert_eq!(shape(taken), shape(login(FREE).await.has_status(400)));

    // Who has the address is told.
    let completes = link(&server, FREE, "confirm-verification").await;
    let resets = link(&server, TAKEN, "confirm-password-reset").await;
    let told = mails(&server, TAKEN);
    assert!(told.iter().all(|mail| mail.contains("has an account already") && !mail.contains("confirm-verification")));
    assert_eq!((told.len(), mails(&server, FREE).len()), (1, 1));
    let confirm = |token: &str| {
        let body = json!({ "token": token, "password": PASSWORD });
        let guest = guest.clone();
        async move { guest.post(&format!("{USERS}/confirm-verification"), body).await }
    };
    confirm(token_of(&resets)).await.problem("validation_failed");
    let mut forged = token_of(&completes).to_owned();
    forged.truncate(forged.len() - 4);
    confirm(&format!("{forged}AAAA")).await.problem("validation_failed");
    server.tenant("other").await;
    let elsewhere = json!({ "token": token_of(&completes), "password": PASSWORD });
    let other = guest.clone().at("other");
    other.post(&format!("{USERS}/confirm-verification"), elsewhere).await.problem("validation_failed");
    confirm(token_of(&completes)).await.gone();
    confirm(token_of(&completes)).await.problem("validation_failed");
    let grant = login(FREE).await.ok();
    assert_eq!(grant["record"]["verified"], true);
    assert_eq!(
        shape(guest.post(RECORDS, account(FREE)).await),
        shape(guest.post(RECORDS, account("new@example.com")).await)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_side_door_tells_whether_an_address_is_taken() {
    let (server, admin, ada) = start("[limits]\nmails_asked_max = 1000\nmails_asked_per_ip_max = 1000").await;
    let guest = admin.clone().without_authorization();
    let notes =
        json!({ "name": "notes", "type": "base", "createRule": "", "fields": [{ "name": "text", "type": "text" }] });
    admin.post("/api/collections", notes).await.created();
    // Numbers of transactions, which whoever writes sees, and what the cache says to somebody who lists.
    let number = || async {
        let noted = guest.post("/api/collections/notes/records", json!({ "text": "x" })).await.has_status(200);
        noted.header("tenantry-token").unwrap().rsplit('.').next().unwrap().parse::<i64>().unwrap()
    };
    let seen = || async {
        let listed = ada.get(&format!("{RECORDS}?sort=-created")).await.has_status(200);
        (listed.header("x-cache").map(str::to_owned), listed.header("etag").map(str::to_owned))
    };
    // The login of before is in the trail now, so it is no transaction of later.
    admin.get("/api/audit?kind=auth").await.ok();
    let mut told = Vec::new();
    for email in [TAKEN, FREE] {
        seen().await;
        let (warm, before) = (seen().await, number().await);
        guest.post(RECORDS, account(email)).await.has_status(202);
        told.push((number().await - before, seen().await == warm));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], (2, true), "a registration and a note are two; the users have not changed");

    // Values that must be unique, ids, batches, upserts, dry runs, conditions, keys.
    let users = admin.get(USERS).await.ok();
    let (mut fields, mut indexes) = (users["fields"].clone(), users["indexes"].clone());
    fields.as_array_mut().unwrap().push(json!({ "name": "nick", "type": "text" }));
    indexes.as_array_mut().unwrap().push(json!("CREATE UNIQUE INDEX idx_nick ON users (nick) WHERE nick != ''"));
    admin.patch(USERS, json!({ "fields": fields, "indexes": indexes })).await.ok();
    let with = |email: &str, more: Value| {
        let mut body = account(email);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for more in [
        json!({ "nick": "one" }),
        json!({ "id": "abcdefghijklmno" }),
        json!({ "verified": true }),
        json!({ "nick": 7 }),
    ] {
        let taken = shape(guest.post(RECORDS, with(TAKEN, more.clone())).await);
        let free = shape(guest.post(RECORDS, with("one@example.com", more.clone())).await);
        assert_eq!(taken, free, "{more}");
        let again = shape(guest.post(RECORDS, with("two@example.com", more.clone())).await);
        assert_eq!(taken, again, "{more}: whatever the first left behind");
    }
    let (bob, cy) = ("bob@example.com", "cy@example.com");
    let batch = |email: &str, transactional: bool| {
        let request = json!({ "method": "POST", "url": RECORDS, "body": account(email) });
        guest.post("/api/batch", json!({ "requests": [request], "transactional": transactional }))
    };
    for transactional in [true, false] {
        let taken = shape(batch(TAKEN, transactional).await);
        assert!(taken.2.contains("validation_registration_alone"), "{}", taken.2);
        let strip = |shape: (u16, BTreeMap<String, String>, String)| {
            (shape.0, shape.2.split("\"requestId\"").map(str::to_owned).next())
        };
        assert_eq!(strip(taken), strip(shape(batch(bob, transactional).await)));
    }
    let upsert = |email: &str| {
        let request =
            json!({ "method": "PUT", "url": RECORDS, "body": with(email, json!({ "id": "abcdefghijklmno" })) });
        guest.post("/api/batch", json!({ "requests": [request] }))
    };
    assert_eq!(shape(upsert(TAKEN).await), shape(upsert(bob).await));
    for query in ["?dryRun=1", "?expand=x&fields=id,email", "?fields="] {
        let ask = async |email: &str| guest.post(&format!("{RECORDS}{query}"), account(email)).await;
        let taken = shape(ask(TAKEN).await);
        assert!(query != "?dryRun=1" || taken.0 == 202);
        assert_eq!(taken, shape(ask(cy).await), "{query}");
    }
    let conditional = guest.clone().with_header("if-match", "\"x\"");
    let ask = |email: &str| conditional.post(RECORDS, account(email));
    assert_eq!(shape(ask(TAKEN).await), shape(ask(cy).await));
    for (key, email) in [("key-one", "ada@example.com"), ("key-two", "dora@example.com")] {
        let keyed = guest.clone().with_header("idempotency-key", key);
        let first = keyed.post(RECORDS, account(email)).await.has_status(202);
        let again = keyed.post(RECORDS, account(email)).await.has_status(202);
        assert_eq!(again.body, first.body, "{email}");
        keyed.post(RECORDS, account("other@example.com")).await.problem("idempotency_mismatch");
    }
    guest.post(&format!("{RECORDS}?dryRun=1"), account("dry@example.com")).await.has_status(202);
    guest.post(RECORDS, account("last@example.com")).await.has_status(202);
    link(&server, "last@example.com", "confirm-verification").await;
    assert!(mails(&server, "dry@example.com").is_empty(), "a dry run mails nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_on_and_on_is_limited_alike_for_taken_and_free_addresses() {
    let (_server, admin, _) = start("").await;
    let guest = admin.clone().without_authorization();
    let mut shapes = Vec::new();
    for email in [TAKEN, FREE] {
        let mut statuses = Vec::new();
        for _ in 0..7 {
            statuses.push(guest.post(RECORDS, account(email)).await.status.as_u16());
        }
        shapes.push(statuses);
    }
    assert_eq!(shapes[0], shapes[1]);
    assert_eq!(shapes[0], [202, 202, 202, 202, 202, 429, 429]);
}

/// How many registrations wait.
async fn waiting(admin: &Actor) -> Value {
    admin.get("/api/collections/_registrations/records").await.ok()["totalItems"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_want_of_mails_is_not_kept() {
    let (server, admin, ada) = start("[limits]\nmails_asked_max = 2").await;
    // Somebody is logged in who might manage accounts, and does not.
    admin.patch(USERS, json!({ "manageRule": "@request.auth.email = 'other@example.com'" })).await.ok();
    let mut statuses = Vec::new();
    for key in ["one", "two", "three", "three"] {
        let keyed = ada.clone().with_header("idempotency-key", key);
        statuses.push(keyed.post(RECORDS, account(FREE)).await.status.as_u16());
    }
    assert_eq!(statuses, [202, 202, 429, 429]);
    assert_eq!(waiting(&admin).await, 2);
    // What is refused costs nothing, so both mails may still be on their way.
    tokens(&server, FREE, 2).await;
    let refused = ada.post(RECORDS, account(FREE)).await.has_status(429);
    assert!(refused.header("retry-after").is_some());
    // Spaces make no other address of it.
    ada.post(RECORDS, account(&format!(" {FREE} "))).await.has_status(429);
    assert_eq!(mails(&server, FREE).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_mails_that_are_asked_for_count() {
    let (server, admin, _) = start("[limits]\nmails_asked_max = 2").await;
    let guest = admin.clone().without_authorization();
    for _ in 0..3 {
        let weak = json!({ "email": FREE, "password": "short", "passwordConfirm": "short" });
        guest.post(RECORDS, weak).await.problem("validation_failed");
        guest.post(&format!("{RECORDS}?dryRun=1"), account(FREE)).await.has_status(202);
    }
    let keyed = guest.clone().with_header("idempotency-key", "one");
    let first = keyed.post(RECORDS, account(FREE)).await.has_status(202);
    assert!(first.header("idempotent-replayed").is_none());
    for _ in 0..3 {
        let again = keyed.post(RECORDS, account(FREE)).await.has_status(202);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(again.body, first.body);
    }
    guest.post(RECORDS, account(FREE)).await.has_status(202);
    guest.post(RECORDS, account(FREE)).await.has_status(429);
    assert_eq!(waiting(&admin).await, 2);
    // What is refused costs nothing, so both mails may still be on their way.
    tokens(&server, FREE, 2).await;
    assert_eq!(mails(&server, FREE).len(), 2);
}

/// The tokens of the `count` mails to `email` that complete a registration, once they are there.
async fn tokens(server: &TestServer, email: &str, count: usize) -> Vec<String> {
    for _ in 0..1_200 {
        let mails = mails(server, email);
        let link = |mail: &String| {
            let mut links = mail.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
            links.find(|link| link.contains("confirm-verification/")).map(|link| token_of(link).to_owned())
        };
        let found: Vec<String> = mails.iter().filter_map(link).collect();
        if found.len() == count {
            return found;
        }
        pause(Duration::from_millis(25)).await;
    }
    panic!("fewer than {count} mails to {email}");
}

/// A stranger registers with somebody's address before its owner does. The owner may follow the wrong link.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_makes_the_account_of_whoever_knows_its_password_alone() {
    let (server, admin, _) = start("").await;
    let guest = admin.clone().without_authorization();
    let with = |password: &str| json!({ "email": FREE, "password": password, "passwordConfirm": password });
    for password in ["of the stranger 7", "of the owner 7"] {
        guest.post(RECORDS, with(password)).await.has_status(202);
    }
    let tokens = tokens(&server, FREE, 2).await;
    assert!(mails(&server, FREE).iter().all(|mail| mail.contains("only if that was you, just now")));
    let confirm = async |token: &str, password: &str| {
        let body = json!({ "token": token, "password": password });
        guest.post(&format!("{USERS}/confirm-verification"), body).await
    };
    // One of the two is the stranger's: with the owner's password it makes nothing.
    let mut made = 0;
    for token in &tokens {
        let none = guest.post(&format!("{USERS}/confirm-verification"), json!({ "token": token })).await;
        if made == 0 {
            let told = none.problem("validation_failed").to_string();
            assert!(told.contains("validation_invalid_password"), "{told}");
        }
        let answer = confirm(token, "of the owner 7").await;
        match answer.status.as_u16() {
            204 => made += 1,
            _ => _ = answer.problem("validation_failed"),
        }
    }
    assert_eq!((made, waiting(&admin).await), (1, json!(0)), "and nothing else waits any more");
    for token in &tokens {
        let told = confirm(token, "of the stranger 7").await.problem("validation_failed").to_string();
        assert!(!told.contains("validation_invalid_password"), "both links are over: {told}");
    }
    let login = json!({ "identity": FREE, "password": "of the owner 7" });
    guest.post(&format!("{USERS}/auth-with-password"), login).await.ok();
}

/// Fields may ask for more by the time the link comes back.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_is_checked_against_the_fields_as_they_are_now() {
    let (server, admin, _) = start("").await;
    let guest = admin.clone().without_authorization();
    guest.post(RECORDS, account(FREE)).await.has_status(202);
    let token = tokens(&server, FREE, 1).await.remove(0);
    let mut fields = admin.get(USERS).await.ok()["fields"].clone();
    fields.as_array_mut().unwrap().push(json!({ "name": "nick", "type": "text", "required": true }));
    admin.patch(USERS, json!({ "fields": fields })).await.ok();
    let body = json!({ "token": token, "password": PASSWORD });
    let told = guest.post(&format!("{USERS}/confirm-verification"), body).await.problem("validation_failed");
    assert!(told.to_string().contains("nick"), "{told}");
    assert_eq!(waiting(&admin).await, 1, "it still waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_waits_as_long_as_its_link_holds() {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let server = TestServer::start_with("", clock.clone()).await;
    let admin = server.tenant("acme").await;
    admin.patch(USERS, json!({ "quietRegistration": { "enabled": true } })).await.ok();
    let guest = admin.clone().without_authorization();
    for (email, after_ms, status) in [("in@example.com", 259_190_000, 204), ("out@example.com", 259_201_000, 400)] {
        guest.post(RECORDS, account(email)).await.has_status(202);
        let token = tokens(&server, email, 1).await.remove(0);
        clock.advance_ms(after_ms);
        let body = json!({ "token": token, "password": PASSWORD });
        guest.post(&format!("{USERS}/confirm-verification"), body).await.has_status(status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_over_with_the_address_and_with_its_twin() {
    let (server, admin, _) = start("").await;
    let guest = admin.clone().without_authorization();
    let confirm = async |token: &str| {
        let body = json!({ "token": token, "password": PASSWORD });
        guest.post(&format!("{USERS}/confirm-verification"), body).await
    };
    // The address was taken meanwhile.
    guest.post(RECORDS, account(FREE)).await.has_status(202);
    let token = tokens(&server, FREE, 1).await.remove(0);
    admin.post(RECORDS, account(FREE)).await.created();
    let told = confirm(&token).await.problem("validation_failed");
    assert!(told.to_string().contains("validation_not_unique"), "{told}");
    // Two presses at once.
    guest.post(RECORDS, account("two@example.com")).await.has_status(202);
    let token = tokens(&server, "two@example.com", 1).await.remove(0);
    let (one, two) = tokio::join!(confirm(&token), confirm(&token));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 400]);
    // A copy has none of those that wait.
    guest.post(RECORDS, account("three@example.com")).await.has_status(202);
    let copy = json!({ "slug": "copy", "name": "Copy" });
    server.node().post("/api/tenants/acme/clone", copy).await.created();
    assert_ne!(waiting(&admin).await, 0);
    assert_eq!(waiting(&server.node().at("copy")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_manages_accounts_is_answered_with_the_record() {
    let (_server, admin, ada) = start("").await;
    admin.patch(USERS, json!({ "manageRule": "@request.auth.email = 'ada@example.com'" })).await.ok();
    ada.post(RECORDS, account("made@example.com")).await.created();
    ada.post(RECORDS, account("made@example.com")).await.problem("validation_failed");
    let taken = admin.post(RECORDS, account(TAKEN)).await.problem("validation_failed");
    assert!(taken.to_string().contains("validation_not_unique"), "{taken}");
    // Switched off, everybody learns it, as in PocketBase.
    admin.patch(USERS, json!({ "quietRegistration": { "enabled": false } })).await.ok();
    let guest = admin.clone().without_authorization();
    let taken = guest.post(RECORDS, account(TAKEN)).await.problem("validation_failed");
    assert!(taken.to_string().contains("validation_not_unique"), "{taken}");
    guest.post(RECORDS, account(FREE)).await.created();
}

#[tokio::test(flavor = "multi_thread")]
async fn blueprints_where_strangers_register_tell_nobody_who_has_an_account() {
    let server = TestServer::start().await;
    for blueprint in ["tournament", "cms", "courses", "business"] {
        let body = json!({ "slug": format!("of-{blueprint}"), "name": blueprint, "blueprint": blueprint });
        server.node().post("/api/tenants", body).await.created();
        let admin = server.node().at(&format!("of-{blueprint}"));
        server.user(&admin, "ada").await;
        let guest = admin.without_authorization();
        let taken = guest.post(RECORDS, account(TAKEN)).await.has_status(202);
        assert_eq!(shape(taken), shape(guest.post(RECORDS, account(FREE)).await), "{blueprint}");
        let file = reqwest::multipart::Part::bytes(vec![0x89, b'P', b'N', b'G']).file_name("a.png");
        let form = reqwest::multipart::Form::new().text("email", FREE).text("password", PASSWORD);
        let form = form.text("passwordConfirm", PASSWORD).part("avatar", file);
        let refused = Answer::of(guest.request(Method::POST, RECORDS).multipart(form)).await;
        refused.problem("validation_failed");
    }
}
