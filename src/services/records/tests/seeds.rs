//! What a file says about positions when it is opened: never that something is complete that is not.

use super::*;
use crate::cache::stamp::Seed;
use crate::services::records::cached;

async fn seed(world: &World) -> Seed {
    world.db.read(|reader| cached::seed(reader, None)).await.unwrap()
}

/// Positions of the touches of one record that the seed tells apart.
fn told(seed: &Seed, record: &str) -> Vec<i64> {
    seed.tail.iter().filter(|touched| touched.record.as_str() == record).map(|touched| touched.lsn).collect()
}

async fn world_with_author() -> (World, String) {
    let world = World::new(&library()).await;
    let author = world.admin().create("authors", json!({"name": "Ada"})).await;
    (world, author["id"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_of_a_short_log_is_all_of_it() {
    let (world, id) = world_with_author().await;
    let seed = seed(&world).await;
    assert_eq!((seed.tail_after, seed.lsn, seed.schema_lsn), (0, 3, 2));
    assert_eq!(told(&seed, &id), [3]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_too_large_for_one_read_of_the_log_ends_at_the_newest_transaction() {
    let (world, id) = world_with_author().await;
    let admin = world.admin();
    let large = "x".repeat(900_000);
    let post = admin.create("posts", json!({"title": "large", "meta": {"text": large}})).await;
    let post = post["id"].as_str().unwrap();
    for round in 0..8 {
        admin.update("posts", post, json!({"meta": {"text": large, "round": round}})).await;
    }
    admin.update("authors", &id, json!({"name": "last"})).await;
    let seed = seed(&world).await;
    assert_eq!(told(&seed, &id).last(), Some(&seed.lsn), "the newest change is told");
    assert!(seed.tail_after > 3, "not everything fits: {}", seed.tail_after);
    let first = seed.tail.iter().map(|touched| touched.lsn).min().unwrap();
    assert_eq!(first, seed.tail_after + 1, "complete after the position it names");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_begins_where_the_log_was_cut() {
    let (world, id) = world_with_author().await;
    let admin = world.admin();
    let other = admin.create("authors", json!({"name": "other"})).await;
    for round in 0..3 {
        admin.update("authors", other["id"].as_str().unwrap(), json!({"name": format!("other {round}")})).await;
    }
    assert!(world.db.truncate_log(0, 0).await.unwrap() > 0);
    let seed = seed(&world).await;
    assert_eq!(seed.tail_after, seed.lsn - 1, "one transaction is left");
    assert!(told(&seed, &id).is_empty());
    assert_eq!(
        seed.schema_lsn, 2,
        "the last change of collections is known although the log does not hold it any more"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_position_of_the_schema_moves_with_collections_alone() {
    let (world, _) = world_with_author().await;
    world.admin().create("authors", json!({"name": "more"})).await;
    assert_eq!(seed(&world).await.schema_lsn, 2);
    let field = json!({"name": "more", "type": "base", "fields": [{"name": "text", "type": "text"}]});
    world.make(&world.db, &field).await;
    assert_eq!(seed(&world).await.schema_lsn, 5);
    world.stop().await;
}
