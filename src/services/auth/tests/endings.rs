//! What ends with what: codes, file tokens and sessions.

use super::*;

/// A code that was on its way when somebody else set a new password still opened the account.
#[tokio::test(flavor = "multi_thread")]
async fn a_one_time_code_ends_with_the_token_key() {
    let world = World::new().await;
    world
        .change_users(|users| {
            let mut options = AuthOptionsOf::clone(users.auth.as_ref().unwrap());
            let body = serde_json::json!({"enabled": true, "emailTemplate": {"subject": "s", "body": "code: {OTP}"}});
            options.rest.insert("otp".into(), body);
            users.auth = Some(Arc::new(options));
        })
        .await;
    let sent = async || {
        let grant = world.auth.request_otp(&world.scope, "users", "ada@a.test").await.unwrap();
        world.auth.mail_work_done().await;
        OtpLogin { otp_id: grant.otp_id, password: world.mailed().1 }
    };
    let enter = |login| world.auth.auth_with_otp(&world.scope, "users", login, TokenMode::Long);
    let first = sent().await;
    let who = world.whoami(&world.ada(TokenMode::Long).await.token).await.unwrap();
    world.auth.log_out_all(&world.scope, &who).await.unwrap();
    assert_eq!(code(enter(first).await), Code::CredentialsInvalid);
    // Also where the row is still there, because the key was renewed by an update of the record.
    let second = sent().await;
    let users = world.scope.tenant.schema().find("users").unwrap().clone();
    let change = world.scope.tenant.write(meta(), move |tx| {
        let changes = crate::services::tenants::rows::changes(&users, &[("tokenKey", "n".repeat(50).into())]);
        tx.update(&users, &account::record_id("ada").unwrap(), &changes)
    });
    change.await.unwrap();
    assert_eq!(code(enter(second).await), Code::CredentialsInvalid);
    assert!(enter(sent().await).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_token_ends_with_what_it_was_made_with() {
    let world = World::new().await;
    let reads = |token: &Secret| {
        let token = token.clone();
        let world = &world;
        async move { world.auth.authenticate_file_token(&world.scope.tenant, token.expose()).await }
    };
    let grant = world.ada(TokenMode::Session).await;
    let who = world.whoami(&grant.token).await.unwrap();
    let token = world.auth.file_token(&world.scope, &who).await.unwrap();
    assert_eq!(reads(&token).await.unwrap().session, who.session);
    world.auth.log_out(&world.scope, &who).await.unwrap();
    assert_eq!(code(reads(&token).await), Code::TokenInvalid);

    let who = world.whoami(&world.ada(TokenMode::Long).await.token).await.unwrap();
    let make = |ips: &[&str], expires_ms| CreateKey {
        name: "files".into(),
        scopes: KeyScopes { collections: Vec::new(), operations: KeyOperation::ALL.to_vec() },
        ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
        expires_ms,
    };
    let now_ms = crate::kernel::clock::Clock::now_ms(world.clock());
    let (info, key) = world.auth.create_key(&world.scope, &who, make(&[], Some(now_ms + 10_000))).await.unwrap();
    let used = world.whoami(&key).await.unwrap();
    let token = world.auth.file_token(&world.scope, &used).await.unwrap();
    let reader = reads(&token).await.unwrap();
    assert_eq!(reader.key.as_ref().map(|key| Arc::clone(&key.id)), Some(Arc::clone(&info.id)));
    assert!(reader.expires_s * 1_000 <= now_ms + 10_000, "it does not outlive the key");
    world.auth.rotate_key(&world.scope, &who, &info.id).await.unwrap();
    assert_eq!(code(reads(&token).await), Code::TokenInvalid, "the key has another secret");

    let (_, bound) = world.auth.create_key(&world.scope, &who, make(&["10.0.0.0/8"], None)).await.unwrap();
    let ip = "10.0.0.1".parse().ok();
    let used = world.auth.authenticate_from(&world.scope.tenant, Some(bound.expose()), ip, RequestContext::default);
    assert_eq!(code(world.auth.file_token(&world.scope, &used.await.unwrap()).await), Code::Forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_revokes_the_session_of_another() {
    let world = World::new().await;
    let hash = world.auth.hasher().hash(PASSWORD.into()).await.unwrap();
    add_user(&world.scope.tenant, "bob", "bob@a.test", &hash, &"b".repeat(50)).await;
    let ada = world.ada(TokenMode::Session).await;
    let bob = world.login("bob@a.test", PASSWORD, TokenMode::Session).await.unwrap();
    let bob = world.whoami(&bob.token).await.unwrap();
    let session = ada.session.unwrap().id;
    assert_eq!(code(world.auth.revoke_session(&world.scope, &bob, &session).await), Code::RecordNotFound);
    let listed = world.auth.list_sessions(&world.scope, &bob, Some(("users", "ada"))).await;
    assert_eq!(code(listed), Code::SuperuserRequired);
    assert!(world.whoami(&ada.token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_sessions_are_removed_and_live_ones_stay() {
    let world = World::new().await;
    world.ada(TokenMode::Session).await;
    world.node.clock.advance_ms(i64::try_from(limits::SESSION_IDLE_S).unwrap() * 1_000 - 5_000);
    world.ada(TokenMode::Session).await;
    assert_eq!(world.auth.prune_expired(&world.scope.tenant).await.unwrap(), 0);
    world.node.clock.advance_ms(10_000);
    let live = world.ada(TokenMode::Session).await;
    // Opening a session clears the account's own expired ones; make another account's expire by time alone.
    world.node.clock.advance_ms(i64::try_from(limits::SESSION_IDLE_S).unwrap() * 1_000 + 1);
    assert_eq!(world.auth.prune_expired(&world.scope.tenant).await.unwrap(), 2);
    let refreshed = world.auth.refresh_session(&world.scope, "users", &live.session.unwrap().refresh_token).await;
    assert!(refreshed.is_err());
}

/// Whoever registered at a provider has a password nobody knows, and with a long token could not tie a second provider.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_by_a_long_token_is_fresh_for_a_while_and_extending_it_is_no_login() {
    let world = World::new().await;
    let grant = world.ada(TokenMode::Long).await;
    let is_fresh = async |token: &Secret| {
        let who = world.whoami(token).await.unwrap();
        let owner = world.auth.owner_of(&world.scope, "users", &who).await.unwrap();
        world.auth.has_just_come(&owner).await.unwrap()
    };
    assert!(is_fresh(&grant.token).await);
    world.clock().advance_ms(limits::SESSION_FRESH_MS);
    assert!(!is_fresh(&grant.token).await);
    let who = world.whoami(&grant.token).await.unwrap();
    let extended = world.auth.auth_refresh(&world.scope, "users", &who, &grant.token).await.unwrap();
    assert!(extended.token != grant.token && !is_fresh(&extended.token).await);
    assert!(is_fresh(&world.ada(TokenMode::Session).await.token).await);
}

/// An account whose suspension was over was looked up anew at every request, for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_that_is_over_costs_nothing_and_goes() {
    let world = World::new().await;
    world.auth.create_superuser(meta(), "root@node.test", PASSWORD.into()).await.unwrap();
    let login = PasswordLogin { identity: "root@node.test".into(), password: PASSWORD.into(), identity_field: None };
    let root = world.auth.auth_with_password(&world.scope, system::SUPERUSERS, login, TokenMode::Long).await.unwrap();
    let root = world.whoami(&root.token).await.unwrap();
    let suspend = async |until_ms| {
        let wish = Suspend { reason: String::new(), until_ms };
        world.auth.suspend_account(&world.scope, "users", "ada", wish, &root).await.unwrap();
    };
    let known = || world.auth.get_suspension(&world.scope, "users", "ada", &root);
    suspend(None).await;
    world.auth.prune_expired(&world.scope.tenant).await.unwrap();
    known().await.expect("one without an end stays");

    let end_ms = world.auth.0.clock.now_ms() + 60_000;
    suspend(Some(end_ms)).await;
    world.auth.prune_expired(&world.scope.tenant).await.unwrap();
    assert_eq!(code(world.login("ada@a.test", PASSWORD, TokenMode::Long).await), Code::AccountSuspended);
    world.clock().advance_ms(60_000);
    let who = world.whoami(&world.ada(TokenMode::Long).await.token).await.unwrap();
    let vouch = world.auth.vouch(&world.scope.tenant, &who).expect("nothing stands in the way");
    assert!(world.auth.holds(&vouch, world.auth.0.clock.now_ms()));
    world.auth.prune_expired(&world.scope.tenant).await.unwrap();
    assert_eq!(code(known().await), Code::RecordNotFound);
}
