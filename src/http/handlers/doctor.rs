//! The doctor: is every file sound, does every log hold, how much room is left.
//!
//! Keeps true: looking changes nothing and one ill tenant does not hide the next. Does not do: repair.

use crate::http::extract::NodeVisitor;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::ident::TenantId;
use crate::services::tenants::{Registry, TenantQuery};
use crate::store;
use actix_web::{HttpResponse, web};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Free space below which the doctor complains, bytes.
const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// What the doctor needs.
pub(crate) struct DoctorPart {
    pub(crate) registry: Registry,
    pub(crate) folder: PathBuf,
}

/// `GET /api/admin/doctor`: `{checks:[{what, result, …}]}`; a result other than `ok` says what is wrong.
pub(crate) async fn get_doctor(_: NodeVisitor, part: web::Data<DoctorPart>) -> Result<HttpResponse, Problem> {
    let mut checks = vec![space(&part.folder)];
    checks.push(check("the control database".to_owned(), part.folder.clone(), TenantId::control()).await);
    let query = TenantQuery { per_page: usize::MAX, ..TenantQuery::default() };
    for entry in part.registry.list(&query).items {
        checks.push(check(format!("tenant {}", entry.slug), part.folder.clone(), entry.id.clone()).await);
    }
    Ok(respond::json(&json!({ "checks": checks })))
}

fn space(folder: &std::path::Path) -> Value {
    let result = match store::free_bytes(folder) {
        Ok(free) if free >= FREE_BYTES_MIN => "ok".to_owned(),
        Ok(free) => format!("{} MiB free", free / (1024 * 1024)),
        Err(error) => error.to_string(),
    };
    json!({ "what": "free space", "result": result })
}

async fn check(what: String, folder: PathBuf, tenant: TenantId) -> Value {
    match web::block(move || store::check_file(&folder, &tenant)).await {
        Ok(Ok(report)) if report.is_healthy() => json!({
            "what": what, "result": "ok", "bytes": report.bytes, "transactions": report.log_len, "files": report.files,
            "records": report.records.iter().map(|(_, _, count)| count).sum::<u64>(),
        }),
        Ok(Ok(report)) => json!({ "what": what, "result": report.problems.join("; ") }),
        Ok(Err(error)) => json!({ "what": what, "result": error.to_string() }),
        Err(error) => json!({ "what": what, "result": error.to_string() }),
    }
}
