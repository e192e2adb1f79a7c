//! Records over real files: a tenant of its own per test, callers of every kind.

mod accounts;
mod batches;
mod coherence;
mod costs;
mod lists;
mod registrations;
mod rules;
mod seeds;
mod transfers;
mod writes;

use super::batch::{self, BatchAnswer, BatchOptions};
use super::read::{self, ListRequest, View};
use super::write::{self, WriteAnswer, WriteRequest, WriteSource, WriteVerb};
use super::{Answer, BatchRequest, Idempotency, RecordError, RecordTools, Scope};
use crate::access::Principal;
use crate::kernel::clock::{Clock, ManualClock};
use crate::kernel::error::{Code, Fault};
use crate::kernel::ident::{NodeId, TenantId};
use crate::kernel::random::{Random, SystemRandom};
use crate::query::request::{AuthRecord, RequestContext};
use crate::query::resolve::Reach;
use crate::schema::definition;
use crate::schema::plan::{self, PlanContext};
use crate::secrets::keys::NodeSecret;
use crate::secrets::password::{PasswordCost, PasswordHasher, PasswordOptions};
use crate::store::{SlowQuery, SlowQuerySink, StoreOptions, TenantDb, Tenants, WriteMeta};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Counts the statements that give rows.
#[derive(Debug, Default)]
struct Statements(AtomicUsize);

impl SlowQuerySink for Statements {
    fn slow(&self, _: &SlowQuery<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct World {
    store: Arc<Tenants>,
    db: TenantDb,
    tools: Arc<RecordTools>,
    clock: Arc<ManualClock>,
    random: Arc<dyn Random>,
    statements: Arc<Statements>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(collections: &[Value]) -> Self {
        Self::with(collections, |_| ()).await
    }

    async fn with(collections: &[Value], adjust: impl FnOnce(&mut StoreOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let time = Arc::clone(&clock) as Arc<dyn Clock>;
        let statements = Arc::new(Statements::default());
        let mut options =
            StoreOptions::new(folder.path().to_path_buf(), NodeId([1; 16]), Arc::clone(&time), Arc::clone(&random));
        options.writer_threads = 1;
        options.slow_query = Duration::ZERO;
        options.slow_queries = Some(Arc::clone(&statements) as Arc<dyn SlowQuerySink>);
        adjust(&mut options);
        let store = Arc::new(Tenants::start(options).unwrap());
        let db = store.create(&TenantId::parse("t1").unwrap()).await.unwrap();
        let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
        let cheap = PasswordOptions { cost, ..PasswordOptions::default() };
        let hasher = PasswordHasher::new(cheap, Arc::clone(&random)).unwrap();
        let secret = NodeSecret::ephemeral(random.as_ref());
        let tools = Arc::new(RecordTools::new(time, Arc::clone(&random), hasher, secret));
        let world = Self { store, db, tools, clock, random, statements, _folder: folder };
        for collection in collections {
            world.make(&world.db, collection).await;
        }
        world
    }

    /// Makes a collection; `RELATION:name` in a collection id stands for the id of that collection.
    async fn make(&self, db: &TenantDb, body: &Value) {
        let schema = db.schema();
        let mut text = body.to_string();
        for known in schema.collections() {
            text = text.replace(&format!("RELATION:{}\"", known.name), &format!("{}\"", known.id));
        }
        let input = definition::parse(&serde_json::from_str(&text).unwrap()).unwrap();
        let context = PlanContext {
            random: self.random.as_ref(),
            now_ms: self.clock.now_ms(),
            describe: &crate::store::describe_in_scratch,
        };
        let plan = plan::plan_create(&schema, &input, &context).unwrap();
        db.write(WriteMeta::system("test"), move |tx| tx.apply_schema(&plan)).await.unwrap();
    }

    fn scope(&self, principal: Principal) -> Scope {
        let request = RequestContext {
            context: Arc::from("default"),
            method: Arc::from("GET"),
            auth: principal.auth().cloned(),
            now_ms: self.clock.now_ms(),
            ..RequestContext::default()
        };
        Scope {
            tenant: self.db.clone(),
            principal,
            reach: Reach::EVERYWHERE,
            by: None,
            request: Arc::new(request),
            tools: Arc::clone(&self.tools),
            request_id: Arc::from("r1"),
            ip: None,
        }
    }

    fn admin(&self) -> Caller {
        Caller(self.scope(Principal::System))
    }

    fn guest(&self) -> Caller {
        Caller(self.scope(Principal::Anonymous))
    }

    async fn user(&self, collection: &str, id: &str) -> Caller {
        let collection = self.db.schema().find(collection).unwrap().clone();
        let (found, id) = (Arc::clone(&collection), id.to_owned());
        let record = self.db.read(move |reader| reader.find_record(&found, &id)).await.unwrap().unwrap();
        Caller(self.scope(Principal::Record(Arc::new(AuthRecord { collection, record }))))
    }

    /// Statements that gave rows while `work` ran.
    async fn count_statements<T>(&self, work: impl Future<Output = T>) -> (T, usize) {
        let before = self.statements.0.load(Ordering::Relaxed);
        let done = work.await;
        (done, self.statements.0.load(Ordering::Relaxed) - before)
    }

    async fn stop(self) {
        drop(self.db);
        self.store.shutdown().await;
    }
}

/// Somebody who asks.
#[derive(Clone)]
struct Caller(Scope);

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
}

fn code<T: std::fmt::Debug>(result: Result<T, RecordError>) -> Code {
    result.expect_err("should have been refused").code()
}

/// The refused fields with their codes.
fn refused<T: std::fmt::Debug>(result: Result<T, RecordError>) -> Vec<(String, String)> {
    let details = result.expect_err("should have been refused").details();
    details.into_iter().map(|detail| (detail.field, detail.code.into_owned())).collect()
}

impl Caller {
    fn request(&self, verb: WriteVerb, collection: &str, id: Option<&str>, body: Value) -> WriteRequest {
        WriteRequest {
            verb,
            collection: collection.to_owned(),
            id: id.map(str::to_owned),
            body: object(body),
            uploads: Vec::new(),
            if_match: None,
            view: View::default(),
            dry_run: false,
            source: WriteSource::Caller,
            mail_gate: None,
        }
    }

    async fn send(&self, request: WriteRequest) -> Result<WriteAnswer, RecordError> {
        write::write(&self.0, request, None).await
    }

    async fn try_create(&self, collection: &str, body: Value) -> Result<Value, RecordError> {
        let answer = self.send(self.request(WriteVerb::Create, collection, None, body)).await?;
        Ok(parsed(&answer.done.answer))
    }

    #[track_caller]
    fn create(&self, collection: &str, body: Value) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        async move { self.try_create(collection, body).await.unwrap_or_else(|error| panic!("{at}: {error:?}")) }
    }

    async fn try_update(&self, collection: &str, id: &str, body: Value) -> Result<Value, RecordError> {
        let answer = self.send(self.request(WriteVerb::Update, collection, Some(id), body)).await?;
        Ok(parsed(&answer.done.answer))
    }

    async fn update(&self, collection: &str, id: &str, body: Value) -> Value {
        self.try_update(collection, id, body).await.unwrap()
    }

    async fn delete(&self, collection: &str, id: &str) -> Result<(), RecordError> {
        self.send(self.request(WriteVerb::Delete, collection, Some(id), json!({}))).await.map(|_| ())
    }

    async fn try_get(&self, collection: &str, id: &str, view: &[(&str, &str)]) -> Result<Value, RecordError> {
        let view = View::parse(view.iter().copied())?;
        Ok(parsed(&read::get(&self.0, collection, id, &view).await?))
    }

    async fn get(&self, collection: &str, id: &str) -> Value {
        self.try_get(collection, id, &[]).await.unwrap()
    }

    async fn try_list(&self, collection: &str, parameters: &[(&str, &str)]) -> Result<Value, RecordError> {
        let request = ListRequest::parse(parameters.iter().copied())?;
        Ok(parsed(&read::list(&self.0, collection, &request).await?))
    }

    async fn list(&self, collection: &str, parameters: &[(&str, &str)]) -> Value {
        self.try_list(collection, parameters).await.unwrap()
    }

    /// The values of one member in a list.
    async fn column(&self, collection: &str, member: &str, parameters: &[(&str, &str)]) -> Vec<String> {
        let page = self.list(collection, parameters).await;
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item[member].as_str().map_or_else(|| item[member].to_string(), str::to_owned)).collect()
    }

