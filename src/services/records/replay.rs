//! Asking again: what is noted with a kept answer so that warming can refill it and verification can recompute it.
//!
//! Keeps true: only answers that are the same for every caller of a class are noted, with that class, and they are asked
//! again as somebody of it of whom nothing is known; where the plan would read anything of the caller by now, nothing is
//! asked, nor where it is filed under another key though the schema is what it was. Verification asks no other key at all;
//! warming follows a question to the key that another schema gives it. Of the values by which a policy's `key` keeps answers
//! apart a digest is noted, no value: it files the answer, and shapes none. What was noted is data: unknown versions and
//! nonsense ask nothing. Whoever is not asked is told why.
//! Does not do: choosing what is worth refilling; the cache counts hits.

use super::cached::Freshness;
use super::prepared::{self, KeyValues, Prepared};
use super::read::{ListRequest, View};
use super::{RecordTools, Scope};
use crate::access::Principal;
use crate::cache::warm::{HotKey, Refill};
use crate::kernel::ident::{CollectionId, RecordId};
use crate::query::request::{AuthRecord, CallerClass, RequestContext};
use crate::query::resolve::Reach;
use crate::schema::record::RecordImage;
use crate::store::TenantDb;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The form of the noted bytes; older ones are not asked again.
const VERSION: u8 = 3;
/// How superusers are noted; no id of a collection.
const SUPERUSERS: &str = "*";
/// The id of somebody of whom nothing is known.
const SOMEBODY: &str = "000000000000000";
/// Parameters that shape an answer. Whatever else an address carries is not read by a plan that can be replayed.
const PARAMETERS: [&str; 16] = [
    "page",
    "perPage",
    "pageSize",
    "limit",
    "skipTotal",
    "filter",
    "sort",
    "sortBy",
    "sortDir",
    "fields",
    "excludeFields",
    "expand",
    "search",
    "cursor",
    "aggregate",
    "group",
];
/// Other names of one parameter; their order in the address counts, and is not kept.
const PAGE_LENGTHS: [&str; 3] = ["perPage", "pageSize", "limit"];

/// A question with the class of the one who asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Replay<'text> {
    /// The version of the schema by which it was filed.
    #[serde(rename = "v")]
    schema: i64,
    #[serde(rename = "c")]
    collection: Cow<'text, str>,
    #[serde(rename = "i", skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'text, str>>,
    /// [`SUPERUSERS`], or the auth collection; strangers if left out.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    who: Option<Cow<'text, str>>,
    #[serde(rename = "q")]
    query: BTreeMap<Cow<'text, str>, Cow<'text, str>>,
    /// The policy's `key`, where it has one, and the values that were found there.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    by: Option<KeyValues>,
}

/// What the note is of an answer that cannot be asked for.
const UNREADABLE: &str = "it was noted by another version";
const NO_CLASS: &str = "the collection of whoever asked is gone";
const NO_QUESTION: &str = "the question is not valid any more";
const READS_CALLER: &str = "the answer depends on who asks by now";
const OTHER_KEY: &str = "the policy files it under another key by now";
const NOT_KEPT: &str = "the policy keeps no such answer any more";
const NO_ANSWER: &str = "reading it failed";

impl<'text> Replay<'text> {
    /// Notes a question; `None` where its parameters could be read in two ways.
    pub(super) fn of(
        schema: i64,
        collection: &'text CollectionId,
        id: Option<&'text RecordId>,
        request: &'text RequestContext,
        class: &'text CallerClass,
        by: Option<&KeyValues>,
    ) -> Option<Arc<[u8]>> {
        if PAGE_LENGTHS.iter().filter(|name| request.query.contains_key(**name)).count() > 1 {
            return None;
        }
        let known = request.query.iter().filter(|(name, _)| PARAMETERS.contains(&name.as_str()));
        let replay = Self {
            schema,
            collection: Cow::Borrowed(collection.as_str()),
            id: id.map(|id| Cow::Borrowed(id.as_str())),
            who: match class {
                CallerClass::Anonymous => None,
                CallerClass::Superuser => Some(Cow::Borrowed(SUPERUSERS)),
                CallerClass::Auth(collection) => Some(Cow::Borrowed(collection.as_str())),
            },
            query: known.map(|(name, value)| (Cow::Borrowed(&**name), Cow::Borrowed(&**value))).collect(),
            by: by.cloned(),
        };
        let mut out = vec![VERSION];
        serde_json::to_writer(&mut out, &replay).ok()?;
        Some(Arc::from(out))
    }

    fn read(bytes: &'text [u8]) -> Option<Self> {
        let (&VERSION, text) = bytes.split_first()? else { return None };
        serde_json::from_slice(text).ok()
    }

    fn pairs(&self) -> Vec<(String, String)> {
        self.query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }
}

/// Asks through the cache, which keeps the answer; what came of it.
pub async fn refill(tools: &Arc<RecordTools>, tenant: &TenantDb, hot: &HotKey) -> Refill {
    let (scope, prepared) = match prepare(tools, tenant, hot).await {
        Ok(found) => found,
        Err(why) => return Refill::Failed(why),
    };
    let moved = if prepared.is_filed_under(&hot.key) { None } else { Some(prepared.noted(&scope)) };
    match (prepared.answer(&scope, Freshness::Current).await, moved) {
        (Ok(_), None) => Refill::Filled,
        (Ok(_), Some(Some((key, replay)))) => Refill::Moved(key, replay),
        (Ok(_), Some(None)) => Refill::Failed(NOT_KEPT),
        (Err(_), _) => Refill::Failed(NO_ANSWER),
    }
}

