//! What is warm after a restart, and what must not be: the disk tier against the file as the next process finds it.

use crate::support::notes::{self, from, until};
use crate::support::{Actor, TestServer, User};
use serde_json::json;

const ONE: &str = "/api/collections/notes/records/note00000000001";
const TWO: &str = "/api/collections/notes/records/note00000000002";
const LIST: &str = "/api/collections/notes/records?sort=id";

/// A node whose collection everybody who has logged in may read and change; the answers depend on who asks, so that none
/// is warmed and all come from the disk.
async fn notes() -> (TestServer, User) {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    for name in ["notes", "others"] {
        let rule = "@request.auth.id != ''";
        let body = json!({"name": name, "type": "base", "listRule": rule, "viewRule": rule,
            "fields": [{"name": "title", "type": "text"}, {"name": "load", "type": "json"}]});
        admin.post("/api/collections", body).await.created();
    }
    for n in 1..=2 {
        let body = json!({"id": format!("note0000000000{n}"), "title": "first"});
        admin.post("/api/collections/notes/records", body).await.created();
    }
    (server, ada)
}

/// Stops and starts; the disk tier is ready when this returns.
async fn restarted(server: TestServer, user: &User) -> (TestServer, Actor) {
    let server = server.restart().await;
    server.until_disk("ready").await;
    let actor = server.anon().at("acme").with_authorization(&user.token);
    (server, actor)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_after_megabytes_of_log_shows_after_a_restart() {
    let (server, ada) = notes().await;
    ada.actor.get(ONE).await.ok();
    let (server, again) = restarted(server, &ada).await;
    from(again.get(ONE).await, "l2");
    let admin = server.node().at("acme");
    let large = "x".repeat(900_000);
    for round in 0..12 {
        admin.patch(TWO, json!({"load": {"round": round, "text": large}})).await.ok();
    }
    // In a batch, whose answers are not kept as what a read would answer.
    let batch = json!({"requests": [{"method": "PATCH", "url": ONE, "body": {"title": "changed"}}]});
    admin.post("/api/batch", batch).await.has_status(200);
    let (_server, again) = restarted(server, &ada).await;
    assert_eq!(from(again.get(ONE).await, "miss")["title"], "changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_warm_after_a_restart_whatever_was_written_elsewhere() {
    let (server, ada) = notes().await;
    for path in [ONE, LIST] {
        ada.actor.get(path).await.ok();
    }
    let (server, _) = restarted(server, &ada).await;
    let admin = server.node().at("acme");
    // More than the end of the log that is read at the start; nobody reads meanwhile.
    for n in 0..150 {
        admin.post("/api/collections/others/records", json!({"title": n.to_string()})).await.created();
    }
    let (server, again) = restarted(server, &ada).await;
    for path in [ONE, LIST] {
        from(again.get(path).await, "l2");
    }

    // The same for a record whose neighbours change, as long as it is in memory at the end.
    let admin = server.node().at("acme");
    for n in 0..150 {
        admin.patch(TWO, json!({"title": n.to_string()})).await.ok();
    }
    let (_server, again) = restarted(server, &ada).await;
    assert_eq!(from(again.get(ONE).await, "l2")["title"], "first");
    assert_eq!(from(again.get(LIST).await, "miss")["items"][1]["title"], "149");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_rule_voids_what_is_on_disk() {
    let (server, ada) = notes().await;
    ada.actor.get(LIST).await.ok();
    let (server, again) = restarted(server, &ada).await;
    from(again.get(LIST).await, "l2");
    let rule = json!({"listRule": "@request.auth.id != '' && title = 'none'"});
    server.node().at("acme").patch("/api/collections/notes", rule).await.ok();
    let (_server, again) = restarted(server, &ada).await;
    assert_eq!(from(again.get(LIST).await, "miss")["totalItems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_outlives_the_process_and_its_loss_costs_speed_only() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    notes::notes(&admin).await;
    let ada = server.user(&admin, "ada").await;
    // An answer that depends on who asks is not warmed, so where it comes from is the disk.
    admin.patch("/api/collections/notes", json!({"listRule": "title != @request.auth.id"})).await.ok();
    until(&ada.actor, notes::LIST, "l1").await;
    let pages: Vec<String> = (1..=60).map(|len| format!("{}&perPage={len}", notes::LIST)).collect();
    for page in &pages {
        ada.actor.get(page).await.ok();
    }

    let server = server.restart().await;
    let again = server.anon().at("acme").with_authorization(&ada.token);
    server.until_disk("ready").await;
    for page in &pages {
        assert_eq!(from(again.get(page).await, "l2")["totalItems"], 3, "{page}");
    }
    let admin = server.node().at("acme");
    admin.post("/api/collections/notes/records", json!({"board": "red", "title": "d"})).await.created();
    assert_eq!(from(again.get(notes::LIST).await, "miss")["totalItems"], 4);

    // A write after the answer was kept, then a restart: the disk's copy is not served.
    until(&again, notes::LIST, "l1").await;
    let server = server.restart_after(|folder| std::fs::remove_dir_all(folder.join("cache")).unwrap()).await;
    let again = server.anon().at("acme").with_authorization(&ada.token);
    assert_eq!(again.get(notes::LIST).await.ok()["totalItems"], 4);
    until(&again, notes::LIST, "l1").await;

    let server = server.restart_after(|folder| garble(&folder.join("cache"))).await;
    let again = server.anon().at("acme").with_authorization(&ada.token);
    for _ in 0..10 {
        assert_eq!(again.get(notes::LIST).await.ok()["totalItems"], 4);
    }
    let health = server.anon().get("/health").await.ok();
    assert!(["ok", "degraded"].contains(&health["status"].as_str().unwrap()), "{health}");
    let report = server.node().get("/api/admin/performance?type=cache").await.ok();
    assert_eq!(report["enabled"], true);
}

/// Flips bytes in every file below `folder`.
fn garble(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            garble(&path);
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x5a);
            std::fs::write(&path, bytes).unwrap();
        }
    }
}
