//! [`Predicate`] over records in memory: live subscriptions, decisions without a database, explanations.
//!
//! Keeps true: the outcome is the one the rendered SQL has on the same data (a property test compares them); no evaluation
//! takes more [`Steps`] than whoever asks allows, however many rows its conditions multiply.
//! Does not do: fetching; whatever else a condition visits comes from the [`Dataset`] handed in.

use crate::kernel::error::{Code, Fault};
use crate::kernel::value::{Cell, Stored};
use crate::query::ast::{Comparison, Expr, Operator, Resolved};
use crate::query::path::plain;
use crate::query::request::RequestContext;
use crate::query::resolved::{
    Column, Hop, Node, NodeIndex, Operand, Predicate, Quantifier, ROOT, Slot, Type, Visibility, casts,
};
use crate::query::value::{self, Shape};
use crate::schema::Collection;
use crate::schema::record::RecordImage;
use std::cell::Cell as Counter;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The records that a condition may visit besides the one it is about.
pub trait Dataset {
    /// The record with this id.
    fn find(&self, collection: &Collection, id: &str) -> Option<Arc<RecordImage>>;

    /// Calls `each` with every record until it breaks.
    fn scan(&self, collection: &Collection, each: &mut dyn FnMut(&Arc<RecordImage>) -> ControlFlow<()>);
}

/// No records at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRecords;

impl Dataset for NoRecords {
    fn find(&self, _: &Collection, _: &str) -> Option<Arc<RecordImage>> {
        None
    }

    fn scan(&self, _: &Collection, _: &mut dyn FnMut(&Arc<RecordImage>) -> ControlFlow<()>) {}
}

/// Steps that may still be taken: one for each comparison and each row or element that is looked at.
///
/// Everything that one question evaluates takes from the same steps, as all statements of one read do from theirs.
#[derive(Debug)]
pub struct Steps(Counter<u64>);

/// The steps were used up before the outcome was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an evaluation used up its steps")]
pub struct Exhausted;

impl Steps {
    /// So many.
    pub const fn new(steps: u64) -> Self {
        Self(Counter::new(steps))
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.0.get()
    }

    fn take(&self) -> Result<(), Exhausted> {
        self.0.set(self.0.get().checked_sub(1).ok_or(Exhausted)?);
        Ok(())
    }
}

impl Fault for Exhausted {
    fn code(&self) -> Code {
        Code::QueryTooExpensive
    }
}

/// One comparison as it went.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Which comparison: its place in the source.
    pub span: crate::query::error::Span,
    /// The left value as compared.
    pub left: Stored,
    /// The right value as compared.
    pub right: Stored,
    /// Whether it held.
    pub outcome: bool,
}

/// Of one comparison of a rule, over the rows it is made with: how many that held an explanation shows, and how many that
/// did not. The rest is counted.
pub const OBSERVATIONS_MAX: u64 = 5;

/// Comparisons that are not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unseen {
    /// Which comparison: its place in the source.
    pub span: crate::query::error::Span,
    /// Whether these held.
    pub outcome: bool,
    /// How many there were.
    pub count: u64,
}

/// How an evaluation went, comparison by comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Whether the predicate holds, where that was found out.
    pub outcome: Result<bool, Exhausted>,
    /// The comparisons, few of each.
    pub comparisons: Vec<Observation>,
    /// How many more there were of which, in the order of the source.
    pub unseen: Vec<Unseen>,
    /// Whether these are all.
    pub complete: bool,
}

/// Whether `predicate` holds for `record`.
pub fn holds(
    predicate: &Predicate,
    data: &dyn Dataset,
    request: &RequestContext,
    record: &Arc<RecordImage>,
    steps: &Steps,
) -> Result<bool, Exhausted> {
    Run::new(predicate, data, request, steps).over_record(record)
}

