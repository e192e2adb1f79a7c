//! [`Predicate`] over records in memory: live subscriptions, decisions without a database, explanations.
//!
//! Keeps true: the outcome is the one the rendered SQL has on the same data (a property test compares them).
//! Does not do: fetching; whatever else a condition visits comes from the [`Dataset`] handed in.

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

/// Most comparisons that an explanation records.
pub const OBSERVATIONS_MAX: usize = 1_000;

/// Whether `predicate` holds for `record`.
pub fn holds(predicate: &Predicate, data: &dyn Dataset, request: &RequestContext, record: &Arc<RecordImage>) -> bool {
    Run::over_record(predicate, data, request, Row::Record(record.clone()), None).0
}

/// Whether `predicate` holds for `record`, and how each comparison went; nothing is cut short.
pub fn observe(
    predicate: &Predicate,
    data: &dyn Dataset,
    request: &RequestContext,
    record: &Arc<RecordImage>,
) -> (bool, Vec<Observation>) {
    Run::over_record(predicate, data, request, Row::Record(record.clone()), Some(Vec::new()))
}

/// The outcome, if no record is needed to know it.
pub fn without_record(predicate: &Predicate, request: &RequestContext) -> Option<bool> {
    let mut run =
        Run { predicate, data: &NoRecords, request, rows: vec![Row::Absent; predicate.nodes.len().max(1)], seen: None };
    run.known(&predicate.expr)
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
    rows: Vec<Row>,
    seen: Option<Vec<Observation>>,
}

