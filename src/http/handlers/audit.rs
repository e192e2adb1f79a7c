//! The audit trail of a tenant.
//!
//! Keeps true: only superusers; nothing is cached. Does not do: choosing entries; `services::records::audit` does.

use super::auth::AuthPart;
use crate::http::body;
use crate::http::extract::{NodeVisitor, Visitor};
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::datetime;
use crate::kernel::error::Code;
use crate::services::records::audit::{self, AuditForm, AuditKind, AuditQuery};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, web};
use serde_json::Map;

/// `GET /api/admin/audit`: the same of the node itself: tenants, superusers, blueprints, settings.
pub(crate) async fn list_node_audit(visitor: NodeVisitor, part: web::Data<AuthPart>) -> Result<HttpResponse, Problem> {
    list_audit(visitor.0, part).await
}

/// `GET /api/audit?kind=auth|change&actor=&collection=&record=&ip=&request=&from=&until=&since=&limit=&format=ndjson`
pub(crate) async fn list_audit(visitor: Visitor, part: web::Data<AuthPart>) -> Result<HttpResponse, Problem> {
    visitor.require_superuser()?;
    let kind = match visitor.text("kind").as_str() {
        "" => AuditKind::Any,
        "auth" => AuditKind::Auth,
        "change" => AuditKind::Change,
        _ => return Err(Problem::new(Code::ParameterInvalid, "The parameter kind is auth or change.")),
    };
    if kind != AuditKind::Change {
        part.auth.tell_events(&visitor.tenant).await?;
    }
    let query = AuditQuery {
        kind,
        actor: visitor.text("actor"),
        collection: visitor.text("collection"),
        record: visitor.text("record"),
        ip: visitor.text("ip"),
        request: visitor.text("request"),
        from_ms: moment(&visitor, "from")?,
        until_ms: moment(&visitor, "until")?,
        since: body::number(&visitor.parameters(), "since")?.unwrap_or(0),
        limit: visitor.number("limit")?,
    };
    let form = match visitor.text("format").as_str() {
        "" | "json" => AuditForm::Page,
        "ndjson" => AuditForm::Lines,
        _ => return Err(Problem::new(Code::ParameterInvalid, "The parameter format is json or ndjson.")),
    };
    let page = audit::list_audit(&visitor.scope(Map::new()), query, form).await?;
    let mut response = respond::json_bytes(page.answer.body);
    if form == AuditForm::Lines {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let verified = HeaderValue::from_static(if page.verified { "true" } else { "false" });
        headers.insert(HeaderName::from_static("audit-verified"), verified);
        if !page.complete {
            headers.insert(HeaderName::from_static("audit-next"), HeaderValue::from(page.next));
        }
    }
    Ok(response)
}

fn moment(visitor: &Visitor, name: &str) -> Result<Option<i64>, Problem> {
    let text = visitor.text(name);
    if text.is_empty() {
        return Ok(None);
    }
    let ms = datetime::parse_ms(&text);
    ms.map(Some).ok_or_else(|| {
        Problem::new(Code::ParameterInvalid, format!("The parameter {name} is {text:?}; a date and time is expected."))
    })
}
