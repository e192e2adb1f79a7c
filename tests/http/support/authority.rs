//! A certificate authority in the test's own process that speaks RFC 8555.
//!
//! Keeps true: every request's signature (ES256), URL and nonce are checked, and a certificate is signed only after the
//! proof was fetched from the node over HTTP. Does not do: TLS of its own, several accounts, errors in detail.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair};
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

struct Order {
    name: String,
    token: String,
    state: &'static str,
    certificate: String,
}

#[derive(Default)]
struct State {
    nonces: HashSet<String>,
    made: u64,
    key: Option<Value>,
    orders: Vec<Order>,
    http_at: Option<SocketAddr>,
    refusals: usize,
}

struct Inner {
    url: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    state: Mutex<State>,
}

/// The running authority; it ends with the test's process.
pub(crate) struct Authority(Arc<Inner>);

impl Authority {
    pub(crate) async fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner { url, issuer, state: Mutex::default() });
        let data = web::Data::from(Arc::clone(&inner));
        let server = HttpServer::new(move || {
            App::new().app_data(data.clone()).default_service(web::to(
                |inner: web::Data<Inner>, request: HttpRequest, body: web::Bytes| async move {
                    inner.into_inner().answer(request.path(), &body).await
                },
            ))
        });
        tokio::spawn(server.workers(1).disable_signals().listen(listener).unwrap().run());
        Self(inner)
    }

    pub(crate) fn directory(&self) -> String {
        format!("{}/directory", self.0.url)
    }

    /// The root in PEM form.
    pub(crate) fn root(&self) -> String {
        self.0.issuer.as_ref().pem()
    }

    /// Where port 80 of every name is.
    pub(crate) fn reach_http_at(&self, address: SocketAddr) {
        self.0.state.lock().unwrap().http_at = Some(address);
    }

    /// The names of all orders, in their order.
    pub(crate) fn orders(&self) -> Vec<String> {
        self.0.state.lock().unwrap().orders.iter().map(|order| order.name.clone()).collect()
    }

    /// Proofs that were looked for and not found.
    pub(crate) fn refusals(&self) -> usize {
        self.0.state.lock().unwrap().refusals
    }
}

impl Inner {
    async fn answer(&self, path: &str, body: &[u8]) -> HttpResponse {
        let (kind, number) = path.trim_start_matches('/').split_once('/').unwrap_or((&path[1..], "0"));
        let number: usize = number.parse().unwrap();
        let url = |kind: &str| format!("{}/{kind}", self.url);
        if kind == "directory" {
            return HttpResponse::Ok().json(json!({
                "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("orders"),
                "meta": { "termsOfService": url("terms") },
            }));
        }
        if kind == "nonce" {
            return HttpResponse::Ok().insert_header(("replay-nonce", self.nonce())).finish();
        }
        let payload = match self.verify(path, body) {
            Ok(payload) => payload,
            Err(why) => {
                let problem = json!({ "type": format!("urn:ietf:params:acme:error:{why}"), "detail": why });
                return HttpResponse::BadRequest().insert_header(("replay-nonce", self.nonce())).json(problem);
            }
        };
        let mut response = HttpResponse::Ok();
        response.insert_header(("replay-nonce", self.nonce()));
        match kind {
            "account" => {
                assert_eq!(payload["termsOfServiceAgreed"], true);
                assert_eq!(payload["contact"], json!(["mailto:ops@example.com"]));
                response.insert_header(("location", url("account/0"))).json(json!({ "status": "valid" }))
            }
            "orders" => {
                let number = self.place(payload["identifiers"][0]["value"].as_str().unwrap());
                response.insert_header(("location", url(&format!("order/{number}")))).json(self.order(number))
            }
            "order" => response.json(self.order(number)),
            "authorization" => response.json(self.authorization(number)),
            "challenge" => {
                self.check(number).await;
                response.json(self.authorization(number)["challenges"][0].clone())
            }
            "finalize" => {
                let csr = B64.decode(payload["csr"].as_str().unwrap()).unwrap();
                let signed = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
                let names: Vec<String> = vec![self.state.lock().unwrap().orders[number].name.clone()];
                let wanted = CertificateParams::new(names).unwrap().subject_alt_names;
                assert_eq!(signed.params.subject_alt_names, wanted, "only what was proved is signed");
                let certificate = signed.signed_by(&self.issuer).unwrap().pem();
                let mut state = self.state.lock().unwrap();
                let order = &mut state.orders[number];
                assert_eq!(order.state, "ready");
                (order.state, order.certificate) = ("valid", certificate);
                drop(state);
                response.json(self.order(number))
            }
            "certificate" => response.body(self.state.lock().unwrap().orders[number].certificate.clone()),
            other => panic!("{other}"),
        }
    }

