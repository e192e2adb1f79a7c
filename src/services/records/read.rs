//! Reading records: lists, single records, totals.
//!
//! Keeps true: an answer is a pure function of one snapshot, the plan and the request, so that it can be cached under
//! [`ListTask::cache_key`] or [`GetTask::cache_key`] with [`ListTask::facts`] as what it depends on. The rule is part
//! of the statement, so neither pages nor totals reveal a row that it hides.
//! Does not do: SQL (that is `query`), the cache, HTTP.

use super::gate;
use super::hint::{self, Question as Costly};
use super::keeping::Keeping;
use super::page::{PageLoad, Place};
use super::plans::{Access, AggregateWork, GetWork, ListWork, PlanKey, Question};
use super::{Answer, RecordError, Scope};
use crate::cache::key::Category;
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::error::QueryError;
use crate::query::list::ListQuery;
use crate::query::page::{Cursor, sort_text};
use crate::query::request::RequestContext;
use crate::query::resolved::Facts;
use crate::query::select::{ExpandTree, Selection};
use crate::schema::{Collection, Schema};
use crate::store::{Reader, StoreError};
use std::sync::Arc;

/// A list request: what was asked, and the text by which its plan is remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct ListRequest {
    /// What was asked.
    pub query: ListQuery,
    text: Arc<str>,
    /// Where an export goes on; it never leaves the process and is as long as it has to be.
    pub(super) resumed: Option<Cursor>,
}

/// Parameters that shape a plan; the others only fill it in.
const PLAN_PARAMETERS: [&str; 10] =
    ["filter", "sort", "sortBy", "sortDir", "fields", "excludeFields", "expand", "search", "aggregate", "group"];

impl ListRequest {
    /// Reads decoded query parameters.
    pub fn parse<'p>(parameters: impl IntoIterator<Item = (&'p str, &'p str)> + Clone) -> Result<Self, QueryError> {
        let query = ListQuery::parse(parameters.clone())?;
        Ok(Self { query, text: text_of(parameters, &PLAN_PARAMETERS), resumed: None })
    }

    /// Reads owned pairs, as a batch has them.
    pub fn from_pairs(pairs: &[(String, String)]) -> Result<Self, RecordError> {
        Ok(Self::parse(borrowed(pairs))?)
    }

    /// The same question page by page, from the beginning, without a total.
    pub(super) fn for_export(mut self) -> Self {
        self.query.cursor = Some(Arc::from(""));
        self.query.skip_total = true;
        self.query.per_page = limits::PAGE_LEN_MAX;
        self
    }

    /// Goes on at a place.
    pub(super) fn resume(&mut self, cursor: Cursor) {
        self.resumed = Some(cursor);
    }
}

/// What of one record is answered: `fields`, `excludeFields`, `expand`.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    selection: Selection,
    expand: ExpandTree,
    text: Arc<str>,
}

impl Default for View {
    fn default() -> Self {
        Self { selection: Selection::everything(), expand: ExpandTree::default(), text: Arc::from("") }
    }
}

impl View {
    /// Reads decoded query parameters; others are left alone.
    pub fn parse<'p>(parameters: impl IntoIterator<Item = (&'p str, &'p str)> + Clone) -> Result<Self, QueryError> {
        let last = |wanted: &str| last_of(parameters.clone(), wanted);
        let selection = Selection::parse(last("fields"), last("excludeFields"))?;
        let expand = ExpandTree::parse(last("expand"))?;
        let text = text_of(parameters.clone(), &["fields", "excludeFields", "expand"]);
        Ok(Self { selection, expand, text })
    }

    /// Reads owned pairs, as a batch has them.
    pub fn from_pairs(pairs: &[(String, String)]) -> Result<Self, RecordError> {
        Ok(Self::parse(borrowed(pairs))?)
    }

    /// What the record embeds.
    pub(super) fn expand(&self) -> &ExpandTree {
        &self.expand
    }
}

