//! Keys that belong to the node: one secret in a file, from which every other key is derived.
//!
//! Keeps true: the secret never leaves this module; keys of two tenants or two purposes are unrelated (HKDF, RFC 5869);
//! the file is readable by its owner alone and is either absent or complete.
//! Does not do: rotating. Without the file, cursors and other derived signatures are worthless and authenticator apps have
//! to be enrolled again; records are untouched.

use crate::kernel::ident::TenantId;
use crate::kernel::random::Random;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::{hkdf, hmac};
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use zeroize::Zeroizing;

/// Name of the secret's file inside the data folder.
pub const NODE_SECRET_FILE: &str = "node.secret";

const SECRET_LEN: usize = 32;
/// First line-part of the file: format version.
const VERSION_PREFIX: &str = "1:";

/// What a derived key is for; two purposes never share a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyPurpose {
    /// Seals list cursors.
    Cursor,
    /// Signs outgoing webhooks and links.
    Link,
    /// Signs what the node tells itself (command line to running node).
    Node,
}

impl KeyPurpose {
    pub(super) const fn label(self) -> &'static [u8] {
        match self {
            Self::Cursor => b"cursor",
            Self::Link => b"link",
            Self::Node => b"node",
        }
    }
}

/// Why the secret's file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("the node secret cannot be read or written")]
    Io(#[from] io::Error),
    /// The file holds something else.
    #[error("the node secret file is damaged")]
    Damaged,
    /// Others may read the file.
    #[error("the node secret file is readable by others; its mode must be 0600")]
    Exposed,
}

/// The node's secret.
pub struct NodeSecret(Zeroizing<[u8; SECRET_LEN]>);

impl NodeSecret {
    /// Reads the secret from `folder`, or makes one. Blocking; for start-up.
    ///
    /// A new file is written beside its place, synced, and moved there without replacing another.
    pub fn load_or_create(folder: &Path, random: &dyn Random) -> Result<Self, KeyError> {
        let path = folder.join(NODE_SECRET_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                check_private(&path)?;
                Self::parse(&Zeroizing::new(text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(folder, &path, random),
            Err(error) => Err(error.into()),
        }
    }

    /// A secret that lives only in memory; for tests and dry runs.
    pub fn ephemeral(random: &dyn Random) -> Self {
        let mut bytes = Zeroizing::new([0_u8; SECRET_LEN]);
        random.fill(bytes.as_mut());
        Self(bytes)
    }

    fn parse(text: &str) -> Result<Self, KeyError> {
        let encoded = text.trim_end().strip_prefix(VERSION_PREFIX).ok_or(KeyError::Damaged)?;
        let bytes = Zeroizing::new(STANDARD_NO_PAD.decode(encoded).map_err(|_| KeyError::Damaged)?);
        let bytes: [u8; SECRET_LEN] = bytes.as_slice().try_into().map_err(|_| KeyError::Damaged)?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    fn create(folder: &Path, path: &Path, random: &dyn Random) -> Result<Self, KeyError> {
        let secret = Self::ephemeral(random);
        let text = Zeroizing::new(format!("{VERSION_PREFIX}{}\n", STANDARD_NO_PAD.encode(secret.0.as_ref())));
        // Created with mode 0600 by the crate.
        let mut file = tempfile::Builder::new().prefix(".node.secret.").tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|error| error.error)?;
        fs::File::open(folder)?.sync_all()?;
        Ok(secret)
    }

    /// The first half of HKDF, for keys of another kind.
    pub(super) fn extract(&self, salt: &hkdf::Salt) -> hkdf::Prk {
        salt.extract(self.0.as_ref())
    }

    /// Derives the key of `tenant` for `purpose`.
    pub fn derive(&self, tenant: &TenantId, purpose: KeyPurpose) -> MacKey {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tenantry/v1");
        let extracted = salt.extract(self.0.as_ref());
        let info = [purpose.label(), b"/", tenant.as_str().as_bytes()];
        let derived = extracted
            .expand(&info, hmac::HMAC_SHA256)
            .expect("invariant: one digest length is within the bound of HKDF");
        MacKey(hmac::Key::from(derived))
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSecret(redacted)")
    }
}

/// A key for HMAC-SHA256.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// The authentication code of `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.0, message);
        let mut code = [0_u8; 32];
        code.copy_from_slice(tag.as_ref());
        code
    }

    /// Whether `code` is the authentication code of `message`, in constant time.
    pub fn verify(&self, message: &[u8], code: &[u8]) -> bool {
        hmac::verify(&self.0, message, code).is_ok()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(redacted)")
    }
}

#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyError::Exposed) }
}

#[cfg(not(unix))]
fn check_private(_path: &Path) -> Result<(), KeyError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SystemRandom;

    fn tenant(id: &str) -> TenantId {
        TenantId::parse(id).unwrap()
    }

    #[test]
    fn the_secret_survives_a_restart_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let random = SystemRandom::default();
        let first = NodeSecret::load_or_create(folder.path(), &random).unwrap();
        let again = NodeSecret::load_or_create(folder.path(), &random).unwrap();
        let code = first.derive(&tenant("a"), KeyPurpose::Cursor).sign(b"x");
        assert!(again.derive(&tenant("a"), KeyPurpose::Cursor).verify(b"x", &code));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let path = folder.path().join(NODE_SECRET_FILE);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(NodeSecret::load_or_create(folder.path(), &random), Err(KeyError::Exposed)));
        }
    }

    #[test]
    fn a_damaged_file_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let random = SystemRandom::default();
        NodeSecret::load_or_create(folder.path(), &random).unwrap();
        let path = folder.path().join(NODE_SECRET_FILE);
        for damaged in ["", "1:", "1:AAAA", "2:AAAA", "nonsense"] {
            fs::write(&path, damaged).unwrap();
            assert!(matches!(NodeSecret::load_or_create(folder.path(), &random), Err(KeyError::Damaged)), "{damaged}");
        }
    }

    #[test]
    fn tenants_and_purposes_have_keys_of_their_own() {
        let secret = NodeSecret::ephemeral(&SystemRandom::default());
        let code = secret.derive(&tenant("a"), KeyPurpose::Cursor).sign(b"x");
        assert!(!secret.derive(&tenant("b"), KeyPurpose::Cursor).verify(b"x", &code));
        assert!(!secret.derive(&tenant("a"), KeyPurpose::Link).verify(b"x", &code));
        assert!(!secret.derive(&tenant("a"), KeyPurpose::Cursor).verify(b"y", &code));
        assert!(!secret.derive(&tenant("a"), KeyPurpose::Cursor).verify(b"x", &code[..31]));
        assert!(!format!("{secret:?}").contains(','));
    }
}