/// Asks past the cache: the body and the log position it was read at, or why that cannot be had any more.
pub async fn recompute(
    tools: &Arc<RecordTools>,
    tenant: &TenantDb,
    hot: &HotKey,
) -> Result<(Bytes, i64), &'static str> {
    let (scope, prepared) = prepare(tools, tenant, hot).await?;
    if !prepared.is_filed_under(&hot.key) {
        return Err(OTHER_KEY);
    }
    prepared.recompute(&scope).await.ok_or(NO_ANSWER)
}

/// The question noted with `hot`, or why it is not the one whose answers were kept under that key.
async fn prepare(
    tools: &Arc<RecordTools>,
    tenant: &TenantDb,
    hot: &HotKey,
) -> Result<(Scope, Arc<Prepared>), &'static str> {
    let replay = Replay::read(&hot.replay).ok_or(UNREADABLE)?;
    let (scope, pairs) = (scope_of(tools, tenant, &replay).ok_or(NO_CLASS)?, replay.pairs());
    let by = replay.by.as_ref();
    let prepared = match &replay.id {
        Some(id) => {
            let view = View::from_pairs(&pairs).map_err(|_| NO_QUESTION)?;
            prepared::get_by(&scope, &replay.collection, id, &view, by).await
        }
        None => {
            let request = ListRequest::from_pairs(&pairs).map_err(|_| NO_QUESTION)?;
            prepared::list_by(&scope, &replay.collection, &request, by).await
        }
    };
    let prepared = prepared.map_err(|_| NO_QUESTION)?;
    if !prepared.reads_nobody() {
        return Err(READS_CALLER);
    }
    // Another schema files every question elsewhere, but a policy with another `key` files this one nowhere.
    let same_key = prepared.is_keyed_as(by);
    let known = prepared.schema_version() != replay.schema || prepared.is_filed_under(&hot.key);
    if same_key && known { Ok((scope, prepared)) } else { Err(OTHER_KEY) }
}

/// Somebody of the class that was noted; `None` where there is no such class any more.
fn principal_of(tenant: &TenantDb, who: Option<&str>) -> Option<Principal> {
    match who {
        None => Some(Principal::Anonymous),
        Some(SUPERUSERS) => Some(Principal::System),
        Some(id) => {
            let schema = tenant.schema();
            let collection = schema.find_id(&CollectionId::parse(id).ok()?).filter(|found| found.is_auth())?;
            let record = RecordImage::new(RecordId::parse(SOMEBODY).ok()?, []);
            Some(Principal::Record(Arc::new(AuthRecord { collection: Arc::clone(collection), record })))
        }
    }
}

fn scope_of(tools: &Arc<RecordTools>, tenant: &TenantDb, replay: &Replay<'_>) -> Option<Scope> {
    let principal = principal_of(tenant, replay.who.as_deref())?;
    let request = RequestContext {
        context: Arc::from("default"),
        method: Arc::from("GET"),
        query: replay.pairs().into_iter().collect(),
        auth: principal.auth().cloned(),
        now_ms: tools.clock.now_ms(),
        ..RequestContext::default()
    };
    Some(Scope {
        tenant: tenant.clone(),
        reach: Reach::EVERYWHERE,
        by: None,
        principal,
        request: Arc::new(request),
        tools: Arc::clone(tools),
        request_id: Arc::from("replay"),
        ip: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_its_note() {
        let query = [("filter", "a = \"ü\""), ("page", "2"), ("utm", "x")];
        let request = RequestContext {
            query: query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..RequestContext::default()
        };
        let (posts, id) = (CollectionId::parse("posts").unwrap(), RecordId::parse("abcdefghijklmno").unwrap());
        let noted = Replay::of(7, &posts, Some(&id), &request, &CallerClass::Anonymous, None).unwrap();
        let replay = Replay::read(&noted).unwrap();
        assert_eq!((&*replay.collection, replay.id.as_deref()), ("posts", Some("abcdefghijklmno")));
        assert_eq!((&replay.who, replay.schema), (&None, 7));
        let users = CollectionId::parse("pbc_users").unwrap();
        for (class, who) in [(CallerClass::Superuser, SUPERUSERS), (CallerClass::Auth(users), "pbc_users")] {
            let noted = Replay::of(7, &posts, None, &request, &class, None).unwrap();
            assert_eq!(Replay::read(&noted).unwrap().who.as_deref(), Some(who));
        }
        let pairs: Vec<_> = query[..2].iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(replay.pairs(), pairs, "what no plan reads is left out");
        for nonsense in [&b""[..], b"\x02{\"c\":\"posts\",\"q\":{}}", b"\x03", b"\x04{}", b"\x03{\"v\":1,\"c\":1}"] {
            assert!(Replay::read(nonsense).is_none());
        }
    }

    #[test]
    fn two_names_of_the_page_length_are_not_noted() {
        let query = ["limit", "perPage"].map(|name| (name.to_owned(), "5".to_owned()));
        let request = RequestContext { query: query.into_iter().collect(), ..RequestContext::default() };
        let posts = CollectionId::parse("posts").unwrap();
        assert!(Replay::of(7, &posts, None, &request, &CallerClass::Anonymous, None).is_none());
    }
}
