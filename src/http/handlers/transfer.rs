//! Records in bulk: NDJSON and CSV, streamed both ways.
//!
//! Keeps true: memory stays flat however many records there are; who may no longer have or bring them is cut off before
//! the next piece. Does not do: reading rows, rules.

use crate::http::body::BodyLimits;
use crate::http::extract::Visitor;
use crate::http::handlers::records::idempotency;
use crate::http::problem::Problem;
use crate::http::respond;
use crate::kernel::error::{Code, Detail};
use crate::services::records::read::ListRequest;
use crate::services::records::transfer::{Exporter, Format, ImportOptions, Importer, UnknownColumns};
use actix_web::{HttpResponse, web};
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Map, json};

/// `GET /api/collections/{collection}/export?format=ndjson|csv` with the parameters of a list.
pub(crate) async fn export_records(visitor: Visitor, collection: web::Path<String>) -> Result<HttpResponse, Problem> {
    let format = format_of(&visitor)?;
    let parameters: Vec<_> = visitor.parameters().into_iter().filter(|(name, _)| name != "format").collect();
    let request = ListRequest::from_pairs(&parameters)?;
    let mut exporter = Exporter::new(visitor.scope(Map::new()), &collection, format, request);
    // The first piece is read before the answer begins, so that a refusal is still a problem and not a cut stream.
    let first = exporter.next().await?;
    let rest = visitor.guard(stream::try_unfold(exporter, |mut exporter| async move {
        let piece = exporter.next().await.map_err(|fault| std::io::Error::other(fault.to_string()))?;
        Ok::<_, std::io::Error>(piece.map(|piece| (piece, exporter)))
    }));
    let (media, ending) = match format {
        Format::Ndjson => ("application/x-ndjson", "ndjson"),
        Format::Csv => ("text/csv; charset=utf-8", "csv"),
    };
    let name = format!("attachment; filename=\"{collection}.{ending}\"");
    Ok(HttpResponse::Ok()
        .content_type(media)
        .insert_header(("content-disposition", name))
        .insert_header(("cache-control", "no-store"))
        // Made while it is read, so there is nothing that a part could be cut from.
        .insert_header(("accept-ranges", "none"))
        .streaming(stream::iter(first.map(Ok)).chain(rest)))
}

/// `POST /api/collections/{collection}/import?format=ndjson|csv&dryRun=&skipLines=&unknown=refuse|ignore`: the body is the
/// rows.
///
/// With an `Idempotency-Key`, an import that was cut goes on where it stopped. A failure says in `lastLine` how far it came.
pub(crate) async fn import_records(
    visitor: Visitor,
    collection: web::Path<String>,
    limits: web::Data<BodyLimits>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    refuse_unknown_parameters(&visitor)?;
    let skip_lines = visitor.number("skipLines")? as u64;
    let unknown = unknown_of(&visitor)?;
    let options = ImportOptions { format: format_of(&visitor)?, dry_run: visitor.flag("dryRun"), skip_lines, unknown };
    let scope = visitor.scope(Map::new());
    // The rows are not known yet, so the receipt itself tells whether they are the same.
    let key = idempotency(&visitor, &scope, b"")?;
    let mut importer = Importer::new(scope, &collection, options)?;
    if let Some(key) = key {
        importer = importer.keyed(key).await?;
    }
    let read = read_rows(&visitor, &limits, payload, &mut importer).await;
    let report = importer.report();
    if let Err(problem) = read {
        return Err(problem.with_member("lastLine", report.last_line));
    }
    let refusals: Vec<_> =
        report.refusals.iter().map(|refusal| json!({ "line": refusal.line, "reason": refusal.reason })).collect();
    Ok(respond::json(&json!({
        "created": report.created, "updated": report.updated, "skipped": report.skipped, "refused": report.refused,
        "doneBefore": report.done_before, "refusals": refusals, "lastLine": report.last_line, "dryRun": options.dry_run,
    })))
}

async fn read_rows(
    visitor: &Visitor,
    limits: &BodyLimits,
    mut payload: web::Payload,
    importer: &mut Importer,
) -> Result<(), Problem> {
    // The bound is on silence, not on the whole: an import may take as long as it keeps sending.
    let late = |_| Problem::bare(Code::RequestTimeout);
    while let Some(piece) = tokio::time::timeout(limits.timeout, payload.next()).await.map_err(late)? {
        let damaged = |error| Problem::new(Code::RequestInvalid, format!("The body is damaged: {error}."));
        visitor.check_standing().await?;
        importer.push(&piece.map_err(damaged)?).await?;
    }
    visitor.check_standing().await?;
    Ok(importer.finish().await?)
}

/// A misspelt `dryRun` would bring in for good what was to be tried.
fn refuse_unknown_parameters(visitor: &Visitor) -> Result<(), Problem> {
    const KNOWN: [&str; 4] = ["format", "dryRun", "skipLines", "unknown"];
    match visitor.parameters().into_iter().find(|(name, _)| !KNOWN.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!("An import has no parameter {name:?}; known are {}.", KNOWN.join(", "));
            let detail = Detail::new(name, "validation_unknown_member", message.clone());
            Err(Problem::new(Code::ParameterInvalid, message).with_detail(detail))
        }
    }
}

/// `unknown=`: what is done about columns that are no fields; they are refused unless it says otherwise.
fn unknown_of(visitor: &Visitor) -> Result<UnknownColumns, Problem> {
    match visitor.text("unknown").as_str() {
        "" | "refuse" => Ok(UnknownColumns::Refused),
        "ignore" => Ok(UnknownColumns::PassedOver),
        other => {
            let message = format!("The parameter unknown is {other:?}; refuse and ignore are known.");
            Err(Problem::new(Code::ParameterInvalid, message))
        }
    }
}

/// `format=`, or what `Content-Type` says; NDJSON if neither does.
fn format_of(visitor: &Visitor) -> Result<Format, Problem> {
    let media = visitor.header("content-type").unwrap_or_default();
    match visitor.text("format").as_str() {
        "ndjson" => Ok(Format::Ndjson),
        "csv" => Ok(Format::Csv),
        "" if media.starts_with("text/csv") => Ok(Format::Csv),
        "" => Ok(Format::Ndjson),
        other => {
            let message = format!("The parameter format is {other:?}; ndjson and csv are known.");
            Err(Problem::new(Code::ParameterInvalid, message))
        }
    }
}
