//! [`Predicate`] → SQL conditions with bound values.
//!
//! Keeps true: no value is ever part of the text; identifiers are derived from schema ids only. A condition on plain
//! columns renders plainly (`t0.f3 = ?`), so that indexes serve it. Rows that may be many are visited inside
//! `EXISTS`, rows of which there is at most one are left-joined, so no statement needs DISTINCT.
//! Does not do: whole statements (that is `statement`), meaning (that is `resolve`).

use crate::kernel::value::Stored;
use crate::query::ast::{Comparison, Expr, Operator, Resolved};
use crate::query::operand::{Rendered, Side, free_fragment, shaped};
use crate::query::request::Bind;
use crate::query::resolved::{
    Column, Hop, Node, NodeIndex, Operand, Predicate, Quantifier, ROOT, Slot, Visibility, casts,
};
use crate::query::value::{self, Cast, Shape};

/// A piece of SQL and the values its `?` stand for, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fragment {
    pub(crate) sql: String,
    pub(crate) binds: Vec<Bind>,
}

impl Fragment {
    pub(crate) fn text(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), binds: Vec::new() }
    }

    pub(crate) fn bind(bind: Bind) -> Self {
        Self { sql: "?".to_owned(), binds: vec![bind] }
    }

    pub(crate) fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    pub(crate) fn append(&mut self, other: Fragment) -> &mut Self {
        self.sql.push_str(&other.sql);
        self.binds.extend(other.binds);
        self
    }

    pub(crate) fn wrapped(self, before: &str, after: &str) -> Self {
        Self { sql: format!("{before}{}{after}", self.sql), binds: self.binds }
    }

    pub(crate) fn joined(parts: impl IntoIterator<Item = Fragment>, separator: &str) -> Self {
        let mut out = Self::default();
        for (at, part) in parts.into_iter().enumerate() {
            if at > 0 {
                out.push(separator);
            }
            out.append(part);
        }
        out
    }
}

/// A rendered condition, or its outcome where the text would be constant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    Known(bool),
    Sql(Fragment),
}

impl Condition {
    /// The condition as text; constants become `1` and `0`.
    pub(crate) fn into_fragment(self) -> Fragment {
        match self {
            Self::Known(true) => Fragment::text("1"),
            Self::Known(false) => Fragment::text("0"),
            Self::Sql(fragment) => fragment,
        }
    }

    pub(crate) fn and(parts: Vec<Condition>) -> Self {
        Self::join(parts, false, " AND ")
    }

    fn or(parts: Vec<Condition>) -> Self {
        Self::join(parts, true, " OR ")
    }

    /// Joins; a part that is `decisive` decides, a part that is its opposite says nothing.
    fn join(parts: Vec<Condition>, decisive: bool, separator: &str) -> Self {
        let mut fragments = Vec::new();
        for part in parts {
            match part {
                Self::Known(value) if value == decisive => return Self::Known(decisive),
                Self::Known(_) => {}
                Self::Sql(fragment) => fragments.push(fragment),
            }
        }
        match fragments.len() {
            0 => Self::Known(!decisive),
            1 => Self::Sql(fragments.remove(0)),
            _ => Self::Sql(Fragment::joined(fragments, separator).wrapped("(", ")")),
        }
    }

    fn not(self) -> Self {
        match self {
            Self::Known(value) => Self::Known(!value),
            Self::Sql(fragment) => Self::Sql(fragment.wrapped("NOT ", "")),
        }
    }
}

/// Where the row of a node stands in the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// There is no such row here; its columns are NULL.
    Absent,
    /// A table alias; nullable where the row may be missing.
    Row { alias: String, nullable: bool },
}

/// One predicate being rendered: where its rows stand.
pub(crate) struct View<'p> {
    pub(crate) predicate: &'p Predicate,
    pub(crate) places: Vec<Place>,
}

/// A table and the condition that makes its row the wanted one.
struct Source {
    table: Fragment,
    on: Condition,
}

/// A row that the statement joins, so that two predicates can share it.
#[derive(Debug)]
struct Join {
    parent: String,
    node: Node,
    alias: String,
    text: Fragment,
}

/// Renders conditions of one statement; hands out aliases and collects joins.
#[derive(Debug, Default)]
pub(crate) struct Renderer {
    aliases: usize,
    joins: Vec<Join>,
}

