//! Logging in over real files: passwords, tokens, sessions, confirmations, codes, and what must be refused.

use super::*;
use crate::kernel::clock;
use crate::kernel::clock::ManualClock;
use crate::kernel::error::{Code, Fault};
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::schema::Collection;
use crate::secrets::Secret;
use crate::secrets::password::{PasswordCost, PasswordOptions};
use crate::services::login_guard::LoginLimits;
use crate::services::mail::Mail;
use crate::services::tenants::system;
use crate::services::tenants::tests::{TestNode, add_user, meta};
use crate::store::CommitObserver;
use parking_lot::Mutex;
use std::time::Duration;

mod endings;
mod guessing;
mod keyed;

const PASSWORD: &str = "correct horse";
const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

#[derive(Debug, Default)]
struct Mailbox(Mutex<Vec<Mail>>);

impl Mailer for Mailbox {
    fn hand_over(&self, _: &TenantId, mail: Mail) {
        self.0.lock().push(mail);
    }
}

struct World {
    node: TestNode,
    known: Arc<Known>,
    auth: Auth,
    mails: Arc<Mailbox>,
    /// Where tenant A's users are.
    scope: AuthScope,
    _folder: tempfile::TempDir,
}

fn hasher(cost: PasswordCost, node: &TestNode) -> PasswordHasher {
    PasswordHasher::new(PasswordOptions { cost, ..PasswordOptions::default() }, Arc::clone(&node.random)).unwrap()
}

fn auth_of(node: &TestNode, known: &Arc<Known>, cost: PasswordCost, mails: &Arc<Mailbox>) -> Auth {
    auth_with(node, known, cost, mails, LoginLimits::default())
}

fn auth_with(
    node: &TestNode,
    known: &Arc<Known>,
    cost: PasswordCost,
    mails: &Arc<Mailbox>,
    limits: LoginLimits,
) -> Auth {
    Auth::new(AuthParts {
        journal: Arc::new(AuthJournal::default()),
        mail_guard: MailGuard::new(MailLimits::default()),
        mail_work: Arc::new(Semaphore::new(limits::MAIL_WORK_MAX)),
        oauth: OAuthTools::new(crate::outbound::Outbound::new(Arc::new(|_| false))),
        registry: node.registry.clone(),
        hasher: hasher(cost, node),
        sealer: node.sealer.clone(),
        mailer: Arc::clone(mails) as Arc<dyn Mailer>,
        known: Arc::clone(known),
        guard: Arc::new(LoginGuard::new(limits)),
        clock: Arc::clone(&node.clock) as Arc<dyn crate::kernel::clock::Clock>,
        random: Arc::clone(&node.random),
        party: PartyOptions::default(),
        challenges: Challenges::default(),
        app_url: Arc::from("https://app.test"),
    })
}

fn scope_of(tenant: &TenantDb) -> AuthScope {
    AuthScope {
        tenant: tenant.clone(),
        meta: WriteMeta { actor: Actor::Anonymous, request_id: Arc::from("r1"), ip: Some(Arc::from("10.0.0.1")) },
        user_agent: Arc::from("test"),
        request: Arc::new(RequestContext::default()),
    }
}

