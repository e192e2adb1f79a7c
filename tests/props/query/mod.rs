//! The query language over a real SQLite: SQL ≡ evaluator, semantics, paging, oracles, plans, moments.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod world;
mod equivalence;
mod universe;
mod generated;
mod semantics;
mod paging;
mod oracle;
mod rules;
mod plans;
mod moments;

/// Cases per property: few in a usual run, as many as `PROPTEST_CASES` says in a long one.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
