//! Why somebody may or may not do something to a record: every comparison of the rule with its values.
//!
//! Keeps true: only superusers are told, because the values of a rule are data; the verdict is the evaluator's own.
//! Does not do: deciding real requests (those are decided in SQL, which means the same).

use super::read;
use super::{Answer, RecordError, Scope};
use crate::access::explain::{self, Explanation};
use crate::access::{Action, Principal};
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::value::{Cell, Stored};
use crate::query::eval::Dataset;
use crate::query::request::{AuthRecord, RequestContext};
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::store::Reader;
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainRequest {
    /// Name or id of the collection.
    pub collection: String,
    /// The record that it is about; for create, a record as it would be.
    pub record: String,
    /// What is wanted.
    pub action: Action,
    /// Who would do it: an auth collection and a record id; `None` is somebody not logged in.
    pub caller: Option<(String, String)>,
    /// The body that would be sent.
    pub body: Map<String, Value>,
}

/// Explains: `{allowed, rule, reason, comparisons:[{source, left, right, outcome}]}`. Superusers only.
pub async fn explain_access(scope: &Scope, request: ExplainRequest) -> Result<Answer, RecordError> {
    let schema = scope.tenant.schema();
    let collection = read::find(&schema, &request.collection)?;
    if !scope.is_superuser() {
        return Err(RecordError::SuperuserOnly { collection: collection.name.clone(), action: "explain" });
    }
    let context = Arc::clone(&scope.request);
    let explained = scope.tenant.read(move |reader| explain_now(reader, &context, &request)).await?;
    Ok(Answer::new(to_json(&explained).to_string().into_bytes()))
}

fn explain_now(
    reader: &Reader<'_>,
    context: &RequestContext,
    request: &ExplainRequest,
) -> Result<Explanation, RecordError> {
    let schema: &Arc<Schema> = reader.schema();
    let collection = read::find(schema, &request.collection)?;
    let principal = match &request.caller {
        None => Principal::Anonymous,
        Some((of, id)) => {
            let of = read::find(schema, of)?;
            let record = reader.find_record(of, id)?.ok_or(RecordError::NotFound)?;
            Principal::Record(Arc::new(AuthRecord { collection: Arc::clone(of), record }))
        }
    };
    let record = reader.find_record(collection, &request.record)?.ok_or(RecordError::NotFound)?;
    let context = RequestContext { body: request.body.clone(), auth: principal.auth().cloned(), ..context.clone() };
    let data = Snapshot(reader);
    let action = request.action;
    Ok(explain::explain(schema, collection, action, &principal, &context, &Arc::new(record), &data))
}

/// The records of a snapshot, as the evaluator visits them.
struct Snapshot<'a, 'r>(&'a Reader<'r>);

impl Dataset for Snapshot<'_, '_> {
    fn find(&self, collection: &Collection, id: &str) -> Option<Arc<RecordImage>> {
        self.0.find_record(collection, id).ok().flatten().map(Arc::new)
    }

    fn scan(&self, collection: &Collection, each: &mut dyn FnMut(&Arc<RecordImage>) -> ControlFlow<()>) {
        let sql = format!("SELECT id FROM \"{}\" LIMIT {}", collection.table(), limits::EXPAND_RECORDS_MAX);
        let mut ids = Vec::new();
        let listed = self.0.for_each(&sql, &[], &mut |row| {
            if let Cell::Text(id) = row.cell(0)? {
                ids.extend(RecordId::parse(id));
            }
            Ok(())
        });
        if listed.is_err() {
            return;
        }
        for id in ids {
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
    json!({
        "allowed": explained.allowed,
        "rule": explained.rule.as_deref(),
        "reason": explained.reason,
        "comparisons": comparisons,
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
