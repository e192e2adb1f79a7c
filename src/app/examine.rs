//! Looking at a folder without serving it.
//!
//! Keeps true: nobody serves the folder meanwhile, and nothing in it is repaired, migrated or made; what is damaged is
//! told, not a reason to stop looking. Does not do: the looking itself (`services::doctor`).

use super::StartError;
use super::folder::FolderLock;
use crate::config::Config;
use crate::services::doctor;

/// What was looked at, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// What was looked at.
    pub what: String,
    /// What is wrong; `None`: nothing.
    pub problem: Option<String>,
}

/// Looks at every file of the folder. Blocks; an error is a folder that another node serves, or that is none.
pub fn examine(config: &Config) -> Result<Vec<Examined>, StartError> {
    let _lock = FolderLock::take_existing(&config.data.dir)?;
    let findings = doctor::examine_folder(&config.data.dir);
    Ok(findings.into_iter().map(|finding| Examined { what: finding.what, problem: finding.result.err() }).collect())
}
