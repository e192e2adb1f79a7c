//! Passkeys over the wire, with an authenticator in software.

use crate::support::{Actor, Authenticator, Broken, PASSWORD, TestServer, User};
use serde_json::{Value, json};
use std::sync::Arc;
use tenantry::kernel::clock::{ManualClock, SystemClock};

const USERS: &str = "/api/collections/users";
const ORIGIN: &str = "https://node.test";
const TOML: &str = "[http]\npublic_url = 'https://node.test'\ntenant_domains = ['node.test']";

async fn start() -> TestServer {
    TestServer::start_with(TOML, Arc::new(SystemClock)).await
}

/// Adds a passkey of `device` to the caller's account.
async fn add(actor: &Actor, device: &mut Authenticator) -> Value {
    let begun = actor.post(&format!("{USERS}/passkeys/begin"), json!({ "password": PASSWORD })).await.ok();
    let body = json!({ "challengeId": begun["challengeId"], "credential": device.create(&begun), "name": "Phone" });
    actor.post(&format!("{USERS}/passkeys"), body).await.created()
}

/// The user with the token that adding a passkey answered: the one before has ended.
fn go_on(user: User, added: &Value) -> User {
    let token = added["token"].as_str().unwrap().to_owned();
    User { actor: user.actor.with_authorization(&token), token, ..user }
}

async fn begin(anon: &Actor) -> Value {
    anon.post(&format!("{USERS}/auth-with-passkey/begin"), json!({})).await.ok()
}

async fn answer(anon: &Actor, begun: &Value, credential: Value) -> crate::support::Answer {
    let body = json!({ "challengeId": begun["challengeId"], "credential": credential });
    anon.post(&format!("{USERS}/auth-with-passkey"), body).await
}

async fn login(anon: &Actor, device: &mut Authenticator) -> crate::support::Answer {
    let begun = begin(anon).await;
    let credential = device.get(&begun);
    answer(anon, &begun, credential).await
}

