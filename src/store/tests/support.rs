//! What the store's tests share: a store in a temporary folder, one collection, short names for common writes.

use crate::kernel::clock::ManualClock;
use crate::kernel::ident::{FieldNumber, NodeId, RecordId, TenantId};
use crate::kernel::random::SeededRandom;
use crate::kernel::value::Stored;
use crate::schema::plan::{self, Plan, PlanContext};
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema, definition};
use crate::store::{
    Reader, StoreError, StoreOptions, TenantDb, Tenants, WriteMeta, WriteTx, Written, describe_in_scratch,
};
use serde_json::json;
use std::sync::Arc;

/// A store that lives as long as its folder.
pub(super) struct Fixture {
    pub(super) tenants: Arc<Tenants>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) folder: tempfile::TempDir,
}

pub(super) fn options(folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> StoreOptions {
    let random = Arc::new(SeededRandom::new(7));
    let mut options = StoreOptions::new(folder.path().to_path_buf(), NodeId([1; 16]), clock.clone(), random);
    options.writer_threads = 2;
    // A busy machine must not cut a group that a test wants whole.
    options.group_time_max = std::time::Duration::from_secs(600);
    options
}

pub(super) fn fixture_with(change: impl FnOnce(&mut StoreOptions)) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let mut options = options(&folder, &clock);
    change(&mut options);
    Fixture { tenants: Arc::new(Tenants::start(options).unwrap()), clock, folder }
}

pub(super) fn fixture() -> Fixture {
    fixture_with(|_| {})
}

pub(super) fn id(text: &str) -> TenantId {
    TenantId::parse(text).unwrap()
}

pub(super) fn record_id(text: &str) -> RecordId {
    RecordId::parse(text).unwrap()
}

pub(super) fn meta() -> WriteMeta {
    WriteMeta::system("test")
}

/// A plan for one more collection: `title` (unique), `score`, `done`.
pub(super) fn plan_notes(schema: &Arc<Schema>, name: &str) -> Plan {
    let body = json!({
        "name": name, "type": "base", "listRule": "",
        "fields": [{"name": "title", "type": "text"}, {"name": "score", "type": "number"}, {"name": "done", "type": "bool"}],
        "indexes": [format!("CREATE UNIQUE INDEX idx_{name}_title ON {name} (title)")],
    });
    let input = definition::parse(&body).unwrap();
    let random = SeededRandom::new(3);
    let context = PlanContext { random: &random, now_ms: 1, describe: &describe_in_scratch };
    plan::plan_create(schema, &input, &context).unwrap()
}

/// A tenant with the collection `notes`.
pub(super) async fn tenant_with_notes(fixture: &Fixture, name: &str) -> (TenantDb, Arc<Collection>) {
    let tenant = fixture.tenants.create(&id(name)).await.unwrap();
    let plan = plan_notes(&tenant.schema(), "notes");
    tenant.write(meta(), move |tx| tx.apply_schema(&plan)).await.unwrap();
    let notes = tenant.schema().find("notes").unwrap().clone();
    (tenant, notes)
}

pub(super) fn number(collection: &Collection, name: &str) -> FieldNumber {
    collection.find_field(name).unwrap().number
}

pub(super) fn note(collection: &Collection, record: &str, title: &str, score: f64) -> RecordImage {
    RecordImage::new(
        record_id(record),
        [(number(collection, "title"), Stored::text(title)), (number(collection, "score"), Stored::Real(score))],
    )
}

pub(super) async fn insert(
    tenant: &TenantDb,
    notes: &Arc<Collection>,
    record: &str,
    title: &str,
) -> Result<Written<()>, StoreError> {
    let (notes, image) = (Arc::clone(notes), note(notes, record, title, 1.0));
    tenant.write(meta(), move |tx: &mut WriteTx<'_>| tx.insert(&notes, &image)).await
}

/// Waits for something that another thread brings about.
#[expect(clippy::disallowed_methods, reason = "what other threads do cannot be waited on")]
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(120), waiting).await.expect("it never came about");
}

/// Waits until the writer has done what it does after an acknowledgement; it borrows idle read connections for that.
pub(super) fn turn_over(tenant: &TenantDb) {
    drop(tenant.inner().write_state().lock());
}

pub(super) async fn count(tenant: &TenantDb, notes: &Arc<Collection>) -> i64 {
    let notes = Arc::clone(notes);
    tenant.read(move |reader| count_inside(reader, &notes)).await.unwrap()
}

/// What SQLite counts in the reader's snapshot.
pub(super) fn count_inside(reader: &Reader<'_>, notes: &Collection) -> Result<i64, StoreError> {
    let sql = format!("SELECT count(*) FROM \"{}\"", notes.table());
    match reader.find_one(&sql, &[], |row| row.stored(0))? {
        Some(Stored::Integer(count)) => Ok(count),
        other => panic!("no count: {other:?}"),
    }
}

pub(super) async fn find(tenant: &TenantDb, notes: &Arc<Collection>, record: &str) -> Option<RecordImage> {
    let (notes, record) = (Arc::clone(notes), record.to_owned());
    let found: Result<_, StoreError> = tenant.read(move |reader| reader.find_record(&notes, &record)).await;
    found.unwrap()
}
