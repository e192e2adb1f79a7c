//! What a request may do inside the writing transaction: rows with their clocks, schema, receipts, and reading.
//!
//! Keeps true: every change of a row goes through here and is logged with its before-image; what does not change is not
//! logged. The request sees its own writes. Does not do: BEGIN, COMMIT, savepoints; those are `writer`.

use super::changelog::SchemaChange;
use super::connection::{self, Budget};
use super::ops::OpSet;
use super::options::SchemaSealer;
use super::readers::{self, Reader};
use super::rowclock::{Clock2, RowClock};
use super::{StoreError, migrate, rows, space};
use crate::kernel::ident::{CollectionId, FieldNumber, RecordId};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::schema::plan::Plan;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use rusqlite::params;
use std::cell::RefCell;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// One request inside a group commit.
pub struct WriteTx<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) ops: OpSet,
    pub(super) outcome: Outcome,
    /// The storage failure that a changing statement met; it may have cost the whole group its transaction.
    pub(super) storage: RefCell<Option<StoreError>>,
    budget: &'a Budget,
    sealer: Option<&'a dyn SchemaSealer>,
    clock: Clock2,
    now_ms: i64,
}

/// What besides logged operations came of a request.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Something unlogged was stored (a receipt).
    pub(super) stored: bool,
    /// Pages were freed at the end of the file.
    pub(super) shrunk: bool,
    /// Everything is to be rolled back though the request succeeds.
    pub(super) dry_run: bool,
}

impl std::fmt::Debug for WriteTx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTx").field("reader", &self.reader).field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

impl<'a> Deref for WriteTx<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Reader<'a> {
        &self.reader
    }
}

impl<'a> WriteTx<'a> {
    pub(super) fn new(
        reader: Reader<'a>,
        budget: &'a Budget,
        sealer: Option<&'a dyn SchemaSealer>,
        clock: Clock2,
        now_ms: i64,
    ) -> Self {
        Self {
            reader,
            ops: OpSet::default(),
            outcome: Outcome::default(),
            storage: RefCell::default(),
            budget,
            sealer,
            clock,
            now_ms,
        }
    }

    /// Time of the transaction, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Inserts a record; fields without a value get their default.
    pub fn insert(&mut self, collection: &Arc<Collection>, record: &RecordImage) -> Result<(), StoreError> {
        self.bounded()?;
        let clock = RowClock::new(self.clock);
        self.paused(|tx| rows::insert(tx.reader.connection, collection, record, &clock))?;
        let partition = collection.partition.and_then(|number| record.get(number).cloned());
        self.ops.insert(&collection.id, record.clone(), partition);
        Ok(())
    }

    /// Sets fields; those that already have the value are neither written nor logged.
    pub fn update(
        &mut self,
        collection: &Arc<Collection>,
        id: &RecordId,
        changes: &[(FieldNumber, Stored)],
    ) -> Result<(), StoreError> {
        self.bounded()?;
        let mut numbers: Vec<FieldNumber> = changes.iter().map(|(number, _)| *number).collect();
        numbers.extend(collection.partition);
        let (before, mut clock) = self.present(collection, id, &numbers)?;
        let really: Vec<(FieldNumber, Stored)> = changes
            .iter()
            .zip(&before)
            .filter(|((_, value), before)| !rows::same(value, before))
            .map(|(change, _)| change.clone())
            .collect();
        if really.is_empty() {
            return Ok(());
        }
        for (number, _) in &really {
            clock.set(*number, self.clock);
        }
        self.paused(|tx| rows::update(tx.reader.connection, collection, id, &really, &clock))?;
        for ((number, value), before) in changes.iter().zip(&before) {
            if !rows::same(value, before) {
                self.ops.set(&collection.id, id, *number, value.clone(), before.clone());
            }
        }
        self.note_partition(collection, id, before.last(), &really);
        Ok(())
    }

    /// Adds `delta` to a number field; logged as an amount, so that concurrent increments add up.
    pub fn increment(
        &mut self,
        collection: &Arc<Collection>,
        id: &RecordId,
        field: FieldNumber,
        delta: f64,
    ) -> Result<(), StoreError> {
        self.bounded()?;
        let mut numbers = vec![field];
        numbers.extend(collection.partition);
        let (before, mut clock) = self.present(collection, id, &numbers)?;
        let first = before.first().cloned().unwrap_or(Stored::Real(0.0));
        let sum = match self.ops.pending(&collection.id, id, field) {
            Some((earlier, before)) => before.as_number().unwrap_or(0.0) + (earlier + delta),
            None => first.as_number().unwrap_or(0.0) + delta,
        };
        let after = [(field, Stored::Real(sum))];
        clock.set(field, self.clock);
        self.paused(|tx| rows::update(tx.reader.connection, collection, id, &after, &clock))?;
        self.ops.increment(&collection.id, id, field, delta, first);
        self.note_partition(collection, id, before.last(), &after);
        Ok(())
    }

