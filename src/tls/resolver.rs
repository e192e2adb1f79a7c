//! Which certificate a client gets: by the name it asks for, exactly, then by wildcard, then the first one.
//!
//! Keeps true: choosing takes no lock; the table is exchanged whole. Certificates from files win over obtained ones.
//! Does not do: obtaining certificates, that is `acme`.

use super::acme::{Challenges, Holding, HostPolicy};
use super::error::TlsError;
use super::files::{FilePair, Loaded, Signature};
use super::local;
use crate::kernel::limits;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// The protocol by which an authority checks tls-alpn-01 challenges (RFC 8737).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";
/// Seconds before the end of a certificate at which the log begins to warn.
const WARN_BEFORE_S: i64 = 14 * 86_400;

/// A certificate as health, metrics and the log show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The first of its names.
    pub name: String,
    /// Until when it holds, seconds since the Unix epoch.
    pub not_after_s: i64,
}

#[derive(Default)]
struct Table {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
    shown: Vec<Shown>,
}

/// What is loaded, from which the table is made; changed under one lock.
#[derive(Default)]
struct Sources {
    files: Vec<Loaded>,
    signatures: Vec<Signature>,
    obtained: HashMap<String, Loaded>,
}

/// The certificates of the node; shared by all listeners, for the life of the process.
pub struct Certificates {
    pairs: Vec<FilePair>,
    table: ArcSwap<Table>,
    sources: Mutex<Sources>,
    local: Arc<CertifiedKey>,
    challenges: Arc<Challenges>,
    demand: Demand,
}

/// Names that clients asked for and that have no certificate yet.
#[derive(Default)]
pub(super) struct Demand {
    /// Set once, if certificates are obtained at all.
    policy: OnceLock<Arc<dyn HostPolicy>>,
    /// At most `limits::CERTIFICATES_ASKED_MAX`; more are asked for again by their clients.
    names: Mutex<HashSet<String>>,
    /// Told of every new name.
    pub(super) asked: Notify,
}

impl Demand {
    /// Every name asked for since the last call.
    pub(super) fn take(&self) -> HashSet<String> {
        std::mem::take(&mut self.names.lock())
    }

