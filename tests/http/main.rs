//! Black-box suites: every test speaks HTTP to a real node on port 0 with a folder of its own.
//!
//! Keeps true: no test reaches below the wire, except to move the clock. Does not do: unit tests, those are inline.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: a panic is the failure")]

mod support;
mod limits;
mod observability;
mod auth;
mod tenants;
mod isolation;
