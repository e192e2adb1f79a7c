//! Collection changes on a live tenant: list, read, create, change, delete, import, empty, scaffolds.
//!
//! Keeps true: a change is planned inside the write transaction against the schema as it is then, its rules resolve, and
//! it leaves no rule of another collection broken that worked before. Answers are in wire form, without secrets.
//! Does not do: asking who the caller is (superusers only, checked before), HTTP.

use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::kernel::value::Cell;
use crate::query::request::CallerClass;
use crate::query::resolve::Lens;
use crate::schema::definition::{self, CollectionInput};
use crate::schema::error::SchemaError;
use crate::schema::field::Storage;
use crate::schema::plan::{self, Plan, PlanContext, Unmentioned};
use crate::schema::{Collection, CollectionKind, Schema};
use crate::services::tenants::rows;
use crate::store::{self, Reader, StoreError, TenantDb, WriteMeta, WriteTx, Written};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

/// Collections per page when nothing is asked for and at most.
const PAGE_LEN_MAX: usize = 1_000;

/// Why something about a collection failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectionError {
    /// The definition was refused.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Rules were refused; never empty.
    #[error("{} rule(s) were refused", .0.len())]
    Rules(Vec<Detail>),
    /// A parameter of the request is not allowed: its name, what would be right.
    #[error("{name}: {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// Records of other collections point at those that should go.
    #[error("records of {collection:?} are used by {users}")]
    RecordsInUse {
        /// The collection that should be emptied.
        collection: String,
        /// The fields that point at it.
        users: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fault for CollectionError {
    fn code(&self) -> Code {
        match self {
            Self::Schema(error) => error.code(),
            Self::Rules(_) => Code::RuleInvalid,
            Self::Parameter { .. } => Code::ParameterInvalid,
            Self::RecordsInUse { .. } => Code::Conflict,
            Self::Store(error) => error.code(),
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::Schema(error) => error.public(),
            Self::Rules(details) => match details.first() {
                Some(first) => Cow::Owned(format!("The rule {} was refused: {}", first.field, first.message)),
                None => Cow::Borrowed(self.code().explanation()),
            },
            Self::Parameter { name, expected } => Cow::Owned(format!("The parameter {name} must be {expected}.")),
            Self::RecordsInUse { collection, users } => {
                Cow::Owned(format!("Records of {collection:?} are pointed at by {users}. Empty or clear these first."))
            }
            Self::Store(error) => error.public(),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::Schema(error) => error.details(),
            Self::Rules(details) => details.clone(),
            Self::Parameter { name, expected } => {
                vec![Detail::new(*name, "validation_invalid_value", format!("Must be {expected}."))]
            }
            Self::RecordsInUse { .. } => Vec::new(),
            Self::Store(error) => error.details(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Store(error) => error.retry_after_s(),
            _ => None,
        }
    }
}

/// The page of a list of collections.
#[derive(Debug, Clone, Default)]
pub struct CollectionsQuery {
    /// Page, from 1; 0 is 1.
    pub page: usize,
    /// Length of a page; 0 is the default of 30.
    pub per_page: usize,
    /// Such as `-created,name`; empty is the order of creation.
    pub sort: String,
    /// Leaves the totals out (`-1`).
    pub skip_total: bool,
}

/// Lists collections in the envelope of a record list.
pub fn list(schema: &Schema, query: &CollectionsQuery) -> Result<Value, CollectionError> {
    let mut collections: Vec<&Arc<Collection>> = schema.collections().iter().collect();
    for key in query.sort.split(',').map(str::trim).filter(|key| !key.is_empty()).rev() {
        sort_by(&mut collections, key)?;
    }
    let (page, per_page) = match (query.page.max(1), query.per_page) {
        (page, 0) => (page, limits::PAGE_LEN_DEFAULT),
        (page, len) => (page, len.min(PAGE_LEN_MAX)),
    };
    let total = collections.len();
    let items: Vec<Value> = collections
        .into_iter()
        .skip(per_page.saturating_mul(page - 1))
        .take(per_page)
        .map(|collection| definition::to_wire(collection))
        .collect();
    let (total_items, total_pages) =
        if query.skip_total { (json!(-1), json!(-1)) } else { (json!(total), json!(total.div_ceil(per_page))) };
    Ok(json!({"page": page, "perPage": per_page, "totalItems": total_items, "totalPages": total_pages, "items": items}))
}

fn sort_by(collections: &mut [&Arc<Collection>], key: &str) -> Result<(), CollectionError> {
    let (name, descending) = match key.strip_prefix('-') {
        Some(name) => (name, true),
        None => (key.strip_prefix('+').unwrap_or(key), false),
    };
    match name {
        "name" => collections.sort_by(|a, b| a.name.cmp(&b.name)),
        "id" => collections.sort_by(|a, b| a.id.cmp(&b.id)),
        "type" => collections.sort_by_key(|collection| definition::kind_name(collection.kind)),
        "system" => collections.sort_by_key(|collection| collection.system),
        "created" | "@rowid" => collections.sort_by_key(|collection| collection.created_ms),
        "updated" => collections.sort_by_key(|collection| collection.updated_ms),
        _ => {
            return Err(CollectionError::Parameter {
                name: "sort",
                expected: "made of name, id, type, system, created and updated",
            });
        }
    }
    if descending {
        collections.reverse();
    }
    Ok(())
}

/// Reads one collection by name or id.
pub fn get(schema: &Schema, name_or_id: &str) -> Result<Value, CollectionError> {
    Ok(definition::to_wire(require(schema, name_or_id)?))
}

fn require<'a>(schema: &'a Schema, name_or_id: &str) -> Result<&'a Arc<Collection>, SchemaError> {
    schema.find(name_or_id).ok_or_else(|| SchemaError::UnknownCollection(name_or_id.to_owned()))
}