    /// Deletes a record; the log keeps all it held.
    pub fn delete(&mut self, collection: &Arc<Collection>, id: &RecordId) -> Result<(), StoreError> {
        self.bounded()?;
        let Some(image) = self.reader.find_record(collection, id.as_str())? else {
            return Err(missing(collection, id));
        };
        self.paused(|tx| rows::delete(tx.reader.connection, collection, id))?;
        let partition = collection.partition.and_then(|number| image.get(number).cloned());
        self.ops.delete(&collection.id, image, partition);
        Ok(())
    }

    /// Executes a schema plan: statements, definitions, version, log. `schema()` is the new one afterwards.
    ///
    /// A plan made for another version than the present one is [`StoreError::SchemaMoved`]: plan again.
    ///
    /// Secrets of identity providers are sealed here, because every schema that is stored comes this way.
    pub fn apply_schema(&mut self, plan: &Plan) -> Result<(), StoreError> {
        let plan = &self.sealed(plan);
        if plan.previous.version() != self.reader.schema.version() {
            return Err(StoreError::SchemaMoved);
        }
        let definition =
            |collection: Option<Arc<Collection>>| collection.map(|collection| collection.to_storage_json().to_string());
        let changed =
            plan.changed().into_iter().map(|(id, before, after)| (id, definition(before), definition(after))).collect();
        let change = SchemaChange { version: plan.next.version(), ddl: plan.ddl(), changed };
        self.apply_change(change, Arc::clone(&plan.next))
    }

    fn sealed(&self, plan: &Plan) -> Plan {
        let Some(sealer) = self.sealer else { return plan.clone() };
        let tenant = self.reader.tenant;
        let seal = |place: &str, plain: &str| sealer.seal(tenant, place, plain);
        let collections =
            plan.next.collections().iter().map(|collection| {
                collection.with_sealed_secrets(&seal).map_or_else(|| Arc::clone(collection), Arc::new)
            });
        Plan { next: Arc::new(Schema::new(plan.next.version(), collections.collect())), ..plan.clone() }
    }

    /// Executes a schema change whose result is `next`.
    pub(super) fn apply_change(&mut self, change: SchemaChange, next: Arc<Schema>) -> Result<(), StoreError> {
        self.bounded()?;
        self.paused(|tx| execute_change(tx.reader.connection, &change)).map_err(|error| refused(error, &next))?;
        self.reader.schema = next;
        self.ops.schema(change);
        Ok(())
    }

    /// Saves a receipt: kept with the write it belongs to, found by [`Reader::find_receipt`].
    pub fn save_receipt(&mut self, key: &str, body: &[u8]) -> Result<(), StoreError> {
        self.outcome.stored = true;
        self.reader
            .connection
            .prepare_cached("INSERT OR REPLACE INTO _tn_receipt (key, body, created_ms) VALUES (?1, ?2, ?3)")?
            .execute(params![key, rows::blob(body), self.now_ms])?;
        Ok(())
    }

    /// Drops receipts saved before `before_ms`.
    pub fn prune_receipts(&mut self, before_ms: i64) -> Result<u64, StoreError> {
        self.outcome.stored = true;
        let gone = self
            .reader
            .connection
            .prepare_cached("DELETE FROM _tn_receipt WHERE created_ms < ?1")?
            .execute([before_ms])?;
        Ok(u64::try_from(gone).unwrap_or(0))
    }

    /// Keeps that the views of the present collections have `form`. It is not logged: a file alone knows what it holds.
    pub fn note_views_checked(&mut self, form: i64) -> Result<(), StoreError> {
        self.outcome.stored = true;
        migrate::note_views_checked(self.reader.connection, form, self.reader.schema.version())
    }

    /// Cuts one step of the log, see [`super::TenantDb::truncate_log`].
    pub(super) fn cut_log(&mut self, keep_from: i64) -> Result<u64, StoreError> {
        self.outcome.stored = true;
        self.paused(|tx| super::changelog::cut(tx.reader.connection, keep_from))
    }

