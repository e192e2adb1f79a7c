//! What a condition means for one schema and one class of caller: typed columns, rows to visit, guards.
//!
//! Keeps true: a [`Predicate`] is complete. Whatever it reads is in its [`Facts`], every row it visits is one of its
//! nodes, and each guard that protects a row or a column hangs on the node or column itself, so that no renderer can
//! forget it. Does not do: SQL, evaluation.

use crate::kernel::ident::{CollectionId, FieldNumber};
use crate::kernel::value::Stored;
use crate::query::ast::{Expr, Operator, Resolved};
use crate::query::functions::SqlFunction;
use crate::query::moment::Macro;
use crate::query::request::RequestPath;
use crate::query::value::{self, Cast};
use crate::schema::Collection;
use crate::schema::field::Storage;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which row of the predicate: 0 is the record itself, others are found by following a [`Hop`].
pub type NodeIndex = usize;

/// The record that the predicate is about.
pub const ROOT: NodeIndex = 0;

/// A resolved condition over records of one collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate {
    /// The collection of the record.
    pub root: Arc<Collection>,
    /// The rows that the condition visits; a node's parent always comes before it.
    pub nodes: Vec<Node>,
    /// Whether the condition still needs the node of the same index after folding.
    pub live: Vec<bool>,
    /// The condition.
    pub expr: Expr<Resolved>,
    /// What its outcome depends on.
    pub facts: Facts,
}

/// What an outcome depends on besides the record; a cache keys and invalidates by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Facts about the request that are read.
    pub reads: BTreeSet<RequestPath>,
    /// Collections whose rows are read.
    pub touched: BTreeSet<CollectionId>,
    /// Those of them of which other rows than the asked-for records themselves are read.
    pub hopped: BTreeSet<CollectionId>,
    /// Whether the present is read.
    pub reads_time: bool,
}

impl Facts {
    /// Takes in what another part depends on.
    pub fn merge(&mut self, other: &Self) {
        self.reads.extend(other.reads.iter().cloned());
        self.touched.extend(other.touched.iter().cloned());
        self.hopped.extend(other.hopped.iter().cloned());
        self.reads_time |= other.reads_time;
    }
}

/// A row that the condition visits besides the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The row it is reached from.
    pub parent: NodeIndex,
    /// How.
    pub hop: Hop,
    /// The collection of the row; `None` for list elements.
    pub collection: Option<Arc<Collection>>,
    /// The row is there only where this holds for it.
    pub guard: Visibility,
    /// More than one row is possible.
    pub many: bool,
    /// Rows visited for one side of one comparison only; `None` is shared by all `?` comparisons of the expression.
    pub scope: Option<usize>,
}

/// How a row is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum Hop {
    /// The record itself.
    Root,
    /// The record with the id in `link`.
    Forward {
        /// The id.
        link: Operand,
    },
    /// The records whose ids are in the list `link`.
    ForwardList {
        /// The list.
        link: Operand,
    },
    /// The records whose relation field points here.
    Backward {
        /// The relation field, a column of the reached row.
        link: Column,
        /// Whether that field is a list.
        list: bool,
    },
    /// Every record of a collection; the alias keeps two walks apart.
    Anywhere {
        /// The alias, may be empty.
        alias: Arc<str>,
    },
    /// The elements of a list.
    Elements {
        /// The list.
        list: Operand,
    },
}

/// Whether, or when, something shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Visibility {
    /// To everyone of the class.
    Always,
    /// To nobody of the class.
    Never,
    /// Where this holds for the row.
    When(Arc<Predicate>),
}

/// For some, or for every, combination of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantifier {
    /// Every combination must satisfy the inner condition; otherwise one is enough.
    pub every: bool,
    /// The rows it ranges over, parents first.
    pub nodes: Vec<NodeIndex>,
}

/// A resolved operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A value known by now.
    Constant(Stored),
    /// A fact about the request.
    Request(RequestPath),
    /// A moment.
    Clock(Macro),
    /// A column of a visited row.
    Column(Column),
    /// What stands at a path inside a JSON column; an empty path is the whole document.
    Json(Column, Vec<Arc<str>>),
    /// The number of elements of a list column.
    Length(Column),
    /// `:lower`.
    Lower(Box<Operand>),
    /// A function of operands.
    Call(Function, Vec<Operand>),
    /// `:changed`: 1 where the body sets the column of a record that was there before to something else.
    Changed {
        /// Whether the body has it, for a record that was there before.
        is_set: RequestPath,
        /// What the body says.
        sent: RequestPath,
        /// What is stored.
        column: Column,
    },
}

/// A function of the language, compared by its SQL name.
#[derive(Debug, Clone, Copy)]
pub struct Function(pub &'static SqlFunction);

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

/// One column of one visited row.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The row.
    pub node: NodeIndex,
    /// Which column of it.
    pub slot: Slot,
    /// What it shows to this caller.
    pub guard: Visibility,
    /// The collection is a view, whose columns may be NULL and of any type.
    pub of_view: bool,
}

/// Which column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The record id.
    Id,
    /// The row number in the file.
    RowNumber,
    /// A field.
    Field(FieldNumber, Storage),
    /// The element itself (rows of [`Hop::Elements`]).
    Element,
}

