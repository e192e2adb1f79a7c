//! Blueprints of a node: the shipped and the published ones, what applying one would change, applying it, its promises.
//!
//! Keeps true: a published version never changes; applying happens in one transaction of the tenant and is planned
//! against the schema as it is then; collections and fields that a blueprint does not mention stay. Secrets of a published
//! blueprint are kept sealed for the control database, opened when it is applied and never shown.
//! Does not do: which tenant has which version (the registry notes that), HTTP, deciding who may publish.

use super::collections::{self, CollectionError};
use super::sample::{self, SampleRequest};
use super::tenants::{BlueprintRef, Contents, Fill, Registry, TenantEntry, TenantError, TenantQuery};
use crate::access::explain::{Explanation, explain, explain_field};
use crate::access::{Action, Principal};
use crate::kernel::clock::Clock;
use crate::kernel::datetime;
use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::kernel::value::{Cell, Stored};
use crate::query::eval::{Dataset, Exhausted};
use crate::query::request::{AuthRecord, RequestContext};
use crate::schema::blueprint::{self, Blueprint, RuleAction, RuleTest};
use crate::schema::body;
use crate::schema::error::SchemaError;
use crate::schema::oauth::SEALED;
use crate::schema::plan::{self, Plan, PlanContext, Unmentioned};
use crate::schema::record::RecordImage;
use crate::schema::value_check::{self, Modifier, ValueContext};
use crate::schema::{Collection, Schema};
use crate::secrets::seal::Sealer;
use crate::services::tenants::system::BLUEPRINTS;
use crate::store::{self, StoreError, TenantDb, WriteMeta, Written};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Why something about a blueprint failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlueprintError {
    /// There is no such blueprint, or not in this version.
    #[error("no blueprint {0:?}")]
    NotFound(String),
    /// This version, or a later one, is published already.
    #[error("version {version} of blueprint {name:?} is not newer than {newest}")]
    NotNewer {
        /// The blueprint.
        name: String,
        /// The version that was offered.
        version: u32,
        /// The newest there is.
        newest: u32,
    },
    /// The blueprint or the change it makes was refused.
    #[error(transparent)]
    Collection(#[from] CollectionError),
    /// The tenant could not be opened or its entry not be changed.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// The sample data could not be written, or the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SchemaError> for BlueprintError {
    fn from(error: SchemaError) -> Self {
        Self::Collection(CollectionError::Schema(error))
    }
}

impl Fault for BlueprintError {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::BlueprintNotFound,
            Self::NotNewer { .. } => Code::Conflict,
            Self::Collection(error) => error.code(),
            Self::Tenant(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::NotFound(name) => {
                Cow::Owned(format!("There is no blueprint {name:?}; GET /api/blueprints lists those there are."))
            }
            Self::NotNewer { name, newest, .. } => {
                Cow::Owned(format!("Blueprint {name:?} has version {newest} already; publish a higher version."))
            }
            Self::Collection(error) => error.public(),
            Self::Tenant(error) => error.public(),
            Self::Store(error) => error.public(),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::Collection(error) => error.details(),
            Self::Tenant(error) => error.details(),
            Self::Store(error) => error.details(),
            Self::NotFound(_) => vec![Detail::new("blueprint", "validation_invalid_value", self.public())],
            Self::NotNewer { .. } => vec![Detail::new("version", "validation_invalid_value", self.public())],
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Collection(error) => error.retry_after_s(),
            Self::Tenant(error) => error.retry_after_s(),
            Self::Store(error) => error.retry_after_s(),
            Self::NotFound(_) | Self::NotNewer { .. } => None,
        }
    }
}

/// The blueprints of a node: those in the binary and those published into the control database.
#[derive(Debug, Clone)]
pub struct Catalog {
    control: TenantDb,
    random: Arc<dyn Random>,
    sealer: Sealer,
}

impl Catalog {
    /// The catalog kept in `control`.
    pub fn new(control: TenantDb, random: Arc<dyn Random>, sealer: Sealer) -> Self {
        Self { control, random, sealer }
    }

