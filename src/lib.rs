//! Tenantry: the multi-tenant backend in one binary.
//!
//! Layers, imports run downward only (`tests/architecture.rs` holds the list):
//!
//! ```text
//! L5 edge       config · app · cli
//! L4 transport  http
//! L3 services   tenants → blueprints → collections → records | auth
//! L2 engines    telemetry · secrets · tls · store · cache · outbound
//! L1 languages  schema → query → access
//! L0 kernel     identifiers, values, error codes, clock, limits
//! ```

// Reading order, bottom up.
pub mod kernel;
pub mod schema;
pub mod query;
pub mod access;
pub mod telemetry;
pub mod secrets;
pub mod tls;
pub mod store;
pub mod cache;
pub mod outbound;
pub mod services;
pub mod http;
pub mod config;
pub mod app;
pub mod cli;
