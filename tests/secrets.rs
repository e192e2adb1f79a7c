//! Secrets never appear where others read: one run of the real program at its most talkative, everything it says kept,
//! and every secret it was given or gave out looked for.
//!
//! Keeps true: an answer that hands a secret to its owner (a login, a new key) is told apart from every other, and is the
//! only thing left out; the search itself is checked on what must be found. Does not do: the files of the data folder,
//! whose secrets are hashed or sealed and which only their owner may read. Beside it: a panic in a request tells none either,
//! and what an exported file holds signs no token.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: a panic is the failure")]

#[path = "http/support/authenticator.rs"]
mod authenticator;

use authenticator::Authenticator;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use reqwest::{Client, Method};
use ring::{hkdf, hmac};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tenantry::app::{self, Parts};
use tenantry::config::RawConfig;
use tenantry::kernel::random::{Random, SystemRandom};

const PASSWORD: &str = "pw-4f1c9d-of-ada-lovelace";
const USERS: &str = "/api/collections/users";
/// Where passkeys are at home.
const ORIGIN: &str = "https://node.test";

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command.current_dir(folder).env("NO_COLOR", "1").env("TENANTRY__LOG__FILTER", "trace");
    command.env("TENANTRY__HTTP__METRICS_TOKEN", "metrics-7c2e1f-token");
    command.env("TENANTRY__HTTP__PUBLIC_URL", ORIGIN);
    // Where a tenant's mail server would be that is not there.
    command.env("TENANTRY__OUTBOUND__PRIVATE_ALLOWED", "127.0.0.1");
    command.env("TENANTRY__CACHE__PURGE_URL", "http://127.0.0.1:9/purge");
    command.env("TENANTRY__CACHE__PURGE_SECRET", "purge-91ab3c-secret");
    command
}

/// A running node, what it said, and what was found out on the way.
struct Run {
    child: Child,
    url: String,
    http: Client,
    /// Everything that others may read, by where it came from.
    said: Vec<(String, String)>,
    /// Files of whole tenants, which hold digests and sealed texts and still no secret.
    files: Vec<(String, String)>,
    stderr: Arc<Mutex<String>>,
    secrets: BTreeMap<String, String>,
}

impl Run {
    fn start(folder: &Path) -> Self {
        let args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"];
        let mut command = program(folder);
        command.args(args);
        Self::of(command)
    }

    /// The run of a program that says where it answers.
    fn of(mut command: Command) -> Self {
        tenantry::tls::install_provider();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let stderr = Arc::new(Mutex::new(String::new()));
        let url = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the node ended: {}", stderr.lock().unwrap());
            stderr.lock().unwrap().push_str(&line);
            if let Some((_, rest)) = line.split_once("answers at ") {
                break rest.split(". ").next().unwrap().to_owned();
            }
        };
        let sink = Arc::clone(&stderr);
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(read @ 1..) = lines.read(&mut buffer) {
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        let http = Client::builder().no_proxy().build().unwrap();
        Self { child, url, http, said: Vec::new(), files: Vec::new(), stderr, secrets: BTreeMap::new() }
    }

    fn secret(&mut self, name: &str, value: &str) {
        assert!(value.len() >= 6, "{name} is too short to be looked for: {value:?}");
        self.secrets.insert(name.to_owned(), value.to_owned());
    }

    /// Sends; the answer's headers and body as text.
    async fn send(&self, method: Method, path: &str, authorization: &str, body: &Value) -> (String, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let head = format!("{} {:?}", answer.status(), answer.headers());
        let text = answer.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        (format!("{head}\n{text}"), body)
    }

    /// A request whose answer anybody may read.
    async fn ask(&mut self, method: Method, path: &str, authorization: &str, body: Value) -> Value {
        let (text, answer) = self.send(method.clone(), path, authorization, &body).await;
        self.said.push((format!("{method} {path}"), text));
        answer
    }

