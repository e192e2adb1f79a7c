//! The log: its bytes, and that it says everything. Replaying it into an empty file gives the same rows and row clocks.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as expected")]

use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;
use tenantry::kernel::clock::{Hlc, ManualClock};
use tenantry::kernel::ident::{CollectionId, FieldNumber, NodeId, OriginUid, RecordId, TenantId};
use tenantry::kernel::random::SeededRandom;
use tenantry::kernel::value::Stored;
use tenantry::schema::plan::{self, PlanContext};
use tenantry::schema::record::RecordImage;
use tenantry::schema::{Collection, definition};
use tenantry::store::{
    Frame, LogOp, OriginSeen, ReplayTarget, SchemaChange, StoreError, StoreOptions, TenantDb, Tenants, WriteMeta,
    WriteTx, decode_frame, describe_in_scratch, encode_frame, replay,
};

fn stored() -> impl Strategy<Value = Stored> {
    prop_oneof![
        Just(Stored::Null),
        any::<i64>().prop_map(Stored::Integer),
        (-1e12_f64..1e12).prop_map(Stored::Real),
        ".{0,12}".prop_map(Stored::from),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(|bytes| Stored::Blob(Arc::from(bytes))),
    ]
}

fn image() -> impl Strategy<Value = RecordImage> {
    ("[a-z0-9]{1,15}", prop::collection::vec((1_u32..500, stored()), 0..5)).prop_map(|(id, values)| {
        RecordImage::new(
            RecordId::parse(&id).unwrap(),
            values.into_iter().map(|(number, value)| (FieldNumber(number), value)),
        )
    })
}

