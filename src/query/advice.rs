//! Which indexes would serve a question that did too much work.
//!
//! Keeps true: a column is named only where an index over it would be used for this very question, so one that is looked
//! into with `~`, computed, guarded or inside of a document never is (plans do not depend on values here, and without the
//! pattern's beginning SQLite has no use for an index); each branch of an OR has an index
//! of its own, and an OR with a branch that none serves has none at all.
//! Does not do: measuring; whether an index is worth its writes is its owner's to judge.

use crate::kernel::ident::{CollectionName, FieldNumber};
use crate::query::ast::{Comparison, Expr, Operator, Resolved};
use crate::query::path::find_back_relation;
use crate::query::resolve::{Lens, is_nameable, is_never_empty};
use crate::query::resolved::{Column, Hop, Node, NodeIndex, Operand, Predicate, ROOT, Slot, Visibility};
use crate::query::select::ExpandTree;
use crate::query::value;
use crate::schema::field::{Field, FieldKind, Storage};
use crate::schema::{Collection, Index, Schema};
use std::fmt;
use std::sync::Arc;

/// Most indexes that are named for one question.
const WANTED_MAX: usize = 6;
/// Characters of a comparison that are repeated.
const WRITTEN_CHARS_MAX: usize = 80;

/// What would help.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice {
    /// Indexes that are missing.
    pub indexes: Vec<Wanted>,
    /// Comparisons, as written, that look into every text and that no index serves.
    pub unserved: Vec<String>,
    /// Far columns are named by the path that leads to them, not by their collection, whose name the question does not have.
    pub by_path: bool,
}

/// Printed as clauses of a sentence: `an index on posts (status, views) would help`; empty where there is nothing to say.
impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indexes: Vec<String> = self.indexes.iter().map(|wanted| wanted.name(self.by_path)).collect();
        match &indexes[..] {
            [] => {}
            [only] => write!(f, "an index on {only} would help")?,
            several => write!(f, "indexes on {} would help", several.join(" and "))?,
        }
        if !self.unserved.is_empty() {
            let joiner = if self.indexes.is_empty() { "" } else { "; " };
            write!(f, "{joiner}no index serves {}, which looks into every text", self.unserved.join(" and "))?;
        }
        Ok(())
    }
}

/// An index that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    collection: CollectionName,
    columns: Vec<String>,
    /// The relations that lead there, as in `author.town`; empty where the question names the collection itself.
    path: String,
}

impl Wanted {
    /// `posts (status, views)`, or `author.name` where it is told by its path.
    fn name(&self, by_path: bool) -> String {
        if by_path && !self.path.is_empty() {
            let columns = self.columns.iter().map(|column| format!("{}.{column}", self.path));
            return columns.collect::<Vec<_>>().join(", ");
        }
        format!("{} ({})", self.collection, self.columns.join(", "))
    }
}

/// A column of an index to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    field: FieldNumber,
    descending: bool,
}

impl Part {
    const fn of(field: FieldNumber) -> Self {
        Self { field, descending: false }
    }
}

/// A comparison that an index over one column serves.
struct Use {
    column: Column,
    part: Part,
    fit: Fit,
}

/// How narrow a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// One value.
    Equal,
    /// Everything above a value.
    Above,
    /// Everything below a value.
    Below,
}

impl Use {
    fn is_equal(&self) -> bool {
        self.fit == Fit::Equal
    }
}

/// Whether SQLite takes an index for this alone. A range that is open on one side is taken for a quarter of all records,
/// and is not worth leaving the order of creation for.
fn narrows<'u>(uses: impl Iterator<Item = &'u Use> + Clone) -> bool {
    uses.clone().any(|one| match one.fit {
        Fit::Equal => true,
        Fit::Above => uses.clone().any(|other| other.fit == Fit::Below && other.column == one.column),
        Fit::Below => false,
    })
}

