//! The node's certificates while it runs: loaded before anything listens, looked at now and then, reported.
//!
//! Keeps true: a node with certificates that cannot be used does not start; one whose files are exchanged for such goes
//! on with those it has and says so once per exchange. Does not do: TLS itself.

use super::{Parts, StartError};
use crate::config::Config;
use crate::http::{self, ServerHandle};
use crate::kernel::clock::Clock;
use crate::services::tenants::Registry;
use crate::telemetry::health::HealthSource;
use crate::telemetry::metrics::{Exposition, HttpMetrics, MetricSource};
use crate::tls::acme::{Acme, AcmeOptions, HostPolicy};
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
    /// Obtains certificates; aborted by `stop`, at worst in the middle of an order, which then is placed again.
    obtaining: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Redirect {
    addr: SocketAddr,
    handle: ServerHandle,
    served: JoinHandle<std::io::Result<()>>,
}

impl Secure {
    /// Loads the certificates and starts to redirect; `None` if the node does not speak TLS.
    pub(super) fn open(
        config: &Config,
        addr: SocketAddr,
        clock: Arc<dyn Clock>,
        metrics: &Arc<HttpMetrics>,
    ) -> Result<Option<Self>, StartError> {
        if !config.serves_tls() {
            return Ok(None);
        }
        let tls = &config.tls;
        let pairs = tls.certificate_files.iter().zip(&tls.key_files);
        let pairs = pairs.map(|(certificate, key)| FilePair { certificate: certificate.clone(), key: key.clone() });
        let certificates = Arc::new(Certificates::open(pairs.collect(), &config.data.dir)?);
        let proxies = config.http.trusted_proxies.clone();
        let parts = http::RedirectParts {
            challenges: Arc::clone(certificates.challenges()),
            metrics: Arc::clone(metrics),
            exempt: Box::new(move |address| proxies.iter().any(|range| range.contains(address))),
        };
        let open = |listen| Redirect::open(listen, addr.port(), config, parts);
        let redirect = tls.redirect_listen.map(open).transpose()?;
        let watcher = tokio::spawn(watch(Arc::clone(&certificates), clock, Duration::from_secs(tls.reload_s)));
        Ok(Some(Self { certificates, redirect, watcher, obtaining: None }))
    }

    /// Begins to obtain certificates for configured names and those of tenants, if that is wanted.
    pub(super) fn obtain(&mut self, config: &Config, registry: Registry, parts: &Parts) -> Result<(), StartError> {
        let acme = &config.acme;
        if !acme.enabled {
            return Ok(());
        }
        let options = AcmeOptions {
            directory_url: acme.directory_url.clone(),
            contact: acme.contact.clone(),
            authority_files: acme.authority_files.clone(),
            folder: config.data.dir.join("acme"),
            hosts: acme.hosts.clone(),
            renew_before_s: i64::from(acme.renew_before_days) * 86_400,
            orders_per_hour_max: acme.orders_per_hour_max,
            plain_http: self.redirect.is_some(),
        };
        let policy = Arc::new(ServedHosts { registry, domains: config.http.tenant_domains.clone() });
        let (certificates, clock) = (self.certificates(), Arc::clone(&parts.clock));
        let acme = Acme::open(options, certificates, policy, clock, parts.random.as_ref())?;
        self.obtaining = Some(tokio::spawn(acme.run()));
        Ok(())
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
        if let Some(obtaining) = self.obtaining {
            obtaining.abort();
            // Aborted is the expected end; it holds a handle of the registry until then.
            let _ = obtaining.await;
        }
        if let Some(redirect) = self.redirect {
            redirect.handle.stop(false).await;
            // It served nothing that could be lost.
            let _ = redirect.served.await;
        }
    }
}

impl Redirect {
    fn open(listen: SocketAddr, port: u16, config: &Config, parts: http::RedirectParts) -> Result<Self, StartError> {
        let listener = TcpListener::bind(listen).map_err(|source| StartError::Listen { listen, source })?;
        let addr = listener.local_addr()?;
        let limits = http::RedirectLimits {
            head_timeout: Duration::from_millis(config.http.head_timeout_ms),
            write_timeout: Duration::from_millis(config.http.write_timeout_ms),
            connections_max: config.http.connections_max,
            connections_per_ip_max: config.http.connections_per_ip_max,
        };
        let (server, handle) = http::serve_redirects(listener, port, limits, parts)?;
        Ok(Self { addr, handle, served: tokio::spawn(server) })
    }
}

/// The host names that lead to a tenant of this node.
struct ServedHosts {
    registry: Registry,
    domains: Vec<String>,
}

impl HostPolicy for ServedHosts {
    fn listed(&self) -> Vec<String> {
        self.registry.hosts().into_iter().filter(|host| is_public(host)).collect()
    }

    fn permits(&self, host: &str) -> bool {
        let own = || self.registry.resolve_host(host).is_some_and(|found| found.is_ok());
        let label = || self.domains.iter().find_map(|domain| host.strip_suffix(domain.as_str())?.strip_suffix('.'));
        let named = || label().is_some_and(|slug| self.registry.resolve_slug(slug).is_ok());
        is_public(host) && (own() || named())
    }
}

/// Whether an authority could sign the name: not an address, and not one of a single machine (RFC 6761).
fn is_public(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    host.contains('.') && last.bytes().any(|byte| byte.is_ascii_alphabetic()) && !["localhost", "local"].contains(&last)
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
