//! The audit trail: who did what, filtered and paged, proven by its chain, and without a secret in it.

use crate::support::{PASSWORD, TestServer};
use serde_json::{Value, json};

fn items(page: &Value) -> &Vec<Value> {
    page["items"].as_array().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_says_who_changed_what_from_what_and_from_where() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let own = format!("/api/collections/users/records/{}", ada.id);
    let changed = ada.actor.patch(&own, json!({ "name": "Countess" })).await;
    let request_id = changed.header("x-request-id").unwrap().to_owned();
    changed.ok();

    let named = ada.actor.clone().with_header("x-request-id", "order.4711-a");
    named.patch(&own, json!({ "name": "ada" })).await.ok();
    let found = admin.get("/api/audit?request=order.4711-a").await.ok();
    let noted = items(&found)[0]["requestId"].as_str().unwrap().to_owned();
    let (part, callers) = noted.split_once('.').unwrap();
    assert_eq!((items(&found).len(), callers), (1, "order.4711-a"));
    for wanted in [part, &noted] {
        assert_eq!(items(&admin.get(&format!("/api/audit?request={wanted}")).await.ok()).len(), 1, "{wanted}");
    }
    assert!(items(&admin.get("/api/audit?request=4711-a").await.ok()).is_empty());
    ada.actor.patch(&own, json!({ "name": "Countess" })).await.ok();

    let page = admin
        .get(&format!("/api/audit?actor=record:users/{}&collection=users&request={request_id}", ada.id))
        .await
        .ok();
    assert_eq!((&page["verified"], items(&page).len()), (&json!(true), 1), "{page}");
    let entry = &items(&page)[0];
    assert_eq!((entry["requestId"].as_str(), entry["ip"].as_str()), (Some(&*request_id), Some("127.0.0.1")));
    let name = entry["ops"].as_array().unwrap().iter().find(|op| op["field"] == "name").unwrap();
    assert_eq!((&name["before"], &name["value"], &name["op"]), (&json!("ada"), &json!("Countess"), &json!("update")));

    let of_record = admin.get(&format!("/api/audit?collection=users&record={}", ada.id)).await.ok();
    assert_eq!(items(&of_record).len(), 4, "made and changed three times: {of_record}");
    assert!(items(&admin.get("/api/audit?until=2001-01-01").await.ok()).is_empty());
    assert!(!items(&admin.get("/api/audit?from=2001-01-01").await.ok()).is_empty());

    let (mut since, mut lsns) = (0, Vec::new());
    loop {
        let page = admin.get(&format!("/api/audit?limit=1&since={since}")).await.ok();
        lsns.extend(items(&page).iter().map(|entry| entry["lsn"].as_i64().unwrap()));
        since = page["next"].as_i64().unwrap();
        if page["next"] == page["position"] {
            break;
        }
    }
    let all = admin.get("/api/audit?limit=1000").await.ok();
    assert_eq!(lsns, items(&all).iter().map(|entry| entry["lsn"].as_i64().unwrap()).collect::<Vec<_>>());

    let lines = admin.get("/api/audit?format=ndjson&limit=1000").await.has_status(200);
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.header("audit-verified"), Some("true"));
    let parsed: Vec<Value> =
        String::from_utf8(lines.body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed, *items(&all));

    ada.actor.get("/api/audit").await.has_status(403).problem("superuser_required");
    admin.without_authorization().get("/api/audit").await.problem("auth_required");
}

