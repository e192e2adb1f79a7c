//! The commands about the audit log: looking, taking it elsewhere, checking its chain.
//!
//! Keeps true: a chain that does not hold ends with a failure, so that scripts can rely on it; an export that ran into one
//! says so too. Does not do: choosing entries; the node does.

use super::args::{AuditCommand, AuditFilter};
use super::client::Client;
use super::commands::segment;
use super::outcome::Failure;
use super::say;
use serde_json::Value;
use std::collections::BTreeSet;

/// Entries asked for at once.
const PAGE: usize = 1_000;
/// Entries that `list` shows at most: the newest.
const SHOWN_MAX: usize = 100;

pub(super) async fn audit(client: &Client, command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List(filter) => {
            let mut newest = std::collections::VecDeque::new();
            let verified = walk(client, &filter, |entry| {
                newest.push_back(entry);
                if newest.len() > SHOWN_MAX {
                    newest.pop_front();
                }
                Ok(())
            })
            .await?;
            table(newest.iter());
            proven(verified)
        }
        AuditCommand::Export { filter, format } => {
            let verified = match format.as_str() {
                "ndjson" => {
                    walk(client, &filter, |entry| {
                        say!("{entry}");
                        Ok(())
                    })
                    .await?
                }
                "csv" => export_csv(client, &filter).await?,
                other => return Err(Failure::Usage(format!("the format is ndjson or csv, not {other:?}"))),
            };
            proven(verified)
        }
        AuditCommand::Verify { tenant } => {
            let filter = AuditFilter { tenant, ..AuditFilter::default() };
            let mut entries = 0_u64;
            let verified = walk(client, &filter, |_| {
                entries += 1;
                Ok(())
            })
            .await?;
            say!("{} entries, the chain {}", entries, if verified { "holds" } else { "does not hold" });
            proven(verified)
        }
    }
}

fn proven(verified: bool) -> Result<(), Failure> {
    if verified { Ok(()) } else { Err(Failure::Unhealthy(1)) }
}

/// Hands every matching entry to `each`, oldest first; whether the chain over the whole log holds.
async fn walk(
    client: &Client,
    filter: &AuditFilter,
    mut each: impl FnMut(Value) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let (mut since, mut verified) = (0, true);
    loop {
        let page = client.get(&format!("{}&limit={PAGE}&since={since}", path(filter))).await?;
        verified &= page.get("verified").and_then(Value::as_bool).unwrap_or(false);
        let next = page.get("next").and_then(Value::as_i64).unwrap_or(since);
        for entry in page.get("items").and_then(Value::as_array).cloned().unwrap_or_default() {
            each(entry)?;
        }
        if next <= since || page.get("position").and_then(Value::as_i64).is_none_or(|end| next >= end) {
            return Ok(verified);
        }
        since = next;
    }
}

fn path(filter: &AuditFilter) -> String {
    let root = match filter.tenant.as_str() {
        "_node" => "/api/admin/audit".to_owned(),
        tenant => format!("/t/{}/api/audit", segment(tenant)),
    };
    let wanted = [
        ("kind", &filter.kind),
        ("actor", &filter.actor),
        ("collection", &filter.collection),
        ("record", &filter.record),
        ("ip", &filter.ip),
        ("request", &filter.request),
        ("from", &filter.from),
        ("until", &filter.until),
    ];
    let typed = wanted.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", segment(value.as_deref()?))));
    format!("{root}?format=json{}", typed.collect::<String>())
}

/// The members of an entry that fit a line, and how many changes it holds.
fn row(entry: &Value) -> [String; 6] {
    let text = |name: &str| match entry.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let ops = entry.get("ops").and_then(Value::as_array).map_or(0, Vec::len);
    [text("lsn"), text("time"), text("actor"), text("ip"), text("requestId"), ops.to_string()]
}

/// Kinds of changes that a line names; the rest are told by dots.
const KINDS_MAX: usize = 3;

/// What happened, in one line: `login password failed` of somebody's access, `update posts/abc` of records.
fn event(entry: &Value) -> String {
    let ops = || entry.get("ops").and_then(Value::as_array).into_iter().flatten();
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut said: Vec<String> = Vec::new();
    for op in ops().filter(|op| text(op, "collectionName") == "_authEvents") {
        let Some(record) = op.get("record") else { continue };
        let members = ["event", "method", "outcome", "account"].map(|name| text(record, name));
        said.push(members.into_iter().filter(|member| !member.is_empty()).collect::<Vec<_>>().join(" "));
    }
    if !said.is_empty() {
        return said.join(", ");
    }
    // Each field of a record that was changed is an operation of its own.
    let mut kinds: Vec<((String, String), BTreeSet<String>)> = Vec::new();
    for op in ops() {
        let kind = (text(op, "op"), text(op, "collectionName"));
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, ids)) => _ = ids.insert(text(op, "id")),
            None => kinds.push((kind, BTreeSet::from([text(op, "id")]))),
        }
    }
    let line = |((op, collection), ids): &((String, String), BTreeSet<String>)| match (ids.first(), ids.len()) {
        _ if collection.is_empty() => op.clone(),
        (Some(id), 1) => format!("{op} {collection}/{id}"),
        (_, len) => format!("{op} {len} {collection}"),
    };
    let dots = (kinds.len() > KINDS_MAX).then(|| "…".to_owned());
    kinds.iter().take(KINDS_MAX).map(line).chain(dots).collect::<Vec<_>>().join(", ")
}

fn table<'a>(entries: impl Iterator<Item = &'a Value>) {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_header(["POSITION", "TIME", "ACTOR", "IP", "REQUEST", "CHANGES", "EVENT"]);
    for entry in entries {
        table.add_row(row(entry).into_iter().chain([event(entry)]));
    }
    say!("{table}");
}

/// One line per change; what a spreadsheet would take for a formula is made text.
async fn export_csv(client: &Client, filter: &AuditFilter) -> Result<bool, Failure> {
    let mut out = csv::Writer::from_writer(say::Out);
    let refused = |error: csv::Error| Failure::Io(std::io::Error::other(error));
    let header =
        ["position", "time", "actor", "ip", "request", "op", "collection", "record", "field", "before", "value"];
    out.write_record(header).map_err(refused)?;
    let verified = walk(client, filter, |entry| {
        let [position, time, actor, ip, request, _] = row(&entry);
        for op in entry.get("ops").and_then(Value::as_array).into_iter().flatten() {
            let member = |name: &str| match op.get(name) {
                Some(Value::String(text)) => harmless(text),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            // A record that was made or brought back is the value; of one that was deleted it is what was there before.
            let value = ["value", "record", "delta"].map(member).into_iter().find(|text| !text.is_empty());
            let [op, collection, record, field, before] = ["op", "collectionName", "id", "field", "before"].map(member);
            let of_op = [op, collection, record, field, before, value.unwrap_or_default()];
            let of_entry = [&position, &time, &actor, &ip, &request].map(|text| harmless(text));
            out.write_record(of_entry.iter().chain(&of_op)).map_err(refused)?;
        }
        Ok(())
    })
    .await?;
    out.flush()?;
    Ok(verified)
}

fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_text() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(harmless(formula), format!("'{formula}"));
        }
        for plain in ["", "ada", "1+1", "a=1", "'=1"] {
            assert_eq!(harmless(plain), plain);
        }
    }
}
