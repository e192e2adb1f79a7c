//! `aggregate=count,sum(chips)&group=status`: totals over the records a caller may list.
//!
//! Keeps true: rule and filter apply as in a list; a guarded column counts only where this caller may read it.
//! Does not do: joins over relations that have many rows.

use crate::query::error::{Problem, QueryError, Surface};
use crate::query::list::{AggregateFunction, ListQuery};
use crate::query::plan::{self, Pinned};
use crate::query::request::Bind;
use crate::query::resolve::Lens;
use crate::query::resolved::{Column, Facts, Operand, Predicate, Slot, Type};
use crate::query::search;
use crate::query::sql::Fragment;
use crate::query::statement::{Builder, OutColumn, ROOT_ALIAS, Source, Statement};
use crate::schema::Collection;
use crate::schema::field::Storage;
use std::borrow::Cow;
use std::sync::Arc;

/// How to compute totals. Arguments: limit, offset (over groups).
#[derive(Debug, Clone, PartialEq)]
pub struct AggregatePlan {
    /// One row per group; without groups exactly one.
    pub statement: Statement,
    /// The columns of a row: the groups, then the totals.
    pub columns: Vec<OutColumn>,
    /// What the answer depends on.
    pub facts: Facts,
    /// The part of the collection in which all rows lie, if the filter says so.
    pub partition: Option<Pinned>,
}

/// Compiles the aggregates of a list request; `rule` is what the caller's rule leaves to be checked per record.
pub fn aggregate(
    lens: Lens<'_>,
    collection: &Arc<Collection>,
    rule: Option<&Predicate>,
    query: &ListQuery,
) -> Result<AggregatePlan, QueryError> {
    if query.aggregate.is_empty() {
        let name = if query.group.is_empty() { "aggregate" } else { "group" }.to_owned();
        let reason = Cow::Borrowed("needs totals beside it, such as aggregate=count or aggregate=sum(field)");
        return Err(QueryError::whole(Surface::Aggregate, Problem::Unsupported { name, reason }));
    }
    let mut builder = Builder::new(lens, collection);
    let mut columns = Vec::new();
    let mut groups = Vec::new();
    for path in &query.group {
        let (fragment, operand, nullable) = value_of(lens, &mut builder, collection, path)?;
        columns.push(computed(path, storage_of(&operand)));
        // What is not there is shown as what is empty, and is one group with it.
        let empty = if operand.value_type() == Type::Number { "0" } else { "''" };
        builder.add_column(if nullable { fragment.wrapped("COALESCE(", &format!(", {empty})")) } else { fragment });
        groups.push(columns.len().to_string());
    }
    for total in &query.aggregate {
        let (fragment, storage) = match &total.path {
            None => (Fragment::text("COUNT(*)"), Storage::Number),
            Some(path) => {
                let (value, operand, _) = value_of(lens, &mut builder, collection, path)?;
                (total_of(total.function, value, &operand, path)?, total_storage(total.function, &operand))
            }
        };
        columns.push(computed(&total.name, storage));
        builder.add_column(fragment);
    }
    if let Some(text) = &query.search {
        let search = search::compile(lens, collection, text)?;
        builder.join(search.join);
        builder.restrict_sql(search.condition);
    }
    if let Some(rule) = rule {
        builder.restrict(rule);
    }
    let filter = query.filter.as_deref().map(|text| lens.filter(collection, text)).transpose()?;
    if let Some(filter) = &filter {
        builder.restrict(filter);
    }
    let partition = filter.as_ref().and_then(|filter| plan::pinned(collection, &filter.expr));
    let mut tail = Fragment::default();
    if !groups.is_empty() {
        // Column numbers: a group is the same expression wherever it stands, binds included.
        let numbers = groups.join(", ");
        tail.push(&format!(" GROUP BY {numbers} ORDER BY {numbers}"));
    }
    tail.push(" LIMIT ").append(Fragment::bind(Bind::Argument(0)));
    tail.push(" OFFSET ").append(Fragment::bind(Bind::Argument(1)));
    builder.append_tail(tail);
    let (statement, facts) = builder.finish_bounded(Surface::Aggregate)?;
    Ok(AggregatePlan { statement, columns, facts, partition })
}

/// The value of a path, and whether it may be missing.
fn value_of(
    lens: Lens<'_>,
    builder: &mut Builder<'_>,
    collection: &Arc<Collection>,
    path: &str,
) -> Result<(Fragment, Operand, bool), QueryError> {
    let (operand, rows) = lens.operand(collection, Surface::Aggregate, path, path)?;
    builder.facts.merge(&rows.facts);
    let (fragment, nullable) = builder.renderer.hoisted_operand(&operand, &rows, ROOT_ALIAS);
    Ok((fragment, operand, nullable))
}

fn total_of(
    function: AggregateFunction,
    value: Fragment,
    operand: &Operand,
    path: &str,
) -> Result<Fragment, QueryError> {
    let text = operand.value_type() == Type::Text;
    let (before, after) = match function {
        AggregateFunction::Count => ("COUNT(NULLIF(", ", ''))"),
        AggregateFunction::Sum if !text => ("TOTAL(", ")"),
        AggregateFunction::Average if !text => ("AVG(", ")"),
        AggregateFunction::Minimum => ("MIN(", ")"),
        AggregateFunction::Maximum => ("MAX(", ")"),
        AggregateFunction::Sum | AggregateFunction::Average => {
            let reason = Cow::Borrowed("is not a number");
            let problem = Problem::Unsupported { name: path.to_owned(), reason };
            return Err(QueryError::whole(Surface::Aggregate, problem));
        }
    };
    let mut out = Fragment::text(before);
    out.append(value).push(after);
    Ok(out)
}

fn total_storage(function: AggregateFunction, operand: &Operand) -> Storage {
    match function {
        AggregateFunction::Minimum | AggregateFunction::Maximum => storage_of(operand),
        AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Average => Storage::Number,
    }
}

fn storage_of(operand: &Operand) -> Storage {
    if let Operand::Column(Column { slot: Slot::Field(_, storage), .. }) = operand {
        return *storage;
    }
    match operand.value_type() {
        Type::Number => Storage::Number,
        // A JSON scalar is written as the text it is.
        Type::Text | Type::Json | Type::Free => Storage::Text,
    }
}

fn computed(name: &Arc<str>, storage: Storage) -> OutColumn {
    OutColumn {
        name: name.clone(),
        source: Source::Computed,
        storage,
        shown: true,
        guard: None,
        excerpt: None,
        inside: None,
    }
}
