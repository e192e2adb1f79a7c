//! Certificates that the node obtains by itself (ACME, RFC 8555), for configured names and for those of tenants.
//!
//! Keeps true: nothing is asked for a name that the node does not serve, however often clients name it; one order at a
//! time and a bounded number per hour; a failure is tried again later and later. Account key and certificates lie in the
//! data folder, readable by its owner alone. Does not do: DNS challenges, so no wildcards.

mod challenges;
mod keep;
mod order;
mod plan;
mod web;

pub use challenges::Challenges;
pub use keep::write_private;

use super::Certificates;
use crate::kernel::clock::Clock;
use crate::kernel::random::{Random, below};
use keep::Folder;
use order::Orders;
use plan::Attempts;
pub(super) use plan::Holding;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at what is due, unless somebody asks for a new name before.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How certificates are obtained.
#[derive(Debug, Clone)]
pub struct AcmeOptions {
    /// The authority's directory.
    pub directory_url: String,
    /// Mail addresses the authority may write to.
    pub contact: Vec<String>,
    /// PEM files of whom the directory's own certificate is checked against; empty is the system's list.
    pub authority_files: Vec<PathBuf>,
    /// Folder for account and certificates.
    pub folder: PathBuf,
    /// Names beside those of tenants.
    pub hosts: Vec<String>,
    /// Seconds before its end at which a certificate is renewed.
    pub renew_before_s: i64,
    /// Orders per hour at most.
    pub orders_per_hour_max: u32,
    /// Whether plain HTTP reaches this node, which decides between http-01 and tls-alpn-01.
    pub plain_http: bool,
}

/// Which names the node serves.
pub trait HostPolicy: Send + Sync {
    /// Names to obtain certificates for before anybody asks.
    fn listed(&self) -> Vec<String>;
    /// Whether `host` is served, so that a certificate is obtained when somebody asks.
    fn permits(&self, host: &str) -> bool;
}

/// Why a certificate was not obtained.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The authority, or the way to it.
    #[error("the authority refused or did not answer: {0}")]
    Authority(#[from] instant_acme::Error),
    /// It did not offer a way to prove control of the name.
    #[error("the authority offers no {0} challenge")]
    NoChallenge(&'static str),
    /// It did not believe the proof.
    #[error("the authority could not confirm that this node answers for the name")]
    Unconfirmed,
    /// What it sent cannot be used.
    #[error(transparent)]
    Certificate(#[from] super::TlsError),
    /// The folder.
    #[error("the folder for certificates cannot be used: {0}")]
    Io(#[from] std::io::Error),
    /// The client for the directory.
    #[error("the directory cannot be reached: {0}")]
    Client(#[from] reqwest::Error),
}

/// Obtains and renews; owned by its task.
pub struct Acme {
    options: AcmeOptions,
    certificates: Arc<Certificates>,
    policy: Arc<dyn HostPolicy>,
    orders: Orders,
    folder: Folder,
    attempts: Attempts,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acme").finish_non_exhaustive()
    }
}

impl Acme {
    /// Puts what was obtained before in force and lets `certificates` ask for names on demand.
    pub fn open(
        options: AcmeOptions,
        certificates: Arc<Certificates>,
        policy: Arc<dyn HostPolicy>,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self, AcmeError> {
        let folder = Folder::open(&options.folder, &options.directory_url)?;
        for (name, loaded) in folder.load_all() {
            certificates.put_obtained(name, loaded);
        }
        certificates.ask_on_demand(Arc::clone(&policy));
        let orders = Orders::new(&options, Arc::clone(&certificates))?;
        let attempts = Attempts::new(options.orders_per_hour_max, below(random, u64::MAX));
        Ok(Self { options, certificates, policy, orders, folder, attempts, clock })
    }

    /// Works until its task is aborted; an order that is cut off is asked for again at the next start.
    pub async fn run(mut self) {
        loop {
            self.round().await;
            let asked = self.certificates.demand().asked.notified();
            // Whichever comes first; both lead to the same look.
            let _ = tokio::time::timeout(LOOK_EVERY, asked).await;
        }
    }

    /// Obtains everything that is due now.
    async fn round(&mut self) {
        let now_s = self.clock.now_ms() / 1_000;
        let wanted = self.wanted();
        for name in self.certificates.drop_expired(now_s, |name| wanted.contains(name)) {
            self.folder.remove(&name);
        }
        let holding: Vec<Holding> = self.certificates.holdings();
        while let Some(name) = self.attempts.next_due(&wanted, &holding, self.options.renew_before_s, now_s) {
            let result = self.obtain(&name).await;
            let tried_s = self.clock.now_ms() / 1_000;
            match result {
                Ok(not_after_s) => {
                    self.attempts.succeeded(&name);
                    tracing::info!({ tls.name = name, not_after_s }, "obtained a certificate for {name}");
                }
                Err(error) => {
                    let retry_s = self.attempts.failed(&name, tried_s) - tried_s;
                    let error = chain(&error);
                    tracing::warn!({ tls.name = name, error, retry_s }, "no certificate for {name}; it is tried again");
                }
            }
        }
    }

    /// Every name that should have a certificate from here.
    fn wanted(&self) -> BTreeSet<String> {
        let demanded = self.certificates.demand().take();
        let held = self.certificates.holdings().into_iter().map(|holding| holding.name);
        let still: Vec<String> = demanded.into_iter().chain(held).filter(|name| self.policy.permits(name)).collect();
        let listed = self.options.hosts.iter().cloned().chain(self.policy.listed());
        // A name that a file has a certificate for needs no other.
        listed.chain(still).filter(|name| !self.certificates.has_file_for(name)).collect()
    }

    async fn obtain(&mut self, name: &str) -> Result<i64, AcmeError> {
        let (chain, key) = self.orders.obtain(name, &self.folder).await?;
        let loaded = self.folder.save(name, &chain, &key)?;
        let not_after_s = loaded.not_after_s;
        self.certificates.put_obtained(name.to_owned(), loaded);
        Ok(not_after_s)
    }
}

/// An error with its causes; the libraries below keep the telling part in those.
fn chain(error: &AcmeError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
