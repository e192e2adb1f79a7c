//! The registry of tenants and their lifecycle: which there are, how they come, change and go.
//!
//! Keeps true: the control database holds the intent, the tenant's file the truth; a crash between the two leaves
//! something that the next start removes.
//! Does not do: blueprints (whoever creates a tenant passes what fills it), records, HTTP.
//!
//! Reading order: [`directory`] → [`registry`] → [`lifecycle`] → [`sealed`]; [`system`] lists the collections that Tenantry brings.

pub mod directory;
mod entry;
mod error;
pub mod lifecycle;
pub mod registry;
pub mod rows;
pub mod sealed;
pub mod system;
#[cfg(test)]
pub(crate) mod tests;

pub use directory::{BlueprintRef, TenantEntry, TenantState};
pub use entry::read_entries;
pub use error::TenantError;
pub use lifecycle::{Contents, Copied, CreateTenant, Fill, RenameTenant};
pub use registry::{MAIN, Registry, RegistryOptions, TenantPage, TenantQuery, TenantReport};