    /// Every blueprint in its newest version, by name. One that cannot be read back is left out, and the log says so.
    pub async fn list(&self) -> Result<Vec<Blueprint>, BlueprintError> {
        let mut all = blueprint::shipped();
        for published in self.published(None).await? {
            let published = match published {
                Ok(published) => published,
                Err(error) => {
                    tracing::warn!(%error, "a published blueprint cannot be read and is not listed");
                    continue;
                }
            };
            match all.iter_mut().find(|known| known.name == published.name) {
                Some(known) if known.version < published.version => *known = published,
                Some(_) => {}
                None => all.push(published),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// A blueprint by name, in `version` or the newest.
    pub async fn find(&self, name: &str, version: Option<u32>) -> Result<Blueprint, BlueprintError> {
        let published = self.published(Some(name)).await?;
        let mut candidates = published.into_iter().collect::<Result<Vec<_>, _>>()?;
        candidates.extend(blueprint::find_shipped(name));
        candidates.retain(|candidate| version.is_none_or(|version| candidate.version == version));
        candidates.into_iter().max_by_key(|candidate| candidate.version).ok_or_else(|| {
            BlueprintError::NotFound(version.map_or(name.to_owned(), |version| format!("{name} {version}")))
        })
    }

    /// Publishes a blueprint; its version must be higher than all before. It is planned on an empty tenant first.
    pub async fn publish(&self, meta: WriteMeta, body: &Value) -> Result<Written<Blueprint>, BlueprintError> {
        let blueprint = Blueprint::parse(body)?;
        preview(&Arc::new(Schema::default()), &blueprint, self.random.as_ref(), 0)?;
        match self.find(&blueprint.name, None).await {
            Ok(newest) if newest.version >= blueprint.version => {
                let (name, newest) = (blueprint.name.to_string(), newest.version);
                return Err(BlueprintError::NotNewer { name, version: blueprint.version, newest });
            }
            Ok(_) | Err(BlueprintError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let (made, id) = (blueprint.clone(), RecordId::generate(self.random.as_ref()));
        let definition = self.sealed(&blueprint).to_string();
        let written: Written<()> = self
            .control
            .write(meta, move |tx| {
                let schema = Arc::clone(tx.schema());
                let collection = system_collection(&schema)?;
                let now = Stored::from(datetime::format_ms(tx.now_ms()));
                let values = [
                    ("name", Stored::text(&*made.name)),
                    ("version", Stored::Real(f64::from(made.version))),
                    ("checksum", Stored::from(checksum(&definition))),
                    ("definition", Stored::from(definition)),
                    ("created", now.clone()),
                    ("updated", now),
                ];
                tx.insert(collection, &image(collection, id, &values)).map_err(BlueprintError::Store)
            })
            .await?;
        Ok(Written { value: blueprint, lsn: written.lsn, token: written.token })
    }

    /// What is stored, of one name or all, each read back for itself.
    async fn published(&self, name: Option<&str>) -> Result<Vec<Result<Blueprint, BlueprintError>>, BlueprintError> {
        let name = name.map(str::to_owned);
        let texts: Vec<String> = self
            .control
            .read(move |reader| {
                let collection = system_collection(reader.schema())?;
                let column = |name: &str| {
                    collection.find_field(name).map(|field| field.column().into_owned()).unwrap_or_default()
                };
                let (table, definition, by) = (collection.table(), column("definition"), column("name"));
                let mut texts = Vec::new();
                let mut collect = |row: &store::Row<'_>| {
                    if let Cell::Text(text) = row.cell(0)? {
                        texts.push(text.to_owned());
                    }
                    Ok(())
                };
                match &name {
                    Some(name) => {
                        let sql = format!("SELECT {definition} FROM \"{table}\" WHERE {by} = ?1");
                        reader.for_each(&sql, &[Stored::text(name)], &mut collect)?;
                    }
                    None => reader.for_each(&format!("SELECT {definition} FROM \"{table}\""), &[], &mut collect)?,
                }
                Ok::<_, BlueprintError>(texts)
            })
            .await?;
        Ok(texts.iter().map(|text| self.opened(text)).collect())
    }

    /// The file of `blueprint` with its secrets sealed.
    fn sealed(&self, blueprint: &Blueprint) -> Value {
        blueprint::map_secrets(&blueprint.source, &|at, plain| {
            let place = secret_place(&blueprint.name, at);
            let text = self.sealer.seal(self.random.as_ref(), self.control.id(), &place, plain.as_bytes());
            Some(format!("{SEALED}{text}"))
        })
    }

    /// A stored file with its secrets opened; one that was sealed under another node's secret is left out.
    fn opened(&self, text: &str) -> Result<Blueprint, BlueprintError> {
        let stored: Value = serde_json::from_str(text)
            .map_err(|error| SchemaError::Damaged(format!("a blueprint is not JSON: {error}")))?;
        let name = stored.get("name").and_then(Value::as_str).unwrap_or_default();
        let file = blueprint::map_secrets(&stored, &|at, text| {
            let Some(sealed) = text.strip_prefix(SEALED) else { return Some(text.to_owned()) };
            let opened = self.sealer.open(self.control.id(), &secret_place(name, at), sealed)?;
            String::from_utf8(opened.to_vec()).ok()
        });
        Ok(Blueprint::parse_stored(&file)?)
    }
}

/// For which place a secret of a published blueprint is sealed.
fn secret_place(name: &str, at: &str) -> String {
    format!("blueprint/{name}{at}")
}

/// The file of a blueprint as anybody may see it who may see blueprints: without secrets.
pub fn shown(blueprint: &Blueprint) -> Value {
    blueprint::map_secrets(&blueprint.source, &|_, _| None)
}

fn system_collection(schema: &Schema) -> Result<&Arc<Collection>, BlueprintError> {
    schema.find(BLUEPRINTS).ok_or_else(|| SchemaError::UnknownCollection(BLUEPRINTS.to_owned()).into())
}

fn image(collection: &Collection, id: RecordId, values: &[(&str, Stored)]) -> RecordImage {
    let numbered = values.iter().filter_map(|(name, value)| Some((collection.find_field(name)?.number, value.clone())));
    RecordImage::new(id, numbered)
}

/// SHA-256 of the text, hexadecimal.
fn checksum(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a blueprint looks in lists: everything but its collections and tests.
pub fn summary(blueprint: &Blueprint) -> Value {
    let names: Vec<_> = blueprint.collections.iter().filter_map(|collection| collection.name.as_deref()).collect();
    json!({"name": blueprint.name, "version": blueprint.version, "title": blueprint.title,
        "description": blueprint.description, "collections": names, "ruleTests": blueprint.rule_tests.len()})
}

/// What applying `blueprint` to a tenant with `schema` would do; nothing is changed.
pub fn preview(
    schema: &Arc<Schema>,
    blueprint: &Blueprint,
    random: &dyn Random,
    now_ms: i64,
) -> Result<Plan, BlueprintError> {
    let context = PlanContext { random, now_ms, describe: &store::describe_in_scratch };
    let plan = plan::plan_import(schema, &blueprint.collections, Unmentioned::Keep, &context)?;
    collections::check_rules(&plan)?;
    Ok(plan)
}

/// Applies `blueprint` to a tenant; what the tenant has beside it stays. The answer names the collections that changed.
pub async fn apply(
    tenant: &TenantDb,
    meta: WriteMeta,
    random: Arc<dyn Random>,
    blueprint: &Blueprint,
) -> Result<Written<Vec<String>>, BlueprintError> {
    let inputs = blueprint.collections.clone();
    tenant
        .write(meta, move |tx| {
            let plan = collections::plan_import(tx, &random, &inputs, Unmentioned::Keep)?;
            let names = changed_names(&plan);
            collections::apply(tx, &plan)?;
            Ok(names)
        })
        .await
}

/// Takes a tenant from one version of a blueprint to another, up or down.
///
/// What `from` has and `to` lacks goes away with its data; what the tenant added by itself stays.
pub async fn migrate(
    tenant: &TenantDb,
    meta: WriteMeta,
    random: Arc<dyn Random>,
    from: &Blueprint,
    to: &Blueprint,
) -> Result<Written<Vec<String>>, BlueprintError> {
    let (from, to) = (from.collections.clone(), to.collections.clone());
    tenant
        .write(meta, move |tx| {
            let plan = collections::with_context(tx, &random, |schema, context| {
                plan::plan_migrate(schema, &from, &to, context)
            })?;
            let names = changed_names(&plan);
            collections::apply(tx, &plan)?;
            Ok(names)
        })
        .await
}

fn changed_names(plan: &Plan) -> Vec<String> {
    let name = |collection: Arc<Collection>| collection.name.to_string();
    plan.changed().into_iter().filter_map(|(_, before, after)| after.or(before).map(name)).collect()
}

/// How one tenant fared in a [`roll_out`].
#[derive(Debug)]
pub struct RollOutStep {
    /// The tenant.
    pub tenant: Arc<TenantEntry>,
    /// The collections that changed; empty if it had the version already.
    pub result: Result<Vec<String>, BlueprintError>,
}

/// Brings tenants made from the blueprint `to` to its version, one after the other, and tells `progress` of each.
///
/// Safe to repeat: a tenant notes its version when it has it and is passed over then, so a run that was cut off goes on
/// where it stopped. The same call with an older version rolls back. `tenants` names slugs or ids; `None` is all.
/// Stops at the first failure, so that a canary protects the rest.
pub async fn roll_out(
    registry: &Registry,
    catalog: &Catalog,
    meta: WriteMeta,
    to: &Blueprint,
    tenants: Option<&[String]>,
    progress: &(dyn Fn(&RollOutStep) + Send + Sync),
) -> Result<usize, BlueprintError> {
    let named = |entry: &TenantEntry| {
        tenants.is_none_or(|names| names.iter().any(|name| name == entry.slug.as_str() || name == entry.id.as_str()))
    };
    let mut reached = 0;
    for tenant in all_tenants(registry) {
        let Some(present) = tenant.blueprint.clone().filter(|present| present.name == to.name) else { continue };
        if !named(&tenant) || present.version == to.version {
            continue;
        }
        let result = roll_one(registry, catalog, meta.clone(), &tenant, &present, to).await;
        let step = RollOutStep { tenant, result };
        progress(&step);
        step.result?;
        reached += 1;
    }
    Ok(reached)
}

fn all_tenants(registry: &Registry) -> Vec<Arc<TenantEntry>> {
    let mut all = Vec::new();
    for page in 1.. {
        let query = TenantQuery { page, per_page: limits::PAGE_LEN_MAX, ..TenantQuery::default() };
        let found = registry.list(&query);
        let ended = found.items.len() < limits::PAGE_LEN_MAX;
        all.extend(found.items);
        if ended {
            break;
        }
    }
    all
}

async fn roll_one(
    registry: &Registry,
    catalog: &Catalog,
    meta: WriteMeta,
    tenant: &TenantEntry,
    present: &BlueprintRef,
    to: &Blueprint,
) -> Result<Vec<String>, BlueprintError> {
    let from = catalog.find(&present.name, Some(present.version)).await?;
    let db = registry.open_any(&tenant.id).await?;
    // Migrating twice changes nothing, so a crash between the two writes is mended by the next run.
    let changed = migrate(&db, meta.clone(), catalog.random.clone(), &from, to).await?;
    let reached = BlueprintRef { name: to.name.clone(), version: to.version };
    registry.set_blueprint(meta, tenant.id.as_str(), Some(reached)).await?;
    Ok(changed.value)
}

/// What a new tenant made from `blueprint` starts with, with sample data if asked for.
pub fn contents(
    blueprint: Blueprint,
    meta: WriteMeta,
    random: Arc<dyn Random>,
    sample: Option<(SampleRequest, Arc<dyn Clock>)>,
) -> Contents {
    let fill: Fill = Box::new(move |tenant| {
        Box::pin(async move {
            let fault = |error: BlueprintError| Box::new(error) as Box<dyn Fault + Send + Sync>;
            apply(&tenant, meta, random, &blueprint).await.map_err(fault)?;
            if let Some((request, clock)) = sample {
                let filled = sample::fill(&tenant, &blueprint.name, request, clock.as_ref(), &|_, _| {}).await;
                filled.map_err(|error| fault(BlueprintError::Store(error)))?;
            }
            Ok(())
        })
    });
    Contents::Filled(fill)
}

/// How a promise of a blueprint held.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleOutcome {
    /// The promise.
    pub test: RuleTest,
    /// Whether it was kept.
    pub kept: bool,
    /// What the rule said, comparison by comparison; `None` if the test itself makes no sense.
    pub explanation: Option<Explanation>,
    /// Why the test makes no sense.
    pub problem: Option<String>,
}

/// Runs the rule tests of a blueprint on an empty tenant made from it; nothing is stored.
pub fn run_rule_tests(
    blueprint: &Blueprint,
    random: &dyn Random,
    now_ms: i64,
) -> Result<Vec<RuleOutcome>, BlueprintError> {
    let schema = preview(&Arc::new(Schema::default()), blueprint, random, now_ms)?.next;
    Ok(run_rule_tests_on(&schema, blueprint, now_ms))
}

/// Runs the rule tests of a blueprint under the rules of `schema`, such as that of a tenant as it is now.
///
/// There are no records but those that a test names, so nothing of the tenant is read and nothing changes.
pub fn run_rule_tests_on(schema: &Schema, blueprint: &Blueprint, now_ms: i64) -> Vec<RuleOutcome> {
    blueprint.rule_tests.iter().map(|test| run_rule_test(schema, test, now_ms)).collect()
}

fn run_rule_test(schema: &Schema, test: &RuleTest, now_ms: i64) -> RuleOutcome {
    match decide(schema, test, now_ms) {
        Ok(explanation) => RuleOutcome {
            test: test.clone(),
            kept: explanation.allowed == test.allowed,
            explanation: Some(explanation),
            problem: None,
        },
        Err(problem) => RuleOutcome { test: test.clone(), kept: false, explanation: None, problem: Some(problem) },
    }
}

fn decide(schema: &Schema, test: &RuleTest, now_ms: i64) -> Result<Explanation, String> {
    let find = |name: &str| schema.find(name).ok_or_else(|| format!("there is no collection {name:?}"));
    let mut given = Given::default();
    for record in &test.given {
        let collection = find(&record.collection)?;
        given.add(collection, Arc::new(record_of(collection, &record.values)?));
    }
    let (principal, auth) = match &test.caller {
        None => (Principal::Anonymous, None),
        Some(caller) => {
            let collection = find(&caller.collection)?;
            let record = record_of(collection, &caller.values)?;
            given.add(collection, Arc::new(record.clone()));
            let auth = Arc::new(AuthRecord { collection: collection.clone(), record });
            (Principal::Record(auth.clone()), Some(auth))
        }
    };
    let collection = find(&test.collection)?;
    let record = Arc::new(record_of(collection, &test.record)?);
    given.add(collection, record.clone());
    let seen = |given: &Map<String, Value>, current| body::interpret(collection, given, current, body::is_settable);
    let (action, method, body) = match test.action {
        RuleAction::List => (Action::List, "GET", Map::new()),
        RuleAction::View | RuleAction::ReadField => (Action::View, "GET", Map::new()),
        RuleAction::Create => (Action::Create, "POST", seen(&test.record, None)),
        RuleAction::Update | RuleAction::WriteField => (Action::Update, "PATCH", seen(&test.body, Some(&record))),
        RuleAction::Manage => (Action::Manage, "PATCH", seen(&test.body, Some(&record))),
        RuleAction::Delete => (Action::Delete, "DELETE", Map::new()),
    };
    let fresh = action == Action::Create;
    let request = RequestContext { method: method.into(), body, fresh, auth, now_ms, ..RequestContext::default() };
    if test.field.is_empty() {
        return decided(explain(schema, collection, action, &principal, &request, &record, &given));
    }
    let no_field = || format!("{} has no field {:?}", collection.name, test.field);
    let field = collection.find_field(&test.field).ok_or_else(no_field)?;
    let rule = if test.action == RuleAction::ReadField { &field.read_rule } else { &field.write_rule };
    decided(explain_field(schema, (collection, field), rule.as_ref(), &principal, &request, &record, &given))
}

/// A rule that could not be followed to its end keeps no promise, whichever it was.
fn decided(explanation: Explanation) -> Result<Explanation, String> {
    if explanation.decided { Ok(explanation) } else { Err(Exhausted.public().into_owned()) }
}

/// A record of a rule test: what is not given holds its default, and no field is required.
fn record_of(collection: &Collection, values: &Map<String, Value>) -> Result<RecordImage, String> {
    let id = values.get("id").and_then(Value::as_str).unwrap_or("rule0test000000");
    let id = RecordId::parse(id).map_err(|error| error.to_string())?;
    let defaults = collection.fields.iter().filter(|field| field.number.0 != 0);
    let mut image = RecordImage::new(id, defaults.map(|field| (field.number, value_check::default_value(field))));
    for (name, value) in values.iter().filter(|(name, _)| *name != "id") {
        let mut field =
            collection.find_field(name).ok_or_else(|| format!("{} has no field {name:?}", collection.name))?.clone();
        field.required = false;
        let stored = value_check::check_value(&field, value, Modifier::Set, ValueContext::default());
        image.set(field.number, stored.map_err(|detail| format!("{name}: {}", detail.message))?);
    }
    Ok(image)
}

/// The records of one rule test.
#[derive(Debug, Default)]
struct Given(Vec<(Arc<Collection>, Arc<RecordImage>)>);

impl Given {
    fn add(&mut self, collection: &Arc<Collection>, record: Arc<RecordImage>) {
        self.0.push((collection.clone(), record));
    }
}

impl Dataset for Given {
    fn find(&self, collection: &Collection, id: &str) -> Option<Arc<RecordImage>> {
        let hit = self.0.iter().find(|(owner, record)| owner.id == collection.id && record.id.as_str() == id);
        hit.map(|(_, record)| record.clone())
    }

    fn scan(&self, collection: &Collection, each: &mut dyn FnMut(&Arc<RecordImage>) -> ControlFlow<()>) {
        for (_, record) in self.0.iter().filter(|(owner, _)| owner.id == collection.id) {
            if each(record).is_break() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;

    #[test]
    fn promises_speak_of_fields_and_of_accounts_too() {
        let ada = json!({"collection": "users", "id": "ada", "role": "boss"});
        let case = |name: &str, caller: &Value, action: Value, expect: &str| {
            let mut test =
                json!({"name": name, "as": caller, "collection": "users", "record": {"id": "bob"}, "expect": expect});
            test.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
            test
        };
        let nobody = Value::Null;
        let tests = [
            case("manage", &ada, json!({"do": "manage"}), "allow"),
            case("manage as nobody", &nobody, json!({"do": "manage"}), "deny"),
            case("read", &ada, json!({"do": "read", "field": "salary"}), "allow"),
            case("read as nobody", &nobody, json!({"do": "read", "field": "salary"}), "deny"),
            case("write", &ada, json!({"do": "write", "field": "salary", "body": {"salary+": 5}}), "allow"),
            case("write too much", &ada, json!({"do": "write", "field": "salary", "body": {"salary+": 50}}), "deny"),
            case("a field without a rule", &nobody, json!({"do": "read", "field": "role"}), "allow"),
            case("a broken promise", &nobody, json!({"do": "read", "field": "salary"}), "allow"),
            case("no such field", &nobody, json!({"do": "read", "field": "wage"}), "deny"),
        ];
        let blueprint = json!({"name": "staff", "version": 1, "ruleTests": tests, "collections": [{
            "name": "users", "type": "auth", "manageRule": "@request.auth.role = 'boss'", "fields": [
                {"name": "role", "type": "text"},
                {"name": "salary", "type": "number", "readRule": "@request.auth.id != ''",
                    "writeRule": "@request.body.salary <= 10"}]}]});
        let blueprint = Blueprint::parse(&blueprint).unwrap();
        let outcomes = run_rule_tests(&blueprint, &SeededRandom::new(1), 1_780_000_000_000).unwrap();
        let broken: Vec<_> =
            outcomes.iter().filter(|outcome| !outcome.kept).map(|outcome| &*outcome.test.name).collect();
        assert_eq!(broken, ["a broken promise", "no such field"], "{outcomes:?}");
    }

    /// A rule that multiplies its rows is followed for so long; what it would have said is no promise kept, not even a denial.
    #[test]
    fn a_rule_that_is_too_much_to_follow_keeps_no_promise() {
        let given: Vec<Value> = (0..1_100).map(|n| json!({"collection": "notes", "id": format!("n{n}")})).collect();
        let test = json!({"name": "far", "do": "view", "as": null, "collection": "notes", "record": {"id": "one"},
            "given": given, "expect": "deny"});
        let rule = "@collection.notes:a.text ?= @collection.notes:b.id";
        let blueprint = json!({"name": "far", "version": 1, "ruleTests": [test], "collections": [
            {"name": "notes", "type": "base", "viewRule": rule, "fields": [{"name": "text", "type": "text"}]}]});
        let blueprint = Blueprint::parse(&blueprint).unwrap();
        let outcomes = run_rule_tests(&blueprint, &SeededRandom::new(1), 1_780_000_000_000).unwrap();
        let problem = outcomes[0].problem.as_deref().unwrap_or_default();
        assert!(!outcomes[0].kept && problem.contains("budget"), "{problem}");
    }

    #[test]
    fn shipped_blueprints_keep_their_promises() {
        for blueprint in blueprint::shipped() {
            let outcomes = run_rule_tests(&blueprint, &SeededRandom::new(1), 1_780_000_000_000).unwrap();
            for outcome in outcomes {
                assert!(
                    outcome.kept,
                    "{}: {} {:?} {:?}",
                    blueprint.name, outcome.test.name, outcome.problem, outcome.explanation
                );
            }
        }
    }
}
