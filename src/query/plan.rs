//! Plans: list, get, check and expand, compiled for one schema and one class of caller, to be kept and run often.
//!
//! Keeps true: the rule is part of the WHERE of the page and of the count alike, so neither paging nor totals reveal a
//! row it hides; an embedded record is read under its own view rule; a plan says all it depends on in its [`Facts`].
//! Does not do: running, JSON.

use crate::kernel::ident::FieldNumber;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::ast::{Expr, Operator, Resolved};
use crate::query::error::{Problem, QueryError, Surface};
use crate::query::list::{ListQuery, SortKey};
use crate::query::page::Direction;
use crate::query::path::{find_back_relation, is_unique_alone};
use crate::query::request::{Bind, RequestContext};
use crate::query::resolve::{Lens, is_nameable};
use crate::query::resolved::{Column, Facts, Operand, Predicate, ROOT, Slot, Type, Visibility};
use crate::query::search;
use crate::query::select::{ExpandTree, Selection};
use crate::query::sql::{Condition, Fragment};
use crate::query::statement::{Builder, ROOT_ALIAS, RowShape, Statement, write_text};
use crate::query::value::default_of;
use crate::schema::Collection;
use crate::schema::field::{Field, FieldKind, Storage};
use crate::schema::record::RecordImage;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Position {
    /// By number of page. Arguments of the page: limit, offset.
    Offset,
    /// Keyset paging from the beginning. Arguments: limit.
    First,
    /// Keyset paging from a cursor. Arguments: limit, then the cursor's keys. Backward gives rows in reverse.
    From(Direction),
}

/// How to list records.
#[derive(Debug, Clone, PartialEq)]
pub struct ListPlan {
    /// The rows of a page; arguments as [`Position`] says.
    pub page: Statement,
    /// One row, one column: how many records there are. No arguments.
    pub count: Statement,
    /// All records of the collection are counted, so the store may know how many there are.
    pub counts_all: bool,
    /// What the rows hold.
    pub row: RowShape,
    /// Keyset paging: the places in the row of the keys for the next cursor. Empty for offset paging.
    pub keys: Vec<usize>,
    /// Keyset paging from a cursor that may hold the beginnings of keys: the whole keys of the row it stands at, if this
    /// caller still sees it. Arguments as for the page.
    pub seek: Option<Statement>,
    /// Rows come last first and are to be turned round.
    pub reversed: bool,
    /// What to embed.
    pub expand: Vec<Expand>,
    /// What the answer depends on.
    pub facts: Facts,
    /// The part of the collection in which all rows lie, if the filter says so.
    pub partition: Option<Pinned>,
}

/// The one value that a collection's declared partition field has in every row that a filter lets through.
#[derive(Debug, Clone, PartialEq)]
pub struct Pinned(Operand);

impl Pinned {
    /// The partition for this request; `None` is the whole collection.
    pub fn value(&self, request: &RequestContext) -> Option<Stored> {
        let value = match &self.0 {
            Operand::Constant(value) => value.clone(),
            Operand::Request(path) => request.look_up(path),
            _ => return None,
        };
        // Empty text also matches what is not text; only a real value names one partition.
        value.as_text().is_some_and(|text| !text.is_empty()).then_some(value)
    }
}

/// How to read one record. Arguments: the id.
#[derive(Debug, Clone, PartialEq)]
pub struct GetPlan {
    /// No row, or one.
    pub statement: Statement,
    /// What the row holds.
    pub row: RowShape,
    /// What to embed.
    pub expand: Vec<Expand>,
    /// What the answer depends on.
    pub facts: Facts,
}

/// How to read the records that a relation embeds, for all records of a page at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Expand {
    /// The member's name inside `expand`.
    pub name: Arc<str>,
    /// How rows belong to the records that embed them.
    pub link: ExpandLink,
    /// The rows. Arguments: a JSON array of ids (of the targets, or of the embedding records for a back-relation).
    pub statement: Statement,
    /// What the rows hold.
    pub row: RowShape,
    /// What the embedded records embed in turn.
    pub children: Vec<Expand>,
}

