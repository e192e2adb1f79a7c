//! The response cache for those who run it: what it holds, forgetting, recomputing, refilling.
//!
//! Keeps true: superusers only; what names a tenant in the address acts on that tenant alone, and only the performance
//! report looks over all of them. Does not do: the cache of applications, which has routes and keys of its own; here it
//! only says how much it holds.

use crate::cache::compress::Encoding;
use crate::cache::disk::DiskState;
use crate::cache::key::{Category, KeyParts};
use crate::cache::kv::{Kv, Usage};
use crate::cache::purge::{Purge, Purged};
use crate::cache::stats::{Counts, Report, TenantReport};
use crate::cache::warm::{HotKey, Reasons};
use crate::cache::{Cache, Health};
use crate::http::body::Json;
use crate::http::extract::{NodeVisitor, Visitor};
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::error::Detail;
use crate::schema::Schema;
use crate::schema::cache_policy::{event_word, is_tag};
use crate::services::purging::PurgeHook;
use crate::services::records::{RecordError, RecordTools, replay};
use crate::services::tenants::Registry;
use crate::store::TenantDb;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Hot keys that a report names.
const HOT_SHOWN_MAX: usize = 20;
/// Answers that one verification recomputes, unless fewer are asked for.
const SAMPLE_LEN_MAX: usize = 1_000;
const SAMPLE_LEN_DEFAULT: usize = 100;
/// Keys that one request refills.
const WARM_LEN_MAX: usize = 1_024;

/// What the cache routes need.
pub(crate) struct CachePart {
    pub(crate) tools: Arc<RecordTools>,
    pub(crate) registry: Registry,
    pub(crate) purges: Option<PurgeHook>,
    /// The cache of applications, for what it holds.
    pub(crate) values: Kv,
}

impl CachePart {
    fn cache(&self) -> Option<&Cache> {
        self.tools.cache.as_ref().map(|records| records.cache())
    }
}

/// What to forget: exactly one member.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PurgeRequest {
    key: Option<String>,
    tag: Option<String>,
    event: Option<String>,
    collection: Option<String>,
    #[serde(default)]
    all: bool,
}

/// How much to recompute.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct VerifyRequest {
    sample: Option<usize>,
}

/// `GET /api/admin/performance?type=cache`: the whole node.
pub(crate) async fn get_performance(visitor: NodeVisitor, part: web::Data<CachePart>) -> Result<HttpResponse, Problem> {
    if visitor.0.text("type") != "cache" {
        return Err(Problem::about("type", "The only report there is yet is cache: ask with type=cache."));
    }
    let held = part.values.stats();
    let mut values = usage_to_wire(held.usage);
    values["bytesMax"] = json!(held.bytes_max);
    values["tenants"] = json!(held.tenants);
    let Some(cache) = part.cache() else {
        return Ok(respond::json(&json!({ "enabled": false, "values": values })));
    };
    let report = cache.stats();
    let tenants: Vec<Value> = report
        .tenants
        .iter()
        .map(|tenant| {
            let slug = part.registry.entry(&tenant.tenant).map(|entry| entry.slug.to_string());
            let schema = part.registry.find_open(&tenant.tenant).map(|open| open.schema());
            tenant_to_wire(tenant, slug, schema.as_deref())
        })
        .collect();
    let (health, why) = match cache.health() {
        Health::Ok => ("ok", None),
        Health::Degraded(why) => ("degraded", Some(why)),
    };
    let decisions: Vec<Value> = report
        .decisions
        .iter()
        .map(|made| json!({ "atMs": made.at_ms, "what": made.what, "from": made.from, "to": made.to, "why": made.why }))
        .collect();
    let disk = &report.disk;
    Ok(respond::json(&json!({
        "enabled": true,
        "health": health,
        "why": why,
        "total": counts_to_wire(&report.total),
        "memory": {
            "bytes": report.memory_bytes, "bytesMax": report.memory_bytes_max, "entries": report.memory_entries,
            "tenantBytesMax": report.share_bytes_max, "loads": report.loads, "stampBytes": report.stamp_bytes,
        },
        "disk": {
            "state": disk_word(&disk.state), "hits": disk.hits, "misses": disk.misses, "timeouts": disk.timeouts,
            "writes": disk.writes, "dropped": disk.dropped, "corrupt": disk.corrupt, "resets": disk.resets,
            "swept": disk.swept, "rotations": disk.rotations, "bytes": disk.bytes, "bytesMax": disk.bytes_max,
        },
        "compression": compression_to_wire(&report),
        "decisions": decisions,
        "decided": report.decided,
        "values": values,
        "tenants": tenants,
        "hot": hot_to_wire(cache, cache.hot_keys()),
    })))
}

