//! Records: list, get, create, change, delete, batch, history, export and import.
//!
//! Keeps true: a handler turns a request into one call of `services::records` and its answer into bytes and headers.
//! Does not do: rules, checks, caching.

use super::auth::AuthPart;
use crate::http::body::{self, RecordBody};
use crate::http::delivery;
use crate::http::extract::Visitor;
use crate::http::front::Told;
use crate::http::middleware::TenantPrefix;
use crate::http::multipart::Target;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::error::{Code, Detail};
use crate::services::records::batch::{self, BatchOptions};
use crate::services::records::cached::Freshness;
use crate::services::records::changes;
use crate::services::records::prepared::{self, Prepared};
use crate::services::records::read::{ListRequest, View};
use crate::services::records::registering::MailGate;
use crate::services::records::write::{self, Effect, WriteAnswer, WriteRequest, WriteSource, WriteVerb};
use crate::services::records::{BatchRequest, Idempotency, RecordError, Scope};
use actix_web::{HttpMessage, HttpResponse, web};
use serde_json::{Map, Value};
use std::sync::Arc;

/// `GET …/records`
pub(crate) async fn list_records(visitor: Visitor, collection: web::Path<String>) -> Result<HttpResponse, Problem> {
    let parameters = ListRequest::from_pairs(&visitor.parameters())?;
    let scope = visitor.scope(Map::new());
    answer(&visitor, &scope, prepared::list(&scope, &collection, &parameters).await?).await
}

/// `GET …/records/{id}`
pub(crate) async fn get_record(visitor: Visitor, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (collection, id) = path.into_inner();
    let view = View::from_pairs(&visitor.parameters())?;
    let scope = visitor.scope(Map::new());
    answer(&visitor, &scope, prepared::get(&scope, &collection, &id, &view).await?).await
}

/// Answers a read that was worked out, and has it remembered for the next time.
async fn answer(visitor: &Visitor, scope: &Scope, prepared: Arc<Prepared>) -> Result<HttpResponse, Problem> {
    let served = prepared.answer(scope, freshness(visitor, scope)).await?;
    visitor.remember_read(prepared, &served);
    let (request, told) = (visitor.request(), Told::of(&served));
    Ok(delivery::read(request.head(), request.extensions().get::<TenantPrefix>(), &served.body, &served.links, &told))
}

/// `Cache-Control: no-cache` of a superuser has the answer read again; anybody else's is not honoured, because it would
/// let a stranger choose the work of the node.
fn freshness(visitor: &Visitor, scope: &Scope) -> Freshness {
    let asked = visitor.header("cache-control").is_some_and(|value| value.contains("no-cache"));
    if asked && scope.is_superuser() { Freshness::Reload } else { Freshness::Current }
}

/// `POST …/records`
pub(crate) async fn create_record(
    visitor: Visitor,
    part: web::Data<AuthPart>,
    collection: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let body = RecordBody::read(&visitor, Target::Record(&collection, WriteVerb::Create), payload).await?;
    let scope = visitor.auth_scope("default", Map::new());
    let registrar = part.auth.registrar(&scope, &collection);
    let gate = Some(registrar.gate());
    let answer = run(&visitor, WriteVerb::Create, collection.to_string(), None, body, gate).await?;
    if let Effect::Registered(Some(waiting)) = &answer.done.effect {
        part.auth.write_to_registrant(&scope, &collection, &registrar, waiting.clone())?;
    }
    Ok(written(answer))
}

/// `PATCH …/records/{id}`
pub(crate) async fn update_record(
    visitor: Visitor,
    path: web::Path<(String, String)>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let (collection, id) = path.into_inner();
    let body = RecordBody::read(&visitor, Target::Record(&collection, WriteVerb::Update), payload).await?;
    Ok(written(run(&visitor, WriteVerb::Update, collection, Some(id), body, None).await?))
}

/// `DELETE …/records/{id}`
pub(crate) async fn delete_record(
    visitor: Visitor,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let (collection, id) = path.into_inner();
    Ok(written(run(&visitor, WriteVerb::Delete, collection, Some(id), RecordBody::default(), None).await?))
}

