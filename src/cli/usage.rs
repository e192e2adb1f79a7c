//! The commands about budgets: who uses how much, and what a tenant may.
//!
//! Keeps true: what is shown is what the node counted; nothing is worked out here. Does not do: counting.

use super::args::TenantCommand;
use super::client::Client;
use super::commands::segment;
use super::outcome::Failure;
use serde_json::{Value, json};
use std::time::Duration;

/// Time between two pictures of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Columns of the table: title, member of what is used, name of the limit.
const COLUMNS: [(&str, &str); 7] = [
    ("REQ/MIN", "requestsPerMinute"),
    ("REQ/DAY", "requestsPerDay"),
    ("WRITES/MIN", "writesPerMinute"),
    ("STEPS/MIN", "readStepsPerMinute"),
    ("BYTES", "storageBytes"),
    ("NOW", "concurrentRequests"),
    ("OPEN", "connections"),
];

#[expect(clippy::disallowed_methods, reason = "shown again after a span of time")]
pub(super) async fn usage(client: &Client, tenant: Option<&str>, watch: bool) -> Result<(), Failure> {
    let path = match tenant {
        Some(tenant) => format!("/api/admin/usage?tenant={}", segment(tenant)),
        None => "/api/admin/usage".to_owned(),
    };
    loop {
        let report = client.get(&path).await?;
        if watch {
            // Clears the screen and goes to its first line.
            say_as_is!("\x1b[2J\x1b[H");
        }
        table(&report);
        if !watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// What is used of what is allowed; `-` is no limit.
pub(super) async fn limits(client: &Client, tenant: &str) -> Result<(), Failure> {
    table(&client.get(&format!("/api/admin/usage?tenant={}", segment(tenant))).await?);
    Ok(())
}

fn table(report: &Value) {
    let mut table = comfy_table::Table::new();
    let header = ["TENANT"].into_iter().chain(COLUMNS.map(|(title, _)| title)).chain(["REFUSED", "WRITES", "ROWS"]);
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    for row in report.get("items").and_then(Value::as_array).into_iter().flatten() {
        let number = |part: &str, name: &str| row.get(part).and_then(|part| part.get(name)).and_then(Value::as_u64);
        let used = |name: &str| number("used", name).unwrap_or(0).to_string();
        let cell = |name: &str| match number("limits", name).filter(|limit| *limit > 0) {
            Some(limit) => format!("{}/{limit}", used(name)),
            None => used(name),
        };
        let slug = row.get("slug").and_then(Value::as_str).unwrap_or_default().to_owned();
        let totals = ["refused", "writes", "rows"].map(used);
        table.add_row([slug].into_iter().chain(COLUMNS.map(|(_, name)| cell(name))).chain(totals));
    }
    say!("{table}");
}

/// The limits that were typed, by their names in the API.
pub(super) fn named_limits(command: &TenantCommand) -> Vec<(String, Value)> {
    let TenantCommand::Limit {
        requests_per_minute,
        requests_per_day,
        writes_per_minute,
        read_steps_per_minute,
        storage_bytes,
        concurrent_requests,
        connections,
        ..
    } = command
    else {
        return Vec::new();
    };
    let typed = [
        requests_per_minute,
        requests_per_day,
        writes_per_minute,
        read_steps_per_minute,
        storage_bytes,
        concurrent_requests,
        connections,
    ];
    let named = COLUMNS.iter().zip(typed);
    named.filter_map(|((_, name), value)| value.map(|value| ((*name).to_owned(), json!(value)))).collect()
}
