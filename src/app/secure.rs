//! The node's certificates while it runs: loaded before anything listens, looked at now and then, reported.
//!
//! Keeps true: a node with certificates that cannot be used does not start; one whose files are exchanged for such goes
//! on with those it has and says so once per exchange. Does not do: TLS itself.

use super::StartError;
use crate::config::Config;
use crate::http::{self, ServerHandle};
use crate::kernel::clock::Clock;
use crate::telemetry::health::HealthSource;
use crate::telemetry::metrics::{Exposition, MetricSource};
use crate::tls::{Certificates, FilePair};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Looks at the files between two warnings of certificates that end soon.
const WARN_EVERY: u32 = 8_640;

/// What a node that speaks TLS has beside its listener.
#[derive(Debug)]
pub(super) struct Secure {
    certificates: Arc<Certificates>,
    redirect: Option<Redirect>,
    /// Looks at the files; aborted by `stop`, between two looks or inside one, which holds nothing half-done.
    watcher: JoinHandle<()>,
}

#[derive(Debug)]
struct Redirect {
    addr: SocketAddr,
    handle: ServerHandle,
    served: JoinHandle<std::io::Result<()>>,
}

impl Secure {
    /// Loads the certificates and starts to redirect; `None` if the node does not speak TLS.
    pub(super) fn open(config: &Config, addr: SocketAddr, clock: Arc<dyn Clock>) -> Result<Option<Self>, StartError> {
        if !config.serves_tls() {
            return Ok(None);
        }
        let tls = &config.tls;
        let pairs = tls.certificate_files.iter().zip(&tls.key_files);
        let pairs = pairs.map(|(certificate, key)| FilePair { certificate: certificate.clone(), key: key.clone() });
        let certificates = Arc::new(Certificates::open(pairs.collect(), &config.data.dir)?);
        let redirect = tls.redirect_listen.map(|listen| Redirect::open(listen, addr.port(), config)).transpose()?;
        let watcher = tokio::spawn(watch(Arc::clone(&certificates), clock, Duration::from_secs(tls.reload_s)));
        Ok(Some(Self { certificates, redirect, watcher }))
    }

    pub(super) fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.certificates)
    }

    pub(super) fn redirect_addr(&self) -> Option<SocketAddr> {
        self.redirect.as_ref().map(|redirect| redirect.addr)
    }

    /// Reads the files again now.
    pub(super) fn reload(&self) {
        match self.certificates.reload() {
            Ok(()) => tracing::info!("the certificates were read again"),
            Err(error) => tracing::warn!(%error, "the certificates were not exchanged"),
        }
    }

    pub(super) async fn stop(self) {
        self.watcher.abort();
        if let Some(redirect) = self.redirect {
            redirect.handle.stop(false).await;
            // It served nothing that could be lost.
            let _ = redirect.served.await;
        }
    }
}

impl Redirect {
    fn open(listen: SocketAddr, port: u16, config: &Config) -> Result<Self, StartError> {
        let listener = TcpListener::bind(listen).map_err(|source| StartError::Listen { listen, source })?;
        let addr = listener.local_addr()?;
        let (server, handle) =
            http::serve_redirects(listener, port, Duration::from_millis(config.http.head_timeout_ms))?;
        Ok(Self { addr, handle, served: tokio::spawn(server) })
    }
}

async fn watch(certificates: Arc<Certificates>, clock: Arc<dyn Clock>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    for look in (0..WARN_EVERY).cycle() {
        ticks.tick().await;
        if look == 0 {
            certificates.warn_of_expiry(clock.now_ms() / 1_000);
        }
        match certificates.reload_if_changed() {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!("the certificate files changed and were read again");
                certificates.warn_of_expiry(clock.now_ms() / 1_000);
            }
            Err(error) => tracing::warn!(%error, "the certificate files changed and cannot be used"),
        }
    }
}

/// The certificates in the words of `/health` and `/metrics`.
pub(super) struct CertificateWatch {
    certificates: Arc<Certificates>,
    clock: Arc<dyn Clock>,
}

impl CertificateWatch {
    pub(super) fn new(secure: &Secure, clock: Arc<dyn Clock>) -> Self {
        Self { certificates: secure.certificates(), clock }
    }
}

impl HealthSource for CertificateWatch {
    fn name(&self) -> &'static str {
        "certificates"
    }

    fn check(&self) -> Result<(), String> {
        let now_s = self.clock.now_ms() / 1_000;
        match self.certificates.shown().into_iter().find(|shown| shown.not_after_s <= now_s) {
            Some(shown) => Err(format!("the certificate of {} has expired", shown.name)),
            None => Ok(()),
        }
    }
}

impl MetricSource for CertificateWatch {
    fn collect(&self, out: &mut Exposition) {
        const EXPIRY: &str = "tenantry_tls_certificate_expiry_timestamp_seconds";
        out.declare(EXPIRY, "gauge", "When a certificate ends, seconds since the Unix epoch.");
        for shown in self.certificates.shown() {
            out.sample(EXPIRY, &format!("name=\"{}\"", shown.name), shown.not_after_s);
        }
    }
}
