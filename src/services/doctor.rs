//! The doctor: is every file sound, does every log hold, how much room is left.
//!
//! Keeps true: looking changes nothing, and one ill file does not hide the next; a folder is examined without a node, so
//! that a control database that is damaged does not hide the tenants either. Does not do: repair.

use crate::kernel::ident::TenantId;
use crate::services::tenants::{self, TenantState};
use crate::store::{self, StoreError};
use std::path::Path;

/// Free space below which the doctor complains, MiB: what the log of one busy tenant and its next checkpoint may take.
const FREE_MIB_MIN: u64 = 256;
const MIB: u64 = 1024 * 1024;

/// What one look found.
#[derive(Debug)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// What a sound file holds, or what is wrong. `None`: there is nothing to count.
    pub result: Result<Option<store::CheckReport>, String>,
}

/// Looks at the room left in the file system of `folder`.
pub fn check_space(folder: &Path) -> Finding {
    let result = match store::free_bytes(folder).map(|free| free / MIB) {
        Ok(free) if free >= FREE_MIB_MIN => Ok(None),
        Ok(0) => Err(format!("the disk is full; {FREE_MIB_MIN} MiB should be free")),
        Ok(free) => Err(format!("{free} MiB are free; {FREE_MIB_MIN} MiB should be")),
        Err(error) => Err(error.to_string()),
    };
    Finding { what: "free space".to_owned(), result }
}

/// Looks at the control database; blocks for a time proportional to the file.
pub fn check_control(folder: &Path) -> Finding {
    check_tenant(folder, &TenantId::control(), "the control database".to_owned())
}

/// Looks at one tenant, called `what`; blocks for a time proportional to the file.
pub fn check_tenant(folder: &Path, tenant: &TenantId, what: String) -> Finding {
    let result = match store::check_file(folder, tenant) {
        Ok(report) if report.is_healthy() => Ok(Some(report)),
        Ok(report) => Err(report.problems.join("; ")),
        Err(StoreError::StorageFull) => {
            Err("not looked at: the disk is full, and opening the file takes room".to_owned())
        }
        Err(error) => Err(error.to_string()),
    };
    Finding { what, result }
}

/// Looks at everything in a folder that no node serves: at tenants by their slug if the control database names them, at
/// any other file by its id. Blocks.
pub fn examine_folder(folder: &Path) -> Vec<Finding> {
    let mut findings = vec![check_space(folder), check_control(folder)];
    let listed = match tenants::read_entries(folder) {
        Ok(entries) => entries,
        Err(error) => {
            let result = Err(format!("the tenants cannot be listed: {error}"));
            findings.push(Finding { what: "the list of tenants".to_owned(), result });
            Vec::new()
        }
    };
    for entry in listed.iter().filter(|entry| matches!(entry.state, TenantState::Active | TenantState::Suspended)) {
        findings.push(check_tenant(folder, &entry.id, format!("tenant {}", entry.slug)));
    }
    match store::list_files(folder) {
        Ok(ids) => {
            let unlisted = ids.iter().filter(|id| listed.iter().all(|entry| entry.id != **id));
            findings.extend(unlisted.map(|id| check_tenant(folder, id, format!("tenant with id {id}"))));
        }
        Err(error) => {
            findings.push(Finding { what: "the folder of tenants".to_owned(), result: Err(error.to_string()) });
        }
    }
    findings
}
