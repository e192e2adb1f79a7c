//! What the benches share: the yardstick server, the load generator, interleaved rounds and their report.
//!
//! Keeps true: contestants of one comparison are measured in one run, alternating, with the same client.
//! Does not do: judging. A bench prints ratios beside their targets; nothing here fails a build over a number.
#![allow(dead_code, reason = "each bench compiles this folder and uses its own part of it")]

pub(crate) mod args;
pub(crate) mod bare;
pub(crate) mod bare_cache;
pub(crate) mod disk;
pub(crate) mod histogram;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod rng;
pub(crate) mod rounds;
pub(crate) mod schema;
pub(crate) mod site;
pub(crate) mod tenants;
pub(crate) mod timing;
pub(crate) mod bulk;
pub(crate) mod plans;
pub(crate) mod tournament;
