//! Tenant registry and lifecycle.
