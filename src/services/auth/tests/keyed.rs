//! API keys in use: what their use writes, and requests that last longer than a secret.

use super::*;

fn everything() -> CreateKey {
    CreateKey {
        name: "ci".into(),
        scopes: KeyScopes { collections: Vec::new(), operations: KeyOperation::ALL.to_vec() },
        ips: Vec::new(),
        expires_ms: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_ends_what_the_old_one_began() {
    let world = World::new().await;
    let who = world.whoami(&world.ada(TokenMode::Long).await.token).await.unwrap();
    let (info, key) = world.auth.create_key(&world.scope, &who, everything()).await.unwrap();
    let used = world.whoami(&key).await.unwrap();
    let holds = async |used: &Identity| world.auth.still_holds(&world.scope.tenant, used).await.unwrap();
    assert!(holds(&used).await);
    let rotated = world.auth.rotate_key(&world.scope, &who, &info.id).await.unwrap();
    assert!(!holds(&used).await, "a request that lasts ends with the secret it came with");
    let used = world.whoami(&rotated).await.unwrap();
    assert!(holds(&used).await);
    world.auth.revoke_key(&world.scope, &who, &info.id).await.unwrap();
    assert!(!holds(&used).await);
}

/// Everybody who came with a key before its first use was written down used to write it down too.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_a_key_is_written_once_an_hour_however_many_use_it() {
    let world = World::new().await;
    let db = &world.scope.tenant;
    let who = world.whoami(&world.ada(TokenMode::Long).await.token).await.unwrap();
    let (_, key) = world.auth.create_key(&world.scope, &who, everything()).await.unwrap();
    world.whoami(&key).await.unwrap();
    let last_used = async || world.auth.list_keys(&world.scope, &who).await.unwrap()[0].last_used.clone();
    let noted = async |before: String| {
        for _ in 0..20_000 {
            let now = last_used().await;
            if now != before {
                return now;
            }
            tokio::task::yield_now().await;
        }
        panic!("the use was not noted");
    };
    let first = noted(String::new()).await;
    world.clock().advance_ms(3_600_000);
    let before = db.position();
    // All that come before the first is written down meet the row as it was.
    for _ in 0..40 {
        world.whoami(&key).await.unwrap();
        world.clock().advance_ms(1);
    }
    noted(first).await;
    // Whatever else waited to be written is written by now: one writer takes them in their order.
    for _ in 0..40 {
        db.write(meta(), |_| Ok::<_, crate::store::StoreError>(())).await.unwrap();
    }
    assert_eq!(db.position(), before + 1);
}
