//! Where "for some row" and "for every row" stand in a condition, and what the condition depends on.
//!
//! Keeps true: comparisons written with `?` over the same rows see the same row, everywhere in one expression; each
//! quantifier stands around the smallest part that holds all uses of its rows, so that it stays cheap.
//! Does not do: resolving names.

use crate::query::ast::{Comparison, Expr, Resolved};
use crate::query::resolve::merge_visibility;
use crate::query::resolved::{Facts, Hop, Node, NodeIndex, Operand, Quantifier, ROOT};
use crate::schema::Collection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The rows that belong to this comparison alone, parents first.
pub(crate) fn private_nodes(nodes: &[Node], comparison: &Comparison<Resolved>) -> Vec<NodeIndex> {
    let mut found = BTreeSet::new();
    for_each_node(nodes, comparison, &mut |index, node| {
        if node.scope.is_some() {
            found.insert(index);
        }
    });
    found.into_iter().collect()
}

/// Calls `each` with every node on the way to a column of the comparison.
fn for_each_node(nodes: &[Node], comparison: &Comparison<Resolved>, each: &mut dyn FnMut(NodeIndex, &Node)) {
    for operand in [&comparison.left, &comparison.right] {
        operand.for_each_column(&mut |column| {
            let mut here = column.node;
            while here != ROOT
                && let Some(node) = nodes.get(here)
            {
                each(here, node);
                here = node.parent;
            }
        });
    }
}

/// Puts a quantifier around each group of shared rows.
///
/// A group is the first node on a path with many rows, called its head, and whatever hangs below it.
pub(crate) fn quantify_shared(nodes: &[Node], expr: Expr<Resolved>) -> Expr<Resolved> {
    let mut totals = Uses::new();
    count_uses(nodes, &expr, &mut totals);
    if totals.is_empty() {
        return expr;
    }
    place(nodes, &totals, expr).0
}

/// How many comparisons use each head.
type Uses = BTreeMap<NodeIndex, usize>;

fn heads_of(nodes: &[Node], comparison: &Comparison<Resolved>) -> BTreeSet<NodeIndex> {
    let mut heads = BTreeSet::new();
    for operand in [&comparison.left, &comparison.right] {
        operand.for_each_column(&mut |column| heads.extend(head_of(nodes, column.node)));
    }
    heads
}

/// The node nearest to the record that has many shared rows.
fn head_of(nodes: &[Node], node: NodeIndex) -> Option<NodeIndex> {
    let mut head = None;
    let mut here = node;
    while here != ROOT {
        let node = nodes.get(here)?;
        if node.many && node.scope.is_none() {
            head = Some(here);
        }
        here = node.parent;
    }
    head
}

fn count_uses(nodes: &[Node], expr: &Expr<Resolved>, totals: &mut Uses) {
    match expr {
        Expr::Constant(_) => {}
        Expr::All(parts) | Expr::Any(parts) => parts.iter().for_each(|part| count_uses(nodes, part, totals)),
        Expr::Over(_, inner) => count_uses(nodes, inner, totals),
        Expr::Compare(comparison) => {
            for head in heads_of(nodes, comparison) {
                *totals.entry(head).or_default() += 1;
            }
        }
    }
}

/// Quantifies inside `expr`; also tells which heads it uses that are not complete yet.
fn place(nodes: &[Node], totals: &Uses, expr: Expr<Resolved>) -> (Expr<Resolved>, Uses) {
    match expr {
        Expr::All(parts) => place_joined(nodes, totals, parts, Expr::All),
        Expr::Any(parts) => place_joined(nodes, totals, parts, Expr::Any),
        Expr::Compare(comparison) => {
            let uses = heads_of(nodes, &comparison).into_iter().map(|head| (head, 1)).collect();
            close_complete(nodes, totals, Expr::Compare(comparison), uses)
        }
        other => (other, Uses::new()),
    }
}

fn place_joined(
    nodes: &[Node],
    totals: &Uses,
    parts: Vec<Expr<Resolved>>,
    join: fn(Vec<Expr<Resolved>>) -> Expr<Resolved>,
) -> (Expr<Resolved>, Uses) {
    let mut parts: Vec<_> = parts.into_iter().map(|part| place(nodes, totals, part)).collect();
    for (head, total) in totals {
        let used = |uses: &Uses| uses.get(head).copied().unwrap_or_default();
        let seen: usize = parts.iter().map(|(_, uses)| used(uses)).sum();
        if seen < *total {
            continue;
        }
        // The parts that share the head become one part, which the head's quantifier can then stand around.
        let (sharing, others): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(_, uses)| used(uses) > 0);
        parts = others;
        let mut merged = Uses::new();
        let mut shared = Vec::new();
        for (part, uses) in sharing {
            uses.into_iter().for_each(|(head, count)| *merged.entry(head).or_default() += count);
            shared.push(part);
        }
        let part = if shared.len() == 1 { shared.remove(0) } else { join(shared) };
        parts.push(close_complete(nodes, totals, part, merged));
    }
    let mut left = Uses::new();
    let mut exprs = Vec::new();
    for (part, uses) in parts {
        uses.into_iter().for_each(|(head, count)| *left.entry(head).or_default() += count);
        exprs.push(part);
    }
    (if exprs.len() == 1 { exprs.remove(0) } else { join(exprs) }, left)
}