/// `GET /api/admin/cache/stats`: one tenant, by collection.
pub(crate) async fn get_stats(visitor: Visitor, part: web::Data<CachePart>) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let id = visitor.tenant.id();
    let bounds = part.values.bounds();
    let mut values = usage_to_wire(part.values.usage_of(id));
    values["keysMax"] = json!(bounds.keys_max);
    values["bytesMax"] = json!(bounds.bytes_max);
    values["locksMax"] = json!(bounds.locks_max);
    let Some(cache) = part.cache() else {
        return Ok(respond::json(&json!({ "enabled": false, "values": values })));
    };
    let found = cache.stats().tenants.into_iter().find(|report| report.tenant == *id);
    let found = found.unwrap_or_else(|| TenantReport {
        tenant: id.clone(),
        total: Counts::default(),
        collections: Vec::new(),
        ages: Default::default(),
        stamp_bytes: 0,
        disk: Default::default(),
    });
    let slug = part.registry.entry(id).map(|entry| entry.slug.to_string());
    let mut shown = tenant_to_wire(&found, slug, Some(&visitor.tenant.schema()));
    shown["enabled"] = json!(true);
    shown["values"] = values;
    shown["hot"] = hot_to_wire(cache, cache.hot_keys().into_iter().filter(|hot| hot.tenant == *id).collect());
    Ok(respond::json(&shown))
}

/// `POST /api/admin/cache/purge`: `{"key":…}`, `{"tag":…}`, `{"event":…}`, `{"collection":…}` or `{"all":true}`;
/// `{purged, onDisk}`.
pub(crate) async fn purge(
    visitor: Visitor,
    part: web::Data<CachePart>,
    Json(body): Json<PurgeRequest>,
) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let purges = purges_of(body, &visitor.tenant)?;
    let mut found = Purged::default();
    if let Some(cache) = part.cache() {
        let cache = cache.tenant(visitor.tenant.id());
        for purge in &purges {
            // What an earlier one voided is not counted again.
            let Purged { answers, on_disk } = cache.purge(purge).await;
            found = Purged { answers: found.answers + answers, on_disk: found.on_disk.max(on_disk) };
        }
    }
    // After the node itself, or the others would fetch the old answer again.
    if let Some(hook) = &part.purges {
        purges.iter().for_each(|purge| pass_on(hook, purge, &visitor.tenant));
    }
    if part.cache().is_none() {
        return Ok(switched_off());
    }
    Ok(respond::json(&json!({ "purged": found.answers, "onDisk": found.on_disk })))
}

/// Caches in front of the node forget the same, or more where they have no word for it.
fn pass_on(hook: &PurgeHook, purge: &Purge, tenant: &TenantDb) {
    let name_of = |id| tenant.schema().find_id(id).map(|collection| Arc::from(collection.name.as_str()));
    match purge {
        Purge::All => hook.note_tenant(tenant.id()),
        // The word after the tenant's id, whatever it stands for.
        Purge::Tag(tag) => hook.note_tags(tenant.id(), [Arc::clone(tag)]),
        Purge::Lists(id) => hook.note_tags(tenant.id(), name_of(id).map(|name| Arc::from(format!("{name}:lists")))),
        Purge::Event(event) => hook.note_tags(tenant.id(), [Arc::from(event_word(event))]),
        Purge::Collection(id) => hook.note_tags(tenant.id(), name_of(id)),
        Purge::Key(parts) => {
            // The word of one record, where its answers carry one; other keys have none, and the collection goes.
            let record = parts.category == Category::Record && parts.digest.is_none() && is_tag(&parts.sub);
            let word = |name: Arc<str>| if record { Arc::from(format!("{name}:{}", parts.sub)) } else { name };
            hook.note_tags(tenant.id(), name_of(&parts.resource).map(word));
        }
    }
}

