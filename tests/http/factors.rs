//! Second factors over the wire: authenticator apps, recovery codes, and collections that ask for two methods.

use crate::support::{Actor, Broken, PASSWORD, TestServer};
use serde_json::{Value, json};
use std::sync::Arc;
use tenantry::app::Parts;
use tenantry::kernel::clock::{Clock, ManualClock};
use totp_rs::{Builder, Secret};

const USERS: &str = "/api/collections/users";
/// A moment at the beginning of a step of 30 seconds.
const NOON_MS: i64 = 1_800_000_000_000;

/// An authenticator app.
struct App {
    secret: Vec<u8>,
    clock: Arc<ManualClock>,
}

impl App {
    fn new(enrolled: &Value, clock: &Arc<ManualClock>) -> Self {
        let secret = Secret::try_from_base32(enrolled["secret"].as_str().unwrap()).unwrap();
        Self { secret: secret.as_ref().to_vec(), clock: Arc::clone(clock) }
    }

    /// The code of now.
    fn code(&self) -> String {
        let totp = Builder::new().with_secret(self.secret.clone()).build().unwrap();
        totp.generate(u64::try_from(self.clock.now_ms() / 1_000).unwrap()).to_string()
    }

    /// A code that has not been used: that of the next step.
    fn next(&self) -> String {
        self.clock.advance_ms(30_000);
        self.code()
    }

    /// Six digits that are not the code of now nor one beside it.
    fn wrong(&self) -> String {
        let totp = Builder::new().with_secret(self.secret.clone()).build().unwrap();
        let now_s = u64::try_from(self.clock.now_ms() / 1_000).unwrap();
        let near: Vec<String> = (0..3).map(|at| totp.generate(now_s + 30 * at - 30).to_string()).collect();
        (0..).map(|n| format!("{n:06}")).find(|code| !near.contains(code)).unwrap()
    }
}

async fn start() -> (TestServer, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(NOON_MS));
    (TestServer::start_with("", clock.clone()).await, clock)
}

async fn password(actor: &Actor, collection: &str, identity: &str, query: &str) -> crate::support::Answer {
    let body = json!({ "identity": identity, "password": PASSWORD });
    actor.post(&format!("/api/collections/{collection}/auth-with-password{query}"), body).await
}

/// The name of the half-finished login in a 401.
#[track_caller]
fn mfa_id(answer: crate::support::Answer) -> String {
    let problem = answer.has_status(401).problem("mfa_required");
    problem["mfaId"].as_str().expect("a name for the second factor").to_owned()
}

fn bearer(actor: &Actor, grant: &Value) -> Actor {
    actor.clone().with_authorization(grant["token"].as_str().unwrap())
}

