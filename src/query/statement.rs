//! One SQL statement with what is to be bound to it, and the shape of the rows it gives.
//!
//! Keeps true: a statement can be kept and run for many requests; what differs between them is in its binds.
//! Does not do: running it.

use crate::kernel::ident::FieldNumber;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::error::{Problem, QueryError, Surface};
use crate::query::inside::Inside;
use crate::query::request::{Bind, RequestContext};
use crate::query::resolve::Lens;
use crate::query::resolved::{Facts, Predicate, Visibility};
use crate::query::select::{Excerpt, Selection};
use crate::query::sql::{Condition, Fragment, Renderer};
use crate::query::total;
use crate::schema::field::Storage;
use crate::schema::{Collection, CollectionKind};
use std::collections::BTreeSet;
use std::sync::Arc;

/// SQL text and the values its `?` stand for, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// The text.
    pub sql: Arc<str>,
    /// What is bound.
    pub binds: Vec<Bind>,
}

impl Statement {
    /// The values for one run. What `arguments` are is said where the statement is made.
    pub fn fill(&self, request: &RequestContext, arguments: &[Stored]) -> Vec<Stored> {
        self.binds.iter().map(|bind| bind.fill(request, arguments)).collect()
    }

    pub(crate) fn new(fragment: Fragment) -> Self {
        Self { sql: Arc::from(fragment.sql), binds: fragment.binds }
    }

    /// The same values between other text.
    pub(crate) fn wrapped(self, before: &str, after: &str) -> Self {
        Self { sql: Arc::from(format!("{before}{}{after}", self.sql)), binds: self.binds }
    }

    /// Writes text and values so that two statements that differ in either give different bytes.
    pub(crate) fn write_key(&self, out: &mut Vec<u8>, request: &RequestContext, arguments: &[Stored]) {
        write_text(out, &self.sql);
        for value in self.fill(request, arguments) {
            match value {
                Stored::Null => out.push(0),
                Stored::Integer(number) => {
                    out.push(1);
                    out.extend(number.to_be_bytes());
                }
                Stored::Real(number) => {
                    out.push(2);
                    out.extend(number.to_be_bytes());
                }
                Stored::Text(text) => {
                    out.push(3);
                    write_text(out, &text);
                }
                Stored::Blob(bytes) => {
                    out.push(4);
                    out.extend((bytes.len() as u64).to_be_bytes());
                    out.extend(&*bytes);
                }
            }
        }
    }
}

pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Where a column of an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The record id.
    Id,
    /// A field of the record.
    Field(FieldNumber),
    /// Something computed.
    Computed,
}

/// One column of the rows; its place in the row is its place in [`RowShape::columns`].
#[derive(Debug, Clone, PartialEq)]
pub struct OutColumn {
    /// The member's name in the answer.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: Source,
    /// How the cell is written as JSON.
    pub storage: Storage,
    /// Part of the answer; otherwise it is only there to find what is embedded.
    pub shown: bool,
    /// The column of the row that is 1 where this caller may read this cell; otherwise the member is left out.
    pub guard: Option<usize>,
    /// How the text is cut.
    pub excerpt: Option<Excerpt>,
    /// What of a JSON value is shown; `None` is all of it.
    pub inside: Option<Inside>,
}

/// What a row of a statement holds.
#[derive(Debug, Clone, PartialEq)]
pub struct RowShape {
    /// The collection of the record.
    pub collection: Arc<Collection>,
    /// The columns, first to last; guards, links and keys may follow behind them.
    pub columns: Vec<OutColumn>,
    /// Whether `collectionId` is shown.
    pub shows_collection_id: bool,
    /// Whether `collectionName` is shown.
    pub shows_collection_name: bool,
}

impl RowShape {
    /// The place of a field's column in the row.
    pub fn find(&self, number: FieldNumber) -> Option<usize> {
        let source = if number.0 == 0 { Source::Id } else { Source::Field(number) };
        self.columns.iter().position(|column| column.source == source)
    }