impl Renderer {
    /// The joins that the conditions rendered so far need, in order.
    pub(crate) fn joins(&self) -> Fragment {
        Fragment::joined(self.joins.iter().map(|join| join.text.clone()), "")
    }

    /// How many joins were needed so far.
    pub(crate) fn joins_len(&self) -> usize {
        self.joins.len()
    }

    /// Renders a predicate over the row `alias`; single rows become joins of the statement.
    pub(crate) fn hoisted(&mut self, predicate: &Predicate, alias: &str) -> Condition {
        if let Some(known) = predicate.constant() {
            return Condition::Known(known);
        }
        let mut view = View::new(predicate, alias);
        self.hoist(&mut view);
        self.condition(&mut view, &predicate.expr)
    }

    /// Renders an operand that was resolved beside `predicate`; single rows become joins of the statement.
    ///
    /// The second value says whether it may be NULL.
    pub(crate) fn hoisted_operand(
        &mut self,
        operand: &Operand,
        predicate: &Predicate,
        alias: &str,
    ) -> (Fragment, bool) {
        let mut view = View::new(predicate, alias);
        self.hoist(&mut view);
        match self.operand(&mut view, operand) {
            Rendered::Constant(value) => (Fragment::bind(Bind::Value(value)), true),
            Rendered::Sql { fragment, nullable } => (fragment, nullable),
            free @ Rendered::Free { .. } => (free_fragment(free, Shape::default()), true),
        }
    }

    /// Renders a predicate over the row `alias` so that it stands by itself wherever that row is in reach.
    pub(crate) fn inline(&mut self, predicate: &Predicate, alias: &str) -> Condition {
        if let Some(known) = predicate.constant() {
            return Condition::Known(known);
        }
        let mut view = View::new(predicate, alias);
        let mut joins = Fragment::default();
        for node in predicate.single_nodes() {
            if let Some(source) = self.source(&mut view, node, true) {
                joins.append(left_join(source));
            }
        }
        let inner = self.condition(&mut view, &predicate.expr);
        match inner {
            Condition::Sql(inner) if !joins.sql.is_empty() => {
                let mut out = Fragment::text("EXISTS (SELECT 1 FROM (SELECT 1)");
                out.append(joins).push(" WHERE ").append(inner).push(")");
                Condition::Sql(out)
            }
            other => other,
        }
    }

    /// Renders whether something shows at the row `alias`.
    pub(crate) fn visibility(&mut self, visibility: &Visibility, alias: &str) -> Condition {
        match visibility {
            Visibility::Always => Condition::Known(true),
            Visibility::Never => Condition::Known(false),
            Visibility::When(predicate) => self.inline(predicate, alias),
        }
    }

    fn hoist(&mut self, view: &mut View<'_>) {
        for index in view.predicate.single_nodes() {
            let Some(node) = view.predicate.nodes.get(index) else { continue };
            let Some(Place::Row { alias: parent, .. }) = view.places.get(node.parent).cloned() else { continue };
            let known = self.joins.iter().find(|join| {
                join.parent == parent
                    && join.node.hop == node.hop
                    && join.node.collection == node.collection
                    && join.node.guard == node.guard
            });
            if let Some(known) = known {
                let alias = known.alias.clone();
                view.put(index, Place::Row { alias, nullable: true });
                continue;
            }
            if let Some(source) = self.source(view, index, true)
                && let Some(Place::Row { alias, .. }) = view.places.get(index).cloned()
            {
                self.joins.push(Join { parent, node: node.clone(), alias, text: left_join(source) });
            }
        }
    }

    /// The table of a node and when its row is the wanted one; places the node. `None`: no row can ever be there.
    fn source(&mut self, view: &mut View<'_>, index: NodeIndex, nullable: bool) -> Option<Source> {
        let predicate = view.predicate;
        let node = predicate.nodes.get(index)?;
        let Some(Place::Row { alias: parent, .. }) = view.places.get(node.parent).cloned() else { return None };
        self.aliases += 1;
        let alias = format!("t{}", self.aliases);
        let (table, link) = match &node.hop {
            Hop::Root => return None,
            Hop::Elements { list } => {
                let list = self.list(view, list)?;
                (list.wrapped("json_each(", &format!(") AS {alias}")), Condition::Known(true))
            }
            Hop::Forward { link } => {
                let link = self.link(view, link)?;
                (table_of(node, &alias), Condition::Sql(link.wrapped(&format!("{alias}.id = "), "")))
            }
            Hop::ForwardList { link } => {
                let list = self.list(view, link)?;
                let before = format!("{alias}.id IN (SELECT value FROM json_each(");
                (table_of(node, &alias), Condition::Sql(list.wrapped(&before, "))")))
            }
            Hop::Backward { link, list } => (table_of(node, &alias), self.backward(link, *list, &parent, &alias)),
            Hop::Anywhere { .. } => (table_of(node, &alias), Condition::Known(true)),
        };
        let guard = self.visibility(&node.guard, &alias);
        if guard == Condition::Known(false) || link == Condition::Known(false) {
            return None;
        }
        view.put(index, Place::Row { alias, nullable });
        Some(Source { table, on: Condition::and(vec![link, guard]) })
    }