/// What the words of `Cache-Tag` stand for; the tenant's id in front may be left out. A word may stand for several things:
/// a policy may name a tag as a collection is named.
fn purges_of_tag(text: &str, tenant: &TenantDb) -> Vec<Purge> {
    let id = tenant.id();
    if text == id.as_str() {
        return vec![Purge::All];
    }
    let word = text.strip_prefix(id.as_str()).and_then(|rest| rest.strip_prefix(':')).unwrap_or(text);
    let mut purges = vec![Purge::Tag(Arc::from(word))];
    purges.extend(word.strip_prefix("event:").map(|event| Purge::Event(Arc::from(event))));
    let schema = tenant.schema();
    let find = |name: &str| {
        let named = schema.find(name).filter(|collection| collection.name.as_str() == name);
        named.map(|collection| collection.id.clone())
    };
    purges.extend(find(word).map(Purge::Collection));
    if let Some((name, record)) = word.split_once(':')
        && let Some(resource) = find(name)
    {
        purges.push(match record {
            "lists" => Purge::Lists(resource),
            record => {
                let (tenant, sub) = (id.clone(), record.to_owned());
                Purge::Key(KeyParts { tenant, category: Category::Record, resource, sub, digest: None })
            }
        });
    }
    purges
}

fn purges_of(body: PurgeRequest, tenant: &TenantDb) -> Result<Vec<Purge>, Problem> {
    match body {
        PurgeRequest { tag: Some(tag), key: None, event: None, collection: None, all: false } => {
            Ok(purges_of_tag(&tag, tenant))
        }
        body => purge_of(body, tenant).map(|purge| vec![purge]),
    }
}

fn purge_of(body: PurgeRequest, tenant: &TenantDb) -> Result<Purge, Problem> {
    match (body.key, body.tag, body.event, body.collection, body.all) {
        (Some(key), None, None, None, false) => {
            let parts = KeyParts::parse(&key).filter(|parts| parts.tenant == *tenant.id());
            let message = "The key is not one of this tenant's cache; GET /api/admin/cache/stats shows keys in hot.";
            parts.map(Purge::Key).ok_or_else(|| Problem::about("key", message))
        }
        (None, None, Some(event), None, false) => Ok(Purge::Event(Arc::from(event))),
        (None, None, None, Some(name), false) => {
            let found = tenant.schema().find(&name).map(|collection| collection.id.clone());
            let unknown = |name| {
                let message = format!("There is no collection {name:?}; GET /api/collections lists those there are.");
                let detail = Detail::new("collection", "validation_invalid_value", message);
                Problem::from(RecordError::UnknownCollection(name)).with_detail(detail)
            };
            Ok(Purge::Collection(found.ok_or_else(|| unknown(name))?))
        }
        (None, None, None, None, true) => Ok(Purge::All),
        named => {
            let (key, tag, event, collection, all) = named;
            let given = [
                ("key", key.is_some()),
                ("tag", tag.is_some()),
                ("event", event.is_some()),
                ("collection", collection.is_some()),
                ("all", all),
            ];
            // The second one is too many; without any, the body as a whole says nothing.
            let field = given.into_iter().filter(|(_, is)| *is).nth(1).map_or("body", |(name, _)| name);
            let message = "Exactly one of key, tag, event, collection and all says what to forget: {\"all\": true}.";
            Err(Problem::about(field, message))
        }
    }
}

/// `POST /api/admin/cache/verify`: recomputes a sample of this tenant's answers; `{equal, skipped, different, reasons}`.
pub(crate) async fn verify(
    visitor: Visitor,
    part: web::Data<CachePart>,
    Json(body): Json<VerifyRequest>,
) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let Some(cache) = part.cache() else { return Ok(switched_off()) };
    let sample = body.sample.unwrap_or(SAMPLE_LEN_DEFAULT).min(SAMPLE_LEN_MAX);
    let (tools, tenant) = (&part.tools, &visitor.tenant);
    let ask = |hot: HotKey| async move { replay::recompute(tools, tenant, &hot).await };
    let report = cache.verify(Some(tenant.id()), sample, ask).await;
    let (equal, skipped, reasons) = (report.equal, report.skipped, reasons_to_wire(&report.reasons));
    Ok(respond::json(&json!({ "equal": equal, "skipped": skipped, "different": report.different, "reasons": reasons })))
}

