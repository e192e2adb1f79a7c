//! The query language over a real SQLite: SQL ≡ evaluator, semantics, paging, oracles, plans.

mod world;
mod equivalence;
mod semantics;
mod paging;
mod oracle;
mod rules;
mod plans;
