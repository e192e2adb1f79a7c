//! Operands → SQL values: columns as this caller sees them, documents, functions, what is bound.
//!
//! Keeps true: a column whose row is missing, or whose guard does not hold, is NULL; a value is converted before it is
//! bound and a column only where the types of the two sides differ. Does not do: comparisons, quantifiers.

use crate::kernel::value::Stored;
use crate::query::ast::{Comparison, Operator, Resolved};
use crate::query::error::Span;
use crate::query::moment::Macro;
use crate::query::path::plain;
use crate::query::request::{Bind, RequestPath};
use crate::query::resolve::is_never_empty;
use crate::query::resolved::{Column, Operand, Slot, Type};
use crate::query::sql::{Condition, Fragment, Place, Renderer, View, column_name};
use crate::query::value::{self, Cast, Shape};
use crate::schema::field::Storage;
use std::sync::Arc;

/// An operand on its way into a comparison.
pub(crate) enum Rendered {
    Constant(Stored),
    Free { path: Option<RequestPath>, clock: Option<Macro>, lower: bool, never_empty: bool },
    Sql { fragment: Fragment, nullable: bool },
}

/// One side of a comparison, converted.
pub(crate) struct Side {
    pub(crate) fragment: Fragment,
    pub(crate) nullable: bool,
    pub(crate) never_empty: bool,
}

impl Renderer {
    /// Renders an operand where its row stands.
    pub(crate) fn operand(&mut self, view: &mut View<'_>, operand: &Operand) -> Rendered {
        let never_empty = is_never_empty(operand);
        match operand {
            Operand::Constant(value) => Rendered::Constant(value.clone()),
            Operand::Request(path) => {
                Rendered::Free { path: Some(path.clone()), clock: None, lower: false, never_empty }
            }
            Operand::Clock(clock) => Rendered::Free { path: None, clock: Some(*clock), lower: false, never_empty },
            // The plus keeps SQLite from putting a constant that the column is compared with into JSON functions over the
            // same column, where it would be malformed.
            Operand::Column(column) if is_document(column.slot) => {
                self.over_column(view, column, |base, _| base.wrapped("+", ""))
            }
            Operand::Column(column) => self.column(view, column),
            Operand::Json(column, path) => self.json(view, column, path),
            Operand::Length(column) => self.length(view, column),
            Operand::Lower(inner) => match self.operand(view, inner) {
                Rendered::Constant(value) => Rendered::Constant(value::lower(&value)),
                Rendered::Free { path, clock, .. } => Rendered::Free { path, clock, lower: true, never_empty: false },
                Rendered::Sql { fragment, nullable } => {
                    Rendered::Sql { fragment: fragment.wrapped("tn_lower(", ")"), nullable }
                }
            },
            Operand::Call(function, arguments) => {
                let mut parts = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    parts.push(match self.operand(view, argument) {
                        Rendered::Constant(value) => Fragment::bind(Bind::Value(value)),
                        Rendered::Sql { fragment, .. } => fragment,
                        free @ Rendered::Free { .. } => free_fragment(free, Shape::default()),
                    });
                }
                let arguments = Fragment::joined(parts, ", ");
                Rendered::Sql { fragment: arguments.wrapped(&format!("{}(", function.0.name), ")"), nullable: true }
            }
            Operand::Changed { is_set, sent, column } => self.changed(view, is_set, sent, column),
        }
    }

    fn json(&mut self, view: &mut View<'_>, column: &Column, path: &[Arc<str>]) -> Rendered {
        let whole = path.is_empty();
        let path = Bind::Value(Stored::from(value::json_path(path)));
        let extracted = self.over_column(view, column, |base, of_view| {
            let mut extract = base.clone().wrapped("json_extract(", ", ?)");
            extract.binds.push(path);
            if !of_view {
                return extract;
            }
            let mut out = base.clone().wrapped("CASE WHEN json_valid(", ") THEN ");
            out.append(extract);
            if whole {
                out.push(" ELSE ").append(base);
            }
            out.push(" END");
            out
        });
        match extracted {
            Rendered::Sql { fragment, .. } => Rendered::Sql { fragment, nullable: true },
            other => other,
        }
    }

    /// What is not there has no elements.
    fn length(&mut self, view: &mut View<'_>, column: &Column) -> Rendered {
        match self.column(view, column) {
            Rendered::Sql { fragment, nullable } if is_document(column.slot) && !column.of_view => {
                let len = fragment.wrapped("json_array_length(", ")");
                let fragment = if nullable { len.wrapped("COALESCE(", ", 0)") } else { len };
                Rendered::Sql { fragment, nullable: false }
            }
            Rendered::Sql { fragment, .. } => {
                Rendered::Sql { fragment: fragment.wrapped("tn_list_len(", ")"), nullable: false }
            }
            Rendered::Constant(value) => Rendered::Constant(value::list_len(&value)),
            free @ Rendered::Free { .. } => free,
        }
    }

    fn changed(&mut self, view: &mut View<'_>, is_set: &RequestPath, sent: &RequestPath, column: &Column) -> Rendered {
        let differs = Comparison::<Resolved> {
            left: Operand::Request(sent.clone()),
            operator: Operator::NotEqual,
            any: true,
            right: plain(column.clone()),
            span: Span::default(),
        };
        let differs = self.comparison(view, &differs).into_fragment();
        let mut out = Fragment::text("CASE WHEN ");
        out.append(Fragment::bind(Bind::Request(is_set.clone(), Shape::default())));
        out.push(" AND ").append(differs).push(" THEN 1 ELSE 0 END");
        Rendered::Sql { fragment: out, nullable: false }
    }

    fn over_column(
        &mut self,
        view: &mut View<'_>,
        column: &Column,
        wrap: impl FnOnce(Fragment, bool) -> Fragment,
    ) -> Rendered {
        match self.column(view, column) {
            Rendered::Sql { fragment, nullable } => {
                let nullable = nullable || !is_document(column.slot);
                Rendered::Sql { fragment: wrap(fragment, column.of_view), nullable }
            }
            other => other,
        }
    }

    /// A column as this caller sees it: NULL where its row is not there or its guard does not hold.
    fn column(&mut self, view: &mut View<'_>, column: &Column) -> Rendered {
        let Some(Place::Row { alias, nullable }) = view.places.get(column.node).cloned() else {
            return Rendered::Constant(Stored::Null);
        };
        let base = Fragment::text(format!("{alias}.{}", column_name(column.slot)));
        let json = column.slot.value_type() == Type::Json;
        match self.visibility(&column.guard, &alias) {
            Condition::Known(true) => Rendered::Sql { fragment: base, nullable: nullable || column.of_view || json },
            Condition::Known(false) => Rendered::Constant(Stored::Null),
            Condition::Sql(guard) => {
                let mut out = guard.wrapped("CASE WHEN ", " THEN ");
                out.append(base).push(" END");
                Rendered::Sql { fragment: out, nullable: true }
            }
        }
    }
}