    pub(crate) fn write_key(&self, out: &mut Vec<u8>) {
        write_text(out, self.collection.name.as_str());
        out.extend([u8::from(self.shows_collection_id), u8::from(self.shows_collection_name)]);
        for column in &self.columns {
            write_text(out, &column.name);
            out.push(u8::from(column.shown));
            // The statement alone does not tell which column a guard belongs to.
            out.extend(column.guard.map_or(0, |at| at as u64 + 1).to_be_bytes());
            if let Some(excerpt) = column.excerpt {
                out.extend((excerpt.chars_max as u64).to_be_bytes());
                out.push(u8::from(excerpt.ellipsis));
            }
            if let Some(inside) = &column.inside {
                write_text(out, &inside.key());
            }
        }
    }
}

/// The alias of the record's own row in every statement.
pub(crate) const ROOT_ALIAS: &str = "t0";

/// A statement being put together over the records of one collection.
pub(crate) struct Builder<'l> {
    lens: Lens<'l>,
    collection: Arc<Collection>,
    pub(crate) renderer: Renderer,
    select: Vec<Fragment>,
    extra_join: Fragment,
    conditions: Vec<Condition>,
    tail: Fragment,
    pub(crate) facts: Facts,
}

impl<'l> Builder<'l> {
    pub(crate) fn new(lens: Lens<'l>, collection: &Arc<Collection>) -> Self {
        let mut facts = Facts::default();
        facts.touched.insert(collection.id.clone());
        Self {
            lens,
            collection: collection.clone(),
            renderer: Renderer::default(),
            select: Vec::new(),
            extra_join: Fragment::default(),
            conditions: Vec::new(),
            tail: Fragment::default(),
            facts,
        }
    }

    /// Adds a column to the rows; answers its place.
    pub(crate) fn add_column(&mut self, column: Fragment) -> usize {
        self.select.push(column);
        self.select.len() - 1
    }

    /// Adds the columns of the record that are shown or `needed`, each as this class of caller may see it.
    pub(crate) fn add_record(&mut self, selection: &Selection, needed: &BTreeSet<FieldNumber>) -> RowShape {
        let collection = self.collection.clone();
        let mut columns = Vec::new();
        let mut guarded: Vec<(usize, Visibility, String)> = Vec::new();
        for field in &collection.fields {
            let name = field.name.as_str();
            let is_id = field.number.0 == 0;
            let shown = selection.shows(name);
            if !shown && !is_id && !needed.contains(&field.number) {
                continue;
            }
            let readable = if is_id { Visibility::Always } else { self.lens.readable(&collection, field) };
            let column = format!("{ROOT_ALIAS}.{}", field.column());
            match readable {
                Visibility::Never => continue,
                Visibility::Always => _ = self.add_column(Fragment::text(column)),
                guard @ Visibility::When(_) => {
                    let at = self.add_column(Fragment::default());
                    guarded.push((at, guard, column));
                }
            }
            columns.push(OutColumn {
                name: Arc::from(name),
                source: if is_id { Source::Id } else { Source::Field(field.number) },
                storage: field.kind.storage(),
                shown,
                guard: None,
                excerpt: selection.excerpt(name),
                inside: selection
                    .inside(name)
                    .filter(|_| matches!(field.kind.storage(), Storage::Json | Storage::Point)),
            });
        }
        self.add_guards(guarded, &mut columns);
        RowShape {
            collection,
            columns,
            shows_collection_id: selection.shows("collectionId"),
            shows_collection_name: selection.shows("collectionName"),
        }
    }

