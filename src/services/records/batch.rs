//! Many reads and writes in one request: one transaction for all, or each on its own.
//!
//! Keeps true: in a transactional batch the items see each other's effects and nobody else's, and one failure undoes
//! all; in a partial batch an item's failure is its own. Answers keep the order of the requests.
//! Does not do: nested batches, other tenants.

use super::account::{self, Prepared};
use super::batch_request::{BatchRequest, Item, Verb};
use super::hint::{self, Question};
use super::idempotency::Idempotency;
use super::preparing;
use super::read::{self, ListRequest, View};
use super::write::{self, Done, Effect, WriteRequest, WriteSource, WriteVerb};
use super::{Answer, RecordError, Scope, uploads};
use crate::kernel::error::{Code, Detail, Fault, Kind};
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::store::{FileRef, Reader, StoreError, WriteToken, WriteTx};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What became of one request of a batch.
#[derive(Debug)]
pub enum ItemAnswer {
    /// It was done.
    Done(Done),
    /// It was refused; only in a partial batch.
    Failed(RecordError),
}

/// What became of a batch.
#[derive(Debug)]
pub struct BatchAnswer {
    /// One answer per request, in order.
    pub items: Vec<ItemAnswer>,
    /// The log position after it.
    pub lsn: i64,
    /// Names the last transaction; `None` when nothing was written.
    pub token: Option<WriteToken>,
    /// The answer is that of an earlier batch with the same idempotency key.
    pub replayed: bool,
}

/// How a batch is run.
#[derive(Debug, Clone, Default)]
pub struct BatchOptions {
    /// Every check, no change.
    pub dry_run: bool,
    /// The receipt of the whole batch.
    pub idempotency: Option<Idempotency>,
}

/// Runs a batch.
pub async fn run(scope: &Scope, batch: BatchRequest, options: BatchOptions) -> Result<BatchAnswer, RecordError> {
    let mut items = Vec::with_capacity(batch.items.len());
    for (index, request) in batch.items.into_iter().enumerate() {
        items.push(request.into_item().map_err(|reason| malformed(index, reason))?);
    }
    check_hashes(scope, &items)?;
    if batch.transactional { run_together(scope, items, options).await } else { run_apart(scope, items, options).await }
}

/// Hashes are what a request costs most, so one batch makes only so many.
fn check_hashes(scope: &Scope, items: &[Item]) -> Result<(), RecordError> {
    let schema = scope.tenant.schema();
    let mut wanted = 0;
    for (index, item) in items.iter().enumerate().filter(|(_, item)| item.sets_members()) {
        wanted += schema.find(&item.collection).map_or(0, |found| account::passwords_in(found, &item.body));
        if wanted > limits::BATCH_HASHES_MAX {
            let message = format!("A batch sets at most {} passwords; send more batches.", limits::BATCH_HASHES_MAX);
            let detail = Detail::new(format!("requests.{index}.body.password"), "validation_length_too_long", message);
            return Err(RecordError::Invalid(vec![detail]));
        }
    }
    Ok(())
}

fn malformed(index: usize, reason: String) -> RecordError {
    let detail = Detail::new(format!("requests.{index}"), Code::BatchFailed.as_str(), reason);
    RecordError::Invalid(vec![detail])
}

/// Nothing but reads: one snapshot, and the writer is left alone.
async fn run_reads(scope: &Scope, items: Vec<Item>) -> Result<BatchAnswer, RecordError> {
    let (run, items, under_way) = (scope.clone(), Arc::new(items), Arc::new(AtomicUsize::new(0)));
    let (all, progress) = (Arc::clone(&items), Arc::clone(&under_way));
    let read = scope
        .tenant
        .read(move |reader| {
            let mut answers = Vec::with_capacity(items.len());
            let mut done = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                progress.store(index, Ordering::Relaxed);
                let mut item = item.clone();
                let one = item
                    .resolve(&answers)
                    .map_err(|detail| RecordError::Invalid(vec![detail]))
                    .and_then(|()| read_item(reader, &run, &item))
                    .map_err(|fault| at(index, fault))?;
                answers.push(parse_answer(&one.answer));
                done.push(ItemAnswer::Done(one));
            }
            Ok::<_, RecordError>((done, reader.lsn()))
        })
        .await;
    // A read that was stopped takes with it what it said.
    let index = under_way.load(Ordering::Relaxed);
    let (done, lsn) = read.map_err(|fault| match all.get(index) {
        Some(item) if matches!(fault, RecordError::Store(StoreError::TooExpensive)) => {
            at(index, explain_cost(fault, scope, item))
        }
        _ => fault,
    })?;
    Ok(BatchAnswer { items: done, lsn, token: None, replayed: false })
}

/// Adds what would help a read of a batch that did too much work.
fn explain_cost(fault: RecordError, scope: &Scope, item: &Item) -> RecordError {
    let (scope, schema) = (scope_of(scope, item), scope.tenant.schema());
    let Some(collection) = schema.find(&item.collection) else { return fault };
    if item.record.is_some() {
        return match View::from_pairs(&item.parameters) {
            Ok(view) => hint::explain_cost(fault, &scope, collection, Question::One(view.expand())),
            Err(_) => fault,
        };
    }
    match ListRequest::from_pairs(&item.parameters) {
        Ok(request) => hint::explain_cost(fault, &scope, collection, Question::List(&request.query)),
        Err(_) => fault,
    }
}

