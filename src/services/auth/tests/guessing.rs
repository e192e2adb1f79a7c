//! Guessing is charged to where it comes from, wherever a password is compared.

use super::*;
use crate::services::throttle::Quota;
use crate::store::StoreError;

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_a_new_address_are_charged() {
    let world = World::new().await;
    let limits = LoginLimits { per_identity: Quota::new(2, 60), per_address: None };
    let auth = auth_with(&world.node, &world.known, CHEAP, &world.mails, limits);
    let who = world.whoami(&world.ada(TokenMode::Long).await.token).await.unwrap();
    auth.request_email_change(&world.scope, "users", &who, "ada@new.test").await.unwrap();
    auth.mail_work_done().await;
    let token = world.mailed().1;
    let confirm = |password: &str| {
        let confirm = ConfirmEmailChange { token: token.clone(), password: password.into() };
        auth.confirm_email_change(&world.scope, "users", confirm)
    };
    for guess in ["wrong horse", "wrong house"] {
        assert_eq!(code(confirm(guess).await), Code::ValidationFailed);
    }
    assert_eq!(code(confirm(PASSWORD).await), Code::RateLimited);
    world.clock().advance_ms(60_000);
    confirm(PASSWORD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_wrong_passwords_lock_out_nobody_but_their_sender() {
    let world = World::new().await;
    let limits = LoginLimits { per_identity: Quota::new(5, 60), per_address: Quota::new(8, 60) };
    let auth = auth_with(&world.node, &world.known, CHEAP, &world.mails, limits);
    let at = |ip: &str| {
        let mut scope = world.scope.clone();
        scope.meta.ip = Some(Arc::from(ip));
        scope
    };
    let (thief, thief_v6, owner) = (at("10.0.0.66"), at("2001:db8::66"), at("10.0.0.1"));
    let login = async |scope: &AuthScope, identity: &str, password: &str| {
        let login = PasswordLogin { identity: identity.into(), password: password.into(), identity_field: None };
        auth.auth_with_password(scope, "users", login, TokenMode::Long).await.map(drop).map_err(|error| error.code())
    };
    let mut looked_at = 0;
    for guess in 0..10_000 {
        match login(&thief, "ada@a.test", &format!("guess {guess}")).await {
            Err(Code::CredentialsInvalid) => looked_at += 1,
            refused => assert_eq!(refused, Err(Code::RateLimited)),
        }
    }
    assert_eq!(looked_at, 5, "the rest costs no hash");
    assert_eq!(login(&owner, "ada@a.test", PASSWORD).await, Ok(()), "the owner is not locked out");
    assert_eq!(login(&thief, "ada@a.test", PASSWORD).await, Err(Code::RateLimited));
    assert_eq!(login(&thief, "ADA@a.test", PASSWORD).await, Err(Code::RateLimited), "in whatever letters");
    for unknown in ["x@a.test", "y@a.test", "z@a.test"] {
        assert_eq!(login(&thief, unknown, "x").await, Err(Code::CredentialsInvalid));
    }
    assert_eq!(login(&thief, "w@a.test", "x").await, Err(Code::RateLimited), "one address has a bound of its own");
    for _ in 0..20 {
        assert_eq!(login(&owner, "ada@a.test", PASSWORD).await, Ok(()), "logins that hold are not charged");
    }
    for guess in 0..8 {
        let neighbour = at(&format!("2001:db8::{guess}"));
        let _ = login(&neighbour, &format!("{guess}@a.test"), "x").await;
    }
    assert_eq!(login(&thief_v6, "ada@a.test", PASSWORD).await, Err(Code::RateLimited), "a /64 is one address");
    world.clock().advance_ms(60_000);
    assert_eq!(login(&thief, "ada@a.test", PASSWORD).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_rows_of_guesses_make_room() {
    let world = World::new().await;
    for guess in 0..6 {
        let _ = world.login(&format!("{guess}@a.test"), "wrong horse", TokenMode::Long).await;
        world.clock().advance_ms(60_000);
        world.auth.events_written().await;
    }
    world.ada(TokenMode::Long).await;
    world.auth.events_written().await;
    let db = &world.scope.tenant;
    let trim = async |kept_max| world.auth.trim_events(db, kept_max).await.unwrap();
    let rows = async || {
        let read = db.read(|reader| {
            let events = reader.schema().find(system::AUTH_EVENTS).unwrap().clone();
            let created = events.find_field("created").unwrap().column();
            let sql = format!("SELECT {created} FROM \"{}\"", events.table());
            let mut made = Vec::new();
            reader.for_each(&sql, &[], &mut |row| {
                made.push(row.stored(0)?.as_text().unwrap_or_default().to_owned());
                Ok(())
            })?;
            Ok::<_, StoreError>(made)
        });
        let mut made = read.await.unwrap();
        made.sort();
        made
    };
    let before = rows().await;
    assert_eq!((before.len(), trim(6).await), (7, 0));
    assert_eq!(trim(2).await, 4);
    assert_eq!(rows().await, before[4..], "the oldest went, the login stayed");
}