fn borrowed(pairs: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> + Clone {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

/// The value that counts of a parameter; empty where it is not there.
fn last_of<'p>(parameters: impl IntoIterator<Item = (&'p str, &'p str)>, wanted: &str) -> &'p str {
    let found = parameters.into_iter().filter(|(name, _)| *name == wanted).last();
    found.map(|(_, value)| value).unwrap_or_default()
}

/// The named parameters as one text, each as it counts: the last of equal ones, and none where that is empty. Lengths keep
/// two different requests from giving one text.
fn text_of<'p>(parameters: impl IntoIterator<Item = (&'p str, &'p str)> + Clone, names: &[&str]) -> Arc<str> {
    let mut text = String::new();
    for name in names {
        let value = last_of(parameters.clone(), name);
        if value.is_empty() {
            continue;
        }
        text.push_str(name);
        text.push_str(&value.len().to_string());
        text.push(':');
        text.push_str(value);
    }
    Arc::from(text)
}

/// A list that is planned and may be loaded from any snapshot with the same schema.
#[derive(Debug, Clone)]
pub struct ListTask {
    schema: Arc<Schema>,
    collection: Arc<Collection>,
    request: ListRequest,
    place: Place,
    work: Work,
}

#[derive(Debug, Clone)]
enum Work {
    Page(Arc<ListWork>),
    Totals(Arc<AggregateWork>),
}

impl ListTask {
    /// What the answer depends on besides the request.
    pub fn facts(&self) -> &Facts {
        match &self.work {
            Work::Page(work) => &work.plan.facts,
            Work::Totals(work) => &work.plan.facts,
        }
    }

    /// What a rule leaves to be checked.
    pub(super) fn access(&self) -> Access {
        match &self.work {
            Work::Page(work) => work.access,
            Work::Totals(work) => work.access,
        }
    }

    /// How answers are kept.
    pub(super) fn keeping(&self) -> &Keeping {
        match &self.work {
            Work::Page(work) => &work.keeping,
            Work::Totals(work) => &work.keeping,
        }
    }

    /// The only partition of the collection that the filter lets through.
    pub(super) fn partition(&self, request: &RequestContext) -> Option<Stored> {
        // Ranks are weighed by the whole index, so a search is never about one partition alone.
        let found = match &self.work {
            _ if self.request.query.search.is_some() => None,
            Work::Page(work) => work.plan.partition.as_ref(),
            Work::Totals(work) => work.plan.partition.as_ref(),
        };
        found.and_then(|pinned| pinned.value(request))
    }

    /// Whether the answer has cursors.
    pub(super) fn walks(&self) -> bool {
        self.place != Place::Page
    }

    /// The kind of question, for cache keys and statistics.
    pub(super) fn category(&self) -> Category {
        match &self.work {
            Work::Totals(_) => Category::Aggregate,
            Work::Page(_) if self.request.query.search.is_some() => Category::Search,
            Work::Page(_) => Category::List,
        }
    }

    fn page<'a>(&'a self, reader: &'a Reader<'a>, scope: &'a Scope, work: &'a ListWork) -> PageLoad<'a> {
        let query = &self.request.query;
        PageLoad { reader, scope, collection: &self.collection, query, place: &self.place, work }
    }

    /// What was asked.
    pub(super) fn query(&self) -> &ListQuery {
        &self.request.query
    }

    /// The collection that is listed.
    pub fn collection(&self) -> &Arc<Collection> {
        &self.collection
    }

    /// Bytes that differ whenever two answers may differ, given the same data; the caller is in them only as far as a
    /// rule reads the caller.
    pub fn cache_key(&self, request: &RequestContext) -> Vec<u8> {
        let arguments = self.place.arguments(&self.request.query);
        let mut key = match &self.work {
            Work::Page(work) => work.plan.cache_key(request, &arguments),
            Work::Totals(work) => {
                let mut key = work.plan.statement.sql.as_bytes().to_vec();
                for value in work.plan.statement.fill(request, &arguments) {
                    key.extend_from_slice(format!("{value:?}\0").as_bytes());
                }
                for column in &work.plan.columns {
                    key.extend_from_slice(format!("{}\0{:?}\0", column.name, column.guard).as_bytes());
                }
                key
            }
        };
        let query = &self.request.query;
        // The cursors in an answer are bound to the texts that they were made for.
        let sort = sort_text(&query.sort);
        let bound = [query.filter.as_deref().unwrap_or_default(), query.search.as_deref().unwrap_or_default(), &sort];
        key.extend_from_slice(
            format!("{}\0{}\0{}\0{bound:?}", query.page, query.per_page, query.skip_total).as_bytes(),
        );
        key.push(u8::from(query.cursor.is_some()));
        key
    }
}

/// Plans a list under `schema`: names, rules and cursor are checked, nothing is read.
pub fn plan_list(
    scope: &Scope,
    schema: &Arc<Schema>,
    collection: &str,
    request: &ListRequest,
) -> Result<ListTask, RecordError> {
    let collection = find(schema, collection)?;
    let totals = !request.query.aggregate.is_empty() || !request.query.group.is_empty();
    // First, because what is said about a filter tells which fields there are.
    gate::require_unlocked(scope, collection, &collection.rules.list, if totals { "aggregate" } else { "list" })?;
    let key = |question| PlanKey {
        tenant: scope.tenant.id().clone(),
        collection: collection.id.clone(),
        class: scope.class(),
        reach: scope.reach.clone(),
        question,
    };
    let plans = &scope.tools.plans;
    let text = || Arc::clone(&request.text);
    if totals {
        let work = plans.aggregate(schema, key(Question::Aggregate(text())), collection, &request.query)?;
        return Ok(ListTask {
            schema: Arc::clone(schema),
            collection: Arc::clone(collection),
            request: request.clone(),
            place: Place::Page,
            work: Work::Totals(work),
        });
    }
    let place = Place::find(scope, collection, request)?;
    let position = place.position();
    let work = plans.list(schema, key(Question::List(position, text())), collection, &request.query, position)?;
    Ok(ListTask {
        schema: Arc::clone(schema),
        collection: Arc::clone(collection),
        request: request.clone(),
        place,
        work: Work::Page(work),
    })
}

