//! Secrets never appear where others read: one run of the real program at its most talkative, everything it says kept,
//! and every secret it was given or gave out looked for.
//!
//! Keeps true: an answer that hands a secret to its owner (a login, a new key) is told apart from every other, and is the
//! only thing left out; the search itself is checked on what must be found. Does not do: the files of the data folder,
//! whose secrets are hashed or sealed and which only their owner may read.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: a panic is the failure")]

use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const PASSWORD: &str = "pw-4f1c9d-of-ada-lovelace";
const USERS: &str = "/api/collections/users";

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command.current_dir(folder).env("NO_COLOR", "1").env("TENANTRY__LOG__FILTER", "trace");
    command.env("TENANTRY__HTTP__METRICS_TOKEN", "metrics-7c2e1f-token");
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
        tenantry::tls::install_provider();
        let args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"];
        let mut child = program(folder).args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
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
    (root, token)
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
    for path in [
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
    // What signs a collection's tokens is in the collection's own file; it goes nowhere else.
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