async fn run(
    visitor: &Visitor,
    verb: WriteVerb,
    collection: String,
    id: Option<String>,
    body: RecordBody,
    mail_gate: Option<MailGate>,
) -> Result<WriteAnswer, Problem> {
    let scope = visitor.scope(body.object.clone());
    let idempotency = idempotency(visitor, &scope, &body.raw)?;
    let request = WriteRequest {
        verb,
        collection,
        id,
        body: body.object,
        uploads: body.uploads,
        if_match: visitor.header("if-match").map(plain_tags),
        view: View::from_pairs(&visitor.parameters())?,
        dry_run: visitor.flag("dryRun"),
        source: if verb == WriteVerb::Create { WriteSource::Alone } else { WriteSource::Caller },
        mail_gate,
    };
    Ok(write::write(&scope, request, idempotency).await?)
}

fn written(answer: WriteAnswer) -> HttpResponse {
    let written = match answer.done.effect {
        Effect::Deleted => respond::no_content(),
        // Without a token: it would say how many writes there were.
        Effect::Registered(_) => {
            return respond::with_write_token(respond::accepted(answer.done.answer.body), None, answer.replayed);
        }
        _ => respond::fresh(answer.done.answer),
    };
    respond::with_write_token(written, answer.token.as_ref(), answer.replayed)
}

/// The tags of `If-Match` without the content coding that a compressed answer added to them.
fn plain_tags(header: &str) -> String {
    ["-br", "-zstd", "-gzip", "-deflate"]
        .iter()
        .fold(header.to_owned(), |tags, coding| tags.replace(&format!("{coding}\""), "\""))
}

/// What `Idempotency-Key` ties this request to; `raw` is its body.
pub(crate) fn idempotency(visitor: &Visitor, scope: &Scope, raw: &[u8]) -> Result<Option<Idempotency>, RecordError> {
    let Some(key) = visitor.header("idempotency-key") else { return Ok(None) };
    let request = visitor.request();
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    Idempotency::new(key, &scope.key_owner(), request.method().as_str(), target, raw).map(Some)
}

/// `POST /api/batch`
pub(crate) async fn run_batch(visitor: Visitor, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let body = RecordBody::read(&visitor, Target::Batch, payload).await?;
    let scope = visitor.scope(Map::new());
    let idempotency = idempotency(&visitor, &scope, &body.raw)?;
    let refused = |detail: Detail| Problem::new(Code::ValidationFailed, detail.message.clone()).with_detail(detail);
    let mut requests = BatchRequest::parse(Value::Object(body.object)).map_err(refused)?;
    requests.attach(body.uploads).map_err(refused)?;
    let options = BatchOptions { dry_run: visitor.flag("dryRun"), idempotency };
    let answer = batch::run(&scope, requests, options).await.map_err(batch_problem)?;
    let (token, replayed) = (answer.token.clone(), answer.replayed);
    let id = crate::http::extract::shown_request_id(visitor.request());
    Ok(respond::with_write_token(respond::batch(answer, &id), token.as_ref(), replayed))
}

/// The one failed request of a batch, with the answer that it would have had alone.
fn batch_problem(fault: RecordError) -> Problem {
    let inner = match &fault {
        RecordError::Batch { index, fault } => Some((*index, Problem::of(&**fault))),
        _ => None,
    };
    let problem = Problem::from(fault);
    match inner {
        Some((index, inner)) => problem.with_failed_request(index, inner),
        None => problem,
    }
}

/// `GET /api/changes?since=`
pub(crate) async fn list_changes(visitor: Visitor) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let parameters = visitor.parameters();
    let since = body::number(&parameters, "since")?.unwrap_or(0);
    let limit = body::number(&parameters, "limit")?.map(|limit| usize::try_from(limit).unwrap_or(0));
    let answer = changes::list_changes(&visitor.scope(Map::new()), since, limit).await?;
    Ok(respond::json_bytes(answer.body))
}

/// `GET …/records/{id}/history`
pub(crate) async fn list_history(visitor: Visitor, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (collection, id) = path.into_inner();
    let since = body::number(&visitor.parameters(), "since")?.unwrap_or(0);
    let answer = changes::list_history(&visitor.scope(Map::new()), &collection, &id, since).await?;
    Ok(respond::json_bytes(answer.body))
}