    fn backward(&mut self, link: &Column, list: bool, parent: &str, alias: &str) -> Condition {
        let column = format!("{alias}.{}", column_name(link.slot));
        let link_shows = self.visibility(&link.guard, alias);
        let points_here = if list {
            format!("{parent}.id IN (SELECT value FROM json_each({column}))")
        } else {
            format!("{column} = {parent}.id")
        };
        Condition::and(vec![Condition::Sql(Fragment::text(points_here)), link_shows])
    }

    /// An id to follow; `None` where there never is one.
    fn link(&mut self, view: &mut View<'_>, operand: &Operand) -> Option<Fragment> {
        match self.operand(view, operand) {
            Rendered::Constant(Stored::Null) => None,
            Rendered::Constant(value) => Some(Fragment::bind(Bind::Value(value))),
            Rendered::Sql { fragment, .. } => Some(fragment),
            free @ Rendered::Free { .. } => Some(free_fragment(free, Shape::cast(Cast::Text))),
        }
    }

    /// A list to walk, fit for `json_each`; `None` where there never is one.
    fn list(&mut self, view: &mut View<'_>, operand: &Operand) -> Option<Fragment> {
        match self.operand(view, operand) {
            Rendered::Constant(Stored::Null) => None,
            Rendered::Constant(value) => Some(Fragment::bind(Bind::Value(value::to_list(&value)))),
            Rendered::Sql { fragment, .. } => {
                let mut of_view = false;
                operand.for_each_column(&mut |column| of_view |= column.of_view);
                Some(if of_view { fragment.wrapped("tn_list(", ")") } else { fragment })
            }
            free @ Rendered::Free { .. } => Some(free_fragment(free, Shape::cast(Cast::List))),
        }
    }

    fn condition(&mut self, view: &mut View<'_>, expr: &Expr<Resolved>) -> Condition {
        match expr {
            Expr::Constant(value) => Condition::Known(*value),
            Expr::All(parts) => {
                let parts = parts.iter().map(|part| self.condition(view, part)).collect();
                Condition::and(parts)
            }
            Expr::Any(parts) => {
                let parts = parts.iter().map(|part| self.condition(view, part)).collect();
                Condition::or(parts)
            }
            Expr::Compare(comparison) => self.comparison(view, comparison),
            Expr::Over(quantifier, inner) => self.quantified(view, quantifier, inner),
        }
    }

    /// "For some row" and "for every row". Where nothing is there to visit, one row of NULLs is visited.
    fn quantified(&mut self, view: &mut View<'_>, quantifier: &Quantifier, inner: &Expr<Resolved>) -> Condition {
        let is_head = |node: &NodeIndex| {
            let parent = view.predicate.nodes.get(*node).map(|node| node.parent);
            parent.is_none_or(|parent| !quantifier.nodes.contains(&parent))
        };
        let heads: Vec<NodeIndex> = quantifier.nodes.iter().copied().filter(is_head).collect();
        let out = match heads[..] {
            // The plain form renders the inner condition twice, so only the innermost quantifier may use it.
            [head] if !has_quantifier(inner) => self.over_one(view, quantifier, head, inner),
            _ => self.over_many(view, quantifier, inner),
        };
        view.clear(&quantifier.nodes);
        out
    }