fn op() -> impl Strategy<Value = LogOp> {
    let collection = || "[a-z_0-9]{1,10}".prop_map(|id| CollectionId::parse(&id).unwrap());
    let record = || "[a-z0-9]{1,15}".prop_map(|id| RecordId::parse(&id).unwrap());
    let field = || any::<u32>().prop_map(FieldNumber);
    prop_oneof![
        (collection(), image()).prop_map(|(collection, record)| LogOp::New { collection, record }),
        (collection(), record(), field(), stored(), stored())
            .prop_map(|(collection, id, field, value, before)| LogOp::Set { collection, id, field, value, before }),
        (collection(), record(), field(), -1e9_f64..1e9, stored())
            .prop_map(|(collection, id, field, delta, before)| LogOp::Inc { collection, id, field, delta, before }),
        (collection(), image()).prop_map(|(collection, before)| LogOp::Del { collection, before }),
        (collection(), image()).prop_map(|(collection, record)| LogOp::Undel { collection, record }),
        (any::<i64>(), prop::collection::vec(".{0,20}", 0..3), collection(), prop::option::of(".{0,20}")).prop_map(
            |(version, ddl, id, after)| LogOp::Schema(SchemaChange { version, ddl, changed: vec![(id, None, after)] })
        ),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let context = prop::collection::vec((any::<[u8; 16]>(), any::<i64>(), any::<i64>()), 0..3);
    (
        any::<[u8; 16]>(),
        any::<i64>(),
        any::<i64>(),
        any::<[u8; 32]>(),
        context,
        any::<(i64, i64)>(),
        ".{0,20}",
        prop::option::of("[0-9.]{0,15}"),
        prop::collection::vec(op(), 0..6),
    )
        .prop_map(|(origin, seq, hlc, prev_chain, context, (epoch, schema), actor, ip, ops)| Frame {
            origin: OriginUid(origin),
            seq,
            hlc: Hlc::from_i64(hlc),
            prev_chain,
            context: context
                .into_iter()
                .map(|(uid, seq, hlc)| OriginSeen { uid: OriginUid(uid), seq, hlc: Hlc::from_i64(hlc) })
                .collect(),
            epoch,
            schema,
            request_id: Arc::from(actor.as_str()),
            actor: Arc::from(actor),
            ip: ip.map(Arc::from),
            ops,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn a_record_is_read_as_it_was_written(frame in frame()) {
        prop_assert_eq!(decode_frame(&encode_frame(&frame)).unwrap(), frame);
    }

    #[test]
    fn damage_is_noticed_and_never_a_panic(frame in frame(), at in any::<prop::sample::Index>(), flip in 1_u8..=255, cut in any::<prop::sample::Index>()) {
        let bytes = encode_frame(&frame);
        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= flip;
        prop_assert!(decode_frame(&flipped).is_err());
        prop_assert!(decode_frame(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn content_that_passes_the_checksum_but_is_no_record_is_refused(frame in frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode_frame(&frame);
        let place = 8 + at.index(bytes.len() - 8);
        bytes[place] = byte;
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        // Another valid record is possible; a panic or an allocation without bound is not.
        let _ = decode_frame(&bytes);
    }
}

/// One action of a generated history.
#[derive(Debug, Clone)]
enum Action {
    Insert(u8, u8),
    Title(u8, u8),
    Score(u8, i8),
    Add(u8, i8),
    Delete(u8),
    /// Deletes a record and makes another with its id, within one transaction.
    Replace(u8, u8),
    /// Two records trade their unique titles within one transaction.
    Swap(u8, u8),
    AddField,
}

fn action() -> impl Strategy<Value = Action> {
    let id = 0_u8..6;
    prop_oneof![
        4 => (id.clone(), any::<u8>()).prop_map(|(id, title)| Action::Insert(id, title)),
        2 => (id.clone(), any::<u8>()).prop_map(|(id, title)| Action::Title(id, title)),
        2 => (id.clone(), any::<i8>()).prop_map(|(id, score)| Action::Score(id, score)),
        2 => (id.clone(), any::<i8>()).prop_map(|(id, delta)| Action::Add(id, delta)),
        1 => id.clone().prop_map(Action::Delete),
        2 => (id.clone(), any::<u8>()).prop_map(|(id, title)| Action::Replace(id, title)),
        2 => (id.clone(), id).prop_map(|(a, b)| Action::Swap(a, b)),
        1 => Just(Action::AddField),
    ]
}

fn body() -> serde_json::Value {
    json!({
        "name": "notes", "type": "base",
        "fields": [{"name": "title", "type": "text"}, {"name": "score", "type": "number"}],
        "indexes": ["CREATE UNIQUE INDEX idx_title ON notes (title)"],
    })
}

fn perform(tx: &mut WriteTx<'_>, action: &Action) -> Result<(), StoreError> {
    let random = SeededRandom::new(5);
    let context = PlanContext { random: &random, now_ms: tx.now_ms(), describe: &describe_in_scratch };
    if let Action::AddField = action {
        let notes = tx.schema().find("notes").unwrap();
        let mut wire = definition::to_wire(notes);
        let name = format!("extra{}", notes.fields.len());
        wire["fields"].as_array_mut().unwrap().push(json!({"name": name, "type": "json"}));
        let input = definition::parse(&wire).unwrap();
        let plan = plan::plan_update(tx.schema(), "notes", &input, &context).unwrap();
        return tx.apply_schema(&plan);
    }
    let notes: Arc<Collection> = tx.schema().find("notes").unwrap().clone();
    let number = |name: &str| notes.find_field(name).unwrap().number;
    let (title, score) = (number("title"), number("score"));
    let id = |number: &u8| RecordId::parse(&format!("r{number}")).unwrap();
    let text = |number: &u8| Stored::from(format!("title {number}"));
    match action {
        Action::Insert(record, name) => {
            let image = RecordImage::new(id(record), [(title, text(name)), (score, Stored::Real(1.0))]);
            tx.insert(&notes, &image)
        }
        Action::Title(record, name) => tx.update(&notes, &id(record), &[(title, text(name))]),
        Action::Score(record, value) => tx.update(&notes, &id(record), &[(score, Stored::Real(f64::from(*value)))]),
        Action::Add(record, delta) => tx.increment(&notes, &id(record), score, f64::from(*delta)),
        Action::Delete(record) => tx.delete(&notes, &id(record)),
        Action::Replace(record, name) => {
            tx.delete(&notes, &id(record))?;
            tx.insert(&notes, &RecordImage::new(id(record), [(title, text(name)), (score, Stored::Real(2.0))]))
        }
        Action::Swap(a, b) if a != b => {
            let of = |tx: &WriteTx<'_>, record: &u8| {
                let found = tx.find_record(&notes, id(record).as_str())?;
                Ok::<_, StoreError>(found.and_then(|image| image.get(title).cloned()))
            };
            let (Some(first), Some(second)) = (of(tx, a)?, of(tx, b)?) else { return Ok(()) };
            tx.update(&notes, &id(a), &[(title, Stored::from("in between"))])?;
            tx.update(&notes, &id(b), &[(title, first)])?;
            tx.update(&notes, &id(a), &[(title, second)])
        }
        _ => Ok(()),
    }
}

async fn write(tenant: &TenantDb, actions: Vec<Action>) {
    let result = tenant
        .write(WriteMeta::system("history"), move |tx| actions.iter().try_for_each(|action| perform(tx, action)))
        .await;
    match result {
        Ok(_) | Err(StoreError::Unique { .. } | StoreError::RecordMissing { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

async fn history(transactions: Vec<(Vec<Action>, i64)>, restart_at: usize) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let options = || {
        StoreOptions::new(folder.path().to_path_buf(), NodeId([1; 16]), clock.clone(), Arc::new(SeededRandom::new(1)))
    };
    let id = TenantId::parse("one").unwrap();
    let mut tenants = Tenants::start(options()).unwrap();
    let mut tenant = tenants.create(&id).await.unwrap();
    let random = SeededRandom::new(5);
    let context = PlanContext { random: &random, now_ms: 1, describe: &describe_in_scratch };
    let plan = plan::plan_create(&tenant.schema(), &definition::parse(&body()).unwrap(), &context).unwrap();
    tenant.write::<_, StoreError, _>(WriteMeta::system("setup"), move |tx| tx.apply_schema(&plan)).await.unwrap();
    for (index, (actions, jump)) in transactions.into_iter().enumerate() {
        if index == restart_at {
            drop(tenant);
            tenants.shutdown().await;
            tenants = Tenants::start(options()).unwrap();
            tenant = tenants.open(&id).await.unwrap();
        }
        clock.advance_ms(jump);
        write(&tenant, actions).await;
    }
    let log = tenant.changes(0, usize::MAX).await.unwrap();
    assert!(log.windows(2).all(|pair| pair[0].frame.hlc < pair[1].frame.hlc), "stamps rise");
    assert!(log.iter().zip(1..).all(|(tx, lsn)| tx.lsn == lsn && tx.frame.seq == lsn), "no gaps");
    for tx in &log {
        let mut seen = std::collections::HashSet::new();
        let schema_changed = tx.frame.ops.iter().any(|op| matches!(op, LogOp::Schema(_)));
        let once = tx.frame.ops.iter().all(|op| match op {
            LogOp::Set { id, field, .. } | LogOp::Inc { id, field, .. } => seen.insert((id.clone(), *field)),
            _ => true,
        });
        assert!(once || schema_changed, "at most one operation per record and field");
        // The two share a clock, so their place in the record is what orders them, everywhere alike.
        for (at, op) in tx.frame.ops.iter().enumerate() {
            let LogOp::Del { before, .. } = op else { continue };
            let again = |op: &LogOp| matches!(op, LogOp::New { record, .. } if record.id == before.id);
            assert!(schema_changed || !tx.frame.ops[..at].iter().any(again), "a deletion stands before its successor");
        }
    }
    let mut target = ReplayTarget::create(&folder.path().join("replayed.db")).unwrap();
    assert_eq!(replay(&mut target, &log).unwrap(), u64::try_from(log.len()).unwrap());
    assert_eq!(replay(&mut target, &log).unwrap(), 0, "applying again changes nothing");
    assert_eq!(*target.schema(), *tenant.schema());
    let collection = target.schema().find("notes").unwrap().clone();
    let replayed = target.records(&collection).unwrap();
    drop(tenant);
    tenants.shutdown().await;
    let path = folder.path().join("tenants/one/data.db");
    assert_eq!(replayed, ReplayTarget::open(&path).unwrap().records(&collection).unwrap());
    let report = tenantry::store::check_file(folder.path(), &id).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn replaying_the_log_gives_the_same_tables(
        transactions in prop::collection::vec((prop::collection::vec(action(), 1..6), -100_000_i64..100_000), 1..25),
        restart_at in 0_usize..25,
    ) {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap()
            .block_on(history(transactions, restart_at));
    }
}
