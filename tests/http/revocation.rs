//! What is taken away ends at once, also on connections that are open and for requests that are under way.

use crate::support::{Actor, Answer, PASSWORD, RawConnection, TestServer, has_head, more_than_is_buffered};
use serde_json::{Value, json};

const ROWS: usize = 1_500;

/// So long that one page of an export, 1,000 rows, does not fit between a node that writes and a client that does not read.
fn row_bytes() -> usize {
    more_than_is_buffered() / 1_000
}

async fn login(guest: &Actor) -> Value {
    let body = json!({ "identity": "ada@example.com", "password": PASSWORD });
    guest.post("/api/collections/users/auth-with-password?session=1", body).await.ok()
}

fn request(path: &str, grant: &Value) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: node\r\nauthorization: {}\r\n\r\n", grant["token"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_connection_is_refused_with_the_next_request() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let user = server.user(&admin, "ada").await;
    let guest = user.actor.clone().without_authorization();
    let own = format!("/t/acme/api/collections/users/records/{}", user.id);
    let sessions = "/t/acme/api/collections/users/sessions";

    let grant = login(&guest).await;
    let mut open = RawConnection::open(&server.url()).await;
    assert!(open.exchange(&request(&own, &grant)).await.starts_with("HTTP/1.1 200"));
    let session = grant["sessionId"].as_str().unwrap();
    user.actor.delete(&format!("/api/collections/users/sessions/{session}")).await.gone();
    assert!(open.exchange(&request(&own, &grant)).await.starts_with("HTTP/1.1 404"), "a stranger by now");
    let refused = open.exchange(&request(sessions, &grant)).await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("token_invalid"), "{refused}");

    let grant = login(&guest).await;
    assert!(open.exchange(&request(&own, &grant)).await.starts_with("HTTP/1.1 200"));
    server.node().post("/api/tenants/acme/suspend", json!({})).await.ok();
    let refused = open.exchange(&request(&own, &grant)).await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("tenant_suspended"), "{refused}");
    server.node().post("/api/tenants/acme/resume", json!({})).await.ok();
    assert!(open.exchange(&request(&own, &grant)).await.starts_with("HTTP/1.1 200"));
    admin.delete(&format!("/api/collections/users/records/{}", user.id)).await.gone();
    assert!(open.exchange(&request(sessions, &grant)).await.starts_with("HTTP/1.1 401"));
}

async fn notes(admin: &Actor) {
    let body = json!({
        "name": "notes", "type": "base", "listRule": "@request.auth.id != ''", "createRule": "",
        "fields": [{ "name": "text", "type": "text", "max": 200_000 }],
    });
    admin.post("/api/collections", body).await.created();
}

async fn import(admin: &Actor, rows: usize) {
    let line = format!("{{\"text\":\"{}\"}}\n", "x".repeat(row_bytes()));
    let path = "/api/collections/notes/import";
    let sent = admin.request(reqwest::Method::POST, path).header("content-type", "application/x-ndjson");
    assert_eq!(Answer::of(sent.body(line.repeat(rows))).await.ok()["created"], json!(rows));
}

