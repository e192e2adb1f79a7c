//! Why a node does not start.
//!
//! Keeps true: the text names the folder, address or file at fault. Does not do: exit codes, that is `cli`.

use super::FolderError;
use crate::secrets::keys::KeyError;
use crate::secrets::password::PasswordError;
use crate::services::auth::AuthError;
use crate::services::blueprints::BlueprintError;
use crate::services::tenants::TenantError;
use crate::store::StoreError;
use crate::tls::TlsError;
use crate::tls::acme::AcmeError;
use std::net::SocketAddr;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The address.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the machine said.
        source: std::io::Error,
    },
    /// The store.
    #[error("the databases cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The registry of tenants.
    #[error("the tenants cannot be read: {0}")]
    Tenants(#[from] TenantError),
    /// An account.
    #[error("the account cannot be made: {0}")]
    Auth(#[from] AuthError),
    /// A blueprint.
    #[error("the blueprint cannot be read: {0}")]
    Blueprint(#[from] BlueprintError),
    /// The node's secret.
    #[error("the node's secret cannot be read: {0}")]
    Key(#[from] KeyError),
    /// The password hasher.
    #[error("passwords cannot be hashed: {0}")]
    Password(#[from] PasswordError),
    /// The certificates.
    #[error("the certificates cannot be used: {0}")]
    Tls(#[from] TlsError),
    /// The hook for caches in front of the node.
    #[error("the purge hook (cache.purge_*) cannot be set up: {0}")]
    PurgeHook(String),
    /// Certificates that are obtained.
    #[error("certificates cannot be obtained: {0}")]
    Acme(#[from] AcmeError),
    /// The machine refused something else.
    #[error("the node cannot start: {0}")]
    Io(#[from] std::io::Error),
}