/// `POST /api/admin/cache/warm`: refills what was asked for often in this tenant; `{filled, present, failed, reasons}`.
pub(crate) async fn warm(visitor: Visitor, part: web::Data<CachePart>) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let Some(cache) = part.cache() else { return Ok(switched_off()) };
    let (tools, tenant) = (&part.tools, &visitor.tenant);
    let mut keys: Vec<HotKey> = cache.hot_keys().into_iter().filter(|hot| hot.tenant == *tenant.id()).collect();
    keys.truncate(WARM_LEN_MAX);
    let ask = |hot: HotKey| async move { replay::refill(tools, tenant, &hot).await };
    let report = cache.warm(keys, Duration::ZERO, ask).await;
    let (filled, present, reasons) = (report.filled, report.present, reasons_to_wire(&report.reasons));
    Ok(respond::json(&json!({ "filled": filled, "present": present, "failed": report.failed, "reasons": reasons })))
}

fn switched_off() -> HttpResponse {
    respond::json(&json!({ "enabled": false }))
}

fn usage_to_wire(usage: Usage) -> Value {
    json!({ "keys": usage.keys, "bytes": usage.bytes, "locks": usage.locks, "evictions": usage.evictions })
}

fn disk_word(state: &DiskState) -> &'static str {
    match state {
        DiskState::Off => "off",
        DiskState::Opening => "opening",
        DiskState::Ready => "ready",
        DiskState::Degraded(_) => "degraded",
    }
}

fn tenant_to_wire(report: &TenantReport, slug: Option<String>, schema: Option<&Schema>) -> Value {
    let collections: Vec<Value> = report
        .collections
        .iter()
        .map(|(id, counts)| {
            let mut shown = counts_to_wire(counts);
            shown["id"] = json!(id.as_str());
            // Without a schema no name is known; a collection that is gone has none.
            let known = schema.and_then(|schema| schema.find_id(id));
            shown["name"] = json!(known.map(|collection| collection.name.as_str()));
            shown
        })
        .collect();
    json!({
        "id": report.tenant.as_str(),
        "slug": slug,
        "total": counts_to_wire(&report.total),
        "ages": { "oldestMs": report.ages.oldest_ms, "meanMs": report.ages.mean_ms },
        "stampBytes": report.stamp_bytes,
        "disk": { "bytes": report.disk.bytes, "entries": report.disk.entries },
        "collections": collections,
    })
}

/// Everything together, and by coding with its present level.
fn compression_to_wire(report: &Report) -> Value {
    let all = report.compressed.iter().fold(Default::default(), |sum, one| one.with(&sum));
    let codings: Map<String, Value> = Encoding::CODED
        .iter()
        .zip(&report.compressed)
        .map(|(coding, done)| {
            let level = match coding {
                Encoding::Zstd => i64::from(report.levels.zstd),
                Encoding::Brotli => i64::from(report.levels.brotli),
                Encoding::Gzip | Encoding::Deflate => i64::from(report.levels.gzip),
                Encoding::Identity => 0,
            };
            let shown = json!({ "level": level, "count": done.count, "bytesIn": done.bytes_in,
                "bytesOut": done.bytes_out, "microseconds": done.micros });
            (coding.as_str().to_owned(), shown)
        })
        .collect();
    json!({ "bytesIn": all.bytes_in, "bytesOut": all.bytes_out, "codings": codings })
}

/// Every counter in camel case, and the hit rate from 0 to 1.
fn counts_to_wire(counts: &Counts) -> Value {
    let mut shown: Map<String, Value> =
        counts.rows().into_iter().map(|(name, value)| (camel(name), json!(value))).collect();
    shown.insert("hitRate".to_owned(), json!(counts.hit_rate()));
    Value::Object(shown)
}

fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut raise = false;
    for letter in name.chars() {
        match letter {
            '_' => raise = true,
            letter if raise => {
                out.push(letter.to_ascii_uppercase());
                raise = false;
            }
            letter => out.push(letter),
        }
    }
    out
}

fn hot_to_wire(cache: &Cache, keys: Vec<HotKey>) -> Value {
    let shown = |hot: HotKey| json!({ "key": hot.key, "score": hot.score, "present": cache.holds_current(&hot) });
    keys.into_iter().take(HOT_SHOWN_MAX).map(shown).collect()
}

/// Why answers were passed over, and how many for each reason.
fn reasons_to_wire(reasons: &Reasons) -> Value {
    reasons.iter().map(|(why, count)| json!({ "why": why, "count": count })).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn counters_are_named_as_json_is() {
        assert_eq!(super::camel("l1_hits"), "l1Hits");
        assert_eq!(super::camel("misses"), "misses");
    }
}