/// Comparisons that must all hold.
type Branch = Vec<Use>;

impl Advice {
    /// What a condition written as `source` lacks, and the order in which its records are wanted.
    pub fn on_condition(&mut self, predicate: &Predicate, source: &str, order: &[(Operand, bool)]) {
        let order = order_parts(order).unwrap_or_default();
        match self.branches(predicate, &predicate.expr, source).as_deref() {
            Some([only])
                if narrows(only.iter()) || (!order.is_empty() && only.iter().any(|one| one.column.node == ROOT)) =>
            {
                self.on_branch(predicate, only, &order);
            }
            // What several indexes find is sorted afterwards, whatever order they are in.
            Some(several) if several.iter().all(|branch| narrows(branch.iter())) => {
                several.iter().for_each(|branch| self.on_branch(predicate, branch, &[]));
            }
            _ => self.want(Some(&predicate.root), "", &[], &order),
        }
        let live = predicate.nodes.iter().zip(&predicate.live).filter(|(_, live)| **live).map(|(node, _)| node);
        for (node, link) in live.filter_map(|node| Some((node, link_of(node)?))) {
            if !self.indexes.iter().any(|wanted| wanted.begins_with(node, link)) {
                // The name of a back-relation begins with its collection.
                self.want(node.collection.as_deref(), "", &[Part::of(link)], &[]);
            }
        }
    }

    /// What a condition lacks that is asked of one record, which is found by its id: the way from it to the others it visits.
    pub fn on_check(&mut self, predicate: &Predicate) {
        let live = predicate.nodes.iter().enumerate().zip(&predicate.live).filter(|(_, live)| **live);
        for ((at, node), _) in live.filter(|((at, _), _)| *at != ROOT) {
            let mut equal: Vec<Part> = match &node.hop {
                Hop::Backward { .. } => match link_of(node) {
                    Some(link) => vec![Part::of(link)],
                    None => continue,
                },
                Hop::Anywhere { .. } => Vec::new(),
                _ => continue,
            };
            let mut found = Vec::new();
            pinned_by(predicate, &predicate.expr, at, &mut found);
            for part in found {
                if !equal.contains(&part) {
                    equal.push(part);
                }
            }
            self.want(node.collection.as_deref(), "", &equal, &[]);
        }
    }

    /// What the deletion of a record of `target` lacks: whatever refers to it is found by the field that points here.
    pub fn on_deletion(&mut self, schema: &Schema, target: &Collection) {
        for (referrer, field) in schema.back_relations(&target.id).filter(|(_, field)| !field.kind.is_list()) {
            self.want(Some(referrer), "", &[Part::of(field.number)], &[]);
        }
    }

    /// What an expand lacks: back-relations are found by the field that points here.
    pub fn on_expand(&mut self, lens: Lens<'_>, collection: &Arc<Collection>, expand: &ExpandTree) {
        // What the plan leaves out is not run, and whether it exists is not told.
        let shows = |of: &Arc<Collection>, field: &Field, target: &Arc<Collection>| {
            is_nameable(of, field, lens.client_mode())
                && lens.reach.admits(&target.id)
                && lens.viewed(target) != Visibility::Never
        };
        for (name, below) in &expand.relations {
            let target = match collection.find_field(name) {
                Some(field) => match &field.kind {
                    FieldKind::Relation(relation) => {
                        lens.schema.find_id(&relation.target).filter(|target| shows(collection, field, target))
                    }
                    _ => None,
                },
                None => find_back_relation(lens.schema, collection, name)
                    .filter(|(back, field)| shows(back, field, back))
                    .map(|(back, field)| {
                        if !field.kind.is_list() {
                            self.want(Some(back), "", &[Part::of(field.number)], &[]);
                        }
                        back
                    }),
            };
            if let Some(target) = target {
                self.on_expand(lens, target, below);
            }
        }
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty() && self.unserved.is_empty()
    }

