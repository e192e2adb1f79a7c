//! L2: the one way out of the node to addresses that somebody wrote into a setting or a document named.
//!
//! Keeps true: nothing is reached that is not on the public internet, unless the node's configuration names its range; that
//! is decided on the address a connection is made to, after the name was resolved, so a name cannot change its mind in
//! between (no rebinding). No redirect is followed, no proxy of the environment is used, every answer is bounded in bytes and
//! time, and so is how many are under way. Unencrypted HTTP reaches the ranges named in the configuration alone.
//! Does not do: knowing what is asked for, retrying, keeping answers.

mod address;

pub use address::is_public;

use crate::kernel::error::{Code, Fault};
use crate::kernel::limits;
use crate::tls;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use url::{Host, Url};

/// Whether the configuration lets the node reach an address that is not public.
pub type Allowed = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Why an address was not reached, or its answer not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// The text is no address that could be reached.
    #[error("not an address that can be reached: {0}")]
    Address(&'static str),
    /// The address is private, local or reserved.
    #[error("{0:?} is not on the public internet; outbound.private_allowed can name its range")]
    Private(String),
    /// Too many are under way.
    #[error("too many outbound requests are under way")]
    Busy,
    /// The answer is too long.
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
    /// The connection, TLS or the answer failed.
    #[error("the request failed: {0}")]
    Failed(String),
}

impl Fault for OutboundError {
    fn code(&self) -> Code {
        match self {
            Self::Busy => Code::Busy,
            _ => Code::UpstreamFailed,
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::Private(_) => Cow::Borrowed("The address is not on the public internet and no range allows it."),
            _ => Cow::Borrowed(self.code().explanation()),
        }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Reply {
    /// Whether the status is one of success.
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

/// Reaches out; cheap to clone, shared by everybody.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    allowed: Allowed,
    /// For `https:`, made at first use: loading the machine's root certificates takes its time.
    encrypted: OnceLock<Result<reqwest::Client, String>>,
    /// For `http:`.
    plain: OnceLock<Result<reqwest::Client, String>>,
    /// Bound: `limits::OUTBOUND_CONCURRENCY_MAX`.
    turns: Semaphore,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").finish_non_exhaustive()
    }
}

impl Outbound {
    /// Reaches public addresses and those that `allowed` lets pass.
    pub fn new(allowed: Allowed) -> Self {
        Self(Arc::new(Inner {
            allowed,
            encrypted: OnceLock::new(),
            plain: OnceLock::new(),
            turns: Semaphore::new(limits::OUTBOUND_CONCURRENCY_MAX),
        }))
    }

    /// Fetches `url`.
    pub async fn get(&self, url: &str, headers: &[(&'static str, &str)]) -> Result<Reply, OutboundError> {
        let (client, url) = self.client(url)?;
        self.send(client.get(url), headers).await
    }

    /// Posts `form` to `url`.
    pub async fn post_form(
        &self,
        url: &str,
        headers: &[(&'static str, &str)],
        form: &[(&str, &str)],
    ) -> Result<Reply, OutboundError> {
        let (client, url) = self.client(url)?;
        self.send(client.post(url).form(form), headers).await
    }

    async fn send(
        &self,
        mut request: reqwest::RequestBuilder,
        headers: &[(&'static str, &str)],
    ) -> Result<Reply, OutboundError> {
        let _turn = self.0.turns.try_acquire().map_err(|_| OutboundError::Busy)?;
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.header("accept", "application/json").send().await.map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
            if body.len() + chunk.len() > limits::OUTBOUND_BODY_BYTES_MAX {
                return Err(OutboundError::TooLong(limits::OUTBOUND_BODY_BYTES_MAX));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, body })
    }

    /// The addresses of `host`, a name or a literal, that may be reached by a protocol of the caller's own; at least one, in
    /// the order in which they are to be tried.
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, OutboundError> {
        let gate = Gate { allowed: Arc::clone(&self.0.allowed), reach: Reach::Public };
        let failed = |error: std::io::Error| OutboundError::Failed(error.to_string());
        let bound = Duration::from_millis(limits::OUTBOUND_CONNECT_MS_MAX);
        let found = tokio::time::timeout(bound, tokio::net::lookup_host((host, 0))).await;
        let found = found.map_err(|_| OutboundError::Failed("looking the name up took too long".to_owned()))?;
        let mut admitted: Vec<IpAddr> = Vec::new();
        for address in found.map_err(failed)?.map(|found| found.ip()).filter(|address| gate.admits(*address)) {
            if admitted.len() < limits::OUTBOUND_ADDRESSES_MAX && !admitted.contains(&address) {
                admitted.push(address);
            }
        }
        if admitted.is_empty() { Err(OutboundError::Private(host.to_owned())) } else { Ok(admitted) }
    }

    /// The client for the address, and the address once it is known to be one that may be reached.
    fn client(&self, text: &str) -> Result<(&reqwest::Client, Url), OutboundError> {
        let url = Url::parse(text).map_err(|_| OutboundError::Address("not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OutboundError::Address("credentials in the address"));
        }
        let (reach, slot) = match url.scheme() {
            "https" => (Reach::Public, &self.0.encrypted),
            "http" => (Reach::Allowed, &self.0.plain),
            _ => return Err(OutboundError::Address("neither https nor http")),
        };
        let gate = Gate { allowed: Arc::clone(&self.0.allowed), reach };
        // The resolver is not asked about literals.
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
            Some(Host::Domain(_)) => None,
            None => return Err(OutboundError::Address("no host")),
        };
        if let Some(address) = literal.filter(|address| !gate.admits(*address)) {
            return Err(OutboundError::Private(address.to_string()));
        }
        let client = slot.get_or_init(|| build(gate).map_err(|error| error.to_string()));
        client.as_ref().map(|client| (client, url)).map_err(|error| OutboundError::Failed(error.clone()))
    }
}

fn build(gate: Gate) -> reqwest::Result<reqwest::Client> {
    tls::install_provider();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(Duration::from_millis(limits::OUTBOUND_CONNECT_MS_MAX))
        .timeout(Duration::from_millis(limits::OUTBOUND_MS_MAX))
        .pool_max_idle_per_host(2)
        .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(gate)
        .build()
}

/// The innermost cause, without the address: that may hold what must not be logged.
fn failed(error: &reqwest::Error) -> OutboundError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = if error.is_timeout() { "it took too long".to_owned() } else { cause.to_string() };
    match text.strip_prefix(PRIVATE) {
        Some(name) => OutboundError::Private(name.to_owned()),
        None => OutboundError::Failed(text),
    }
}

/// How the resolver says that a name has no address that may be reached; errors pass through layers that keep only text.
const PRIVATE: &str = "not a public address: ";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Public addresses and what the configuration names.
    Public,
    /// What the configuration names.
    Allowed,
}

/// Resolves names and keeps the addresses that may be reached.
struct Gate {
    allowed: Allowed,
    reach: Reach,
}

impl Gate {
    fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (self.reach == Reach::Public && is_public(address)) || (self.allowed)(address)
    }
}

impl Resolve for Gate {
    fn resolve(&self, name: Name) -> Resolving {
        let gate = Self { allowed: Arc::clone(&self.allowed), reach: self.reach };
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let kept: Vec<_> = found.filter(|address| gate.admits(address.ip())).collect();
            if kept.is_empty() {
                return Err(format!("{PRIVATE}{}", name.as_str()).into());
            }
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
