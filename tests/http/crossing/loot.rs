//! What a tenant has that could be carried to another one.
//!
//! Keeps true: both tenants are made by the same steps and hold the same kinds of things under the same names, so whatever
//! works at home would be understood abroad. Does not do: carrying it.

use crate::support::{Actor, Answer, Authenticator, PASSWORD, TestServer};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tenantry::kernel::clock::{Clock, ManualClock};
use totp_rs::{Builder, Secret};

/// A moment at the beginning of a step of 30 seconds.
pub(super) const NOON_MS: i64 = 1_800_000_000_000;

/// No limit stands between a replay and what it would find.
pub(super) const TOML: &str = "[http]\npublic_url = 'https://node.test'\ntenant_domains = ['node.test']\n[limits]\nlogin_failures_max = 0\n\
    login_failures_per_ip_max = 0\nmails_asked_max = 0\nmails_asked_per_ip_max = 0\nmails_per_recipient_max = 0";

const USERS: &str = "/api/collections/users";
const ORIGIN: &str = "https://node.test";

/// One tenant and everything of it that names or opens something.
pub(super) struct Loot {
    pub(super) slug: String,
    pub(super) id: String,
    pub(super) mark: String,
    pub(super) admin: Actor,
    pub(super) anon: Actor,
    pub(super) user: Actor,
    pub(super) email: String,
    pub(super) password: String,
    pub(super) user_id: String,
    pub(super) note: String,
    /// A note that the file hangs on.
    pub(super) filed: String,
    pub(super) file: String,
    /// A collection that the other tenant does not have.
    pub(super) only: String,
    pub(super) only_id: String,
    pub(super) only_record: String,
    pub(super) token: String,
    pub(super) refresh: String,
    pub(super) session: String,
    pub(super) file_token: String,
    pub(super) key_id: String,
    pub(super) key: String,
    pub(super) cursor: String,
    pub(super) tag: String,
    pub(super) file_tag: String,
    pub(super) note_tag: String,
    pub(super) otp_id: String,
    pub(super) otp_code: String,
    pub(super) mfa_id: String,
    /// Somebody whose logins need an app.
    pub(super) protected: Actor,
    /// A code of that app that holds now and was not used yet.
    pub(super) totp_code: String,
    /// The first code of an app that `user` has set up and not confirmed.
    pub(super) pending_code: String,
    pub(super) recovery_codes: Vec<String>,
    pub(super) reset: String,
    pub(super) verification: String,
    pub(super) email_change: String,
    pub(super) passkey: String,
    pub(super) challenge: String,
    pub(super) credential: Value,
    pub(super) adding: String,
    pub(super) added: Value,
    pub(super) verifier: String,
    pub(super) state: String,
    pub(super) cache_key: String,
    pub(super) counter: String,
    pub(super) lock: String,
    pub(super) lock_token: String,
    pub(super) idempotency: String,
    /// The id of what was made under the idempotency key.
    pub(super) idempotent: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text")).to_owned()
}

/// The newest mail to `to`, its lines joined.
async fn mail(server: &TestServer, tenant: &str, to: &str, wanted: &str) -> String {
    let folder = server.folder().join("outbox").join(tenant);
    for _ in 0..1_200 {
        let files = std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
        let found = files
            .filter(|file| file.path().extension().is_some_and(|ending| ending == "eml"))
            .filter_map(|file| std::fs::read_to_string(file.path()).ok())
            .map(|text| text.replace("=\r\n", "").replace("=3D", "="))
            .find(|text| text.contains(&format!("To: {to}")) && text.contains(wanted));
        if let Some(found) = found {
            return found;
        }
        crate::support::pause(Duration::from_millis(25)).await;
    }
    panic!("no mail to {to} with {wanted}");
}

/// The token behind the link in the mail to `to`.
async fn mailed_token(server: &TestServer, tenant: &str, to: &str, page: &str) -> String {
    let mail = mail(server, tenant, to, page).await;
    let link = mail.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).find(|link| link.contains(page));
    link.and_then(|link| link.rsplit('/').next()).expect("a link with a token").to_owned()
}

/// The code of the app that was set up by `enrolled`, of now or, where that is spent, of the next step: both hold.
fn code(enrolled: &Value, clock: &ManualClock, steps_ahead: i64) -> String {
    let secret = Secret::try_from_base32(text(&enrolled["secret"])).unwrap().as_ref().to_vec();
    let totp = Builder::new().with_secret(secret).build().unwrap();
    totp.generate(u64::try_from(clock.now_ms() / 1_000 + 30 * steps_ahead).unwrap()).to_string()
}

