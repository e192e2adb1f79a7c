//! L4: the HTTP edge. The only room that knows actix and status codes.
//!
//! Keeps true: a handler extracts, calls one service and responds; everything it may touch comes in its own small part.
//! Does not do: rules, queries or storage; and it keeps no state of its own beyond counters.

pub mod problem;
pub mod routes;
mod addressing;
mod body;
mod connections;
mod delivery;
mod extract;
mod file_delivery;
mod front;
mod handlers;
mod key_gate;
mod middleware;
mod multipart;
mod range;
mod redirect;
mod respond;
mod storing;
mod transit;

pub(crate) use actix_web::dev::ServerHandle;
pub(crate) use extract::VisitPart;
pub(crate) use handlers::auth::AuthPart;
pub(crate) use handlers::blueprints::BlueprintsPart;
pub(crate) use handlers::cache::CachePart;
pub(crate) use handlers::collections::CollectionsPart;
pub(crate) use handlers::doctor::DoctorPart;
pub(crate) use handlers::ops::OpsPart;
pub(crate) use handlers::settings::SettingsPart;
pub(crate) use handlers::tenants::TenantsPart;
pub(crate) use handlers::values::ValuesPart;
pub(crate) use middleware::{RequestLimits, RequestQuotas};
pub(crate) use redirect::{RedirectLimits, RedirectParts, serve_redirects};
pub(crate) use transit::TransitFolder;

use crate::kernel::random::Random;
use crate::telemetry::metrics::HttpMetrics;
use crate::tls::Certificates;
use actix_web::dev::Server;
use actix_web::http::KeepAlive;
use actix_web::{App, HttpServer, web};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// The bounds of the listener.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Open connections per worker.
    pub connections_max: usize,
    /// Open connections from one address; 0 is no bound.
    pub connections_per_ip_max: u32,
    /// Time for the head of a request.
    pub head_timeout: Duration,
    /// Time for a JSON body.
    pub body_timeout: Duration,
    /// Time for which a client may take nothing of what it is sent.
    pub write_timeout: Duration,
    /// Idle time of a kept-alive connection.
    pub keep_alive: Duration,
    /// Time that requests under way get when stopping.
    pub drain_timeout: Duration,
    /// Largest JSON body.
    pub json_bytes_max: usize,
    /// Largest multipart body.
    pub multipart_bytes_max: usize,
    /// Largest exported tenant that an import takes.
    pub tenant_import_bytes_max: u64,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Origins whose pages may call; `*` is every one.
    pub cors_origins: Vec<String>,
    /// Seconds for which browsers are told to come by TLS only; 0 tells nothing.
    pub hsts_s: u64,
}

/// The handles of all handler parts, each registered on its own so that a handler sees only its own part.
pub(crate) struct Parts {
    pub(crate) visit: VisitPart,
    pub(crate) auth: AuthPart,
    pub(crate) collections: CollectionsPart,
    pub(crate) blueprints: BlueprintsPart,
    pub(crate) tenants: TenantsPart,
    pub(crate) cache: CachePart,
    pub(crate) values: ValuesPart,
    pub(crate) doctor: DoctorPart,
    pub(crate) settings: SettingsPart,
    pub(crate) ops: OpsPart,
    pub(crate) metrics: Arc<HttpMetrics>,
    pub(crate) random: Arc<dyn Random>,
}

/// Starts answering on `listener`, by TLS if there are certificates. The returned future ends when the handle stops the server.
pub(crate) fn serve(
    listener: TcpListener,
    tls: Option<Arc<Certificates>>,
    parts: Parts,
    options: &ServeOptions,
) -> std::io::Result<(Server, ServerHandle)> {
    connections::end_unread(&listener, options.write_timeout)?;
    let connections = connections::Connections::new(options.connections_per_ip_max, Arc::clone(&parts.metrics));
    let edge = web::Data::new(middleware::Edge {
        ids: middleware::RequestIds::new(parts.random.as_ref()),
        metrics: parts.metrics,
        limits: Arc::clone(&parts.visit.limits),
        origins: middleware::Origins::new(options.cors_origins.clone()),
        access_log: options.access_log,
        hsts: middleware::hsts(if tls.is_some() { options.hsts_s } else { 0 }),
    });
    let limits = web::Data::new(body::BodyLimits {
        json_bytes_max: options.json_bytes_max,
        multipart_bytes_max: options.multipart_bytes_max,
        tenant_import_bytes_max: options.tenant_import_bytes_max,
        timeout: options.body_timeout,
    });
    let visit = web::Data::new(parts.visit);
    let auth = web::Data::new(parts.auth);
    let collections = web::Data::new(parts.collections);
    let blueprints = web::Data::new(parts.blueprints);
    let tenants = web::Data::new(parts.tenants);
    let cache = web::Data::new(parts.cache);
    let values = web::Data::new(parts.values);
    let doctor = web::Data::new(parts.doctor);
    let settings = web::Data::new(parts.settings);
    let ops = web::Data::new(parts.ops);
    let proxies = visit.clone();
    // The factory runs once per worker; the parts above are shared by all of them, the front is each worker's own.
    let server = HttpServer::new(move || {
        let front = web::Data::new(front::Front::new(visit.clone()));
        let app = App::new()
            .app_data(front.clone())
            .app_data(edge.clone())
            .app_data(limits.clone())
            .app_data(visit.clone())
            .app_data(auth.clone())
            .app_data(collections.clone())
            .app_data(blueprints.clone())
            .app_data(tenants.clone())
            .app_data(cache.clone())
            .app_data(values.clone())
            .app_data(doctor.clone())
            .app_data(settings.clone())
            .app_data(ops.clone())
            .configure(routes::configure)
            .wrap(middleware::Around { edge: edge.clone(), front: front.clone() });
        middleware::before(app, edge.clone(), front)
    })
    .on_connect(move |io, kept| connections.welcome(io, kept, |peer| (proxies.trusted)(peer)))
    .workers(options.workers)
    .max_connections(options.connections_max)
    .client_request_timeout(options.head_timeout)
    .client_disconnect_timeout(Duration::from_secs(2))
    .tls_handshake_timeout(options.head_timeout)
    // Handshakes under way at which a worker stops to accept: no bound of its own, or a few hundred that stand still, from
    // one address, would keep everybody out. There is no hook before the handshake where its address could be counted.
    .max_connection_rate(options.connections_max)
    .keep_alive(KeepAlive::Timeout(options.keep_alive))
    // A client that closed its side is taken as gone: its request ends and what it read stops. The price is that somebody
    // who half-closes and still wants the answer (`nc -N`) gets none; HTTP clients keep their side open (RFC 9112, 9.6).
    .h1_allow_half_closed(false)
    .shutdown_timeout(options.drain_timeout.as_secs())
    .disable_signals();
    let server = match tls {
        Some(certificates) => {
            let config = crate::tls::server_config(certificates).map_err(std::io::Error::other)?;
            server.listen_rustls_0_23(listener, config)?
        }
        None => server.listen(listener)?,
    }
    .run();
    let handle = server.handle();
    Ok((server, handle))
}
