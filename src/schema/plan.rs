//! From one schema version to the next: validated changes, the steps they take, their SQL, and the way back.
//!
//! Keeps true: a [`Plan`] exists only for a change that leaves a complete schema; field numbers never come back, not
//! even through [`Plan::inverse`]. Does not do: running the SQL (that is the store), reading rules (that is `query`).

use super::build::{self, Draft};
use super::definition::CollectionInput;
use super::error::{Problems, SchemaError};
use super::field::{Field, FieldKind};
use super::view::{self, Describe};
use super::{Collection, Schema, ddl, field_form, index_sql};
use crate::kernel::error::Detail;
use crate::kernel::ident::CollectionId;
use crate::kernel::limits;
use crate::kernel::random::Random;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// What planning needs from outside.
pub struct PlanContext<'a> {
    /// Secrets of new auth collections come from here.
    pub random: &'a dyn Random,
    /// The time of the change.
    pub now_ms: i64,
    /// Describes the SELECT of views.
    pub describe: &'a Describe<'a>,
}

impl fmt::Debug for PlanContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanContext").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

/// One physical step; all steps of a plan run in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Takes a view out, so that the tables below it can change.
    DropView {
        /// The view collection.
        id: CollectionId,
        /// The statement that made it.
        sql: String,
    },
    /// Removes a table with its records.
    DropTable(Arc<Collection>),
    /// Changes columns, indexes or search of a table.
    AlterTable {
        /// As it is.
        before: Arc<Collection>,
        /// As it becomes.
        after: Arc<Collection>,
    },
    /// Makes a table.
    CreateTable(Arc<Collection>),
    /// Makes a view.
    CreateView {
        /// The view collection.
        id: CollectionId,
        /// The statement that makes it.
        sql: String,
    },
}

impl Step {
    fn ddl(&self) -> Vec<String> {
        match self {
            Self::DropView { id, .. } => vec![format!("DROP VIEW \"c_{id}\"")],
            Self::DropTable(collection) => ddl::drop_table(collection),
            Self::AlterTable { before, after } => ddl::alter_table(before, after),
            Self::CreateTable(collection) => ddl::create_table(collection),
            Self::CreateView { sql, .. } => vec![sql.clone()],
        }
    }

    fn inverse(&self) -> Self {
        match self.clone() {
            Self::DropView { id, sql } => Self::CreateView { id, sql },
            Self::CreateView { id, sql } => Self::DropView { id, sql },
            Self::DropTable(collection) => Self::CreateTable(collection),
            Self::CreateTable(collection) => Self::DropTable(collection),
            Self::AlterTable { before, after } => Self::AlterTable { before: after, after: before },
        }
    }
}

/// A collection's id with its definition before and after a change.
pub type Changed = (CollectionId, Option<Arc<Collection>>, Option<Arc<Collection>>);

/// A validated change of the schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What happens in the file, in order.
    pub steps: Vec<Step>,
    /// The schema the plan was made for.
    pub previous: Arc<Schema>,
    /// The schema after it.
    pub next: Arc<Schema>,
}

impl Plan {
    /// The SQL of all steps, in order; to be run in one transaction.
    pub fn ddl(&self) -> Vec<String> {
        self.steps.iter().flat_map(Step::ddl).collect()
    }

    /// The way back: structure and definitions as before; what was dropped comes back empty.
    ///
    /// Versions and field numbers keep rising, because the log may already name them.
    pub fn inverse(&self) -> Plan {
        let collections = self.previous.collections().iter().map(|old| {
            let reached = self.next.find_id(&old.id).map_or(0, |new| new.next_field_number);
            if reached <= old.next_field_number {
                return old.clone();
            }
            Arc::new(Collection { next_field_number: reached, ..old.as_ref().clone() })
        });
        Plan {
            steps: self.steps.iter().rev().map(Step::inverse).collect(),
            previous: self.next.clone(),
            next: Arc::new(Schema::new(self.next.version() + 1, collections.collect())),
        }
    }