/// Whether `predicate` holds for `record`, and how each comparison went; nothing is cut short but by the steps.
pub fn observe(
    predicate: &Predicate,
    data: &dyn Dataset,
    request: &RequestContext,
    record: &Arc<RecordImage>,
    steps: &Steps,
) -> Observed {
    let mut run = Run { seen: Some(Seen::default()), ..Run::new(predicate, data, request, steps) };
    let outcome = run.over_record(record);
    let Seen { shown, made } = run.seen.unwrap_or_default();
    let more = |((span, outcome), made): ((crate::query::error::Span, bool), u64)| {
        let count = made.saturating_sub(OBSERVATIONS_MAX);
        (count > 0).then_some(Unseen { span, outcome, count })
    };
    let mut unseen: Vec<Unseen> = made.into_iter().filter_map(more).collect();
    unseen.sort_by_key(|one| (one.span.start, one.outcome));
    Observed { outcome, complete: outcome.is_ok() && unseen.is_empty(), comparisons: shown, unseen }
}

/// The outcome, if no record is needed to know it. Without records there is no more to do than the condition is long.
pub fn without_record(predicate: &Predicate, request: &RequestContext) -> Option<bool> {
    Run::new(predicate, &NoRecords, request, &Steps::new(u64::MAX)).known(&predicate.expr)
}

#[derive(Debug, Clone)]
enum Row {
    Absent,
    Record(Arc<RecordImage>),
    Element(Stored),
}

struct Run<'e> {
    predicate: &'e Predicate,
    data: &'e dyn Dataset,
    request: &'e RequestContext,
    steps: &'e Steps,
    rows: Vec<Row>,
    seen: Option<Seen>,
}

/// What an explanation has to tell. Bound: a few observations of each comparison of the rule.
#[derive(Default)]
struct Seen {
    shown: Vec<Observation>,
    /// How often each comparison came out how.
    made: HashMap<(crate::query::error::Span, bool), u64>,
}

impl<'e> Run<'e> {
    fn new(predicate: &'e Predicate, data: &'e dyn Dataset, request: &'e RequestContext, steps: &'e Steps) -> Self {
        let rows = vec![Row::Absent; predicate.nodes.len().max(1)];
        Self { predicate, data, request, steps, rows, seen: None }
    }

    fn over_record(&mut self, record: &Arc<RecordImage>) -> Result<bool, Exhausted> {
        self.put(ROOT, Row::Record(Arc::clone(record)));
        let predicate = self.predicate;
        for node in predicate.single_nodes() {
            let row = self.rows_of(node)?.into_iter().next().unwrap_or(Row::Absent);
            self.put(node, row);
        }
        self.expr(&predicate.expr)
    }

    fn put(&mut self, index: NodeIndex, row: Row) {
        if let Some(slot) = self.rows.get_mut(index) {
            *slot = row;
        }
    }

    fn row(&self, index: NodeIndex) -> &Row {
        self.rows.get(index).unwrap_or(&Row::Absent)
    }

    /// Three-valued: what can be known without any row.
    fn known(&mut self, expr: &Expr<Resolved>) -> Option<bool> {
        match expr {
            Expr::Constant(value) => Some(*value),
            Expr::All(parts) => {
                let outcomes: Vec<_> = parts.iter().map(|part| self.known(part)).collect();
                decided(&outcomes, false)
            }
            Expr::Any(parts) => {
                let outcomes: Vec<_> = parts.iter().map(|part| self.known(part)).collect();
                decided(&outcomes, true)
            }
            Expr::Compare(comparison) if comparison.left.is_recordless() && comparison.right.is_recordless() => {
                self.comparison(comparison).ok()
            }
            Expr::Compare(_) | Expr::Over(..) => None,
        }
    }

    fn expr(&mut self, expr: &Expr<Resolved>) -> Result<bool, Exhausted> {
        let everything = self.seen.is_some();
        match expr {
            Expr::Constant(value) => Ok(*value),
            Expr::All(parts) => {
                let mut outcome = true;
                for part in parts {
                    outcome &= self.expr(part)?;
                    if !outcome && !everything {
                        break;
                    }
                }
                Ok(outcome)
            }
            Expr::Any(parts) => {
                let mut outcome = false;
                for part in parts {
                    outcome |= self.expr(part)?;
                    if outcome && !everything {
                        break;
                    }
                }
                Ok(outcome)
            }
            Expr::Compare(comparison) => self.comparison(comparison),
            Expr::Over(quantifier, inner) => {
                let outcome = self.over(quantifier, &quantifier.nodes, inner);
                quantifier.nodes.iter().for_each(|node| self.put(*node, Row::Absent));
                outcome
            }
        }
    }

