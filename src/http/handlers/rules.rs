//! Rules under a lamp: why one holds, which look like mistakes, what a stranger can read.
//!
//! Keeps true: only superusers are told. Does not do: deciding real requests.

use crate::access::Action;
use crate::access::lint::{self, Reach, Severity};
use crate::http::body::Json;
use crate::http::extract::Visitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::error::Code;
use crate::services::records::explain::{self, ExplainRequest};
use actix_web::HttpResponse;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The body of a question: `{collection, record, action, field?, caller: {collection, id}?, query?, headers?, body?}`; a
/// creation needs no record.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainBody {
    collection: String,
    record: Option<String>,
    action: String,
    field: Option<String>,
    caller: Option<CallerBody>,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Map<String, Value>,
}

/// Who would do it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallerBody {
    collection: String,
    id: String,
}

/// `POST /api/rules/explain`
pub(crate) async fn explain_rule(visitor: Visitor, Json(body): Json<ExplainBody>) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let known = |action: &&Action| action.rule_name().strip_suffix("Rule") == Some(body.action.as_str());
    let action = *Action::ALL.iter().find(known).ok_or_else(|| {
        let message = "The action is one of list, view, create, update, delete, manage, auth.";
        Problem::new(Code::ParameterInvalid, message)
    })?;
    let caller = body.caller.map(|caller| (caller.collection, caller.id));
    let named = |(name, value): (String, String)| (name.to_ascii_lowercase().replace('-', "_"), value);
    let request = ExplainRequest {
        collection: body.collection,
        record: body.record,
        action,
        field: body.field,
        caller,
        query: body.query,
        headers: body.headers.into_iter().map(named).collect(),
        body: body.body,
    };
    let answer = explain::explain_access(&visitor.scope(Map::new()), request).await?;
    Ok(respond::json_bytes(answer.body))
}

/// `GET /api/rules/lint`: what its author should know about each rule, worst first.
pub(crate) async fn lint_rules(visitor: Visitor) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let items: Vec<Value> = lint::lint(&visitor.tenant.schema())
        .iter()
        .map(|finding| {
            let severity = match finding.severity {
                Severity::Notice => "notice",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            json!({
                "severity": severity, "collection": finding.collection.as_str(), "rule": finding.rule,
                "message": finding.message,
            })
        })
        .collect();
    Ok(respond::json(&json!({ "items": items })))
}

/// `GET /api/rules/strangers`: what somebody who is not logged in can read.
pub(crate) async fn list_stranger_reach(visitor: Visitor) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let word = |reach| match reach {
        Reach::Nothing => "nothing",
        Reach::Some => "some",
        Reach::Everything => "everything",
    };
    let items: Vec<Value> = lint::what_a_stranger_reads(&visitor.tenant.schema())
        .iter()
        .map(|report| {
            json!({
                "collection": report.collection.as_str(), "list": word(report.list), "view": word(report.view),
                "fields": report.fields, "fieldsSometimes": report.fields_sometimes,
            })
        })
        .collect();
    Ok(respond::json(&json!({ "items": items })))
}
