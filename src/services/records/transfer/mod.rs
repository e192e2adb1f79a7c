//! Bringing records in and out in bulk.

mod rows;
mod columns;
mod progress;
mod import;
mod export;

pub use columns::UnknownColumns;
pub use export::Exporter;
pub use import::{ImportOptions, ImportRefusal, ImportReport, Importer};
pub use rows::Format;