async fn collections(admin: &Actor, only: &str, mark: &str) -> String {
    let any_user = "@request.auth.id != ''";
    let notes = json!({
        "name": "notes", "type": "base", "listRule": any_user, "viewRule": any_user, "createRule": any_user,
        "updateRule": any_user, "deleteRule": any_user,
        "fields": [{ "name": "text", "type": "text" }, { "name": "scan", "type": "file", "protected": true },
            { "name": "author", "type": "relation", "collectionId": admin.get(USERS).await.ok()["id"] }],
    });
    admin.post("/api/collections", notes).await.created();
    let only = json!({ "name": only, "type": "base", "listRule": any_user, "viewRule": any_user,
        "fields": [{ "name": format!("field_{mark}"), "type": "text" }] });
    let only = text(&admin.post("/api/collections", only).await.created()["id"]);
    let provider = json!({ "name": "github", "clientId": format!("client-{mark}"), "clientSecret": "provider secret" });
    let change = json!({ "otp": { "enabled": true }, "oauth2": { "enabled": true, "providers": [provider] } });
    admin.patch(USERS, change).await.ok();
    let settings = json!({ "meta": { "appName": format!("App of {mark}") } });
    admin.patch("/api/settings", settings).await.ok();
    only
}

/// Makes the tenant `slug`; `mark` is in every text it holds.
pub(super) async fn loot(server: &TestServer, clock: &ManualClock, slug: &str, mark: &str) -> Loot {
    let id = text(&server.node().post("/api/tenants", json!({ "slug": slug, "name": mark })).await.created()["id"]);
    let (admin, anon) = (server.node().at(slug), server.anon().at(slug));
    let only = format!("only_{}", slug.replace("tenant-", ""));
    let only_id = collections(&admin, &only, mark).await;
    let password = format!("{PASSWORD}-{slug}");
    let people = People { anon: &anon, mark, password: &password };
    let ada_id = people.sign_up("ada").await;
    let email = people.email("ada");
    let login = json!({ "identity": email, "password": password });
    let grant = anon.post(&format!("{USERS}/auth-with-password?session=1"), login).await.ok();
    let user = anon.clone().with_authorization(text(&grant["token"]));
    let mut device = Authenticator::new(ORIGIN);
    let proof = json!({ "password": password });
    let begun = user.post(&format!("{USERS}/passkeys/begin"), proof.clone()).await.ok();
    let body = json!({ "challengeId": begun["challengeId"], "credential": device.create(&begun), "name": mark });
    let made = user.post(&format!("{USERS}/passkeys"), body).await.created();
    // The token before has ended with that.
    let user = anon.clone().with_authorization(text(&made["token"]));
    let path = "/api/collections/notes/records";
    let mut note = String::new();
    for n in 0..3 {
        let body = json!({ "text": format!("note {n} of {mark}"), "author": ada_id });
        note = text(&user.post(path, body).await.created()["id"]);
    }
    let scan = Part::bytes(format!("file of {mark}").into_bytes()).file_name(format!("{mark}.txt"));
    let form = Form::new().text("text", format!("filed by {mark}")).part("scan", scan);
    let filed = Answer::of(user.request(Method::POST, path).multipart(form)).await.created();
    let (filed, file) = (text(&filed["id"]), text(&filed["scan"]));
    let field = format!("field_{mark}");
    let body = json!({ field: format!("only in {mark}") });
    let only_record = text(&admin.post(&format!("/api/collections/{only}/records"), body).await.created()["id"]);
    let keyed = user.clone().with_header("idempotency-key", "the-same-in-both");
    let idempotent = text(&keyed.post(path, json!({ "text": "the same in both" })).await.created()["id"]);

    let scopes = json!({ "operations": ["read", "create", "update", "delete"] });
    let key = user.post("/api/keys", json!({ "name": format!("key of {mark}"), "scopes": scopes })).await.created();
    let file_token = text(&user.post("/api/files/token", json!({})).await.ok()["token"]);
    let page = user.get(&format!("{path}?cursor=&perPage=1")).await.ok();
    let tag = user.get(path).await.header("etag").unwrap().to_owned();
    let note_tag = user.get(&format!("{path}/{note}")).await.header("etag").unwrap().to_owned();
    let served = user.get(&format!("/api/files/notes/{filed}/{file}?token={file_token}")).await.has_status(200);
    let file_tag = served.header("etag").unwrap().to_owned();

    let (cache_key, counter, lock) = (format!("key-{slug}"), format!("counter-{slug}"), format!("lock-{slug}"));
    for shared in ["shared", cache_key.as_str()] {
        let value = json!({ "value": format!("value of {mark}"), "ttlMs": 86_400_000 });
        admin.put(&format!("/api/cache/{shared}"), value).await.ok();
    }
    admin.post(&format!("/api/cache/{counter}"), json!({ "increment": 7 })).await.ok();
    let lease = admin.post(&format!("/api/locks/{lock}"), json!({ "leaseMs": 600_000 })).await.ok();

    let adding = user.post(&format!("{USERS}/passkeys/begin"), proof).await.ok();
    let added = Authenticator::new(ORIGIN).create(&adding);
    let begun = anon.post(&format!("{USERS}/auth-with-passkey/begin"), json!({})).await.ok();
    let credential = device.get(&begun);

    let tess = people.register("tess").await;
    let enrolled = tess.post(&format!("{USERS}/totp"), json!({ "password": password })).await.ok();
    let body = json!({ "code": code(&enrolled, clock, 0) });
    let done = tess.post(&format!("{USERS}/totp/confirm"), body).await.ok();
    let login = json!({ "identity": people.email("tess"), "password": password });
    let half = anon.post(&format!("{USERS}/auth-with-password"), login).await.problem("mfa_required");

    let pending = user.post(&format!("{USERS}/totp"), json!({ "password": password })).await.ok();

    people.sign_up("otto").await;
    people.sign_up("rae").await;
    people.sign_up("vera").await;
    let cam = people.register("cam").await;
    let asked = anon.post(&format!("{USERS}/request-otp"), json!({ "email": people.email("otto") })).await.ok();
    let otp = mail(server, &id, &people.email("otto"), "<strong>").await;
    let otp_code = otp.split("<strong>").nth(1).and_then(|rest| rest.split("</strong>").next()).unwrap().to_owned();
    anon.post(&format!("{USERS}/request-password-reset"), json!({ "email": people.email("rae") })).await.gone();
    anon.post(&format!("{USERS}/request-verification"), json!({ "email": people.email("vera") })).await.gone();
    cam.post(&format!("{USERS}/request-email-change"), json!({ "newEmail": people.email("new") })).await.gone();
    let methods = anon.get(&format!("{USERS}/auth-methods")).await.ok();
    let provider = methods["oauth2"]["providers"][0].clone();
    Loot {
        reset: mailed_token(server, &id, &people.email("rae"), "reset").await,
        verification: mailed_token(server, &id, &people.email("vera"), "verification").await,
        email_change: mailed_token(server, &id, &people.email("new"), "change").await,
        email,
        password: password.clone(),
        slug: slug.to_owned(),
        id,
        mark: mark.to_owned(),
        admin,
        token: text(&made["token"]),
        refresh: text(&grant["refreshToken"]),
        session: text(&grant["sessionId"]),
        anon: anon.clone(),
        user,
        user_id: ada_id,
        note,
        filed,
        file,
        only,
        only_id,
        only_record,
        file_token,
        key_id: text(&key["id"]),
        key: text(&key["key"]),
        cursor: text(&page["nextCursor"]),
        tag,
        file_tag,
        note_tag,
        otp_id: text(&asked["otpId"]),
        otp_code,
        mfa_id: text(&half["mfaId"]),
        protected: anon.clone().with_authorization(text(&done["token"])),
        totp_code: code(&enrolled, clock, 1),
        pending_code: code(&pending, clock, 0),
        recovery_codes: serde_json::from_value(done["recoveryCodes"].clone()).unwrap(),
        passkey: text(&made["id"]),
        challenge: text(&begun["challengeId"]),
        credential,
        adding: text(&adding["challengeId"]),
        added,
        verifier: text(&provider["codeVerifier"]),
        state: text(&provider["state"]),
        cache_key,
        counter,
        lock,
        lock_token: text(&lease["token"]),
        idempotency: "the-same-in-both".to_owned(),
        idempotent,
    }
}

