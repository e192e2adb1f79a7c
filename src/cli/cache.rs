//! The commands about the response cache: what it holds, forgetting, recomputing, refilling.
//!
//! Keeps true: a verification that finds a difference ends with a failure, so that scripts can rely on it.
//! Does not do: caching; the node does. Without a running node, what is on disk is all there is.

use super::args::CacheCommand;
use super::client::Client;
use super::commands::{all_tenants, segment};
use super::outcome::Failure;
use reqwest::Method;
use serde_json::{Value, json};

/// Columns of the table of collections, with their members in the report.
const COLUMNS: [(&str, &str); 7] = [
    ("L1", "l1Hits"),
    ("L2", "l2Hits"),
    ("MISSES", "misses"),
    ("BYPASSES", "bypasses"),
    ("STALE", "stale"),
    ("ENTRIES", "entries"),
    ("BYTES", "bytes"),
];

pub(super) async fn cache(client: &Client, command: CacheCommand) -> Result<(), Failure> {
    match command {
        CacheCommand::Stats { tenant: None } => {
            let report = client.get("/api/admin/performance?type=cache").await?;
            table("TENANT", "slug", &report, "tenants");
        }
        CacheCommand::Stats { tenant: Some(tenant) } => {
            table("COLLECTION", "name", &client.get(&path(&tenant, "stats")).await?, "collections");
        }
        CacheCommand::Purge { tenant: None, all: true, .. } => return purge_every_tenant(client).await,
        CacheCommand::Purge { tenant, key, tag, event, collection, all: _ } => {
            let body = match (key, tag, event, collection) {
                (Some(key), ..) => json!({ "key": key }),
                (_, Some(tag), ..) => json!({ "tag": tag }),
                (_, _, Some(event), _) => json!({ "event": event }),
                (.., Some(collection)) => json!({ "collection": collection }),
                _ => json!({ "all": true }),
            };
            purge(client, tenant.as_deref().unwrap_or("main"), &body).await?;
        }
        CacheCommand::Warm { tenant } => {
            print(&client.send(Method::POST, &path(&tenant, "warm"), &json!({})).await?);
        }
        CacheCommand::Verify { tenant, sample } => {
            let report = client.send(Method::POST, &path(&tenant, "verify"), &json!({ "sample": sample })).await?;
            print(&report);
            let different = report.get("different").and_then(Value::as_array).map_or(0, Vec::len);
            if different > 0 {
                return Err(Failure::Unhealthy(different));
            }
        }
    }
    Ok(())
}

fn path(tenant: &str, what: &str) -> String {
    format!("/t/{}/api/admin/cache/{what}", segment(tenant))
}

async fn purge(client: &Client, tenant: &str, body: &Value) -> Result<(), Failure> {
    let done = client.send(Method::POST, &path(tenant, "purge"), body).await?;
    let number = |member: &str| done.get(member).and_then(Value::as_u64).unwrap_or(0);
    if done.get("enabled") == Some(&json!(false)) {
        say!("{tenant}: the cache is switched off");
        return Ok(());
    }
    let on_disk = match number("onDisk") {
        0 => String::new(),
        lying => format!("; what the purge names among its {lying} on disk is void too"),
    };
    say!("{tenant}: purged {} answers{on_disk}", number("purged"));
    Ok(())
}

/// A tenant that is not active serves nothing, but would again once it is resumed: it is named.
async fn purge_every_tenant(client: &Client) -> Result<(), Failure> {
    for tenant in all_tenants(client).await? {
        let text = |key: &str| tenant.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("state") {
            "active" => purge(client, text("slug"), &json!({ "all": true })).await?,
            state => say!("{}: passed over, it is {state}", text("slug")),
        }
    }
    Ok(())
}

fn table(title: &str, name: &str, report: &Value, rows: &str) {
    say_values(report.get("values").unwrap_or(&Value::Null));
    if report.get("enabled") == Some(&json!(false)) {
        say!("the cache is switched off");
        return;
    }
    let mut table = comfy_table::Table::new();
    let header = [title].into_iter().chain(COLUMNS.map(|(column, _)| column));
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    for row in report.get(rows).and_then(Value::as_array).into_iter().flatten() {
        let named = [name, "id"].iter().find_map(|member| row.get(*member)?.as_str()).unwrap_or("-");
        // A tenant's numbers are under `total`, a collection's beside its name.
        let counts = row.get("total").unwrap_or(row);
        let cells = COLUMNS.map(|(_, member)| counts.get(member).and_then(Value::as_u64).unwrap_or(0).to_string());
        table.add_row([named.to_owned()].into_iter().chain(cells));
    }
    say!("{table}");
    let total = report.get("total").unwrap_or(&Value::Null);
    say!("hit rate {:.3}", total.get("hitRate").and_then(Value::as_f64).unwrap_or(0.0));
}

/// What the applications' own cache holds, and may hold.
fn say_values(values: &Value) {
    let number = |member: &str| values.get(member).and_then(Value::as_u64);
    let of = |used: &str, most: &str| match number(most) {
        Some(most) => format!("{} of {most} {used}", number(used).unwrap_or(0)),
        None => format!("{} {used}", number(used).unwrap_or(0)),
    };
    let (keys, bytes, locks) = (of("keys", "keysMax"), of("bytes", "bytesMax"), of("locks", "locksMax"));
    say!("values of applications: {keys}, {bytes}, {locks}");
}

fn print(value: &Value) {
    say!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}
