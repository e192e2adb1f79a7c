//! L3: the services, in dependency order. A pure list.

pub mod login_guard;
pub mod throttle;
pub mod budget;
pub mod tenants;
pub mod doctor;
pub mod settings;
pub mod passwords;
pub mod mail;
pub mod purging;
pub mod sample;
pub mod blueprints;
pub mod collections;
pub mod files;
pub mod records;
pub mod auth;