/// Loads a planned list; plans it again where the snapshot has another schema.
pub fn load_list(reader: &Reader<'_>, scope: &Scope, task: &ListTask) -> Result<Answer, RecordError> {
    if !Arc::ptr_eq(reader.schema(), &task.schema) {
        let again = plan_list(scope, reader.schema(), task.collection.id.as_str(), &task.request)?;
        return load_planned(reader, scope, &again);
    }
    load_planned(reader, scope, task)
}

fn load_planned(reader: &Reader<'_>, scope: &Scope, task: &ListTask) -> Result<Answer, RecordError> {
    match &task.work {
        Work::Page(work) => task.page(reader, scope, work).answer(),
        Work::Totals(work) => load_totals(reader, scope, &task.request.query, work),
    }
}

/// Lists records: `{page,perPage,totalItems,totalPages,items}`, with cursors `nextCursor` and `prevCursor`.
pub async fn list(scope: &Scope, collection: &str, request: &ListRequest) -> Result<Answer, RecordError> {
    let task = plan_list(scope, &scope.tenant.schema(), collection, request)?;
    let (run, planned) = (scope.clone(), task.clone());
    let loaded = scope.tenant.read(move |reader| load_list(reader, &run, &planned)).await;
    loaded.map_err(|error| hint::explain_cost(error, scope, &task.collection, Costly::List(&request.query)))
}

/// Lists inside a transaction or another snapshot.
pub(super) fn load_list_now(
    reader: &Reader<'_>,
    scope: &Scope,
    collection: &str,
    request: &ListRequest,
) -> Result<Answer, RecordError> {
    load_planned(reader, scope, &plan_list(scope, reader.schema(), collection, request)?)
}

fn load_totals(
    reader: &Reader<'_>,
    scope: &Scope,
    query: &ListQuery,
    work: &AggregateWork,
) -> Result<Answer, RecordError> {
    let mut out = format!("{{\"page\":{},\"perPage\":{},\"items\":[", query.page, query.per_page).into_bytes();
    let open = out.len();
    if work.access == Access::Checked {
        let statement = &work.plan.statement;
        let binds = statement.fill(&scope.request, &Place::Page.arguments(query));
        reader.for_each(&statement.sql, &binds, &mut |row| {
            if out.len() > open {
                out.push(b',');
            }
            work.writer.write_open(&mut out, row)?;
            out.push(b'}');
            Ok(())
        })?;
    }
    out.extend_from_slice(b"]}");
    Ok(Answer::new(out))
}

/// A read of one record that is planned.
#[derive(Debug, Clone)]
pub struct GetTask {
    schema: Arc<Schema>,
    collection: Arc<Collection>,
    id: RecordId,
    view: View,
    work: Arc<GetWork>,
}

impl GetTask {
    /// The plan.
    pub(super) fn work(&self) -> &GetWork {
        &self.work
    }

    /// What the answer depends on besides the request.
    pub fn facts(&self) -> &Facts {
        &self.work.plan.facts
    }

    /// The collection of the record.
    pub fn collection(&self) -> &Arc<Collection> {
        &self.collection
    }

    /// What the record embeds.
    pub(super) fn expand(&self) -> &ExpandTree {
        &self.view.expand
    }

    /// The record.
    pub fn id(&self) -> &RecordId {
        &self.id
    }

    /// Bytes that differ whenever two answers may differ, given the same data.
    pub fn cache_key(&self, request: &RequestContext) -> Vec<u8> {
        self.work.plan.cache_key(request, self.id.as_str())
    }
}

/// Plans reading one record under the view rule.
pub fn plan_get(
    scope: &Scope,
    schema: &Arc<Schema>,
    collection: &str,
    id: &str,
    view: &View,
) -> Result<GetTask, RecordError> {
    let collection = find(schema, collection)?;
    gate::require_unlocked(scope, collection, &collection.rules.view, "view")?;
    let work = get_work(scope, schema, collection, view, Question::View)?;
    let id = RecordId::parse(id).map_err(|_| RecordError::NotFound)?;
    Ok(GetTask { schema: Arc::clone(schema), collection: Arc::clone(collection), id, view: view.clone(), work })
}

