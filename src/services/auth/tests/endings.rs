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
