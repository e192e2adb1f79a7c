//! Seed-driven simulations over the pure cores.
//!
//! A failing run prints its seed; `TENANTRY_SIM_SEED=<seed>` replays it, `TENANTRY_SIM_CASES=<n>` runs longer.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as expected")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod cache;