/// The walk took the first record at its word and did not know where the last one should be.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_at_either_end_does_not_hold() {
    for cut in ["lsn = (SELECT max(lsn) FROM _tn_tx)", "lsn = (SELECT min(lsn) FROM _tn_tx)", "1"] {
        let server = TestServer::start().await;
        let admin = server.tenant("acme").await;
        let id = admin.get("/api/tenants/acme").await.ok()["id"].as_str().unwrap().to_owned();
        server.user(&admin, "ada").await;
        assert_eq!(admin.get("/api/audit?limit=1000").await.ok()["verified"], true);
        let server = server
            .restart_after(|folder| {
                let file = folder.join("tenants").join(&id).join("data.db");
                let connection = rusqlite::Connection::open(file).unwrap();
                assert!(connection.execute(&format!("DELETE FROM _tn_tx WHERE {cut}"), []).unwrap() > 0);
            })
            .await;
        let page = server.node().at("acme").get("/api/audit?kind=change&limit=1000").await.ok();
        assert_eq!(page["verified"], false, "{cut}");
        let lines = server.node().at("acme").get("/api/audit?kind=change&format=ndjson").await;
        assert_eq!(lines.header("audit-verified"), Some("false"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_by_trail_feed_export_or_error() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let guest = ada.actor.clone().without_authorization();
    let login = json!({ "identity": "ada@example.com", "password": PASSWORD });
    let session = guest.post("/api/collections/users/auth-with-password?session=1", login).await.ok();
    let refresh = session["refreshToken"].as_str().unwrap().to_owned();
    let key = std::fs::read_to_string(server.folder().join("node.key")).unwrap();
    let wrong = json!({ "identity": "ada@example.com", "password": "wrong-but-secret-too" });
    let own = format!("/api/collections/users/records/{}", ada.id);
    let change =
        json!({ "oldPassword": PASSWORD, "password": "another-long-secret", "passwordConfirm": "differs-entirely" });

    let mut seen = Vec::new();
    for answer in [
        guest.post("/api/collections/users/auth-with-password", wrong).await,
        ada.actor.patch(&own, change).await,
        guest.clone().with_authorization("Bearer forged-token-text").get("/api/audit").await,
        admin.get("/api/audit?limit=1000").await,
        admin.get("/api/audit?limit=1000&format=ndjson").await,
        admin.get("/api/changes?limit=1000").await,
        admin.get("/api/collections/users/export").await,
        admin.get(&own).await,
        server.node().get("/metrics").await,
        server.node().get("/api/admin/doctor").await,
    ] {
        seen.push(String::from_utf8_lossy(&answer.body).into_owned());
    }
    let family = refresh.split('.').nth(1).unwrap();
    for text in &seen {
        let secrets = [
            PASSWORD,
            "wrong-but-secret-too",
            "another-long-secret",
            "forged-token-text",
            "$argon2",
            &ada.token,
            &refresh,
            family,
            key.trim(),
        ];
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    let trail = &seen[3];
    for field in ["tokenKey", "familyHash", "currentHash", "keyHash"] {
        let shown = trail.match_indices(&format!("\"{field}\":\"")).next();
        assert!(shown.is_none(), "{field} is shown in {trail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_named_with_its_owner_and_an_impersonated_account_with_the_superuser() {
    let server = TestServer::start().await;
    let root = server.superuser().await;
    let ada = server.user(&server.node(), "ada").await;
    let own = format!("/api/collections/users/records/{}", ada.id);
    let body = json!({ "name": "k", "scopes": { "operations": ["read", "update"] } });
    let made = ada.actor.post("/api/keys", body).await.created();
    let key = server.anon().with_authorization(made["key"].as_str().unwrap());
    key.patch(&own, json!({ "name": "by key" })).await.ok();
    let granted = root.post(&format!("/api/collections/users/impersonate/{}", ada.id), json!({})).await.ok();
    let acting = server.anon().with_authorization(granted["token"].as_str().unwrap());
    acting.patch(&own, json!({ "name": "by root" })).await.ok();

    let id = made["id"].as_str().unwrap();
    let root_id = root.get("/api/collections/_superusers/records").await.ok()["items"][0]["id"].clone();
    let root_id = root_id.as_str().unwrap();
    let (owner, superuser) = (format!("record:users/{}", ada.id), format!("superuser:{root_id}"));
    let found = |actor: String| {
        let root = root.clone();
        async move {
            let page = root.get(&format!("/api/audit?collection=users&actor={actor}")).await.ok();
            let name = |entry: &Value| {
                let ops = entry["ops"].as_array().unwrap();
                ops.iter().find(|op| op["field"] == "name").map(|op| (entry["actor"].clone(), op["value"].clone()))
            };
            items(&page).iter().filter_map(name).collect::<Vec<_>>()
        }
    };
    let by_key = (json!(format!("key:{id} of {owner}")), json!("by key"));
    let by_root = (json!(format!("{owner} by {superuser}")), json!("by root"));
    assert_eq!(found(format!("key:{id}")).await, std::slice::from_ref(&by_key));
    assert_eq!(found(superuser).await, std::slice::from_ref(&by_root));
    assert_eq!(found(owner).await, [by_key, by_root]);
}