/// Quantifies over every head of which `expr` holds all uses.
fn close_complete(nodes: &[Node], totals: &Uses, expr: Expr<Resolved>, uses: Uses) -> (Expr<Resolved>, Uses) {
    let (complete, open): (Uses, Uses) = uses.into_iter().partition(|(head, count)| totals.get(head) == Some(count));
    if complete.is_empty() {
        return (expr, open);
    }
    let below = (1..nodes.len()).filter(|node| head_of(nodes, *node).is_some_and(|head| complete.contains_key(&head)));
    let quantifier = Quantifier { every: false, nodes: below.collect() };
    (Expr::Over(quantifier, Box::new(expr)), open)
}

/// Which nodes a condition still needs, and what its outcome depends on.
pub(crate) fn depends_on(root: &Arc<Collection>, nodes: &[Node], expr: &Expr<Resolved>) -> (Vec<bool>, Facts) {
    let mut tally = Tally::new(root, nodes);
    tally.expr(expr);
    (tally.live, tally.facts)
}

/// Which nodes an operand needs, and what its value depends on.
pub(crate) fn operand_depends_on(root: &Arc<Collection>, nodes: &[Node], operand: &Operand) -> (Vec<bool>, Facts) {
    let mut tally = Tally::new(root, nodes);
    tally.operand(operand);
    (tally.live, tally.facts)
}

struct Tally<'n> {
    nodes: &'n [Node],
    live: Vec<bool>,
    facts: Facts,
}

impl<'n> Tally<'n> {
    fn new(root: &Arc<Collection>, nodes: &'n [Node]) -> Self {
        let mut facts = Facts::default();
        facts.touched.insert(root.id.clone());
        Self { nodes, live: vec![false; nodes.len()], facts }
    }

    fn expr(&mut self, expr: &Expr<Resolved>) {
        match expr {
            Expr::Constant(_) => {}
            Expr::All(parts) | Expr::Any(parts) => parts.iter().for_each(|part| self.expr(part)),
            Expr::Over(quantifier, inner) => {
                quantifier.nodes.iter().for_each(|node| self.node(*node));
                self.expr(inner);
            }
            Expr::Compare(comparison) => {
                self.operand(&comparison.left);
                self.operand(&comparison.right);
            }
        }
    }

    fn operand(&mut self, operand: &Operand) {
        match operand {
            Operand::Constant(_) => {}
            Operand::Request(path) => _ = self.facts.reads.insert(path.clone()),
            Operand::Clock(_) => self.facts.reads_time = true,
            Operand::Column(_) | Operand::Json(..) | Operand::Length(_) => {}
            Operand::Lower(inner) => self.operand(inner),
            Operand::Call(_, arguments) => arguments.iter().for_each(|argument| self.operand(argument)),
            Operand::Changed { is_set, sent, .. } => {
                self.facts.reads.extend([is_set.clone(), sent.clone()]);
            }
        }
        let mut columns = Vec::new();
        operand.for_each_column(&mut |column| columns.push(column));
        for column in columns {
            merge_visibility(&mut self.facts, &column.guard);
            self.node(column.node);
        }
    }

    fn node(&mut self, index: NodeIndex) {
        let Some((node, live)) = self.nodes.get(index).zip(self.live.get_mut(index)) else { return };
        if index == ROOT || std::mem::replace(live, true) {
            return;
        }
        merge_visibility(&mut self.facts, &node.guard);
        if let Some(collection) = &node.collection {
            self.facts.touched.insert(collection.id.clone());
            self.facts.hopped.insert(collection.id.clone());
        }
        match &node.hop {
            Hop::Forward { link } | Hop::ForwardList { link } | Hop::Elements { list: link } => self.operand(link),
            Hop::Backward { link, .. } => merge_visibility(&mut self.facts, &link.guard),
            Hop::Root | Hop::Anywhere { .. } => {}
        }
        self.node(node.parent);
    }
}
