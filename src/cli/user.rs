//! The commands about other people's access.
//!
//! Keeps true: an account is named by its address or its id, never by a pattern. Does not do: ending anything; the node does.

use super::args::{UserArgs, UserCommand};
use super::client::Client;
use super::commands::segment;
use super::outcome::Failure;
use reqwest::Method;
use serde_json::{Value, json};

pub(super) async fn user(client: &Client, command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Suspend { user, reason, until } => {
            let path = format!("{}/suspend", record(client, &user).await?);
            let body = json!({ "reason": reason, "until": until });
            client.send(Method::POST, &path, &body).await?;
            say!("suspended {}", user.account);
        }
        UserCommand::Resume { user } => {
            let path = format!("{}/suspend", record(client, &user).await?);
            client.send_empty(Method::DELETE, &path).await?;
            say!("resumed {}", user.account);
        }
        UserCommand::Sessions { user, end: Some(session), .. } => {
            let listed = client.get(&format!("{}/sessions", record(client, &user).await?)).await?;
            let mut own = listed.get("items").and_then(Value::as_array).into_iter().flatten();
            if !own.any(|own| own.get("id").and_then(Value::as_str) == Some(&*session)) {
                return Err(Failure::NotFound(format!("{} has no session {session}", user.account)));
            }
            let path = format!("{}/sessions/{}", accounts(&user), segment(&session));
            client.send_empty(Method::DELETE, &path).await?;
            say!("ended {session}");
        }
        UserCommand::Sessions { user, end_all: true, .. } => {
            let path = format!("{}/sessions", record(client, &user).await?);
            client.send_empty(Method::DELETE, &path).await?;
            say!("ended every session of {}", user.account);
        }
        UserCommand::Sessions { user, .. } => {
            let listed = client.get(&format!("{}/sessions", record(client, &user).await?)).await?;
            table(listed.get("items").and_then(Value::as_array).into_iter().flatten());
        }
    }
    Ok(())
}

fn accounts(user: &UserArgs) -> String {
    format!("/t/{}/api/collections/{}", segment(&user.tenant), segment(&user.collection))
}

/// The path of the account's record.
async fn record(client: &Client, user: &UserArgs) -> Result<String, Failure> {
    let records = format!("{}/records", accounts(user));
    if !user.account.contains('@') {
        return Ok(format!("{records}/{}", segment(&user.account)));
    }
    let quoted = user.account.replace('\\', "\\\\").replace('\'', "\\'");
    let found = client.get(&format!("{records}?filter={}", segment(&format!("email = '{quoted}'")))).await?;
    match found.pointer("/items/0/id").and_then(Value::as_str) {
        Some(id) => Ok(format!("{records}/{}", segment(id))),
        None => Err(Failure::NotFound(format!("{} has no account {}", user.collection, user.account))),
    }
}

fn table<'a>(sessions: impl Iterator<Item = &'a Value>) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "SESSION",
        "OPENED",
        "LAST USED",
        "EXPIRES",
        "IP",
        "CLIENT",
    ]);
    for session in sessions {
        let text = |key: &str| session.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        table.add_row(["id", "created", "lastUsed", "expires", "ip", "userAgent"].map(text));
    }
    say!("{table}");
}
