//! Codes of authenticator apps: TOTP (RFC 6238) with SHA-1, six digits and steps of 30 seconds, which every app knows.
//!
//! Keeps true: a code of the present step or of one beside it holds, and whoever checks learns the step so that it can be
//! used once; the secret is never printed. Does not do: storing, counting guesses, reading the clock.

use super::Secret;
use crate::kernel::random::Random;
use totp_rs::{Algorithm, Builder, Totp};
use zeroize::Zeroizing;

/// Bytes of a secret: 160 bits, RFC 4226, section 4.
const SECRET_LEN: usize = 20;
const DIGITS: u8 = 6;
const STEP_S: u64 = 30;
/// Steps before and after the present one that count, RFC 6238, section 5.2.
const SKEW: u16 = 1;

/// The secret that an authenticator app and this node share.
pub struct TotpSecret(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TotpSecret(redacted)")
    }
}

impl TotpSecret {
    /// A new secret.
    pub fn generate(random: &dyn Random) -> Self {
        let mut bytes = Zeroizing::new(vec![0_u8; SECRET_LEN]);
        random.fill(&mut bytes);
        Self(bytes)
    }

    /// A secret that was stored; `None` if these are not its bytes.
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        (bytes.len() == SECRET_LEN).then_some(Self(bytes))
    }

    /// The bytes, to be sealed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The step that `code` belongs to at `now_ms`; `None` if it does not hold.
    pub fn check(&self, code: &str, now_ms: i64) -> Option<u64> {
        let code = Zeroizing::new(code.chars().filter(|letter| !letter.is_whitespace()).collect::<String>());
        let is_code = code.len() == usize::from(DIGITS) && code.bytes().all(|byte| byte.is_ascii_digit());
        let now_s = u64::try_from(now_ms.div_euclid(1_000)).unwrap_or(0);
        is_code.then(|| self.totp("", "")?.check(&code, now_s)).flatten()
    }

    /// The secret as people type it: base32.
    pub fn to_text(&self) -> Secret {
        Secret::new(totp_rs::Secret::from(self.0.to_vec()).to_base32())
    }

    /// The `otpauth:` address that apps read from a QR code.
    pub fn to_uri(&self, issuer: &str, account: &str) -> Option<Secret> {
        self.totp(issuer, account)?.to_url().ok().map(Secret::new)
    }

    fn totp(&self, issuer: &str, account: &str) -> Option<Totp> {
        // Both are separated by a colon in the label, so neither may hold one.
        let (issuer, account) = (issuer.replace(':', " "), account.replace(':', " "));
        Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(DIGITS)
            .with_skew(SKEW)
            .with_step_duration(STEP_S)
            .with_secret(self.0.to_vec())
            .with_issuer((!issuer.is_empty()).then_some(issuer))
            .with_account_name(account)
            .build()
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SystemRandom;

    /// RFC 6238, appendix B, SHA-1, the last six of its eight digits.
    #[test]
    fn the_codes_are_those_of_the_standard() {
        let secret = TotpSecret::from_bytes(Zeroizing::new(b"12345678901234567890".to_vec())).unwrap();
        for (at_s, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            assert_eq!(secret.check(code, at_s * 1_000), Some(u64::try_from(at_s).unwrap() / 30));
        }
        let step = Some(1_111_111_109 / 30);
        assert_eq!(secret.check("081 804", (1_111_111_109 + 30) * 1_000), step, "one step late, with a space");
        assert_eq!(secret.check("081804", (1_111_111_109 - 30) * 1_000), step, "one step early");
        assert_eq!(secret.check("081804", (1_111_111_109 + 60) * 1_000), None);
        for code in ["", "81804", "0081804", "08180x", "٠٨١٨٠٤"] {
            assert_eq!(secret.check(code, 1_111_111_109_000), None, "{code}");
        }
    }

    #[test]
    fn the_address_is_what_apps_read() {
        let secret = TotpSecret::from_bytes(Zeroizing::new(b"12345678901234567890".to_vec())).unwrap();
        let text = secret.to_text();
        assert_eq!(text.expose(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        let uri = secret.to_uri("Acme: Ltd", "ada@a.test").unwrap();
        assert!(uri.expose().starts_with("otpauth://totp/Acme"), "{}", uri.expose());
        assert!(uri.expose().contains(text.expose()));
        assert!(!format!("{secret:?}").contains("GEZD"));
        assert_eq!(TotpSecret::generate(&SystemRandom::default()).as_bytes().len(), SECRET_LEN);
        assert!(TotpSecret::from_bytes(Zeroizing::new(vec![1; 19])).is_none());
    }
}
