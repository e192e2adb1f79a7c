//! Why certificates cannot be used.
//!
//! Keeps true: the text names the file at fault and never holds a key. Does not do: advice.

use std::io;
use std::path::PathBuf;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    /// A file holds no key.
    #[error("{} holds no private key in PEM form (PKCS#8, PKCS#1 or SEC1, not encrypted)", .0.display())]
    NoKey(PathBuf),
    /// A certificate is damaged.
    #[error("{} holds a certificate that cannot be read: {why}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key is not that of the certificate.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The key is of a kind that cannot be used.
    #[error("the key in {} cannot be used: {why}", file.display())]
    Key {
        /// The key's file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The TLS library refused.
    #[error("TLS cannot be set up: {0}")]
    Refused(String),
    /// The machine refused.
    #[error("the certificate of this machine cannot be written: {0}")]
    Io(#[from] io::Error),
}
