//! The cache of applications: values, counters and locks of their own.
//!
//! Keeps true: every route acts on the tenant of the request alone; only superusers and keys of superusers come here.
//! Does not do: the response cache, which no key of these routes can name; that is `cache`.

use crate::cache::kv::{Batch, Kv, Lease, SetIf, TenantKv};
use crate::http::body::{self, Json};
use crate::http::extract::Visitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::limits;
use crate::kernel::random::{self, Random};
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Characters of a lock's token: 32 of 36 letters are 165 bits.
const TOKEN_LEN: usize = 32;

/// What these handlers may touch.
pub(crate) struct ValuesPart {
    pub(crate) kv: Kv,
    pub(crate) random: Arc<dyn Random>,
}

impl ValuesPart {
    fn store(&self, visitor: &Visitor) -> Result<TenantKv, Problem> {
        visitor.require_superuser()?;
        Ok(self.kv.tenant(visitor.tenant.id()))
    }
}

/// The body of `PUT /api/cache/{key}`: any JSON value, when it ends, and under which condition it is set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SetRequest {
    value: Box<RawValue>,
    ttl_ms: Option<i64>,
    /// `absent` or `present`.
    only_if: Option<String>,
}

/// One value of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct BatchValue {
    key: String,
    value: Box<RawValue>,
    ttl_ms: Option<i64>,
}

/// The body of `POST /api/cache`: deletes, then sets, then gets; nothing of it if a value is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    #[serde(default)]
    delete: Vec<String>,
    #[serde(default)]
    set: Vec<BatchValue>,
    #[serde(default)]
    get: Vec<String>,
}

/// The body of `POST /api/cache/{key}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct IncrementRequest {
    increment: i64,
    ttl_ms: Option<i64>,
}

/// The body of every lock request; a new lock needs no token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LockRequest {
    #[serde(default)]
    token: String,
    lease_ms: Option<i64>,
}

/// `GET /api/cache/{key}`: `{key, value, ttlMs}`
pub(crate) async fn get_value(
    visitor: Visitor,
    part: web::Data<ValuesPart>,
    key: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let found = part.store(&visitor)?.find(&key);
    let (value, ttl_ms) = found.ok_or_else(|| Problem::bare(Code::KeyNotFound))?;
    Ok(respond::json(&json!({ "key": *key, "value": shown(&value), "ttlMs": ttl_ms })))
}

/// `PUT /api/cache/{key}`: `{set}`
pub(crate) async fn set_value(
    visitor: Visitor,
    part: web::Data<ValuesPart>,
    key: web::Path<String>,
    Json(body): Json<SetRequest>,
) -> Result<HttpResponse, Problem> {
    let when = match body.only_if.as_deref() {
        None => SetIf::Always,
        Some("absent") => SetIf::Absent,
        Some("present") => SetIf::Present,
        Some(other) => {
            let message = format!("onlyIf is {other:?}; it is absent or present, and left out to set in any case.");
            return Err(Problem::about("onlyIf", message));
        }
    };
    let set = part.store(&visitor)?.set(&key, stored(&body.value), body.ttl_ms, when)?;
    Ok(respond::json(&json!({ "set": set })))
}

/// `POST /api/cache/{key}`: adds; `{value}`
pub(crate) async fn increment_value(
    visitor: Visitor,
    part: web::Data<ValuesPart>,
    key: web::Path<String>,
    Json(body): Json<IncrementRequest>,
) -> Result<HttpResponse, Problem> {
    let value = part.store(&visitor)?.increment(&key, body.increment, body.ttl_ms)?;
    Ok(respond::json(&json!({ "value": value })))
}

/// `DELETE /api/cache/{key}`
pub(crate) async fn delete_value(
    visitor: Visitor,
    part: web::Data<ValuesPart>,
    key: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    if part.store(&visitor)?.delete(&key) { Ok(respond::no_content()) } else { Err(Problem::bare(Code::KeyNotFound)) }
}

