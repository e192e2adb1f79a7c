//! The commands about collections, blueprints and rules.
//!
//! Keeps true: a check that finds something ends with a failure, so that scripts can rely on it.
//! Does not do: checking; the node checks.

use super::args::{BlueprintCommand, CollectionCommand, RulesCommand};
use super::client::Client;
use super::commands::{about_file, segment};
use super::outcome::Failure;
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::path::Path;

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items").and_then(Value::as_array).into_iter().flatten()
}

fn text<'value>(value: &'value Value, key: &str) -> &'value str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn print(value: &Value) {
    say!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

async fn read_json(file: &Path) -> Result<Value, Failure> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| about_file(file, &error))?;
    serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("{} is not JSON: {error}", file.display())))
}

pub(super) async fn collection(client: &Client, command: CollectionCommand) -> Result<(), Failure> {
    match command {
        CollectionCommand::List { tenant } => {
            let list = client.get(&format!("/t/{}/api/collections?perPage=1000", segment(&tenant))).await?;
            for item in items(&list) {
                say!("{}\t{}\t{}", text(item, "name"), text(item, "type"), text(item, "id"));
            }
        }
        CollectionCommand::Export { tenant } => {
            let list = client.get(&format!("/t/{}/api/collections?perPage=1000", segment(&tenant))).await?;
            // The system's own are there in every tenant and refuse to be imported.
            print(&items(&list).filter(|item| item["system"] != json!(true)).cloned().collect());
        }
        CollectionCommand::Import { file, tenant, delete_missing } => {
            let collections = read_json(&file).await?;
            let body = json!({ "collections": collections, "deleteMissing": delete_missing });
            client.send(Method::PUT, &format!("/t/{}/api/collections/import", segment(&tenant)), &body).await?;
            say!("imported the collections of {}", file.display());
        }
    }
    Ok(())
}

pub(super) async fn blueprint(client: &Client, command: BlueprintCommand) -> Result<(), Failure> {
    match command {
        BlueprintCommand::List => {
            for item in items(&client.get("/api/blueprints").await?) {
                say!("{}\t{}\t{}", text(item, "name"), item["version"], text(item, "title"));
            }
        }
        BlueprintCommand::Show { name } => print(&client.get(&format!("/api/blueprints/{}", segment(&name))).await?),
        BlueprintCommand::Publish { file } => {
            print(&client.send(Method::POST, "/api/blueprints", &read_json(&file).await?).await?);
        }
        BlueprintCommand::Apply { name, tenant, dry_run } => {
            let body = json!({ "name": name, "dryRun": dry_run });
            print(&client.send(Method::POST, &format!("/api/tenants/{}/blueprint", segment(&tenant)), &body).await?);
        }
    }
    Ok(())
}

pub(super) async fn rules(client: &Client, command: RulesCommand) -> Result<(), Failure> {
    match command {
        RulesCommand::Explain { collection, record, action, tenant, caller, field, body: sent } => {
            let record = Some(record).filter(|record| record != "-");
            let mut body = json!({ "collection": collection, "record": record, "action": action, "field": field });
            if let Some(sent) = sent {
                let sent = serde_json::from_str::<Map<String, Value>>(&sent);
                body["body"] =
                    sent.map_err(|error| Failure::Usage(format!("--body wants a JSON object: {error}")))?.into();
            }
            if let Some(caller) = caller {
                let (of, id) = caller
                    .split_once('/')
                    .ok_or_else(|| Failure::Usage("--as wants COLLECTION/ID, such as users/abc".to_owned()))?;
                body["caller"] = json!({ "collection": of, "id": id });
            }
            print(&client.send(Method::POST, &format!("/t/{}/api/rules/explain", segment(&tenant)), &body).await?);
            Ok(())
        }
        RulesCommand::Test { blueprint, tenant } => {
            let under = tenant.map(|tenant| format!("?tenant={}", segment(&tenant))).unwrap_or_default();
            let path = format!("/api/blueprints/{}/test{under}", segment(&blueprint));
            let outcome = client.send_empty(Method::POST, &path).await?;
            for item in items(&outcome) {
                let kept = item["kept"] == json!(true);
                say!("{} {}", if kept { "ok  " } else { "FAIL" }, text(item, "name"));
                if !kept {
                    say!("     {}", text(item, "reason"));
                }
            }
            found(outcome["broken"].as_u64().unwrap_or(0))
        }
        RulesCommand::Lint { tenant } => {
            let list = client.get(&format!("/t/{}/api/rules/lint", segment(&tenant))).await?;
            for item in items(&list) {
                let (severity, of, rule) = (text(item, "severity"), text(item, "collection"), text(item, "rule"));
                say!("{severity}: {of}.{rule}: {}", text(item, "message"));
            }
            let serious = items(&list).filter(|item| item["severity"] != "notice").count();
            found(serious as u64)
        }
        RulesCommand::Strangers { tenant } => {
            print(&client.get(&format!("/t/{}/api/rules/strangers", segment(&tenant))).await?);
            Ok(())
        }
    }
}

fn found(problems: u64) -> Result<(), Failure> {
    match usize::try_from(problems) {
        Ok(0) => Ok(()),
        Ok(problems) => Err(Failure::Unhealthy(problems)),
        Err(_) => Err(Failure::Unhealthy(usize::MAX)),
    }
}
