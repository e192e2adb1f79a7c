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
//! Reading order: here → [`ticket`] → [`exchange`] → [`issuers`], [`id_token`], [`profile`] → [`link`].

mod exchange;
mod id_token;
mod issuers;
pub(super) mod link;
mod profile;
mod ticket;

use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::events::Who;
use super::factors::{Factor, LoginWish};
use super::login::Grant;
use super::owner::Renewal;
use super::{Auth, AuthScope, Identity};
use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::outbound::{Outbound, OutboundError};
use crate::query::request::{AuthRecord, RequestContext};
use crate::schema::field::FieldKind;
use crate::schema::oauth::{self as providers, OAuthProvider};
use crate::secrets::Secret;
use crate::secrets::jws::JwsError;
use crate::secrets::opaque;
use crate::services::records;
use crate::services::records::write::{WriteRequest, WriteSource, WriteVerb};
use crate::services::tenants::system::SUPERUSERS;
use crate::store::TenantDb;
use exchange::{Exchange, Outcome};
use futures_util::future;
use issuers::Issuers;
use link::{Candidate, Decision};
use profile::Profile;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::Arc;
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

/// Why a sign-in failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OAuthError {
    /// The collection has no such provider.
    #[error("no provider {0:?}")]
    UnknownProvider(String),
    /// The verifier was made elsewhere, is over, or was used.
    #[error("the sign-in is unknown, over or used")]
    Ticket,
    /// What came back beside the code belongs to another sign-in.
    #[error("the state belongs to another sign-in")]
    State,
    /// The provider is set up in a way that cannot work.
    #[error("the provider's settings do not work: {0}")]
    Setup(String),
    /// The provider could not be asked, or what it publishes cannot be used.
    #[error("the provider cannot be used: {0}")]
    Provider(String),
    /// Reaching the provider.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The provider said no.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The identity token's signature.
    #[error(transparent)]
    Token(#[from] JwsError),
    /// The identity token's claims.
    #[error("{0}")]
    Claim(&'static str),
    /// The profile names nobody.
    #[error("the profile has no id")]
    NoSubject,
    /// An account that did not confirm the address has it.
    #[error("an account that has not confirmed the address has it")]
    Unverified,
    /// An account has the address, and the provider does not vouch for it.
    #[error("an account has the address, and the provider does not vouch for it")]
    Unproven,
    /// Accounts of this collection are not made by signing in.
    #[error("accounts of this collection are not made by signing in")]
    NoSignUp,
}

impl From<id_token::ClaimError> for OAuthError {
    fn from(error: id_token::ClaimError) -> Self {
        use id_token::ClaimError as Claim;
        Self::Claim(match error {
            Claim::Issuer => "the token is of another issuer",
            Claim::Audience => "the token is for somebody else",
            Claim::AuthorizedParty => "the token was asked for by somebody else",
            Claim::Expired => "the token is over or not dated",
            Claim::NotYet => "the token is not valid yet",
            Claim::Nonce => "the token belongs to another sign-in",
            Claim::Subject => "the token names nobody",
            Claim::Strength => "the sign-in at the provider was in none of the ways asked for",
            Claim::Age => "the sign-in at the provider is too old or not dated",
        })
    }
}

impl Fault for OAuthError {
    fn code(&self) -> Code {
        match self {
            Self::UnknownProvider(_) | Self::Ticket | Self::State => Code::ValidationFailed,
            Self::Setup(_) | Self::Provider(_) => Code::UpstreamFailed,
            Self::Outbound(error) => error.code(),
            Self::Refused(_) | Self::Token(_) | Self::Claim(_) | Self::NoSubject => Code::OauthRefused,
            Self::Unverified | Self::Unproven => Code::OauthUnverified,
            Self::NoSignUp => Code::Forbidden,
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::Ticket => Cow::Borrowed("The sign-in is unknown, over or used; start again from auth-methods."),
            Self::Refused(why) => Cow::Owned(format!("The identity provider refused: {why}.")),
            Self::Token(_) | Self::Claim(_) => Cow::Owned(format!("The identity token was refused: {self}.")),
            Self::Unverified => Cow::Borrowed(
                "An account that has not confirmed this e-mail address has it. Reset its password by mail, which confirms \
                 the address and ends everybody else's access, then sign in again.",
            ),
            Self::Unproven => Cow::Borrowed(
                "There is an account with this e-mail address and the identity provider does not vouch for it. Log in to \
                 the account and sign in at the provider again to link the two.",
            ),
            Self::NoSignUp => Cow::Borrowed("Accounts of this collection are not made by signing in at a provider."),
            _ => Cow::Borrowed(self.code().explanation()),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::UnknownProvider(name) => {
                let message = format!("The collection has no provider {name:?}; auth-methods lists those it has.");
                vec![Detail::new("provider", "validation_in_invalid", message)]
            }
            Self::Ticket => {
                vec![Detail::new("codeVerifier", "validation_invalid_verifier", "Unknown, over or used; start again.")]
            }
            Self::State => {
                let message = "Belongs to another sign-in than codeVerifier.";
                vec![Detail::new("state", "validation_invalid_state", message)]
            }
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Outbound(error) => error.retry_after_s(),
            _ => None,
        }
    }
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

/// Somebody whom the provider named, at the door of a collection.
struct Entry<'a> {
    auth: &'a Auth,
    db: &'a TenantDb,
    scope: &'a AuthScope,
    collection: &'a AuthCollection,
    provider: &'a OAuthProvider,
    profile: &'a Profile,
}

/// The caller, to whose account the identity is to be tied.
struct Linker {
    id: String,
    /// A new way in is a change of factors.
    renewal: Renewal,
}

impl Entry<'_> {
    /// The caller, if the identity is nobody's yet and they have proven that the account is theirs: just now, or by an identity
    /// that would enter it anyway. A password that is shown all the same has to be the right one.
    async fn linker(&self, identity: &Identity, password: Option<Secret>) -> Result<Option<Linker>, AuthError> {
        // A key, or a superuser who acts through the account, is not its owner and links nothing.
        let in_person = identity.key.is_none() && identity.impersonator.is_none();
        let collection = &self.collection.collection.id;
        let of_this = identity.account().is_some_and(|account| account.collection.id == *collection);
        if !in_person || !of_this || self.is_tied().await? {
            return Ok(None);
        }
        let owner = self.auth.owner_of(self.scope, collection.as_str(), identity).await?;
        let enters_anyway = link::is_same_person(self.profile, candidate(&owner.account));
        let is_fresh = password.is_none() && self.auth.has_just_come(&owner).await?;
        if !enters_anyway && !is_fresh {
            self.auth.prove(&owner, self.scope, password).await?;
        }
        Ok(Some(Linker { id: owner.account.record.id.to_string(), renewal: owner.renewal(self.auth) }))
    }

    /// Whether the identity is that of an account.
    async fn is_tied(&self) -> Result<bool, AuthError> {
        let (accounts, provider, subject) =
            (Arc::clone(&self.collection.collection), self.provider.clone(), self.profile.id.clone());
        let tied = self.db.read(move |reader| match link::find(reader, &accounts, &provider, &subject)? {
            Some(row) => Ok::<_, AuthError>(link::account_of(reader, &accounts, &row)?.is_some()),
            None => Ok(false),
        });
        tied.await
    }

    /// The account, and whether it was made just now.
    async fn settle(
        &self,
        creator: &records::Scope,
        linker: Option<Linker>,
        create_data: Map<String, Value>,
    ) -> Result<(Arc<AuthRecord>, bool), AuthError> {
        if let Some(account) = self.settle_known(linker).await? {
            return Ok((account, false));
        }
        if self.collection.collection.name.as_str() == SUPERUSERS {
            return Err(OAuthError::NoSignUp.into());
        }
        let id = self.create(creator, create_data).await?;
        let wanted = Arc::clone(&self.collection.collection);
        let account = self.db.read(move |reader| account::read(reader, &wanted, id.as_str())).await?;
        Ok((account.ok_or(AuthError::Credentials)?, true))
    }

    /// Enters or links in one transaction; `None` if there is no account for this identity.
    async fn settle_known(&self, linker: Option<Linker>) -> Result<Option<Arc<AuthRecord>>, AuthError> {
        let (accounts, provider, profile) =
            (Arc::clone(&self.collection.collection), self.provider.clone(), self.profile.clone());
        let link_id = RecordId::generate(self.auth.0.random.as_ref());
        let settled = self.db.write(self.scope.meta.clone(), move |tx| {
            let row = link::find(tx, &accounts, &provider, &profile.id)?;
            let linked = match &row {
                Some(row) => link::account_of(tx, &accounts, row)?,
                None => None,
            };
            if let (Some(row), None) = (&row, &linked) {
                // Its account is gone.
                tx.delete(&link::links(tx.schema())?, &row.id)?;
            }
            let caller = match &linker {
                Some(linker) => account::read(tx, &accounts, &linker.id)?,
                None => None,
            };
            let same_email = account::find_by(tx, &accounts, "email", &profile.email)?;
            let [linked, caller, same] = [&linked, &caller, &same_email].map(|found| found.as_deref().map(candidate));
            let id = match link::decide(&profile, linked, caller, same) {
                Decision::Enter(id) => id,
                Decision::Link(id) => {
                    let account = RecordId::parse(&id).map_err(|_| AuthError::Credentials)?;
                    link::tie(tx, link_id, &accounts, &account, &provider, &profile.id)?;
                    let now = account::read(tx, &accounts, &id)?;
                    let confirms = profile.email_proven
                        && now.is_some_and(|now| {
                            !account::is_verified(&now) && profile.email.eq_ignore_ascii_case(account::email(&now))
                        });
                    if confirms {
                        link::confirm(tx, &accounts, &account)?;
                    }
                    if let Some(linker) = &linker {
                        linker.renewal.run(tx)?;
                    }
                    id
                }
                Decision::Create => return Ok(None),
                Decision::Unverified => return Err(OAuthError::Unverified.into()),
                Decision::Unproven => return Err(OAuthError::Unproven.into()),
            };
            Ok::<_, AuthError>(account::read(tx, &accounts, &id)?)
        });
        Ok(settled.await?.value)
    }

    /// Makes the account under the create rule and ties the identity to it, in one transaction.
    async fn create(&self, creator: &records::Scope, given: Map<String, Value>) -> Result<RecordId, AuthError> {
        let random = self.auth.0.random.as_ref();
        let id = match given.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            Some(own) => RecordId::parse(own)
                .map_err(|_| AuthError::field("id", "validation_invalid_value", "Must be 15 letters and digits."))?,
            None => RecordId::generate(random),
        };
        let body = self.body(&id, given);
        let proven = self.profile.email_proven && body.get("email") == Some(&json!(self.profile.email));
        let request = WriteRequest {
            verb: WriteVerb::Create,
            collection: self.collection.collection.name.to_string(),
            id: None,
            body: body.clone(),
            if_match: None,
            view: records::read::View::default(),
            dry_run: false,
            uploads: Vec::new(),
            source: WriteSource::Caller,
        };
        let context = RequestContext { context: Arc::from("oauth2"), body, ..(*creator.request).clone() };
        let creator = records::Scope { request: Arc::new(context), ..creator.clone() };
        let (accounts, provider, subject) =
            (Arc::clone(&self.collection.collection), self.provider.clone(), self.profile.id.clone());
        let (account, link_id) = (id.clone(), RecordId::generate(random));
        records::write::create_and(&creator, request, move |tx| {
            if proven {
                link::confirm(tx, &accounts, &account)?;
            }
            link::tie(tx, link_id, &accounts, &account, &provider, &subject)
        })
        .await?;
        Ok(id)
    }

    /// What the client gave, then the profile, then a password nobody knows.
    fn body(&self, id: &RecordId, mut body: Map<String, Value>) -> Map<String, Value> {
        let blank = |body: &Map<String, Value>, name: &str| {
            body.get(name).is_none_or(|value| value.is_null() || value.as_str() == Some(""))
        };
        if blank(&body, "id") {
            body.insert("id".to_owned(), json!(id.as_str()));
        }
        if blank(&body, "email") && !self.profile.email.is_empty() {
            body.insert("email".to_owned(), json!(self.profile.email));
        }
        for (from, to) in providers::mapped_fields(&self.collection.options.rest) {
            let value = self.profile.mapped(&from);
            let takes_text = self.collection.collection.find_field(&to).is_some_and(|field| takes_text(&field.kind));
            if takes_text && !body.contains_key(&to) && !value.is_empty() {
                body.insert(to, json!(value));
            }
        }
        if blank(&body, "password") {
            let password = opaque::generate(self.auth.0.random.as_ref(), "");
            for name in ["password", "passwordConfirm"] {
                body.insert(name.to_owned(), json!(password.expose()));
            }
        }
        body
    }
}

/// Pictures would have to be fetched for file fields; those stay empty.
const fn takes_text(kind: &FieldKind) -> bool {
    matches!(kind, FieldKind::Text(_) | FieldKind::Url(_) | FieldKind::Editor { .. })
}

fn candidate(account: &AuthRecord) -> Candidate<'_> {
    Candidate {
        id: account.record.id.as_str(),
        email: account::email(account),
        verified: account::is_verified(account),
    }
}