/// What is known about an operand's type before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// Text or NULL.
    Text,
    /// A number or NULL.
    Number,
    /// Whatever a JSON document holds.
    Json,
    /// A constant or a fact about the request: it adapts to the other side.
    Free,
}

impl Slot {
    /// The type of the column.
    pub const fn value_type(self) -> Type {
        match self {
            Self::Id => Type::Text,
            Self::RowNumber => Type::Number,
            Self::Field(_, storage) => match storage {
                Storage::Text | Storage::List | Storage::Point => Type::Text,
                Storage::Number | Storage::Bool => Type::Number,
                Storage::Json => Type::Json,
            },
            Self::Element => Type::Json,
        }
    }
}

impl Operand {
    /// What is known about its type.
    pub fn value_type(&self) -> Type {
        match self {
            Self::Constant(_) | Self::Request(_) | Self::Clock(_) => Type::Free,
            Self::Column(column) => column.slot.value_type(),
            Self::Json(..) => Type::Json,
            Self::Length(_) | Self::Changed { .. } => Type::Number,
            Self::Lower(inner) => match inner.value_type() {
                Type::Free => Type::Free,
                Type::Number => Type::Number,
                _ => Type::Json,
            },
            Self::Call(function, _) => {
                if function.0.name == "tn_strftime" {
                    Type::Text
                } else {
                    Type::Number
                }
            }
        }
    }

    /// Calls `each` with every column the operand reads.
    pub fn for_each_column<'o>(&'o self, each: &mut dyn FnMut(&'o Column)) {
        match self {
            Self::Constant(_) | Self::Request(_) | Self::Clock(_) => {}
            Self::Column(column) | Self::Json(column, _) | Self::Length(column) | Self::Changed { column, .. } => {
                each(column);
            }
            Self::Lower(inner) => inner.for_each_column(each),
            Self::Call(_, arguments) => arguments.iter().for_each(|argument| argument.for_each_column(each)),
        }
    }

    /// Whether the value is the same for every record of one request.
    pub fn is_recordless(&self) -> bool {
        let mut recordless = true;
        self.for_each_column(&mut |_| recordless = false);
        recordless
    }
}

/// How the two sides of a comparison are converted so that they can be compared.
pub fn casts(left: Type, like: bool, right: Type) -> (Cast, Cast) {
    if like {
        return (Cast::Text, Cast::Text);
    }
    match (left, right) {
        (Type::Text, Type::Text) | (Type::Number, Type::Number) => (Cast::Raw, Cast::Raw),
        (Type::Text, Type::Free | Type::Json) => (Cast::Raw, Cast::Text),
        (Type::Free | Type::Json, Type::Text) => (Cast::Text, Cast::Raw),
        (Type::Number, _) => (Cast::Raw, Cast::Number),
        (_, Type::Number) => (Cast::Number, Cast::Raw),
        (Type::Free | Type::Json, Type::Free | Type::Json) => (Cast::Raw, Cast::Raw),
    }
}

impl Predicate {
    /// The outcome, if it is the same for every record and request of the class.
    pub fn constant(&self) -> Option<bool> {
        match self.expr {
            Expr::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// Whether it holds for no record because each has an id, as `id = @request.auth.id` does where nobody is logged in.
    ///
    /// It is not folded to a constant for that: names in a collection whose rule is known to hold for none are refused.
    pub fn wants_no_id(&self) -> bool {
        wants_no_id(&self.expr)
    }

    /// The nodes that lie on the way to `node`, itself first, without the root.
    pub fn ancestry(&self, node: NodeIndex) -> impl Iterator<Item = NodeIndex> {
        let mut next = (node != ROOT).then_some(node);
        std::iter::from_fn(move || {
            let here = next?;
            next = self.nodes.get(here).map(|node| node.parent).filter(|parent| *parent != ROOT);
            Some(here)
        })
    }

    /// The nodes of which there is at most one row per record, parents first: they may be joined to the statement.
    pub fn single_nodes(&self) -> impl Iterator<Item = NodeIndex> {
        (1..self.nodes.len()).filter(|node| {
            self.live.get(*node).copied().unwrap_or_default()
                && !self.ancestry(*node).any(|on_the_way| self.nodes.get(on_the_way).is_some_and(|node| node.many))
        })
    }
}

fn wants_no_id(expr: &Expr<Resolved>) -> bool {
    let is_id = |operand: &Operand| {
        matches!(
            operand,
            Operand::Column(Column { node: ROOT, slot: Slot::Id, of_view: false, guard: Visibility::Always })
        )
    };
    match expr {
        Expr::Constant(value) => !value,
        Expr::All(parts) => parts.iter().any(wants_no_id),
        Expr::Any(parts) => parts.iter().all(wants_no_id),
        Expr::Compare(comparison) if comparison.operator == Operator::Equal => {
            match (&comparison.left, &comparison.right) {
                (id, Operand::Constant(empty)) | (Operand::Constant(empty), id) => is_id(id) && value::is_empty(empty),
                _ => false,
            }
        }
        Expr::Compare(_) | Expr::Over(..) => false,
    }
}