/// `POST /api/cache`: `{values: {key: value or null}}` of what was asked for
pub(crate) async fn run_batch(
    visitor: Visitor,
    part: web::Data<ValuesPart>,
    Json(body): Json<BatchRequest>,
) -> Result<HttpResponse, Problem> {
    let store = part.store(&visitor)?;
    if body.delete.len() + body.set.len() + body.get.len() > limits::BATCH_LEN_MAX {
        let (most, named) = (limits::BATCH_LEN_MAX, body.delete.len() + body.set.len() + body.get.len());
        let largest = [("delete", body.delete.len()), ("set", body.set.len()), ("get", body.get.len())];
        let (field, _) = largest.into_iter().max_by_key(|(_, len)| *len).unwrap_or(("set", 0));
        let message =
            format!("{named} keys are named; delete, set and get name {most} together at most: send several.");
        return Err(Problem::about(field, message));
    }
    let set: Vec<_> = body.set.iter().map(|one| (one.key.as_str(), stored(&one.value), one.ttl_ms)).collect();
    let delete: Vec<&str> = body.delete.iter().map(String::as_str).collect();
    let get: Vec<&str> = body.get.iter().map(String::as_str).collect();
    let done = store.batch(Batch { delete: &delete, set: &set, get: &get }).map_err(|(place, refused)| {
        let own = refused.details().into_iter();
        own.fold(Problem::new(refused.code(), refused.public()), |problem, detail| {
            problem.with_detail(Detail::new(format!("set.{place}.{}", detail.field), detail.code, detail.message))
        })
    })?;
    let values: Map<String, Value> = body
        .get
        .iter()
        .zip(done.found)
        .map(|(key, value)| (key.clone(), value.as_ref().map_or(Value::Null, shown)))
        .collect();
    Ok(respond::json(&json!({ "deleted": done.deleted, "set": set.len(), "values": values })))
}

/// `GET /api/cache?prefix=&after=&limit=`: `{keys, nextAfter}`, in order
pub(crate) async fn list_keys(visitor: Visitor, part: web::Data<ValuesPart>) -> Result<HttpResponse, Problem> {
    let store = part.store(&visitor)?;
    let limit = match body::number(&visitor.parameters(), "limit")? {
        None => limits::PAGE_LEN_DEFAULT,
        Some(asked) => {
            usize::try_from(asked).ok().filter(|asked| (1..=limits::PAGE_LEN_MAX).contains(asked)).ok_or_else(|| {
                Problem::about("limit", format!("limit is {asked}; it is 1 to {}.", limits::PAGE_LEN_MAX))
            })?
        }
    };
    let page = store.keys(&visitor.text("prefix"), &visitor.text("after"), limit);
    let next = page.keys.last().filter(|_| page.more);
    Ok(respond::json(&json!({ "keys": page.keys, "nextAfter": next })))
}

/// `GET /api/locks/{name}`: `{held, fence, expiresMs}`, never the token
pub(crate) async fn get_lock(
    visitor: Visitor,
    part: web::Data<ValuesPart>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let lease = part.store(&visitor)?.lease(&name);
    let shown = lease.map_or_else(
        || json!({ "held": false }),
        |lease| json!({ "held": true, "fence": fence_text(lease), "expiresMs": lease.expires_ms }),
    );
    Ok(respond::json(&shown))
}

/// `POST /api/locks/{name}`: `{token, fence, expires}`; 409 with `Retry-After` while somebody else holds it
pub(crate) async fn acquire_lock(
    visitor: Visitor,
    part: web::Data<ValuesPart>,
    name: web::Path<String>,
    Json(body): Json<LockRequest>,
) -> Result<HttpResponse, Problem> {
    let store = part.store(&visitor)?;
    let drawn = || random::lowercase_id(part.random.as_ref(), TOKEN_LEN);
    let token = if body.token.is_empty() { drawn() } else { body.token };
    let lease = store.acquire(&name, &token, body.lease_ms.unwrap_or(30_000))?;
    Ok(lease_shown(&token, lease))
}

/// `PATCH /api/locks/{name}`: prolongs
pub(crate) async fn renew_lock(
    visitor: Visitor,
    part: web::Data<ValuesPart>,
    name: web::Path<String>,
    Json(body): Json<LockRequest>,
) -> Result<HttpResponse, Problem> {
    let lease = part.store(&visitor)?.renew(&name, &body.token, body.lease_ms.unwrap_or(30_000))?;
    Ok(lease_shown(&body.token, lease))
}

/// `DELETE /api/locks/{name}?token=`
pub(crate) async fn release_lock(
    visitor: Visitor,
    part: web::Data<ValuesPart>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    part.store(&visitor)?.release(&name, &visitor.text("token"))?;
    Ok(respond::no_content())
}

fn stored(value: &RawValue) -> Bytes {
    Bytes::from(value.get().to_owned())
}

/// Values came in as JSON; a counter is a JSON number too.
fn shown(value: &Bytes) -> Value {
    serde_json::from_slice(value).unwrap_or(Value::Null)
}

fn lease_shown(token: &str, lease: Lease) -> HttpResponse {
    respond::json(&json!({ "token": token, "fence": fence_text(lease), "expiresMs": lease.expires_ms }))
}

/// A fence has 64 bits, more than a JavaScript number holds exactly: it goes as text, padded so that texts compare.
fn fence_text(lease: Lease) -> String {
    format!("{:020}", lease.fence)
}
