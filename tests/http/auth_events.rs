//! Logins and what is done to whose access, in the audit trail.

use crate::support::{Actor, PASSWORD, TestServer};
use serde_json::{Value, json};

const LOGIN: &str = "/api/collections/users/auth-with-password";

fn login(identity: &str, password: &str) -> Value {
    json!({ "identity": identity, "password": password })
}

/// The entries about access: who, and what is said.
async fn events(admin: &Actor) -> Vec<(Value, Value)> {
    let page = admin.get("/api/audit?kind=auth&limit=1000").await.ok();
    let items = page["items"].as_array().unwrap().clone();
    let said = |entry: &Value| {
        let made = entry["ops"].as_array().unwrap().iter().filter(|op| op["op"] == "create");
        made.map(|op| (entry["actor"].clone(), op["record"].clone())).collect::<Vec<_>>()
    };
    items.iter().flat_map(said).collect()
}

/// How often it happened, by the rows themselves.
async fn count(admin: &Actor, filter: &str) -> (u64, f64) {
    admin.get("/api/audit?kind=auth&limit=1").await.ok();
    let filter = filter.replace(' ', "%20").replace('\'', "%27").replace('&', "%26");
    let rows = admin.get(&format!("/api/collections/_authEvents/records?perPage=500&filter={filter}")).await.ok();
    let sum = rows["items"].as_array().unwrap().iter().map(|row| row["count"].as_f64().unwrap()).sum();
    (rows["totalItems"].as_u64().unwrap(), sum)
}

