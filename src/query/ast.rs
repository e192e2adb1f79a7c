//! Expressions and their stages: as written ([`Parsed`]) and as understood for one schema and caller ([`Resolved`]).
//!
//! Keeps true: the shape of an expression is the same in every stage; only operands and quantifiers differ, and a
//! parsed expression cannot hold a quantifier at all. Does not do: any step between the stages.

use crate::query::error::Span;
use crate::query::resolved::{Operand, Quantifier};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

/// A stage of an expression's life.
pub trait Stage: Clone + fmt::Debug + PartialEq + 'static {
    /// What stands on either side of a comparison.
    type Operand: Clone + fmt::Debug + PartialEq;
    /// "For some row" and "for every row"; known only once paths are resolved.
    type Quantifier: Clone + fmt::Debug + PartialEq;
}

/// As written: names, literals, spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed;

impl Stage for Parsed {
    type Operand = Term;
    type Quantifier = Infallible;
}

/// As understood: typed columns of one schema for one class of caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved;

impl Stage for Resolved {
    type Operand = Operand;
    type Quantifier = Quantifier;
}

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr<S: Stage> {
    /// Known without looking at a record.
    Constant(bool),
    /// Every part holds.
    All(Vec<Expr<S>>),
    /// At least one part holds.
    Any(Vec<Expr<S>>),
    /// Two operands compared.
    Compare(Box<Comparison<S>>),
    /// The inner condition holds for some, or for every, combination of rows.
    Over(S::Quantifier, Box<Expr<S>>),
}

/// Two operands and what is asked of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison<S: Stage> {
    /// Left side.
    pub left: S::Operand,
    /// The operator.
    pub operator: Operator,
    /// Written with `?`: one matching value is enough.
    pub any: bool,
    /// Right side.
    pub right: S::Operand,
    /// Where it stands.
    pub span: Span,
}

/// The eight comparisons; each exists with and without `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `~`
    Like,
    /// `!~`
    NotLike,
}

impl Operator {
    /// Every operator.
    pub const ALL: [Self; 8] = [
        Self::Equal,
        Self::NotEqual,
        Self::Greater,
        Self::GreaterOrEqual,
        Self::Less,
        Self::LessOrEqual,
        Self::Like,
        Self::NotLike,
    ];

    /// The operator as written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Like => "~",
            Self::NotLike => "!~",
        }
    }

    /// Whether this is `=` or `!=`.
    pub const fn is_equality(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual)
    }

    /// Whether this is `~` or `!~`.
    pub const fn is_like(self) -> bool {
        matches!(self, Self::Like | Self::NotLike)
    }
}

/// An operand as written.
#[derive(Debug, Clone)]
pub struct Term {
    /// What it is.
    pub kind: TermKind,
    /// Where it stands.
    pub span: Span,
}

/// Terms are equal when they say the same; where they stand does not matter.
impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// The kinds of operand.
#[derive(Debug, Clone, PartialEq)]
pub enum TermKind {
    /// Quoted text, quotes removed.
    Text(Arc<str>),
    /// A number.
    Number(f64),
    /// A whole number from 2^53 on, not every one of which is a double.
    Whole(i64),
    /// A name: field path, macro, `@request…`, `@collection…`, or one of `null`, `true`, `false`.
    Name(Arc<str>),
    /// A function call.
    Call {
        /// The function's name.
        name: Arc<str>,
        /// Its arguments.
        arguments: Vec<Term>,
    },
}

impl Expr<Parsed> {
    /// The condition with all spans cleared, so that equality ignores layout.
    pub fn without_spans(&self) -> Self {
        match self {
            Self::Constant(value) => Self::Constant(*value),
            Self::All(parts) => Self::All(parts.iter().map(Self::without_spans).collect()),
            Self::Any(parts) => Self::Any(parts.iter().map(Self::without_spans).collect()),
            Self::Compare(comparison) => {
                Self::Compare(Box::new(Comparison { span: Span::default(), ..(**comparison).clone() }))
            }
            Self::Over(never, _) => match *never {},
        }
    }

    /// Calls `each` with every comparison, left to right.
    pub fn for_each_comparison<'e>(&'e self, each: &mut dyn FnMut(&'e Comparison<Parsed>)) {
        match self {
            Self::Constant(_) => {}
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.for_each_comparison(each)),
            Self::Compare(comparison) => each(comparison),
            Self::Over(never, _) => match *never {},
        }
    }
}

/// Prints in the language itself; parsing the result gives an equal expression.
impl fmt::Display for Expr<Parsed> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The grammar has no literal conditions; these two say the same.
            Self::Constant(true) => f.write_str("1 = 1"),
            Self::Constant(false) => f.write_str("1 = 0"),
            Self::All(parts) => print_joined(f, parts, " && ", |part| matches!(part, Self::All(_) | Self::Any(_))),
            Self::Any(parts) => print_joined(f, parts, " || ", |part| matches!(part, Self::Any(_))),
            Self::Compare(comparison) => comparison.fmt(f),
            Self::Over(never, _) => match *never {},
        }
    }
}

fn print_joined(
    f: &mut fmt::Formatter<'_>,
    parts: &[Expr<Parsed>],
    separator: &str,
    needs_parentheses: fn(&Expr<Parsed>) -> bool,
) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            f.write_str(separator)?;
        }
        if needs_parentheses(part) {
            write!(f, "({part})")?;
        } else {
            write!(f, "{part}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Comparison<Parsed> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = if self.any { "?" } else { "" };
        write!(f, "{} {any}{} {}", self.left, self.operator.as_str(), self.right)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            // Only the quote itself is escaped, as the lexer reads it back.
            TermKind::Text(text) => write!(f, "'{}'", text.replace('\'', "\\'")),
            TermKind::Number(number) => write!(f, "{number}"),
            TermKind::Whole(number) => write!(f, "{number}"),
            TermKind::Name(name) => f.write_str(name),
            TermKind::Call { name, arguments } => {
                write!(f, "{name}(")?;
                for (at, argument) in arguments.iter().enumerate() {
                    if at > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{argument}")?;
                }
                f.write_str(")")
            }
        }
    }
}
