//! Sealing without chance: AES-256-GCM whose nonce is a keyed digest of what is sealed, as in SIV (RFC 5297).
//!
//! Keeps true: the same text sealed for the same place gives the same bytes, so that answers which hold it can be
//! compared and kept; a nonce meets a second text only where two digests of 96 bits collide; what was sealed for one
//! tenant, purpose or place opens for no other.
//! Does not do: hiding that two sealed texts are the same, or how long they are. Where that matters there is `seal`.

use super::keys::{KeyPurpose, NodeSecret};
use crate::kernel::ident::TenantId;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::hmac;
use std::fmt;

/// A key that seals without chance.
pub struct SteadyKey {
    digest: hmac::Key,
    cipher: LessSafeKey,
}

impl SteadyKey {
    /// The key of `tenant` for `purpose`.
    pub fn new(secret: &NodeSecret, tenant: &TenantId, purpose: KeyPurpose) -> Self {
        let extracted = secret.extract(&Salt::new(HKDF_SHA256, b"tenantry/steady/v1"));
        let info = |part: &'static [u8]| [part, b"/", purpose.label(), b"/", tenant.as_str().as_bytes()];
        let (for_digest, for_cipher) = (info(b"digest"), info(b"cipher"));
        let fits = "invariant: one key is within the bound of HKDF";
        Self {
            digest: hmac::Key::from(extracted.expand(&for_digest, hmac::HMAC_SHA256).expect(fits)),
            cipher: LessSafeKey::new(UnboundKey::from(extracted.expand(&for_cipher, &AES_256_GCM).expect(fits))),
        }
    }

    /// Seals `plain` for the place that `bound` describes.
    pub fn seal(&self, bound: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce = self.nonce(bound, plain);
        let mut sealed = nonce.to_vec();
        let mut bytes = plain.to_vec();
        self.cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut bytes)
            .expect("invariant: a short text is within the bound of the cipher");
        sealed.extend(bytes);
        sealed
    }

    /// Opens what was sealed for the same place; `None` for everything else.
    pub fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, bytes) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = bytes.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.cipher.open_in_place(nonce, Aad::from(bound), &mut bytes).ok()?;
        Some(plain.to_vec())
    }

    fn nonce(&self, bound: &[u8], plain: &[u8]) -> [u8; NONCE_LEN] {
        let mut digest = hmac::Context::with_key(&self.digest);
        digest.update(&(bound.len() as u64).to_be_bytes());
        digest.update(bound);
        digest.update(plain);
        let tag = digest.sign();
        let mut nonce = [0; NONCE_LEN];
        nonce.iter_mut().zip(tag.as_ref()).for_each(|(slot, byte)| *slot = *byte);
        nonce
    }
}

impl fmt::Debug for SteadyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SteadyKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SystemRandom;

    #[test]
    fn the_same_gives_the_same_and_nothing_else_opens_it() {
        let secret = NodeSecret::ephemeral(&SystemRandom::default());
        let key = |tenant: &str, purpose| SteadyKey::new(&secret, &TenantId::parse(tenant).unwrap(), purpose);
        let here = key("a", KeyPurpose::Cursor);
        let sealed = here.seal(b"place", b"row 4711");
        assert_eq!(sealed, key("a", KeyPurpose::Cursor).seal(b"place", b"row 4711"));
        assert_eq!(here.open(b"place", &sealed).unwrap(), b"row 4711");
        assert!(!sealed.windows(4).any(|window| window == b"4711"));
        assert_ne!(sealed[..NONCE_LEN], here.seal(b"place", b"row 4712")[..NONCE_LEN]);
        assert_ne!(sealed[..NONCE_LEN], here.seal(b"placer", b"ow 4711")[..NONCE_LEN]);
        for other in [key("b", KeyPurpose::Cursor), key("a", KeyPurpose::Link)] {
            assert!(other.open(b"place", &sealed).is_none());
        }
        assert!(here.open(b"elsewhere", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(here.open(b"place", &damaged).is_none(), "{at}");
            assert!(here.open(b"place", &sealed[..at]).is_none(), "{at}");
        }
    }
}