impl<'e> Run<'e> {
    fn over_record(
        predicate: &'e Predicate,
        data: &'e dyn Dataset,
        request: &'e RequestContext,
        root: Row,
        seen: Option<Vec<Observation>>,
    ) -> (bool, Vec<Observation>) {
        let mut run = Run { predicate, data, request, rows: vec![Row::Absent; predicate.nodes.len().max(1)], seen };
        run.put(ROOT, root);
        for node in predicate.single_nodes() {
            let row = run.rows_of(node).into_iter().next().unwrap_or(Row::Absent);
            run.put(node, row);
        }
        let outcome = run.expr(&predicate.expr);
        (outcome, run.seen.unwrap_or_default())
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
                Some(self.comparison(comparison))
            }
            Expr::Compare(_) | Expr::Over(..) => None,
        }
    }

    fn expr(&mut self, expr: &Expr<Resolved>) -> bool {
        let everything = self.seen.is_some();
        match expr {
            Expr::Constant(value) => *value,
            Expr::All(parts) => {
                let mut outcome = true;
                for part in parts {
                    outcome &= self.expr(part);
                    if !outcome && !everything {
                        break;
                    }
                }
                outcome
            }
            Expr::Any(parts) => {
                let mut outcome = false;
                for part in parts {
                    outcome |= self.expr(part);
                    if outcome && !everything {
                        break;
                    }
                }
                outcome
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
    fn over(&mut self, quantifier: &Quantifier, nodes: &[NodeIndex], inner: &Expr<Resolved>) -> bool {
        let Some((node, rest)) = nodes.split_first() else { return self.expr(inner) };
        let mut rows = self.rows_of(*node);
        if rows.is_empty() {
            rows.push(Row::Absent);
        }
        let mut outcome = quantifier.every;
        for row in rows {
            self.put(*node, row);
            let found = self.over(quantifier, rest, inner);
            outcome = if quantifier.every { outcome && found } else { outcome || found };
            if outcome != quantifier.every && self.seen.is_none() {
                break;
            }
        }
        outcome
    }

    fn rows_of(&mut self, index: NodeIndex) -> Vec<Row> {
        let predicate = self.predicate;
        let Some(node) = predicate.nodes.get(index) else { return Vec::new() };
        let parent = self.row(node.parent).clone();
        let found = match &node.hop {
            Hop::Root => return Vec::new(),
            _ if matches!(parent, Row::Absent) => return Vec::new(),
            Hop::Elements { list } => {
                let list = self.operand(list);
                if list.is_null() {
                    return Vec::new();
                }
                return value::list_items(&value::to_list(&list)).into_iter().map(Row::Element).collect();
            }
            Hop::Forward { link } => {
                let id = value::to_text(&self.operand(link));
                self.find_each(node, &[id])
            }
            Hop::ForwardList { link } => {
                let list = self.operand(link);
                let mut ids = if list.is_null() { Vec::new() } else { value::list_items(&value::to_list(&list)) };
                ids.sort_by(Stored::total_cmp);
                ids.dedup();
                self.find_each(node, &ids)
            }
            Hop::Backward { link, list } => {
                let Row::Record(parent) = &parent else { return Vec::new() };
                let id = Stored::text(&parent.id);
                self.scan_where(node, |run, row| {
                    let stored = stored_of(row, link.slot);
                    let points = if *list { value::list_items(&stored).contains(&id) } else { stored == id };
                    points && run.shows(&link.guard, row)
                })
            }
            Hop::Anywhere { .. } => self.scan_where(node, |_, _| true),
        };
        found.into_iter().filter(|row| self.shows(&node.guard, row)).map(Row::Record).collect()
    }

    fn find_each(&self, node: &Node, ids: &[Stored]) -> Vec<Arc<RecordImage>> {
        let Some(collection) = &node.collection else { return Vec::new() };
        ids.iter().filter_map(|id| self.data.find(collection, id.as_text()?)).collect()
    }

    fn scan_where(&self, node: &Node, wanted: impl Fn(&Self, &Arc<RecordImage>) -> bool) -> Vec<Arc<RecordImage>> {
        let mut found = Vec::new();
        if let Some(collection) = &node.collection {
            self.data.scan(collection, &mut |row| {
                if wanted(self, row) {
                    found.push(row.clone());
                }
                ControlFlow::Continue(())
            });
        }
        found
    }

    fn shows(&self, visibility: &Visibility, row: &Arc<RecordImage>) -> bool {
        match visibility {
            Visibility::Always => true,
            Visibility::Never => false,
            Visibility::When(predicate) => holds(predicate, self.data, self.request, row),
        }
    }

    fn comparison(&mut self, comparison: &Comparison<Resolved>) -> bool {
        let left = self.operand(&comparison.left);
        let right = self.operand(&comparison.right);
        let strict = !comparison.any && comparison.operator == Operator::NotEqual;
        let absent = |operand: &Operand, value: &Stored| strict && value.is_null() && self.is_private(operand);
        let missing = absent(&comparison.left, &left) || absent(&comparison.right, &right);
        let like = comparison.operator.is_like();
        let (left_cast, right_cast) = casts(comparison.left.value_type(), like, comparison.right.value_type());
        let left = Shape::cast(left_cast).apply(left);
        let right = Shape { pattern: like, ..Shape::cast(right_cast) }.apply(right);
        let outcome = !missing && value::compare(&left, comparison.operator, &right);
        if let Some(seen) = self.seen.as_mut().filter(|seen| seen.len() < OBSERVATIONS_MAX) {
            seen.push(Observation { span: comparison.span, left, right, outcome });
        }
        outcome
    }

    fn is_private(&self, operand: &Operand) -> bool {
        let mut private = false;
        operand.for_each_column(&mut |column| {
            private |= self.predicate.nodes.get(column.node).is_some_and(|node| node.scope.is_some());
        });
        private
    }

    fn operand(&mut self, operand: &Operand) -> Stored {
        match operand {
            Operand::Constant(value) => value.clone(),
            Operand::Request(path) => self.request.look_up(path),
            Operand::Clock(clock) => clock.value(self.request.now_ms),
            Operand::Column(column) => self.column(column),
            Operand::Json(column, path) => value::json_extract(&self.column(column), path),
            Operand::Length(column) => value::list_len(&self.column(column)),
            Operand::Lower(inner) => value::lower(&self.operand(inner)),
            Operand::Call(function, arguments) => {
                let values: Vec<Stored> = arguments.iter().map(|argument| self.operand(argument)).collect();
                let cells: Vec<Cell<'_>> = values.iter().map(Stored::cell).collect();
                (function.0.call)(&cells)
            }
            Operand::Changed { is_set, sent, column } => {
                let stored = self.operand(&plain(column.clone()));
                let (cast, _) = casts(Type::Free, false, column.slot.value_type());
                let sent = Shape::cast(cast).apply(self.request.look_up(sent));
                let is_set = self.request.look_up(is_set) == Stored::bool(true);
                Stored::bool(is_set && value::compare(&sent, Operator::NotEqual, &stored))
            }
        }
    }

    fn column(&self, column: &Column) -> Stored {
        match self.row(column.node) {
            Row::Absent => Stored::Null,
            Row::Element(value) => value.clone(),
            Row::Record(row) if self.shows(&column.guard, row) => stored_of(row, column.slot),
            Row::Record(_) => Stored::Null,
        }
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