/// Sets an app up; the app, the recovery codes, the owner's next token.
async fn enrol(actor: &Actor, path: &str, clock: &Arc<ManualClock>) -> (App, Vec<String>, Actor) {
    let made = actor.post(&format!("{path}/totp"), json!({ "password": PASSWORD })).await.ok();
    let app = App::new(&made, clock);
    let done = actor.post(&format!("{path}/totp/confirm"), json!({ "code": app.code() })).await.ok();
    let codes: Vec<String> = serde_json::from_value(done["recoveryCodes"].clone()).unwrap();
    (app, codes, bearer(actor, &done))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_set_up_asked_for_and_taken_away() {
    let (server, clock) = start().await;
    let user = server.user(&server.node(), "ada").await;
    let anon = server.anon();
    let own = format!("{USERS}/records/{}", user.id);

    user.actor.post(&format!("{USERS}/totp"), json!({})).await.has_status(400).problem("validation_failed");
    user.actor.post(&format!("{USERS}/totp"), json!({ "password": "wrong" })).await.problem("validation_failed");
    let made = user.actor.post(&format!("{USERS}/totp"), json!({ "password": PASSWORD })).await.ok();
    assert!(made["uri"].as_str().unwrap().starts_with("otpauth://totp/main:ada"), "{made}");
    password(&anon, "users", "ada@example.com", "").await.ok();
    let app = App::new(&made, &clock);
    user.actor
        .post(&format!("{USERS}/totp/confirm"), json!({ "code": app.wrong() }))
        .await
        .problem("validation_failed");
    let done = user.actor.post(&format!("{USERS}/totp/confirm"), json!({ "code": app.code() })).await.ok();
    assert_eq!(done["recoveryCodes"].as_array().unwrap().len(), 10);
    user.actor.get(&own).await.problem("record_not_found");
    let ada = bearer(&anon, &done);
    ada.get(&own).await.ok();
    let status = ada.get(&format!("{USERS}/totp")).await.ok();
    assert_eq!(status, json!({ "enabled": true, "pending": false, "recoveryCodesLeft": 10 }));
    ada.post(&format!("{USERS}/totp"), json!({ "password": PASSWORD })).await.problem("validation_failed");

    let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
    let path = format!("{USERS}/auth-with-totp");
    anon.post(&path, json!({ "mfaId": id, "code": app.code() })).await.problem("credentials_invalid");
    let grant = anon.post(&path, json!({ "mfaId": id, "code": app.next() })).await.ok();
    bearer(&anon, &grant).get(&own).await.ok();
    anon.post(&path, json!({ "mfaId": id, "code": app.next() })).await.problem("credentials_invalid");

    let off = json!({ "password": PASSWORD, "code": app.wrong() });
    ada.post(&format!("{USERS}/totp/disable"), off).await.problem("validation_failed");
    let off = json!({ "code": app.next() });
    ada.post(&format!("{USERS}/totp/disable"), off).await.problem("validation_failed");
    let off = json!({ "password": PASSWORD, "code": app.code() });
    let done = ada.post(&format!("{USERS}/totp/disable"), off).await.ok();
    ada.get(&own).await.problem("record_not_found");
    bearer(&anon, &done).get(&own).await.ok();
    password(&anon, "users", "ada@example.com", "").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_code_works_once_and_new_ones_end_the_old() {
    let (server, clock) = start().await;
    let user = server.user(&server.node(), "ada").await;
    let anon = server.anon();
    let (app, codes, ada) = enrol(&user.actor, USERS, &clock).await;
    let path = format!("{USERS}/auth-with-recovery-code");
    let login = || async { mfa_id(password(&anon, "users", "ada@example.com", "").await) };

    let spelled = codes[0].to_uppercase().replace('-', " ");
    anon.post(&path, json!({ "mfaId": login().await, "code": spelled })).await.ok();
    let id = login().await;
    anon.post(&path, json!({ "mfaId": id, "code": codes[0] })).await.problem("credentials_invalid");
    anon.post(&path, json!({ "mfaId": id, "code": codes[1] })).await.ok();
    assert_eq!(ada.get(&format!("{USERS}/totp")).await.ok()["recoveryCodesLeft"], 8);

    let body = json!({ "password": PASSWORD, "code": app.next() });
    let fresh = ada.post(&format!("{USERS}/totp/recovery-codes"), body).await.ok();
    assert_eq!(fresh["recoveryCodes"].as_array().unwrap().len(), 10);
    let id = login().await;
    anon.post(&path, json!({ "mfaId": id, "code": codes[2] })).await.problem("credentials_invalid");
    anon.post(&path, json!({ "mfaId": id, "code": fresh["recoveryCodes"][0] })).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_that_changes_factors_goes_on_and_the_others_end() {
    let (server, clock) = start().await;
    let user = server.user(&server.node(), "ada").await;
    let anon = server.anon();
    let own = format!("{USERS}/records/{}", user.id);
    let mine = password(&anon, "users", "ada@example.com", "?session=1").await.ok();
    let other = password(&anon, "users", "ada@example.com", "?session=1").await.ok();
    let (_, _, ada) = enrol(&bearer(&anon, &mine), USERS, &clock).await;
    ada.get(&own).await.ok();
    bearer(&anon, &other).get(&own).await.problem("record_not_found");
    user.actor.get(&own).await.problem("record_not_found");
    let refresh = |grant: &Value| json!({ "refreshToken": grant["refreshToken"] });
    anon.post(&format!("{USERS}/auth-refresh"), refresh(&other)).await.problem("token_invalid");
    let next = anon.post(&format!("{USERS}/auth-refresh"), refresh(&mine)).await.ok();
    bearer(&anon, &next).get(&own).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_codes_cost_a_pause_that_only_the_password_reaches() {
    let (server, clock) = start().await;
    let user = server.user(&server.node(), "ada").await;
    let anon = server.anon();
    let (app, codes, _) = enrol(&user.actor, USERS, &clock).await;
    let path = format!("{USERS}/auth-with-totp");
    let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
    clock.advance_ms(30_000);
    for _ in 0..5 {
        anon.post(&path, json!({ "mfaId": id, "code": app.wrong() })).await.problem("credentials_invalid");
    }
    let refused = anon.post(&path, json!({ "mfaId": id, "code": app.code() })).await.has_status(429);
    assert_eq!(refused.header("retry-after"), Some("30"));
    refused.problem("rate_limited");
    let recovery = format!("{USERS}/auth-with-recovery-code");
    anon.post(&recovery, json!({ "mfaId": id, "code": codes[0] })).await.ok();
    let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
    clock.advance_ms(30_000);
    anon.post(&path, json!({ "mfaId": id, "code": app.code() })).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_finished_login_is_bound_and_ends() {
    let (server, clock) = start().await;
    let admin = server.node();
    let other = server.tenant("other").await;
    let user = server.user(&admin, "ada").await;
    let anon = server.anon();
    let (app, codes, _) = enrol(&user.actor, USERS, &clock).await;
    let path = format!("{USERS}/auth-with-totp");
    let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
    let (row, secret) = id.split_once('.').unwrap();
    let made_up = [String::new(), row.to_owned(), format!("{row}."), format!("{row}.x"), format!("x.{secret}")];
    for id in made_up {
        anon.post(&path, json!({ "mfaId": id, "code": app.next() })).await.problem("credentials_invalid");
    }
    let elsewhere = other.clone().without_authorization();
    elsewhere.post(&path, json!({ "mfaId": id, "code": app.next() })).await.problem("credentials_invalid");
    let superusers = "/api/collections/_superusers/auth-with-totp";
    anon.post(superusers, json!({ "mfaId": id, "code": app.next() })).await.problem("credentials_invalid");
    // The name is good for the account it was made for, whoever else's first factor holds.
    let eve = server.user(&admin, "eve").await;
    let body = json!({ "identity": "eve@example.com", "password": PASSWORD, "mfaId": id });
    anon.post(&format!("{USERS}/auth-with-password"), body).await.problem("validation_failed");
    eve.actor.get(&format!("{USERS}/records/{}", eve.id)).await.ok();
    // A second time the same method is no second factor.
    let body = json!({ "identity": "ada@example.com", "password": PASSWORD, "mfaId": id });
    let problem = anon.post(&format!("{USERS}/auth-with-password"), body).await.problem("validation_failed");
    assert_eq!(problem["data"]["mfaId"]["code"], "validation_mfa_same_method");
    anon.post(&path, json!({ "mfaId": id, "code": app.next() })).await.ok();

    let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
    clock.advance_ms(1_800_000);
    anon.post(&path, json!({ "mfaId": id, "code": app.next() })).await.problem("credentials_invalid");
    let recovery = format!("{USERS}/auth-with-recovery-code");
    anon.post(&recovery, json!({ "mfaId": id, "code": codes[0] })).await.problem("credentials_invalid");

    let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
    for _ in 0..10 {
        let body = json!({ "mfaId": id, "code": "aaaaa-aaaaa-aaaaa-aaaaa" });
        anon.post(&recovery, body).await.problem("credentials_invalid");
    }
    anon.post(&recovery, json!({ "mfaId": id, "code": codes[0] })).await.problem("credentials_invalid");
}

/// The code of the newest mail to `to` at the main tenant.
async fn mailed_code(server: &TestServer, to: &str) -> String {
    let main = server.node().get("/api/tenants/main").await.ok()["id"].as_str().unwrap().to_owned();
    let folder = server.folder().join("outbox").join(main);
    let marked = format!("To: {to}");
    for _ in 0..600 {
        let files = std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
        let mut mails: Vec<_> = files
            .filter_map(|file| Some((file.path(), std::fs::read_to_string(file.path()).ok()?)))
            .filter(|(path, text)| path.extension().is_some_and(|ending| ending == "eml") && text.contains(&marked))
            .collect();
        mails.sort();
        if let Some((_, text)) = mails.pop() {
            let code = text.split("<strong>").nth(1).and_then(|rest| rest.split("</strong>").next());
            return code.expect("a code in the mail").to_owned();
        }
        crate::support::pause(std::time::Duration::from_millis(50)).await;
    }
    panic!("no mail to {to}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_asks_for_two_methods_as_pocketbase_does() {
    let (server, _) = start().await;
    let admin = server.node();
    let user = server.user(&admin, "ada").await;
    let anon = server.anon();
    let options = json!({ "mfa": { "enabled": true, "rule": "name = 'ada'" }, "otp": { "enabled": true } });
    admin.patch(USERS, options).await.ok();
    let methods = anon.get(&format!("{USERS}/auth-methods")).await.ok();
    assert_eq!(methods["mfa"], json!({ "enabled": true, "duration": 1800 }));
    assert_eq!(methods["totp"], json!({ "enabled": true }));
    server.user(&admin, "eve").await;

    let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
    let asked = anon.post(&format!("{USERS}/request-otp"), json!({ "email": "ada@example.com" })).await.ok();
    let code = mailed_code(&server, "ada@example.com").await;
    let body = json!({ "otpId": asked["otpId"], "password": code });
    let grant = anon.post(&format!("{USERS}/auth-with-otp?mfaId={id}&session=1"), body).await.ok();
    assert!(grant["refreshToken"].is_string());
    bearer(&anon, &grant).get(&format!("{USERS}/records/{}", user.id)).await.ok();

    // Signing in never tells a stranger whether an account has a second factor.
    let mut shapes = Vec::new();
    for identity in ["ada@example.com", "nobody@example.com"] {
        let body = json!({ "identity": identity, "password": "wrong" });
        let mut problem = anon.post(&format!("{USERS}/auth-with-password"), body).await.problem("credentials_invalid");
        problem.as_object_mut().unwrap().remove("requestId");
        shapes.push(problem);
    }
    shapes.dedup();
    assert_eq!(shapes.len(), 1);

    for refused in [json!({ "mfa": { "enabled": true, "rule": "nonsense = 1" } }), json!({ "mfa": { "duration": 5 } })]
    {
        admin.patch(USERS, refused).await.has_status(400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn superusers_have_second_factors_too_and_keys_cannot_touch_them() {
    let (server, clock) = start().await;
    let root = server.superuser().await;
    let anon = server.anon();
    let path = "/api/collections/_superusers";
    let (app, _, root) = enrol(&root, path, &clock).await;
    root.get("/api/tenants").await.ok();
    let id = mfa_id(password(&anon, "_superusers", "root@example.com", "").await);
    let grant = anon.post(&format!("{path}/auth-with-totp"), json!({ "mfaId": id, "code": app.next() })).await.ok();
    bearer(&anon, &grant).get("/api/tenants").await.ok();

    let operations = json!(["read", "create", "update", "delete"]);
    let made = root.post("/api/keys", json!({ "name": "k", "scopes": { "operations": operations } })).await.created();
    let key = anon.clone().with_authorization(made["key"].as_str().unwrap());
    key.get("/api/tenants").await.ok();
    let off = json!({ "password": PASSWORD, "code": app.next() });
    key.post(&format!("{path}/totp/disable"), off.clone()).await.problem("forbidden");
    server.node().post(&format!("{path}/totp"), json!({})).await.problem("forbidden");
    anon.post(&format!("{path}/totp/disable"), off).await.problem("auth_required");

    // Locked out: whoever has the folder takes the factor away, as the command line does.
    let id = grant["record"]["id"].as_str().unwrap();
    key.delete(&format!("{path}/second-factors/{id}")).await.problem("forbidden");
    server.node().delete(&format!("{path}/second-factors/{id}")).await.gone();
    bearer(&anon, &grant).get("/api/tenants").await.problem("token_invalid");
    password(&anon, "_superusers", "root@example.com", "").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_factor_is_ever_shown_again() {
    let (server, clock) = start().await;
    let admin = server.node();
    let user = server.user(&admin, "ada").await;
    let made = user.actor.post(&format!("{USERS}/totp"), json!({ "password": PASSWORD })).await.ok();
    let app = App::new(&made, &clock);
    let body = json!({ "code": app.code() });
    let done = user.actor.post(&format!("{USERS}/totp/confirm"), body).await.ok();
    let id = mfa_id(password(&server.anon(), "users", "ada@example.com", "").await);
    let mut secrets = vec![made["secret"].as_str().unwrap().to_owned(), id.split('.').nth(1).unwrap().to_owned()];
    secrets.extend(done["recoveryCodes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned()));
    secrets.extend(["\"sealed\":\"".to_owned(), "\"codeHash\":\"".to_owned(), "\"tokenHash\":\"".to_owned()]);
    for path in [
        "/api/collections/_totps/records",
        "/api/collections/_recoveryCodes/records",
        "/api/collections/_mfas/records",
        "/api/changes?since=0&limit=1000",
        "/api/audit?limit=1000",
    ] {
        let answer = admin.get(path).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 200, "{path}: {text}");
        let lower = text.to_lowercase().replace('-', "");
        for secret in &secrets {
            let found = text.contains(secret) || lower.contains(&secret.to_lowercase().replace('-', ""));
            assert!(!found, "{path} shows {secret}: {text}");
        }
    }
    assert!(admin.get("/api/audit?collection=_totps").await.ok()["items"].as_array().unwrap().len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_half_finished_logins() {
    let (server, clock) = start().await;
    let user = server.user(&server.node(), "ada").await;
    let anon = server.anon();
    let (app, _, ada) = enrol(&user.actor, USERS, &clock).await;
    let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
    let change = json!({ "oldPassword": PASSWORD, "password": "another-horse", "passwordConfirm": "another-horse" });
    ada.patch(&format!("{USERS}/records/{}", user.id), change).await.ok();
    let path = format!("{USERS}/auth-with-totp");
    let problem = anon.post(&path, json!({ "mfaId": id, "code": app.next() })).await.problem("validation_failed");
    assert_eq!(problem["data"]["mfaId"]["code"], "validation_invalid_mfa_id");
    let body = json!({ "identity": "ada@example.com", "password": "another-horse" });
    let id = mfa_id(anon.post(&format!("{USERS}/auth-with-password"), body).await);
    anon.post(&path, json!({ "mfaId": id, "code": app.next() })).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_about_a_second_factor_is_not_told() {
    let (server, clock) = start().await;
    let user = server.user(&server.node(), "ada").await;
    let anon = server.anon();
    let (app, codes, _) = enrol(&user.actor, USERS, &clock).await;
    let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
    let made_up = format!("{}.{}", "a".repeat(15), "b".repeat(43));
    let mut shapes = Vec::new();
    for path in ["auth-with-totp", "auth-with-recovery-code"] {
        for body in [
            json!({ "mfaId": id, "code": app.wrong() }),
            json!({ "mfaId": id, "code": "" }),
            json!({ "mfaId": id, "code": "aaaaa-aaaaa-aaaaa-aaaaa" }),
            json!({ "mfaId": made_up, "code": app.code() }),
            json!({ "mfaId": made_up, "code": codes[0] }),
            json!({ "code": codes[0] }),
            json!({}),
        ] {
            let mut problem = anon.post(&format!("{USERS}/{path}"), body).await.problem("credentials_invalid");
            problem.as_object_mut().unwrap().remove("requestId");
            shapes.push(problem);
        }
    }
    shapes.dedup();
    assert_eq!(shapes.len(), 1, "{shapes:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_logins_at_once_cannot_share_a_code() {
    let (server, clock) = start().await;
    let user = server.user(&server.node(), "ada").await;
    let anon = server.anon();
    let (app, codes, _) = enrol(&user.actor, USERS, &clock).await;
    let code = app.next();
    for (path, code) in [("auth-with-totp", &code), ("auth-with-recovery-code", &codes[0])] {
        let mut tries = Vec::new();
        for _ in 0..6 {
            let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
            let (anon, body) = (anon.clone(), json!({ "mfaId": id, "code": code }));
            let path = format!("{USERS}/{path}");
            tries.push(tokio::spawn(async move { anon.post(&path, body).await.status.as_u16() }));
        }
        let mut statuses = Vec::new();
        for one in tries {
            statuses.push(one.await.unwrap());
        }
        statuses.sort_unstable();
        // What comes after the fifth miss may be told to pause.
        assert_eq!(statuses[0], 200, "{statuses:?}");
        assert!(statuses[1..].iter().all(|status| [400, 429].contains(status)), "{statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_registered_an_address_first_is_out_when_its_owner_comes_by_code() {
    let (server, _) = start().await;
    let admin = server.node();
    admin.patch(USERS, json!({ "otp": { "enabled": true } })).await.ok();
    // Mallory registers Ada's address, which she does not hold, and keeps every door open that an account has.
    let mallory = server.user(&admin, "ada").await;
    let operations = json!(["read", "create", "update", "delete"]);
    let made = mallory.actor.post("/api/keys", json!({ "name": "k", "scopes": { "operations": operations } })).await;
    let key = server.anon().with_authorization(made.created()["key"].as_str().unwrap());
    let anon = server.anon();
    let session = password(&anon, "users", "ada@example.com", "?session=1").await.ok();
    let own = format!("{USERS}/records/{}", mallory.id);
    for door in [&mallory.actor, &key, &bearer(&anon, &session)] {
        door.get(&own).await.ok();
    }

    let asked = anon.post(&format!("{USERS}/request-otp"), json!({ "email": "ada@example.com" })).await.ok();
    let code = mailed_code(&server, "ada@example.com").await;
    let body = json!({ "otpId": asked["otpId"], "password": code });
    let grant = anon.post(&format!("{USERS}/auth-with-otp"), body).await.ok();
    assert_eq!(grant["record"]["verified"], true);
    bearer(&anon, &grant).get(&own).await.ok();

    for door in [&mallory.actor, &key, &bearer(&anon, &session)] {
        door.post(&format!("{USERS}/auth-refresh"), json!({})).await.has_status(401);
    }
    password(&anon, "users", "ada@example.com", "").await.problem("credentials_invalid");
    let refresh = json!({ "refreshToken": session["refreshToken"] });
    anon.post(&format!("{USERS}/auth-refresh"), refresh).await.has_status(401);
}

/// What a node can open it seals anew for a copy; what it cannot it names, and asks for in no other way.
#[tokio::test(flavor = "multi_thread")]
async fn copies_keep_apps_and_secrets_where_the_node_can_open_them_and_say_so_where_not() {
    let (server, clock) = start().await;
    let admin = server.tenant("acme").await;
    let user = server.user(&admin, "ada").await;
    let (app, codes, _) = enrol(&user.actor, USERS, &clock).await;
    let provider = json!({ "name": "google", "clientId": "client", "clientSecret": "secret of acme" });
    admin.patch(USERS, json!({ "oauth2": { "enabled": true, "providers": [provider] } })).await.ok();
    let smtp =
        json!({ "enabled": true, "host": "203.0.113.9", "port": 9, "username": "u", "password": "secret of smtp" });
    admin.patch("/api/settings", json!({ "smtp": smtp })).await.ok();

    let cloned = server.node().post("/api/tenants/acme/clone", json!({ "slug": "copy" })).await.created();
    assert_eq!(cloned.get("secretsToSet"), None, "{cloned}");
    let file = server.node().get("/api/tenants/acme/export").await.has_status(200).body;
    let import = |server: &TestServer| {
        let request = server.node().request(reqwest::Method::POST, "/api/tenants/import?slug=brought&name=Brought");
        crate::support::Answer::of(request.header("content-type", "application/octet-stream").body(file.clone()))
    };
    let brought = import(&server).await.created();
    assert_eq!(brought.get("secretsToSet"), None, "{brought}");
    let with_app = async |server: &TestServer, tenant: &str, code: String| {
        let guest = server.anon().at(tenant);
        let id = mfa_id(password(&guest, "users", "ada@example.com", "").await);
        guest.post(&format!("{USERS}/auth-with-totp"), json!({ "mfaId": id, "code": code })).await
    };
    for tenant in ["copy", "brought", "acme"] {
        with_app(&server, tenant, app.wrong()).await.problem("credentials_invalid");
        with_app(&server, tenant, app.next()).await.ok();
    }

    let other = TestServer::start_with("", clock.clone()).await;
    let brought = import(&other).await.created();
    let wanted = json!(["smtp.password", "users.oauth2.google.clientSecret", "users.totp (1)"]);
    assert_eq!(brought["secretsToSet"], wanted);
    let refused = with_app(&other, "brought", app.next()).await.problem("validation_failed");
    assert!(refused.to_string().contains("validation_totp_unreadable"), "{refused}");
    let guest = other.anon().at("brought");
    let id = mfa_id(password(&guest, "users", "ada@example.com", "").await);
    let recovery = json!({ "mfaId": id, "code": codes[0] });
    let grant = guest.post(&format!("{USERS}/auth-with-recovery-code"), recovery).await.ok();
    let off = json!({ "password": PASSWORD, "code": codes[1] });
    let done = bearer(&guest, &grant).post(&format!("{USERS}/totp/disable"), off).await.ok();
    enrol(&bearer(&guest, &done), USERS, &clock).await;
    let there = other.node().at("brought");
    let tried = there.post("/api/settings/test/email", json!({ "email": "a@example.com" })).await.has_status(400);
    assert!(tried.json().to_string().contains("smtp.password"), "{}", tried.json());
    there.delete(&format!("{USERS}/second-factors/{}", user.id)).await.gone();
    password(&guest, "users", "ada@example.com", "").await.ok();
}

/// A login that asked wrongly for what it shows of the account was refused after its code, or its refresh token, was used up.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_wrong_parameters_uses_nothing_up() {
    let (server, clock) = start().await;
    let (admin, anon) = (server.node(), server.anon());
    admin.patch(USERS, json!({ "otp": { "enabled": true } })).await.ok();
    let user = server.user(&admin, "ada").await;
    server.user(&admin, "eve").await;
    let tried = async |way: &str, body: Value| {
        let path = format!("{USERS}/{way}");
        anon.post(&format!("{path}?fields=id:nonsense"), body.clone()).await.has_status(400);
        anon.post(&format!("{path}?session=1&fields=email"), body).await.ok()
    };

    let asked = anon.post(&format!("{USERS}/request-otp"), json!({ "email": "eve@example.com" })).await.ok();
    let code = mailed_code(&server, "eve@example.com").await;
    let grant = tried("auth-with-otp", json!({ "otpId": asked["otpId"], "password": code })).await;
    assert_eq!(grant["record"], json!({ "email": "eve@example.com" }));
    tried("auth-refresh", json!({ "refreshToken": grant["refreshToken"] })).await;

    let (app, codes, _) = enrol(&user.actor, USERS, &clock).await;
    for (way, code) in [("auth-with-totp", app.next()), ("auth-with-recovery-code", codes[0].clone())] {
        let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
        tried(way, json!({ "mfaId": id, "code": code })).await;
    }
    password(&anon, "users", "ada@example.com", "?fields=id:nonsense").await.has_status(400);
}

/// A login that the database kept from ending counted as a wrong guess.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_the_disk_ends_is_no_wrong_guess() {
    let (disk, clock) = (Arc::new(Broken::default()), Arc::new(ManualClock::new(NOON_MS)));
    let toml = "[limits]\nlogin_failures_max = 2\nlogin_failures_per_ip_max = 2";
    let parts = Parts { clock: clock.clone(), ..disk.parts() };
    let server = TestServer::start_parts(toml, parts).await;
    let (admin, anon) = (server.node(), server.expect_errors("main", server.anon()).await);
    admin.patch(USERS, json!({ "otp": { "enabled": true } })).await.ok();
    let user = server.user(&admin, "ada").await;
    server.user(&admin, "eve").await;
    let held_up = async |way: &str, body: &Value, commits: &[i64]| {
        // What was noted of earlier logins is written by then.
        admin.get("/api/audit?kind=auth").await.ok();
        for nth in commits {
            disk.fail_commit(*nth);
            anon.post(&format!("{USERS}/{way}"), body.clone()).await.has_status(500);
            assert!(disk.has_failed());
        }
        anon.post(&format!("{USERS}/{way}"), body.clone()).await.ok();
    };

    let asked = anon.post(&format!("{USERS}/request-otp"), json!({ "email": "eve@example.com" })).await.ok();
    let code = mailed_code(&server, "eve@example.com").await;
    // One transaction counts the guess, the next uses the code up.
    let commits = [1, 2, 2, 2, 1, 2, 2];
    held_up("auth-with-otp", &json!({ "otpId": asked["otpId"], "password": code }), &commits).await;

    let (app, codes, _) = enrol(&user.actor, USERS, &clock).await;
    for (way, code) in [("auth-with-totp", app.next()), ("auth-with-recovery-code", codes[0].clone())] {
        let id = mfa_id(password(&anon, "users", "ada@example.com", "").await);
        held_up(way, &json!({ "mfaId": id, "code": code }), &[1, 1, 1]).await;
    }
}
