//! Property tests over real parts: schema plans, the store, the query language.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod schema;
mod query;
mod store;
mod clock;
