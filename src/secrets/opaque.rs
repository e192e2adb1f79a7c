//! Opaque secrets: refresh tokens, API keys, one-time codes. Handed out once, kept only as a SHA-256 digest.
//!
//! Keeps true: what is stored cannot be turned back into what was handed out (256 bits of entropy need no slow hash);
//! one-time codes, which are short, must be bound by attempts and time by whoever keeps them.
//! Does not do: storing, expiring, comparing with anything but a digest.

use super::Secret;
use crate::kernel::digest;
use crate::kernel::random::{self, Random};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

/// Characters in a generated `tokenKey` (PocketBase: 50).
pub const TOKEN_KEY_LEN: usize = 50;

const ALPHANUMERIC: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// Draws a secret of 256 bits that starts with `prefix`, as base64url text.
pub fn generate(random: &dyn Random, prefix: &str) -> Secret {
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    random.fill(bytes.as_mut());
    let mut text = String::from(prefix);
    URL_SAFE_NO_PAD.encode_string(bytes.as_ref(), &mut text);
    Secret::new(text)
}

/// Draws a `tokenKey` or collection secret: 50 letters and digits.
pub fn generate_token_key(random: &dyn Random) -> String {
    random::from_alphabet(random, ALPHANUMERIC, TOKEN_KEY_LEN)
}

/// Draws a code of `len` digits.
pub fn generate_code(random: &dyn Random, len: usize) -> Secret {
    Secret::new(random::from_alphabet(random, b"0123456789", len))
}

/// Draws a password a person can copy: 20 letters and digits without look-alikes, about 116 bits.
pub fn generate_password(random: &dyn Random) -> Secret {
    Secret::new(random::from_alphabet(random, b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", 20))
}

/// The digest under which `secret` is stored: SHA-256, lower-case hexadecimal.
pub fn digest_hex(secret: &str) -> String {
    digest::hex(&digest::sha256(secret.as_bytes()))
}

/// Whether `secret` has the stored digest, in constant time.
pub fn matches_digest(secret: &str, stored_hex: &str) -> bool {
    digest_hex(secret).as_bytes().ct_eq(stored_hex.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SystemRandom;

    #[test]
    fn secrets_differ_and_only_their_own_digest_matches() {
        let random = SystemRandom::default();
        let (one, two) = (generate(&random, "tnr_"), generate(&random, "tnr_"));
        assert!(one.expose().starts_with("tnr_") && one.len() == 4 + 43);
        assert_ne!(one, two);
        assert!(matches_digest(one.expose(), &digest_hex(one.expose())));
        assert!(!matches_digest(two.expose(), &digest_hex(one.expose())));
        assert!(!matches_digest(one.expose(), ""));
    }

    #[test]
    fn the_digest_is_sha_256() {
        assert_eq!(digest_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn codes_are_digits() {
        let code = generate_code(&SystemRandom::default(), 8);
        assert!(code.len() == 8 && code.expose().bytes().all(|byte| byte.is_ascii_digit()));
    }
}
