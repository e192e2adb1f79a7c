//! The certificate by which the command line on this machine knows the node, whatever names the real ones have.
//!
//! Keeps true: its key is made at each start and lives in memory alone; whoever may write to the folder decides whom the
//! command line trusts, as with `node.key`. Does not do: anything for clients that ask for another name.

use super::error::TlsError;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The name under which the command line asks for it; `.internal` is reserved for private use.
pub const LOCAL_NAME: &str = "node.tenantry.internal";
/// The file with the public half.
pub const LOCAL_CERTIFICATE: &str = "node.crt";

/// Makes the certificate and writes its public half to `folder`.
pub(super) fn make(folder: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let refused = |error: rcgen::Error| TlsError::Refused(error.to_string());
    let made = rcgen::generate_simple_self_signed(vec![LOCAL_NAME.to_owned()]).map_err(refused)?;
    let draft = folder.join("node.crt.new");
    fs::write(&draft, made.cert.pem())?;
    fs::rename(draft, folder.join(LOCAL_CERTIFICATE))?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let certified = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &super::provider());
    Ok(Arc::new(certified.map_err(|error| TlsError::Refused(error.to_string()))?))
}
