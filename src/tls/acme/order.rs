//! One order from beginning to end: account, challenge, certificate.
//!
//! Keeps true: the account is made once and kept; the private key of a certificate is made here and goes to the folder
//! alone. Does not do: deciding when.

use super::challenges::Answer;
use super::keep::Folder;
use super::web::Web;
use super::{AcmeError, AcmeOptions};
use crate::tls::{Certificates, provider};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::time::Duration;

/// Time the authority gets to check a challenge, and again to sign.
const PATIENCE: Duration = Duration::from_secs(90);

/// Places orders with one authority.
pub(super) struct Orders {
    web: Web,
    directory_url: String,
    contact: Vec<String>,
    plain_http: bool,
    certificates: Arc<Certificates>,
    account: Option<Account>,
}

impl Orders {
    pub(super) fn new(options: &AcmeOptions, certificates: Arc<Certificates>) -> Result<Self, AcmeError> {
        Ok(Self {
            web: Web::new(&options.authority_files)?,
            directory_url: options.directory_url.clone(),
            contact: options.contact.iter().map(|address| format!("mailto:{address}")).collect(),
            plain_http: options.plain_http,
            certificates,
            account: None,
        })
    }

    /// Chain and key for `name`, in PEM form.
    pub(super) async fn obtain(&mut self, name: &str, folder: &Folder) -> Result<(String, String), AcmeError> {
        let account = self.account(folder).await?;
        let identifiers = [Identifier::Dns(name.to_owned())];
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
        let patience = RetryPolicy::new().timeout(PATIENCE);
        // Dropped, and with it the answers, when the authority has made up its mind.
        let _answers = self.prove(&mut order, name).await?;
        if order.poll_ready(&patience).await? != OrderStatus::Ready {
            return Err(AcmeError::Unconfirmed);
        }
        let key = order.finalize().await?;
        Ok((order.poll_certificate(&patience).await?, key))
    }

    /// The account, made on first use.
    async fn account(&mut self, folder: &Folder) -> Result<Account, AcmeError> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let builder = Account::builder_with_http(Box::new(self.web.clone()));
        let account = match folder.load_account()? {
            Some(text) => {
                let credentials = serde_json::from_str(&text).map_err(instant_acme::Error::from)?;
                builder.from_credentials(credentials).await?
            }
            None => {
                let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
                let wanted =
                    NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
                let (account, credentials) = builder.create(&wanted, self.directory_url.clone(), None).await?;
                folder.save_account(&serde_json::to_string(&credentials).map_err(instant_acme::Error::from)?)?;
                account
            }
        };
        self.account = Some(account.clone());
        Ok(account)
    }

    /// Puts the answers to every challenge in place and tells the authority to look.
    async fn prove(&self, order: &mut Order, name: &str) -> Result<Vec<Answer>, AcmeError> {
        let mut answers = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                _ => return Err(AcmeError::Unconfirmed),
            }
            let (kind, called) = match self.plain_http {
                true => (ChallengeType::Http01, "http-01"),
                false => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
            };
            let mut challenge = authorization.challenge(kind).ok_or(AcmeError::NoChallenge(called))?;
            answers.push(self.answer(&challenge, name)?);
            challenge.set_ready().await?;
        }
        Ok(answers)
    }

    fn answer(&self, challenge: &ChallengeHandle<'_>, name: &str) -> Result<Answer, AcmeError> {
        let proof = challenge.key_authorization();
        let challenges = self.certificates.challenges();
        if self.plain_http {
            return Ok(challenges.put_text(challenge.token.clone(), proof.as_str().to_owned()));
        }
        let key = proving_certificate(name, proof.digest().as_ref()).map_err(instant_acme::Error::from)?;
        Ok(challenges.put_key(name.to_owned(), key))
    }
}

/// The certificate that a client of `acme-tls/1` finds (RFC 8737).
fn proving_certificate(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, &'static str> {
    let refused = |_| "the proving certificate cannot be made";
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(refused)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let pair = KeyPair::generate().map_err(refused)?;
    let certificate = params.self_signed(&pair).map_err(refused)?;
    let key = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
    let key = provider().key_provider.load_private_key(key).map_err(|_| "the proving certificate cannot be used")?;
    // Unchecked, because the checker does not know the critical extension that makes it a proof.
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)))
}