/// How embedded rows belong to the records that embed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpandLink {
    /// The embedding record's field holds the id or ids.
    Forward {
        /// That field; its column is in the embedding row.
        field: FieldNumber,
        /// It holds a JSON array of ids.
        list: bool,
    },
    /// The embedded row's field holds the id or ids of the embedding records.
    Backward {
        /// The place in the embedded row of that field's raw value.
        column: usize,
        /// It holds a JSON array of ids.
        list: bool,
        /// At most one row can belong to a record: an object is embedded instead of an array.
        single: bool,
    },
}

/// Compiles a list. `rule` is what the caller's rule leaves to be checked per record.
pub fn list(
    lens: Lens<'_>,
    collection: &Arc<Collection>,
    rule: Option<&Predicate>,
    query: &ListQuery,
    position: Position,
) -> Result<ListPlan, QueryError> {
    let filter = query.filter.as_deref().map(|text| lens.filter(collection, text)).transpose()?;
    let search = query.search.as_deref().map(|text| search::compile(lens, collection, text)).transpose()?;
    let needed = relation_fields(collection, &query.expand);

    let mut page = Builder::new(lens, collection);
    let row = page.add_record(&query.fields, &needed);
    let mut count = Builder::new(lens, collection);
    count.add_column(Fragment::text("COUNT(*)"));
    for builder in [&mut page, &mut count] {
        if let Some(search) = &search {
            builder.join(search.join.clone());
            builder.restrict_sql(search.condition.clone());
        }
        for predicate in rule.into_iter().chain(&filter) {
            builder.restrict(predicate);
        }
    }
    // How rare a word is counts every row, so ranks would tell of rows that the rule hides.
    let ranked = rule.is_none() && search.as_ref().is_some_and(|search| search.ranked);
    let (mut keys, mut seek) = (Vec::new(), None);
    match position {
        Position::Offset => order_by_offset(lens, &mut page, collection, &query.sort, ranked)?,
        Position::First => keys = order_by_keys(lens, &mut page, collection, &query.sort, None)?,
        Position::From(direction) => {
            keys = order_by_keys(lens, &mut page, collection, &query.sort, Some(direction))?;
            seek = seek_by_keys(lens, collection, rule, &query.sort)?;
        }
    }
    let (page, mut facts) = page.finish_bounded(Surface::Filter)?;
    let expand = expand_all(lens, collection, &query.expand, &query.fields, &mut facts);
    let reversed = position == Position::From(Direction::Backward);
    let partition = filter.as_ref().and_then(|filter| pinned(collection, &filter.expr));
    let (counts_all, count) = (count.asks_for_all(), count.finish_count());
    Ok(ListPlan { page, count, counts_all, row, keys, seek, reversed, expand, facts, partition })
}

/// What the declared partition field must equal for `expr` to hold.
pub(super) fn pinned(collection: &Collection, expr: &Expr<Resolved>) -> Option<Pinned> {
    let number = collection.partition?;
    match expr {
        Expr::All(parts) => parts.iter().find_map(|part| pinned(collection, part)),
        Expr::Compare(comparison) if comparison.operator == Operator::Equal => {
            let is_field = |operand: &Operand| {
                matches!(operand, Operand::Column(Column { node: ROOT, slot: Slot::Field(field, Storage::Text), .. })
                    if *field == number)
            };
            let (left, right) = (&comparison.left, &comparison.right);
            let value = if is_field(left) {
                right
            } else if is_field(right) {
                left
            } else {
                return None;
            };
            matches!(value, Operand::Constant(_) | Operand::Request(_)).then(|| Pinned(value.clone()))
        }
        _ => None,
    }
}

/// Compiles reading one record by its id.
pub fn get(
    lens: Lens<'_>,
    collection: &Arc<Collection>,
    rule: Option<&Predicate>,
    fields: &Selection,
    expand: &ExpandTree,
) -> GetPlan {
    let mut builder = Builder::new(lens, collection);
    let row = builder.add_record(fields, &relation_fields(collection, expand));
    builder.restrict_sql(Condition::Sql(id_is_argument()));
    if let Some(rule) = rule {
        builder.restrict(rule);
    }
    let (statement, mut facts) = builder.finish();
    let expand = expand_all(lens, collection, expand, fields, &mut facts);
    GetPlan { statement, row, expand, facts }
}

