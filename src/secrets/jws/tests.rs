//! The verifier against published vectors, and against everything that is not a signature of a published key.

use super::*;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
// RFC 7515, A.2 and A.3.
const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RSA_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const EC_SIGNATURE: &str = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

fn set(keys: Value) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), 64).unwrap()
}

fn verify(token: &str, keys: &KeySet) -> Result<Map<String, Value>, JwsError> {
    UnverifiedJws::parse(token, 16_384)?.verify(keys)
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A key pair, its published form and what it signs.
struct Issuer {
    pair: Ed25519KeyPair,
    keys: KeySet,
}

impl Issuer {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        Self { pair, keys: set(json!([{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x, "use": "sig"}])) }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let proof = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{proof}")
    }
}

#[test]
fn the_examples_of_the_standard_hold() {
    let keys = set(json!([
        {"kty": "RSA", "n": RSA_N, "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": EC_X, "y": EC_Y},
    ]));
    let rsa = format!("eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.{RSA_SIGNATURE}");
    let ec = format!("eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.{EC_SIGNATURE}");
    for token in [rsa, ec] {
        assert_eq!(verify(&token, &keys).unwrap()["iss"], "joe");
        let mut forged = token.into_bytes();
        let at = forged.len() - 20;
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        assert_eq!(verify(&forged, &keys), Err(JwsError::Signature));
    }
}

#[test]
fn none_and_hmac_do_not_exist() {
    let issuer = Issuer::new();
    let claims = json!({"sub": "evil"});
    for header in [json!({"alg": "none"}), json!({"alg": "None", "kid": "k1"}), json!({"alg": "", "kid": "k1"})] {
        let token = format!("{}.{}.", encode(&header), encode(&claims));
        assert_eq!(verify(&token, &issuer.keys), Err(JwsError::Algorithm), "{header}");
    }
    // HS256 with the public key as the secret: RSA as text, Ed25519 as bytes.
    for (secret, kid) in [(RSA_N.as_bytes().to_vec(), "r"), (issuer.pair.public_key().as_ref().to_vec(), "k1")] {
        let signed = format!("{}.{}", encode(&json!({"alg": "HS256", "kid": kid})), encode(&claims));
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret), signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
        let keys = set(json!([
            {"kty": "RSA", "kid": "r", "n": RSA_N, "e": "AQAB"},
            {"kty": "oct", "kid": "k1", "k": URL_SAFE_NO_PAD.encode(&secret), "alg": "HS256"},
        ]));
        assert_eq!(verify(&token, &keys), Err(JwsError::Algorithm));
    }
    assert!(set(json!([{"kty": "oct", "k": "c2VjcmV0"}])).is_empty());
}

#[test]
fn the_key_and_not_the_header_says_what_it_verifies() {
    let issuer = Issuer::new();
    for algorithm in ["RS256", "ES256", "PS256"] {
        let token = issuer.sign(&json!({"alg": algorithm, "kid": "k1"}), &json!({}));
        assert_eq!(verify(&token, &issuer.keys), Err(JwsError::Algorithm));
    }
    // The published key says which one it is for.
    let rsa = set(json!([{"kty": "RSA", "n": RSA_N, "e": "AQAB", "alg": "PS256"}]));
    let token = format!("eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.{RSA_SIGNATURE}");
    assert_eq!(verify(&token, &rsa), Err(JwsError::Algorithm));
    // A key for encryption verifies nothing.
    assert!(set(json!([{"kty": "RSA", "n": RSA_N, "e": "AQAB", "use": "enc"}])).is_empty());
}

#[test]
fn a_token_is_checked_against_the_key_it_names_and_no_other() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let header = json!({"alg": "EdDSA", "kid": "k2"});
    assert_eq!(verify(&issuer.sign(&header, &json!({})), &issuer.keys), Err(JwsError::UnknownKey));
    let foreign = other.sign(&json!({"alg": "EdDSA", "kid": "k1"}), &json!({}));
    assert_eq!(verify(&foreign, &issuer.keys), Err(JwsError::Signature));
    // Without a name every key that fits is tried.
    assert!(verify(&issuer.sign(&json!({"alg": "EdDSA"}), &json!({"a": 1})), &issuer.keys).is_ok());
    assert_eq!(
        verify(&issuer.sign(&json!({"alg": "EdDSA"}), &json!({})), &KeySet::default()),
        Err(JwsError::UnknownKey)
    );
    let critical = issuer.sign(&json!({"alg": "EdDSA", "kid": "k1", "crit": ["b64"], "b64": false}), &json!({}));
    assert_eq!(verify(&critical, &issuer.keys), Err(JwsError::Algorithm));
}

#[test]
fn a_signed_client_secret_verifies() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(pkcs8.as_ref()));
    let token = sign_es256(&pem, "apple", &json!({"aud": "https://appleid.apple.com"})).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let keys = set(json!([{"kty": "EC", "crv": "P-256", "kid": "apple", "x": x, "y": y}]));
    assert_eq!(verify(&token, &keys).unwrap()["aud"], "https://appleid.apple.com");
    assert_eq!(sign_es256("not a key", "k", &json!({})), None);
}

#[test]
fn a_token_past_its_bound_is_not_looked_at() {
    let issuer = Issuer::new();
    let token = issuer.sign(&json!({"alg": "EdDSA", "kid": "k1"}), &json!({"pad": "x".repeat(20_000)}));
    assert_eq!(verify(&token, &issuer.keys), Err(JwsError::Malformed));
}

proptest! {
    /// Whatever one byte of a token becomes, it is refused or says the same.
    #[test]
    fn no_changed_byte_is_accepted(at in 0_usize..400, byte in 0_u8..128) {
        let issuer = Issuer::new();
        let claims = json!({"iss": "a", "sub": "b", "aud": ["c", "d"], "exp": 1_900_000_000});
        let token = issuer.sign(&json!({"alg": "EdDSA", "kid": "k1"}), &claims);
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        match verify(&changed, &issuer.keys) {
            Ok(seen) => {
                // Bits that base64 does not use may differ; then header and payload are the same bytes.
                prop_assert_eq!(&changed, &token);
                prop_assert_eq!(Value::Object(seen), claims);
            }
            Err(_) => prop_assert_ne!(changed, token),
        }
    }

    /// Text of any kind is refused without a panic.
    #[test]
    fn noise_is_refused(text in "[A-Za-z0-9_.-]{0,200}", json in any::<Vec<u8>>()) {
        prop_assert!(verify(&text, &Issuer::new().keys).is_err());
        let _ = KeySet::parse(&json, 4);
    }
}