    /// The collections whose definitions differ, with both definitions.
    pub fn changed(&self) -> Vec<Changed> {
        let gone = self.previous.collections().iter().filter(|old| self.next.find_id(&old.id).is_none());
        let gone = gone.map(|old| (old.id.clone(), Some(old.clone()), None));
        let new = self.next.collections().iter().filter_map(|new| {
            let old = self.previous.find_id(&new.id);
            (old != Some(new)).then(|| (new.id.clone(), old.cloned(), Some(new.clone())))
        });
        gone.chain(new).collect()
    }

    /// The definition a create or update of one collection results in.
    pub fn find_after(&self, id: &CollectionId) -> Option<&Arc<Collection>> {
        self.next.find_id(id)
    }
}

/// What an import does with collections that it does not mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmentioned {
    /// They stay, and so do fields that a mentioned collection does not mention.
    Keep,
    /// They are deleted; system collections stay.
    Delete,
}

/// Plans a new collection.
pub fn plan_create(
    schema: &Arc<Schema>,
    input: &CollectionInput,
    context: &PlanContext<'_>,
) -> Result<Plan, SchemaError> {
    plan(schema, vec![Wanted { before: None, input: input.clone(), path: None }], &HashSet::new(), context)
}

/// Plans a change of the collection `name_or_id`; what `input` does not mention stays.
pub fn plan_update(
    schema: &Arc<Schema>,
    name_or_id: &str,
    input: &CollectionInput,
    context: &PlanContext<'_>,
) -> Result<Plan, SchemaError> {
    let before = schema.find(name_or_id).ok_or_else(|| SchemaError::UnknownCollection(name_or_id.to_owned()))?;
    plan(
        schema,
        vec![Wanted { before: Some(before.clone()), input: input.clone(), path: None }],
        &HashSet::new(),
        context,
    )
}

/// Plans the deletion of the collection `name_or_id`; refused while others need it.
pub fn plan_delete(schema: &Arc<Schema>, name_or_id: &str, context: &PlanContext<'_>) -> Result<Plan, SchemaError> {
    let gone = schema.find(name_or_id).ok_or_else(|| SchemaError::UnknownCollection(name_or_id.to_owned()))?;
    if gone.system {
        return Err(SchemaError::SystemCollection(gone.name.to_string()));
    }
    plan(schema, Vec::new(), &HashSet::from([gone.id.clone()]), context)
}

/// Plans many collections at once, which may refer to each other; those known by id or name are changed.
///
/// System collections of other servers (names that begin with `_`) are passed over.
pub fn plan_import(
    schema: &Arc<Schema>,
    inputs: &[CollectionInput],
    unmentioned: Unmentioned,
    context: &PlanContext<'_>,
) -> Result<Plan, SchemaError> {
    let keep = |before: &Collection, input: &mut CollectionInput| {
        if unmentioned == Unmentioned::Keep {
            keep_parts(before, input, None);
        }
    };
    let (wanted, mentioned) = want(schema, inputs, &keep);
    let deletable = |collection: &&Arc<Collection>| !collection.system && !mentioned.contains(&collection.id);
    let deleted = match unmentioned {
        Unmentioned::Keep => HashSet::new(),
        Unmentioned::Delete => schema.collections().iter().filter(deletable).map(|c| c.id.clone()).collect(),
    };
    plan(schema, wanted, &deleted, context)
}

/// Plans the way from one set of collections to another, such as two versions of a blueprint, in either direction.
///
/// What `from` mentions and `to` does not goes away, with its data; what neither mentions stays.
pub fn plan_migrate(
    schema: &Arc<Schema>,
    from: &[CollectionInput],
    to: &[CollectionInput],
    context: &PlanContext<'_>,
) -> Result<Plan, SchemaError> {
    let keep = |before: &Collection, input: &mut CollectionInput| {
        keep_parts(before, input, from.iter().find(|old| find_known(schema, old).is_some_and(|c| c.id == before.id)));
    };
    let (wanted, mentioned) = want(schema, to, &keep);
    let left = from.iter().filter_map(|old| find_known(schema, old));
    let deleted = left.filter(|c| !c.system && !mentioned.contains(&c.id)).map(|c| c.id.clone()).collect();
    plan(schema, wanted, &deleted, context)
}