/// Compiles the question whether a predicate holds for one record: a row if so. Arguments: the id.
///
/// For update and delete rules it runs inside the write transaction, for create rules over the row just inserted.
pub fn check(lens: Lens<'_>, predicate: &Predicate) -> Statement {
    let mut builder = Builder::new(lens, &predicate.root);
    builder.add_column(Fragment::text("1"));
    builder.restrict_sql(Condition::Sql(id_is_argument()));
    builder.restrict(predicate);
    builder.finish().0
}

/// Compiles whether a predicate holds for a record that is not stored, as if it stood beside (or in the place of) those that
/// are. Arguments: its id, then its values in the order of the collection's fields.
pub fn check_would_be(lens: Lens<'_>, predicate: &Predicate) -> Statement {
    let Statement { sql, binds } = check(lens, predicate);
    let (table, fields) = (predicate.root.table(), plain_fields(&predicate.root));
    let columns: String = fields.iter().map(|field| format!(", {}", field.column())).collect();
    // The name of the table means the union from here on; with the schema before it, the table itself.
    let with = format!(
        "WITH \"{table}\" (_r, id{columns}) AS NOT MATERIALIZED (SELECT NULL, ?{} UNION ALL \
         SELECT _r, id{columns} FROM main.\"{table}\" WHERE id <> ?) {sql}",
        ", ?".repeat(fields.len())
    );
    let values = (0..=fields.len()).map(Bind::Argument);
    let binds = values.chain([Bind::Argument(0)]).chain(binds).collect();
    Statement { sql: Arc::from(with), binds }
}

/// The arguments of [`check_would_be`].
pub fn would_be_arguments(collection: &Collection, record: &RecordImage) -> Vec<Stored> {
    let value = |field: &Field| record.get(field.number).cloned().unwrap_or_else(|| default_of(field.kind.storage()));
    std::iter::once(Stored::text(&record.id)).chain(plain_fields(collection).into_iter().map(value)).collect()
}

fn plain_fields(collection: &Collection) -> Vec<&Field> {
    collection.fields.iter().filter(|field| field.number.0 != 0).collect()
}

/// Compiles the ids of all records for which a predicate holds, in no order. No arguments.
pub fn matching_ids(lens: Lens<'_>, predicate: &Predicate) -> Statement {
    let mut builder = Builder::new(lens, &predicate.root);
    builder.add_column(Fragment::text(format!("{ROOT_ALIAS}.id")));
    builder.restrict(predicate);
    builder.finish().0
}

fn id_is_argument() -> Fragment {
    let mut fragment = Fragment::text(format!("{ROOT_ALIAS}.id = "));
    fragment.append(Fragment::bind(Bind::Argument(0)));
    fragment
}

impl ListPlan {
    /// Bytes that differ whenever two callers' answers may differ: the caller is in them only as far as a rule reads it.
    pub fn cache_key(&self, request: &RequestContext, arguments: &[Stored]) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        self.page.write_key(&mut out, request, arguments);
        self.row.write_key(&mut out);
        write_expand_keys(&self.expand, &mut out, request);
        out
    }
}

impl GetPlan {
    /// Bytes that differ whenever two callers' answers may differ: the caller is in them only as far as a rule reads it.
    pub fn cache_key(&self, request: &RequestContext, id: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.statement.write_key(&mut out, request, &[Stored::text(id)]);
        self.row.write_key(&mut out);
        write_expand_keys(&self.expand, &mut out, request);
        out
    }
}

fn write_expand_keys(expands: &[Expand], out: &mut Vec<u8>, request: &RequestContext) {
    out.extend((expands.len() as u64).to_be_bytes());
    for expand in expands {
        write_text(out, &expand.name);
        expand.statement.write_key(out, request, &[]);
        expand.row.write_key(out);
        write_expand_keys(&expand.children, out, request);
    }
}

/// A sort key, rendered.
struct Key {
    fragment: Fragment,
    descending: bool,
    value_type: Type,
    nullable: bool,
    unique: bool,
}

fn resolve_sort(
    lens: Lens<'_>,
    builder: &mut Builder<'_>,
    collection: &Arc<Collection>,
    sort: &[SortKey],
) -> Result<Vec<Key>, QueryError> {
    let mut keys = Vec::with_capacity(sort.len());
    for key in sort {
        let descending = key.descending;
        let key = match &*key.path {
            "@random" => Key {
                fragment: Fragment::text("RANDOM()"),
                descending: false,
                value_type: Type::Number,
                nullable: false,
                unique: false,
            },
            "@rowid" => Key { descending, ..creation_key(collection) },
            path => {
                let (operand, rows) = lens.operand(collection, Surface::Sort, path, path)?;
                builder.facts.merge(&rows.facts);
                let (fragment, nullable) = builder.renderer.hoisted_operand(&operand, &rows, ROOT_ALIAS);
                Key { fragment, descending, value_type: operand.value_type(), nullable, unique: path == "id" }
            }
        };
        keys.push(key);
    }
    Ok(keys)
}

