//! Coming in by way of an identity provider: OAuth 2.0 authorization code with PKCE, and OpenID Connect on top.
//!
//! The client asks `auth-methods` for the sign-in address and a verifier, sends its user there, and brings back the code
//! with the verifier. The node exchanges the code, checks who the provider says it is, finds or makes the account, and lets
//! it in the way every other login goes, second factor included.
//!
//! Keeps true: nothing leaves the node for a verifier that was not made here for this tenant, collection and provider, or
//! that was used before; every address is reached through `outbound`; client secrets are opened for one exchange.
//! Does not do: the page the provider sends people back to, which belongs to the application.
//!
//! Reading order: here → [`ticket`] → [`exchange`] → [`issuers`], [`id_token`], [`profile`] → [`entry`] → [`link`].

mod entry;
mod error;
mod exchange;
mod id_token;
mod issuers;
pub(super) mod link;
mod profile;
mod ticket;

use super::account::AuthCollection;
use super::error::AuthError;
use super::events::Who;
use super::factors::{Factor, LoginWish};
use super::login::Grant;
use super::{Auth, AuthScope, Identity};
use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::limits;
use crate::outbound::Outbound;
use crate::schema::oauth::{self as providers, OAuthProvider};
use crate::secrets::Secret;
use crate::services::records;
use crate::store::TenantDb;
use entry::Entry;
pub use error::OAuthError;
use exchange::{Exchange, Outcome};
use futures_util::future;
use issuers::Issuers;
use serde_json::{Map, Value, json};
use ticket::{Desk, Used};
use url::Url;

/// What signing in at providers shares between requests.
#[derive(Debug)]
pub struct OAuthTools {
    outbound: Outbound,
    issuers: Issuers,
    used: Used,
}

impl OAuthTools {
    /// Reaches providers through `outbound`.
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound, issuers: Issuers::default(), used: Used::default() }
    }
}

/// One provider as a login page shows it.
#[derive(Debug, Clone)]
pub struct ProviderInfo {
    /// The name in requests.
    pub name: String,
    /// The name for people.
    pub display_name: String,
    /// What the provider hands back with the code.
    pub state: String,
    /// Brought back with the code; for the client alone.
    pub code_verifier: Secret,
    /// The verifier's digest; empty where the provider knows no PKCE.
    pub code_challenge: String,
    /// Where to sign in; the address to come back to is appended to it.
    pub auth_url: String,
}

/// A code and what belongs to it.
#[derive(Debug, Clone)]
pub struct OAuthLogin {
    /// The provider's name.
    pub provider: String,
    /// From the provider.
    pub code: Secret,
    /// From `auth-methods`.
    pub code_verifier: Secret,
    /// The address the provider sent the person back to.
    pub redirect_url: String,
    /// What came back beside the code; checked if it is there.
    pub state: Option<String>,
    /// Members of a new account.
    pub create_data: Map<String, Value>,
    /// The caller's password, which tying the identity to the caller's own account asks for.
    pub password: Option<Secret>,
}

/// A successful login.
#[derive(Debug, Clone)]
pub struct OAuthGrant {
    /// The login.
    pub grant: Grant,
    /// The profile, the provider's tokens, and `isNew`.
    pub meta: Map<String, Value>,
}

impl Auth {
    /// The providers of `collection`, each with a sign-in that was made for this caller.
    ///
    /// A provider whose issuer does not answer is left out, and the log says so.
    pub async fn oauth_providers(
        &self,
        scope: &AuthScope,
        collection: &str,
    ) -> Result<Option<Vec<ProviderInfo>>, AuthError> {
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        if !collection.is_enabled("oauth2") {
            return Ok(None);
        }
        let found = providers::providers(&collection.options.rest);
        let made = found.iter().map(|provider| self.provider_info(db, &collection, provider));
        let listed = future::join_all(made).await.into_iter().zip(&found).filter_map(|(info, provider)| match info {
            Ok(info) => Some(info),
            Err(error) => {
                tracing::warn!(
                    tenant.id = %db.id(), oauth.provider = %provider.name, %error,
                    "an identity provider is left out of auth-methods"
                );
                None
            }
        });
        Ok(Some(listed.collect()))
    }

