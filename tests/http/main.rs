//! Black-box suites: every test speaks HTTP to a real node on port 0 with a folder of its own.
//!
//! Keeps true: no test reaches below the wire, except to move the clock. Does not do: unit tests, those are inline.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: a panic is the failure")]

mod support;
mod tenants;
mod lifecycle;
mod isolation;
mod replay;
mod crossing;
mod collections;
mod records;
mod files;
mod caching;
mod delivery;
mod cache_policy;
mod cache_classes;
mod cache_restart;
mod cache_tenants;
mod purging;
mod remembered;
mod values;
mod batch;
mod access;
mod rules;
mod auth;
mod registration;
mod keys;
mod passwords;
mod settings;
mod factors;
mod pages;
mod passkeys;
mod revocation;
mod suspension;
mod auth_events;
mod audit;
mod limits;
mod errors;
mod bounds;
mod observability;
mod tls;
mod acme;
mod budgets;
mod hostile;
mod damage;
mod upgrades;
mod roles;
mod queries;
mod walks;
mod oracle;