/// The order of creation where there is one, otherwise the id.
fn creation_key(collection: &Collection) -> Key {
    let column = if collection.is_view() { "id" } else { "_r" };
    let fragment = Fragment::text(format!("{ROOT_ALIAS}.{column}"));
    Key { fragment, descending: false, value_type: Type::Number, nullable: collection.is_view(), unique: true }
}

fn order_by_offset(
    lens: Lens<'_>,
    builder: &mut Builder<'_>,
    collection: &Arc<Collection>,
    sort: &[SortKey],
    ranked: bool,
) -> Result<(), QueryError> {
    let mut keys = resolve_sort(lens, builder, collection, sort)?;
    let mut order = Vec::new();
    if keys.is_empty() && ranked {
        order.push(format!("{}.rank", search::ALIAS));
    }
    // A view without a sort keeps the order its author gave it.
    let keeps_order = collection.is_view() && keys.is_empty();
    if !keeps_order && !keys.iter().any(|key| key.unique) {
        keys.push(Key { descending: ties_descend(collection, sort), ..creation_key(collection) });
    }
    let mut tail = Fragment::default();
    push_order(&mut tail, order, keys);
    tail.push(" LIMIT ").append(Fragment::bind(Bind::Argument(0)));
    tail.push(" OFFSET ").append(Fragment::bind(Bind::Argument(1)));
    builder.append_tail(tail);
    Ok(())
}

fn push_order(tail: &mut Fragment, first: Vec<String>, keys: Vec<Key>) {
    let terms = first.into_iter().map(Fragment::text).chain(keys.into_iter().map(|key| {
        let mut term = key.fragment;
        term.push(if key.descending { " DESC" } else { "" });
        term
    }));
    for (at, term) in terms.enumerate() {
        tail.push(if at == 0 { " ORDER BY " } else { ", " }).append(term);
    }
}

/// Whether equal keys are best ordered newest first: the way an index over the last key already has them.
fn ties_descend(collection: &Collection, sort: &[SortKey]) -> bool {
    let Some(last) = sort.last() else { return false };
    let Some(field) = collection.find_field(&last.path) else { return last.descending };
    // Inside an index rows with equal keys stand in rising order of row number, whichever way the key runs.
    let kept_descending = collection
        .indexes
        .iter()
        .any(|index| index.columns.last().is_some_and(|column| column.field == field.number && column.descending));
    last.descending != kept_descending
}

/// The keys that a walk by cursor is ordered by, one of them unique, none of them NULL.
fn walk_keys(
    lens: Lens<'_>,
    builder: &mut Builder<'_>,
    collection: &Arc<Collection>,
    sort: &[SortKey],
) -> Result<Vec<Key>, QueryError> {
    if sort.iter().any(|key| &*key.path == "@random") {
        let reason = Cow::Borrowed("has no order that a cursor could continue");
        return Err(QueryError::whole(Surface::Sort, Problem::Unsupported { name: "@random".to_owned(), reason }));
    }
    let mut keys = resolve_sort(lens, builder, collection, sort)?;
    if keys.is_empty() {
        keys.push(creation_key(collection));
    }
    if !keys.iter().any(|key| key.unique) {
        let descending = keys.last().is_some_and(|key| key.descending);
        let fragment = Fragment::text(format!("{ROOT_ALIAS}.id"));
        keys.push(Key { fragment, descending, value_type: Type::Text, nullable: collection.is_view(), unique: true });
    }
    for key in &mut keys {
        // A comparison with NULL is never true, so NULL takes the place of the smallest value.
        if key.nullable {
            let smallest = if key.value_type == Type::Text { "''" } else { "-9e999" };
            let inner = std::mem::take(&mut key.fragment);
            key.fragment.push("COALESCE(").append(inner).push(&format!(", {smallest})"));
        }
    }
    Ok(keys)
}

