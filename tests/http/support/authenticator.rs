//! A passkey authenticator and the browser around it, in software: ES256 by ring, CBOR by hand.
//!
//! Keeps true: it does what WebAuthn 3 asks of both, unless a test tells it to do something else.
//! Does not do: attestation, extensions.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const BACKUP_ELIGIBLE: u8 = 0x08;
const BACKED_UP: u8 = 0x10;
const HAS_CREDENTIAL: u8 = 0x40;

/// One passkey on one device.
pub(crate) struct Authenticator {
    key: EcdsaKeyPair,
    id: Vec<u8>,
    user_handle: String,
    /// Where the page is.
    pub(crate) origin: String,
    /// The counter that the next signature carries; 0 is none.
    pub(crate) counter: u32,
    /// Whether the user shows who they are.
    pub(crate) verifies: bool,
    /// Whether the passkey is kept in more than one place; fixed at creation but for the second.
    pub(crate) eligible: bool,
    pub(crate) backed_up: bool,
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A CBOR head: major type and length or value.
fn head(major: u8, value: usize) -> Vec<u8> {
    match value {
        0..=23 => vec![major << 5 | value as u8],
        24..=255 => vec![major << 5 | 24, value as u8],
        _ => [&[major << 5 | 25][..], &(value as u16).to_be_bytes()].concat(),
    }
}

fn text(text: &str) -> Vec<u8> {
    [head(3, text.len()), text.as_bytes().to_vec()].concat()
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    [head(2, bytes.len()), bytes.to_vec()].concat()
}

impl Authenticator {
    /// A device at pages of `origin`, without a passkey yet.
    pub(crate) fn new(origin: &str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let mut id = vec![0; 32];
        random.fill(&mut id).unwrap();
        let (user_handle, origin) = (String::new(), origin.to_owned());
        Self { key, id, user_handle, origin, counter: 0, verifies: true, eligible: true, backed_up: false }
    }

    /// `navigator.credentials.create`.
    pub(crate) fn create(&mut self, options: &Value) -> Value {
        let options = &options["publicKey"];
        self.user_handle = options["user"]["id"].as_str().unwrap().to_owned();
        let client = self.client_data("webauthn.create", options);
        let mut data = self.authenticator_data(options["rp"]["id"].as_str().unwrap(), HAS_CREDENTIAL);
        data.extend([0; 16]);
        data.extend((self.id.len() as u16).to_be_bytes());
        data.extend(&self.id);
        data.extend(self.public_key());
        let attestation =
            [head(5, 3), text("fmt"), text("none"), text("attStmt"), head(5, 0), text("authData"), bytes(&data)];
        json!({
            "id": encode(&self.id), "rawId": encode(&self.id), "type": "public-key", "clientExtensionResults": {},
            "response": { "clientDataJSON": encode(&client), "attestationObject": encode(&attestation.concat()),
                          "transports": ["internal"] },
        })
    }

    /// `navigator.credentials.get`.
    pub(crate) fn get(&mut self, options: &Value) -> Value {
        let options = &options["publicKey"];
        let client = self.client_data("webauthn.get", options);
        let data = self.authenticator_data(options["rpId"].as_str().unwrap(), 0);
        let signed = [data.as_slice(), digest(&SHA256, &client).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        json!({
            "id": encode(&self.id), "rawId": encode(&self.id), "type": "public-key", "clientExtensionResults": {},
            "response": { "clientDataJSON": encode(&client), "authenticatorData": encode(&data),
                          "signature": encode(signature.as_ref()), "userHandle": self.user_handle },
        })
    }

    fn client_data(&self, what: &str, options: &Value) -> Vec<u8> {
        let data = json!({
            "type": what, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": false,
        });
        data.to_string().into_bytes()
    }

    fn authenticator_data(&mut self, rp_id: &str, more: u8) -> Vec<u8> {
        let mut flags = USER_PRESENT | more;
        for (set, flag) in
            [(self.verifies, USER_VERIFIED), (self.eligible, BACKUP_ELIGIBLE), (self.backed_up, BACKED_UP)]
        {
            flags |= if set { flag } else { 0 };
        }
        let data = [digest(&SHA256, rp_id.as_bytes()).as_ref(), &[flags], &self.counter.to_be_bytes()].concat();
        self.counter += u32::from(self.counter > 0);
        data
    }

    /// COSE_Key: EC2, ES256, P-256, x, y.
    fn public_key(&self) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        let (x, y) = (&point[1..33], &point[33..65]);
        let parts = [head(5, 5), vec![0x01, 0x02, 0x03, 0x26, 0x20, 0x01], vec![0x21], bytes(x), vec![0x22], bytes(y)];
        parts.concat()
    }
}