    /// Behind the record's columns: one column per distinct guard, 1 where it holds.
    fn add_guards(&mut self, guarded: Vec<(usize, Visibility, String)>, columns: &mut [OutColumn]) {
        let mut places: Vec<(Visibility, usize)> = Vec::new();
        for (at, guard, column) in guarded {
            let condition = self.renderer.visibility(&guard, ROOT_ALIAS).into_fragment();
            if let Visibility::When(predicate) = &guard {
                self.facts.merge(&predicate.facts);
            }
            let place = match places.iter().find(|(known, _)| *known == guard) {
                Some((_, place)) => *place,
                None => {
                    let mut flag = Fragment::text("(");
                    flag.append(condition.clone()).push(") IS TRUE");
                    let place = self.add_column(flag);
                    places.push((guard, place));
                    place
                }
            };
            let mut value = Fragment::text("CASE WHEN ");
            value.append(condition).push(&format!(" THEN {column} END"));
            if let Some(slot) = self.select.get_mut(at) {
                *slot = value;
            }
            if let Some(column) = columns.get_mut(at) {
                column.guard = Some(place);
            }
        }
    }

    /// Only records for which the predicate holds.
    pub(crate) fn restrict(&mut self, predicate: &Predicate) {
        let condition = self.renderer.hoisted(predicate, ROOT_ALIAS);
        self.facts.merge(&predicate.facts);
        self.conditions.push(condition);
    }

    /// Only records for which the condition holds.
    pub(crate) fn restrict_sql(&mut self, condition: Condition) {
        self.conditions.push(condition);
    }

    /// Joins one more table in front of the others.
    pub(crate) fn join(&mut self, join: Fragment) {
        self.extra_join.append(join);
    }

    /// Adds what stands behind WHERE: GROUP BY, ORDER BY, LIMIT.
    pub(crate) fn append_tail(&mut self, tail: Fragment) {
        self.tail.append(tail);
    }

    /// The statement of a client's question; refused where it became too large to run.
    pub(crate) fn finish_bounded(self, surface: Surface) -> Result<(Statement, Facts), QueryError> {
        let too_many = |what, limit| Err(QueryError::whole(surface, Problem::TooMany { what, limit }));
        if self.renderer.joins_len() > limits::JOINS_MAX {
            return too_many("relations", limits::JOINS_MAX);
        }
        let (statement, facts) = self.finish();
        if statement.sql.len() > limits::STATEMENT_BYTES_MAX {
            return too_many("bytes of SQL", limits::STATEMENT_BYTES_MAX);
        }
        if statement.binds.len() > limits::STATEMENT_BINDS_MAX {
            return too_many("values", limits::STATEMENT_BINDS_MAX);
        }
        Ok((statement, facts))
    }

    /// Whether the question is about every record of a collection that is stored.
    pub(crate) fn asks_for_all(&self) -> bool {
        let unconditional = self.conditions.iter().all(|condition| *condition == Condition::Known(true));
        let alone = self.extra_join == Fragment::default() && self.renderer.joins() == Fragment::default();
        unconditional && alone && self.collection.kind != CollectionKind::View
    }

    /// The statement of a count whose one column is `COUNT(*)`.
    pub(crate) fn finish_count(self) -> Statement {
        if self.extra_join == Fragment::default()
            && let Some(grouped) = total::by_group(&self.collection, self.renderer.joins(), &self.conditions)
        {
            return Statement::new(grouped);
        }
        self.finish().0
    }

    pub(crate) fn finish(self) -> (Statement, Facts) {
        let mut out = Fragment::text("SELECT ");
        for (at, column) in self.select.into_iter().enumerate() {
            if at > 0 {
                out.push(", ");
            }
            out.append(column);
        }
        out.push(&format!(" FROM \"{}\" AS {ROOT_ALIAS}", self.collection.table()));
        out.append(self.extra_join).append(self.renderer.joins());
        match Condition::and(self.conditions) {
            Condition::Known(true) => {}
            condition => _ = out.push(" WHERE ").append(condition.into_fragment()),
        }
        out.append(self.tail);
        (Statement::new(out), self.facts)
    }
}