/// Raised when a view's SELECT becomes another statement than before: every file's views are then compared once more.
pub const VIEW_FORM: i64 = 1;

/// Plans that the views of a file are what this version makes of their SELECTs; `present` are the statements that made them.
/// `None` if they are.
pub fn plan_views(
    schema: &Arc<Schema>,
    present: &HashMap<CollectionId, String>,
    describe: &Describe<'_>,
) -> Option<Plan> {
    let mut steps = Vec::new();
    for (id, sql) in present_views(schema, describe) {
        if let Some(made) = present.get(&id).filter(|made| **made != sql) {
            steps.push(Step::DropView { id: id.clone(), sql: made.clone() });
            steps.push(Step::CreateView { id, sql });
        }
    }
    if steps.is_empty() {
        return None;
    }
    let next = Arc::new(Schema::new(schema.version() + 1, schema.collections().to_vec()));
    Some(Plan { steps, previous: Arc::clone(schema), next })
}

fn find_known<'a>(schema: &'a Schema, input: &CollectionInput) -> Option<&'a Arc<Collection>> {
    let known = |text: &Option<String>| text.as_deref().and_then(|text| schema.find(text));
    known(&input.id).or_else(|| known(&input.name))
}

/// Pairs each input with the collection it changes; `keep` adds to an input what it would otherwise lose.
fn want(
    schema: &Schema,
    inputs: &[CollectionInput],
    keep: &dyn Fn(&Collection, &mut CollectionInput),
) -> (Vec<Wanted>, HashSet<CollectionId>) {
    let mut wanted = Vec::with_capacity(inputs.len());
    let mut mentioned = HashSet::new();
    for (at, input) in inputs.iter().enumerate() {
        let before = find_known(schema, input).cloned();
        let foreign = input.system && input.name.as_deref().is_some_and(|name| name.starts_with('_'));
        if before.is_none() && foreign {
            continue;
        }
        let mut input = input.clone();
        if let Some(before) = &before {
            mentioned.insert(before.id.clone());
            keep(before, &mut input);
        }
        wanted.push(Wanted { before, input, path: Some(at) });
    }
    (wanted, mentioned)
}

/// Adds the fields and indexes of `before` that neither the input nor `except` mentions.
fn keep_parts(before: &Collection, input: &mut CollectionInput, except: Option<&CollectionInput>) {
    let mentions = |fields: &[field_form::FieldInput], old: &Field| {
        fields.iter().any(|field| field.id.as_deref() == Some(old.id.as_str()) || field.name == old.name.as_str())
    };
    let mut gone = HashSet::new();
    if let Some(fields) = &mut input.fields {
        for old in &before.fields {
            if mentions(fields, old) {
                continue;
            }
            let leaves = except.and_then(|except| except.fields.as_deref()).is_some_and(|fields| mentions(fields, old));
            if leaves && !old.system {
                gone.insert(old.number);
                continue;
            }
            let mut ignored = Vec::new();
            fields.extend(field_form::read(&Value::Object(field_form::write(old)), &mut Problems::new(&mut ignored)));
        }
    }
    if except.is_some() {
        // A version without indexes has none; it does not mean those of the other version.
        input.indexes.get_or_insert_default();
    }
    let Some(indexes) = &mut input.indexes else { return };
    let names = |texts: &[String]| texts.iter().filter_map(|text| index_sql::name_of(text)).collect::<HashSet<_>>();
    let mut known = names(indexes);
    known.extend(except.and_then(|except| except.indexes.as_deref()).map(names).unwrap_or_default());
    for index in &before.indexes {
        let uses_gone = index.columns.iter().any(|column| gone.contains(&column.field));
        if !uses_gone && !known.contains(&index.name.to_ascii_lowercase()) {
            indexes.push(index_sql::to_sql(before, index));
        }
    }
}

struct Wanted {
    before: Option<Arc<Collection>>,
    input: CollectionInput,
    path: Option<usize>,
}