/// The keys of the row that a cursor stands at; `None` where none of them can be longer than a cursor holds.
fn seek_by_keys(
    lens: Lens<'_>,
    collection: &Arc<Collection>,
    rule: Option<&Predicate>,
    sort: &[SortKey],
) -> Result<Option<Statement>, QueryError> {
    let mut builder = Builder::new(lens, collection);
    let keys = walk_keys(lens, &mut builder, collection, sort)?;
    if keys.iter().all(|key| key.unique || key.value_type == Type::Number) {
        return Ok(None);
    }
    for (place, key) in keys.into_iter().enumerate() {
        if key.unique {
            let mut same = key.fragment.clone();
            same.push(" = ").append(Fragment::bind(Bind::Argument(place + 1)));
            builder.restrict_sql(Condition::Sql(same));
        }
        builder.add_column(key.fragment);
    }
    if let Some(rule) = rule {
        builder.restrict(rule);
    }
    Ok(Some(builder.finish_bounded(Surface::Sort)?.0))
}

/// Orders by the sort with the id as tie-break, restricts to what lies beyond the cursor, and adds the keys to the row.
fn order_by_keys(
    lens: Lens<'_>,
    builder: &mut Builder<'_>,
    collection: &Arc<Collection>,
    sort: &[SortKey],
    from: Option<Direction>,
) -> Result<Vec<usize>, QueryError> {
    let mut keys = walk_keys(lens, builder, collection, sort)?;
    keys.iter_mut().for_each(|key| key.descending ^= from == Some(Direction::Backward));
    let places = keys.iter().map(|key| builder.add_column(key.fragment.clone())).collect();
    if from.is_some() {
        builder.restrict_sql(Condition::Sql(beyond(&keys)));
    }
    let mut tail = Fragment::default();
    push_order(&mut tail, Vec::new(), keys);
    tail.push(" LIMIT ").append(Fragment::bind(Bind::Argument(0)));
    builder.append_tail(tail);
    Ok(places)
}

/// "Comes after the keys in arguments 1, 2, …".
fn beyond(keys: &[Key]) -> Fragment {
    let all_descend = keys.iter().all(|key| key.descending);
    if all_descend || keys.iter().all(|key| !key.descending) {
        // One row value comparison is what an index over the keys can seek by.
        let mut out = Fragment::text("(");
        for (at, key) in keys.iter().enumerate() {
            out.push(if at > 0 { ", " } else { "" }).append(key.fragment.clone());
        }
        out.push(if all_descend { ") < (" } else { ") > (" });
        for at in 0..keys.len() {
            out.push(if at > 0 { ", " } else { "" }).append(Fragment::bind(Bind::Argument(at + 1)));
        }
        out.push(")");
        return out;
    }
    let compared = |key: &Key, operator: &str, at: usize| {
        let mut out = key.fragment.clone();
        out.push(operator).append(Fragment::bind(Bind::Argument(at + 1)));
        out
    };
    let mut out = Fragment::default();
    for (at, key) in keys.iter().enumerate().rev() {
        let mut level = Fragment::text("(");
        level.append(compared(key, if key.descending { " < " } else { " > " }, at));
        if !out.sql.is_empty() {
            level.push(" OR (").append(compared(key, " = ", at)).push(" AND ").append(out).push(")");
        }
        out = level;
        out.push(")");
    }
    // Implied by the rest, and what an index over the first key can seek by.
    let Some(first) = keys.first() else { return out };
    let mut bounded = compared(first, if first.descending { " <= " } else { " >= " }, 0);
    bounded.push(" AND ").append(out);
    bounded
}

fn relation_fields(collection: &Collection, expand: &ExpandTree) -> BTreeSet<FieldNumber> {
    expand.relations.keys().filter_map(|name| collection.find_field(name)).map(|field| field.number).collect()
}

/// Compiles what is embedded. Unknown names, and names this caller may not know, are left out alike.
fn expand_all(
    lens: Lens<'_>,
    collection: &Arc<Collection>,
    tree: &ExpandTree,
    selection: &Selection,
    facts: &mut Facts,
) -> Vec<Expand> {
    let one = |(name, below): (&Arc<str>, &ExpandTree)| {
        let shown = selection.expanded(name)?;
        expand_one(lens, collection, name, below, &shown, facts)
    };
    tree.relations.iter().filter_map(one).collect()
}

