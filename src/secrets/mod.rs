//! L2: everything that must not be guessed. Passwords, tokens, keys derived from the node's secret.
//!
//! Keeps true: a secret's text never reaches `Debug`, `Display` or an error; comparisons of secrets take constant time;
//! one signature algorithm exists for our own tokens (HS256), so there is none to confuse it with; those of others are
//! checked in `jws`, which has no HMAC at all.
//! Does not do: knowing users, tenants' states or HTTP. `services::auth` decides who may come in.

pub mod guessable;
pub mod jws;
pub mod keys;
pub mod opaque;
pub mod password;
pub mod seal;
pub mod steady;
pub mod token;
pub mod totp;
mod turns;

use std::fmt;
use zeroize::Zeroizing;

/// Text that is never printed and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text; whoever calls this is responsible for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Compares with `other` in time that depends only on the lengths.
    pub fn matches(&self, other: &str) -> bool {
        use subtle::ConstantTimeEq as _;
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new("correct horse");
        assert!(!format!("{secret:?}").contains("horse"));
        assert!(!format!("{:#?}", Some(&secret)).contains("horse"));
        assert!(secret.matches("correct horse"));
        assert!(!secret.matches("correct hors"));
        assert!(!secret.matches("correct horsf"));
    }
}
