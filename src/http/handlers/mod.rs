//! The handlers, by capability. A pure list.

pub(super) mod records;
pub(super) mod files;
pub(super) mod transfer;
pub(super) mod collections;
pub(super) mod accounts;
pub(super) mod audit;
pub(super) mod auth;
pub(super) mod recovery;
pub(super) mod keys;
pub(super) mod rules;
pub(super) mod tenants;
pub(super) mod blueprints;
pub(super) mod cache;
pub(super) mod values;
pub(super) mod doctor;
pub(super) mod factors;
pub(super) mod passkeys;
pub(super) mod oauth;
pub(super) mod pages;
pub(super) mod settings;
pub(super) mod ops;
pub(crate) mod usage;