/// Creates a collection from its wire form; the answer is what was made.
pub async fn create(
    tenant: &TenantDb,
    meta: WriteMeta,
    random: Arc<dyn Random>,
    body: &Value,
) -> Result<Written<Value>, CollectionError> {
    let mut input = definition::parse(body)?;
    input.system = false;
    let planning =
        move |tx: &WriteTx<'_>| with_context(tx, &random, |schema, context| plan::plan_create(schema, &input, context));
    change(tenant, meta, planning, |plan| {
        // A create changes views at most beside the collection it makes.
        let made = plan.next.collections().iter().find(|new| plan.previous.find_id(&new.id).is_none());
        made.map_or(Value::Null, |made| definition::to_wire(made))
    })
    .await
}

/// Changes a collection; what `body` does not mention stays. The answer is the collection as it became.
pub async fn update(
    tenant: &TenantDb,
    meta: WriteMeta,
    random: Arc<dyn Random>,
    name_or_id: &str,
    body: &Value,
) -> Result<Written<Value>, CollectionError> {
    let input = definition::parse(body)?;
    let (name, asked) = (name_or_id.to_owned(), name_or_id.to_owned());
    let planning = move |tx: &WriteTx<'_>| {
        with_context(tx, &random, |schema, context| plan::plan_update(schema, &name, &input, context))
    };
    change(tenant, meta, planning, move |plan| {
        let after = plan.previous.find(&asked).and_then(|before| plan.find_after(&before.id));
        after.map_or(Value::Null, |after| definition::to_wire(after))
    })
    .await
}

/// Deletes a collection with its records; refused while relations or views need it.
pub async fn delete(
    tenant: &TenantDb,
    meta: WriteMeta,
    random: Arc<dyn Random>,
    name_or_id: &str,
) -> Result<Written<()>, CollectionError> {
    let name = name_or_id.to_owned();
    let planning =
        move |tx: &WriteTx<'_>| with_context(tx, &random, |schema, context| plan::plan_delete(schema, &name, context));
    change(tenant, meta, planning, |_| ()).await
}

/// Imports `{"collections":[…],"deleteMissing":bool}` in one transaction.
pub async fn import(
    tenant: &TenantDb,
    meta: WriteMeta,
    random: Arc<dyn Random>,
    body: &Value,
) -> Result<Written<()>, CollectionError> {
    let inputs = definition::parse_many(body)?;
    let unmentioned = match body.get("deleteMissing") {
        Some(Value::Bool(true)) => Unmentioned::Delete,
        None | Some(Value::Null | Value::Bool(false)) => Unmentioned::Keep,
        Some(_) => return Err(CollectionError::Parameter { name: "deleteMissing", expected: "true or false" }),
    };
    change(tenant, meta, move |tx| plan_import(tx, &random, &inputs, unmentioned), |_| ()).await
}

/// What every change of collections is: planned on the data of its transaction, checked, run, answered.
async fn change<T: Send + 'static>(
    tenant: &TenantDb,
    meta: WriteMeta,
    planning: impl FnOnce(&WriteTx<'_>) -> Result<Plan, CollectionError> + Send + 'static,
    answer: impl FnOnce(&Plan) -> T + Send + 'static,
) -> Result<Written<T>, CollectionError> {
    tenant
        .write(meta, move |tx| {
            let plan = planning(tx)?;
            check_system_shape(&plan)?;
            apply(tx, &plan)?;
            Ok(answer(&plan))
        })
        .await
}