/// Begins an export, runs `meanwhile` once the node cannot send on, and reads the rest: how many rows, and whether the
/// stream came to its proper end.
async fn export(server: &TestServer, grant: &Value, meanwhile: impl Future<Output = ()>) -> (usize, bool) {
    let mut open = RawConnection::open_narrow(&server.url()).await;
    open.send(request("/t/acme/api/collections/notes/export", grant).as_bytes()).await;
    let head = open.read_until(has_head).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    meanwhile.await;
    let rest = open.read_until(|all| all.ends_with(b"\r\n0\r\n\r\n")).await;
    ((head + &rest).matches("\"text\"").count(), rest.ends_with("\r\n0\r\n\r\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_stops_when_its_reader_may_not_go_on() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let user = server.user(&admin, "ada").await;
    let guest = user.actor.clone().without_authorization();
    notes(&admin).await;
    import(&admin, ROWS).await;

    let grant = login(&guest).await;
    assert_eq!(export(&server, &grant, async {}).await, (ROWS, true));

    let session = format!("/api/collections/users/sessions/{}", grant["sessionId"].as_str().unwrap());
    let (rows, ended) = export(&server, &grant, async { user.actor.delete(&session).await.gone() }).await;
    assert!(rows < ROWS && !ended, "{rows} rows of {ROWS} after the session was revoked");

    let grant = login(&guest).await;
    let suspend = async { drop(server.node().post("/api/tenants/acme/suspend", json!({})).await.ok()) };
    let (rows, ended) = export(&server, &grant, suspend).await;
    assert!(rows < ROWS && !ended, "{rows} rows of {ROWS} after the tenant was suspended");
    server.node().post("/api/tenants/acme/resume", json!({})).await.ok();

    // Suspending renews the token key; a key has none, so here the suspension itself must be seen.
    let key = json!({ "name": "k", "scopes": { "operations": ["read", "create", "update", "delete"] } });
    let key = user.actor.post("/api/keys", key).await.created();
    let suspended = format!("/api/collections/users/records/{}/suspend", user.id);
    let suspend = async { drop(admin.post(&suspended, json!({})).await.ok()) };
    let (rows, ended) = export(&server, &json!({ "token": key["key"] }), suspend).await;
    assert!(rows < ROWS && !ended, "{rows} rows of {ROWS} after the key's owner was suspended");
    admin.delete(&suspended).await.gone();

    let grant = login(&guest).await;
    let reset = format!("/api/collections/users/second-factors/{}", user.id);
    let (rows, ended) = export(&server, &grant, async { admin.delete(&reset).await.gone() }).await;
    assert!(rows < ROWS && !ended, "{rows} rows of {ROWS} after the account's tokens ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_stops_when_the_tenant_is_suspended() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    notes(&admin).await;
    let root = server.superuser().await;
    let (sender, mut pieces) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
    let body = futures_util::stream::poll_fn(move |context| {
        pieces.poll_recv(context).map(|piece| piece.map(Ok::<_, std::io::Error>))
    });
    let request = root.at("acme").request(reqwest::Method::POST, "/api/collections/notes/import");
    let request = request.header("content-type", "application/x-ndjson").body(reqwest::Body::wrap_stream(body));
    let answer = tokio::spawn(Answer::of(request));
    let mut sent = 0;
    let list = "/api/collections/notes/records?perPage=1&fields=id";
    let imported = loop {
        sender.send(b"{\"text\":\"early\"}\n".repeat(100)).await.unwrap();
        sent += 100;
        match admin.get(list).await.ok()["totalItems"].as_u64().unwrap() {
            0 => assert!(sent < 1_000_000, "nothing is imported"),
            some => break some,
        }
    };
    server.node().post("/api/tenants/acme/suspend", json!({})).await.ok();
    // The node may hang up before it has all of it.
    for _ in 0..50 {
        if sender.send(b"{\"text\":\"late\"}\n".repeat(100)).await.is_err() {
            break;
        }
    }
    drop(sender);
    answer.await.unwrap().has_status(403).problem("tenant_suspended");
    server.node().post("/api/tenants/acme/resume", json!({})).await.ok();
    let late = admin.get("/api/collections/notes/records?perPage=1&filter=text%3D'late'").await.ok();
    assert_eq!(late["totalItems"], 0);
    assert!(admin.get(list).await.ok()["totalItems"].as_u64().unwrap() >= imported);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_body_arrives_after_the_suspension_is_refused() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    notes(&admin).await;
    let body = "{\"text\":\"too late\"}";
    let mut open = RawConnection::open(&server.url()).await;
    let head = format!(
        "POST /t/acme/api/collections/notes/records HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    open.send(head.as_bytes()).await;
    open.send(&body.as_bytes()[..5]).await;
    server.node().post("/api/tenants/acme/suspend", json!({})).await.ok();
    open.send(&body.as_bytes()[5..]).await;
    let refused = open.read_until(|_| false).await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("tenant_suspended"), "{refused}");
    server.node().post("/api/tenants/acme/resume", json!({})).await.ok();
    assert_eq!(admin.get("/api/collections/notes/records").await.ok()["totalItems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_superuser_stays() {
    let server = TestServer::start().await;
    let root = server.superuser().await;
    let path = "/api/collections/_superusers/records";
    let first = root.get(path).await.ok()["items"][0]["id"].as_str().unwrap().to_owned();
    root.delete(&format!("{path}/{first}")).await.has_status(409).problem("conflict");
    server.node().delete(&format!("{path}/{first}")).await.problem("conflict");
    let body = json!({ "email": "two@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD });
    let second = root.post(path, body).await.created()["id"].as_str().unwrap().to_owned();
    root.delete(&format!("{path}/{first}")).await.gone();
    root.get("/api/tenants").await.problem("token_invalid");
    server.node().delete(&format!("{path}/{second}")).await.problem("conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_leaves_nothing_behind() {
    let server = TestServer::start().await;
    for (slug, whole) in [("acme", false), ("umbrella", true)] {
        leave_nothing_behind(&server, slug, whole).await;
    }
}

/// The rows stayed, and a collection made later under the same id would have owned them.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_auth_collection_leaves_nothing_of_its_accounts() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let other = server.user(&admin, "ada").await;
    other.actor.post("/api/keys", json!({ "name": "k", "scopes": { "operations": ["read"] } })).await.created();
    admin.post("/api/collections", json!({ "name": "members", "type": "auth" })).await.created();
    let body = json!({ "email": "bob@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD });
    let made = admin.post("/api/collections/members/records", body).await.created();
    let path = "/api/collections/members/auth-with-password?session=1";
    let body = json!({ "identity": "bob@example.com", "password": PASSWORD });
    let grant = other.actor.clone().without_authorization().post(path, body).await.ok();
    let bob = other.actor.clone().with_authorization(grant["token"].as_str().unwrap());
    bob.post("/api/keys", json!({ "name": "k", "scopes": { "operations": ["read"] } })).await.created();
    let suspend = format!("/api/collections/members/records/{}/suspend", made["id"].as_str().unwrap());
    admin.post(&suspend, json!({})).await.ok();
    admin.delete("/api/collections/members").await.gone();
    for (name, left) in [("_sessions", 0), ("_apiKeys", 1), ("_suspensions", 0)] {
        let listed = admin.get(&format!("/api/collections/{name}/records")).await.ok();
        assert_eq!(listed["totalItems"], left, "{name}");
    }
    other.actor.get("/api/keys").await.ok();
}

/// Deletes one account, or every account of its collection at once.
async fn leave_nothing_behind(server: &TestServer, slug: &str, whole: bool) {
    let admin = server.tenant(slug).await;
    let user = server.user(&admin, "ada").await;
    login(&user.actor.clone().without_authorization()).await;
    let key = json!({ "name": "k", "scopes": { "operations": ["read"] } });
    user.actor.post("/api/keys", key).await.created();
    user.actor.post("/api/collections/users/totp", json!({ "password": PASSWORD })).await.ok();
    let kept = ["_sessions", "_apiKeys", "_totps"];
    for name in kept {
        let listed = admin.get(&format!("/api/collections/{name}/records")).await.ok();
        assert_eq!(listed["totalItems"], 1, "{name}");
    }
    let path = if whole { "truncate".to_owned() } else { format!("records/{}", user.id) };
    admin.delete(&format!("/api/collections/users/{path}")).await.gone();
    for name in kept {
        let listed = admin.get(&format!("/api/collections/{name}/records")).await.ok();
        assert_eq!(listed["totalItems"], 0, "{name}");
    }
}

/// Somebody with an expired token was told that only superusers may list, and looked for the mistake in the rules.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_that_the_token_did_not_hold() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let rule = "@request.auth.id != ''";
    let notes = serde_json::json!({ "name": "notes", "type": "base", "listRule": null, "viewRule": rule, "createRule": rule,
        "fields": [{ "name": "text", "type": "text" }] });
    admin.post("/api/collections", notes).await.created();
    let path = "/api/collections/notes/records";
    let note = admin.post(path, serde_json::json!({ "text": "a" })).await.created();
    let one = format!("{path}/{}", note["id"].as_str().unwrap());
    let ada = server.user(&admin, "ada").await.actor;
    let stranger = server.anon().at("acme");
    for (actor, told) in [
        (stranger.clone(), false),
        (stranger.clone().with_authorization("garbage"), true),
        (stranger.with_authorization(format!("{}x", ada.authorization())), true),
        (ada, false),
    ] {
        let mut answers = vec![(actor.get(path).await, "superuser_required")];
        if told {
            answers.push((actor.get(&one).await, "record_not_found"));
            answers.push((actor.post(path, serde_json::json!({ "text": "b" })).await, "create_refused"));
        }
        for (answer, code) in answers {
            let problem = answer.problem(code);
            for member in ["message", "detail"] {
                let said = problem[member].as_str().unwrap();
                assert_eq!(said.contains("token"), told, "{problem}");
            }
        }
    }
}
