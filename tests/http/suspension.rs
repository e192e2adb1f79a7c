//! Accounts that are kept out for the time being, and other people's sessions.

use crate::support::{Actor, PASSWORD, TestServer};
use serde_json::{Value, json};
use std::sync::Arc;
use tenantry::kernel::clock::{Clock, ManualClock};

const LOGIN: &str = "/api/collections/users/auth-with-password";
const SESSIONS: &str = "/api/collections/users/sessions";

fn ada() -> Value {
    json!({ "identity": "ada@example.com", "password": PASSWORD })
}

fn bearer(guest: &Actor, grant: &Value) -> Actor {
    guest.clone().with_authorization(grant["token"].as_str().unwrap())
}

async fn key_of(owner: &Actor) -> String {
    let body = json!({ "name": "k", "scopes": { "operations": ["read"] } });
    owner.post("/api/keys", body).await.created()["key"].as_str().unwrap().to_owned()
}

/// Suspending ended nothing: only the next login asked, so a long token went on for a week and a key for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_account_is_out_with_everything_it_has() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let user = server.user(&admin, "ada").await;
    let guest = user.actor.clone().without_authorization();
    let session = guest.post(&format!("{LOGIN}?session=1"), ada()).await.ok();
    let key = guest.clone().with_authorization(key_of(&user.actor).await);
    let own = format!("/api/collections/users/records/{}", user.id);
    for actor in [&user.actor, &bearer(&guest, &session), &key] {
        actor.get(&own).await.ok();
        // The second time from what the worker remembers.
        actor.get(&own).await.ok();
    }

    let suspend = format!("{own}/suspend");
    let until = "2999-01-31 12:00:00.000Z";
    let made = admin.post(&suspend, json!({ "reason": "left", "until": until })).await.ok();
    assert_eq!((&made["reason"], &made["until"]), (&json!("left"), &json!(until)));
    assert_eq!(admin.get(&suspend).await.ok(), made);
    for actor in [&user.actor, &bearer(&guest, &session), &key] {
        actor.get(SESSIONS).await.has_status(401).problem("token_invalid");
        actor.get(&own).await.has_status(404);
    }
    let refresh = json!({ "refreshToken": session["refreshToken"] });
    guest.post("/api/collections/users/auth-refresh", refresh).await.problem("token_invalid");
    guest.post(LOGIN, ada()).await.has_status(403).problem("account_suspended");
    let wrong = json!({ "identity": "ada@example.com", "password": "wrong horse" });
    guest.post(LOGIN, wrong).await.problem("credentials_invalid");
    let impersonate = format!("/api/collections/users/impersonate/{}", user.id);
    server.superuser().await.at("acme").post(&impersonate, json!({})).await.problem("account_suspended");

    admin.delete(&suspend).await.gone();
    admin.get(&suspend).await.problem("record_not_found");
    admin.delete(&suspend).await.problem("record_not_found");
    key.get(&own).await.ok();
    bearer(&guest, &guest.post(LOGIN, ada()).await.ok()).get(&own).await.ok();
    user.actor.get(SESSIONS).await.problem("token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_ends_at_its_time() {
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let server = TestServer::start_with("", Arc::clone(&clock) as Arc<dyn Clock>).await;
    let admin = server.tenant("acme").await;
    let user = server.user(&admin, "ada").await;
    let guest = user.actor.clone().without_authorization();
    let key = guest.clone().with_authorization(key_of(&user.actor).await);
    let own = format!("/api/collections/users/records/{}", user.id);
    let suspend = format!("{own}/suspend");
    for (until, said) in [("soon", "validation_invalid_date"), ("2001-01-01", "validation_date_too_early")] {
        let refused = admin.post(&suspend, json!({ "until": until })).await.problem("validation_failed");
        assert_eq!(refused["errors"][0]["code"], said);
    }
    admin.post(&suspend, json!({ "until": "2027-01-15 08:10:00.000Z" })).await.ok();
    key.get(&own).await.has_status(404);
    guest.post(LOGIN, ada()).await.problem("account_suspended");
    clock.advance_ms(600_000);
    key.get(&own).await.ok();
    guest.post(LOGIN, ada()).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_and_sessions_of_others_are_for_superusers() {
    let server = TestServer::start().await;
    let root = server.superuser().await;
    let user = server.user(&server.node(), "ada").await;
    let other = server.user(&server.node(), "bob").await;
    let guest = user.actor.clone().without_authorization();
    let login = json!({ "identity": "bob@example.com", "password": PASSWORD });
    let bobs = guest.post(&format!("{LOGIN}?session=1"), login).await.ok();
    let of_bob = format!("/api/collections/users/records/{}", other.id);
    for path in [format!("{of_bob}/suspend"), format!("{of_bob}/sessions")] {
        user.actor.get(&path).await.problem("superuser_required");
        user.actor.delete(&path).await.problem("superuser_required");
        guest.get(&path).await.problem("auth_required");
    }
    user.actor.post(&format!("{of_bob}/suspend"), json!({})).await.problem("superuser_required");

    let listed = root.get(&format!("{of_bob}/sessions")).await.ok();
    assert_eq!(listed["items"][0]["id"], bobs["sessionId"]);
    root.delete(&format!("{of_bob}/sessions")).await.gone();
    for actor in [&other.actor, &bearer(&guest, &bobs)] {
        actor.get(SESSIONS).await.problem("token_invalid");
    }
    user.actor.get(SESSIONS).await.ok();

    let me = root.get("/api/collections/_superusers/records").await.ok()["items"][0]["id"].clone();
    let me = format!("/api/collections/_superusers/records/{}/suspend", me.as_str().unwrap());
    let refused = root.post(&me, json!({})).await.problem("validation_failed");
    assert_eq!(refused["errors"][0]["code"], "validation_own_account");
    server.node().post(&me, json!({ "reason": "stolen" })).await.ok();
    root.get("/api/tenants").await.problem("token_invalid");
    server.node().delete(&me).await.gone();
    let nobody = "/api/collections/users/records/doesnotexist000/suspend";
    server.node().post(nobody, json!({})).await.problem("record_not_found");
}

/// The rule was asked at login alone, so a key went on for an account that the rule had closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_with_the_rule_that_admits_its_owner() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let user = server.user(&admin, "ada").await;
    let key = user.actor.clone().with_authorization(key_of(&user.actor).await);
    let own = format!("/api/collections/users/records/{}", user.id);
    key.get(&own).await.ok();
    for (rule, admitted) in
        [("verified = true", false), ("name = 'ada'", true), ("@request.headers.x_site = 'a'", false)]
    {
        admin.patch("/api/collections/users", json!({ "authRule": rule })).await.ok();
        let status = if admitted { 200 } else { 404 };
        key.get(&own).await.has_status(status);
    }
    key.with_header("x-site", "a").get(&own).await.ok();
}
