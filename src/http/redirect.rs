//! The plain listener beside a TLS one: it sends everybody to `https` and serves nothing but proofs for
//! certificate authorities.
//!
//! Keeps true: the target's host is the one the client asked for, checked to be a host name, so nobody is sent elsewhere
//! by a forged header's path or credentials; no body is ever read; a connection ends with its first answer, or when its
//! client takes nothing of it for `http.write_timeout_ms`; from one address no more are open at once than at the other
//! listener, counted apart. Does not do: tenants, logs.

use crate::http::connections::{self, Connections};
use crate::telemetry::metrics::HttpMetrics;
use crate::tls::acme::Challenges;
use actix_web::dev::{Server, ServerHandle};
use actix_web::http::KeepAlive;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// What a client of this listener may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RedirectLimits {
    /// Time for a request's head.
    pub(crate) head_timeout: Duration,
    /// Time for which a client may take nothing of what it is sent.
    pub(crate) write_timeout: Duration,
    /// Open connections; more wait.
    pub(crate) connections_max: usize,
    /// Open connections from one address; more are shut. 0 is no bound.
    pub(crate) connections_per_ip_max: u32,
}

/// Tells peers that speak for many, such as proxies: the bound of an address is not for them.
pub(crate) type Exempt = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// What this listener needs of the node.
pub(crate) struct RedirectParts {
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) metrics: Arc<HttpMetrics>,
    pub(crate) exempt: Exempt,
}

/// Starts to redirect everything that reaches `listener` to `https` at `port`.
pub(crate) fn serve_redirects(
    listener: TcpListener,
    port: u16,
    limits: RedirectLimits,
    RedirectParts { challenges, metrics, exempt }: RedirectParts,
) -> std::io::Result<(Server, ServerHandle)> {
    connections::end_unread(&listener, limits.write_timeout)?;
    let connections = Connections::new(limits.connections_per_ip_max, metrics);
    let server = HttpServer::new(move || {
        let challenges = Arc::clone(&challenges);
        let prove = move |token: web::Path<String>| prove(challenges.find_text(&token));
        App::new()
            .route("/.well-known/acme-challenge/{token}", web::get().to(prove))
            .default_service(web::to(move |request: HttpRequest| async move { redirect(&request, port) }))
    })
    .on_connect(move |io, kept| connections.welcome(io, kept, &exempt))
    .workers(1)
    .max_connections(limits.connections_max)
    .client_request_timeout(limits.head_timeout)
    .client_disconnect_timeout(Duration::from_secs(2))
    // Whoever was sent away has nothing more to ask here.
    .keep_alive(KeepAlive::Disabled)
    .h1_allow_half_closed(false)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    Ok((server, handle))
}

/// What an authority asks for before it signs (RFC 8555, 8.3).
async fn prove(text: Option<String>) -> HttpResponse {
    match text {
        Some(text) => HttpResponse::Ok().content_type("application/octet-stream").body(text),
        None => HttpResponse::NotFound().finish(),
    }
}

/// 308 keeps method and body for clients that follow it.
fn redirect(request: &HttpRequest, port: u16) -> HttpResponse {
    let Some(host) = host_of(request.headers()) else { return HttpResponse::BadRequest().finish() };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    HttpResponse::PermanentRedirect()
        .insert_header((header::LOCATION, format!("https://{host}{port}{target}")))
        .finish()
}

/// The name in `Host` without its port, if it is a name or an address and nothing else.
fn host_of(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    (!name.is_empty() && name.bytes().all(plain)).then_some(name)
}
