//! What a write needs before its transaction: new passwords hashed, the old one checked, and neither for what rules refuse.
//!
//! Keeps true: nothing slow is done for a write that the rules are found to refuse; what is decided here is decided again
//! in the transaction. Does not do: storing.

use super::account::{self, Prepared, StoredPassword};
use super::gate::{self, Subject};
use super::hint::{self, AskedRule};
use super::write::{WriteRequest, WriteVerb};
use super::{RecordError, Scope, registering};
use crate::kernel::error::Detail;
use crate::kernel::ident::RecordId;
use crate::kernel::value::Stored;
use crate::query::request::RequestContext;
use crate::schema::body;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::secrets::Secret;
use crate::services::passwords;
use crate::services::tenants::rows;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Prepares a write: what the rules refuse to this very body, as things are now, costs no hash. A write that is let through after
/// all is to be prepared by [`prepare`] then.
pub(super) async fn prepare_alone(scope: &Scope, request: &WriteRequest) -> Result<Prepared, RecordError> {
    let schema = scope.tenant.schema();
    let sets_password = |collection: &&Arc<Collection>| account::sets_password(collection, &request.body);
    match schema.find(&request.collection).filter(sets_password) {
        Some(collection) if !is_admitted(scope, collection, request).await? => Ok(Prepared::left_out()),
        _ => prepare(scope, request).await,
    }
}

/// Whether the rules, and what holds for registrations, let the write through as things are now; its transaction asks again.
async fn is_admitted(scope: &Scope, collection: &Arc<Collection>, request: &WriteRequest) -> Result<bool, RecordError> {
    if scope.is_superuser() {
        return Ok(true);
    }
    let (seen, schema) = (seen_by_rules(scope, collection, request, None), scope.tenant.schema());
    let may_create = || may_create(scope, &schema, collection, request, Some(&seen));
    match request.verb {
        WriteVerb::Create => may_create(),
        WriteVerb::Update => may_update(scope, collection, request).await,
        WriteVerb::Upsert => Ok(may_create()? || may_update(scope, collection, request).await?),
        WriteVerb::Delete => Ok(true),
    }
}

/// Whether the record may be made, or may wait to be, as far as the request `seen` tells, or the caller alone.
fn may_create(
    scope: &Scope,
    schema: &Arc<Schema>,
    collection: &Arc<Collection>,
    request: &WriteRequest,
    seen: Option<&RequestContext>,
) -> Result<bool, RecordError> {
    Ok(!gate::refuses_all(scope, schema, collection, &collection.rules.create, seen)?
        && registering::refuse_early(scope, schema, collection, request, seen).is_ok())
}

/// Whether the record is there and its rule lets it be changed.
async fn may_update(scope: &Scope, collection: &Arc<Collection>, request: &WriteRequest) -> Result<bool, RecordError> {
    let id = request.id.as_deref().or_else(|| request.body.get("id").and_then(Value::as_str));
    let Some(id) = id.and_then(|id| RecordId::parse(id).ok()) else { return Ok(false) };
    let (run, of, request) = (scope.clone(), Arc::clone(collection), request.clone());
    let asked = scope.tenant.read(move |reader| {
        let Some(current) = reader.find_record(&of, id.as_str())? else { return Ok(false) };
        let seen = seen_by_rules(&run, &of, &request, Some(&current));
        gate::admits(reader, &run, &seen, &of, &of.rules.update, Subject::Stored(&id))
    });
    asked.await.map_err(|error| {
        let (text, class) = (collection.rules.update.as_deref(), &scope.class());
        hint::explain_rule(error, scope, collection, AskedRule { name: "update rule", text, class })
    })
}

fn seen_by_rules(
    scope: &Scope,
    collection: &Collection,
    request: &WriteRequest,
    current: Option<&RecordImage>,
) -> RequestContext {
    let body = body::interpret(collection, &request.body, current, body::is_settable);
    let (method, fresh) = (method_seen(scope, request.verb, current), current.is_none());
    RequestContext { method, body, fresh, ..(*scope.request).clone() }
}

/// The method as rules see it: an upsert is what it does.
pub(super) fn method_seen(scope: &Scope, verb: WriteVerb, current: Option<&RecordImage>) -> Arc<str> {
    match (verb, current) {
        (WriteVerb::Upsert, None) => Arc::from("POST"),
        (WriteVerb::Upsert, Some(_)) => Arc::from("PATCH"),
        _ => Arc::clone(&scope.request.method),
    }
}

/// Does what is slow and needs no transaction, unless the rules refuse the caller whatever is written: hashing passwords,
/// checking the old one.
pub(super) async fn prepare(scope: &Scope, request: &WriteRequest) -> Result<Prepared, RecordError> {
    let schema = scope.tenant.schema();
    let Some(collection) = schema.find(&request.collection) else { return Ok(Prepared::default()) };
    if request.verb == WriteVerb::Delete || !account::sets_password(collection, &request.body) {
        return Ok(Prepared::default());
    }
    if !may_pass(scope, &schema, collection, request)? {
        return Ok(Prepared::left_out());
    }
    let id = request.id.clone().or_else(|| request.body.get("id").and_then(Value::as_str).map(str::to_owned));
    let current = match id {
        Some(id) => find_current(scope, collection, id).await?,
        None => None,
    };
    let refused = refused_password(scope, collection, &request.body, current.as_ref()).await;
    if refused.is_some() {
        // It costs no hash.
        return Ok(Prepared::refusing(refused));
    }
    let stored = current.filter(|_| request.body.contains_key("oldPassword"));
    account::prepare(scope, collection, &request.body, stored.and_then(|current| current.password)).await
}

async fn refused_password(
    scope: &Scope,
    collection: &Collection,
    body: &Map<String, Value>,
    current: Option<&Current>,
) -> Option<Detail> {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    // The account's own, whoever sets the password.
    let emails = [text("email"), current.map(|current| current.email.as_str()).unwrap_or_default()];
    let (registry, password) = (scope.tools.registry.as_ref(), Secret::new(text("password")));
    passwords::refusal(registry, &scope.tenant, collection, &emails, &password).await
}

/// Whether the rules let the write through as far as can be told before its transaction; where they do not, no hash is made.
fn may_pass(
    scope: &Scope,
    schema: &Arc<Schema>,
    collection: &Arc<Collection>,
    request: &WriteRequest,
) -> Result<bool, RecordError> {
    let may_create = || may_create(scope, schema, collection, request, None);
    let may_update =
        || Ok::<_, RecordError>(!gate::refuses_all(scope, schema, collection, &collection.rules.update, None)?);
    match request.verb {
        WriteVerb::Create => may_create(),
        WriteVerb::Update => may_update(),
        WriteVerb::Upsert => Ok(may_create()? || may_update()?),
        WriteVerb::Delete => Ok(false),
    }
}

/// What an account has before its password is set.
struct Current {
    email: String,
    password: Option<StoredPassword>,
}

async fn find_current(scope: &Scope, collection: &Arc<Collection>, id: String) -> Result<Option<Current>, RecordError> {
    let Some(field) = account::password_field(collection).map(|field| field.number) else { return Ok(None) };
    let collection = Arc::clone(collection);
    scope
        .tenant
        .read(move |reader| {
            let Some(record) = reader.find_record(&collection, &id)? else { return Ok(None) };
            let hash = record.get(field).and_then(Stored::as_text);
            Ok::<_, RecordError>(Some(Current {
                email: rows::text(&collection, &record, "email").to_owned(),
                password: hash.map(|hash| StoredPassword { account: id.clone(), hash: hash.to_owned() }),
            }))
        })
        .await
}