/// Loads a planned record; plans it again where the snapshot has another schema.
pub fn load_get(reader: &Reader<'_>, scope: &Scope, task: &GetTask) -> Result<Answer, RecordError> {
    if !Arc::ptr_eq(reader.schema(), &task.schema) {
        let id = task.collection.id.as_str();
        return load_get_now(reader, scope, id, task.id.as_str(), &task.view);
    }
    run_get(reader, scope, &scope.request, &task.work, &task.id)
}

/// Reads one record.
pub async fn get(scope: &Scope, collection: &str, id: &str, view: &View) -> Result<Answer, RecordError> {
    let task = plan_get(scope, &scope.tenant.schema(), collection, id, view)?;
    let (run, planned) = (scope.clone(), task.clone());
    let loaded = scope.tenant.read(move |reader| load_get(reader, &run, &planned)).await;
    loaded.map_err(|error| hint::explain_cost(error, scope, &task.collection, Costly::One(&view.expand)))
}

/// Reads one record inside a transaction or another snapshot.
pub(super) fn load_get_now(
    reader: &Reader<'_>,
    scope: &Scope,
    collection: &str,
    id: &str,
    view: &View,
) -> Result<Answer, RecordError> {
    let task = plan_get(scope, reader.schema(), collection, id, view)?;
    run_get(reader, scope, &scope.request, &task.work, &task.id)
}

/// A record that a write of this caller has admitted, as this caller may see it.
pub(super) fn load_written(
    reader: &Reader<'_>,
    scope: &Scope,
    request: &RequestContext,
    collection: &Arc<Collection>,
    id: &RecordId,
    view: &View,
) -> Result<Answer, RecordError> {
    let work = get_work(scope, reader.schema(), collection, view, Question::Written)?;
    run_get(reader, scope, request, &work, id)
}

/// The caller's own account as a login answers it: no view rule applies, hidden fields stay hidden.
pub async fn get_own(scope: &Scope, view: &View) -> Result<Answer, RecordError> {
    let account = Arc::clone(scope.principal.auth().ok_or(RecordError::NotFound)?);
    let (run, view) = (scope.clone(), view.clone());
    let load = move |reader: &Reader<'_>| {
        let collection = find(reader.schema(), account.collection.id.as_str())?;
        load_written(reader, &run, &run.request, collection, &account.record.id, &view)
    };
    scope.tenant.read(load).await
}

fn get_work(
    scope: &Scope,
    schema: &Arc<Schema>,
    collection: &Arc<Collection>,
    view: &View,
    question: fn(Arc<str>) -> Question,
) -> Result<Arc<GetWork>, RecordError> {
    let key = PlanKey {
        tenant: scope.tenant.id().clone(),
        collection: collection.id.clone(),
        class: scope.class(),
        reach: scope.reach.clone(),
        question: question(Arc::clone(&view.text)),
    };
    scope.tools.plans.get(schema, key, collection, &view.selection, &view.expand)
}

fn run_get(
    reader: &Reader<'_>,
    scope: &Scope,
    request: &RequestContext,
    work: &GetWork,
    id: &RecordId,
) -> Result<Answer, RecordError> {
    debug_assert_eq!(reader.tenant(), scope.tenant.id());
    if work.access != Access::Checked {
        return Err(RecordError::NotFound);
    }
    let arguments = [Stored::text(id)];
    let objects =
        work.rows.load(reader, request, &work.plan.statement, &arguments, &mut |_| Ok::<_, StoreError>(()))?;
    objects.into_first().map(Answer::new).ok_or(RecordError::NotFound)
}

pub(super) fn find<'schema>(schema: &'schema Schema, name: &str) -> Result<&'schema Arc<Collection>, RecordError> {
    schema.find(name).ok_or_else(|| RecordError::UnknownCollection(name.to_owned()))
}

/// One piece of an export: objects on lines of their own.
pub(super) struct ExportPage {
    pub(super) lines: Vec<u8>,
    pub(super) columns: Vec<String>,
    pub(super) next: Option<Cursor>,
}

/// Reads one page of an export.
pub(super) async fn export_page(
    scope: &Scope,
    collection: &str,
    request: &ListRequest,
) -> Result<ExportPage, RecordError> {
    let task = plan_list(scope, &scope.tenant.schema(), collection, request)?;
    let Work::Page(_) = &task.work else {
        return Err(RecordError::Parameter { name: "aggregate", expected: "left out of an export" });
    };
    let (run, planned) = (scope.clone(), task.clone());
    let read = scope.tenant.read(move |reader| {
        let task = plan_list(&run, reader.schema(), planned.collection.id.as_str(), &planned.request)?;
        match &task.work {
            Work::Page(work) => task.page(reader, &run, work).lines(),
            Work::Totals(_) => Err(RecordError::Defect("totals in an export".into())),
        }
    });
    read.await.map_err(|error| hint::explain_cost(error, scope, &task.collection, Costly::List(&request.query)))
}