    fn ask(&self, name: &str) {
        if !self.policy.get().is_some_and(|policy| policy.permits(name)) {
            return;
        }
        let mut names = self.names.lock();
        if names.len() < limits::CERTIFICATES_ASKED_MAX && names.insert(name.to_owned()) {
            self.asked.notify_one();
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("shown", &self.table.load().shown).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Loads `pairs`, the first of which is for clients that name nobody, and makes the certificate by which the command
    /// line knows this node, its public half in `folder`.
    pub fn open(pairs: Vec<FilePair>, folder: &Path) -> Result<Self, TlsError> {
        let local = local::make(folder)?;
        let certificates = Self {
            pairs,
            table: ArcSwap::default(),
            sources: Mutex::default(),
            local,
            challenges: Arc::default(),
            demand: Demand::default(),
        };
        certificates.reload()?;
        Ok(certificates)
    }

    /// Reads the files again, whether or not they changed. On failure nothing changes.
    pub fn reload(&self) -> Result<(), TlsError> {
        // Signatures first: a file that changes while it is read is read again next time.
        let signatures = self.signatures();
        let files = self.pairs.iter().map(FilePair::load).collect::<Result<Vec<_>, _>>()?;
        let mut sources = self.sources.lock();
        (sources.files, sources.signatures) = (files, signatures);
        self.publish(&sources);
        Ok(())
    }

    /// Reads the files again if one changed since they were last read; says whether it did.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let signatures = self.signatures();
        {
            let mut sources = self.sources.lock();
            if sources.signatures == signatures {
                return Ok(false);
            }
            // A pair that is wrong now is complained about once, not at every look.
            sources.signatures = signatures;
        }
        self.reload().map(|()| true)
    }

    /// Every certificate in force but the machine's own.
    pub fn shown(&self) -> Vec<Shown> {
        self.table.load().shown.clone()
    }

    /// Warns of certificates that are over or soon will be.
    pub fn warn_of_expiry(&self, now_s: i64) {
        for shown in &self.table.load().shown {
            let (name, left_days) = (shown.name.as_str(), (shown.not_after_s - now_s).div_euclid(86_400));
            if shown.not_after_s <= now_s {
                tracing::warn!({ tls.name = name, left_days }, "the certificate of {name} has expired");
            } else if shown.not_after_s - now_s < WARN_BEFORE_S {
                tracing::warn!({ tls.name = name, left_days }, "the certificate of {name} expires in {left_days} days");
            }
        }
    }

    /// The answers to challenges of orders under way.
    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    pub(super) fn demand(&self) -> &Demand {
        &self.demand
    }

    /// From now on, names that clients ask for and that `policy` permits are noted.
    pub(super) fn ask_on_demand(&self, policy: Arc<dyn HostPolicy>) {
        // A second call finds the same policy in place.
        let _ = self.demand.policy.set(policy);
    }

    /// Puts an obtained certificate in force.
    pub(super) fn put_obtained(&self, name: String, loaded: Loaded) {
        let mut sources = self.sources.lock();
        sources.obtained.insert(name, loaded);
        self.publish(&sources);
    }

    /// Drops obtained certificates that are over and that `wanted` does not name; their names.
    pub(super) fn drop_expired(&self, now_s: i64, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut sources = self.sources.lock();
        let over = sources.obtained.iter().filter(|(name, loaded)| loaded.not_after_s <= now_s && !wanted(name));
        let over: Vec<String> = over.map(|(name, _)| name.clone()).collect();
        for name in &over {
            sources.obtained.remove(name);
        }
        if !over.is_empty() {
            self.publish(&sources);
        }
        over
    }

    /// Every obtained certificate.
    pub(super) fn holdings(&self) -> Vec<Holding> {
        let of = |(name, loaded): (&String, &Loaded)| Holding {
            name: name.clone(),
            not_before_s: loaded.not_before_s,
            not_after_s: loaded.not_after_s,
        };
        self.sources.lock().obtained.iter().map(of).collect()
    }

    /// Whether a file holds a certificate for `name`.
    pub(super) fn has_file_for(&self, name: &str) -> bool {
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let sources = self.sources.lock();
        sources.files.iter().flat_map(|loaded| &loaded.names).any(|own| own == name || Some(own) == wildcard.as_ref())
    }

    fn signatures(&self) -> Vec<Signature> {
        self.pairs.iter().map(FilePair::signature).collect()
    }

    fn publish(&self, sources: &Sources) {
        let mut table = Table::default();
        for loaded in sources.files.iter().chain(sources.obtained.values()) {
            for name in &loaded.names {
                table.by_name.entry(name.clone()).or_insert_with(|| Arc::clone(&loaded.key));
            }
            let name = loaded.names.first().cloned().unwrap_or_default();
            table.shown.push(Shown { name, not_after_s: loaded.not_after_s });
        }
        table.first = sources.files.first().map(|loaded| Arc::clone(&loaded.key));
        table.shown.sort_by(|a, b| a.name.cmp(&b.name));
        self.table.store(Arc::new(table));
    }
}

fn find(table: &Table, name: &str) -> Option<Arc<CertifiedKey>> {
    let exact = table.by_name.get(name);
    let found = exact.or_else(|| table.by_name.get(&format!("*.{}", name.split_once('.')?.1)));
    found.cloned()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        if name.as_deref() == Some(local::LOCAL_NAME) {
            return Some(Arc::clone(&self.local));
        }
        if hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ACME_TLS)) {
            return name.and_then(|name| self.challenges.find_key(&name));
        }
        let table = self.table.load();
        let Some(name) = name else { return table.first.clone() };
        find(&table, &name).or_else(|| {
            self.demand.ask(&name);
            table.first.clone()
        })
    }
}