impl World {
    /// Tenant A with the user ada, everybody's password being [`PASSWORD`].
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let known = Arc::new(Known::default());
        let node = TestNode::open_watched(folder.path(), vec![Arc::clone(&known) as Arc<dyn CommitObserver>]).await;
        let mails = Arc::new(Mailbox::default());
        let auth = auth_of(&node, &known, CHEAP, &mails);
        let tenant = node.create("tenant-a").await;
        let hash = auth.hasher().hash(PASSWORD.into()).await.unwrap();
        add_user(&tenant, "ada", "ada@a.test", &hash, &"k".repeat(50)).await;
        Self { scope: scope_of(&tenant), node, known, auth, mails, _folder: folder }
    }

    async fn login(&self, identity: &str, password: &str, mode: TokenMode) -> Result<Grant, AuthError> {
        let login = PasswordLogin { identity: identity.into(), password: password.into(), identity_field: None };
        self.auth.auth_with_password(&self.scope, "users", login, mode).await
    }

    async fn ada(&self, mode: TokenMode) -> Grant {
        self.login("ada@a.test", PASSWORD, mode).await.unwrap()
    }

    async fn whoami(&self, token: &Secret) -> Result<Identity, AuthError> {
        self.auth.authenticate(&self.scope.tenant, Some(token.expose())).await
    }

    async fn change_users(&self, change: impl FnOnce(&mut Collection) + Send + 'static) {
        let db = &self.scope.tenant;
        let previous = db.schema();
        let mut users = Collection::clone(previous.find("users").unwrap());
        change(&mut users);
        let users = Arc::new(users);
        let others = previous.collections().iter().filter(|it| it.id != users.id).cloned();
        let next = crate::schema::Schema::new(previous.version() + 1, others.chain([Arc::clone(&users)]).collect());
        let before = Arc::clone(previous.find("users").unwrap());
        let plan = crate::schema::plan::Plan {
            steps: vec![crate::schema::plan::Step::AlterTable { before, after: users }],
            previous: Arc::clone(&previous),
            next: Arc::new(next),
        };
        db.write(meta(), move |tx| tx.apply_schema(&plan)).await.unwrap();
    }

    /// Waits until everything that was asked for was written, and counts.
    async fn mails(&self, count: usize) {
        self.auth.mail_work_done().await;
        assert_eq!(self.mails.0.lock().len(), count);
    }

    /// The last mail's token: what follows the last slash of the link, or the code.
    fn mailed(&self) -> (String, Secret) {
        let mail = self.mails.0.lock().last().cloned().unwrap();
        let token =
            mail.html.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).max_by_key(|it| it.len());
        (mail.to, Secret::new(token.unwrap_or_default()))
    }

    fn clock(&self) -> &ManualClock {
        &self.node.clock
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, AuthError>) -> Code {
    outcome.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_login_gives_a_token_that_names_its_user() {
    let world = World::new().await;
    let grant = world.ada(TokenMode::Long).await;
    assert!(grant.session.is_none() && grant.expires_in_s == 604_800);
    for header in [grant.token.expose().to_owned(), format!("Bearer {}", grant.token.expose())] {
        let who = world.auth.authenticate(&world.scope.tenant, Some(&header)).await.unwrap();
        assert!(matches!(&who.caller, Caller::Record(account) if account.record.id.as_str() == "ada"));
        assert_eq!(who.actor().to_string(), "record:users/ada");
    }
    assert!(matches!(world.auth.authenticate(&world.scope.tenant, None).await.unwrap().caller, Caller::Anonymous));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_the_credentials_the_answer_is_one() {
    let world = World::new().await;
    let mut answers = Vec::new();
    for (identity, password) in [
        ("ada@a.test", "wrong horse"),
        ("nobody@a.test", PASSWORD),
        ("nobody@a.test", "wrong horse"),
        ("not an address", "x"),
        ("ada@a.test", &"x".repeat(limits::PASSWORD_BYTES_MAX + 1)),
    ] {
        let error = world.login(identity, password, TokenMode::Long).await.unwrap_err();
        answers.push((error.code(), error.public().into_owned(), error.details()));
    }
    answers.dedup();
    assert_eq!(answers, [(Code::CredentialsInvalid, "Failed to authenticate.".to_owned(), Vec::new())]);
    assert_eq!(code(world.login("", "", TokenMode::Long).await), Code::ValidationFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_costs_as_many_hashes_as_a_known_one() {
    let world = World::new().await;
    let dear =
        auth_of(&world.node, &world.known, PasswordCost { memory_kib: 8_192, passes: 2, lanes: 1 }, &world.mails);
    let time = async |identity: &str| {
        let began = clock::instant();
        let login = PasswordLogin { identity: identity.into(), password: "wrong".into(), identity_field: None };
        dear.auth_with_password(&world.scope, "users", login, TokenMode::Long).await.unwrap_err();
        began.elapsed()
    };
    // Not a statistical test (that is a bench): only that the unknown user's login hashes at all.
    assert!(time("nobody@a.test").await > Duration::from_millis(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_tenant_is_refused_by_every_other() {
    let world = World::new().await;
    let grant = world.ada(TokenMode::Session).await;
    let refresh = grant.session.unwrap().refresh_token;
    world.node.registry.clone_tenant(meta(), "tenant-a", system_slug("copy"), "").await.unwrap();
    let other = world.node.create("tenant-b").await;
    let same_user = world.auth.hasher().hash(PASSWORD.into()).await.unwrap();
    add_user(&other, "ada", "ada@a.test", &same_user, &"k".repeat(50)).await;
    let copy = world.node.registry.open_tenant(&world.node.registry.resolve_slug("copy").unwrap()).await.unwrap();
    for tenant in [other, copy] {
        let who = world.auth.authenticate(&tenant, Some(grant.token.expose())).await;
        assert_eq!(code(who), Code::TokenInvalid, "{}", tenant.id());
        let refreshed = world.auth.refresh_session(&scope_of(&tenant), "users", &refresh).await;
        assert_eq!(code(refreshed), Code::TokenInvalid, "{}", tenant.id());
    }
    assert!(world.whoami(&grant.token).await.is_ok());
}

fn system_slug(slug: &str) -> crate::kernel::ident::TenantSlug {
    crate::services::tenants::tests::slug_of(slug)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_with_time_with_their_key_and_with_their_account() {
    let world = World::new().await;
    let token = world.ada(TokenMode::Long).await.token;
    assert!(world.whoami(&token).await.is_ok());
    world.clock().advance_ms(604_800_000);
    assert_eq!(code(world.whoami(&token).await), Code::TokenInvalid);

    let token = world.ada(TokenMode::Long).await.token;
    assert!(world.whoami(&token).await.is_ok(), "now known in memory");
    world
        .change_users(|users| {
            let options = AuthOptionsOf::clone(users.auth.as_ref().unwrap());
            users.auth = Some(Arc::new(AuthOptionsOf { token_secret: Arc::from("another secret"), ..options }));
        })
        .await;
    assert_eq!(code(world.whoami(&token).await), Code::TokenInvalid, "the collection's secret changed");

    let token = world.ada(TokenMode::Long).await.token;
    assert!(world.whoami(&token).await.is_ok());
    let users = Arc::clone(world.scope.tenant.schema().find("users").unwrap());
    let id = crate::kernel::ident::RecordId::parse("ada").unwrap();
    world.scope.tenant.write(meta(), move |tx| tx.delete(&users, &id)).await.unwrap();
    assert_eq!(code(world.whoami(&token).await), Code::TokenInvalid, "the account is gone");
}

type AuthOptionsOf = crate::schema::AuthOptions;

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_acts_on_the_next_request() {
    let world = World::new().await;
    let (first, second) = (world.ada(TokenMode::Session).await, world.ada(TokenMode::Session).await);
    let who = world.whoami(&first.token).await.unwrap();
    world.auth.log_out(&world.scope, &who).await.unwrap();
    assert_eq!(code(world.whoami(&first.token).await), Code::TokenInvalid);
    assert!(world.whoami(&second.token).await.is_ok());

    let long = world.ada(TokenMode::Long).await.token;
    let who = world.whoami(&long).await.unwrap();
    world.auth.log_out(&world.scope, &who).await.unwrap();
    assert_eq!(code(world.whoami(&long).await), Code::TokenInvalid);
    assert_eq!(code(world.whoami(&second.token).await), Code::TokenInvalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_works_once_and_its_second_use_ends_the_family() {
    let world = World::new().await;
    let first = world.ada(TokenMode::Session).await;
    let bystander = world.ada(TokenMode::Session).await;
    let one = first.session.unwrap().refresh_token;
    let second = world.auth.refresh_session(&world.scope, "users", &one).await.unwrap();
    let two = second.session.unwrap().refresh_token;
    assert_ne!(one, two);
    assert!(world.whoami(&second.token).await.is_ok());

    let again = world.auth.refresh_session(&world.scope, "users", &one).await.unwrap_err();
    assert!(matches!(again, AuthError::RefreshReused { .. }));
    for token in [&one, &two] {
        assert_eq!(code(world.auth.refresh_session(&world.scope, "users", token).await), Code::TokenInvalid);
    }
    assert_eq!(code(world.whoami(&second.token).await), Code::TokenInvalid, "the access token ended with the family");
    assert!(world.whoami(&bystander.token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_refresh_token_ends_nothing() {
    let world = World::new().await;
    let grant = world.ada(TokenMode::Session).await;
    let session = grant.session.unwrap();
    let real = session.refresh_token.expose().to_owned();
    let (head, _) = real.rsplit_once('.').unwrap();
    for forged in ["", "tnr_", "tnr_x.y.z", &format!("tnr_{}.guess.guess", session.id), head] {
        let refused = world.auth.refresh_session(&world.scope, "users", &forged.into()).await;
        assert!(matches!(refused, Err(AuthError::Revoked)), "{forged}");
    }
    assert!(world.auth.refresh_session(&world.scope, "users", &session.refresh_token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_uses_at_the_same_time_at_most_one_succeeds() {
    let world = World::new().await;
    let token = world.ada(TokenMode::Session).await.session.unwrap().refresh_token;
    let uses = (0..8).map(|_| world.auth.refresh_session(&world.scope, "users", &token));
    let outcomes = futures_util::future::join_all(uses).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_revoked_bounded_and_grow_old() {
    let world = World::new().await;
    let mine = world.ada(TokenMode::Session).await;
    let who = world.whoami(&mine.token).await.unwrap();
    let other = world.ada(TokenMode::Session).await;
    let other_id = Arc::clone(&other.session.as_ref().unwrap().id);
    let listed = world.auth.list_sessions(&world.scope, &who, None).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed.iter().filter(|session| session.current).count(), 1);
    assert!(listed.iter().all(|session| session.ip == "10.0.0.1" && session.user_agent == "test"));
    world.auth.revoke_session(&world.scope, &who, &other_id).await.unwrap();
    assert_eq!(code(world.whoami(&other.token).await), Code::TokenInvalid);
    assert_eq!(code(world.auth.revoke_session(&world.scope, &who, &other_id).await), Code::RecordNotFound);

    for _ in 0..limits::SESSIONS_PER_ACCOUNT_MAX + 5 {
        world.ada(TokenMode::Session).await;
    }
    let listed = world.auth.list_sessions(&world.scope, &who, None).await.unwrap();
    assert_eq!(listed.len(), limits::SESSIONS_PER_ACCOUNT_MAX);

    let idle = world.ada(TokenMode::Session).await.session.unwrap();
    world.clock().advance_ms(i64::try_from(limits::SESSION_IDLE_S).unwrap() * 1_000);
    assert_eq!(code(world.auth.refresh_session(&world.scope, "users", &idle.refresh_token).await), Code::TokenInvalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_tokens_are_extended_and_session_tokens_are_not() {
    let world = World::new().await;
    let long = world.ada(TokenMode::Long).await;
    world.clock().advance_ms(1_000);
    let who = world.whoami(&long.token).await.unwrap();
    let extended = world.auth.auth_refresh(&world.scope, "users", &who, &long.token).await.unwrap();
    assert_ne!(extended.token, long.token);
    assert!(world.whoami(&extended.token).await.is_ok());
    let short = world.ada(TokenMode::Session).await;
    let who = world.whoami(&short.token).await.unwrap();
    let same = world.auth.auth_refresh(&world.scope, "users", &who, &short.token).await.unwrap();
    assert_eq!(same.token, short.token);
    let nobody = Identity::anonymous();
    assert_eq!(code(world.auth.auth_refresh(&world.scope, "users", &nobody, &long.token).await), Code::AuthRequired);
}

#[tokio::test(flavor = "multi_thread")]
async fn superusers_log_in_everywhere_and_may_impersonate() {
    let world = World::new().await;
    world.auth.create_superuser(meta(), "root@node.test", "first password".into()).await.unwrap();
    assert!(world.auth.has_superuser().await.unwrap());
    let again = world.auth.create_superuser(meta(), "root@node.test", "first password".into()).await;
    assert_eq!(code(again), Code::ValidationFailed);
    let login = |password: &str| PasswordLogin {
        identity: "root@node.test".into(),
        password: password.into(),
        identity_field: None,
    };
    let root = |password: &str| {
        world.auth.auth_with_password(&world.scope, system::SUPERUSERS, login(password), TokenMode::Long)
    };
    let grant = root("first password").await.unwrap();
    let who = world.whoami(&grant.token).await.unwrap();
    assert!(who.is_superuser());

    let as_ada = world.auth.impersonate(&world.scope, "users", "ada", Some(60), &who).await.unwrap();
    let ada = world.whoami(&as_ada.token).await.unwrap();
    assert!(!ada.is_superuser() && ada.impersonator.is_some());
    assert!(ada.actor().to_string().contains("by superuser:"));
    let refused = world.auth.impersonate(&world.scope, "users", "ada", None, &ada).await;
    assert_eq!(code(refused), Code::SuperuserRequired);
    let kept = world.auth.auth_refresh(&world.scope, "users", &ada, &as_ada.token).await.unwrap();
    assert_eq!(kept.token, as_ada.token, "an impersonation token is not extended");

    world.auth.reset_superuser(meta(), "root@node.test", "second password".into()).await.unwrap();
    assert_eq!(code(world.whoami(&grant.token).await), Code::TokenInvalid);
    assert_eq!(code(root("first password").await), Code::CredentialsInvalid);
    assert!(root("second password").await.is_ok());
    let missing = world.auth.reset_superuser(meta(), "nobody@node.test", "second password".into()).await;
    assert_eq!(code(missing), Code::RecordNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_auth_rule_and_the_method_switch_close_the_door() {
    let world = World::new().await;
    world.change_users(|users| users.rules.auth = None).await;
    assert_eq!(code(world.login("ada@a.test", PASSWORD, TokenMode::Long).await), Code::Forbidden);
    assert_eq!(
        code(world.login("ada@a.test", "wrong horse", TokenMode::Long).await),
        Code::CredentialsInvalid,
        "the rule tells nothing to somebody without the password"
    );
    world
        .change_users(|users| {
            users.rules.auth = Some(Arc::from(""));
            let options = AuthOptionsOf::clone(users.auth.as_ref().unwrap());
            users.auth = Some(Arc::new(AuthOptionsOf { password_enabled: false, ..options }));
        })
        .await;
    assert_eq!(code(world.login("ada@a.test", PASSWORD, TokenMode::Long).await), Code::Forbidden);
    let unknown = PasswordLogin { identity: "a".into(), password: "b".into(), identity_field: None };
    for name in ["nothing", system::SESSIONS] {
        let outcome = world.auth.auth_with_password(&world.scope, name, unknown.clone(), TokenMode::Long).await;
        assert_eq!(code(outcome), Code::CollectionNotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_auth_rule_judges_the_account_that_logs_in() {
    let world = World::new().await;
    for (rule, expected) in [
        ("verified = true", Some(Code::Forbidden)),
        ("verified = false", None),
        ("email ~ 'a.test' && @request.auth.id = id", None),
        ("@request.headers.x_gate = 'open'", Some(Code::Forbidden)),
        ("nonsense ===", Some(Code::Internal)),
    ] {
        world.change_users(move |users| users.rules.auth = Some(Arc::from(rule))).await;
        let outcome = world.login("ada@a.test", PASSWORD, TokenMode::Long).await;
        assert_eq!(outcome.map_err(|error| error.code()).err(), expected, "{rule}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_of_an_older_cost_is_renewed_at_login() {
    let world = World::new().await;
    let dearer =
        auth_of(&world.node, &world.known, PasswordCost { memory_kib: 128, passes: 1, lanes: 1 }, &world.mails);
    let login = || PasswordLogin { identity: "ada@a.test".into(), password: PASSWORD.into(), identity_field: None };
    let first = dearer.auth_with_password(&world.scope, "users", login(), TokenMode::Long).await.unwrap();
    let second = dearer.auth_with_password(&world.scope, "users", login(), TokenMode::Long).await.unwrap();
    assert!(account::password_hash(&first.account).unwrap().contains("m=64,"));
    assert!(account::password_hash(&second.account).unwrap().contains("m=128,"));
    assert!(world.whoami(&first.token).await.is_ok(), "renewing the hash ends no token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_reset_works_once_and_ends_everything_older() {
    let world = World::new().await;
    let grant = world.ada(TokenMode::Session).await;
    let reset = MailedLink::PasswordReset;
    world.auth.request_link(&world.scope, "users", reset, "nobody@a.test").await.unwrap();
    world.auth.request_link(&world.scope, "users", reset, "ada@a.test").await.unwrap();
    world.mails(1).await;
    let (to, token) = world.mailed();
    assert_eq!(to, "ada@a.test");
    let confirm = |password: &str, again: &str| ConfirmPasswordReset {
        token: token.clone(),
        password: password.into(),
        password_confirm: again.into(),
    };
    let reset = |confirm| world.auth.confirm_password_reset(&world.scope, "users", confirm);
    for (password, again) in [("short", "short"), ("new password", "another one"), ("", "")] {
        assert_eq!(code(reset(confirm(password, again)).await), Code::ValidationFailed);
    }
    assert_eq!(code(world.whoami(&token).await), Code::TokenInvalid, "a reset token logs nobody in");
    reset(confirm("new password", "new password")).await.unwrap();
    assert!(matches!(reset(confirm("new password", "new password")).await, Err(AuthError::Confirmation)));
    assert_eq!(code(world.whoami(&grant.token).await), Code::TokenInvalid);
    let refresh = grant.session.unwrap().refresh_token;
    assert_eq!(code(world.auth.refresh_session(&world.scope, "users", &refresh).await), Code::TokenInvalid);
    assert_eq!(code(world.login("ada@a.test", PASSWORD, TokenMode::Long).await), Code::CredentialsInvalid);
    assert!(world.login("ada@a.test", "new password", TokenMode::Long).await.is_ok());
    assert_eq!(world.mails.0.lock().len(), 1, "nobody got none");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_verified_and_changed_by_mail() {
    let world = World::new().await;
    world.auth.request_link(&world.scope, "users", MailedLink::Verification, "ada@a.test").await.unwrap();
    world.mails(1).await;
    let (_, verify) = world.mailed();
    let grant = world.ada(TokenMode::Long).await;
    assert!(!account::is_verified(&grant.account));
    world.auth.confirm_verification(&world.scope, "users", &verify, Secret::default()).await.unwrap();
    world.auth.confirm_verification(&world.scope, "users", &verify, Secret::default()).await.unwrap();
    let who = world.whoami(&grant.token).await.unwrap();
    assert!(account::is_verified(who.account().unwrap()));
    world.auth.request_link(&world.scope, "users", MailedLink::Verification, "ada@a.test").await.unwrap();
    let change = |email: &'static str| world.auth.request_email_change(&world.scope, "users", &who, email);
    for refused in ["ada@a.test", "not an address"] {
        assert_eq!(code(change(refused).await), Code::ValidationFailed);
    }
    change("ada@new.test").await.unwrap();
    world.auth.mail_work_done().await;
    let (to, token) = world.mailed();
    assert_eq!(to, "ada@new.test");
    let confirm = |password: &str| ConfirmEmailChange { token: token.clone(), password: password.into() };
    let confirmed = |confirm| world.auth.confirm_email_change(&world.scope, "users", confirm);
    assert_eq!(code(confirmed(confirm("wrong horse")).await), Code::ValidationFailed);
    confirmed(confirm(PASSWORD)).await.unwrap();
    assert!(confirmed(confirm(PASSWORD)).await.is_err());
    assert_eq!(code(world.whoami(&grant.token).await), Code::TokenInvalid);
    assert!(world.login("ada@new.test", PASSWORD, TokenMode::Long).await.is_ok());
    assert_eq!(world.mails.0.lock().len(), 2, "nothing was left to verify");
    assert!(matches!(
        world.auth.confirm_verification(&world.scope, "users", &verify, Secret::default()).await,
        Err(AuthError::Confirmation)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_time_code_works_once_and_for_few_guesses() {
    let world = World::new().await;
    let request = |email: &'static str| world.auth.request_otp(&world.scope, "users", email);
    assert_eq!(code(request("ada@a.test").await), Code::Forbidden, "switched off by default");
    world
        .change_users(|users| {
            let mut options = AuthOptionsOf::clone(users.auth.as_ref().unwrap());
            options.rest.insert(
                "otp".into(),
                serde_json::json!({"enabled": true, "duration": 180, "length": 8,
            "emailTemplate": {"subject": "s", "body": "code: {OTP}"}}),
            );
            users.auth = Some(Arc::new(options));
        })
        .await;
    let unknown = request("nobody@a.test").await.unwrap();
    assert_eq!(unknown.otp_id.len(), 15);
    let login = |otp_id: &str, password: &Secret| OtpLogin { otp_id: otp_id.into(), password: password.clone() };
    let enter = |login| world.auth.auth_with_otp(&world.scope, "users", login, TokenMode::Long);
    assert_eq!(code(enter(login(&unknown.otp_id, &"12345678".into())).await), Code::CredentialsInvalid);

    let sent = async || {
        let before = world.mails.0.lock().len();
        let grant = request("ada@a.test").await.unwrap();
        world.mails(before + 1).await;
        (grant.otp_id, world.mailed().1)
    };
    let (id, real) = sent().await;
    let grant = enter(login(&id, &real)).await.unwrap();
    assert!(account::is_verified(&grant.account), "the code came by mail, so the address is confirmed");
    assert_eq!(code(enter(login(&id, &real)).await), Code::CredentialsInvalid, "used up");

    let (id, real) = sent().await;
    for _ in 0..limits::OTP_ATTEMPTS_MAX {
        assert_eq!(code(enter(login(&id, &"wrong".into())).await), Code::CredentialsInvalid);
    }
    assert_eq!(code(enter(login(&id, &real)).await), Code::CredentialsInvalid, "guessed at too often");

    let (id, real) = sent().await;
    world.clock().advance_ms(180_000);
    assert_eq!(code(enter(login(&id, &real)).await), Code::CredentialsInvalid, "too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_tokens_read_files_and_nothing_else() {
    let world = World::new().await;
    let grant = world.ada(TokenMode::Long).await;
    let who = world.whoami(&grant.token).await.unwrap();
    let token = world.auth.file_token(&world.scope, &who).await.unwrap();
    assert!(world.auth.authenticate_file_token(&world.scope.tenant, token.expose()).await.is_ok());
    assert_eq!(code(world.whoami(&token).await), Code::TokenInvalid);
    let wrong = world.auth.authenticate_file_token(&world.scope.tenant, grant.token.expose()).await;
    assert_eq!(code(wrong), Code::TokenInvalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_acts_as_its_account_until_it_ends() {
    let world = World::new().await;
    let who = world.whoami(&world.ada(TokenMode::Long).await.token).await.unwrap();
    let make = |ips: &[&str], expires_ms| CreateKey {
        name: "ci".into(),
        scopes: KeyScopes { collections: vec![Arc::from("USERS")], operations: vec![KeyOperation::Read] },
        ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
        expires_ms,
    };
    let (info, key) = world.auth.create_key(&world.scope, &who, make(&[], None)).await.unwrap();
    let used = world.whoami(&key).await.unwrap();
    assert_eq!(used.actor().to_string(), format!("key:{} of record:users/ada", info.id));
    assert_eq!(used.account().unwrap().record.id.as_str(), "ada");
    let schema = world.scope.tenant.schema();
    let (users, sessions) = (schema.find("users").unwrap(), schema.find(system::SESSIONS).unwrap());
    assert!(used.key_allows(users, KeyOperation::Read));
    assert!(!used.key_allows(users, KeyOperation::Update) && !used.key_allows(sessions, KeyOperation::Read));
    assert!(who.key_allows(sessions, KeyOperation::Delete), "a token is not narrowed");
    assert_eq!(code(world.auth.create_key(&world.scope, &used, make(&[], None)).await), Code::Forbidden);

    let rotated = world.auth.rotate_key(&world.scope, &who, &info.id).await.unwrap();
    assert_eq!(code(world.whoami(&key).await), Code::TokenInvalid);
    assert!(world.whoami(&rotated).await.is_ok());
    let other = world.node.create("tenant-b").await;
    assert_eq!(code(world.auth.authenticate(&other, Some(rotated.expose())).await), Code::TokenInvalid);
    world.auth.revoke_key(&world.scope, &who, &info.id).await.unwrap();
    assert_eq!(code(world.whoami(&rotated).await), Code::TokenInvalid);
    assert_eq!(code(world.auth.revoke_key(&world.scope, &who, &info.id).await), Code::RecordNotFound);

    let now_ms = crate::kernel::clock::Clock::now_ms(world.clock());
    let (_, bound) =
        world.auth.create_key(&world.scope, &who, make(&["10.0.0.0/8"], Some(now_ms + 5_000))).await.unwrap();
    let from = |ip: &str| {
        world.auth.authenticate_from(
            &world.scope.tenant,
            Some(bound.expose()),
            ip.parse().ok(),
            RequestContext::default,
        )
    };
    assert!(from("10.1.2.3").await.is_ok());
    assert_eq!(code(from("192.168.0.1").await), Code::TokenInvalid);
    assert_eq!(code(world.whoami(&bound).await), Code::TokenInvalid, "no address is no permitted address");
    world.clock().advance_ms(5_000);
    assert_eq!(code(from("10.1.2.3").await), Code::TokenInvalid);
    assert_eq!(code(world.auth.create_key(&world.scope, &who, make(&["x"], Some(0))).await), Code::ValidationFailed);
    assert_eq!(world.auth.list_keys(&world.scope, &who).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_a_tenant_stops_it_at_the_door() {
    let world = World::new().await;
    let id = world.scope.tenant.id().clone();
    world.node.registry.suspend(meta(), "tenant-a").await.unwrap();
    assert!(world.node.registry.open_tenant(&id).await.is_err());
}