    /// A request whose answer hands a secret to whoever asked.
    async fn receive(&self, path: &str, authorization: &str, body: Value) -> Value {
        let (text, answer) = self.send(Method::POST, path, authorization, &body).await;
        assert!(text.starts_with("200"), "{path}: {text}");
        answer
    }

    fn keep_grant(&mut self, name: &str, grant: &Value) -> String {
        let token = grant["token"].as_str().unwrap().to_owned();
        // The signature alone: the rest of a token is no secret, and a log may name whom it is for.
        self.secret(&format!("token of {name}"), token.rsplit('.').next().unwrap());
        if let Some(refresh) = grant["refreshToken"].as_str() {
            self.secret(&format!("refresh token of {name}"), refresh.rsplit('.').next().unwrap());
        }
        token
    }

    /// What the newest mail to `to` holds between `from` and `until`.
    async fn mailed(&self, folder: &Path, to: &str, from: &str, until: &str) -> String {
        let marked = format!("To: {to}");
        for _ in 0..1_200 {
            let mut mails = Vec::new();
            texts(&folder.join("data/outbox"), &mut mails);
            mails.retain(|(_, text)| text.contains(&marked) && text.contains(from));
            mails.sort();
            if let Some((_, text)) = mails.pop() {
                let text = text.replace("=\r\n", "").replace("=3D", "=");
                let rest = text.split(from).nth(1).unwrap();
                return rest.split(until).next().unwrap().to_owned();
            }
            #[expect(clippy::disallowed_methods, reason = "what another process does cannot be waited on")]
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no mail to {to} with {from:?}");
    }

    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn texts(folder: &Path, found: &mut Vec<(std::path::PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            texts(&entry.path(), found);
        } else if let Ok(text) = std::fs::read_to_string(entry.path()) {
            found.push((entry.path(), text));
        }
    }
}

/// Accounts, sessions, factors, keys, mails: everything that makes a secret.
async fn live(run: &mut Run, folder: &Path) -> (String, String) {
    let node = format!("Node {}", std::fs::read_to_string(folder.join("data/node.key")).unwrap().trim());
    run.secret("key of the folder", node.trim_start_matches("Node "));
    let account =
        |password: &str| json!({ "email": "ada@example.com", "password": password, "passwordConfirm": password });
    run.secret("password of the superuser", "pw-77aa01-of-the-root");
    let root = json!({ "email": "root@example.com", "password": "pw-77aa01-of-the-root", "passwordConfirm": "pw-77aa01-of-the-root" });
    run.ask(Method::POST, "/api/collections/_superusers/records", &node, root).await;
    let login = json!({ "identity": "root@example.com", "password": "pw-77aa01-of-the-root" });
    let grant = run.receive("/api/collections/_superusers/auth-with-password?session=1", "", login).await;
    let root = run.keep_grant("the superuser", &grant);

    run.secret("first password", PASSWORD);
    let made = run.ask(Method::POST, &format!("{USERS}/records"), "", account(PASSWORD)).await;
    let id = made["id"].as_str().unwrap().to_owned();
    let login = json!({ "identity": "ada@example.com", "password": PASSWORD });
    let grant = run.receive(&format!("{USERS}/auth-with-password?session=1"), "", login.clone()).await;
    let token = run.keep_grant("ada", &grant);
    let refresh = json!({ "refreshToken": grant["refreshToken"] });
    let again = run.receive(&format!("{USERS}/auth-refresh"), "", refresh.clone()).await;
    run.keep_grant("ada, refreshed", &again);
    // Used twice: the family ends, which is told by a refusal and a line in the log.
    run.ask(Method::POST, &format!("{USERS}/auth-refresh"), "", refresh).await;
    for (name, wrong) in [("wrong password", "pw-wrong-but-telling-1"), ("typo", "pw-4f1c9d-of-ada-lovelac")] {
        run.secret(name, wrong);
        let login = json!({ "identity": "ada@example.com", "password": wrong });
        run.ask(Method::POST, &format!("{USERS}/auth-with-password"), "", login).await;
    }
    run.secret("broken body", "pw-in-a-broken-body");
    let broken = run.http.post(format!("{}{USERS}/auth-with-password", run.url));
    let broken = broken.header("content-type", "application/json").body("{\"password\": \"pw-in-a-broken-body\", ");
    let text = broken.send().await.unwrap().text().await.unwrap();
    run.said.push(("a broken body".to_owned(), text));
    let refused = format!("{USERS}/records/{id}");
    run.secret("refused password", "pw-new-1");
    let change = json!({ "oldPassword": "pw-wrong-but-telling-1", "password": "pw-new-1", "passwordConfirm": "differs-entirely" });
    run.ask(Method::PATCH, &refused, &token, change).await;

    let grant = run.receive(&format!("{USERS}/auth-with-password"), "", login.clone()).await;
    let token = run.keep_grant("ada, again", &grant);
    let key = json!({ "name": "reader", "scopes": { "operations": ["read"] } });
    let key = run.receive("/api/keys", &token, key).await["key"].as_str().unwrap().to_owned();
    run.secret("API key", key.rsplit('.').next().unwrap());
    run.ask(Method::GET, &format!("{USERS}/records"), &key, Value::Null).await;
    run.ask(Method::DELETE, &refused, &key, Value::Null).await;
    let file = run.receive("/api/files/token", &token, json!({})).await["token"].as_str().unwrap().to_owned();
    run.secret("file token", file.rsplit('.').next().unwrap());

    let reset = json!({ "email": "ada@example.com" });
    run.ask(Method::POST, &format!("{USERS}/request-password-reset"), "", reset.clone()).await;
    let reset = run.mailed(folder, "ada@example.com", "confirm-password-reset/", "\"").await;
    run.secret("reset token", reset.rsplit('.').next().unwrap());
    run.ask(Method::POST, &format!("{USERS}/request-verification"), "", json!({ "email": "ada@example.com" })).await;
    let verification = run.mailed(folder, "ada@example.com", "confirm-verification/", "\"").await;
    run.secret("verification token", verification.rsplit('.').next().unwrap());
    // Confirmed by the link, or the first code by mail would end the session that the rest needs.
    let confirmed = json!({ "token": verification });
    run.ask(Method::POST, &format!("{USERS}/confirm-verification"), "", confirmed).await;

    let enable = json!({ "otp": { "enabled": true, "duration": 300, "length": 8 } });
    run.ask(Method::PATCH, USERS, &root, enable).await;
    let asked = run.ask(Method::POST, &format!("{USERS}/request-otp"), "", json!({ "email": "ada@example.com" })).await;
    let code = run.mailed(folder, "ada@example.com", "<strong>", "</strong>").await;
    run.secret("one-time code", &code);
    let used = json!({ "otpId": asked["otpId"], "password": code });
    let grant = run.receive(&format!("{USERS}/auth-with-otp"), "", used.clone()).await;
    run.keep_grant("ada, by code", &grant);
    run.ask(Method::POST, &format!("{USERS}/auth-with-otp"), "", used).await;

    let secret = json!({ "oauth2": { "enabled": true, "providers": [
        { "name": "google", "clientId": "client-of-acme", "clientSecret": "cs-5512ef-of-google" }] } });
    run.secret("client secret", "cs-5512ef-of-google");
    run.ask(Method::PATCH, USERS, &root, secret).await;
    share_blueprint(run, &root).await;

    let enrolled = run.receive(&format!("{USERS}/totp"), &token, json!({ "password": PASSWORD })).await;
    let secret = enrolled["secret"].as_str().unwrap().to_owned();
    run.secret("TOTP secret", &secret);
    let totp = totp_rs::Secret::try_from_base32(&secret).unwrap().as_ref().to_vec();
    let totp = totp_rs::Builder::new().with_secret(totp).build().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the code of an authenticator app is of the real moment")]
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let confirm = json!({ "code": totp.generate(now_s).to_string() });
    let done = run.receive(&format!("{USERS}/totp/confirm"), &token, confirm).await;
    let token = run.keep_grant("ada, with an app", &done);
    for (number, code) in done["recoveryCodes"].as_array().unwrap().clone().iter().enumerate() {
        run.secret(&format!("recovery code {number}"), code.as_str().unwrap());
    }
    let token = use_a_passkey(run, token).await;
    (root, token)
}

/// Adds a passkey to ada's account and logs in with it; the token that goes on.
async fn use_a_passkey(run: &mut Run, token: String) -> String {
    let mut device = Authenticator::new(ORIGIN);
    let begun = run.receive(&format!("{USERS}/passkeys/begin"), &token, json!({ "password": PASSWORD })).await;
    run.secret("name of adding a passkey", begun["challengeId"].as_str().unwrap());
    let credential = device.create(&begun);
    let body = json!({ "challengeId": begun["challengeId"], "credential": credential, "name": "Phone" });
    let added = run.receive(&format!("{USERS}/passkeys"), &token, body).await;
    let token = run.keep_grant("ada, with a passkey", &added);
    let begun = run.receive(&format!("{USERS}/auth-with-passkey/begin"), "", json!({})).await;
    run.secret("name of a login by passkey", begun["challengeId"].as_str().unwrap());
    let credential = device.get(&begun);
    run.secret("signature of a passkey", credential["response"]["signature"].as_str().unwrap());
    let login = json!({ "challengeId": begun["challengeId"], "credential": credential });
    let grant = run.receive(&format!("{USERS}/auth-with-passkey"), "", login.clone()).await;
    run.keep_grant("ada, by passkey", &grant);
    run.ask(Method::POST, &format!("{USERS}/auth-with-passkey"), "", login).await;
    run.ask(Method::GET, &format!("{USERS}/passkeys"), &token, Value::Null).await;
    token
}

/// Two registrations that nobody is told about, one of which is completed.
async fn register_quietly(run: &mut Run, root: &str, folder: &Path) {
    run.ask(Method::POST, "/api/tenants", root, json!({ "slug": "quiet", "name": "Quiet" })).await;
    let bob = json!({ "email": "bob@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD });
    run.ask(Method::POST, &format!("/t/quiet{USERS}/records"), root, bob).await;
    run.ask(Method::PATCH, &format!("/t/quiet{USERS}"), root, json!({ "quietRegistration": { "enabled": true } }))
        .await;
    run.secret("password of a registration", "pw-2d80aa-of-a-registration");
    for email in ["bob@example.com", "eve@example.com", "fay@example.com"] {
        let account = json!({ "email": email, "password": "pw-2d80aa-of-a-registration",
            "passwordConfirm": "pw-2d80aa-of-a-registration" });
        let answer = run.ask(Method::POST, &format!("/t/quiet{USERS}/records"), "", account).await;
        assert_eq!(answer["code"], "confirmation_mailed", "{answer}");
    }
    for (name, email) in [("completed", "eve@example.com"), ("waiting", "fay@example.com")] {
        let token = run.mailed(folder, email, "confirm-verification/", "\"").await;
        run.secret(&format!("token of a {name} registration"), token.rsplit('.').next().unwrap());
        if name == "completed" {
            let confirm = json!({ "token": token, "password": "pw-2d80aa-of-a-registration" });
            run.ask(Method::POST, &format!("/t/quiet{USERS}/confirm-verification"), "", confirm).await;
        }
    }
    let told = run.mailed(folder, "bob@example.com", "confirm-password-reset/", "\"").await;
    run.secret("reset token for whoever has the address", told.rsplit('.').next().unwrap());
}

/// A blueprint with a client secret, a tenant made from it and a copy of that, and the files of both.
async fn share_blueprint(run: &mut Run, root: &str) {
    run.secret("client secret of a blueprint", "cs-80d7aa-of-a-blueprint");
    run.secret("token secret of a blueprint", "ts-1b99e2-of-a-blueprint-with-thirty-letters");
    let provider =
        json!({ "name": "google", "clientId": "client-of-blueprint", "clientSecret": "cs-80d7aa-of-a-blueprint" });
    let members = json!({ "name": "members", "type": "auth", "oauth2": { "enabled": true, "providers": [provider] },
        "authToken": { "duration": 600, "secret": "ts-1b99e2-of-a-blueprint-with-thirty-letters" } });
    let blueprint = json!({ "name": "club", "version": 1, "title": "Club", "collections": [members] });
    run.ask(Method::POST, "/api/blueprints", root, blueprint).await;
    let shown = run.ask(Method::GET, "/api/blueprints/club", root, Value::Null).await;
    assert_eq!(shown["collections"][0]["oauth2"]["providers"][0]["clientId"], "client-of-blueprint");
    run.ask(Method::GET, "/api/blueprints/club?version=1", root, Value::Null).await;
    run.ask(Method::POST, "/api/tenants", root, json!({ "slug": "club", "name": "Club", "blueprint": "club" })).await;
    let again = json!({ "name": "club", "dryRun": false });
    run.ask(Method::POST, "/api/tenants/club/blueprint", root, again).await;
    run.ask(Method::POST, "/api/tenants/club/clone", root, json!({ "slug": "club-two" })).await;
    for tenant in ["main", "club", "club-two"] {
        run.ask(Method::GET, &format!("/t/{tenant}/api/collections/members"), root, Value::Null).await;
        let (text, _) = run.send(Method::GET, &format!("/api/tenants/{tenant}/export"), root, &Value::Null).await;
        assert!(
            text.starts_with("200") && text.len() > 4_096,
            "the file of {tenant}: {}",
            &text[..200.min(text.len())]
        );
        run.files.push((format!("the file of {tenant}"), text));
    }
}

/// Everything that is there to be read, by the most powerful reader.
async fn read_everything(run: &mut Run, root: &str, token: &str, folder: &Path) {
    run.ask(Method::POST, "/api/tenants", root, json!({ "slug": "acme", "name": "Acme" })).await;
    // A mail server that is not there, so that every attempt is told in the log.
    run.secret("SMTP password", "smtp-e07b44-password");
    let smtp = json!({ "smtp": { "enabled": true, "host": "127.0.0.1", "port": 9, "username": "mailer", "encryption": "none",
        "password": "smtp-e07b44-password" }, "meta": { "senderName": "Acme", "senderAddress": "acme@example.com" } });
    run.ask(Method::PATCH, "/t/acme/api/settings", root, smtp).await;
    let bob = json!({ "email": "bob@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD });
    run.ask(Method::POST, &format!("/t/acme{USERS}/records"), "", bob).await;
    let reset = json!({ "email": "bob@example.com" });
    run.ask(Method::POST, &format!("/t/acme{USERS}/request-password-reset"), "", reset).await;
    register_quietly(run, root, folder).await;
    run.ask(Method::POST, "/api/tenants/acme/clone", root, json!({ "slug": "acme-two" })).await;
    for tenant in ["main", "acme", "acme-two", "quiet"] {
        let (text, _) = run.send(Method::GET, &format!("/api/tenants/{tenant}/export"), root, &Value::Null).await;
        assert!(text.starts_with("200"), "the file of {tenant}");
        run.files.push((format!("the later file of {tenant}"), text));
    }
    for path in [
        "/t/quiet/api/collections/_registrations/records",
        "/t/quiet/api/collections/_registrations/export",
        "/t/quiet/api/changes?limit=1000",
        "/t/quiet/api/audit?limit=1000",
        "/t/acme/api/changes?limit=1000",
        "/t/acme-two/api/settings",
        "/t/acme-two/api/changes?limit=1000",
        "/t/acme/api/settings",
        "/t/acme/api/audit?limit=1000",
        "/t/acme/api/collections/_settings/records",
        "/api/settings",
        "/api/audit?limit=1000",
        "/api/audit?limit=1000&format=ndjson",
        "/api/admin/audit?limit=1000",
        "/api/changes?limit=1000",
        "/api/collections",
        "/api/collections/users",
        "/api/collections/users/records",
        "/api/collections/users/export",
        "/api/collections/users/export?format=csv",
        "/api/collections/users/auth-methods",
        "/api/collections/_superusers/records",
        "/api/collections/_sessions/records",
        "/api/collections/_otps/records",
        "/api/collections/_apiKeys/records",
        "/api/collections/_settings/records",
        "/api/keys",
        "/api/tenants",
        "/api/admin/usage",
        "/api/admin/doctor",
        "/api/admin/cache/stats",
        "/api/admin/performance?type=cache",
        "/health",
    ] {
        run.ask(Method::GET, path, root, Value::Null).await;
        run.ask(Method::GET, path, token, Value::Null).await;
        run.ask(Method::GET, path, "", Value::Null).await;
    }
    run.ask(Method::GET, "/metrics", "Bearer metrics-7c2e1f-token", Value::Null).await;
    run.ask(Method::GET, "/metrics", "Bearer metrics-wrong", Value::Null).await;
    for args in [
        &["config", "print"][..],
        &["audit", "export", "--tenant", "main"],
        &["audit", "export", "--tenant", "_node", "--format", "csv"],
        &["collection", "export", "--tenant", "main"],
        &["records", "export", "users", "--tenant", "main"],
        &["tenant", "show", "main"],
        &["usage"],
        &["doctor"],
    ] {
        let output = program(folder).args(args).args(["--data-dir", "data"]).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
        run.said.push((format!("tenantry {}", args.join(" ")), said));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_logs_answers_exports_audit_metrics_or_configuration() {
    let folder = TempDir::new().unwrap();
    let mut run = Run::start(folder.path());
    run.secret("metrics token", "metrics-7c2e1f-token");
    run.secret("purge secret", "purge-91ab3c-secret");
    let (root, token) = live(&mut run, folder.path()).await;
    read_everything(&mut run, &root, &token, folder.path()).await;
    run.stop();
    let stderr = run.stderr.lock().unwrap().clone();
    let master = std::fs::read(folder.path().join("data/node.secret")).unwrap();
    let master_text = String::from_utf8_lossy(&master).trim().to_owned();
    run.secret("master secret", &master_text);

    // The search can find: the log is that of every level, and whom it speaks of is in it.
    for level in ["TRACE", "DEBUG", " INFO"] {
        assert!(stderr.contains(level), "no {level} line was captured");
    }
    let everything: String = run.said.iter().map(|(_, text)| text.as_str()).collect();
    assert!(everything.contains("ada@example.com") && everything.contains("client-of-acme"));
    assert!(everything.contains("\"username\":\"mailer\""), "the mail settings were taken");

    run.said.push(("the log".to_owned(), stderr));
    let mut found = Vec::new();
    // What a collection adds to the keys of tokens is in its own file and nowhere else; it signs nothing alone.
    let in_files = run.secrets.iter().filter(|(name, _)| !name.starts_with("token secret"));
    let files = run.files.iter().flat_map(|file| in_files.clone().map(move |secret| (file, secret)));
    let said = run.said.iter().flat_map(|said| run.secrets.iter().map(move |secret| (said, secret)));
    for ((place, text), (name, secret)) in said.chain(files) {
        if let Some(at) = text.find(secret.as_str()) {
            let (from, to) = (at.saturating_sub(160), (at + 60).min(text.len()));
            found.push(format!("{name} in {place}: …{}…", String::from_utf8_lossy(&text.as_bytes()[from..to])));
        }
    }
    for (place, text) in &run.said {
        for mark in ["$argon2id$", "\"tokenKey\":\"", "\"familyHash\":\"", "\"secretHash\":\"", "PRIVATE KEY"] {
            if text.contains(mark) {
                found.push(format!("{mark} in {place}"));
            }
        }
    }
    assert!(found.is_empty(), "{} secrets were told:\n{}", found.len(), found.join("\n"));
}

/// What a tenant's exported file says of an account: its id, token key, and the secret of its collection.
fn read_keys(file: &Path) -> (String, String, String, String) {
    let database = rusqlite::Connection::open(file).unwrap();
    let definition: String = database
        .query_row("SELECT definition FROM _tn_collection WHERE definition LIKE '%\"users\"%'", [], |row| row.get(0))
        .unwrap();
    let definition: Value = serde_json::from_str(&definition).unwrap();
    let fields = definition["fields"].as_array().unwrap();
    let token_key = fields.iter().find(|field| field["name"] == "tokenKey").unwrap();
    let (table, column) = (definition["id"].as_str().unwrap(), token_key["number"].as_u64().unwrap());
    let sql = format!("SELECT id, f{column} FROM \"c_{table}\" LIMIT 1");
    let (id, key): (String, String) = database.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    (table.to_owned(), id, key, definition["auth"]["tokenSecret"].as_str().unwrap().to_owned())
}

fn forge(claims: &Value, key: &[u8]) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// What the node adds to the key for `tenant`, made from its secret as the node makes it.
fn node_part(folder: &Path, tenant: &str) -> [u8; 32] {
    let text = std::fs::read_to_string(folder.join("data/node.secret")).unwrap();
    let secret = STANDARD_NO_PAD.decode(text.trim().split_once(':').unwrap().1).unwrap();
    let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tenantry/seal/v1").extract(&secret);
    let mut part = [0; 32];
    let info = [b"token/", tenant.as_bytes()];
    root.expand(&info, hmac::HMAC_SHA256).unwrap().fill(&mut part).unwrap();
    part
}

/// Whoever got a tenant's file, a backup say, could sign tokens that the tenant it came from took.
#[tokio::test(flavor = "multi_thread")]
async fn an_exported_file_signs_no_token_of_the_living_tenant() {
    let folder = TempDir::new().unwrap();
    let mut run = Run::start(folder.path());
    let node = format!("Node {}", std::fs::read_to_string(folder.path().join("data/node.key")).unwrap().trim());
    let ada = json!({ "email": "ada@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD });
    let made = run.ask(Method::POST, &format!("{USERS}/records"), &node, ada).await;
    let tenant = run.ask(Method::GET, "/api/tenants/main", &node, Value::Null).await["id"].as_str().unwrap().to_owned();
    let export = run.http.get(format!("{}/api/tenants/main/export", run.url)).header("authorization", &node);
    let file = folder.path().join("main.tenant");
    std::fs::write(&file, export.send().await.unwrap().bytes().await.unwrap()).unwrap();
    let (collection, id, key, secret) = read_keys(&file);
    assert_eq!(made["id"], json!(id));
    let claims = json!({ "id": id, "type": "auth", "collectionId": collection, "exp": 4_000_000_000_u32, "iat": 1,
        "refreshable": true, "aud": tenant });
    let own = format!("{USERS}/records/{id}");
    for parts in [vec![&key, &secret], vec![&secret], vec![&key], vec![&secret, &key]] {
        let joined: String = parts.into_iter().map(String::as_str).collect();
        let answer = run.ask(Method::GET, &own, &forge(&claims, joined.as_bytes()), Value::Null).await;
        assert_eq!(answer["status"], 404, "{answer}");
    }
    // The same with the node's part is the token: nothing else was missing.
    let whole = [&node_part(folder.path(), &tenant)[..], key.as_bytes(), secret.as_bytes()].concat();
    let answer = run.ask(Method::GET, &own, &forge(&claims, &whole), Value::Null).await;
    assert_eq!(answer["email"], "ada@example.com", "{answer}");
    run.stop();
}

/// Randomness that fails whoever answers requests, once a file says so.
#[derive(Debug)]
struct Broken {
    armed: PathBuf,
    whole: SystemRandom,
}

impl Random for Broken {
    fn fill(&self, bytes: &mut [u8]) {
        let answers = std::thread::current().name().is_some_and(|name| name.contains("actix"));
        assert!(!answers || !self.armed.exists(), "no randomness is left");
        self.whole.fill(bytes);
    }
}

/// The node of the test below, in a process of its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by a_panic_in_a_request_tells_no_secret"]
async fn a_node_whose_randomness_breaks() {
    let folder = PathBuf::from(std::env::var_os("BROKEN_NODE_FOLDER").unwrap());
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::stderr).init();
    let config = RawConfig::default().with_toml("[http]\nlisten = '127.0.0.1:0'\nworkers = 1", "test");
    let config = config.with_flag("--data-dir", "data.dir", folder.join("data").display().to_string());
    let random = Arc::new(Broken { armed: folder.join("armed"), whole: SystemRandom::default() });
    let node = app::start(config.validate().unwrap(), Parts { random, ..Parts::default() }).await.unwrap();
    eprintln!("answers at {}. ", node.url());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_request_tells_no_secret() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "a_node_whose_randomness_breaks"]);
    command.env("BROKEN_NODE_FOLDER", folder.path()).env("RUST_BACKTRACE", "full");
    let mut run = Run::of(command);
    let node = format!("Node {}", std::fs::read_to_string(folder.path().join("data/node.key")).unwrap().trim());
    run.secret("key of the folder", node.trim_start_matches("Node "));
    run.secret("first password", PASSWORD);
    let account = json!({ "email": "ada@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD });
    run.ask(Method::POST, &format!("{USERS}/records"), &node, account).await;
    let login = json!({ "identity": "ada@example.com", "password": PASSWORD });
    let grant = run.receive(&format!("{USERS}/auth-with-password"), "", login.clone()).await;
    let token = run.keep_grant("ada", &grant);
    std::fs::write(folder.path().join("armed"), "").unwrap();
    run.secret("password of somebody new", "pw-51d7be-of-somebody-new");
    let other = json!({ "email": "bob@example.com", "password": "pw-51d7be-of-somebody-new", "passwordConfirm": "pw-51d7be-of-somebody-new" });
    let change = json!({ "oldPassword": PASSWORD, "password": "pw-51d7be-of-somebody-new", "passwordConfirm": "pw-51d7be-of-somebody-new" });
    let own = format!("{USERS}/records/{}", grant["record"]["id"].as_str().unwrap());
    for (method, path, authorization, body) in [
        (Method::POST, format!("{USERS}/auth-with-password?session=1"), "", login),
        (Method::POST, format!("{USERS}/totp"), token.as_str(), json!({ "password": PASSWORD })),
        (Method::POST, "/api/keys".to_owned(), token.as_str(), json!({ "name": "reader" })),
        (Method::POST, format!("{USERS}/records"), node.as_str(), other),
        (Method::PATCH, own, token.as_str(), change),
    ] {
        run.ask(method, &path, authorization, body).await;
    }
    let panicked = run.said.iter().filter(|(_, text)| text.starts_with("500")).count();
    assert!(panicked >= 3, "{:#?}", run.said);
    let stderr = run.stderr.lock().unwrap().clone();
    assert!(stderr.contains("no randomness is left") && stderr.contains("TRACE"), "the panics are in the log");
    run.said.push(("the log".to_owned(), stderr));
    for (place, text) in &run.said {
        for (name, secret) in &run.secrets {
            assert!(!text.contains(secret.as_str()), "{name} in {place}");
        }
    }
}
