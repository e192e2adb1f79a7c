//! Certificates in PEM files: read, checked against their keys, described.
//!
//! Keeps true: a pair that is handed out works: the key belongs to the certificate. An expired certificate is used and
//! complained about, because an answer that a person can click through beats none. Does not do: choosing.

use super::error::TlsError;
use rustls::InconsistentKeys;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use x509_parser::extensions::GeneralName;

/// A chain and its key; both may be in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePair {
    /// The chain, the certificate itself first.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Chain and key as rustls wants them.
    pub key: Arc<CertifiedKey>,
    /// The names it is for, lower case; `*.` stands for one label.
    pub names: Vec<String>,
    /// From when it holds, seconds since the Unix epoch.
    pub not_before_s: i64,
    /// Until when it holds, seconds since the Unix epoch.
    pub not_after_s: i64,
}

/// What changes when a file is exchanged, also behind a symbolic link.
pub(super) type Signature = Vec<Option<(u64, u64, Option<SystemTime>)>>;

impl FilePair {
    /// Reads and checks the pair.
    pub fn load(&self) -> Result<Loaded, TlsError> {
        let chain = read(&self.certificate)?;
        let key = read(&self.key)?;
        warn_if_public(&self.key);
        load(&chain, &self.certificate, &key, &self.key)
    }

    pub(super) fn signature(&self) -> Signature {
        let of = |path: &Path| fs::metadata(path).ok().map(|found| (found.ino(), found.len(), found.modified().ok()));
        vec![of(&self.certificate), of(&self.key)]
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source })
}

fn warn_if_public(file: &Path) {
    let mode = fs::metadata(file).map_or(0, |found| found.mode());
    if mode & 0o004 != 0 {
        tracing::warn!(file = %file.display(), "everybody on this machine can read a private key");
    }
}

/// A pair from PEM text; the paths are what errors call the two halves.
pub(super) fn load(chain: &[u8], chain_file: &Path, key: &[u8], key_file: &Path) -> Result<Loaded, TlsError> {
    let damaged = |why: String| TlsError::Damaged { file: chain_file.to_owned(), why };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|error| damaged(error.to_string()))?;
    let first = chain.first().ok_or_else(|| TlsError::NoCertificate(chain_file.to_owned()))?;
    let (names, not_before_s, not_after_s) = describe(first).map_err(damaged)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey(key_file.to_owned()))?;
    let certified = CertifiedKey::from_der(chain, key, &super::provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { certificate: chain_file.to_owned(), key: key_file.to_owned() }
        }
        error => TlsError::Key { file: key_file.to_owned(), why: error.to_string() },
    })?;
    Ok(Loaded { key: Arc::new(certified), names, not_before_s, not_after_s })
}

/// Names and validity of one certificate.
fn describe(certificate: &CertificateDer<'_>) -> Result<(Vec<String>, i64, i64), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let alternatives = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = alternatives.into_iter().flat_map(|found| &found.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let validity = parsed.validity();
    Ok((names.collect(), validity.not_before.timestamp(), validity.not_after.timestamp()))
}
