//! One node per test.

use super::{Actor, logs};
use std::sync::Arc;
use tempfile::TempDir;
use tenantry::app::{self, Parts, RunningNode};
use tenantry::config::{Config, RawConfig};
use tenantry::kernel::clock::{Clock, SystemClock};
use tenantry::kernel::random::SystemRandom;

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
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::open(folder, toml, clock).await
    }

    async fn open(folder: Arc<TempDir>, toml: &str, clock: Arc<dyn Clock>) -> Self {
        logs::install();
        let config = Self::config(toml, folder.path());
        let parts = Parts { clock, random: Arc::new(SystemRandom::default()), ..Parts::default() };
        let node = app::start(config, parts).await.expect("the node starts");
        let key = std::fs::read_to_string(folder.path().join("node.key")).unwrap();
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(64).build().unwrap();
        Self { node: Some(node), folder, key, http }
    }

    fn config(toml: &str, folder: &std::path::Path) -> Config {
        RawConfig::default()
            .with_toml(
                "[http]\nlisten = '127.0.0.1:0'\nworkers = 2\ndrain_timeout_s = 2\n[log]\naccess = false",
                "suite",
            )
            .with_flag("--data-dir", "data.dir", folder.display().to_string())
            .with_toml(toml, "test")
            .validate()
            .unwrap()
    }

    /// Stops and starts again on the same folder.
    pub(crate) async fn restart(mut self) -> Self {
        self.node.take().expect("a running node").stop().await.unwrap();
        let folder = Arc::clone(&self.folder);
        drop(self);
        Self::open(folder, "", Arc::new(SystemClock)).await
    }

    /// The base address.
    pub(crate) fn url(&self) -> String {
        self.node.as_ref().expect("a running node").url()
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