async fn with_passkey(server: &TestServer) -> (User, Authenticator) {
    let user = server.user(&server.node(), "ada").await;
    let mut device = Authenticator::new(ORIGIN);
    let added = add(&user.actor, &mut device).await;
    let user = go_on(user, &added);
    (user, device)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_added_logs_in_and_is_taken_away() {
    let server = start().await;
    let anon = server.anon();
    let user = server.user(&server.node(), "ada").await;
    let methods = anon.get(&format!("{USERS}/auth-methods")).await.ok();
    assert_eq!(methods["passkey"], json!({ "enabled": true }));
    user.actor.post(&format!("{USERS}/passkeys/begin"), json!({})).await.problem("validation_failed");

    let begun = user.actor.post(&format!("{USERS}/passkeys/begin"), json!({ "password": PASSWORD })).await.ok();
    assert_eq!(begun["publicKey"]["rp"]["id"], "node.test");
    assert_eq!(begun["publicKey"]["user"]["name"], "ada@example.com");
    let selection = &begun["publicKey"]["authenticatorSelection"];
    assert_eq!((&selection["residentKey"], &selection["userVerification"]), (&json!("required"), &json!("required")));
    let mut device = Authenticator::new(ORIGIN);
    let credential = device.create(&begun);
    let body = json!({ "challengeId": begun["challengeId"], "credential": credential, "name": "Phone" });
    let elsewhere = json!({ "identity": "ada@example.com", "password": PASSWORD });
    let elsewhere = anon.post(&format!("{USERS}/auth-with-password?session=1"), elsewhere).await.ok();
    let elsewhere = anon.clone().with_authorization(elsewhere["token"].as_str().unwrap());
    elsewhere.get(&format!("{USERS}/passkeys")).await.ok();
    let added = user.actor.post(&format!("{USERS}/passkeys"), body.clone()).await.created();
    // A new way in ends what is open elsewhere, and the caller goes on with the token of the answer.
    elsewhere.get(&format!("{USERS}/passkeys")).await.problem("token_invalid");
    user.actor.get(&format!("{USERS}/passkeys")).await.problem("token_invalid");
    let user = go_on(user, &added);
    assert_eq!((&added["name"], &added["backedUp"]), (&json!("Phone"), &json!(false)));
    user.actor.post(&format!("{USERS}/passkeys"), body).await.problem("validation_failed");
    let again = user.actor.post(&format!("{USERS}/passkeys/begin"), json!({ "password": PASSWORD })).await.ok();
    assert_eq!(again["publicKey"]["excludeCredentials"].as_array().unwrap().len(), 1);

    device.backed_up = true;
    let grant = login(&anon, &mut device).await.ok();
    assert_eq!(grant["record"]["id"], json!(user.id));
    let ada = anon.clone().with_authorization(grant["token"].as_str().unwrap());
    let listed = ada.get(&format!("{USERS}/passkeys")).await.ok();
    assert_eq!(listed["items"][0]["backedUp"], true, "the flag follows the device");
    assert_ne!(listed["items"][0]["lastUsed"], "");

    let path = format!("{USERS}/passkeys/{}", added["id"].as_str().unwrap());
    assert_eq!(ada.patch(&path, json!({ "name": "Old phone" })).await.ok()["name"], "Old phone");
    let eve = server.user(&server.node(), "eve").await;
    eve.actor.patch(&path, json!({ "name": "Mine" })).await.problem("record_not_found");
    let remove = |actor: &Actor, body: Value| {
        let request = actor.request(reqwest::Method::DELETE, &path).json(&body);
        crate::support::Answer::of(request)
    };
    remove(&eve.actor, json!({ "password": PASSWORD })).await.problem("record_not_found");
    remove(&ada, json!({})).await.problem("validation_failed");
    let changed = remove(&ada, json!({ "password": PASSWORD })).await.ok();
    ada.get(&format!("{USERS}/passkeys")).await.problem("token_invalid");
    let ada = anon.clone().with_authorization(changed["token"].as_str().unwrap());
    assert_eq!(ada.get(&format!("{USERS}/passkeys")).await.ok()["items"], json!([]));
    login(&anon, &mut device).await.problem("credentials_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_answered_once_in_time_and_in_its_place() {
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let server = TestServer::start_with(TOML, clock.clone()).await;
    let anon = server.anon();
    let (_, mut device) = with_passkey(&server).await;
    let begun = begin(&anon).await;
    let credential = device.get(&begun);
    answer(&anon, &begun, credential.clone()).await.ok();
    answer(&anon, &begun, credential).await.problem("credentials_invalid");

    let begun = begin(&anon).await;
    clock.advance_ms(300_000);
    let credential = device.get(&begun);
    answer(&anon, &begun, credential).await.problem("credentials_invalid");

    // The name of one ceremony with the answer to another.
    let (one, other) = (begin(&anon).await, begin(&anon).await);
    let credential = device.get(&other);
    answer(&anon, &one, credential).await.problem("credentials_invalid");

    server.tenant("other").await;
    let other = anon.clone().at("other");
    let begun = begin(&other).await;
    let credential = device.get(&begun);
    answer(&other, &begun, credential).await.problem("credentials_invalid");
    let begun = begin(&anon).await;
    let credential = device.get(&begun);
    answer(&other, &begun, credential).await.problem("credentials_invalid");
    for nonsense in [json!(null), json!({}), json!("x"), json!({ "id": "x", "rawId": "!", "response": {} })] {
        let begun = begin(&anon).await;
        answer(&anon, &begun, nonsense).await.problem("credentials_invalid");
    }
    login(&anon, &mut device).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_or_device_must_not_do_is_refused() {
    let server = start().await;
    let anon = server.anon();
    let (user, mut device) = with_passkey(&server).await;

    device.origin = "https://evil.test".to_owned();
    login(&anon, &mut device).await.problem("credentials_invalid");
    device.origin = ORIGIN.to_owned();
    device.verifies = false;
    login(&anon, &mut device).await.problem("credentials_invalid");
    device.verifies = true;
    let begun = begin(&anon).await;
    let mut credential = device.get(&begun);
    credential["response"]["userHandle"] = json!("AAAAAAAAAAAAAAAAAAAAAA");
    answer(&anon, &begun, credential).await.problem("credentials_invalid");
    let begun = begin(&anon).await;
    let mut credential = device.get(&begun);
    credential["response"].as_object_mut().unwrap().remove("userHandle");
    answer(&anon, &begun, credential).await.problem("credentials_invalid");
    let begun = begin(&anon).await;
    let mut credential = device.get(&begun);
    let signature = Authenticator::new(ORIGIN).get(&begun)["response"]["signature"].clone();
    credential["response"]["signature"] = signature;
    answer(&anon, &begun, credential).await.problem("credentials_invalid");

    // A passkey that cannot verify its user is not taken, and nobody else answers for the owner.
    let begin_path = format!("{USERS}/passkeys/begin");
    let start = || user.actor.post(&begin_path, json!({ "password": PASSWORD }));
    let begun = start().await.ok();
    let mut weak = Authenticator::new(ORIGIN);
    weak.verifies = false;
    let body = json!({ "challengeId": begun["challengeId"], "credential": weak.create(&begun) });
    user.actor.post(&format!("{USERS}/passkeys"), body).await.problem("validation_failed");
    let eve = server.user(&server.node(), "eve").await;
    let begun = start().await.ok();
    let body = json!({ "challengeId": begun["challengeId"], "credential": Authenticator::new(ORIGIN).create(&begun) });
    eve.actor.post(&format!("{USERS}/passkeys"), body).await.problem("validation_failed");
    login(&anon, &mut device).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_does_not_rise_is_a_copy() {
    let server = start().await;
    let anon = server.anon();
    let user = server.user(&server.node(), "ada").await;
    let mut device = Authenticator::new(ORIGIN);
    device.counter = 5;
    add(&user.actor, &mut device).await;
    login(&anon, &mut device).await.ok();
    let copied = device.counter;
    login(&anon, &mut device).await.ok();
    let next = device.counter;
    device.counter = copied;
    login(&anon, &mut device).await.problem("credentials_invalid");
    device.counter = next;
    login(&anon, &mut device).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_host_is_its_own_relying_party() {
    let server = start().await;
    let admin = server.tenant("acme").await;
    let anon = server.anon().with_header("host", "acme.node.test");
    let own = admin.clone().without_authorization().with_header("host", "acme.node.test");
    let user = server.user(&admin, "ada").await;
    let ada = own.clone().with_authorization(&user.token);
    let mut device = Authenticator::new("https://acme.node.test");
    assert_eq!(add(&ada, &mut device).await["rpId"], "acme.node.test");
    login(&anon, &mut device).await.ok();
    // At the node's own address the same passkey means nothing.
    let elsewhere = server.anon().at("acme");
    login(&elsewhere, &mut device).await.problem("credentials_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn beginning_a_login_tells_nothing_about_accounts() {
    let server = start().await;
    let anon = server.anon();
    let shape = |mut begun: Value| {
        for path in ["/challengeId", "/publicKey/challenge"] {
            *begun.pointer_mut(path).unwrap() = json!("");
        }
        begun
    };
    let nobody = shape(begin(&anon).await);
    with_passkey(&server).await;
    let somebody = shape(begin(&anon).await);
    assert_eq!(nobody, somebody);
    assert!(somebody["publicKey"].get("allowCredentials").is_none_or(|list| list == &json!([])), "{somebody}");
    server.node().patch(USERS, json!({ "passkey": { "enabled": false } })).await.ok();
    anon.post(&format!("{USERS}/auth-with-passkey/begin"), json!({})).await.problem("forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_one_method_of_two_and_opens_an_account_with_an_app() {
    let server = start().await;
    let anon = server.anon();
    let (_, mut device) = with_passkey(&server).await;
    server.node().patch(USERS, json!({ "mfa": { "enabled": true } })).await.ok();
    let problem = login(&anon, &mut device).await.has_status(401).problem("mfa_required");
    let body = json!({ "identity": "ada@example.com", "password": PASSWORD, "mfaId": problem["mfaId"] });
    anon.post(&format!("{USERS}/auth-with-password"), body).await.ok();
    let body = json!({ "identity": "ada@example.com", "password": PASSWORD });
    let problem = anon.post(&format!("{USERS}/auth-with-password"), body).await.problem("mfa_required");
    let begun = begin(&anon).await;
    let body = json!({
        "challengeId": begun["challengeId"], "credential": device.get(&begun), "mfaId": problem["mfaId"],
    });
    anon.post(&format!("{USERS}/auth-with-passkey"), body).await.ok();
    let ways = json!({ "otp": { "enabled": false }, "totp": { "enabled": false }, "passkey": { "enabled": false } });
    server.node().patch(USERS, ways).await.has_status(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superuser_lets_somebody_in_who_lost_everything() {
    let server = start().await;
    let anon = server.anon();
    let (user, mut device) = with_passkey(&server).await;
    server.node().patch(USERS, json!({ "mfa": { "enabled": false } })).await.ok();
    let path = format!("{USERS}/second-factors/{}", user.id);
    user.actor.delete(&path).await.problem("superuser_required");
    anon.delete(&path).await.problem("auth_required");
    server.node().delete(&format!("{USERS}/second-factors/nobody")).await.problem("record_not_found");
    server.node().delete(&path).await.gone();
    user.actor.get(&format!("{USERS}/passkeys")).await.problem("token_invalid");
    login(&anon, &mut device).await.problem("credentials_invalid");
    let body = json!({ "identity": "ada@example.com", "password": PASSWORD });
    anon.post(&format!("{USERS}/auth-with-password"), body).await.ok();
}

/// A login that asked wrongly for what it shows of the account was refused after its challenge was used up.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_login_with_wrong_parameters_uses_nothing_up() {
    let server = start().await;
    let anon = server.anon();
    let (_, mut device) = with_passkey(&server).await;
    let begun = begin(&anon).await;
    let body = json!({ "challengeId": begun["challengeId"], "credential": device.get(&begun) });
    for wrong in ["fields=id:nonsense", "excludeFields=id:nonsense&fields=id:nonsense"] {
        anon.post(&format!("{USERS}/auth-with-passkey?{wrong}"), body.clone()).await.has_status(400);
    }
    let grant = anon.post(&format!("{USERS}/auth-with-passkey?fields=email"), body).await.ok();
    assert_eq!(grant["record"], json!({ "email": "ada@example.com" }));
}

/// A login that the database kept from ending counted as a wrong guess.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_login_that_the_disk_ends_is_no_wrong_guess() {
    let disk = Arc::new(Broken::default());
    let toml = format!("{TOML}\n[limits]\nlogin_failures_max = 2\nlogin_failures_per_ip_max = 2");
    let server = TestServer::start_parts(&toml, disk.parts()).await;
    let anon = server.expect_errors("main", server.anon()).await;
    let (_, mut device) = with_passkey(&server).await;
    // What was noted of earlier logins is written by then.
    server.node().get("/api/audit?kind=auth").await.ok();
    for _ in 0..3 {
        disk.fail_commit(1);
        login(&anon, &mut device).await.has_status(500);
        assert!(disk.has_failed());
    }
    login(&anon, &mut device).await.ok();
    for _ in 0..2 {
        let begun = begin(&anon).await;
        answer(&anon, &begun, json!({})).await.problem("credentials_invalid");
    }
    login(&anon, &mut device).await.problem("rate_limited");
}
