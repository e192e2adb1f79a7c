//! The query language over a real SQLite: SQL ≡ evaluator, semantics, paging, oracles, plans.

mod world;
mod equivalence;
