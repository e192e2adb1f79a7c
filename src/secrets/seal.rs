//! Secrets at rest that must be read again: AES-256-GCM under a key per tenant, derived from the node's secret.
//!
//! Keeps true: what was sealed for one tenant and one place does not open for another (the place is authenticated); a
//! changed byte opens nothing; the derived key is never shown. Beside them, names for texts that are to be recognized and
//! not read.
//! Does not do: rotating the node's secret. What only has to be compared is kept as a digest, see `opaque`.

use super::keys::NodeSecret;
use crate::kernel::ident::TenantId;
use crate::kernel::random::Random;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::hmac::{self, HMAC_SHA256};
use std::fmt;
use zeroize::Zeroizing;

/// First part of sealed text: format version. Then whom it was sealed for, `:`, and the bytes.
const VERSION_PREFIX: &str = "2:";

/// Seals and opens; cheap to clone.
#[derive(Clone)]
pub struct Sealer(Prk);

impl Sealer {
    /// A sealer under `secret`.
    pub fn new(secret: &NodeSecret) -> Self {
        Self(secret.extract(&Salt::new(HKDF_SHA256, b"tenantry/seal/v1")))
    }

    /// Seals `plain` for one place of one tenant; the text can be stored.
    pub fn seal(&self, random: &dyn Random, tenant: &TenantId, place: &str, plain: &[u8]) -> String {
        let mut nonce = [0_u8; NONCE_LEN];
        random.fill(&mut nonce);
        let mut sealed = nonce.to_vec();
        let mut bytes = Zeroizing::new(plain.to_vec());
        let tag = self
            .key(tenant)
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut bytes)
            .expect("invariant: a short text is within the bound of the cipher");
        sealed.extend_from_slice(&bytes);
        sealed.extend_from_slice(tag.as_ref());
        format!("{VERSION_PREFIX}{tenant}:{}", URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens what was sealed for the same place of the same tenant; `None` for everything else.
    pub fn open(&self, tenant: &TenantId, place: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        let coded = text.strip_prefix(VERSION_PREFIX)?.strip_prefix(tenant.as_str())?.strip_prefix(':')?;
        let mut sealed = Zeroizing::new(URL_SAFE_NO_PAD.decode(coded).ok()?);
        let (nonce, bytes) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key(tenant).open_in_place(nonce, Aad::from(place), bytes).ok()?;
        Some(Zeroizing::new(plain.to_vec()))
    }

    /// `text`, which was sealed under this secret for `source`, sealed for `target`; `None` for everything else. For copies
    /// of a tenant, and for nothing else.
    pub fn move_to(
        &self,
        random: &dyn Random,
        source: &TenantId,
        target: &TenantId,
        place: &str,
        text: &str,
    ) -> Option<String> {
        let plain = self.open(source, place, text)?;
        Some(self.seal(random, target, place, &plain))
    }

    /// Whom `text` says that it was sealed for, if it does and what it says is true.
    pub fn named(&self, place: &str, text: &str) -> Option<TenantId> {
        let (named, _) = text.strip_prefix(VERSION_PREFIX)?.split_once(':')?;
        let named = TenantId::parse(named).ok()?;
        self.open(&named, place, text).map(|_| named)
    }

    /// What the node adds to the keys that sign tokens of `tenant`: whoever has the tenant's file alone signs nothing.
    pub fn token_part(&self, tenant: &TenantId) -> Zeroizing<[u8; 32]> {
        let info = [b"token/", tenant.as_str().as_bytes()];
        let derived = self.0.expand(&info, HMAC_SHA256).expect("invariant: one key is within the bound of HKDF");
        let mut part = Zeroizing::new([0_u8; 32]);
        derived.fill(&mut part[..]).expect("invariant: the key of HMAC-SHA-256 has 32 bytes");
        part
    }

    /// What `text` is called where it must not be read: the same for the same text of a tenant, and not to be tried out by
    /// whoever lacks the node's secret. Sixteen hexadecimal digits.
    pub fn mark(&self, tenant: &TenantId, text: &str) -> String {
        // No tenant's id has a slash: this key is no tenant's sealing key.
        let info = [b"mark/", tenant.as_str().as_bytes()];
        let derived = self.0.expand(&info, HMAC_SHA256).expect("invariant: one key is within the bound of HKDF");
        let code = hmac::sign(&hmac::Key::from(derived), text.as_bytes());
        code.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    fn key(&self, tenant: &TenantId) -> LessSafeKey {
        let info = [tenant.as_str().as_bytes()];
        let derived = self.0.expand(&info, &AES_256_GCM).expect("invariant: one key is within the bound of HKDF");
        LessSafeKey::new(UnboundKey::from(derived))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SystemRandom;

    #[test]
    fn a_mark_is_the_same_for_the_same_text_of_one_tenant_of_one_node() {
        let random = SystemRandom::default();
        let tenant = |id: &str| TenantId::parse(id).unwrap();
        let (sealer, other) =
            (Sealer::new(&NodeSecret::ephemeral(&random)), Sealer::new(&NodeSecret::ephemeral(&random)));
        let mark = sealer.mark(&tenant("a"), "ada");
        assert_eq!(mark, sealer.mark(&tenant("a"), "ada"));
        assert!(mark.len() == 16 && mark.bytes().all(|byte| byte.is_ascii_hexdigit()));
        for different in
            [sealer.mark(&tenant("b"), "ada"), sealer.mark(&tenant("a"), "bob"), other.mark(&tenant("a"), "ada")]
        {
            assert_ne!(mark, different);
        }
    }

    #[test]
    fn only_the_same_tenant_and_place_open_it() {
        let random = SystemRandom::default();
        let tenant = |id: &str| TenantId::parse(id).unwrap();
        let sealer = Sealer::new(&NodeSecret::ephemeral(&random));
        let text = sealer.seal(&random, &tenant("a"), "totp/u/1", b"secret");
        assert_eq!(sealer.open(&tenant("a"), "totp/u/1", &text).unwrap().as_slice(), b"secret");
        assert!(!text.contains("secret"));
        assert_ne!(text, sealer.seal(&random, &tenant("a"), "totp/u/1", b"secret"), "a nonce is used once");
        assert!(sealer.open(&tenant("b"), "totp/u/1", &text).is_none());
        assert!(sealer.open(&tenant("a"), "totp/u/2", &text).is_none());
        let other = Sealer::new(&NodeSecret::ephemeral(&random));
        assert!(other.open(&tenant("a"), "totp/u/1", &text).is_none());
        let without_version = text.trim_start_matches("2:");
        // Of the first builds: it did not say whom it was sealed for.
        let without_name = text.replacen("2:a:", "1:", 1);
        let cut = &text[..text.len() - 2];
        for damaged in ["", "1:", "1:AAAA", "2:AAAA", "2:a:", "2:a:AAAA", cut, without_version, &without_name] {
            assert!(sealer.open(&tenant("a"), "totp/u/1", damaged).is_none(), "{damaged}");
        }
    }

    #[test]
    fn a_copy_gets_what_this_node_sealed_and_nothing_else() {
        let random = SystemRandom::default();
        let tenant = |id: &str| TenantId::parse(id).unwrap();
        let (sealer, other) =
            (Sealer::new(&NodeSecret::ephemeral(&random)), Sealer::new(&NodeSecret::ephemeral(&random)));
        let (text, copy, a) = (sealer.seal(&random, &tenant("a"), "p", b"secret"), tenant("copy"), tenant("a"));
        let moved = sealer.move_to(&random, &a, &copy, "p", &text).unwrap();
        assert_eq!(sealer.open(&copy, "p", &moved).unwrap().as_slice(), b"secret");
        assert!(sealer.open(&tenant("a"), "p", &moved).is_none());
        assert!(sealer.move_to(&random, &a, &copy, "q", &text).is_none(), "another place");
        assert!(other.move_to(&random, &a, &copy, "p", &text).is_none(), "another node");
        assert!(sealer.move_to(&random, &tenant("b"), &copy, "p", &text).is_none(), "another tenant");
        assert_eq!(sealer.named("p", &text), Some(a.clone()));
        assert_eq!(sealer.named("p", &text.replacen("2:a:", "2:b:", 1)), None, "a name that is not true");
    }

    #[test]
    fn each_tenant_of_each_node_has_a_token_part_of_its_own() {
        let random = SystemRandom::default();
        let tenant = |id: &str| TenantId::parse(id).unwrap();
        let (sealer, other) =
            (Sealer::new(&NodeSecret::ephemeral(&random)), Sealer::new(&NodeSecret::ephemeral(&random)));
        let part = sealer.token_part(&tenant("a"));
        assert_eq!(part, sealer.token_part(&tenant("a")));
        assert_ne!(part, sealer.token_part(&tenant("b")));
        assert_ne!(part, other.token_part(&tenant("a")));
    }
}