async fn run_together(scope: &Scope, items: Vec<Item>, options: BatchOptions) -> Result<BatchAnswer, RecordError> {
    if items.iter().all(Item::is_read) {
        return run_reads(scope, items).await;
    }
    let mut kept = Vec::new();
    let done = match make_ready(scope, items, &options, &mut kept).await {
        Ok(ready) => run_prepared(scope, ready, options).await,
        Err(fault) => Err(fault),
    };
    uploads::settle(&scope.tenant, kept).await;
    done
}

/// What needs no transaction: hashes, and files, which are added to `kept`.
async fn make_ready(
    scope: &Scope,
    items: Vec<Item>,
    options: &BatchOptions,
    kept: &mut Vec<FileRef>,
) -> Result<Vec<(Item, Prepared)>, RecordError> {
    let mut ready = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let mut prepared = prepare(scope, &item).await.map_err(|fault| at(index, fault))?;
        if !item.uploads.is_empty() {
            let request = WriteRequest { dry_run: options.dry_run, ..write_request(item.clone())? };
            let files = uploads::keep(scope, &request, &mut prepared).await;
            kept.extend(files.map_err(|fault| at(index, fault))?);
        }
        ready.push((item, prepared));
    }
    Ok(ready)
}

/// Runs the items; where one before another makes its rule hold, what was left out for that is made up for, once.
async fn run_prepared(
    scope: &Scope,
    ready: Vec<(Item, Prepared)>,
    options: BatchOptions,
) -> Result<BatchAnswer, RecordError> {
    if ready.iter().all(|(_, prepared)| !prepared.is_left_out()) {
        return run_ready(scope, ready, options).await;
    }
    match run_ready(scope, ready.clone(), options.clone()).await {
        Err(RecordError::Overtaken) => run_ready(scope, make_up(scope, ready).await?, options).await,
        done => done,
    }
}

/// Prepares what was left out, as far as the caller alone may do it.
async fn make_up(scope: &Scope, mut ready: Vec<(Item, Prepared)>) -> Result<Vec<(Item, Prepared)>, RecordError> {
    for (index, (item, prepared)) in ready.iter_mut().enumerate().filter(|(_, (_, it))| it.is_left_out()) {
        let request = write_request(item.clone())?;
        let made = preparing::prepare(&scope_of(scope, item), &request).await.map_err(|fault| at(index, fault))?;
        let id = prepared.id.take();
        *prepared = made;
        prepared.id = id;
    }
    Ok(ready)
}

async fn run_ready(
    scope: &Scope,
    ready: Vec<(Item, Prepared)>,
    options: BatchOptions,
) -> Result<BatchAnswer, RecordError> {
    let run = scope.clone();
    let written = scope
        .tenant
        .write(scope.write_meta(), move |tx| {
            if let Some(key) = &options.idempotency
                && let Some(receipt) = key.find(tx)?
            {
                return Ok((from_receipt(&receipt)?, true));
            }
            if options.dry_run {
                tx.dry_run();
            }
            let done = apply_all(tx, &run, ready)?;
            if let Some(key) = options.idempotency.filter(|_| !options.dry_run) {
                key.save(tx, &to_receipt(&done))?;
            }
            Ok::<_, RecordError>((done, false))
        })
        .await?;
    let (done, replayed) = written.value;
    let items = done.into_iter().map(ItemAnswer::Done).collect();
    Ok(BatchAnswer { items, lsn: written.lsn, token: written.token, replayed })
}

fn apply_all(tx: &mut WriteTx<'_>, scope: &Scope, ready: Vec<(Item, Prepared)>) -> Result<Vec<Done>, RecordError> {
    let mut answers = Vec::with_capacity(ready.len());
    let mut done = Vec::with_capacity(ready.len());
    for (index, (mut item, prepared)) in ready.into_iter().enumerate() {
        let one = item
            .resolve(&answers)
            .map_err(|detail| RecordError::Invalid(vec![detail]))
            .and_then(|()| apply_item(tx, scope, item, &prepared))
            .map_err(|fault| at(index, fault))?;
        answers.push(parse_answer(&one.answer));
        done.push(one);
    }
    Ok(done)
}

fn apply_item(tx: &mut WriteTx<'_>, scope: &Scope, item: Item, prepared: &Prepared) -> Result<Done, RecordError> {
    if item.is_read() {
        return read_item(tx, scope, &item).map_err(|fault| explain_cost(fault, scope, &item));
    }
    write::apply(tx, &scope_of(scope, &item), &write_request(item)?, prepared)
}

/// Rules see the item, not the batch that it came in.
fn scope_of(scope: &Scope, item: &Item) -> Scope {
    scope.with_request(item.seen_by_rules(&scope.request))
}