/// Plans an import against the schema of `tx`; blueprints come this way too.
pub(crate) fn plan_import(
    tx: &WriteTx<'_>,
    random: &Arc<dyn Random>,
    inputs: &[CollectionInput],
    unmentioned: Unmentioned,
) -> Result<Plan, CollectionError> {
    with_context(tx, random, |schema, context| plan::plan_import(schema, inputs, unmentioned, context))
}

/// Deletes every record of a collection, in batches, which are small while the disk has no room; the answer is how many.
///
/// Refused while records of other collections point at them.
pub async fn truncate(
    tenant: &TenantDb,
    meta: WriteMeta,
    name_or_id: &str,
    has_room: impl Fn() -> bool,
) -> Result<u64, CollectionError> {
    let mut deleted = 0;
    loop {
        let name = name_or_id.to_owned();
        let len = if has_room() { limits::TRUNCATE_BATCH_LEN } else { limits::TRUNCATE_BATCH_LEN_TIGHT };
        let batch = tenant.write(meta.clone(), move |tx| truncate_batch(tx, &name, len)).await?.value;
        deleted += batch as u64;
        if batch < len {
            return Ok(deleted);
        }
    }
}

fn truncate_batch(tx: &mut WriteTx<'_>, name: &str, len: usize) -> Result<usize, CollectionError> {
    let schema = Arc::clone(tx.schema());
    let collection = require(&schema, name)?;
    if collection.system || collection.is_view() {
        return Err(SchemaError::SystemCollection(name.to_owned()).into());
    }
    check_unused(tx, &schema, collection)?;
    let sql = format!("SELECT id FROM \"{}\" LIMIT {len}", collection.table());
    let mut ids = Vec::new();
    tx.for_each(&sql, &[], &mut |row| {
        if let Cell::Text(text) = row.cell(0)? {
            ids.extend(RecordId::parse(text).ok());
        }
        Ok(())
    })?;
    for id in &ids {
        if collection.is_auth() {
            rows::delete_belongings(tx, &schema, collection, id)?;
        }
        tx.delete(collection, id)?;
    }
    Ok(ids.len())
}

fn check_unused(reader: &Reader<'_>, schema: &Schema, collection: &Collection) -> Result<(), CollectionError> {
    let mut users = Vec::new();
    for (other, field) in schema.back_relations(&collection.id).filter(|(other, _)| other.id != collection.id) {
        let empty = if field.kind.storage() == Storage::List { "'[]'" } else { "''" };
        let sql = format!("SELECT 1 FROM \"{}\" WHERE {} != {empty} LIMIT 1", other.table(), field.column());
        if reader.find_one(&sql, &[], |_| Ok(()))?.is_some() {
            users.push(format!("{}.{}", other.name, field.name));
        }
    }
    match users.is_empty() {
        true => Ok(()),
        false => {
            Err(CollectionError::RecordsInUse { collection: collection.name.to_string(), users: users.join(", ") })
        }
    }
}

/// A new collection of each kind with its defaults, as a starting point for an editor.
pub fn scaffolds(random: &dyn Random) -> Result<Value, CollectionError> {
    let schema = Arc::new(Schema::default());
    let context = PlanContext { random, now_ms: 0, describe: &store::describe_in_scratch };
    let mut out = serde_json::Map::new();
    for kind in [CollectionKind::Auth, CollectionKind::Base, CollectionKind::View] {
        let name = definition::kind_name(kind);
        let mut body = json!({"name": "scaffold", "type": name});
        if kind == CollectionKind::View {
            body["viewQuery"] = json!("SELECT '' AS id");
        }
        let plan = plan::plan_create(&schema, &definition::parse(&body)?, &context)?;
        let mut wire = plan.next.collections().first().map_or(Value::Null, |made| definition::to_wire(made));
        for key in ["id", "name", "created", "updated"] {
            wire[key] = json!("");
        }
        if kind == CollectionKind::View {
            (wire["viewQuery"], wire["fields"]) = (json!(""), json!([]));
        }
        // The names of the default indexes hold the id that is still to come.
        if kind == CollectionKind::Auth {
            wire["indexes"] = json!([]);
        }
        out.insert(name.to_owned(), wire);
    }
    Ok(Value::Object(out))
}