    async fn batch(&self, body: Value, options: BatchOptions) -> Result<BatchAnswer, RecordError> {
        let request = BatchRequest::parse(body).map_err(|detail| RecordError::Invalid(vec![detail]))?;
        batch::run(&self.0, request, options).await
    }
}

fn key(text: &str, caller: &Caller, body: &str) -> Idempotency {
    Idempotency::new(text, &caller.0.key_owner(), "POST", "/x", body.as_bytes()).unwrap()
}

/// Authors and posts that everybody may do everything with.
fn library() -> Vec<Value> {
    let open = |name: &str, fields: Value, indexes: Value| {
        json!({"name": name, "type": "base", "fields": fields, "indexes": indexes,
            "listRule": "", "viewRule": "", "createRule": "", "updateRule": "", "deleteRule": ""})
    };
    vec![
        open(
            "authors",
            json!([{"name": "name", "type": "text", "required": true}, {"name": "secret", "type": "text", "hidden": true}]),
            json!(["CREATE UNIQUE INDEX idx_authors_name ON authors (name)"]),
        ),
        open(
            "posts",
            json!([
                {"name": "title", "type": "text", "required": true, "max": 80},
                {"name": "body", "type": "editor"},
                {"name": "published", "type": "bool"},
                {"name": "score", "type": "number", "max": 1000},
                {"name": "tags", "type": "select", "values": ["red", "green", "blue"], "maxSelect": 3},
                {"name": "author", "type": "relation", "collectionId": "RELATION:authors", "maxSelect": 1, "cascadeDelete": true},
                {"name": "editors", "type": "relation", "collectionId": "RELATION:authors", "maxSelect": 5},
                {"name": "meta", "type": "json"},
                {"name": "created", "type": "autodate", "onCreate": true},
                {"name": "updated", "type": "autodate", "onCreate": true, "onUpdate": true}
            ]),
            json!([]),
        ),
    ]
}
