//! Seed-driven simulations over the pure cores.
//!
//! A failing run prints its seed; `TENANTRY_SIM_SEED=<seed>` replays it, `TENANTRY_SIM_CASES=<n>` runs longer.

mod cache;