fn read_item(reader: &Reader<'_>, scope: &Scope, item: &Item) -> Result<Done, RecordError> {
    let scope = scope_of(scope, item);
    let answer = match &item.record {
        None => {
            let request = ListRequest::from_pairs(&item.parameters)?;
            read::load_list_now(reader, &scope, &item.collection, &request)?
        }
        Some(id) => {
            let view = View::from_pairs(&item.parameters)?;
            read::load_get_now(reader, &scope, &item.collection, id, &view)?
        }
    };
    Ok(Done { effect: Effect::Read, answer, of: None })
}

/// Each item in a transaction of its own, in order, so that references still work.
async fn run_apart(scope: &Scope, items: Vec<Item>, options: BatchOptions) -> Result<BatchAnswer, RecordError> {
    let mut batch = BatchAnswer { items: Vec::new(), lsn: scope.tenant.position(), token: None, replayed: false };
    let mut answers = Vec::with_capacity(items.len());
    for (index, mut item) in items.into_iter().enumerate() {
        let outcome = match item.resolve(&answers) {
            Err(detail) => Err(RecordError::Invalid(vec![detail])),
            Ok(()) => run_one(scope, index, item, &options, &mut batch).await,
        };
        match outcome {
            Ok(done) => {
                answers.push(parse_answer(&done.answer));
                batch.items.push(ItemAnswer::Done(done));
            }
            Err(fault) => {
                answers.push(None);
                batch.items.push(ItemAnswer::Failed(fault));
            }
        }
    }
    Ok(batch)
}

async fn run_one(
    scope: &Scope,
    index: usize,
    item: Item,
    options: &BatchOptions,
    batch: &mut BatchAnswer,
) -> Result<Done, RecordError> {
    let scope = &scope_of(scope, &item);
    let answer = match item.verb {
        Verb::List => {
            let parameters = ListRequest::from_pairs(&item.parameters)?;
            read::list(scope, &item.collection, &parameters).await?
        }
        Verb::Get => {
            let (view, id) = (View::from_pairs(&item.parameters)?, item.record.as_deref().unwrap_or_default());
            read::get(scope, &item.collection, id, &view).await?
        }
        _ => {
            let request = WriteRequest { dry_run: options.dry_run, ..write_request(item)? };
            // A receipt of its own: repeating the batch repeats only what failed.
            let receipt = options.idempotency.as_ref().map(|key| key.of_item(index));
            let written = write::write(scope, request, receipt).await?;
            batch.lsn = written.lsn;
            batch.replayed |= written.replayed;
            batch.token = written.token.or(batch.token.take());
            return Ok(written.done);
        }
    };
    Ok(Done { effect: Effect::Read, answer, of: None })
}

/// What the rules refuse as things are costs no hash; whether the items before it change that, the transaction finds.
pub(super) async fn prepare(scope: &Scope, item: &Item) -> Result<Prepared, RecordError> {
    match item.sets_members() {
        true => preparing::prepare_alone(&scope_of(scope, item), &write_request(item.clone())?).await,
        false => Ok(Prepared::default()),
    }
}

fn write_request(item: Item) -> Result<WriteRequest, RecordError> {
    let verb = match item.verb {
        Verb::Create | Verb::List | Verb::Get => WriteVerb::Create,
        Verb::Upsert => WriteVerb::Upsert,
        Verb::Update => WriteVerb::Update,
        Verb::Delete => WriteVerb::Delete,
    };
    let if_match = item.if_match().map(str::to_owned);
    Ok(WriteRequest {
        verb,
        collection: item.collection,
        // A reference is not an id yet.
        id: item.record.filter(|id| RecordId::parse(id).is_ok()),
        body: item.body,
        uploads: item.uploads,
        if_match,
        view: View::from_pairs(&item.parameters)?,
        dry_run: false,
        source: WriteSource::Caller,
        mail_gate: None,
    })
}

/// What is wrong with a request is told as its failure; what is wrong with the node is told as that.
fn at(index: usize, fault: RecordError) -> RecordError {
    match fault.code().kind() {
        Kind::Internal | Kind::Unavailable | Kind::StorageFull => fault,
        _ => RecordError::Batch { index, fault: Box::new(fault) },
    }
}

fn parse_answer(answer: &Answer) -> Option<Value> {
    serde_json::from_slice(&answer.body).ok()
}

/// Each item's receipt behind its length.
fn to_receipt(done: &[Done]) -> Vec<u8> {
    let mut receipt = Vec::new();
    for one in done {
        let part = one.to_receipt();
        receipt.extend_from_slice(&(part.len() as u64).to_le_bytes());
        receipt.extend_from_slice(&part);
    }
    receipt
}

fn from_receipt(mut receipt: &[u8]) -> Result<Vec<Done>, RecordError> {
    let damaged = || RecordError::Defect("damaged batch receipt".into());
    let mut done = Vec::new();
    while !receipt.is_empty() {
        let (len, rest) = receipt.split_first_chunk::<8>().ok_or_else(damaged)?;
        let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| damaged())?;
        let (part, rest) = rest.split_at_checked(len).ok_or_else(damaged)?;
        done.push(Done::from_receipt(part)?);
        receipt = rest;
    }
    Ok(done)
}
