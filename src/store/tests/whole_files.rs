//! Create, clone, export, import, replace, delete, and the doctor.

use super::support::*;
use crate::kernel::ident::NodeId;
use crate::store::{StoreError, Tenants, WriteTx, check_file, free_bytes};
use std::collections::HashSet;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_created_once() {
    let fixture = fixture();
    let tenant = fixture.tenants.create(&id("one")).await.unwrap();
    assert_eq!((tenant.position(), tenant.schema().version()), (0, 0));
    drop(tenant);
    assert!(matches!(fixture.tenants.create(&id("one")).await, Err(StoreError::TenantExists(_))));
    fixture.tenants.create(&crate::kernel::ident::TenantId::control()).await.unwrap();
    assert!(fixture.folder.path().join("control.db").is_file());
    assert_eq!(fixture.tenants.list_files().await.unwrap(), [id("one")]);
    let rubbish = std::fs::read_dir(fixture.folder.path().join("tenants/one")).unwrap().count();
    assert!(rubbish <= 3, "data.db, its log and its index");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_has_the_data_and_a_lineage_of_its_own() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    insert(&tenant, &notes, "a", "first").await.unwrap();
    let twin = fixture.tenants.clone_tenant(&id("one"), &id("two")).await.unwrap();
    assert_eq!(count(&twin, &notes).await, 1);
    let own = insert(&tenant, &notes, "b", "second").await.unwrap().token.unwrap();
    let other = insert(&twin, &notes, "c", "third").await.unwrap().token.unwrap();
    assert_ne!(own.origin, other.origin);
    assert_eq!(other.seq, 1);
    let log = twin.changes(2, 10).await.unwrap();
    assert_eq!(log[0].frame.context.len(), 1, "its first record names what it has seen of the old lineage");
    assert_eq!((log[0].frame.context[0].uid, log[0].frame.context[0].seq), (own.origin, 2));
    insert(&twin, &notes, "d", "fourth").await.unwrap();
    assert!(twin.changes(3, 10).await.unwrap()[0].frame.context.is_empty(), "the second names nothing new");
    let report = check_file(fixture.folder.path(), &id("two")).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.records[0].2, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_one_file_that_another_node_imports() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    insert(&tenant, &notes, "a", "first").await.unwrap();
    let file = fixture.folder.path().join("copy.db");
    fixture.tenants.export(&id("one"), &file).await.unwrap();
    let beside: HashSet<String> = std::fs::read_dir(fixture.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("copy"))
        .collect();
    assert_eq!(beside, HashSet::from(["copy.db".to_owned()]));

    let folder = tempfile::tempdir().unwrap();
    let mut other = options(&folder, &fixture.clock);
    other.node = NodeId([2; 16]);
    other.random = Arc::new(crate::kernel::random::SeededRandom::new(99));
    let other = Tenants::start(other).unwrap();
    let there = other.import(&id("moved"), &file).await.unwrap();
    assert_eq!(count(&there, &notes).await, 1);
    insert(&there, &notes, "b", "second").await.unwrap();
    assert_eq!(check_file(folder.path(), &id("moved")).unwrap().problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_tenant_are_refused_with_a_reason() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    for index in 0..50 {
        insert(&tenant, &notes, &format!("n{index}"), &format!("{index}{}", "x".repeat(500))).await.unwrap();
    }
    let folder = fixture.folder.path();
    let good = folder.join("good.db");
    fixture.tenants.export(&id("one"), &good).await.unwrap();
    std::fs::write(folder.join("text"), "not a database at all").unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
    rusqlite::Connection::open(folder.join("foreign")).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    std::fs::copy(&good, folder.join("newer")).unwrap();
    rusqlite::Connection::open(folder.join("newer")).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let mut bytes = std::fs::read(&good).unwrap();
    let len = bytes.len();
    for (name, keep) in [("a head", 100), ("a page", 4_096), ("half", len / 2), ("nearly all", len - 5_000)] {
        std::fs::write(folder.join(name), &bytes[..keep]).unwrap();
    }
    bytes[4_096..len - 4_096].fill(0x5a);
    std::fs::write(folder.join("damaged"), bytes).unwrap();
    let cut = ["a head", "a page", "half", "nearly all"];
    for name in ["text", "empty", "foreign", "newer", "damaged", "missing"].into_iter().chain(cut) {
        let result = fixture.tenants.import(&id("bad"), &folder.join(name)).await;
        match name {
            "missing" => assert!(matches!(result, Err(StoreError::Io(_))), "{result:?}"),
            _ => assert!(matches!(result, Err(StoreError::NotATenant(_))), "{name}: {result:?}"),
        }
        assert!(!folder.join("tenants/bad").exists(), "{name} left something behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_swaps_the_file_and_starts_a_new_lineage() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let first = insert(&tenant, &notes, "a", "first").await.unwrap().token.unwrap();
    let file = fixture.folder.path().join("backup.db");
    fixture.tenants.export(&id("one"), &file).await.unwrap();
    insert(&tenant, &notes, "b", "after the backup").await.unwrap();
    drop(tenant);
    let tenant = fixture.tenants.replace(&id("one"), &file).await.unwrap();
    assert_eq!(count(&tenant, &notes).await, 1);
    let next = insert(&tenant, &notes, "c", "after the restore").await.unwrap().token.unwrap();
    assert_ne!(first.origin, next.origin, "sequence 3 of the old lineage was used before the restore");
    assert_eq!(check_file(fixture.folder.path(), &id("one")).unwrap().problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenant_is_gone_and_its_name_free() {
    let fixture = fixture();
    let (tenant, _) = tenant_with_notes(&fixture, "one").await;
    let tenants = Arc::clone(&fixture.tenants);
    let deleting = tokio::spawn(async move { tenants.delete(&id("one")).await });
    // While somebody uses it the delete waits; nobody new gets in meanwhile.
    loop {
        match fixture.tenants.open(&id("one")).await {
            Err(StoreError::TenantBusy(_)) => break,
            other => drop(other),
        }
        tokio::task::yield_now().await;
    }
    drop(tenant);
    deleting.await.unwrap().unwrap();
    assert_eq!(std::fs::read_dir(fixture.folder.path().join("tenants")).unwrap().count(), 0);
    assert!(matches!(fixture.tenants.delete(&id("one")).await, Err(StoreError::TenantMissing(_))));
    assert_eq!(fixture.tenants.create(&id("one")).await.unwrap().position(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_a_broken_chain() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    for name in ["a", "b", "c"] {
        insert(&tenant, &notes, name, name).await.unwrap();
    }
    drop(tenant);
    assert!(fixture.tenants.close(&id("one")).await);
    assert!(check_file(fixture.folder.path(), &id("one")).unwrap().is_healthy());
    let file = rusqlite::Connection::open(fixture.tenants.path(&id("one"))).unwrap();
    file.execute_batch("DELETE FROM _tn_tx WHERE lsn = 3").unwrap();
    drop(file);
    let report = check_file(fixture.folder.path(), &id("one")).unwrap();
    assert!(report.problems[0].contains("log record 4"), "{:?}", report.problems);
    assert!(free_bytes(fixture.folder.path()).unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_a_row_that_contradicts_its_record_and_a_gap_in_the_positions() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    for name in ["a", "b"] {
        insert(&tenant, &notes, name, name).await.unwrap();
    }
    drop(tenant);
    assert!(fixture.tenants.close(&id("one")).await);
    let path = fixture.tenants.path(&id("one"));
    let told = |sql: &str| {
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        check_file(fixture.folder.path(), &id("one")).unwrap().problems.join("; ")
    };
    assert!(told("UPDATE _tn_tx SET hlc = hlc + 1 WHERE lsn = 2").contains("log record 2: its row says"));
    assert!(told("UPDATE _tn_tx SET hlc = hlc - 1 WHERE lsn = 2").is_empty());
    assert!(told("UPDATE _tn_tx SET lsn = 9 WHERE lsn = 3").contains("position 9 after 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_of_whole_files_is_gone_after_the_next_start() {
    let fixture = fixture();
    tenant_with_notes(&fixture, "one").await;
    let tenants = fixture.folder.path().join("tenants");
    // A deletion that ended after its rename, a creation that ended before its own, the same of the control database.
    std::fs::create_dir_all(tenants.join("gone.tmp-abcdefgh/files/c")).unwrap();
    std::fs::write(tenants.join("gone.tmp-abcdefgh/data.db"), "x").unwrap();
    std::fs::write(fixture.folder.path().join("control.db.tmp-abcdefgh"), "x").unwrap();
    std::fs::create_dir_all(tenants.join("half")).unwrap();
    std::fs::write(tenants.join("half/data.db.tmp-abcdefgh"), "x").unwrap();
    let again = Tenants::start(options(&fixture.folder, &fixture.clock)).unwrap();
    again.delete(&id("half")).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(&tenants).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["one"]);
    assert!(!fixture.folder.path().join("control.db.tmp-abcdefgh").exists());
    assert!(matches!(again.delete(&id("half")).await, Err(StoreError::TenantMissing(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_neither_opened_nor_swapped_while_its_last_handle_lets_go() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    insert(&tenant, &notes, "a", "a").await.unwrap();
    turn_over(&tenant);
    drop(tenant);
    fixture.clock.advance_ms(fixture.tenants.options().idle_close_ms + 1);
    let sweeping = {
        let tenants = Arc::clone(&fixture.tenants);
        tokio::spawn(async move {
            while tenants.sweep().await == 0 {
                tokio::task::yield_now().await;
            }
        })
    };
    let closes = || fixture.tenants.stats().closes;
    until(|| fixture.tenants.open_len() == 0).await;
    let opened = fixture.tenants.open(&id("one")).await.unwrap();
    assert_eq!(closes(), 1, "the handle before was closed first");
    sweeping.await.unwrap();
    assert_eq!(count(&opened, &notes).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_deleted_records_took_goes_back_to_the_disk() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let long = "x".repeat(100_000);
    for number in 0..60 {
        insert(&tenant, &notes, &format!("n{number}"), &format!("{number}{long}")).await.unwrap();
    }
    for number in 0..60 {
        let collection = Arc::clone(&notes);
        let delete = move |tx: &mut WriteTx<'_>| tx.delete(&collection, &record_id(&format!("n{number}")));
        tenant.write::<_, StoreError, _>(meta(), delete).await.unwrap();
    }
    // The log still holds what they were; it goes when its time is over.
    tenant.truncate_log(i64::MAX >> 16, u64::MAX).await.unwrap();
    let held = tenant.database_bytes().await;
    assert!(held > 10_000_000, "{held}");
    assert!(tenant.shrink().await.unwrap() > 2_000);
    turn_over(&tenant);
    let held = tenant.database_bytes().await;
    assert!(held < 2_000_000, "{held}");
    assert_eq!(tenant.shrink().await.unwrap(), 0, "some free pages are kept for the next writes");
    insert(&tenant, &notes, "a", "goes on").await.unwrap();
    assert_eq!(count(&tenant, &notes).await, 1);
}

/// An import looked at the pages alone: a log that was tampered with came in, and a stamp at the end of time stopped the
/// clock of the tenant for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_log_does_not_hold_or_is_of_the_future_is_not_brought_in() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    for name in ["a", "b", "c"] {
        insert(&tenant, &notes, name, name).await.unwrap();
    }
    let export = fixture.folder.path().join("export.tenant");
    fixture.tenants.export(&id("one"), &export).await.unwrap();
    for (number, (forgery, said)) in [
        ("DELETE FROM _tn_tx WHERE lsn = 2", "its log does not hold"),
        ("UPDATE _tn_tx SET body = (SELECT body FROM _tn_tx WHERE lsn = 1) WHERE lsn = 3", "its log does not hold"),
        ("UPDATE _tn_origin SET hlc = 9223372036854775807", "set it and try again"),
        ("UPDATE _tn_tx SET hlc = 9223372036854775807 WHERE lsn = 4", "in the future"),
        ("PRAGMA user_version = 1", "its system tables are not those of its format"),
        ("DROP TABLE _tn_sib", "its system tables are not those of its format: the system table _tn_sib is missing"),
        ("ALTER TABLE _tn_peer ADD COLUMN more ANY", "the system table _tn_peer is not that of format 2"),
        ("CREATE TABLE _tn_more (x)", "_tn_more is no system table of format 2"),
    ]
    .into_iter()
    .enumerate()
    {
        let forged = fixture.folder.path().join(format!("forged{number}.tenant"));
        std::fs::copy(&export, &forged).unwrap();
        rusqlite::Connection::open(&forged).unwrap().execute_batch(forgery).unwrap();
        let refused = fixture.tenants.import(&id("two"), &forged).await;
        let refused = refused.expect_err(forgery).to_string();
        assert!(refused.contains(said), "{forgery}: {refused}");
        assert!(!fixture.tenants.exists(&id("two")));
    }
    fixture.tenants.import(&id("two"), &export).await.unwrap();
}

/// Whoever the file's peers were and how far they had come says nothing about the new lineage.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_knows_no_peers_and_the_doctor_misses_system_tables() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    insert(&tenant, &notes, "a", "a").await.unwrap();
    let export = fixture.folder.path().join("export.tenant");
    fixture.tenants.export(&id("one"), &export).await.unwrap();
    // Without the digest of the export, as whoever changes one has to.
    let peer = "INSERT INTO _tn_peer (peer, lineage, vv, seen_at) VALUES ('p', x'01', x'', 1);
        DELETE FROM _tn_meta WHERE key = 'digest'";
    rusqlite::Connection::open(&export).unwrap().execute_batch(peer).unwrap();
    drop(fixture.tenants.import(&id("two"), &export).await.unwrap());
    let folder = fixture.folder.path();
    let file = rusqlite::Connection::open(folder.join("tenants/two/data.db")).unwrap();
    let peers: i64 = file.query_row("SELECT count(*) FROM _tn_peer", [], |row| row.get(0)).unwrap();
    assert_eq!(peers, 0);
    assert!(check_file(folder, &id("two")).unwrap().is_healthy());
    file.execute_batch("DROP TABLE _tn_stash").unwrap();
    let found = check_file(folder, &id("two")).unwrap().problems;
    assert_eq!(found, ["the system table _tn_stash is missing"]);
}

/// One byte of a record changed, the file was sound to SQLite and its log held, and the import took it.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_changed_on_the_way_is_refused() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    for index in 0..50 {
        insert(&tenant, &notes, &format!("n{index}"), &format!("hello {index}{}", "x".repeat(500))).await.unwrap();
    }
    let folder = fixture.folder.path();
    let good = folder.join("good.db");
    fixture.tenants.export(&id("one"), &good).await.unwrap();
    let bytes = std::fs::read(&good).unwrap();
    let changed = folder.join("changed.db");
    let hello = bytes.windows(7).position(|text| text == b"hello 4").unwrap();
    for at in (0..40).map(|n| n * bytes.len() / 40 + 1).chain([hello + 4, bytes.len() - 1]) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        std::fs::write(&changed, bytes).unwrap();
        let result = fixture.tenants.import(&id("bad"), &changed).await;
        assert!(matches!(result, Err(StoreError::NotATenant(_))), "byte {at}: {result:?}");
    }
    let mut with_more = bytes.clone();
    with_more.extend([0; 4_096]);
    std::fs::write(&changed, with_more).unwrap();
    assert!(fixture.tenants.import(&id("bad"), &changed).await.is_err(), "something was appended");

    // As a file of an earlier build, which has no digest, the same change cannot be seen.
    let mut bytes = bytes;
    bytes[hello + 4] = b'X';
    std::fs::write(&changed, bytes).unwrap();
    let without = "PRAGMA journal_mode=OFF; DELETE FROM _tn_meta WHERE key = 'digest'";
    rusqlite::Connection::open(&changed).unwrap().execute_batch(without).unwrap();
    let older = fixture.tenants.import(&id("older"), &changed).await.unwrap();
    assert_eq!(count(&older, &notes).await, 50);

    let two = fixture.tenants.import(&id("two"), &good).await.unwrap();
    insert(&two, &notes, "more", "written after the import").await.unwrap();
    let again = folder.join("again.db");
    fixture.tenants.export(&id("two"), &again).await.unwrap();
    assert_eq!(count(&fixture.tenants.import(&id("three"), &again).await.unwrap(), &notes).await, 51);
}

/// Builds before this one kept the digest of a file that they took in, and wrote it into their own exports, which were
/// refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_an_earlier_build_carried_along_refuses_nothing() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    insert(&tenant, &notes, "a", "a").await.unwrap();
    let folder = fixture.folder.path();
    let good = folder.join("good.db");
    fixture.tenants.export(&id("one"), &good).await.unwrap();
    let lines = |path: &std::path::Path| {
        let file = rusqlite::Connection::open(path).unwrap();
        let mut found = file.prepare("SELECT key, value FROM _tn_meta WHERE key LIKE 'digest%' ORDER BY key").unwrap();
        let rows = found.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect::<Vec<(String, rusqlite::types::Value)>>()
    };
    let brought = lines(&good);
    assert_eq!(brought.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["digest", "digest_head"]);
    let file_of = |name: &str| folder.join("tenants").join(name).join("data.db");

    drop(fixture.tenants.import(&id("two"), &good).await.unwrap());
    assert_eq!(lines(&file_of("two")), [], "a tenant that serves has none");
    assert!(fixture.tenants.close(&id("two")).await);
    let earlier = rusqlite::Connection::open(file_of("two")).unwrap();
    for (key, value) in &brought {
        earlier.execute("INSERT INTO _tn_meta (key, value) VALUES (?1, ?2)", rusqlite::params![key, value]).unwrap();
    }
    drop(earlier);
    // Nothing was written since: its lineage alone tells.
    let export = folder.join("earlier.db");
    let copy = |name: &str| {
        let _ = std::fs::remove_file(&export);
        let from = rusqlite::Connection::open(file_of(name)).unwrap();
        from.execute("VACUUM INTO ?1", [export.to_str().unwrap()]).unwrap();
    };
    copy("two");
    assert_eq!(lines(&export), brought);
    drop(fixture.tenants.import(&id("three"), &export).await.unwrap());
    let two = fixture.tenants.open(&id("two")).await.unwrap();
    insert(&two, &notes, "b", "b").await.unwrap();
    drop(two);
    assert!(fixture.tenants.close(&id("two")).await);
    copy("two");
    let four = fixture.tenants.import(&id("four"), &export).await.unwrap();
    assert_eq!(count(&four, &notes).await, 2);

    assert_eq!(lines(&file_of("two")), brought);
    drop(fixture.tenants.clone_tenant(&id("two"), &id("five")).await.unwrap());
    assert_eq!(lines(&file_of("five")), []);
    // What this build exports has a digest of its own again.
    fixture.tenants.export(&id("two"), &export).await.unwrap();
    assert_ne!(lines(&export), brought);
    fixture.tenants.import(&id("six"), &export).await.unwrap();
}

/// A node without a free file descriptor called sound tenants damaged until it was started again.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_lacks_for_a_moment_is_no_damage() {
    let fixture = fixture();
    for name in ["one", "two"] {
        drop(tenant_with_notes(&fixture, name).await);
        assert!(fixture.tenants.close(&id(name)).await);
    }
    let sqlite = |code| StoreError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
    let passing = [
        StoreError::from(std::io::Error::from_raw_os_error(24)),
        sqlite(rusqlite::ffi::SQLITE_CANTOPEN),
        sqlite(rusqlite::ffi::SQLITE_IOERR_READ),
        sqlite(rusqlite::ffi::SQLITE_NOMEM),
        StoreError::Panicked(Arc::from("x")),
    ];
    for error in passing {
        fixture.tenants.note_unusable(&id("one"), error);
        assert_eq!(fixture.tenants.list_ill(), []);
    }
    // A folder that cannot be looked into, whoever runs this.
    let (folder, aside) = (fixture.folder.path().join("tenants/two"), fixture.folder.path().join("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    std::os::unix::fs::symlink(&folder, &folder).unwrap();
    let looked = fixture.tenants.check_head(&id("two")).unwrap_err();
    assert!(matches!(looked, StoreError::Io(_)), "{looked:?}");
    let opened = fixture.tenants.open(&id("two")).await.unwrap_err();
    assert!(matches!(opened, StoreError::Io(_)), "{opened:?}");
    for error in [looked, opened] {
        fixture.tenants.note_unusable(&id("two"), error);
    }
    assert_eq!(fixture.tenants.list_ill(), []);
    std::fs::remove_file(&folder).unwrap();

    let missing = fixture.tenants.check_head(&id("two")).unwrap_err();
    assert!(matches!(missing, StoreError::TenantMissing(_)), "{missing:?}");
    fixture.tenants.note_unusable(&id("two"), missing);
    std::fs::write(fixture.folder.path().join("tenants/one/data.db"), "short").unwrap();
    let short = fixture.tenants.check_head(&id("one")).unwrap_err();
    fixture.tenants.note_unusable(&id("one"), short);
    assert_eq!(fixture.tenants.list_ill(), [id("one"), id("two")]);
}