    /// Walks every combination of rows; where nothing is there, one row of NULLs is visited.
    fn over(
        &mut self,
        quantifier: &Quantifier,
        nodes: &[NodeIndex],
        inner: &Expr<Resolved>,
    ) -> Result<bool, Exhausted> {
        let Some((node, rest)) = nodes.split_first() else { return self.expr(inner) };
        let mut rows = self.rows_of(*node)?;
        if rows.is_empty() {
            rows.push(Row::Absent);
        }
        let mut outcome = quantifier.every;
        for row in rows {
            self.put(*node, row);
            let found = self.over(quantifier, rest, inner)?;
            outcome = if quantifier.every { outcome && found } else { outcome || found };
            if outcome != quantifier.every && self.seen.is_none() {
                break;
            }
        }
        Ok(outcome)
    }

    fn rows_of(&mut self, index: NodeIndex) -> Result<Vec<Row>, Exhausted> {
        let predicate = self.predicate;
        let Some(node) = predicate.nodes.get(index) else { return Ok(Vec::new()) };
        let parent = self.row(node.parent).clone();
        let found = match &node.hop {
            Hop::Root => return Ok(Vec::new()),
            _ if matches!(parent, Row::Absent) => return Ok(Vec::new()),
            Hop::Elements { list } => {
                let list = self.operand(list)?;
                return self.items(&list)?.into_iter().map(|item| Ok(Row::Element(item))).collect();
            }
            Hop::Forward { link } => {
                let id = value::to_text(&self.operand(link)?);
                self.find_each(node, &[id])?
            }
            Hop::ForwardList { link } => {
                let list = self.operand(link)?;
                let mut ids = self.items(&list)?;
                ids.sort_by(Stored::total_cmp);
                ids.dedup();
                self.find_each(node, &ids)?
            }
            Hop::Backward { link, list } => {
                let Row::Record(parent) = &parent else { return Ok(Vec::new()) };
                let id = Stored::text(&parent.id);
                self.scan_where(node, |run, row| {
                    let stored = stored_of(row, link.slot);
                    let points = if *list { value::list_items(&stored).contains(&id) } else { stored == id };
                    Ok(points && run.shows(&link.guard, row)?)
                })?
            }
            Hop::Anywhere { .. } => self.scan_where(node, |_, _| Ok(true))?,
        };
        let mut rows = Vec::with_capacity(found.len());
        for row in found {
            if self.shows(&node.guard, &row)? {
                rows.push(Row::Record(row));
            }
        }
        Ok(rows)
    }

    /// The elements of a list, each a step.
    fn items(&self, list: &Stored) -> Result<Vec<Stored>, Exhausted> {
        let items = if list.is_null() { Vec::new() } else { value::list_items(&value::to_list(list)) };
        items.iter().try_for_each(|_| self.steps.take())?;
        Ok(items)
    }

    fn find_each(&self, node: &Node, ids: &[Stored]) -> Result<Vec<Arc<RecordImage>>, Exhausted> {
        let Some(collection) = &node.collection else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for id in ids.iter().filter_map(Stored::as_text) {
            self.steps.take()?;
            found.extend(self.data.find(collection, id));
        }
        Ok(found)
    }

    fn scan_where(
        &self,
        node: &Node,
        wanted: impl Fn(&Self, &Arc<RecordImage>) -> Result<bool, Exhausted>,
    ) -> Result<Vec<Arc<RecordImage>>, Exhausted> {
        let (mut found, mut went) = (Vec::new(), Ok(()));
        if let Some(collection) = &node.collection {
            self.data.scan(collection, &mut |row| match self.steps.take().and_then(|()| wanted(self, row)) {
                Ok(fits) => {
                    found.extend(fits.then(|| Arc::clone(row)));
                    ControlFlow::Continue(())
                }
                Err(exhausted) => {
                    went = Err(exhausted);
                    ControlFlow::Break(())
                }
            });
        }
        went.map(|()| found)
    }

