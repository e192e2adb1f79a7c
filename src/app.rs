//! L5: the composition root. Open → wire observers → start → drain → close, in that written order.
//!
//! Keeps true: every part gets exactly the handles it needs, built once here; nothing below imports this module.
//! Does not do: any work of its own. [`Parts`] is the one door through which tests replace the world.

mod demo;
mod engines;
mod error;
mod examine;
mod folder;
mod metering;
mod observe;
mod reserve;
mod secure;
mod upkeep;
mod warming;

pub use demo::{DEMO_EMAIL, DEMO_TENANT, Progress};
pub use error::StartError;
pub use examine::{Examined, examine};
pub use folder::{FolderError, keep_to_owner, load_or_create_key, require_folder};

use crate::config::Config;
use crate::http::{self, ServeOptions, ServerHandle};
use crate::kernel::clock::{Clock, SystemClock};
use crate::kernel::random::{Random, SystemRandom};
use crate::store::{Faults, NoFaults};
use crate::telemetry::metrics::HttpMetrics;
use crate::tls;
use engines::Engines;
use folder::FolderLock;
use observe::TenantsWatch;
use reserve::Reserve;
use secure::{CertificateWatch, Secure};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What tests may replace.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Planned failures of the disk.
    pub faults: Arc<dyn Faults>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom::default()), faults: Arc::new(NoFaults) }
    }
}

/// A node that answers. Dropping it without [`RunningNode::stop`] leaves the sockets to the process's end.
#[derive(Debug)]
pub struct RunningNode {
    addr: SocketAddr,
    draining: Arc<AtomicBool>,
    server: ServerHandle,
    /// Ends when the server has stopped; awaited by `stop`.
    served: JoinHandle<std::io::Result<()>>,
    /// Certificates and the redirecting listener, if the node speaks TLS.
    secure: Option<Secure>,
    engines: Engines,
    /// Looks at the head of every tenant's file, once; aborted by `stop`, it only reads.
    looker: JoinHandle<()>,
    lock: FolderLock,
}

impl RunningNode {
    /// The address it listens on; the port is the real one even if 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` or `https://` and the address.
    pub fn url(&self) -> String {
        url_of(self.addr, self.secure.is_some())
    }

    /// The address that redirects plain HTTP, if there is one.
    pub fn redirect_addr(&self) -> Option<SocketAddr> {
        self.secure.as_ref().and_then(Secure::redirect_addr)
    }

    /// Reads the certificate files again; if they cannot be used the log says why and nothing changes.
    pub fn reload_certificates(&self) {
        if let Some(secure) = &self.secure {
            secure.reload();
        }
    }

    /// Stops: refuses new connections, lets requests under way finish, commits, checkpoints, closes.
    pub async fn stop(self) -> std::io::Result<()> {
        self.draining.store(true, Ordering::Relaxed);
        self.looker.abort();
        if let Some(secure) = self.secure {
            secure.stop().await;
        }
        self.server.stop(true).await;
        let served = self.served.await.map_err(std::io::Error::other)?;
        self.engines.close().await;
        drop(self.lock);
        served
    }
}

/// Opens the folder, wires the parts and starts to answer.
pub async fn start(config: Config, parts: Parts) -> Result<RunningNode, StartError> {
    // Open.
    tls::install_provider();
    let listen = config.http.listen;
    let bind = || TcpListener::bind(listen).map_err(|source| StartError::Listen { listen, source });
    // A node that cannot start leaves no folder that was not there. Where there is one, who serves it is the better answer.
    let early = if config.data.dir.exists() { None } else { Some(bind()?) };
    let mut lock = FolderLock::take(&config.data.dir)?;
    let reserve = Arc::new(Reserve::open(&config.data.dir));
    let listener = early.map_or_else(bind, Ok)?;
    let addr = listener.local_addr()?;
    let metrics = Arc::new(HttpMetrics::default());
    let mut secure = Secure::open(&config, addr, Arc::clone(&parts.clock), &metrics)?;
    folder::tell_of_missing_secret(&config.data.dir);
    let engines = Engines::open(&config, &parts, reserve).await?;
    if let Some(secure) = &mut secure {
        secure.obtain(&config, engines.registry.clone(), &parts)?;
    }

    // Wire.
    let draining = Arc::new(AtomicBool::new(false));
    let mut handlers = engines.handlers(&config, &parts, metrics, Arc::clone(&draining))?;
    handlers.ops.health.push(Arc::new(TenantsWatch(engines.registry.clone())));
    if let Some(secure) = &secure {
        let watch = Arc::new(CertificateWatch::new(secure, Arc::clone(&parts.clock)));
        handlers.ops.health.push(Arc::clone(&watch) as _);
        handlers.ops.metrics.push(watch);
    }

    for slug in config.cache.purge_tenants.iter().filter(|slug| engines.registry.find(slug).is_err()) {
        tracing::warn!(slug, "cache.purge_tenants names {slug:?}, which is no tenant of this node yet");
    }

    // Start.
    let registry = engines.registry.clone();
    let looker = tokio::spawn(async move { registry.look_over().await });
    let (server, handle) =
        http::serve(listener, secure.as_ref().map(Secure::certificates), handlers, &serve_options(&config))?;
    let served = tokio::spawn(server);
    if let Err(error) = lock.announce(&url_of(addr, secure.is_some())) {
        // On a full disk. The node serves all the same; the command line finds it by its address alone.
        tracing::warn!(%error, "the address could not be written to node.lock; the command line will not find this node");
    }
    tracing::info!({ http.listen = %addr }, "listening on {addr}");
    Ok(RunningNode { addr, draining, server: handle, served, secure, engines, looker, lock })
}

/// Where this machine reaches the node; an unspecified address is reached by loopback.
fn url_of(addr: SocketAddr, secure: bool) -> String {
    let mut addr = addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("{}://{addr}", if secure { "https" } else { "http" })
}

fn serve_options(config: &Config) -> ServeOptions {
    let http = &config.http;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ServeOptions {
        workers: if http.workers == 0 { cores } else { http.workers },
        connections_max: http.connections_max,
        connections_per_ip_max: http.connections_per_ip_max,
        head_timeout: Duration::from_millis(http.head_timeout_ms),
        body_timeout: Duration::from_millis(http.body_timeout_ms),
        write_timeout: Duration::from_millis(http.write_timeout_ms),
        keep_alive: Duration::from_secs(http.keep_alive_s),
        drain_timeout: Duration::from_secs(http.drain_timeout_s),
        json_bytes_max: http.body_bytes_max,
        multipart_bytes_max: http.multipart_bytes_max,
        tenant_import_bytes_max: http.tenant_import_bytes_max,
        access_log: config.log.access,
        cors_origins: http.cors_origins.clone(),
        hsts_s: config.tls.hsts_s,
    }
}