    /// One head: the case of no rows is told apart, so that the rows themselves are joined plainly.
    fn over_one(
        &mut self,
        view: &mut View<'_>,
        quantifier: &Quantifier,
        head: NodeIndex,
        inner: &Expr<Resolved>,
    ) -> Condition {
        view.clear(&quantifier.nodes);
        let of_nothing = self.condition(view, inner);
        let Some(source) = self.source(view, head, false) else { return of_nothing };
        let mut from = Fragment::text("EXISTS (SELECT 1 FROM ");
        from.append(source.table.clone());
        for node in quantifier.nodes.iter().filter(|node| **node != head) {
            if let Some(source) = self.source(view, *node, true) {
                from.append(left_join(source));
            }
        }
        let holds = self.condition(view, inner);
        let wanted = if quantifier.every { is_not_true(holds) } else { holds };
        let found = match Condition::and(vec![source.on.clone(), wanted]) {
            // A condition that never holds needs no rows to be visited.
            Condition::Known(false) => Condition::Known(false),
            condition => {
                from.push(" WHERE ").append(condition.into_fragment()).push(")");
                Condition::Sql(from)
            }
        };
        let mut any_row = Fragment::text("EXISTS (SELECT 1 FROM ");
        any_row.append(source.table).push(" WHERE ").append(source.on.into_fragment()).push(")");
        let any_row = Condition::Sql(any_row);
        if quantifier.every {
            Condition::and(vec![found.not(), Condition::or(vec![of_nothing, any_row])])
        } else {
            Condition::or(vec![found, Condition::and(vec![of_nothing, any_row.not()])])
        }
    }

    /// Several heads, or others inside: every combination, with NULLs for a head that has no rows.
    fn over_many(&mut self, view: &mut View<'_>, quantifier: &Quantifier, inner: &Expr<Resolved>) -> Condition {
        view.clear(&quantifier.nodes);
        let mut from = Fragment::text("EXISTS (SELECT 1 FROM (SELECT 1)");
        for node in &quantifier.nodes {
            if let Some(source) = self.source(view, *node, true) {
                from.append(left_join(source));
            }
        }
        let holds = self.condition(view, inner);
        let wanted = if quantifier.every { is_not_true(holds) } else { holds };
        let found = match wanted {
            Condition::Known(value) => Condition::Known(value),
            Condition::Sql(fragment) => {
                from.push(" WHERE ").append(fragment).push(")");
                Condition::Sql(from)
            }
        };
        if quantifier.every { found.not() } else { found }
    }

    pub(crate) fn comparison(&mut self, view: &mut View<'_>, comparison: &Comparison<Resolved>) -> Condition {
        let operator = comparison.operator;
        let (left_type, right_type) = (comparison.left.value_type(), comparison.right.value_type());
        let (left_cast, right_cast) = casts(left_type, operator.is_like(), right_type);
        let left_shape = Shape { null_as_empty: operator.is_equality(), ..Shape::cast(left_cast) };
        let right_shape =
            Shape { null_as_empty: operator.is_equality(), pattern: operator.is_like(), ..Shape::cast(right_cast) };
        let left = self.operand(view, &comparison.left);
        let right = self.operand(view, &comparison.right);
        // Under "every", `!=` does not hold for a row that is not there.
        let strict = |operand: &Operand| {
            !comparison.any && operator == Operator::NotEqual && is_private(view.predicate, operand)
        };
        let (strict_left, strict_right) = (strict(&comparison.left), strict(&comparison.right));
        if let (Rendered::Constant(left), Rendered::Constant(right)) = (&left, &right) {
            if (strict_left && left.is_null()) || (strict_right && right.is_null()) {
                return Condition::Known(false);
            }
            let (left, right) = (left_shape.apply(left.clone()), right_shape.apply(right.clone()));
            return Condition::Known(value::compare(&left, operator, &right));
        }
        if (strict_left && is_null(&left)) || (strict_right && is_null(&right)) {
            return Condition::Known(false);
        }
        if !operator.is_equality() && (is_null(&left) || is_null(&right)) {
            return Condition::Known(false);
        }
        if operator.is_equality() && (is_empty_against(&left, &right) || is_empty_against(&right, &left)) {
            return Condition::Known(operator == Operator::NotEqual);
        }
        let left = shaped(left, left_shape, left_type);
        let right = shaped(right, right_shape, right_type);
        match operator {
            Operator::Equal => equal(left, right),
            Operator::NotEqual => not_equal(left, right, strict_left, strict_right),
            Operator::Like => infix(left.fragment, " LIKE ", right.fragment.wrapped("", " ESCAPE '\\'")),
            Operator::NotLike => infix(left.fragment, " NOT LIKE ", right.fragment.wrapped("", " ESCAPE '\\'")),
            Operator::Greater => infix(left.fragment, " > ", right.fragment),
            Operator::GreaterOrEqual => infix(left.fragment, " >= ", right.fragment),
            Operator::Less => infix(left.fragment, " < ", right.fragment),
            Operator::LessOrEqual => infix(left.fragment, " <= ", right.fragment),
        }
    }
}

