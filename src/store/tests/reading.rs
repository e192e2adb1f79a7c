//! Snapshots, budgets, what read connections refuse, and schema changes under readers.

use super::support::*;
use crate::kernel::limits;
use crate::kernel::value::{Cell, Stored};
use crate::query::functions::SqlFunction;
use crate::schema::Collection;
use crate::store::{Reader, SlowQuery, SlowQuerySink, StoreError, TenantDb, WriteTx, assert_sqlite};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const ENDLESS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";

#[test]
fn the_linked_sqlite_is_the_one_we_asked_for() {
    assert_sqlite().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_read_sees_one_state_while_writes_go_on() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let (sql, writer, collection) = (format!("SELECT count(*) FROM {}", notes.table()), tenant.clone(), notes.clone());
    let handle = tokio::runtime::Handle::current();
    let counts: Vec<Stored> = tokio::task::spawn_blocking(move || {
        writer.read_blocking(|reader| {
            let counted = || reader.find_one(&sql, &[], |row| row.stored(0)).map(Option::unwrap);
            let before = counted()?;
            handle.block_on(insert(&writer, &collection, "a", "first"))?;
            Ok::<_, StoreError>(vec![before, counted()?])
        })
    })
    .await
    .unwrap()
    .unwrap();
    assert_eq!(counts, [Stored::Integer(0), Stored::Integer(0)]);
    assert_eq!(count(&tenant, &notes).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_after_an_acknowledgement_sees_the_write() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    for index in 0..100 {
        let name = format!("n{index}");
        let written = insert(&tenant, &notes, &name, &name).await.unwrap();
        assert_eq!(count(&tenant, &notes).await, index + 1);
        let lsn: Result<_, StoreError> = tenant.read(|reader| Ok(reader.lsn())).await;
        assert_eq!(lsn.unwrap(), written.lsn);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_reused_until_something_is_written() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    turn_over(&tenant);
    count(&tenant, &notes).await;
    let before = fixture.tenants.stats().snapshots_renewed;
    for _ in 0..10 {
        count(&tenant, &notes).await;
    }
    assert_eq!(fixture.tenants.stats().snapshots_renewed, before);
    insert(&tenant, &notes, "a", "first").await.unwrap();
    turn_over(&tenant);
    assert_eq!(count(&tenant, &notes).await, 1);
    assert_eq!(fixture.tenants.stats().snapshots_renewed, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_records_is_that_of_the_snapshot() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let (asked, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (tenant, notes) = (tenant.clone(), notes.clone());
            let (asked, stop) = (Arc::clone(&asked), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (known, counted) = both_counts(&tenant, &notes).await;
                    assert_eq!(known, counted);
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 0..300_i64 {
        let notes = notes.clone();
        let done = tenant.write(meta(), move |tx: &mut WriteTx<'_>| {
            let own = |at: i64| (record_id(&format!("n{at}")), note(&notes, &format!("n{at}"), &format!("n{at}"), 1.0));
            tx.insert(&notes, &own(round).1)?;
            assert_eq!(tx.count_records(&notes)?, count_inside(tx, &notes)?, "a write sees itself");
            match round % 7 {
                1 => tx.delete(&notes, &own(round - 1).0)?,
                // Comes and goes; goes and comes again.
                2 => tx.delete(&notes, &own(round).0)?,
                3 => {
                    tx.delete(&notes, &own(round).0)?;
                    tx.insert(&notes, &own(round).1)?;
                }
                4 => return Err(StoreError::Busy),
                5 => tx.dry_run(),
                _ => {}
            }
            Ok(())
        });
        assert_eq!(done.await.is_err(), round % 7 == 4);
        if round == 150 {
            let plan = plan_notes(&tenant.schema(), "others");
            tenant.write(meta(), move |tx| tx.apply_schema(&plan)).await.unwrap();
        }
    }
    until(|| asked.load(Ordering::Relaxed) > 100).await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    turn_over(&tenant);
    let (known, counted) = both_counts(&tenant, &notes).await;
    assert_eq!((known, counted), (counted, 300 - 4 * 43));
    // What was not counted anew moved with the commits.
    insert(&tenant, &notes, "last", "last").await.unwrap();
    let lsn: Result<_, StoreError> = tenant.read(|reader| Ok(reader.lsn())).await;
    assert_eq!(tenant.inner().counts().find(&notes.id, lsn.unwrap()), Some(counted + 1));
}

/// What the reader knows, and what SQLite counts, in one snapshot.
async fn both_counts(tenant: &TenantDb, notes: &Arc<Collection>) -> (i64, i64) {
    let notes = Arc::clone(notes);
    let read =
        move |reader: &Reader<'_>| Ok::<_, StoreError>((reader.count_records(&notes)?, count_inside(reader, &notes)?));
    tenant.read(read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_does_too_much_is_stopped() {
    let fixture = fixture_with(|options| options.read_steps_max = 2_000_000);
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let endless = || tenant.read(|reader| reader.find_one(ENDLESS, &[], |row| row.stored(0)));
    let stopped: Result<_, StoreError> = endless().await;
    assert!(matches!(stopped, Err(StoreError::TooExpensive)), "{stopped:?}");
    let again: Result<_, StoreError> = endless().await;
    assert!(matches!(again, Err(StoreError::TooExpensive)));
    assert_eq!(count(&tenant, &notes).await, 0, "the connection is usable afterwards");
    let written: Result<crate::store::Written<()>, StoreError> =
        tenant.write(meta(), |tx| tx.find_one(ENDLESS, &[], |_| Ok(())).map(|_| ())).await;
    assert!(matches!(written, Err(StoreError::TooExpensive)), "writers read under a budget too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_past_its_deadline_or_without_a_listener_is_stopped() {
    let fixture = fixture_with(|options| options.read_deadline = Duration::from_millis(50));
    let (tenant, _) = tenant_with_notes(&fixture, "one").await;
    let stopped: Result<_, StoreError> = tenant.read(|reader| reader.find_one(ENDLESS, &[], |row| row.stored(0))).await;
    assert!(matches!(stopped, Err(StoreError::TooExpensive)));

    let patient = fixture_with(|options| options.read_deadline = Duration::from_secs(600));
    let (tenant, _) = tenant_with_notes(&patient, "one").await;
    let reading = {
        let tenant = tenant.clone();
        tokio::spawn(async move {
            let _: Result<_, StoreError> =
                tenant.read(|reader| reader.find_one(ENDLESS, &[], |row| row.stored(0))).await;
        })
    };
    while tenant.stats().readers_busy == 0 {
        tokio::task::yield_now().await;
    }
    reading.abort();
    while tenant.stats().readers_busy > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_connections_refuse_whatever_is_not_a_read_of_records() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let table = notes.table();
    for sql in [
        format!("DELETE FROM {table}"),
        format!("UPDATE {table} SET id = 'x'"),
        format!("DROP TABLE {table}"),
        "ATTACH DATABASE ':memory:' AS other".to_owned(),
        "PRAGMA journal_mode".to_owned(),
        "PRAGMA user_version = 9".to_owned(),
        "SELECT value FROM _tn_meta".to_owned(),
        "SELECT count(*) FROM _tn_tx".to_owned(),
        "SELECT sql FROM sqlite_schema".to_owned(),
        "SELECT * FROM pragma_table_list".to_owned(),
        "SELECT count(*) FROM pragma_database_list".to_owned(),
        "SELECT load_extension('x')".to_owned(),
        "CREATE TEMP TABLE t (x)".to_owned(),
        "ROLLBACK".to_owned(),
        "VACUUM".to_owned(),
    ] {
        let text = sql.clone();
        let result: Result<(), StoreError> =
            tenant.read(move |reader| reader.for_each(&text, &[], &mut |_| Ok(()))).await;
        assert!(matches!(result, Err(StoreError::Refused(_) | StoreError::Sql(_))), "{sql}: {result:?}");
    }
    for sql in [
        format!("SELECT count(*) FROM {table}"),
        format!("WITH w AS (SELECT id FROM {table}) SELECT count(*) FROM w"),
        "SELECT count(*) FROM json_each('[1,2]') WHERE value > 1".to_owned(),
        format!("SELECT lower(id) FROM {table} WHERE EXISTS (SELECT 1 FROM {table})"),
    ] {
        let text = sql.clone();
        let result: Result<(), StoreError> =
            tenant.read(move |reader| reader.for_each(&text, &[], &mut |_| Ok(()))).await;
        assert!(result.is_ok(), "{sql}: {result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_meets_a_new_schema_with_fresh_statements() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    insert(&tenant, &notes, "a", "first").await.unwrap();
    let seen: Result<_, StoreError> = tenant.read(|reader| Ok(reader.schema().version())).await;
    let before = seen.unwrap();
    let plan = plan_notes(&tenant.schema(), "more");
    tenant
        .write::<_, StoreError, _>(meta(), move |tx: &mut WriteTx<'_>| {
            tx.apply_schema(&plan)?;
            let more = tx.schema().find("more").unwrap().clone();
            tx.insert(&more, &note(&more, "x", "in the same transaction", 1.0))
        })
        .await
        .unwrap();
    let seen: Result<_, StoreError> = tenant
        .read(|reader| {
            let more = reader.schema().find("more").unwrap().clone();
            Ok((reader.schema().version(), reader.find_record(&more, "x")?.is_some()))
        })
        .await;
    assert_eq!(seen.unwrap(), (before + 1, true));
    let failed: Result<crate::store::Written<()>, StoreError> = tenant
        .write(meta(), |tx: &mut WriteTx<'_>| {
            let plan = plan_notes(tx.schema(), "third");
            tx.apply_schema(&plan)?;
            Err(StoreError::Busy)
        })
        .await;
    assert!(failed.is_err());
    assert!(tenant.schema().find("third").is_none(), "an undone schema change is not seen");
    insert(&tenant, &notes, "b", "second").await.unwrap();
    assert_eq!(tenant.schema().version(), before + 1);
}

fn double(cells: &[Cell<'_>]) -> Stored {
    match cells {
        [Cell::Integer(value)] => Stored::Integer(value * 2),
        _ => Stored::Null,
    }
}

#[derive(Default)]
struct Slow(Mutex<Vec<(String, u64)>>);

impl SlowQuerySink for Slow {
    fn slow(&self, slow: &SlowQuery<'_>) {
        self.0.lock().push((slow.sql.to_owned(), slow.rows));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_the_query_layer_and_the_slow_query_hook_are_there_on_both_sides() {
    let slow = Arc::new(Slow::default());
    let sink = Arc::clone(&slow);
    let fixture = fixture_with(move |options| {
        options.functions = vec![SqlFunction { name: "tn_double", arity: 1, call: double }];
        options.slow_queries = Some(sink);
        options.slow_query = Duration::ZERO;
    });
    let (tenant, _) = tenant_with_notes(&fixture, "one").await;
    let sql = "SELECT tn_double(?1)";
    let read: Result<_, StoreError> =
        tenant.read(move |reader| reader.find_one(sql, &[Stored::Integer(21)], |row| row.stored(0))).await;
    assert_eq!(read.unwrap(), Some(Stored::Integer(42)));
    let written: Result<_, StoreError> =
        tenant.write(meta(), move |tx| tx.find_one(sql, &[Stored::text("x")], |row| row.stored(0))).await;
    assert_eq!(written.unwrap().value, Some(Stored::Null));
    let each: Result<(), StoreError> =
        tenant.read(move |reader| reader.for_each(sql, &[Stored::Integer(1)], &mut |_| Ok(()))).await;
    each.unwrap();
    assert_eq!(*slow.0.lock(), [(sql.to_owned(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_file_does_not_grow_with_idle_readers() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let text = "x".repeat(20_000);
    for index in 0..600 {
        let (collection, name) = (Arc::clone(&notes), format!("n{}", index % 20));
        let title = format!("{index}{text}");
        tenant
            .write::<_, StoreError, _>(meta(), move |tx| {
                let id = record_id(&name);
                if tx.find_record(&collection, &name)?.is_some() {
                    tx.delete(&collection, &id)?;
                }
                tx.insert(&collection, &note(&collection, &name, &title, 1.0))
            })
            .await
            .unwrap();
        if index % 10 == 0 {
            count(&tenant, &notes).await;
        }
    }
    let wal = tenant.stats().wal_bytes;
    assert!(wal < 24 * 1024 * 1024, "the write-ahead log has {wal} bytes");
    assert!(fixture.tenants.stats().checkpoints > 0);
}

/// Writes until `frames` went through the write-ahead log, beside three readers that ask `sql` again and again.
async fn largest_log_beside_readers(sql: &'static str, frames: u64) -> u64 {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (tenant, over) = (tenant.clone(), Arc::clone(&over));
            tokio::task::spawn_blocking(move || {
                while !over.load(Ordering::Relaxed) {
                    let asked: Result<_, StoreError> =
                        tenant.read_blocking(|reader| reader.find_one(sql, &[], |row| row.stored(0)));
                    asked.unwrap();
                }
            })
        })
        .collect();
    let text = "x".repeat(400_000);
    // A row takes its pages once for the table, once for the index and once for the log.
    let pages_per_row = 3 * 400_000 / 4_096;
    for index in 0..frames / pages_per_row {
        insert(&tenant, &notes, &format!("n{index}"), &format!("{index}{text}")).await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    turn_over(&tenant);
    fixture.tenants.stats().wal_frames_max
}

/// A snapshot that was begun right after a commit stood in the log until the next one, which then could not begin it anew.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_begins_anew_while_readers_never_rest() {
    let largest = largest_log_beside_readers("SELECT 1", 40_000).await;
    assert!(largest < 24_000, "the write-ahead log had {largest} frames");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_overlap_are_held_up_before_the_log_grows_without_end() {
    // Some ten milliseconds each, so that the short waits find somebody in the way.
    let slow =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100000) SELECT count(*) FROM n";
    let largest = largest_log_beside_readers(slow, 40_000).await;
    assert!(largest < 24_000, "the write-ahead log had {largest} frames");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_does_not_end_costs_writers_a_checkpoint_per_stretch_of_log_and_not_per_group() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let (begun, waits) = std::sync::mpsc::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let reading = tenant.clone();
    let read = tokio::task::spawn_blocking(move || {
        let held: Result<_, StoreError> = reading.read_blocking(|reader| {
            let found = reader.find_one("SELECT 1", &[], |row| row.stored(0));
            begun.send(()).unwrap();
            let _ = ends.recv();
            found
        });
        held.unwrap();
    });
    tokio::task::spawn_blocking(move || waits.recv().unwrap()).await.unwrap();
    let text = "x".repeat(400_000);
    for index in 0..20 {
        insert(&tenant, &notes, &format!("n{index}"), &format!("{index}{text}")).await.unwrap();
    }
    for index in 20..120 {
        insert(&tenant, &notes, &format!("n{index}"), &format!("{index}")).await.unwrap();
    }
    turn_over(&tenant);
    let stats = fixture.tenants.stats();
    assert!(stats.wal_frames_max > 4_000, "{} frames are too few to try", stats.wal_frames_max);
    assert!((1..=2).contains(&stats.checkpoints), "{} checkpoints", stats.checkpoints);
    end.send(()).unwrap();
    read.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn full_text_search_works_under_the_guard_and_follows_writes() {
    let fixture = fixture();
    let tenant = fixture.tenants.create(&id("one")).await.unwrap();
    let body = serde_json::json!({"name": "notes", "type": "base", "fields": [
        {"name": "title", "type": "text", "searchable": true}, {"name": "score", "type": "number"}]});
    let input = crate::schema::definition::parse(&body).unwrap();
    let random = crate::kernel::random::SeededRandom::new(3);
    let context =
        crate::schema::plan::PlanContext { random: &random, now_ms: 1, describe: &crate::store::describe_in_scratch };
    let plan = crate::schema::plan::plan_create(&tenant.schema(), &input, &context).unwrap();
    tenant.write::<_, StoreError, _>(meta(), move |tx| tx.apply_schema(&plan)).await.unwrap();
    let notes = tenant.schema().find("notes").unwrap().clone();
    insert(&tenant, &notes, "a", "the quick brown fox").await.unwrap();
    insert(&tenant, &notes, "b", "a lazy dog").await.unwrap();
    let hits = |word: &'static str| {
        let (id, tenant) = (notes.id.clone(), tenant.clone());
        async move {
            let sql = format!(
                "SELECT r.id FROM \"fts_{id}\" s JOIN \"c_{id}\" r ON r._r = s.rowid WHERE \"fts_{id}\" MATCH ?1 \
                 ORDER BY bm25(\"fts_{id}\")"
            );
            let found: Result<_, StoreError> =
                tenant.read(move |reader| reader.find_one(&sql, &[Stored::from(word)], |row| row.stored(0))).await;
            found.unwrap()
        }
    };
    assert_eq!(hits("fox").await, Some(Stored::from("a")));
    let (collection, title) = (notes.clone(), number(&notes, "title"));
    let rename = move |tx: &mut WriteTx<'_>| {
        tx.update(&collection, &record_id("a"), &[(title, Stored::from("a slow cat"))])?;
        tx.delete(&collection, &record_id("b"))
    };
    tenant.write::<_, StoreError, _>(meta(), rename).await.unwrap();
    assert_eq!((hits("fox").await, hits("dog").await), (None, None));
    assert_eq!(hits("cat").await, Some(Stored::from("a")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_panics_has_the_tenant_checked_and_leaves_the_connection_guarded() {
    let fixture = fixture_with(|options| options.readers_max = 1);
    let (tenant, _) = tenant_with_notes(&fixture, "one").await;
    turn_over(&tenant);
    for _ in 0..3 {
        let tenant = tenant.clone();
        let read = tokio::spawn(async move {
            let _: Result<(), StoreError> =
                tenant.read(|reader| reader.as_system(|_| -> Result<(), StoreError> { panic!("on purpose") })).await;
        });
        let _ = read.await;
    }
    until(|| fixture.tenants.stats().panic_checks == 1).await;
    assert_eq!(fixture.tenants.stats().panics, 3);
    let secret: Result<_, StoreError> =
        tenant.read(|reader| reader.find_one("SELECT value FROM _tn_meta", &[], |row| row.stored(0))).await;
    assert!(matches!(secret, Err(StoreError::Refused(_))), "{secret:?}");
    fixture.clock.advance_ms(limits::PANIC_CHECK_EVERY_MS);
    let _: Result<crate::store::Written<()>, StoreError> = tenant.write(meta(), |_| panic!("on purpose")).await;
    until(|| fixture.tenants.stats().panic_checks == 2).await;
}

/// Every read that was not quick took a thread of the node's pool and waited there for a connection, so that one busy
/// tenant left no thread to anybody else: to their reads, to opening their files, to hashing passwords.
#[test]
fn one_tenants_slow_reads_leave_the_threads_to_the_others() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).max_blocking_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let fixture = fixture_with(|options| {
            (options.readers_max, options.read_inline_steps, options.read_steps_max) = (2, 1_000, u64::MAX);
            (options.read_deadline, options.reader_wait) = (Duration::from_secs(600), Duration::from_secs(600));
        });
        let (noisy, _) = tenant_with_notes(&fixture, "noisy").await;
        let (quiet, _) = tenant_with_notes(&fixture, "quiet").await;
        tenant_with_notes(&fixture, "cold").await;
        turn_over(&noisy);
        let endless = || {
            let tenant = noisy.clone();
            Box::pin(async move {
                tenant.read::<_, StoreError, _>(|reader| reader.find_one(ENDLESS, &[], |row| row.stored(0))).await
            })
        };
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut waiting: Vec<_> = (0..2 + limits::READERS_WAITING_MAX).map(|_| endless()).collect();
        for read in &mut waiting {
            assert!(read.as_mut().poll(&mut context).is_pending());
        }
        let refused = endless().await;
        assert!(matches!(refused, Err(StoreError::Busy)), "whoever is too many is told at once: {refused:?}");
        let others = async {
            let sum =
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 20000) SELECT sum(x) FROM n";
            let read: Result<_, StoreError> =
                quiet.read(move |reader| reader.find_one(sum, &[], |row| row.stored(0))).await;
            assert_eq!(read.unwrap(), Some(Stored::Integer(200_010_000)));
            assert!(fixture.tenants.close(&id("cold")).await);
            fixture.tenants.open(&id("cold")).await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(120), others).await.expect("the others are served");
        drop(waiting);
        until(|| noisy.stats().readers_busy == 0).await;
    });
}