    async fn provider_info(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        provider: &OAuthProvider,
    ) -> Result<ProviderInfo, OAuthError> {
        let (tools, now_ms) = (&self.0.oauth, self.0.clock.now_ms());
        let address = match (provider.auth_url.as_str(), provider.oidc) {
            ("", true) => tools.issuers.metadata(&tools.outbound, provider, now_ms).await?.auth_url.clone(),
            (own, _) => own.to_owned(),
        };
        let desk = Desk { tenant: db.id(), collection, provider: &provider.name };
        let ticket = desk.issue(self.0.random.as_ref(), now_ms);
        let challenge = if provider.pkce { ticket.challenge() } else { String::new() };
        let mut url = Url::parse(&address).map_err(|_| OAuthError::Provider(format!("{address:?} is no address")))?;
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("response_type", "code").append_pair("client_id", &provider.client_id);
            query.append_pair("scope", &provider.scopes).append_pair("state", &ticket.state());
            if provider.oidc {
                query.append_pair("nonce", &ticket.nonce());
            }
            if provider.pkce {
                query.append_pair("code_challenge", &challenge).append_pair("code_challenge_method", "S256");
            }
            if !provider.acr_values.is_empty() {
                query.append_pair("acr_values", &provider.acr_values.join(" "));
            }
            if let Some(seconds) = provider.max_age_s {
                query.append_pair("max_age", &seconds.to_string());
            }
            query.extend_pairs(provider.parameters);
        }
        Ok(ProviderInfo {
            name: provider.name.clone(),
            display_name: provider.display_name.clone(),
            state: ticket.state(),
            code_verifier: Secret::new(ticket.verifier()),
            code_challenge: challenge,
            // PocketBase's clients append the address they want to come back to.
            auth_url: format!("{url}&redirect_uri="),
        })
    }

    /// Logs in with a provider's code; makes the account if there is none, or links the caller's own.
    ///
    /// `creator` is the caller as `records` knows it; a new account is made under the collection's create rule.
    pub async fn auth_with_oauth2(
        &self,
        scope: &AuthScope,
        creator: &records::Scope,
        collection: &str,
        login: OAuthLogin,
        identity: &Identity,
        wish: impl Into<LoginWish>,
    ) -> Result<OAuthGrant, AuthError> {
        check_form(&login)?;
        let db = self.db(scope, collection);
        let collection = AuthCollection::find(&db.schema(), collection)?;
        if !collection.is_enabled("oauth2") {
            return Err(AuthError::MethodDisabled("OAuth2"));
        }
        let provider = providers::providers(&collection.options.rest).into_iter().find(|it| it.name == login.provider);
        let provider = provider.ok_or_else(|| OAuthError::UnknownProvider(login.provider.clone()))?;
        // Nothing is guessed at here but the sign-in itself, so only the address is counted.
        let nobody = Who::Nobody(&collection.collection);
        let guess = self.charge(db, scope, &collection, login.code_verifier.expose());
        let guess = self.note_login(db, &scope.meta, Factor::OAuth2, nobody, guess)?;
        let outcome = self.exchange(db, &collection, &provider, &login).await;
        if let Err(error) = &outcome {
            tracing::info!(
                tenant.id = %db.id(), oauth.provider = %provider.name, request.id = %scope.meta.request_id, %error,
                "a sign-in at an identity provider failed"
            );
        }
        // A provider that is down is not the caller's failure.
        if !outcome.as_ref().is_err_and(|error| error.code() != Code::UpstreamFailed) {
            guess.held();
        }
        let outcome = self.note_login(db, &scope.meta, Factor::OAuth2, nobody, outcome.map_err(AuthError::from));
        let Outcome { profile, tokens } = outcome?;
        let entry = Entry { auth: self, db, scope, collection: &collection, provider: &provider, profile: &profile };
        let linker =
            self.note_login(db, &scope.meta, Factor::OAuth2, nobody, entry.linker(identity, login.password).await)?;
        let settled = entry.settle(creator, linker, login.create_data).await;
        let (account, is_new) = self.note_login(db, &scope.meta, Factor::OAuth2, nobody, settled)?;
        let mut meta = profile.to_meta();
        meta.extend(tokens);
        meta.insert("isNew".to_owned(), json!(is_new));
        let grant = self.enter(db, scope, &collection, account, Factor::OAuth2, wish.into()).await?;
        Ok(OAuthGrant { grant, meta })
    }

    async fn exchange(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        provider: &OAuthProvider,
        login: &OAuthLogin,
    ) -> Result<Outcome, OAuthError> {
        let (tools, now_ms) = (&self.0.oauth, self.0.clock.now_ms());
        let desk = Desk { tenant: db.id(), collection, provider: &provider.name };
        let ticket = desk.check(login.code_verifier.expose(), now_ms).ok_or(OAuthError::Ticket)?;
        if login.state.as_ref().is_some_and(|state| *state != ticket.state()) {
            return Err(OAuthError::State);
        }
        let secret = self.open_client_secret(db, collection, provider)?;
        if !tools.used.take(&ticket, now_ms) {
            return Err(OAuthError::Ticket);
        }
        let exchange = Exchange {
            outbound: &tools.outbound,
            issuers: &tools.issuers,
            provider,
            secret,
            code: login.code.expose(),
            verifier: ticket.verifier(),
            nonce: &ticket.nonce(),
            redirect_url: &login.redirect_url,
            now_ms,
        };
        exchange.run().await
    }

    fn open_client_secret(
        &self,
        db: &TenantDb,
        collection: &AuthCollection,
        provider: &OAuthProvider,
    ) -> Result<Secret, OAuthError> {
        let Some(sealed) = provider.client_secret.strip_prefix(providers::SEALED) else {
            return Ok(Secret::new(provider.client_secret.as_str()));
        };
        let place = providers::secret_place(&collection.collection.id, &provider.name);
        let opened = self.0.sealer.open(db.id(), &place, sealed);
        let text = opened.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        text.map(Secret::new).ok_or_else(|| {
            OAuthError::Setup("the client secret was sealed by another node or tenant; set it again".to_owned())
        })
    }
}

fn check_form(login: &OAuthLogin) -> Result<(), AuthError> {
    let required = [
        ("provider", login.provider.as_str()),
        ("code", login.code.expose()),
        ("codeVerifier", login.code_verifier.expose()),
        ("redirectURL", &login.redirect_url),
    ];
    let details = required.into_iter().filter_map(|(name, value)| match value.len() {
        0 => Some(Detail::new(name, "validation_required", "Cannot be blank.")),
        len if len > limits::OAUTH_CODE_BYTES_MAX => {
            Some(Detail::new(name, "validation_length_out_of_range", "Too long."))
        }
        _ => None,
    });
    let details: Vec<_> = details.collect();
    if details.is_empty() { Ok(()) } else { Err(AuthError::Invalid(details)) }
}