fn plan(
    schema: &Arc<Schema>,
    wanted: Vec<Wanted>,
    deleted: &HashSet<CollectionId>,
    context: &PlanContext<'_>,
) -> Result<Plan, SchemaError> {
    let mut found = Vec::new();
    let mut drafts = make_drafts(wanted, context, &mut found);
    let names = collect_names(schema, &drafts, deleted, &mut found);
    let targets = with_sent_ids(names, &drafts);
    for draft in &mut drafts {
        let path = draft.path;
        build::finish(draft, &targets, &mut at_path(&mut Problems::new(&mut found), path));
    }
    check_index_names(schema, &drafts, deleted, &mut found);
    if !found.is_empty() {
        return Err(SchemaError::Invalid(found));
    }
    check_unused(schema, &drafts, deleted)?;
    let mut next = next_collections(schema, &drafts, deleted);
    let views = infer_views(schema, &mut next, &drafts, context)?;
    let next = Arc::new(Schema::new(schema.version() + 1, next));
    let steps = make_steps(schema, &next, views, context);
    Ok(Plan { steps, previous: schema.clone(), next })
}

fn at_path<'a>(problems: &'a mut Problems<'_>, path: Option<usize>) -> Problems<'a> {
    match path {
        Some(at) => problems.at(format_args!("collections.{at}")),
        None => problems.same(),
    }
}

fn make_drafts(wanted: Vec<Wanted>, context: &PlanContext<'_>, found: &mut Vec<Detail>) -> Vec<Draft> {
    let mut drafts = Vec::with_capacity(wanted.len());
    for Wanted { before, input, path } in wanted {
        let mut problems = Problems::new(found);
        let mut problems = at_path(&mut problems, path);
        if let Some(mut draft) = build::draft(before.as_ref(), &input, context.random, context.now_ms, &mut problems) {
            draft.path = path;
            drafts.push(draft);
        }
    }
    drafts
}

/// The collections of the next version by lower-case name; clashes of names and ids are noted.
fn collect_names(
    schema: &Schema,
    drafts: &[Draft],
    deleted: &HashSet<CollectionId>,
    found: &mut Vec<Detail>,
) -> HashMap<String, CollectionId> {
    let drafted: HashSet<&CollectionId> = drafts.iter().map(|draft| &draft.collection.id).collect();
    let staying = schema.collections().iter().filter(|c| !deleted.contains(&c.id) && !drafted.contains(&c.id));
    let mut names: HashMap<String, CollectionId> =
        staying.map(|c| (c.name.as_str().to_ascii_lowercase(), c.id.clone())).collect();
    let mut ids = HashSet::new();
    for draft in drafts {
        let (name, id) = (&draft.collection.name, &draft.collection.id);
        let mut problems = Problems::new(found);
        let mut problems = at_path(&mut problems, draft.path);
        let taken_id = draft.before.is_none() && schema.find_id(id).is_some_and(|other| !deleted.contains(&other.id));
        let taken_id = !ids.insert(id.clone()) || taken_id;
        // The id that nobody gave follows from the name, so a taken name is the news and the taken id its echo.
        let same_name = |other: &Arc<Collection>| other.name.as_str().eq_ignore_ascii_case(name.as_str());
        let is_echo = taken_id && draft.before.is_none() && schema.find_id(id).is_some_and(same_name);
        if names.insert(name.as_str().to_ascii_lowercase(), id.clone()).is_some() || is_echo {
            problems.add_at(
                "name",
                "validation_collection_name_exists",
                format!("A collection {name} exists (names ignore case)."),
            );
        } else if taken_id {
            problems.add_at(
                "id",
                "validation_duplicated_collection_id",
                format!("The id {id} is already used; leave it out or choose another."),
            );
        }
    }
    for draft in drafts {
        let name = draft.collection.name.as_str();
        if names.values().any(|id| id.as_str() == name && *id != draft.collection.id) {
            at_path(&mut Problems::new(found), draft.path).add_at(
                "name",
                "validation_collection_name_exists",
                "Another collection has this text as its id.",
            );
        }
    }
    if names.len() > limits::COLLECTIONS_MAX {
        let message = format!("A tenant may have {} collections.", limits::COLLECTIONS_MAX);
        found.push(Detail::new("name", "validation_too_many_values", message));
    }
    names
}