/// Whether the column holds a JSON document and is never NULL.
fn is_document(slot: Slot) -> bool {
    matches!(slot, Slot::Field(_, Storage::List | Storage::Point))
}

/// The bind of a fact about the request or the present, in shape.
pub(crate) fn free_fragment(free: Rendered, shape: Shape) -> Fragment {
    match free {
        Rendered::Free { path: Some(path), lower, .. } => Fragment::bind(Bind::Request(path, Shape { lower, ..shape })),
        Rendered::Free { clock: Some(clock), lower, .. } => {
            Fragment::bind(Bind::Clock(clock, Shape { lower, ..shape }))
        }
        Rendered::Constant(value) => Fragment::bind(Bind::Value(shape.apply(value))),
        Rendered::Sql { fragment, .. } => fragment,
        Rendered::Free { .. } => Fragment::bind(Bind::Value(Stored::Null)),
    }
}

/// Converts one side; what is bound is converted before it is bound, what is a column only where types differ.
pub(crate) fn shaped(rendered: Rendered, shape: Shape, found: Type) -> Side {
    match rendered {
        Rendered::Constant(value) => {
            let value = shape.apply(value);
            let never_empty = !value::is_empty(&value);
            Side { nullable: value.is_null(), never_empty, fragment: Fragment::bind(Bind::Value(value)) }
        }
        Rendered::Free { never_empty, .. } => {
            Side { fragment: free_fragment(rendered, shape), nullable: !shape.null_as_empty, never_empty }
        }
        Rendered::Sql { fragment, nullable } => {
            let fragment = match shape.cast {
                _ if shape.pattern => fragment.wrapped("tn_pattern(", ")"),
                Cast::Text if found != Type::Text => fragment.wrapped("tn_text(", ")"),
                Cast::Number if found != Type::Number => fragment.wrapped("tn_number(", ")"),
                _ => fragment,
            };
            Side { fragment, nullable, never_empty: false }
        }
    }
}
