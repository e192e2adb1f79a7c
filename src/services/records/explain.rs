//! Why somebody may or may not do something to a record or a field: every comparison of the rule with its values.
//!
//! Keeps true: only superusers are told, because the values of a rule are data; the verdict is that of the statement that
//! decides real requests, and the comparisons beside it say whether they are all there are.
//! Does not do: deciding real requests, checking what a body says.

use super::gate::{self, Subject};
use super::hint::{self, AskedRule};
use super::read;
use super::{Answer, RecordError, Scope};
use crate::access::explain::{self, Explanation};
use crate::access::{Action, Principal};
use crate::kernel::error::Detail;
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::value::{Cell, Stored};
use crate::query::eval::Dataset;
use crate::query::request::{AuthRecord, CallerClass, RequestContext};
use crate::schema::body;
use crate::schema::field::Field;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::services::tenants::system::SUPERUSERS;
use crate::store::Reader;
use serde_json::{Map, Value, json};
use std::cell::Cell as Flag;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainRequest {
    /// Name or id of the collection.
    pub collection: String,
    /// The record that it is about; a creation without one is about the record that the body would make.
    pub record: Option<String>,
    /// What is wanted.
    pub action: Action,
    /// A field whose own rule is asked: its read rule for a list or view, its write rule for a creation or change.
    pub field: Option<String>,
    /// Who would do it: an auth collection and a record id; `None` is somebody not logged in.
    pub caller: Option<(String, String)>,
    /// The query parameters that would be sent.
    pub query: BTreeMap<String, String>,
    /// The headers that would be sent; names in lower case with `_` for `-`.
    pub headers: BTreeMap<String, String>,
    /// The body that would be sent.
    pub body: Map<String, Value>,
}

/// Explains: `{allowed, rule, reason, complete, comparisons:[{source, left, right, outcome}], notShown:[{source, outcome,
/// count}]}`. Superusers only.
pub async fn explain_access(scope: &Scope, request: ExplainRequest) -> Result<Answer, RecordError> {
    let schema = scope.tenant.schema();
    let collection = read::find(&schema, &request.collection)?;
    if !scope.is_superuser() {
        return Err(RecordError::SuperuserOnly { collection: collection.name.clone(), action: "explain" });
    }
    let (run, asked) = (scope.clone(), request.clone());
    let explained = scope.tenant.read(move |reader| explain_now(reader, &run, &asked)).await;
    let explained = explained.map_err(|error| {
        let of = request.caller.as_ref().and_then(|(of, _)| schema.find(of));
        let class = &of.map_or(CallerClass::Anonymous, |of| CallerClass::Auth(of.id.clone()));
        let field = request.field.as_deref().map(|name| field_rule(collection, name, request.action));
        let rule = match field {
            None => request.action.rule_text(collection).cloned(),
            Some(found) => found.ok().and_then(|(_, rule)| rule),
        };
        let asked = AskedRule { name: "rule that is to be explained", text: rule.as_deref(), class };
        hint::explain_rule(error, scope, collection, asked)
    })?;
    Ok(Answer::new(to_json(&explained).to_string().into_bytes()))
}

fn explain_now(reader: &Reader<'_>, scope: &Scope, request: &ExplainRequest) -> Result<Explanation, RecordError> {
    let schema: &Arc<Schema> = reader.schema();
    let collection = read::find(schema, &request.collection)?;
    let principal = principal_of(reader, request)?;
    let (record, current) = match (&request.record, request.action) {
        (Some(id), _) => {
            let found = Arc::new(reader.find_record(collection, id)?.ok_or(RecordError::NotFound)?);
            (Arc::clone(&found), Some(found))
        }
        (None, Action::Create) => {
            let given = request.body.get("id").and_then(Value::as_str).and_then(|id| RecordId::parse(id).ok());
            let id = given.unwrap_or_else(|| RecordId::generate(scope.tools.random.as_ref()));
            (Arc::new(body::would_be(collection, id, &request.body)), None)
        }
        (None, _) => return Err(refused("record", "Name the record; only a creation is about none that is there.")),
    };
    let before = current.as_deref().filter(|_| request.action != Action::Create);
    let seen = seen_by_rules(scope, collection, request, &principal, before);
    let data = Snapshot { reader, beside: current.is_none().then_some((collection, &record)), cut: Flag::new(false) };
    let (rule, mut explained) = match &request.field {
        None => {
            let explained = explain::explain(schema, collection, request.action, &principal, &seen, &record, &data);
            (request.action.rule_text(collection).cloned(), explained)
        }
        Some(name) => {
            let (field, rule) = field_rule(collection, name, request.action)?;
            let place = (collection, field);
            let explained = explain::explain_field(schema, place, rule.as_ref(), &principal, &seen, &record, &data);
            (rule, explained)
        }
    };
    // Where comparisons were made, the statement has the last word: it looks at every record, however many there are.
    if explained.rule.is_some() {
        let asked = Scope { principal, ..scope.clone() };
        let subject = if current.is_some() { Subject::Stored(&record.id) } else { Subject::WouldBe(&record) };
        let allowed = gate::admits(reader, &asked, &seen, collection, &rule, subject)?;
        explained.complete &= !data.cut.get();
        if !explained.complete || allowed != explained.allowed {
            let holds = if allowed { "holds" } else { "does not hold" };
            explained.reason = format!("The rule {holds}; not every comparison is shown here.");
        }
        explained.allowed = allowed;
    }
    Ok(explained)
}