/// The relation targets that can be named. An import may know a collection by another id than this tenant does.
fn with_sent_ids(mut names: HashMap<String, CollectionId>, drafts: &[Draft]) -> HashMap<String, CollectionId> {
    for draft in drafts {
        if let Some(sent) = &draft.sent_id {
            names.entry(sent.to_ascii_lowercase()).or_insert_with(|| draft.collection.id.clone());
        }
    }
    names
}

fn check_index_names(schema: &Schema, drafts: &[Draft], deleted: &HashSet<CollectionId>, found: &mut Vec<Detail>) {
    let drafted: HashSet<&CollectionId> = drafts.iter().map(|draft| &draft.collection.id).collect();
    let staying = schema.collections().iter().filter(|c| !deleted.contains(&c.id) && !drafted.contains(&c.id));
    let mut names: HashSet<String> =
        staying.flat_map(|c| c.indexes.iter().map(|index| index.name.to_ascii_lowercase())).collect();
    for draft in drafts {
        for (at, index) in draft.collection.indexes.iter().enumerate() {
            if !names.insert(index.name.to_ascii_lowercase()) {
                let mut problems = Problems::new(found);
                let message = format!("An index {:?} exists; index names are unique in the tenant.", index.name);
                at_path(&mut problems, draft.path).at("indexes").add_at(at, "validation_existing_index_name", message);
            }
        }
    }
}

fn check_unused(schema: &Schema, drafts: &[Draft], deleted: &HashSet<CollectionId>) -> Result<(), SchemaError> {
    for gone in schema.collections().iter().filter(|c| deleted.contains(&c.id)) {
        let staying = schema.collections().iter().filter(|c| !deleted.contains(&c.id)).map(Arc::as_ref);
        let next = staying.map(|old| drafts.iter().map(|d| &d.collection).find(|new| new.id == old.id).unwrap_or(old));
        let mut users = Vec::new();
        for other in next.filter(|other| !other.is_view()) {
            let points =
                other.fields.iter().filter(|f| matches!(&f.kind, FieldKind::Relation(r) if r.target == gone.id));
            users.extend(points.map(|field| format!("{}.{}", other.name, field.name)));
        }
        if !users.is_empty() {
            return Err(SchemaError::InUse { collection: gone.name.to_string(), users: users.join(", ") });
        }
    }
    Ok(())
}

fn next_collections(schema: &Schema, drafts: &[Draft], deleted: &HashSet<CollectionId>) -> Vec<Arc<Collection>> {
    let draft_of = |id: &CollectionId| drafts.iter().find(|draft| &draft.collection.id == id);
    let staying = schema.collections().iter().filter(|c| !deleted.contains(&c.id));
    let kept =
        staying.map(|old| draft_of(&old.id).map_or_else(|| old.clone(), |draft| Arc::new(draft.collection.clone())));
    let fresh = drafts.iter().filter(|draft| draft.before.is_none()).map(|draft| Arc::new(draft.collection.clone()));
    kept.chain(fresh).collect()
}

/// Puts the inferred fields into every view, sources first; answers the statement of each view, in that order.
fn infer_views(
    schema: &Schema,
    collections: &mut [Arc<Collection>],
    drafts: &[Draft],
    context: &PlanContext<'_>,
) -> Result<Vec<(CollectionId, String)>, SchemaError> {
    let mut open: Vec<CollectionId> = collections.iter().filter(|c| c.is_view()).map(|c| c.id.clone()).collect();
    let mut done = Vec::new();
    while !open.is_empty() {
        let stage = Schema::new(0, collections.to_vec());
        let ready = open.iter().position(|id| {
            stage
                .find_id(id)
                .is_some_and(|view| view::sources(view, &stage).iter().all(|source| !open.contains(&source.id)))
        });
        let Some(ready) = ready else {
            let message = "The views read each other in a circle; take one of them out of the other's SELECT.";
            return Err(SchemaError::one("viewQuery", "validation_invalid_view_query", message));
        };
        let id = open.remove(ready);
        let Some(at) = collections.iter().position(|c| c.id == id) else { continue };
        let Some(view) = collections.get_mut(at) else { continue };
        let draft = drafts.iter().find(|draft| draft.collection.id == id);
        let mut next = view.as_ref().clone();
        let sources = view::sources(&next, &stage);
        let before = schema.find_id(&id).map(Arc::as_ref);
        let (fields, number) =
            view::infer(&next, before, &sources, context.describe).map_err(|why| view_error(draft, &next, why))?;
        next.fields = fields;
        next.next_field_number = number;
        let sql = view::render(&next, &sources, &view::plain_columns(&next, &sources, context.describe));
        if **view != next {
            *view = Arc::new(next);
        }
        done.push((id, sql));
    }
    Ok(done)
}