/// Who registers at a tenant.
struct People<'a> {
    anon: &'a Actor,
    mark: &'a str,
    password: &'a str,
}

impl People<'_> {
    fn email(&self, name: &str) -> String {
        format!("{name}@{}.test", self.mark)
    }

    /// The new account's id.
    async fn sign_up(&self, name: &str) -> String {
        let body = json!({ "email": self.email(name), "password": self.password, "passwordConfirm": self.password,
            "name": format!("{name} of {}", self.mark) });
        text(&self.anon.post(&format!("{USERS}/records"), body).await.created()["id"])
    }

    /// Somebody new who has logged in.
    async fn register(&self, name: &str) -> Actor {
        self.sign_up(name).await;
        let login = json!({ "identity": self.email(name), "password": self.password });
        let grant = self.anon.post(&format!("{USERS}/auth-with-password"), login).await.ok();
        self.anon.clone().with_authorization(text(&grant["token"]))
    }
}

impl Loot {
    /// What nobody at another tenant may ever be shown.
    pub(super) fn marks(&self) -> Vec<String> {
        let marks: BTreeSet<&String> = [
            &self.mark,
            &self.id,
            &self.user_id,
            &self.note,
            &self.filed,
            &self.only_record,
            &self.session,
            &self.key_id,
            &self.passkey,
            &self.idempotent,
            &self.token,
            &self.refresh,
            &self.file_token,
            &self.key,
            &self.mfa_id,
            &self.otp_id,
            &self.lock_token,
            &self.challenge,
            &self.adding,
            &self.verifier,
            &self.only,
        ]
        .into();
        marks.into_iter().cloned().collect()
    }

