//! The doctor of a running node.
//!
//! Keeps true: looking changes nothing and one ill tenant does not hide the next. Does not do: looking; `services` does.

use crate::http::extract::NodeVisitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::services::doctor::{self, Finding};
use crate::services::tenants::{Registry, TenantEntry, TenantState};
use actix_web::{HttpResponse, web};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What the doctor needs.
pub(crate) struct DoctorPart {
    pub(crate) registry: Registry,
    pub(crate) folder: PathBuf,
}

/// `GET /api/admin/doctor`: `{checks:[{what, result, …}]}`; a result other than `ok` says what is wrong.
pub(crate) async fn get_doctor(_: NodeVisitor, part: web::Data<DoctorPart>) -> Result<HttpResponse, Problem> {
    let mut checks = vec![show(&doctor::check_space(&part.folder))];
    let folder = part.folder.clone();
    checks.push(look("the control database", move || doctor::check_control(&folder)).await);
    for entry in part.registry.entries().into_iter().filter(|entry| has_file(entry)) {
        let (folder, what) = (part.folder.clone(), format!("tenant {}", entry.slug));
        let named = what.clone();
        checks.push(look(&named, move || doctor::check_tenant(&folder, &entry.id, what)).await);
    }
    Ok(respond::json(&json!({ "checks": checks })))
}

/// Whether the tenant is neither coming nor going.
fn has_file(entry: &TenantEntry) -> bool {
    matches!(entry.state, TenantState::Active | TenantState::Suspended)
}

async fn look(what: &str, look: impl FnOnce() -> Finding + Send + 'static) -> Value {
    match web::block(look).await {
        Ok(finding) => show(&finding),
        Err(error) => json!({ "what": what, "result": error.to_string() }),
    }
}

fn show(finding: &Finding) -> Value {
    match &finding.result {
        Ok(Some(report)) => json!({
            "what": finding.what, "result": "ok", "bytes": report.bytes, "transactions": report.log_len,
            "files": report.files, "records": report.records.iter().map(|(_, _, count)| count).sum::<u64>(),
        }),
        Ok(None) => json!({ "what": finding.what, "result": "ok" }),
        Err(problem) => json!({ "what": finding.what, "result": problem }),
    }
}
