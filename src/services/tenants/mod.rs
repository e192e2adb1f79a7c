//! The registry of tenants and their lifecycle.

pub mod directory;
pub mod system;