impl<'p> View<'p> {
    fn new(predicate: &'p Predicate, alias: &str) -> Self {
        let mut places = vec![Place::Absent; predicate.nodes.len().max(1)];
        if let Some(root) = places.first_mut() {
            *root = Place::Row { alias: alias.to_owned(), nullable: false };
        }
        Self { predicate, places }
    }

    fn put(&mut self, index: NodeIndex, place: Place) {
        if let Some(slot) = self.places.get_mut(index) {
            *slot = place;
        }
    }

    fn clear(&mut self, nodes: &[NodeIndex]) {
        nodes.iter().for_each(|node| self.put(*node, Place::Absent));
    }
}

/// The column's name, safe unquoted.
pub(crate) fn column_name(slot: Slot) -> String {
    match slot {
        Slot::Id => "id".to_owned(),
        Slot::RowNumber => "_r".to_owned(),
        Slot::Element => "value".to_owned(),
        Slot::Field(number, _) => format!("f{}", number.0),
    }
}

fn table_of(node: &Node, alias: &str) -> Fragment {
    let table = node.collection.as_ref().map(|collection| collection.table()).unwrap_or_default();
    Fragment::text(format!("\"{table}\" AS {alias}"))
}

fn left_join(source: Source) -> Fragment {
    let mut out = Fragment::text(" LEFT JOIN ");
    out.append(source.table).push(" ON ").append(source.on.into_fragment());
    out
}

/// Whether the operand's value comes from rows that belong to its own side of the comparison.
fn is_private(predicate: &Predicate, operand: &Operand) -> bool {
    let mut private = false;
    operand.for_each_column(&mut |column| {
        private |= column.node != ROOT && predicate.nodes.get(column.node).is_some_and(|node| node.scope.is_some());
    });
    private
}

fn has_quantifier(expr: &Expr<Resolved>) -> bool {
    match expr {
        Expr::Constant(_) | Expr::Compare(_) => false,
        Expr::All(parts) | Expr::Any(parts) => parts.iter().any(has_quantifier),
        Expr::Over(..) => true,
    }
}

/// Whether one side is empty and the other a fact about the request that never is.
fn is_empty_against(left: &Rendered, right: &Rendered) -> bool {
    matches!(left, Rendered::Constant(value) if value::is_empty(value))
        && matches!(right, Rendered::Free { never_empty: true, .. })
}

fn is_null(rendered: &Rendered) -> bool {
    matches!(rendered, Rendered::Constant(Stored::Null))
}

fn is_not_true(condition: Condition) -> Condition {
    match condition {
        Condition::Known(value) => Condition::Known(!value),
        Condition::Sql(fragment) => Condition::Sql(fragment.wrapped("(", ") IS NOT TRUE")),
    }
}

fn infix(left: Fragment, operator: &str, right: Fragment) -> Condition {
    let mut out = left;
    out.push(operator).append(right);
    Condition::Sql(out)
}

fn or_empty(side: Side) -> Fragment {
    if side.nullable { side.fragment.wrapped("COALESCE(", ", '')") } else { side.fragment }
}

fn equal(left: Side, right: Side) -> Condition {
    // NULL = 'x' is not true, which is what is meant when one side cannot be empty.
    if left.never_empty || right.never_empty {
        return infix(left.fragment, " = ", right.fragment);
    }
    infix(or_empty(left), " = ", or_empty(right))
}

fn not_equal(left: Side, right: Side, strict_left: bool, strict_right: bool) -> Condition {
    if strict_left || strict_right {
        let keep = |side: Side, strict: bool| if strict { side.fragment } else { or_empty(side) };
        return infix(keep(left, strict_left), " != ", keep(right, strict_right));
    }
    match (left.nullable, right.nullable) {
        (false, false) => infix(left.fragment, " != ", right.fragment),
        _ if left.never_empty || right.never_empty => infix(left.fragment, " IS NOT ", right.fragment),
        _ => infix(or_empty(left), " != ", or_empty(right)),
    }
}