/// The request as the rule would see it, had it been sent.
fn seen_by_rules(
    scope: &Scope,
    collection: &Collection,
    request: &ExplainRequest,
    principal: &Principal,
    before: Option<&RecordImage>,
) -> RequestContext {
    RequestContext {
        context: Arc::from("default"),
        method: Arc::from(method_of(request.action)),
        query: request.query.clone(),
        headers: request.headers.clone(),
        body: body::interpret(collection, &request.body, before, body::is_settable),
        fresh: request.action == Action::Create,
        auth: principal.auth().cloned(),
        now_ms: scope.request.now_ms,
    }
}

fn principal_of(reader: &Reader<'_>, request: &ExplainRequest) -> Result<Principal, RecordError> {
    let Some((of, id)) = &request.caller else { return Ok(Principal::Anonymous) };
    let of = read::find(reader.schema(), of)?;
    let record = reader.find_record(of, id)?.ok_or(RecordError::NotFound)?;
    let auth = Arc::new(AuthRecord { collection: Arc::clone(of), record });
    Ok(if of.name.as_str() == SUPERUSERS { Principal::Superuser(auth) } else { Principal::Record(auth) })
}

fn field_rule<'collection>(
    collection: &'collection Collection,
    name: &str,
    action: Action,
) -> Result<(&'collection Field, Option<Arc<str>>), RecordError> {
    let message = format!("{} has no field {name:?}.", collection.name);
    let field = collection.find_field(name).ok_or_else(|| refused("field", &message))?;
    match action {
        Action::List | Action::View => Ok((field, field.read_rule.clone())),
        Action::Create | Action::Update => Ok((field, field.write_rule.clone())),
        _ => Err(refused("field", "A field has rules for list and view, and for create and update.")),
    }
}

fn refused(member: &str, message: &str) -> RecordError {
    RecordError::Invalid(vec![Detail::new(member, "validation_invalid_value", message)])
}

/// The method with which the action would come.
fn method_of(action: Action) -> &'static str {
    match action {
        Action::List | Action::View => "GET",
        Action::Create | Action::Auth => "POST",
        Action::Update | Action::Manage => "PATCH",
        Action::Delete => "DELETE",
    }
}

/// The records of a snapshot, as the evaluator visits them.
struct Snapshot<'a, 'r> {
    reader: &'a Reader<'r>,
    /// A record that is not there, and is looked at as if it were.
    beside: Option<(&'a Arc<Collection>, &'a Arc<RecordImage>)>,
    /// Whether there were more records than are looked at.
    cut: Flag<bool>,
}

impl Dataset for Snapshot<'_, '_> {
    fn find(&self, collection: &Collection, id: &str) -> Option<Arc<RecordImage>> {
        match self.beside {
            Some((of, record)) if of.id == collection.id && record.id.as_str() == id => Some(Arc::clone(record)),
            _ => self.reader.find_record(collection, id).ok().flatten().map(Arc::new),
        }
    }

    fn scan(&self, collection: &Collection, each: &mut dyn FnMut(&Arc<RecordImage>) -> ControlFlow<()>) {
        let beside = self.beside.filter(|(of, _)| of.id == collection.id).map(|(_, record)| record);
        if beside.is_some_and(|record| each(record).is_break()) {
            return;
        }
        let sql = format!("SELECT id FROM \"{}\" LIMIT {}", collection.table(), limits::EXPLAIN_SCAN_MAX + 1);
        let mut ids = Vec::new();
        let listed = self.reader.for_each(&sql, &[], &mut |row| {
            if let Cell::Text(id) = row.cell(0)? {
                ids.extend(RecordId::parse(id));
            }
            Ok(())
        });
        self.cut.set(self.cut.get() || listed.is_err() || ids.len() > limits::EXPLAIN_SCAN_MAX);
        // A body may name a record that is there; the one it would make stands in its place, once.
        let others = |id: &RecordId| beside.is_none_or(|record| record.id != *id);
        for id in ids.into_iter().take(limits::EXPLAIN_SCAN_MAX).filter(others) {
            let Some(record) = self.find(collection, id.as_str()) else { continue };
            if each(&record).is_break() {
                return;
            }
        }
    }
}

fn to_json(explained: &Explanation) -> Value {
    let comparisons: Vec<Value> = explained
        .comparisons
        .iter()
        .map(|seen| {
            json!({"source": seen.source, "left": value(&seen.left), "right": value(&seen.right), "outcome": seen.outcome})
        })
        .collect();
    let unseen = explained.unseen.iter();
    let unseen: Vec<Value> =
        unseen.map(|one| json!({"source": one.source, "outcome": one.outcome, "count": one.count})).collect();
    json!({
        "allowed": explained.allowed,
        "rule": explained.rule.as_deref(),
        "reason": explained.reason,
        "complete": explained.complete,
        "comparisons": comparisons,
        "notShown": unseen,
    })
}

fn value(stored: &Stored) -> Value {
    match stored {
        Stored::Null | Stored::Blob(_) => Value::Null,
        Stored::Integer(number) => Value::from(*number),
        Stored::Real(number) => Value::from(*number),
        Stored::Text(text) => Value::from(&**text),
    }
}
