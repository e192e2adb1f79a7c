//! `doctor`: asks the node that serves the folder, or looks at the files itself.
//!
//! Keeps true: looking changes nothing: a folder that nobody serves is not served for it. Does not do: the looking.

use super::client::Client;
use super::outcome::Failure;
use crate::app::{self, Examined, FolderError, StartError};
use crate::config::Config;
use serde_json::Value;

/// Prints what was looked at; fails if anything is wrong.
pub(super) async fn doctor(config: Config) -> Result<(), Failure> {
    match app::examine(&config) {
        Ok(examined) => report(&examined),
        Err(StartError::Folder(FolderError::InUse { .. })) => ask(config).await,
        Err(error) => Err(error.into()),
    }
}

async fn ask(config: Config) -> Result<(), Failure> {
    let client = Client::connect(config).await?;
    let answer = client.get("/api/admin/doctor").await;
    client.close().await?;
    let answer = answer?;
    let checks = answer.get("checks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |check: &Value, key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let examined: Vec<Examined> = checks
        .iter()
        .map(|check| Examined {
            what: text(check, "what"),
            problem: Some(text(check, "result")).filter(|result| result != "ok"),
        })
        .collect();
    report(&examined)
}

fn report(examined: &[Examined]) -> Result<(), Failure> {
    for Examined { what, problem } in examined {
        match problem {
            None => say!("ok   {what}: ok"),
            Some(problem) => say!("FAIL {what}: {problem}"),
        }
    }
    match examined.iter().filter(|examined| examined.problem.is_some()).count() {
        0 => Ok(()),
        problems => Err(Failure::Unhealthy(problems)),
    }
}
