//! Property tests over real parts: schema plans, the store, the query language.

mod schema;
mod query;
mod store;
