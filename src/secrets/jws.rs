//! Tokens that others signed (JWS, RFC 7515) and the keys they published (JWK, RFC 7517).
//!
//! Keeps true: only public-key signatures exist here, so `none` and a provider's public key used as an HMAC secret have
//! nothing to be confused with; the key decides which algorithms it may verify, the header only picks among them; a header
//! with `crit` is refused. Does not do: claims; whoever verifies decides who, for whom and until when.
//!
//! Written on ring directly: jsonwebtoken brings no backend of ring's, and its validation is of claims, not of these.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwsError {
    /// Not three parts of base64url with JSON inside.
    #[error("the token is malformed")]
    Malformed,
    /// Signed in a way that is not accepted, `none` and HMAC among them.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// The key set has no such key.
    #[error("the token's key is not among those published")]
    UnknownKey,
    /// The signature does not hold.
    #[error("the token's signature does not hold")]
    Signature,
}

/// A token whose signature was not looked at.
#[derive(Debug, Clone)]
pub struct UnverifiedJws<'text> {
    algorithm: String,
    key_id: Option<String>,
    signed: &'text str,
    payload: &'text str,
    signature: Vec<u8>,
}

impl<'text> UnverifiedJws<'text> {
    /// Takes the compact form apart; `bytes_max` bounds it.
    pub fn parse(text: &'text str, bytes_max: usize) -> Result<Self, JwsError> {
        if text.len() > bytes_max {
            return Err(JwsError::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Malformed)?;
        if payload.contains('.') {
            return Err(JwsError::Malformed);
        }
        let header = decode_object(header)?;
        if header.contains_key("crit") {
            return Err(JwsError::Algorithm);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(JwsError::Malformed)?.to_owned();
        let key_id = match header.get("kid") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(JwsError::Malformed),
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwsError::Malformed)?;
        Ok(Self { algorithm, key_id, signed, payload, signature })
    }

    /// The claims, if one of `keys` signed them.
    ///
    /// A token that names a key is checked against that key alone; one that names none against each that fits.
    pub fn verify(&self, keys: &KeySet) -> Result<Map<String, Value>, JwsError> {
        if !ALGORITHMS.contains(&self.algorithm.as_str()) {
            return Err(JwsError::Algorithm);
        }
        let named = |key: &&Key| self.key_id.is_none() || key.id == self.key_id;
        let mut candidates = keys.0.iter().filter(named).peekable();
        candidates.peek().ok_or(JwsError::UnknownKey)?;
        let mut fits = candidates.filter(|key| key.is_for(&self.algorithm)).peekable();
        fits.peek().ok_or(JwsError::Algorithm)?;
        match fits.any(|key| key.holds(&self.algorithm, self.signed.as_bytes(), &self.signature)) {
            true => decode_object(self.payload),
            false => Err(JwsError::Signature),
        }
    }
}

fn decode_object(part: &str) -> Result<Map<String, Value>, JwsError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JwsError::Malformed)
}

const ALGORITHMS: &[&str] =
    &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"];

/// The keys that an issuer published; those of kinds that are not understood are left out.
#[derive(Debug, Clone, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    /// The one algorithm the key says it is for.
    only: Option<String>,
    public: Public,
}

#[derive(Debug, Clone)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl KeySet {
    /// Reads a JWK set; `None` if it is none. At most `keys_max` keys are taken.
    pub fn parse(json: &[u8], keys_max: usize) -> Option<Self> {
        let set: Value = serde_json::from_slice(json).ok()?;
        let keys = set.get("keys")?.as_array()?;
        Some(Self(keys.iter().take(keys_max).filter_map(Key::parse).collect()))
    }

    /// Whether no key is in it that could verify anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Key {
    fn parse(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let public = match (text("kty")?, text("crv")) {
            ("RSA", _) => Public::Rsa { n: unpadded(bytes("n")?), e: unpadded(bytes("e")?) },
            ("EC", Some("P-256")) => Public::P256(point(&bytes("x")?, &bytes("y")?, 32)?),
            ("EC", Some("P-384")) => Public::P384(point(&bytes("x")?, &bytes("y")?, 48)?),
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes("x")?),
            // Symmetric keys above all: a published key that also signs is no proof of anything.
            _ => return None,
        };
        Some(Self { id: text("kid").map(str::to_owned), only: text("alg").map(str::to_owned), public })
    }

    fn is_for(&self, algorithm: &str) -> bool {
        let family = match &self.public {
            Public::Rsa { .. } => algorithm.starts_with("RS") || algorithm.starts_with("PS"),
            Public::P256(_) => algorithm == "ES256",
            Public::P384(_) => algorithm == "ES384",
            Public::Ed25519(_) => matches!(algorithm, "EdDSA" | "Ed25519"),
        };
        let eddsa = |name: &str| matches!(name, "EdDSA" | "Ed25519");
        family && self.only.as_deref().is_none_or(|only| only == algorithm || (eddsa(only) && eddsa(algorithm)))
    }

    fn holds(&self, algorithm: &str, message: &[u8], proof: &[u8]) -> bool {
        let check = |kind: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(kind, key).verify(message, proof).is_ok()
        };
        match &self.public {
            Public::Rsa { n, e } => {
                let kind = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                signature::RsaPublicKeyComponents { n, e }.verify(kind, message, proof).is_ok()
            }
            Public::P256(key) => check(&signature::ECDSA_P256_SHA256_FIXED, key),
            Public::P384(key) => check(&signature::ECDSA_P384_SHA384_FIXED, key),
            Public::Ed25519(key) => check(&signature::ED25519, key),
        }
    }
}

/// ring takes big-endian numbers without leading zeros.
fn unpadded(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().skip_while(|byte| *byte == 0).collect()
}

/// The uncompressed form of a point (SEC 1, 2.3.3).
fn point(x: &[u8], y: &[u8], len: usize) -> Option<Vec<u8>> {
    (x.len() == len && y.len() == len).then(|| [&[4], x, y].concat())
}

/// Signs `claims` with ES256 and a private key in PKCS#8, as PEM text; `None` if the key is none.
///
/// Apple wants its client secret to be such a token.
pub fn sign_es256(pem: &str, key_id: &str, claims: &Value) -> Option<String> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let der = Zeroizing::new(STANDARD.decode(body).ok()?);
    let random = ring::rand::SystemRandom::new();
    let kind = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = signature::EcdsaKeyPair::from_pkcs8(kind, &der, &random).ok()?;
    let header = serde_json::json!({"alg": "ES256", "kid": key_id, "typ": "JWT"});
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(claims));
    let proof = key.sign(&random, signed.as_bytes()).ok()?;
    Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(proof.as_ref())))
}

#[cfg(test)]
mod tests;