    /// The ways in which an index leads to the records for which `expr` holds, one per branch of an OR.
    fn branches(&mut self, predicate: &Predicate, expr: &Expr<Resolved>, source: &str) -> Option<Vec<Branch>> {
        match expr {
            Expr::Constant(_) => None,
            Expr::Compare(comparison) => {
                let found = usable(predicate, comparison);
                if found.is_none() && comparison.operator.is_like() {
                    self.note_unserved(comparison, source);
                }
                Some(vec![vec![found?]])
            }
            Expr::Any(parts) => {
                let each = parts.iter().map(|part| self.branches(predicate, part, source)).collect::<Vec<_>>();
                each.into_iter().try_fold(Vec::new(), |mut all, branches| {
                    all.extend(branches?);
                    Some(all)
                })
            }
            Expr::All(parts) => {
                let noted = self.unserved.len();
                let served = parts.iter().filter_map(|part| self.branches(predicate, part, source)).collect::<Vec<_>>();
                if !served.is_empty() {
                    self.unserved.truncate(noted);
                }
                let (single, several): (Vec<_>, Vec<_>) = served.into_iter().partition(|branches| branches.len() == 1);
                let together: Branch = single.into_iter().flatten().flatten().collect();
                // What narrows already is left to check the rest.
                if together.is_empty() { several.into_iter().next() } else { Some(vec![together]) }
            }
            // That every row of many does is seen by looking at all records.
            Expr::Over(quantifier, inner) => {
                let found = self.branches(predicate, inner, source);
                found.filter(|_| !quantifier.every)
            }
        }
    }

    fn note_unserved(&mut self, comparison: &Comparison<Resolved>, source: &str) {
        let written: String = comparison.span.of(source).trim().chars().take(WRITTEN_CHARS_MAX).collect();
        if !written.is_empty() && !self.unserved.contains(&written) {
            self.unserved.push(written);
        }
    }

    fn on_branch(&mut self, predicate: &Predicate, branch: &[Use], order: &[Part]) {
        let of_root = branch.iter().filter(|part| part.column.node == ROOT);
        let of_others = branch.iter().filter(|part| part.column.node != ROOT);
        if narrows(of_root.clone()) || (of_root.count() > 0 && !narrows(of_others)) {
            self.on_row((&predicate.root, ""), branch, ROOT, None, order);
            return;
        }
        let mut seen: Vec<NodeIndex> = Vec::new();
        for part in branch {
            let at = part.column.node;
            let Some(node) = predicate.nodes.get(at).filter(|_| at != ROOT && !seen.contains(&at)) else { continue };
            seen.push(at);
            if let Some(collection) = &node.collection {
                self.on_row((collection, &path_of(predicate, at)), branch, at, link_of(node), &[]);
            }
            // From the far record the way leads back over the relation.
            if let Hop::Forward { link: Operand::Column(link) } = &node.hop
                && let Slot::Field(field, Storage::Text) = link.slot
                && let Some(from) = predicate.nodes.get(link.node)
            {
                self.want(from.collection.as_deref(), &path_of(predicate, link.node), &[Part::of(field)], &[]);
            }
        }
    }

    /// The index that leads to the row `node`: by what it equals, then by one range or the order.
    fn on_row(
        &mut self,
        (collection, path): (&Arc<Collection>, &str),
        branch: &[Use],
        node: NodeIndex,
        link: Option<FieldNumber>,
        order: &[Part],
    ) {
        let own = || branch.iter().filter(|part| part.column.node == node);
        // The id leads to the record by itself.
        if own().any(|part| part.is_equal() && part.column.slot == Slot::Id) {
            return;
        }
        let mut equal: Vec<Part> = link.map(Part::of).into_iter().collect();
        for part in own().filter(|part| part.is_equal()).map(|part| part.part) {
            if !equal.contains(&part) {
                equal.push(part);
            }
        }
        let range = own().find(|part| !part.is_equal() && part.column.slot != Slot::Id).map(|part| part.part);
        match range {
            None => self.want(Some(collection), path, &equal, order),
            Some(range) => {
                self.want(Some(collection), path, &equal, &[range]);
                // Which of the two serves depends on how many records the range lets through.
                if equal.is_empty() && order.first().is_some_and(|first| first.field != range.field) {
                    self.want(Some(collection), path, &[], order);
                }
            }
        }
    }

