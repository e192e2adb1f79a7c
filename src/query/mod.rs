//! L1: the query language. Text → [`ast::Expr`] (parsed) → [`resolved::Predicate`] → SQL with bound values, or an
//! outcome over records in memory; both mean the same.
//!
//! Keeps true: values are always bound, identifiers come from schema ids, nothing a caller may not read can be named.
//! Does not do: I/O, time, caching. It is a list of what leaves the folder.

pub mod error;
pub mod ast;
mod lexer;
mod parser;
pub mod value;
pub mod moment;
pub mod functions;
pub mod request;
pub mod resolved;
mod scope;
mod path;
mod sql;
mod operand;
pub mod inside;
pub mod select;
pub mod list;
pub mod page;
mod total;
pub mod statement;
mod search;
pub mod eval;
pub mod plan;
pub mod aggregate;
pub mod advice;
pub mod resolve;

pub use error::QueryError;
pub use parser::{parse_filter, parse_rule};