fn expand_one(
    lens: Lens<'_>,
    collection: &Arc<Collection>,
    name: &Arc<str>,
    below: &ExpandTree,
    selection: &Selection,
    facts: &mut Facts,
) -> Option<Expand> {
    let mode = lens.client_mode();
    let ids = || {
        let mut ids = Fragment::text("(SELECT value FROM json_each(");
        ids.append(Fragment::bind(Bind::Argument(0))).push("))");
        ids
    };
    let (target, field, forward) = match collection.find_field(name) {
        Some(field) => {
            let FieldKind::Relation(relation) = &field.kind else { return None };
            if !is_nameable(collection, field, mode) || lens.readable(collection, field) == Visibility::Never {
                return None;
            }
            (lens.schema.find_id(&relation.target)?, field, true)
        }
        None => {
            let (back, field) = find_back_relation(lens.schema, collection, name)?;
            is_nameable(back, field, mode).then_some((back, field, false))?
        }
    };
    let viewed = lens.viewed(target);
    if !lens.reach.admits(&target.id) || viewed == Visibility::Never {
        return None;
    }
    let mut builder = Builder::new(lens, target);
    let row = builder.add_record(selection, &relation_fields(target, below));
    let list = field.kind.is_list();
    let mut belongs = Fragment::default();
    let link = if forward {
        belongs.push(&format!("{ROOT_ALIAS}.id IN ")).append(ids());
        ExpandLink::Forward { field: field.number, list }
    } else {
        let column = format!("{ROOT_ALIAS}.{}", field.column());
        if list {
            belongs.push(&format!("EXISTS (SELECT 1 FROM json_each({column}) AS link WHERE link.value IN "));
            belongs.append(ids()).push(")");
        } else {
            belongs.push(&format!("{column} IN ")).append(ids());
        }
        let guard = lens.readable(target, field);
        let shows = builder.renderer.visibility(&guard, ROOT_ALIAS);
        if let Visibility::When(predicate) = &guard {
            builder.facts.merge(&predicate.facts);
        }
        builder.restrict_sql(shows);
        let place = builder.add_column(Fragment::text(column));
        ExpandLink::Backward { column: place, list, single: !list && is_unique_alone(target, field) }
    };
    builder.restrict_sql(Condition::Sql(belongs));
    if let Visibility::When(rule) = &viewed {
        builder.restrict(rule);
    }
    let (statement, found) = match link {
        ExpandLink::Forward { .. } => builder.finish(),
        ExpandLink::Backward { list, single, .. } => finish_back(builder, target, (!list && !single).then_some(field)),
    };
    facts.hopped.extend(found.touched.iter().cloned());
    facts.merge(&found);
    let children = expand_all(lens, target, below, selection, facts);
    Some(Expand { name: name.clone(), link, statement, row, children })
}

/// The column that counts the rows of one embedding record.
const BACK_PLACE: &str = "back_place";

/// The rows of a back-relation in the order of creation: of each embedding record the first
/// [`limits::EXPAND_BACK_LEN_MAX`], and over all of them one more than an answer may load, so that reading tells.
///
/// `counted` is the link by which rows are counted; without one each has one embedding record, or a list of them: such a
/// row is read once for all of them, and the first ones of each are taken later.
fn finish_back(mut builder: Builder<'_>, target: &Collection, counted: Option<&Field>) -> (Statement, Facts) {
    let order = format!("{ROOT_ALIAS}.{}", if target.is_view() { "id" } else { "_r" });
    let limit = limits::EXPAND_RECORDS_MAX + 1;
    let Some(field) = counted else {
        builder.append_tail(Fragment::text(format!(" ORDER BY {order} LIMIT {limit}")));
        return builder.finish();
    };
    let link = format!("{ROOT_ALIAS}.{}", field.column());
    let place = format!("ROW_NUMBER() OVER (PARTITION BY {link} ORDER BY {order}) AS {BACK_PLACE}");
    builder.add_column(Fragment::text(place));
    let (statement, facts) = builder.finish();
    let most = limits::EXPAND_BACK_LEN_MAX;
    let after = format!(") WHERE {BACK_PLACE} <= {most} ORDER BY {BACK_PLACE} LIMIT {limit}");
    (statement.wrapped("SELECT * FROM (", &after), facts)
}