/// Runs a planning function against the schema of `tx`, with the clock of the transaction.
pub(crate) fn with_context(
    tx: &WriteTx<'_>,
    random: &Arc<dyn Random>,
    planning: impl FnOnce(&Arc<Schema>, &PlanContext<'_>) -> Result<Plan, SchemaError>,
) -> Result<Plan, CollectionError> {
    let context = PlanContext { random: random.as_ref(), now_ms: tx.now_ms(), describe: &store::describe_in_scratch };
    Ok(planning(tx.schema(), &context)?)
}

/// Checks the rules of a plan and runs it; what accounts of a deleted collection had goes with them.
pub(crate) fn apply(tx: &mut WriteTx<'_>, plan: &Plan) -> Result<(), CollectionError> {
    check_rules(plan)?;
    apply_plan(tx, plan)?;
    let schema = Arc::clone(tx.schema());
    let gone = plan
        .changed()
        .into_iter()
        .filter(|(_, before, after)| before.as_ref().is_some_and(|it| it.is_auth()) && after.is_none());
    for (id, _, _) in gone {
        rows::delete_all_belongings(tx, &schema, &id)?;
    }
    Ok(())
}

fn apply_plan(tx: &mut WriteTx<'_>, plan: &Plan) -> Result<(), CollectionError> {
    tx.apply_schema(plan).map_err(|error| match error {
        // Such as records that share what a new unique index forbids.
        StoreError::SchemaRefused(why) => {
            SchemaError::one("indexes", "validation_not_unique", format!("The change cannot be made: {why}.")).into()
        }
        other => CollectionError::Store(other),
    })
}

/// The shape of collections that belong to Tenantry is fixed; rules, cache and login options may change.
fn check_system_shape(plan: &Plan) -> Result<(), CollectionError> {
    for (_, before, after) in plan.changed() {
        let (Some(before), Some(after)) = (before, after) else { continue };
        if before.system
            && before.name.as_str().starts_with('_')
            && (before.fields != after.fields || before.indexes != after.indexes)
        {
            return Err(SchemaError::SystemCollection(before.name.to_string()).into());
        }
    }
    Ok(())
}

/// Every rule that is new must resolve, and no rule that resolved before may stop doing so.
pub(crate) fn check_rules(plan: &Plan) -> Result<(), CollectionError> {
    let classes = caller_classes(&plan.next);
    let changed: HashSet<_> = plan.changed().into_iter().map(|(id, _, _)| id).collect();
    let mut details = Vec::new();
    for collection in plan.next.collections() {
        let before = plan.previous.find_id(&collection.id);
        for (path, text) in rule_texts(collection) {
            let Some(error) = first_error(&plan.next, &classes, collection, &text) else { continue };
            let old_classes = caller_classes(&plan.previous);
            let was_broken = before.is_some_and(|before| {
                rule_texts(before).contains(&(path.clone(), text.clone()))
                    && first_error(&plan.previous, &old_classes, before, &text).is_some()
            });
            if was_broken {
                continue;
            }
            let field = if changed.len() == 1 && changed.contains(&collection.id) {
                path
            } else {
                format!("{}.{path}", collection.name)
            };
            details.push(Detail::new(field, "validation_invalid_rule", error));
        }
    }
    if details.is_empty() { Ok(()) } else { Err(CollectionError::Rules(details)) }
}

fn caller_classes(schema: &Schema) -> Vec<CallerClass> {
    let auths = schema.collections().iter().filter(|collection| collection.is_auth());
    std::iter::once(CallerClass::Anonymous).chain(auths.map(|auth| CallerClass::Auth(auth.id.clone()))).collect()
}

fn rule_texts(collection: &Collection) -> Vec<(String, Arc<str>)> {
    let named = definition::named_rules(&collection.rules);
    let whole = named.into_iter().filter_map(|(name, rule)| Some((name.to_owned(), rule.clone()?)));
    let mfa = collection.auth.as_ref().and_then(|auth| auth.rest.get("mfa")?.get("rule")?.as_str());
    let mfa = mfa.filter(|rule| !rule.trim().is_empty()).map(|rule| ("mfa.rule".to_owned(), Arc::from(rule)));
    let fields = collection.fields.iter().enumerate().flat_map(|(at, field)| {
        [("readRule", &field.read_rule), ("writeRule", &field.write_rule)]
            .into_iter()
            .filter_map(move |(name, rule)| Some((format!("fields.{at}.{name}"), rule.clone()?)))
    });
    whole.chain(mfa).chain(fields).collect()
}

fn first_error(schema: &Schema, classes: &[CallerClass], collection: &Arc<Collection>, text: &str) -> Option<String> {
    classes
        .iter()
        .find_map(|class| Lens::new(schema, class).rule(collection, text).err())
        .map(|error| error.public().into_owned())
}

#[cfg(test)]
mod tests;