/// A login by a long token left no trace, a failed one only a line of the process.
#[tokio::test(flavor = "multi_thread")]
async fn who_came_in_and_who_tried_to_is_in_the_trail() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let user = server.user(&admin, "ada").await;
    let guest = user.actor.clone().without_authorization();
    guest.post(&format!("{LOGIN}?session=1"), login("ada@example.com", PASSWORD)).await.ok();
    guest.post(LOGIN, login("ada@example.com", "wrong horse")).await.problem("credentials_invalid");
    guest.post(LOGIN, login("my-own-password-by-mistake", "x")).await.problem("credentials_invalid");
    user.actor.post("/api/collections/users/auth-logout", json!({})).await.gone();
    admin.post(&format!("/api/collections/users/records/{}/suspend", user.id), json!({})).await.ok();
    guest.post(LOGIN, login("ada@example.com", PASSWORD)).await.problem("account_suspended");

    let found = events(&admin).await;
    let account = json!(format!("record:users/{}", user.id));
    let all: Vec<_> = found
        .iter()
        .map(|(actor, said)| (actor.clone(), ["event", "method", "outcome"].map(|name| said[name].as_str().unwrap())))
        .collect();
    for wanted in [
        (account.clone(), ["login", "password", "ok"]),
        (json!("anonymous"), ["login", "password", "failed"]),
        (account.clone(), ["logout", "", "ok"]),
        (account.clone(), ["login", "password", "refused"]),
        (json!("superuser:node"), ["suspend", "", "ok"]),
    ] {
        assert!(all.contains(&wanted), "{wanted:?} in {all:?}");
    }
    let failed: Vec<_> = found.iter().filter(|(_, said)| said["outcome"] == "failed").map(|(_, said)| said).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().any(|said| said["account"] == json!(user.id)), "{failed:?}");
    assert!(failed.iter().any(|said| said["identity"].as_str().is_some_and(|digest| digest.len() == 16)));
    assert!(failed.iter().all(|said| said["ip"] == "127.0.0.1"));
    assert!(!json!(found).to_string().contains("by-mistake"), "an identity may be a password");

    // The session is the account's doing, not a stranger's.
    let opened = admin.get("/api/audit?collection=_sessions&limit=1000").await.ok();
    assert_eq!(opened["items"][0]["actor"], account);
    let changes = admin.get("/api/audit?kind=change&limit=1000").await.ok();
    assert!(!changes.to_string().contains("_authEvents"));
    admin.get("/api/audit?kind=other").await.problem("parameter_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_tells_of_its_failures() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let user = server.user(&admin, "ada").await;
    let guest = user.actor.clone().without_authorization();
    admin.patch("/api/collections/users", json!({ "otp": { "enabled": true } })).await.ok();
    let at = |way: &str| format!("/api/collections/users/{way}");
    for (way, body) in [
        ("auth-with-otp", json!({ "otpId": "abcdefghijklmno", "password": "12345678" })),
        ("auth-with-totp", json!({ "mfaId": "abcdefghijklmno.x", "code": "123456" })),
        ("auth-with-recovery-code", json!({ "mfaId": "abcdefghijklmno.x", "code": "abcd-efgh" })),
        ("auth-with-passkey", json!({ "challengeId": "unknown", "credential": {} })),
    ] {
        guest.post(&at(way), body).await.problem("credentials_invalid");
    }
    let session = guest.post(&format!("{LOGIN}?session=1"), login("ada@example.com", PASSWORD)).await.ok();
    let used = json!({ "refreshToken": session["refreshToken"] });
    guest.post(&at("auth-refresh"), used.clone()).await.ok();
    guest.post(&at("auth-refresh"), used).await.problem("token_invalid");
    admin.patch("/api/collections/users", json!({ "mfa": { "enabled": true } })).await.ok();
    guest.post(LOGIN, login("ada@example.com", PASSWORD)).await.problem("mfa_required");

    let found = events(&admin).await;
    let said = |wanted: [&str; 3], account: Option<&str>| {
        found.iter().any(|(_, said)| {
            ["event", "method", "outcome"].map(|name| said[name].as_str().unwrap()) == wanted
                && said["account"].as_str().filter(|id| !id.is_empty()) == account
        })
    };
    for method in ["otp", "totp", "recoveryCode", "passkey"] {
        assert!(said(["login", method, "failed"], None), "{method} in {found:?}");
    }
    assert!(said(["refresh", "", "reused"], Some(&user.id)), "{found:?}");
    assert!(said(["login", "password", "factorNeeded"], Some(&user.id)), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_fills_no_disk() {
    let toml = "[limits]\nlogin_failures_max = 5\nlogin_failures_per_ip_max = 10\nlogin_window_s = 86400";
    let server = TestServer::start_with(toml, std::sync::Arc::new(tenantry::kernel::clock::SystemClock)).await;
    let admin = server.tenant("acme").await;
    let guest = admin.clone().without_authorization();
    for _ in 0..20 {
        guest.post(LOGIN, login("nobody@example.com", "wrong horse")).await;
    }
    let (rows, failed) = count(&admin, "outcome = 'failed'").await;
    // Two at most, where a minute ended between.
    assert!(rows <= 2 && failed == 5.0, "{rows} rows count {failed}");
    // Each made-up identity had a row of its own, also where nothing was looked at any more.
    for guess in 0..40 {
        guest.post(LOGIN, login(&format!("made-up-{guess}@example.com"), "wrong horse")).await;
    }
    let (rows, failed) = count(&admin, "outcome = 'failed'").await;
    assert!(rows <= 7 && failed == 10.0, "{rows} rows count {failed}");
    let (rows, throttled) = count(&admin, "outcome = 'throttled'").await;
    assert!(rows <= 2 && throttled == 50.0, "{rows} rows count {throttled}");
    let (named, _) = count(&admin, "outcome = 'throttled' && (account != '' || identity != '')").await;
    assert_eq!(named, 0, "nobody was looked at");
}

/// Acting for a superuser was logged as that superuser alone, and the token outlived whoever acted.
#[tokio::test(flavor = "multi_thread")]
async fn an_impersonation_names_who_acts_and_ends_with_them() {
    let server = TestServer::start().await;
    let root = server.superuser().await;
    let superusers = "/api/collections/_superusers/records";
    let two = json!({ "email": "two@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD });
    let two = root.post(superusers, two).await.created()["id"].as_str().unwrap().to_owned();
    let user = server.user(&server.node(), "ada").await;
    let path = format!("/api/collections/users/impersonate/{}", user.id);
    let own = format!("/api/collections/users/records/{}", user.id);
    let log_in = async |query: &str| {
        let body = login("two@example.com", PASSWORD);
        let path = format!("/api/collections/_superusers/auth-with-password{query}");
        let grant = server.anon().post(&path, body).await.ok();
        (server.anon().with_authorization(grant["token"].as_str().unwrap()), grant)
    };
    let act = async |by: &Actor| {
        let grant = by.post(&path, json!({})).await.ok();
        let acting = server.anon().with_authorization(grant["token"].as_str().unwrap());
        acting.get(&own).await.ok();
        acting.get(&own).await.ok();
        acting
    };

    let (by, _) = log_in("").await;
    let acting = act(&by).await;
    let found = root.get(&format!("{superusers}?filter=email%3D'root@example.com'")).await.ok();
    let as_root = found["items"][0]["id"].as_str().unwrap().to_owned();
    let grant = by.post(&format!("/api/collections/_superusers/impersonate/{as_root}"), json!({})).await.ok();
    let as_root_actor = server.anon().with_authorization(grant["token"].as_str().unwrap());
    as_root_actor.patch(&own, json!({ "name": "changed" })).await.ok();
    let actor = format!("superuser:{as_root} by superuser:{two}");
    let trail = root.get("/api/audit?collection=users&limit=1000").await.ok();
    assert!(trail.to_string().contains(&actor), "{actor} in {trail}");
    as_root_actor.post(&path, json!({})).await.problem("forbidden");

    let key = json!({ "name": "k", "scopes": { "operations": ["read", "create", "update", "delete"] } });
    let key = by.post("/api/keys", key).await.created();
    let key = server.anon().with_authorization(key["key"].as_str().unwrap());
    key.get(&own).await.ok();
    key.post(&path, json!({})).await.problem("forbidden");

    let (in_session, grant) = log_in("?session=1").await;
    let acting_in_session = act(&in_session).await;
    let session = format!("/api/collections/_superusers/sessions/{}", grant["sessionId"].as_str().unwrap());
    root.delete(&session).await.gone();
    acting_in_session.get(&own).await.has_status(404);
    acting.get(&own).await.ok();
    root.delete(&format!("{superusers}/{two}/sessions")).await.gone();
    acting.get(&own).await.has_status(404);
    acting.get("/api/collections/users/sessions").await.problem("token_invalid");

    let by_node = act(&server.node()).await;
    by_node.get(&own).await.ok();
    let found = events(&server.node()).await;
    let who = json!(format!("superuser:{two}"));
    let is_it = |(actor, said): &(Value, Value)| {
        *actor == who && said["event"] == "impersonate" && said["account"] == json!(user.id)
    };
    assert!(found.iter().any(is_it), "{found:?}");
}

/// The password could be guessed by whoever held a token, as often as they liked.
#[tokio::test(flavor = "multi_thread")]
async fn guessing_at_the_old_password_is_charged_like_a_login() {
    let toml = "[limits]\nlogin_failures_max = 3\nlogin_window_s = 86400";
    let server = TestServer::start_with(toml, std::sync::Arc::new(tenantry::kernel::clock::SystemClock)).await;
    let admin = server.tenant("acme").await;
    let user = server.user(&admin, "ada").await;
    let own = format!("/api/collections/users/records/{}", user.id);
    let change =
        |old: &str| json!({ "oldPassword": old, "password": "another-horse", "passwordConfirm": "another-horse" });
    for guess in ["one", "two", "three"] {
        user.actor.patch(&own, change(guess)).await.problem("validation_failed");
    }
    let refused = user.actor.patch(&own, change(PASSWORD)).await.has_status(429);
    assert!(refused.header("retry-after").is_some());
    refused.problem("rate_limited");
}