    /// Notes an index over `equal` in any order and then `tail`, unless there is one.
    fn want(&mut self, collection: Option<&Collection>, path: &str, equal: &[Part], tail: &[Part]) {
        let Some(collection) = collection.filter(|collection| !collection.is_view()) else { return };
        if equal.is_empty() && tail.is_empty() || collection.indexes.iter().any(|index| serves(index, equal, tail)) {
            return;
        }
        let columns = equal.iter().chain(tail).filter_map(|part| {
            let name = &collection.find_field_number(part.field)?.name;
            Some(format!("{name}{}", if part.descending { " DESC" } else { "" }))
        });
        let (name, columns) = (&collection.name, columns.collect::<Vec<_>>());
        let known = self.indexes.iter().any(|known| known.collection == *name && known.columns == columns);
        if !known && self.indexes.len() < WANTED_MAX {
            let wanted = Wanted { collection: name.clone(), columns, path: path.to_owned() };
            self.indexes.push(wanted);
        }
    }
}

impl Wanted {
    fn begins_with(&self, node: &Node, field: FieldNumber) -> bool {
        node.collection.as_ref().is_some_and(|collection| {
            collection.name == self.collection
                && collection.find_field_number(field).map(|field| field.name.as_str())
                    == self.columns.first().map(String::as_str)
        })
    }
}

/// The relations that a question names on its way to the row `at`; empty where the last of them names the collection.
fn path_of(predicate: &Predicate, at: NodeIndex) -> String {
    let field = |column: &Column, of: NodeIndex| {
        let Slot::Field(number, _) = column.slot else { return None };
        let collection = predicate.nodes.get(of)?.collection.as_ref()?;
        Some((collection, &collection.find_field_number(number)?.name))
    };
    let (mut segments, mut here) = (Vec::new(), at);
    // A node comes after the one it is reached from.
    while let Some(node) = predicate.nodes.get(here).filter(|node| here != ROOT && node.parent < here) {
        match &node.hop {
            Hop::Forward { link: Operand::Column(link) } | Hop::ForwardList { link: Operand::Column(link) } => {
                segments.extend(field(link, link.node).map(|(_, name)| name.to_string()));
            }
            Hop::Backward { .. } if here == at => return String::new(),
            Hop::Backward { link, .. } => {
                segments.extend(field(link, here).map(|(collection, name)| format!("{}_via_{name}", collection.name)));
            }
            _ => {}
        }
        here = node.parent;
    }
    segments.reverse();
    segments.join(".")
}

/// The one field by which the rows of a back-relation are found.
fn link_of(node: &Node) -> Option<FieldNumber> {
    match &node.hop {
        Hop::Backward { link: Column { slot: Slot::Field(field, _), guard: Visibility::Always, .. }, list: false } => {
            Some(*field)
        }
        _ => None,
    }
}

/// The columns of the row `at` that must equal what is known before the row is looked for. Rows are looked for plainly where
/// a walk stands alone and one row is enough.
fn pinned_by(predicate: &Predicate, expr: &Expr<Resolved>, at: NodeIndex, found: &mut Vec<Part>) {
    match expr {
        Expr::All(parts) | Expr::Any(parts) => parts.iter().for_each(|part| pinned_by(predicate, part, at, found)),
        Expr::Over(quantifier, inner) if !quantifier.every && quantifier.nodes.first() == Some(&at) => {
            let below = |node: &NodeIndex| predicate.ancestry(*node).any(|above| above == at);
            if quantifier.nodes.iter().all(below) {
                equal_in(inner, at, found);
            }
        }
        _ => {}
    }
}