    /// Frees up to `pages` at the end of the file; returns how many. The file is cut at the checkpoint that follows.
    pub(super) fn shrink(&mut self, pages: u64) -> Result<u64, StoreError> {
        (self.outcome.stored, self.outcome.shrunk) = (true, true);
        self.paused(|tx| {
            let before = tx.reader.free_pages()?;
            connection::give_back(tx.reader.connection, pages)?;
            Ok(before.saturating_sub(tx.reader.free_pages()?))
        })
    }

    /// Rolls this request back when it ends, though its result is returned.
    pub fn dry_run(&mut self) {
        self.outcome.dry_run = true;
    }

    fn bounded(&self) -> Result<(), StoreError> {
        if self.ops.count() >= limits::TX_OPS_MAX { Err(StoreError::TooManyOps) } else { Ok(()) }
    }

    /// Runs a changing statement without the read budget: interrupting one would undo the whole group.
    fn paused<T>(&self, run: impl FnOnce(&Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.budget.pause();
        let path = self.reader.connection.path().map(Path::new);
        let result = run(self).map_err(|error| path.map_or(error.clone(), |path| space::explain(error, path)));
        self.budget.resume();
        if let Err(error) = &result
            && error.is_storage()
        {
            self.reader.met(error);
            *self.storage.borrow_mut() = Some(error.clone());
        }
        result
    }

    fn present(
        &self,
        collection: &Collection,
        id: &RecordId,
        numbers: &[FieldNumber],
    ) -> Result<(Vec<Stored>, RowClock), StoreError> {
        rows::present(self.reader.connection, collection, id, numbers)?.ok_or_else(|| missing(collection, id))
    }

    fn note_partition(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        before: Option<&Stored>,
        changes: &[(FieldNumber, Stored)],
    ) {
        let Some(number) = collection.partition else { return };
        let after = changes.iter().find(|(changed, _)| *changed == number).map(|(_, value)| value);
        for value in [before, after].into_iter().flatten() {
            self.ops.partition(&collection.id, id, value.clone());
        }
    }
}

/// Runs the statements and keeps the definitions and the version; used by requests and by replay.
pub(super) fn execute_change(connection: &rusqlite::Connection, change: &SchemaChange) -> Result<(), StoreError> {
    // Statements of the old shape must not outlive it (rusqlite#1371).
    connection.flush_prepared_statement_cache();
    for statement in &change.ddl {
        connection.execute_batch(statement)?;
    }
    for (id, _, after) in &change.changed {
        keep_definition(connection, id, after.as_deref())?;
    }
    migrate::set_meta_number(connection, "schema", change.version)?;
    connection.flush_prepared_statement_cache();
    Ok(())
}

/// Says in users' words why the statements of a change did not run.
fn refused(error: StoreError, next: &Schema) -> StoreError {
    match error {
        StoreError::Sql(why) | StoreError::Refused(why) => StoreError::SchemaRefused(why),
        StoreError::Unique { table, fields, .. } => {
            let id = table.strip_prefix("c_").unwrap_or(&table);
            let name = next.find(id).map_or(id, |collection| collection.name.as_str());
            let names: Vec<&str> = fields
                .iter()
                .map(|column| {
                    let number = column.strip_prefix('f').and_then(|digits| digits.parse().ok()).map(FieldNumber);
                    let field = next.find(id).zip(number).and_then(|(found, number)| found.find_field_number(number));
                    field.map_or(&**column, |field| field.name.as_str())
                })
                .collect();
            let why = format!("records of {name} share values of {} that must be unique", names.join(", "));
            StoreError::SchemaRefused(Arc::from(why))
        }
        other => other,
    }
}

fn keep_definition(
    connection: &rusqlite::Connection,
    id: &CollectionId,
    definition: Option<&str>,
) -> Result<(), StoreError> {
    match definition {
        Some(text) => {
            readers::parse_definition(text)?;
            connection.execute(
                "INSERT OR REPLACE INTO _tn_collection (id, definition) VALUES (?1, ?2)",
                params![id.as_str(), text],
            )?;
        }
        None => {
            connection.execute("DELETE FROM _tn_collection WHERE id = ?1", [id.as_str()])?;
            connection.execute("DELETE FROM _tn_gen WHERE coll = ?1", [id.as_str()])?;
        }
    }
    Ok(())
}

fn missing(collection: &Collection, id: &RecordId) -> StoreError {
    StoreError::RecordMissing { table: Arc::from(collection.table()), id: Arc::from(id.as_str()) }
}