    /// Where A's own list comes from.
    pub(super) async fn warm_list(&self) -> String {
        let list = self.user.get("/api/collections/notes/records").await.has_status(200);
        list.header("x-cache").unwrap().to_owned()
    }

    /// Uses up everything once where it belongs: what a replay elsewhere took or spent would be missing here.
    pub(super) async fn is_still_good_at_home(&self) {
        let (anon, user) = (&self.anon, &self.user);
        let notes = "/api/collections/notes/records";
        user.get(&format!("{notes}?perPage=1&cursor={}", self.cursor)).await.ok();
        let tagged = user.clone().with_header("if-none-match", self.tag.as_str());
        tagged.get(notes).await.has_status(304);
        let file = format!("/api/files/notes/{}/{}?token={}", self.filed, self.file, self.file_token);
        let served = anon.get(&file).await.has_status(200);
        assert_eq!(served.body, format!("file of {}", self.mark).into_bytes());
        anon.clone().with_header("if-none-match", self.file_tag.as_str()).get(&file).await.has_status(304);
        let keyed = user.clone().with_header("idempotency-key", self.idempotency.as_str());
        let again = keyed.post(notes, json!({ "text": "the same in both" })).await.created();
        assert_eq!(again["id"], json!(self.idempotent), "the receipt is A's own");
        anon.clone().with_authorization(self.key.as_str()).get(notes).await.ok();
        let renew = json!({ "token": self.lock_token, "leaseMs": 600_000 });
        self.admin.patch(&format!("/api/locks/{}", self.lock), renew).await.ok();
        self.admin.get(&format!("/api/collections/{}/records/{}", self.only, self.only_record)).await.ok();
        let tagged = user.clone().with_header("if-match", self.note_tag.as_str());
        tagged.patch(&format!("{notes}/{}", self.note), json!({ "text": "changed at home" })).await.ok();

        let body = json!({ "mfaId": self.mfa_id, "code": self.totp_code });
        anon.post(&format!("{USERS}/auth-with-totp"), body).await.ok();
        let login = json!({ "identity": format!("tess@{}.test", self.mark), "password": self.password });
        let half = anon.post(&format!("{USERS}/auth-with-password"), login).await.problem("mfa_required");
        let body = json!({ "mfaId": half["mfaId"], "code": self.recovery_codes[0] });
        anon.post(&format!("{USERS}/auth-with-recovery-code"), body).await.ok();
        let body = json!({ "password": self.password, "code": self.recovery_codes[1] });
        self.protected.post(&format!("{USERS}/totp/disable"), body).await.ok();
        let body = json!({ "otpId": self.otp_id, "password": self.otp_code });
        anon.post(&format!("{USERS}/auth-with-otp"), body).await.ok();
        let body = json!({ "challengeId": self.adding, "credential": self.added, "name": "second" });
        // The token before ends with that.
        let grant = user.post(&format!("{USERS}/passkeys"), body).await.created();
        let user = anon.clone().with_authorization(text(&grant["token"]));
        let body = json!({ "challengeId": self.challenge, "credential": self.credential });
        anon.post(&format!("{USERS}/auth-with-passkey"), body).await.ok();
        anon.post(&format!("{USERS}/confirm-verification"), json!({ "token": self.verification })).await.gone();
        let body = json!({ "token": self.email_change, "password": self.password });
        anon.post(&format!("{USERS}/confirm-email-change"), body).await.gone();
        let body = json!({ "token": self.reset, "password": "another-horse", "passwordConfirm": "another-horse" });
        anon.post(&format!("{USERS}/confirm-password-reset"), body).await.gone();
        anon.post(&format!("{USERS}/auth-refresh"), json!({ "refreshToken": self.refresh })).await.ok();
        user.post(&format!("{USERS}/totp/confirm"), json!({ "code": self.pending_code })).await.ok();
    }
}
