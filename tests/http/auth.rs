//! Logging in over the wire: shapes, sessions, recovery, keys, and everything that must be refused.

use crate::support::{Actor, TestServer};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse";

async fn register(actor: &Actor, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD, "passwordConfirm": PASSWORD});
    let user = actor.post("/api/collections/users/records", body).await.created();
    user["id"].as_str().unwrap().to_owned()
}

async fn login(actor: &Actor, email: &str, query: &str) -> Value {
    let body = json!({"identity": email, "password": PASSWORD});
    actor.post(&format!("/api/collections/users/auth-with-password{query}"), body).await.ok()
}

fn bearer(actor: &Actor, grant: &Value) -> Actor {
    actor.clone().with_authorization(grant["token"].as_str().unwrap())
}

async fn superuser(server: &TestServer) -> Actor {
    let body = json!({"email": "root@node.test", "password": PASSWORD, "passwordConfirm": PASSWORD});
    server.node().post("/api/collections/_superusers/records", body).await.created();
    let body = json!({"identity": "root@node.test", "password": PASSWORD});
    let grant = server.anon().post("/api/collections/_superusers/auth-with-password", body).await.ok();
    bearer(&server.anon(), &grant)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_registers_logs_in_and_reads_the_own_record() {
    let server = TestServer::start().await;
    let id = register(&server.anon(), "ada@a.test").await;
    let grant = login(&server.anon(), "ada@a.test", "").await;
    assert_eq!(grant["record"]["id"], json!(id));
    assert_eq!(grant["record"]["collectionName"], "users");
    assert_eq!(grant["record"]["email"], "ada@a.test", "the owner sees the address");
    assert!(grant["record"].get("password").is_none() && grant["record"].get("tokenKey").is_none());
    assert_eq!(grant["token"].as_str().unwrap().split('.').count(), 3);
    let ada = bearer(&server.anon(), &grant);
    ada.get(&format!("/api/collections/users/records/{id}")).await.ok();
    server.anon().get(&format!("/api/collections/users/records/{id}")).await.problem("record_not_found");
    let again = ada.post("/api/collections/users/auth-refresh", json!({})).await.ok();
    bearer(&server.anon(), &again).get(&format!("/api/collections/users/records/{id}")).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_unknown_users_look_alike() {
    let server = TestServer::start().await;
    register(&server.anon(), "ada@a.test").await;
    let mut shapes = Vec::new();
    for (identity, password) in [("ada@a.test", "wrong horse"), ("nobody@a.test", PASSWORD), ("x", "y")] {
        let body = json!({"identity": identity, "password": password});
        let answer = server.anon().post("/api/collections/users/auth-with-password", body).await;
        let mut body = answer.problem("credentials_invalid");
        body.as_object_mut().unwrap().remove("requestId");
        shapes.push(body);
    }
    shapes.dedup();
    assert_eq!(shapes.len(), 1, "{shapes:#?}");
    for path in ["request-password-reset", "request-verification"] {
        for email in ["ada@a.test", "nobody@a.test"] {
            server.anon().post(&format!("/api/collections/users/{path}"), json!({"email": email})).await.gone();
        }
    }
    server.node().patch("/api/collections/users", json!({"otp": {"enabled": true}})).await.ok();
    let mut shapes = Vec::new();
    for email in ["ada@a.test", "nobody@a.test"] {
        let asked = server.anon().post("/api/collections/users/request-otp", json!({"email": email})).await.ok();
        assert_eq!(asked.as_object().unwrap().len(), 1);
        assert_eq!(asked["otpId"].as_str().unwrap().len(), 15);
        let body = json!({"otpId": asked["otpId"], "password": "00000000"});
        let answer = server.anon().post("/api/collections/users/auth-with-otp", body).await;
        let mut body = answer.problem("credentials_invalid");
        body.as_object_mut().unwrap().remove("requestId");
        shapes.push(body);
    }
    shapes.dedup();
    assert_eq!(shapes.len(), 1, "{shapes:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_rotate_are_listed_and_end_at_once() {
    let server = TestServer::start().await;
    let anon = server.anon();
    let id = register(&anon, "ada@a.test").await;
    let own = format!("/api/collections/users/records/{id}");
    let first = login(&anon, "ada@a.test", "?session=1").await;
    assert!(first["expiresIn"].as_u64().unwrap() <= 900);
    let other = login(&anon, "ada@a.test", "?session=1").await;
    let refresh = |token: Value| {
        let anon = anon.clone();
        async move { anon.post("/api/collections/users/auth-refresh", json!({"refreshToken": token})).await }
    };
    let second = refresh(first["refreshToken"].clone()).await.ok();
    bearer(&anon, &second).get(&own).await.ok();
    let sessions = bearer(&anon, &second).get("/api/collections/users/sessions").await.ok();
    assert_eq!(sessions["items"].as_array().unwrap().len(), 2);

    refresh(first["refreshToken"].clone()).await.problem("token_invalid");
    refresh(second["refreshToken"].clone()).await.problem("token_invalid");
    bearer(&anon, &second).get(&own).await.problem("record_not_found");
    bearer(&anon, &other).get(&own).await.ok();

    let session = other["sessionId"].as_str().unwrap();
    bearer(&anon, &other).delete(&format!("/api/collections/users/sessions/{session}")).await.gone();
    bearer(&anon, &other).get("/api/collections/users/sessions").await.problem("token_invalid");

    let third = login(&anon, "ada@a.test", "?session=1").await;
    bearer(&anon, &third).post("/api/collections/users/auth-logout", json!({})).await.gone();
    bearer(&anon, &third).get("/api/collections/users/sessions").await.problem("token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_what_came_before() {
    let server = TestServer::start().await;
    let anon = server.anon();
    let id = register(&anon, "ada@a.test").await;
    let own = format!("/api/collections/users/records/{id}");
    let long = bearer(&anon, &login(&anon, "ada@a.test", "").await);
    let session = login(&anon, "ada@a.test", "?session=1").await;
    let change = json!({"oldPassword": PASSWORD, "password": "another horse", "passwordConfirm": "another horse"});
    long.patch(&own, change).await.ok();
    long.get(&own).await.problem("record_not_found");
    bearer(&anon, &session).get(&own).await.problem("record_not_found");
    let token = json!({"refreshToken": session["refreshToken"]});
    anon.post("/api/collections/users/auth-refresh", token).await.problem("token_invalid");
    let body = json!({"identity": "ada@a.test", "password": PASSWORD});
    anon.post("/api/collections/users/auth-with-password", body).await.problem("credentials_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_make_a_stranger() {
    let server = TestServer::start().await;
    let anon = server.anon();
    register(&anon, "ada@a.test").await;
    let token = login(&anon, "ada@a.test", "").await["token"].as_str().unwrap().to_owned();
    let (head, tag) = token.rsplit_once('.').unwrap();
    let (_, payload) = head.split_once('.').unwrap();
    // {"alg":"none","typ":"JWT"} and {"alg":"RS256","typ":"JWT"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let rsa = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9";
    for forged in [
        format!("{none}.{payload}."),
        format!("{none}.{payload}.{tag}"),
        format!("{rsa}.{payload}.{tag}"),
        format!("{head}."),
        format!("{head}.{}", "A".repeat(43)),
        "Bearer".to_owned(),
        "x".repeat(5_000),
    ] {
        let stranger = anon.clone().with_authorization(forged.as_str());
        stranger.get("/api/collections/users/sessions").await.problem("token_invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn superusers_reach_every_tenant_and_users_only_their_own() {
    let server = TestServer::start().await;
    let root = superuser(&server).await;
    root.post("/api/tenants", json!({"slug": "one", "name": "One"})).await.created();
    root.post("/api/tenants", json!({"slug": "two", "name": "Two"})).await.created();
    let (one, two) = (server.anon().at("one"), server.anon().at("two"));
    let id = register(&one, "ada@a.test").await;
    register(&two, "ada@a.test").await;
    let ada = login(&one, "ada@a.test", "?session=1").await;
    let own = format!("/api/collections/users/records/{id}");
    bearer(&one, &ada).get(&own).await.ok();
    bearer(&two, &ada).get("/api/collections/users/sessions").await.problem("token_invalid");
    bearer(&server.anon(), &ada).get("/api/collections/users/sessions").await.problem("token_invalid");
    let token = json!({"refreshToken": ada["refreshToken"]});
    two.post("/api/collections/users/auth-refresh", token).await.problem("token_invalid");
    bearer(&one, &ada).get("/api/tenants").await.problem("token_invalid");
    root.clone().at("one").get(&own).await.ok();
    let listed = root.clone().at("two").get("/api/collections/users/records").await.ok();
    assert_eq!(listed["totalItems"], 1);

    root.post("/api/tenants/one/suspend", json!({})).await.ok();
    bearer(&one, &ada).get(&own).await.problem("tenant_suspended");
    root.post("/api/tenants/one/resume", json!({})).await.ok();
    bearer(&one, &ada).get(&own).await.ok();

    root.post("/api/tenants/one/clone", json!({"slug": "copy"})).await.created();
    let copy = server.anon().at("copy");
    bearer(&copy, &ada).get("/api/collections/users/sessions").await.problem("token_invalid");
    let token = json!({"refreshToken": ada["refreshToken"]});
    copy.post("/api/collections/users/auth-refresh", token).await.problem("token_invalid");
    login(&copy, "ada@a.test", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impersonation_is_for_superusers_and_does_not_last() {
    let server = TestServer::start().await;
    let root = superuser(&server).await;
    let id = register(&server.anon(), "ada@a.test").await;
    let path = format!("/api/collections/users/impersonate/{id}");
    let ada = bearer(&server.anon(), &login(&server.anon(), "ada@a.test", "").await);
    ada.post(&path, json!({})).await.problem("superuser_required");
    server.anon().post(&path, json!({})).await.problem("auth_required");
    let grant = root.post(&path, json!({"duration": 60})).await.ok();
    let as_ada = bearer(&server.anon(), &grant);
    as_ada.get(&format!("/api/collections/users/records/{id}")).await.ok();
    let kept = as_ada.post("/api/collections/users/auth-refresh", json!({})).await.ok();
    assert_eq!(kept["token"], grant["token"]);
    as_ada.post("/api/keys", json!({"name": "k", "scopes": {"operations": ["read"]}})).await.problem("forbidden");
    as_ada.post("/api/collections/users/totp", json!({"password": PASSWORD})).await.problem("forbidden");
    as_ada.post("/api/collections/users/passkeys/begin", json!({"password": PASSWORD})).await.problem("forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_reaches_no_further_than_its_scopes() {
    let server = TestServer::start().await;
    let anon = server.anon();
    let id = register(&anon, "ada@a.test").await;
    let own = format!("/api/collections/users/records/{id}");
    let ada = bearer(&anon, &login(&anon, "ada@a.test", "").await);
    let body = json!({"name": "reader", "scopes": {"collections": ["users"], "operations": ["read"]}});
    let made = ada.post("/api/keys", body).await.created();
    let key = anon.clone().with_authorization(made["key"].as_str().unwrap());
    key.get(&own).await.ok();
    key.get("/api/collections/users/records").await.ok();
    key.patch(&own, json!({"name": "Ada"})).await.problem("forbidden");
    key.delete(&own).await.problem("forbidden");
    key.post("/api/batch", json!({"requests": []})).await.problem("forbidden");
    key.get("/api/keys").await.problem("forbidden");
    key.get(&format!("{own}?expand=x")).await.problem("forbidden");
    key.get("/api/collections/users/sessions").await.problem("forbidden");
    let listed = ada.get("/api/keys").await.ok();
    assert!(listed["items"][0].get("key").is_none(), "the secret is shown once");
    let path = format!("/api/keys/{}", made["id"].as_str().unwrap());
    let rotated = ada.post(&format!("{path}/rotate"), json!({})).await.ok();
    key.get(&own).await.problem("record_not_found");
    let key = anon.clone().with_authorization(rotated["key"].as_str().unwrap());
    key.get(&own).await.ok();
    ada.delete(&path).await.gone();
    key.get(&own).await.problem("record_not_found");
    ada.post("/api/keys", json!({"name": "x", "scopes": {"operations": ["fly"]}})).await.problem("validation_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_stay_out_of_what_others_read() {
    let server = TestServer::start().await;
    let root = superuser(&server).await;
    register(&server.anon(), "ada@a.test").await;
    let grant = login(&server.anon(), "ada@a.test", "?session=1").await;
    let refresh = grant["refreshToken"].as_str().unwrap();
    for path in [
        "/api/collections/users/records",
        "/api/collections/_sessions/records",
        "/api/collections/_superusers/records",
        "/api/collections",
        "/api/changes?since=0",
    ] {
        let answer = root.get(path).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 200, "{path}: {text}");
        for secret in ["$argon2id$", refresh.rsplit('.').next().unwrap(), "\"secret\":", "\"tokenKey\":\""] {
            assert!(!text.contains(secret), "{path} shows {secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_names_the_field_and_what_is_allowed() {
    let server = TestServer::start().await;
    register(&server.anon(), "ada@a.test").await;
    let ada = bearer(&server.anon(), &login(&server.anon(), "ada@a.test", "").await);
    let scopes = json!({"operations": ["read"]});
    for (field, body, hint) in [
        ("scopes", json!({"name": "k", "scopes": {"operations": ["list"]}}), "read, create, update, delete"),
        ("expires", json!({"name": "k", "scopes": scopes, "expires": "soon"}), "date and time"),
    ] {
        let problem = ada.post("/api/keys", body).await.has_status(400).problem("validation_failed");
        assert!(problem["data"][field]["message"].as_str().is_some_and(|text| text.contains(hint)), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_on_a_private_address_is_not_asked() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let provider = json!({"name": "own", "clientId": "x", "authURL": "https://id.example.com/authorize",
        "tokenURL": "http://127.0.0.1:9/token", "userInfoURL": "https://id.example.com/me"});
    let options = json!({"oauth2": {"enabled": true, "providers": [provider]}});
    admin.patch("/api/collections/users", options).await.ok();
    let methods = admin.get("/api/collections/users/auth-methods").await.ok();
    let verifier = &methods["oauth2"]["providers"][0]["codeVerifier"];
    let body =
        json!({"provider": "own", "code": "c", "codeVerifier": verifier, "redirectURL": "https://app.example.com/"});
    // What is asked wrongly uses the verifier up no more than asking for nothing does.
    admin.post("/api/collections/users/auth-with-oauth2?fields=id:nonsense", body.clone()).await.has_status(400);
    admin.post("/api/collections/users/auth-with-oauth2", body.clone()).await.problem("upstream_failed");
    admin.post("/api/collections/users/auth-with-oauth2", body).await.problem("validation_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_node_has_no_account() {
    let server = TestServer::start().await;
    for collection in ["_superusers", "users"] {
        let listed = server.node().get(&format!("/api/collections/{collection}/records")).await.ok();
        assert_eq!(listed["totalItems"], 0, "{collection}");
    }
    let admin = server.tenant("acme").await;
    assert_eq!(admin.get("/api/collections/users/records").await.ok()["totalItems"], 0);
}

/// The answer used to be another one for an address that somebody had.
#[tokio::test(flavor = "multi_thread")]
async fn asking_for_another_address_tells_not_whether_somebody_has_it() {
    let server = TestServer::start().await;
    let anon = server.anon();
    register(&anon, "ada@a.test").await;
    register(&anon, "bob@a.test").await;
    let ada = bearer(&anon, &login(&anon, "ada@a.test", "").await);
    let mut shapes = Vec::new();
    for email in ["bob@a.test", "nobody@a.test"] {
        let body = json!({"newEmail": email});
        let answer = ada.post("/api/collections/users/request-email-change", body).await;
        let mut named: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        // The framework sends headers in an order drawn anew for each answer.
        named.sort_unstable();
        shapes.push((answer.status, answer.body, named));
    }
    assert_eq!(shapes[0], shapes[1]);
    assert_eq!(shapes[0].0, 204);
}