    fn shows(&self, visibility: &Visibility, row: &Arc<RecordImage>) -> Result<bool, Exhausted> {
        match visibility {
            Visibility::Always => Ok(true),
            Visibility::Never => Ok(false),
            Visibility::When(predicate) => holds(predicate, self.data, self.request, row, self.steps),
        }
    }

    fn comparison(&mut self, comparison: &Comparison<Resolved>) -> Result<bool, Exhausted> {
        self.steps.take()?;
        let left = self.operand(&comparison.left)?;
        let right = self.operand(&comparison.right)?;
        let strict = !comparison.any && comparison.operator == Operator::NotEqual;
        let absent = |operand: &Operand, value: &Stored| strict && value.is_null() && self.is_private(operand);
        let missing = absent(&comparison.left, &left) || absent(&comparison.right, &right);
        let like = comparison.operator.is_like();
        let (left_cast, right_cast) = casts(comparison.left.value_type(), like, comparison.right.value_type());
        let left = Shape::cast(left_cast).apply(left);
        let right = Shape { pattern: like, ..Shape::cast(right_cast) }.apply(right);
        let outcome = !missing && value::compare(&left, comparison.operator, &right);
        if let Some(seen) = &mut self.seen {
            let made = seen.made.entry((comparison.span, outcome)).or_default();
            *made += 1;
            if *made <= OBSERVATIONS_MAX {
                seen.shown.push(Observation { span: comparison.span, left, right, outcome });
            }
        }
        Ok(outcome)
    }

    fn is_private(&self, operand: &Operand) -> bool {
        let mut private = false;
        operand.for_each_column(&mut |column| {
            private |= self.predicate.nodes.get(column.node).is_some_and(|node| node.scope.is_some());
        });
        private
    }

    fn operand(&self, operand: &Operand) -> Result<Stored, Exhausted> {
        Ok(match operand {
            Operand::Constant(value) => value.clone(),
            Operand::Request(path) => self.request.look_up(path),
            Operand::Clock(clock) => clock.value(self.request.now_ms),
            Operand::Column(column) => self.column(column)?,
            Operand::Json(column, path) => value::json_extract(&self.column(column)?, path),
            Operand::Length(column) => value::list_len(&self.column(column)?),
            Operand::Lower(inner) => value::lower(&self.operand(inner)?),
            Operand::Call(function, arguments) => {
                let values = arguments.iter().map(|argument| self.operand(argument)).collect::<Result<Vec<_>, _>>()?;
                let cells: Vec<Cell<'_>> = values.iter().map(Stored::cell).collect();
                (function.0.call)(&cells)
            }
            Operand::Changed { is_set, sent, column } => {
                let stored = self.operand(&plain(column.clone()))?;
                let (cast, _) = casts(Type::Free, false, column.slot.value_type());
                let sent = Shape::cast(cast).apply(self.request.look_up(sent));
                let is_set = self.request.look_up(is_set) == Stored::bool(true);
                Stored::bool(is_set && value::compare(&sent, Operator::NotEqual, &stored))
            }
        })
    }

    fn column(&self, column: &Column) -> Result<Stored, Exhausted> {
        Ok(match self.row(column.node) {
            Row::Absent => Stored::Null,
            Row::Element(value) => value.clone(),
            Row::Record(row) if self.shows(&column.guard, row)? => stored_of(row, column.slot),
            Row::Record(_) => Stored::Null,
        })
    }
}

/// The stored value of a column; a field without one has its default.
fn stored_of(row: &RecordImage, slot: Slot) -> Stored {
    match slot {
        Slot::Id => Stored::text(&row.id),
        Slot::RowNumber | Slot::Element => Stored::Null,
        Slot::Field(number, storage) => row.get(number).cloned().unwrap_or_else(|| value::default_of(storage)),
    }
}

fn decided(outcomes: &[Option<bool>], decisive: bool) -> Option<bool> {
    if outcomes.contains(&Some(decisive)) {
        return Some(decisive);
    }
    (!outcomes.contains(&None)).then_some(!decisive)
}