    fn nonce(&self) -> String {
        let mut state = self.state.lock().unwrap();
        state.made += 1;
        let nonce = format!("nonce-{}", state.made);
        state.nonces.insert(nonce.clone());
        nonce
    }

    /// The payload of a signed request (RFC 7515, RFC 8555 6.2).
    fn verify(&self, path: &str, body: &[u8]) -> Result<Value, &'static str> {
        let signed: HashMap<String, String> = serde_json::from_slice(body).map_err(|_| "malformed")?;
        let part = |name: &str| B64.decode(&signed[name]).unwrap();
        let header: Value = serde_json::from_slice(&part("protected")).map_err(|_| "malformed")?;
        let mut state = self.state.lock().unwrap();
        if !state.nonces.remove(header["nonce"].as_str().unwrap_or_default()) {
            return Err("badNonce");
        }
        if header["url"] != format!("{}{path}", self.url) || header["alg"] != "ES256" {
            return Err("unauthorized");
        }
        if path == "/account" {
            state.key = Some(header["jwk"].clone());
        } else if header["kid"] != format!("{}/account/0", self.url) {
            return Err("accountDoesNotExist");
        }
        let key = state.key.clone().ok_or("accountDoesNotExist")?;
        let axis = |name: &str| B64.decode(key[name].as_str().unwrap()).unwrap();
        let point = [vec![4], axis("x"), axis("y")].concat();
        let message = format!("{}.{}", signed["protected"], signed["payload"]);
        let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        verified.verify(message.as_bytes(), &part("signature")).map_err(|_| "malformed")?;
        Ok(serde_json::from_slice(&part("payload")).unwrap_or_default())
    }

    fn place(&self, name: &str) -> usize {
        let mut state = self.state.lock().unwrap();
        let token = format!("token-{}", state.orders.len());
        state.orders.push(Order { name: name.to_owned(), token, state: "pending", certificate: String::new() });
        state.orders.len() - 1
    }

    fn order(&self, number: usize) -> Value {
        let url = |kind: &str| format!("{}/{kind}/{number}", self.url);
        let state = self.state.lock().unwrap();
        let order = &state.orders[number];
        json!({
            "status": order.state, "identifiers": [{ "type": "dns", "value": order.name }],
            "authorizations": [url("authorization")], "finalize": url("finalize"), "certificate": url("certificate"),
        })
    }

    fn authorization(&self, number: usize) -> Value {
        let state = self.state.lock().unwrap();
        let order = &state.orders[number];
        let status = if order.state == "ready" { "valid" } else { order.state };
        json!({
            "status": status, "identifier": { "type": "dns", "value": order.name },
            "challenges": [{
                "type": "http-01", "token": order.token, "status": status,
                "url": format!("{}/challenge/{number}", self.url),
            }],
        })
    }

    /// Fetches the proof as the outside would: from port 80 of the name.
    async fn check(&self, number: usize) {
        // The test learns the node's address only after the node has begun to ask.
        let at = loop {
            let known = self.state.lock().unwrap().http_at;
            match known {
                Some(at) => break at,
                None => crate::support::pause(std::time::Duration::from_millis(10)).await,
            }
        };
        let (name, token, key) = {
            let state = self.state.lock().unwrap();
            let order = &state.orders[number];
            (order.name.clone(), order.token.clone(), state.key.clone().unwrap())
        };
        let member = |member: &str| key[member].as_str().unwrap().to_owned();
        // The members in the order of RFC 7638.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, member("x"), member("y"));
        let wanted = format!("{token}.{}", B64.encode(digest(&SHA256, canonical.as_bytes())));
        let client = reqwest::Client::builder().no_proxy().resolve(&name, at).build().unwrap();
        let url = format!("http://{name}:{}/.well-known/acme-challenge/{token}", at.port());
        let found = match client.get(url).send().await {
            Ok(answer) => Some(answer.text().await.unwrap()),
            Err(_) => None,
        };
        let mut state = self.state.lock().unwrap();
        let proved = found == Some(wanted);
        state.refusals += usize::from(!proved);
        state.orders[number].state = if proved { "ready" } else { "invalid" };
    }
}
