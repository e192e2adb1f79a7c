//! L2: certificates: read from files, chosen by the name a client asks for, exchanged while the node runs.
//!
//! Keeps true: the private half of a certificate never leaves this room but inside rustls; a reload that fails leaves
//! what was there in force. TLS 1.2 and 1.3 by ring alone. Does not do: sockets and HTTP, that is `http`.

pub mod acme;
mod error;
mod files;
mod local;
mod resolver;

pub use error::TlsError;
pub use files::{FilePair, Loaded};
pub use local::{LOCAL_CERTIFICATE, LOCAL_NAME};
pub use resolver::{Certificates, Shown};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring as by_ring};
use std::sync::Arc;

/// Makes ring the process's provider, for every part that does not name one; safe to call often.
pub fn install_provider() {
    // Somebody who embeds the node may have installed another one before.
    let _already = by_ring::default_provider().install_default().is_err();
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(by_ring::default_provider()))
}

/// The settings of a listener that takes its certificates from `certificates`.
pub fn server_config(certificates: Arc<Certificates>) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Refused(error.to_string()))?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificates);
    // The framework puts its own protocols before this one.
    config.alpn_protocols = vec![resolver::ACME_TLS.to_vec()];
    Ok(config)
}
