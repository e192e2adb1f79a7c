//! One node per test.

use super::{Actor, logs};
use serde_json::json;
use std::sync::Arc;
use tempfile::TempDir;
use tenantry::app::{self, Parts, RunningNode};
use tenantry::config::{Config, RawConfig};
use tenantry::kernel::clock::{Clock, SystemClock};

/// The password of everybody in the suites.
pub(crate) const PASSWORD: &str = "correct-horse-battery";

/// A user who has logged in.
pub(crate) struct User {
    pub(crate) actor: Actor,
    pub(crate) id: String,
    pub(crate) token: String,
}

/// A node on port 0 with an empty folder.
pub(crate) struct TestServer {
    node: Option<RunningNode>,
    folder: Arc<TempDir>,
    key: String,
    http: reqwest::Client,
}

impl TestServer {
    /// Starts with the defaults.
    pub(crate) async fn start() -> Self {
        Self::start_with("", Arc::new(SystemClock)).await
    }

    /// Starts with lines of TOML on top of the defaults, and a clock.
    pub(crate) async fn start_with(toml: &str, clock: Arc<dyn Clock>) -> Self {
        Self::start_parts(toml, Parts { clock, ..Parts::default() }).await
    }

    /// Starts with everything replaced that may be.
    pub(crate) async fn start_parts(toml: &str, parts: Parts) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::open(folder, toml, parts).await
    }

    async fn open(folder: Arc<TempDir>, toml: &str, parts: Parts) -> Self {
        logs::install();
        let config = Self::config(toml, folder.path());
        let node = app::start(config, parts).await.expect("the node starts");
        let key = std::fs::read_to_string(folder.path().join("node.key")).unwrap();
        let _installed_before = rustls::crypto::ring::default_provider().install_default().is_err();
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(64).build().unwrap();
        Self { node: Some(node), folder, key, http }
    }

    fn config(toml: &str, folder: &std::path::Path) -> Config {
        RawConfig::default()
            .with_toml(
                "[http]\nlisten = '127.0.0.1:0'\nworkers = 2\ndrain_timeout_s = 2\n[log]\naccess = false\n[cache]\ndisk_read_deadline_ms = 60000",
                "suite",
            )
            .with_flag("--data-dir", "data.dir", folder.display().to_string())
            .with_toml(toml, "test")
            .validate()
            .unwrap()
    }

    /// Begins to stop on a thread of its own; joining it says how that ended.
    pub(crate) fn stop_in_background(&mut self) -> std::thread::JoinHandle<std::io::Result<()>> {
        let node = self.node.take().expect("a running node");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(node.stop())
        })
    }

    /// Stops and starts again on the same folder.
    pub(crate) async fn restart(self) -> Self {
        self.restart_after(|_| ()).await
    }

    /// Stops and starts again on the same folder with these lines of TOML.
    pub(crate) async fn restart_with(mut self, toml: &str) -> Self {
        self.node.take().expect("a running node").stop().await.unwrap();
        let folder = Arc::clone(&self.folder);
        drop(self);
        Self::open(folder, toml, Parts::default()).await
    }

    /// Stops, lets `meanwhile` have the folder, and starts again on it.
    pub(crate) async fn restart_after(mut self, meanwhile: impl FnOnce(&std::path::Path)) -> Self {
        self.node.take().expect("a running node").stop().await.unwrap();
        let folder = Arc::clone(&self.folder);
        drop(self);
        meanwhile(folder.path());
        Self::open(folder, "", Parts::default()).await
    }

    /// The base address.
    pub(crate) fn url(&self) -> String {
        self.node.as_ref().expect("a running node").url()
    }

    /// Where plain HTTP is sent on to TLS.
    pub(crate) fn redirect_addr(&self) -> std::net::SocketAddr {
        self.node.as_ref().and_then(RunningNode::redirect_addr).expect("a node that redirects")
    }

    /// As SIGHUP does.
    pub(crate) fn reload_certificates(&self) {
        self.node.as_ref().expect("a running node").reload_certificates();
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Nobody.
    pub(crate) fn anon(&self) -> Actor {
        Actor::new(self.http.clone(), self.url())
    }

    /// Whoever may read the folder: the node's administrator.
    pub(crate) fn node(&self) -> Actor {
        self.anon().with_authorization(format!("Node {}", self.key))
    }

    /// `actor`, in whose requests to the tenant `slug` errors are part of the test, as they are in the tenant's file.
    pub(crate) async fn expect_errors(&self, slug: &str, actor: Actor) -> Actor {
        let shown = self.node().get(&format!("/api/tenants/{slug}")).await.ok();
        let id = shown["id"].as_str().unwrap();
        super::expect_error(id);
        actor.with_header("x-request-id", format!("expected-{id}"))
    }

    /// The node's administrator at a node that speaks TLS, as the command line finds it.
    pub(crate) fn by_local_certificate(&self) -> Actor {
        let address: std::net::SocketAddr = self.url().trim_start_matches("https://").parse().unwrap();
        let certificate = std::fs::read(self.folder().join("node.crt")).unwrap();
        let certificate = reqwest::Certificate::from_pem(&certificate).unwrap();
        let builder = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]);
        let http = builder.resolve("node.tenantry.internal", address).build().unwrap();
        let actor = Actor::new(http, format!("https://node.tenantry.internal:{}", address.port()));
        actor.with_authorization(format!("Node {}", self.key))
    }

    /// Waits until the disk tier of the cache, which opens beside the first requests, is in `state`: what is asked of it
    /// before is answered without it.
    pub(crate) async fn until_disk(&self, state: &str) {
        for _ in 0..1_200 {
            let report = self.node().get("/api/admin/performance?type=cache").await.ok();
            if report["disk"]["state"] == state {
                return;
            }
            super::pause(std::time::Duration::from_millis(25)).await;
        }
        panic!("the disk tier was never {state}");
    }

    /// A superuser who has logged in.
    pub(crate) async fn superuser(&self) -> Actor {
        let body = json!({ "email": "root@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD });
        self.node().post("/api/collections/_superusers/records", body).await.created();
        let login = json!({ "identity": "root@example.com", "password": PASSWORD });
        let answer = self.anon().post("/api/collections/_superusers/auth-with-password", login).await.ok();
        self.anon().with_authorization(answer["token"].as_str().unwrap())
    }

    /// Makes a tenant; the answer speaks to it as the node's administrator.
    pub(crate) async fn tenant(&self, slug: &str) -> Actor {
        self.node().post("/api/tenants", json!({ "slug": slug, "name": slug })).await.created();
        self.node().at(slug)
    }

    /// Registers `name` among the users of the tenant that `admin` speaks to, and logs in.
    pub(crate) async fn user(&self, admin: &Actor, name: &str) -> User {
        let email = format!("{name}@example.com");
        let body = json!({ "email": email, "password": PASSWORD, "passwordConfirm": PASSWORD, "name": name });
        let made = admin.post("/api/collections/users/records", body).await.created();
        let guest = admin.clone().without_authorization();
        let login = json!({ "identity": email, "password": PASSWORD });
        let answer = guest.post("/api/collections/users/auth-with-password", login).await.ok();
        let token = answer["token"].as_str().unwrap().to_owned();
        User { actor: guest.with_authorization(&token), id: made["id"].as_str().unwrap().to_owned(), token }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            // Stopping needs an await that Drop does not have; a thread of its own has a runtime to wait on.
            let stopped = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(node.stop())
            });
            let stopped = stopped.join();
            assert!(std::thread::panicking() || matches!(stopped, Ok(Ok(()))), "the node did not stop cleanly");
        }
        let unexpected = logs::take_unexpected();
        assert!(std::thread::panicking() || unexpected.is_empty(), "unexpected ERROR logs: {unexpected:#?}");
    }
}