/// The columns of `at` that must equal something known for `expr` to hold.
fn equal_in(expr: &Expr<Resolved>, at: NodeIndex, found: &mut Vec<Part>) {
    match expr {
        Expr::All(parts) => parts.iter().for_each(|part| equal_in(part, at, found)),
        Expr::Compare(comparison) if comparison.operator == Operator::Equal => {
            for (own, other) in [(&comparison.left, &comparison.right), (&comparison.right, &comparison.left)] {
                let mut known = true;
                other.for_each_column(&mut |column| known &= column.node < at);
                if let Operand::Column(Column { node, slot: Slot::Field(field, storage), guard, of_view: false }) = own
                    && *node == at
                    && *guard == Visibility::Always
                    && matches!(storage, Storage::Text | Storage::Number | Storage::Bool)
                    && known
                {
                    found.push(Part::of(*field));
                }
            }
        }
        _ => {}
    }
}

/// The comparison as an index sees it; `None` where it cannot be used.
fn usable(predicate: &Predicate, comparison: &Comparison<Resolved>) -> Option<Use> {
    let (left, right, operator) = (&comparison.left, &comparison.right, comparison.operator);
    let (column, other, mirrored) = match (left, right) {
        (Operand::Column(column), other) if other.is_recordless() => (column, other, false),
        (other, Operand::Column(column)) if other.is_recordless() => (column, other, true),
        _ => return None,
    };
    if column.guard != Visibility::Always || column.of_view {
        return None;
    }
    let empty = match other {
        Operand::Constant(constant) => value::is_empty(constant),
        other => !is_never_empty(other),
    };
    // The columns of a row that may be missing are empty then, which no index knows.
    let joined = predicate.nodes.get(column.node).is_some_and(|node| matches!(node.hop, Hop::Forward { .. }));
    if operator.is_equality() && joined && empty {
        return None;
    }
    let field = match column.slot {
        Slot::Id => FieldNumber(0),
        Slot::Field(field, Storage::Text | Storage::Number | Storage::Bool) => field,
        _ => return None,
    };
    let fit = match operator {
        Operator::NotEqual | Operator::Like | Operator::NotLike => return None,
        Operator::Equal => Fit::Equal,
        Operator::Greater | Operator::GreaterOrEqual if mirrored => Fit::Below,
        Operator::Less | Operator::LessOrEqual if !mirrored => Fit::Below,
        _ => Fit::Above,
    };
    Some(Use { column: column.clone(), part: Part::of(field), fit })
}

/// The order as columns of an index; `None` where it has others.
fn order_parts(order: &[(Operand, bool)]) -> Option<Vec<Part>> {
    let mixed = order.iter().any(|(_, descending)| *descending) && order.iter().any(|(_, descending)| !descending);
    let part = |(operand, descending): &(Operand, bool)| match operand {
        Operand::Column(Column {
            node: ROOT,
            slot: Slot::Field(field, Storage::Text | Storage::Number | Storage::Bool),
            guard: Visibility::Always,
            of_view: false,
        }) => {
            // An index is read either way, so only a change of direction has to be kept in it.
            Some(Part { descending: mixed && *descending, ..Part::of(*field) })
        }
        _ => None,
    };
    order.iter().map(part).collect()
}

fn serves(index: &Index, equal: &[Part], tail: &[Part]) -> bool {
    let Some((front, back)) = index.columns.split_at_checked(equal.len()) else { return false };
    let same = |part: &Part, at: &crate::schema::IndexColumn| part.field == at.field && !at.nocase;
    index.condition.is_none()
        && equal.iter().all(|part| front.iter().any(|column| same(part, column)))
        && tail.len() <= back.len()
        && tail.iter().zip(back).all(|(part, column)| same(part, column))
}
