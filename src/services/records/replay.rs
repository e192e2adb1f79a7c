//! Asking again: what is noted with a kept answer so that warming can refill it and verification can recompute it.
//!
//! Keeps true: only answers that depend on nobody are noted, and they are asked again as a stranger, so a replay shows
//! nothing that anybody could not read. What was noted is data: unknown versions and nonsense ask nothing.
//! Does not do: choosing what is worth refilling; the cache counts hits.

use super::cached::{self, Freshness};
use super::read::{self, ListRequest, View};
use super::{RecordError, RecordTools, Scope};
use crate::access::Principal;
use crate::kernel::ident::{CollectionId, RecordId};
use crate::query::request::RequestContext;
use crate::store::{Reader, TenantDb};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The form of the noted bytes; older ones are not asked again.
const VERSION: u8 = 1;
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

/// A question without the one who asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Replay<'text> {
    #[serde(rename = "c")]
    collection: Cow<'text, str>,
    #[serde(rename = "i", skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'text, str>>,
    #[serde(rename = "q")]
    query: BTreeMap<Cow<'text, str>, Cow<'text, str>>,
}

impl<'text> Replay<'text> {
    /// Notes a question; `None` where its parameters could be read in two ways.
    pub(super) fn of(
        collection: &'text CollectionId,
        id: Option<&'text RecordId>,
        request: &'text RequestContext,
    ) -> Option<Arc<[u8]>> {
        if PAGE_LENGTHS.iter().filter(|name| request.query.contains_key(**name)).count() > 1 {
            return None;
        }
        let known = request.query.iter().filter(|(name, _)| PARAMETERS.contains(&name.as_str()));
        let replay = Self {
            collection: Cow::Borrowed(collection.as_str()),
            id: id.map(|id| Cow::Borrowed(id.as_str())),
            query: known.map(|(name, value)| (Cow::Borrowed(&**name), Cow::Borrowed(&**value))).collect(),
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

/// Asks through the cache, which keeps the answer; whether there was one.
pub async fn refill(tools: &Arc<RecordTools>, tenant: &TenantDb, replay: &[u8]) -> bool {
    let Some(replay) = Replay::read(replay) else { return false };
    let (scope, pairs) = (stranger(tools, tenant, &replay), replay.pairs());
    match &replay.id {
        Some(id) => {
            let Ok(view) = View::from_pairs(&pairs) else { return false };
            cached::get(&scope, &replay.collection, id, &view, Freshness::Current).await.is_ok()
        }
        None => {
            let Ok(request) = ListRequest::from_pairs(&pairs) else { return false };
            cached::list(&scope, &replay.collection, &request, Freshness::Current).await.is_ok()
        }
    }
}

/// Asks past the cache: the body and the log position it was read at; `None` where the question has no answer any more.
pub async fn recompute(tools: &Arc<RecordTools>, tenant: &TenantDb, replay: &[u8]) -> Option<(Bytes, i64)> {
    let replay = Replay::read(replay)?;
    let (scope, pairs) = (stranger(tools, tenant, &replay), replay.pairs());
    let schema = tenant.schema();
    let run = scope.clone();
    let read = match &replay.id {
        Some(id) => {
            let task = read::plan_get(&scope, &schema, &replay.collection, id, &View::from_pairs(&pairs).ok()?).ok()?;
            let load = move |reader: &Reader<'_>| Ok((read::load_get(reader, &run, &task)?, reader.lsn()));
            tenant.read::<_, RecordError, _>(load).await
        }
        None => {
            let request = ListRequest::from_pairs(&pairs).ok()?;
            let task = read::plan_list(&scope, &schema, &replay.collection, &request).ok()?;
            let load = move |reader: &Reader<'_>| Ok((read::load_list(reader, &run, &task)?, reader.lsn()));
            tenant.read::<_, RecordError, _>(load).await
        }
    };
    read.ok().map(|(answer, lsn)| (answer.body, lsn))
}

fn stranger(tools: &Arc<RecordTools>, tenant: &TenantDb, replay: &Replay<'_>) -> Scope {
    let request = RequestContext {
        context: Arc::from("default"),
        method: Arc::from("GET"),
        query: replay.pairs().into_iter().collect(),
        now_ms: tools.clock.now_ms(),
        ..RequestContext::default()
    };
    Scope {
        tenant: tenant.clone(),
        by: None,
        principal: Principal::Anonymous,
        request: Arc::new(request),
        tools: Arc::clone(tools),
        request_id: Arc::from("replay"),
        ip: None,
    }
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
        let noted = Replay::of(&posts, Some(&id), &request).unwrap();
        let replay = Replay::read(&noted).unwrap();
        assert_eq!((&*replay.collection, replay.id.as_deref()), ("posts", Some("abcdefghijklmno")));
        let pairs: Vec<_> = query[..2].iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(replay.pairs(), pairs, "what no plan reads is left out");
        for nonsense in [&b""[..], b"\x01", b"\x02{}", b"\x01{\"c\":1}"] {
            assert!(Replay::read(nonsense).is_none());
        }
    }

    #[test]
    fn two_names_of_the_page_length_are_not_noted() {
        let query = ["limit", "perPage"].map(|name| (name.to_owned(), "5".to_owned()));
        let request = RequestContext { query: query.into_iter().collect(), ..RequestContext::default() };
        assert!(Replay::of(&CollectionId::parse("posts").unwrap(), None, &request).is_none());
    }
}