fn view_error(draft: Option<&Draft>, view: &Collection, why: String) -> SchemaError {
    let field = match draft {
        Some(Draft { path: Some(at), .. }) => format!("collections.{at}.viewQuery"),
        Some(_) => "viewQuery".to_owned(),
        None => {
            let message = format!("The view {} would stop working; change its SELECT first. {why}", view.name);
            return SchemaError::one(format!("views.{}", view.name), "validation_view_depends", message);
        }
    };
    SchemaError::one(field, "validation_invalid_view_query", why)
}

/// The statements of the views of the present schema, sources first.
fn present_views(schema: &Schema, describe: &Describe<'_>) -> Vec<(CollectionId, String)> {
    let mut open: Vec<&Arc<Collection>> = schema.collections().iter().filter(|c| c.is_view()).collect();
    let mut done = Vec::new();
    while !open.is_empty() {
        let ready =
            open.iter().position(|view| view::sources(view, schema).iter().all(|s| !open.iter().any(|o| o.id == s.id)));
        let view = open.remove(ready.unwrap_or(0));
        let sources = view::sources(view, schema);
        done.push((view.id.clone(), view::render(view, &sources, &view::plain_columns(view, &sources, describe))));
    }
    done
}

fn make_steps(
    schema: &Schema,
    next: &Schema,
    views: Vec<(CollectionId, String)>,
    context: &PlanContext<'_>,
) -> Vec<Step> {
    let old_views = present_views(schema, context.describe);
    let touched = touched_views(schema, next, &old_views, &views);
    let mut steps = Vec::new();
    for (id, sql) in old_views.into_iter().rev().filter(|(id, _)| touched.contains(id)) {
        steps.push(Step::DropView { id, sql });
    }
    let tables = |schema: &Schema| schema.collections().iter().filter(|c| !c.is_view()).cloned().collect::<Vec<_>>();
    for old in tables(schema).into_iter().filter(|old| next.find_id(&old.id).is_none()) {
        steps.push(Step::DropTable(old));
    }
    for new in tables(next) {
        match schema.find_id(&new.id) {
            None => steps.push(Step::CreateTable(new)),
            Some(old) if !ddl::alter_table(old, &new).is_empty() => {
                steps.push(Step::AlterTable { before: old.clone(), after: new });
            }
            Some(_) => {}
        }
    }
    steps
        .extend(views.into_iter().filter(|(id, _)| touched.contains(id)).map(|(id, sql)| Step::CreateView { id, sql }));
    steps
}

/// Views whose statement changes, and views that read such views: SQLite refuses to alter tables under a broken view.
fn touched_views(
    schema: &Schema,
    next: &Schema,
    old: &[(CollectionId, String)],
    new: &[(CollectionId, String)],
) -> HashSet<CollectionId> {
    let mut touched: HashSet<CollectionId> = HashSet::new();
    for (id, sql) in old {
        let same = new.iter().any(|(other, text)| other == id && text == sql);
        let reads =
            schema.find_id(id).is_some_and(|view| view::sources(view, schema).iter().any(|s| touched.contains(&s.id)));
        if !same || reads {
            touched.insert(id.clone());
        }
    }
    for (id, _) in new {
        let fresh = !old.iter().any(|(other, _)| other == id);
        let reads =
            next.find_id(id).is_some_and(|view| view::sources(view, next).iter().any(|s| touched.contains(&s.id)));
        if fresh || reads {
            touched.insert(id.clone());
        }
    }
    touched
}
