//! Group commit: isolation of requests, order, bounds, fairness, observers, failures of the commit itself.

use super::support::*;
use crate::kernel::clock::Hlc;
use crate::kernel::error::Fault;
use crate::kernel::ident::{OriginUid, TenantId};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::store::{
    Commit, CommitObserver, FaultPoint, Faults, Injected, LogOp, StoreError, TenantDb, TouchOp, WriteTx,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// Occupies a tenant's writer until the returned sender is dropped.
async fn block(tenant: &TenantDb) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let (hold, held) = mpsc::channel::<()>();
    let (started, starting) = tokio::sync::oneshot::channel();
    let tenant = tenant.clone();
    let task = tokio::spawn(async move {
        let done: Result<_, StoreError> = tenant
            .write(meta(), move |_| {
                let _ = started.send(());
                let _ = held.recv();
                Ok(())
            })
            .await;
        done.unwrap();
    });
    starting.await.unwrap();
    (hold, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_write_is_read_and_logged() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let written = insert(&tenant, &notes, "a", "first").await.unwrap();
    assert_eq!(written.lsn, 2, "the schema change is transaction 1");
    let token = written.token.unwrap().to_string();
    assert!(token.starts_with("one.") && token.ends_with(".2"), "{token}");
    assert_eq!(tenant.position(), 2);
    assert_eq!(find(&tenant, &notes, "a").await.unwrap().get(number(&notes, "title")), Some(&Stored::text("first")));
    let log = tenant.changes(0, 10).await.unwrap();
    assert!(matches!(log[0].frame.ops[0], LogOp::Schema(_)));
    assert!(matches!(&log[1].frame.ops[0], LogOp::New { record, .. } if record.id == record_id("a")));
    assert_eq!((log[1].frame.seq, log[1].frame.schema), (2, tenant.schema().version()));
    assert!(log[1].frame.hlc > log[0].frame.hlc);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_logs_what_changed_with_its_before_image() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    insert(&tenant, &notes, "a", "first").await.unwrap();
    let (title, score) = (number(&notes, "title"), number(&notes, "score"));
    let collection = Arc::clone(&notes);
    let change = move |tx: &mut WriteTx<'_>| {
        tx.update(&collection, &record_id("a"), &[(title, Stored::text("first")), (score, Stored::Real(4.0))])?;
        tx.increment(&collection, &record_id("a"), score, 2.0)
    };
    tenant.write::<_, StoreError, _>(meta(), change).await.unwrap();
    let log = tenant.changes(2, 10).await.unwrap();
    assert_eq!(
        log[0].frame.ops,
        vec![LogOp::Set {
            collection: notes.id.clone(),
            id: record_id("a"),
            field: score,
            value: Stored::Real(6.0),
            before: Stored::Real(1.0),
        }]
    );
    assert_eq!(find(&tenant, &notes, "a").await.unwrap().get(score), Some(&Stored::Real(6.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_leaves_no_record() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    insert(&tenant, &notes, "a", "first").await.unwrap();
    let (collection, title) = (Arc::clone(&notes), number(&notes, "title"));
    let same = move |tx: &mut WriteTx<'_>| tx.update(&collection, &record_id("a"), &[(title, Stored::text("first"))]);
    let written = tenant.write::<_, StoreError, _>(meta(), same).await.unwrap();
    assert!(written.token.is_none());
    assert_eq!(tenant.position(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_a_panicking_and_a_dry_request_are_undone_alone() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let (hold, task) = block(&tenant).await;
    let write = |record: &'static str, how: &'static str| {
        let (tenant, notes) = (tenant.clone(), Arc::clone(&notes));
        tokio::spawn(async move {
            tenant
                .write::<_, StoreError, _>(meta(), move |tx| {
                    tx.insert(&notes, &note(&notes, record, record, 1.0))?;
                    match how {
                        "fails" => Err(StoreError::Busy),
                        "panics" => panic!("on purpose"),
                        "dry" => {
                            tx.dry_run();
                            Ok(())
                        }
                        _ => Ok(()),
                    }
                })
                .await
        })
    };
    // The panic last: printing it can take longer than a group may, and the two that go must share one.
    let mut tasks = Vec::new();
    // The first two have nothing before them in the group, the others have.
    let requests =
        [("z", "fails"), ("y", "dry"), ("a", "goes"), ("b", "fails"), ("d", "dry"), ("e", "goes"), ("c", "panics")];
    for (record, how) in requests {
        tasks.push(write(record, how));
        while tenant.stats().queue_len < tasks.len() {
            tokio::task::yield_now().await;
        }
    }
    drop(hold);
    task.await.unwrap();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    for (failing, dry, going) in [(0, 1, 2), (3, 4, 5)] {
        assert!(matches!(results[failing], Err(StoreError::Busy)));
        assert!(results[dry].as_ref().unwrap().token.is_none());
        assert!(results[going].as_ref().unwrap().token.is_some());
    }
    assert!(matches!(&results[6], Err(StoreError::Panicked(why)) if &**why == "on purpose"));
    assert_eq!(count(&tenant, &notes).await, 2);
    let stats = fixture.tenants.stats();
    assert_eq!((stats.panics, stats.group_len_max), (1, 2));
    until(|| fixture.tenants.stats().panic_checks == 1).await;
    let sequences: Vec<i64> = tenant.changes(1, 10).await.unwrap().iter().map(|tx| tx.frame.seq).collect();
    assert_eq!(sequences, [2, 3], "undone requests leave no gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let (hold, task) = block(&tenant).await;
    let mut waiting = Vec::new();
    for index in 0..limits::WRITE_QUEUE_LEN_MAX {
        let (tenant, notes) = (tenant.clone(), Arc::clone(&notes));
        let name = format!("n{index}");
        waiting.push(tokio::spawn(async move { insert(&tenant, &notes, &name, &name).await }));
    }
    while tenant.stats().queue_len < limits::WRITE_QUEUE_LEN_MAX {
        tokio::task::yield_now().await;
    }
    let refused = insert(&tenant, &notes, "late", "late").await.unwrap_err();
    assert!(matches!(refused, StoreError::QueueFull));
    assert_eq!(refused.retry_after_s(), Some(1));
    drop(hold);
    task.await.unwrap();
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    assert_eq!(count(&tenant, &notes).await, i64::try_from(limits::WRITE_QUEUE_LEN_MAX).unwrap());
    let stats = fixture.tenants.stats();
    assert!(stats.commits < 100, "{} commits for {} requests", stats.commits, limits::WRITE_QUEUE_LEN_MAX);
    assert!(stats.group_len_max <= limits::GROUP_COMMIT_LEN_MAX as u64);
}

/// A batch or a piece of an import may run for seconds: it has one thread, and what its own tenant queues waits behind it.
#[tokio::test(flavor = "multi_thread")]
async fn one_long_write_leaves_the_other_threads_to_the_other_tenants() {
    let fixture = fixture();
    let (long, long_notes) = tenant_with_notes(&fixture, "long").await;
    let (hold, task) = block(&long).await;
    let behind = tokio::spawn({
        let long = long.clone();
        async move { insert(&long, &long_notes, "behind", "behind").await }
    });
    let others = async {
        for name in ["one", "two", "three"] {
            let (tenant, notes) = tenant_with_notes(&fixture, name).await;
            for n in 0..20 {
                insert(&tenant, &notes, &format!("n{n}"), &format!("n{n}")).await.unwrap();
            }
            assert_eq!(count(&tenant, &notes).await, 20);
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), others).await.expect("acknowledged beside the long write");
    assert!(!task.is_finished() && !behind.is_finished(), "the long write was under way all the while");
    drop(hold);
    task.await.unwrap();
    behind.await.unwrap().unwrap();
}

/// As many long writes as there were threads kept every other tenant waiting until one of them ended.
#[tokio::test(flavor = "multi_thread")]
async fn long_writes_on_every_thread_keep_no_other_tenant_waiting_for_their_end() {
    let threads = 2;
    let fixture = fixture_with(|options| options.writer_threads = threads);
    let mut long = Vec::new();
    let small = async {
        for number in 0..threads * 2 {
            let (tenant, _) = tenant_with_notes(&fixture, &format!("long{number}")).await;
            long.push((block(&tenant).await, tenant));
        }
        let (other, notes) = tenant_with_notes(&fixture, "other").await;
        for n in 0..20 {
            insert(&other, &notes, &format!("n{n}"), &format!("n{n}")).await.unwrap();
        }
        (other, notes)
    };
    let small = tokio::time::timeout(std::time::Duration::from_secs(60), small).await;
    let (other, notes) = small.expect("acknowledged beside the long writes");
    assert_eq!(other.inner().writers().helpers(), long.len() - threads + 1, "no more than wait");
    for ((hold, task), tenant) in long {
        assert!(!task.is_finished(), "the long write was under way all the while");
        drop(hold);
        task.await.unwrap();
        drop(tenant);
    }
    assert_eq!(count(&other, &notes).await, 20);
    fixture.tenants.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_tenant_does_not_keep_the_thread_from_another() {
    let fixture = fixture_with(|options| options.writer_threads = 1);
    let (busy, notes) = tenant_with_notes(&fixture, "busy").await;
    let (calm, calm_notes) = tenant_with_notes(&fixture, "calm").await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let (hold, task) = block(&busy).await;
    let mut tasks = Vec::new();
    for index in 0..limits::GROUP_COMMIT_LEN_MAX * 3 {
        let (busy, notes, order) = (busy.clone(), Arc::clone(&notes), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let name = format!("n{index}");
            let image = note(&notes, &name, &name, 1.0);
            let write = move |tx: &mut WriteTx<'_>| {
                order.lock().push("busy");
                tx.insert(&notes, &image)
            };
            busy.write::<_, StoreError, _>(meta(), write).await.unwrap();
        }));
    }
    while busy.stats().queue_len < limits::GROUP_COMMIT_LEN_MAX * 3 {
        tokio::task::yield_now().await;
    }
    let log = Arc::clone(&order);
    let (writer, collection) = (calm.clone(), Arc::clone(&calm_notes));
    tasks.push(tokio::spawn(async move {
        let image = note(&collection, "x", "x", 1.0);
        let write = move |tx: &mut WriteTx<'_>| {
            log.lock().push("calm");
            tx.insert(&collection, &image)
        };
        writer.write::<_, StoreError, _>(meta(), write).await.unwrap();
    }));
    while calm.stats().queue_len < 1 {
        tokio::task::yield_now().await;
    }
    drop(hold);
    task.await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let place = order.lock().iter().position(|who| *who == "calm").unwrap();
    assert!(place <= limits::GROUP_COMMIT_LEN_MAX, "the calm tenant came after {place} requests of the busy one");
}

#[derive(Default)]
struct Recorder {
    commits: Mutex<Vec<Commit>>,
    panics: AtomicBool,
    seen: AtomicUsize,
}

impl CommitObserver for Recorder {
    fn committed(&self, _tenant: &TenantId, commit: &Commit) {
        self.seen.fetch_add(1, Ordering::SeqCst);
        self.commits.lock().push(commit.clone());
        assert!(!self.panics.load(Ordering::SeqCst), "an observer that panics");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_hear_of_a_commit_before_the_caller_does_and_may_panic() {
    let recorder = Arc::new(Recorder::default());
    let observer = Arc::clone(&recorder);
    let fixture = fixture_with(move |options| options.observers.push(observer));
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    assert!(recorder.commits.lock()[0].schema_changed);
    insert(&tenant, &notes, "a", "first").await.unwrap();
    assert_eq!(recorder.seen.load(Ordering::SeqCst), 2, "told by the time of the acknowledgement");
    {
        let commits = recorder.commits.lock();
        assert_eq!((commits[1].lsn_first, commits[1].lsn_last), (2, 2));
        let touch = &commits[1].touches[0];
        assert_eq!((touch.op, touch.lsn, touch.record.as_str()), (TouchOp::Insert, 2, "a"));
    }
    recorder.panics.store(true, Ordering::SeqCst);
    insert(&tenant, &notes, "b", "second").await.unwrap();
    assert_eq!(count(&tenant, &notes).await, 2);
    let collection = notes.id.clone();
    let generation: Result<_, StoreError> = tenant.read(move |reader| reader.generation(&collection, None)).await;
    assert_eq!(generation.unwrap(), 3);
}

#[derive(Debug, Default)]
struct FailingDisk(AtomicBool);

impl Faults for FailingDisk {
    fn at(&self, point: FaultPoint) -> Option<Injected> {
        (point == FaultPoint::BeforeCommit && self.0.load(Ordering::SeqCst)).then_some(Injected::StorageFull)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_fails_everybody_and_leaks_nothing() {
    let disk = Arc::new(FailingDisk::default());
    let faults = Arc::clone(&disk);
    let fixture = fixture_with(move |options| options.faults = faults);
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    insert(&tenant, &notes, "a", "first").await.unwrap();
    disk.0.store(true, Ordering::SeqCst);
    let plan = plan_notes(&tenant.schema(), "more");
    let version = tenant.schema().version();
    let failed: Result<_, StoreError> = tenant.write(meta(), move |tx| tx.apply_schema(&plan)).await;
    assert!(matches!(failed, Err(StoreError::StorageFull)));
    assert!(matches!(insert(&tenant, &notes, "b", "second").await, Err(StoreError::StorageFull)));
    assert_eq!((tenant.schema().version(), tenant.position()), (version, 2));
    assert_eq!(count(&tenant, &notes).await, 1, "reads go on");
    disk.0.store(false, Ordering::SeqCst);
    insert(&tenant, &notes, "b", "second").await.unwrap();
    fixture.tenants.shutdown().await;
    drop(tenant);
    let report = crate::store::check_file(fixture.folder.path(), &id("one")).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.log_len, report.schema_version), (3, version));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_record_with_a_unique_value_is_refused_by_field_name() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    insert(&tenant, &notes, "a", "same").await.unwrap();
    let refused = insert(&tenant, &notes, "b", "same").await.unwrap_err();
    let details = refused.details();
    assert_eq!((details[0].field.as_str(), &*details[0].code), ("title", "validation_not_unique"), "{refused}");
    let refused = insert(&tenant, &notes, "a", "other").await.unwrap_err();
    assert_eq!(refused.details()[0].field, "id");
    let (collection, wanted) = (Arc::clone(&notes), record_id("nobody"));
    let missing: Result<_, StoreError> = tenant.write(meta(), move |tx| tx.delete(&collection, &wanted)).await;
    assert!(matches!(missing, Err(StoreError::RecordMissing { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_kept_with_its_write_and_only_then() {
    let fixture = fixture();
    let (tenant, _) = tenant_with_notes(&fixture, "one").await;
    let failed: Result<crate::store::Written<()>, StoreError> = tenant
        .write(meta(), |tx| {
            tx.save_receipt("key", b"lost")?;
            Err(StoreError::Busy)
        })
        .await;
    assert!(failed.is_err());
    tenant
        .write::<_, StoreError, _>(meta(), |tx| {
            assert_eq!(tx.find_receipt("key")?, None);
            tx.save_receipt("key", b"kept")
        })
        .await
        .unwrap();
    let found: Result<_, StoreError> = tenant.read(|reader| reader.find_receipt("key")).await;
    assert_eq!(found.unwrap().as_deref(), Some(&b"kept"[..]));
    assert_eq!(tenant.position(), 1, "a receipt is no record of the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn stamps_rise_through_a_clock_that_falls_and_a_restart() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let mut last = Hlc::ZERO;
    let mut tenant = tenant;
    for (index, jump) in [0, -86_400_000, 5_000_000, -90_000_000, 1].into_iter().enumerate() {
        fixture.clock.advance_ms(jump);
        let name = format!("n{index}");
        let written = insert(&tenant, &notes, &name, &name).await.unwrap();
        let log = tenant.changes(written.lsn - 1, 1).await.unwrap();
        assert!(log[0].frame.hlc > last);
        last = log[0].frame.hlc;
        drop(tenant);
        assert!(fixture.tenants.close(&id("one")).await);
        tenant = fixture.tenants.open(&id("one")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_another_schema_version_is_refused() {
    let fixture = fixture();
    let (tenant, _) = tenant_with_notes(&fixture, "one").await;
    let (first, second) = (plan_notes(&tenant.schema(), "more"), plan_notes(&tenant.schema(), "other"));
    tenant.write::<_, StoreError, _>(meta(), move |tx| tx.apply_schema(&first)).await.unwrap();
    let late: Result<_, StoreError> = tenant.write(meta(), move |tx| tx.apply_schema(&second)).await;
    assert!(matches!(late, Err(StoreError::SchemaMoved)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_cut_by_age_and_by_size_but_never_entirely() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    for index in 0..20 {
        fixture.clock.advance_ms(1_000);
        let name = format!("n{index}");
        insert(&tenant, &notes, &name, &name).await.unwrap();
    }
    let now = 1_700_000_000_000 + 20_000;
    assert_eq!(tenant.truncate_log(now - 9_500, u64::MAX).await.unwrap(), 11, "the schema change and ten inserts");
    assert_eq!(tenant.changes(0, 100).await.unwrap().len(), 10);
    tenant.truncate_log(0, 0).await.unwrap();
    assert_eq!(tenant.changes(0, 100).await.unwrap().len(), 1);
    insert(&tenant, &notes, "next", "next").await.unwrap();
    assert_eq!(tenant.position(), 22);
    let report = crate::store::check_file(fixture.folder.path(), &id("one")).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_index_that_the_records_do_not_allow_is_refused_in_their_words() {
    let fixture = fixture();
    let tenant = fixture.tenants.create(&id("one")).await.unwrap();
    let plan_for = |schema: &Arc<crate::schema::Schema>, indexes: serde_json::Value| {
        let body = serde_json::json!({"name": "notes", "type": "base", "indexes": indexes, "fields": [
            {"name": "title", "type": "text"}, {"name": "score", "type": "number"}]});
        let random = crate::kernel::random::SeededRandom::new(3);
        let context = crate::schema::plan::PlanContext {
            random: &random,
            now_ms: 1,
            describe: &crate::store::describe_in_scratch,
        };
        match schema.find("notes") {
            None => {
                let input = crate::schema::definition::parse(&body).unwrap();
                crate::schema::plan::plan_create(schema, &input, &context).unwrap()
            }
            Some(_) => {
                let input = crate::schema::definition::parse(&serde_json::json!({"indexes": indexes})).unwrap();
                crate::schema::plan::plan_update(schema, "notes", &input, &context).unwrap()
            }
        }
    };
    let plan = plan_for(&tenant.schema(), serde_json::json!([]));
    tenant.write::<_, StoreError, _>(meta(), move |tx| tx.apply_schema(&plan)).await.unwrap();
    let notes = tenant.schema().find("notes").unwrap().clone();
    insert(&tenant, &notes, "a", "same").await.unwrap();
    insert(&tenant, &notes, "b", "same").await.unwrap();
    let plan = plan_for(&tenant.schema(), serde_json::json!(["CREATE UNIQUE INDEX i ON notes (title)"]));
    let refused: Result<_, StoreError> = tenant.write(meta(), move |tx| tx.apply_schema(&plan)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), crate::kernel::error::Code::SchemaInvalid);
    assert!(refused.public().contains("notes share values of title"), "{}", refused.public());
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_go_by_age_and_a_tidy_file_is_not_written() {
    let fixture = fixture();
    let (tenant, _) = tenant_with_notes(&fixture, "one").await;
    let now = 1_700_000_000_000;
    let save = |key: &'static str| {
        tenant.write::<_, StoreError, _>(meta(), move |tx: &mut WriteTx<'_>| tx.save_receipt(key, b"done"))
    };
    save("old").await.unwrap();
    fixture.clock.advance_ms(10_000);
    save("young").await.unwrap();
    assert_eq!(tenant.prune_receipts(now + 5_000).await.unwrap(), 1);
    let found: Result<_, StoreError> =
        tenant.read(|reader| Ok((reader.find_receipt("old")?, reader.find_receipt("young")?))).await;
    assert_eq!(found.unwrap(), (None, Some(b"done".to_vec())));
    let commits = fixture.tenants.stats().commits;
    assert_eq!(tenant.prune_receipts(now + 5_000).await.unwrap(), 0);
    assert_eq!(tenant.truncate_log(0, u64::MAX).await.unwrap(), 0);
    assert_eq!(fixture.tenants.stats().commits, commits, "nothing was due");
    assert_eq!(fixture.tenants.list_open().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_tampered_with_breaks_the_chain_to_the_next() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    for name in ["a", "b", "c"] {
        insert(&tenant, &notes, name, name).await.unwrap();
    }
    let mut log = tenant.changes(0, 10).await.unwrap();
    let holds = |log: &[crate::store::LoggedTx]| {
        let mut chain = crate::store::ChainWalk::default();
        log.iter().all(|tx| chain.holds(tx))
    };
    assert!(holds(&log));
    let removed: Vec<_> = log.iter().filter(|tx| tx.lsn != 2).cloned().collect();
    assert!(!holds(&removed), "a missing record shows");
    let mut mixed = log.clone();
    mixed[2].frame.origin = OriginUid([9; 16]);
    assert!(!holds(&mixed), "a missing record shows across one of another origin");
    log[1].frame.actor = Arc::from("somebody else");
    assert!(!holds(&log), "a changed record shows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_incremented_twice_in_one_transaction_is_what_its_log_says() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let (score, collection) = (number(&notes, "score"), Arc::clone(&notes));
    let insert = move |tx: &mut WriteTx<'_>| tx.insert(&collection, &note(&collection, "a", "a", 0.1));
    tenant.write::<_, StoreError, _>(meta(), insert).await.unwrap();
    let collection = Arc::clone(&notes);
    let twice = move |tx: &mut WriteTx<'_>| {
        tx.increment(&collection, &record_id("a"), score, 0.2)?;
        tx.increment(&collection, &record_id("a"), score, 0.3)
    };
    tenant.write::<_, StoreError, _>(meta(), twice).await.unwrap();
    // (0.1 + 0.2) + 0.3 is another number than 0.1 + (0.2 + 0.3), which is what a replay of the one operation adds up.
    let log = tenant.changes(2, 1).await.unwrap();
    let LogOp::Inc { delta, before, .. } = &log[0].frame.ops[0] else { panic!("{log:?}") };
    let replayed = Stored::Real(before.as_number().unwrap() + delta);
    assert_eq!(find(&tenant, &notes, "a").await.unwrap().get(score), Some(&replayed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_changes_ends_when_its_bytes_are_many() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let long = "x".repeat(limits::CHANGES_BYTES_MAX / 4);
    for name in ["a", "b", "c", "d", "e", "f"] {
        insert(&tenant, &notes, name, &format!("{name}{long}")).await.unwrap();
    }
    let first = tenant.changes(1, 1_000).await.unwrap();
    assert_eq!(first.len(), 4);
    let rest = tenant.changes(first[3].lsn, 1_000).await.unwrap();
    assert_eq!(rest.len(), 2, "whoever goes on gets the rest");
    let huge = "x".repeat(limits::CHANGES_BYTES_MAX + 1);
    insert(&tenant, &notes, "g", &huge).await.unwrap();
    assert_eq!(tenant.changes(7, 1_000).await.unwrap().len(), 1, "one comes whatever its size");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_cut_to_the_records_that_fit() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    for number in 0..200 {
        insert(&tenant, &notes, &format!("n{number}"), &format!("{number}{}", "x".repeat(1_000))).await.unwrap();
    }
    // A file is looked at by its size, without its log of writes.
    drop(tenant);
    assert!(fixture.tenants.close(&id("one")).await);
    let tenant = fixture.tenants.open(&id("one")).await.unwrap();
    // Each body is 1,000 bytes and a little: 50,000 hold no more than 49 of them.
    assert!(tenant.truncate_log(0, 50_000).await.unwrap() > 140);
    let left = tenant.changes(0, 1_000).await.unwrap();
    assert!((40..50).contains(&left.len()), "{}", left.len());
    assert_eq!(left.last().unwrap().lsn, 201);
    assert_eq!(tenant.truncate_log(0, 50_000).await.unwrap(), 0);
}
