//! What each command does: one or two requests and a few printed lines.
//!
//! Keeps true: results go to the standard output, everything else to the standard error stream.
//! Does not do: checking; the node checks.

use super::args::{Command, RecordsCommand, ServeArgs, SuperuserArgs, SuperuserCommand, TenantCommand};
use super::cache;
use super::client::{Client, accepted};
use super::demo;
use super::doctor;
use super::outcome::Failure;
use super::say;
use super::schema;
use super::{audit, usage, user};
use crate::app::{self, Parts, StartError};
use crate::config::{Config, LogFormat};
use crate::kernel::limits;
use crate::kernel::random::SystemRandom;
use crate::secrets::{Secret, opaque};
use crate::telemetry::{self, LogOptions};
use futures_util::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};

/// Everything but unreserved characters (RFC 3986) is escaped in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Items that one request for a list asks for; a node gives no more (`limits::PAGE_LEN_MAX`).
const PAGE_LEN: usize = limits::PAGE_LEN_MAX;

pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Runs one command.
pub(super) async fn run(command: Command, config: Config) -> Result<(), Failure> {
    if let Command::Serve(args) = command {
        return serve(args, config).await;
    }
    let _log = telemetry::install(&LogOptions { filter: "warn".to_owned(), json: false })?;
    if matches!(command, Command::Doctor) {
        return doctor::doctor(config).await;
    }
    let folder = config.data.dir.clone();
    let is_new = match app::require_folder(&folder) {
        Ok(()) => false,
        Err(_) if makes_a_folder(&command) => true,
        Err(missing) => return Err(StartError::from(missing).into()),
    };
    let client = Client::connect(config).await?;
    if is_new {
        // So that a mistyped name is seen.
        eprintln!("made a new data folder: {}", folder.display());
    }
    let result = match command {
        Command::Tenant(command) => tenant(&client, command).await,
        Command::Superuser(SuperuserCommand::Create(args)) => create_superuser(&client, args).await,
        Command::Superuser(SuperuserCommand::Reset(args)) => reset_superuser(&client, args).await,
        Command::Superuser(SuperuserCommand::ResetMfa { email }) => reset_mfa(&client, &email).await,
        Command::User(command) => user::user(&client, command).await,
        Command::Collection(command) => schema::collection(&client, command).await,
        Command::Blueprint(command) => schema::blueprint(&client, command).await,
        Command::Rules(command) => schema::rules(&client, command).await,
        Command::Records(command) => records(&client, command).await,
        Command::Cache(command) => cache::cache(&client, command).await,
        Command::Usage { tenant, watch } => usage::usage(&client, tenant.as_deref(), watch).await,
        Command::Audit(command) => audit::audit(&client, command).await,
        Command::Doctor | Command::Serve(_) | Command::Config(_) | Command::Completions { .. } => Ok(()),
    };
    client.close().await?;
    result
}

/// Whether a command makes sense before there is a node: it begins one, or shows and tries what is shipped. The others would
/// look into an empty folder that they had made.
fn makes_a_folder(command: &Command) -> bool {
    matches!(
        command,
        Command::Superuser(SuperuserCommand::Create(_))
            | Command::Tenant(TenantCommand::Create { .. } | TenantCommand::Import { .. })
            | Command::Blueprint(_)
            | Command::Rules(_)
    )
}

async fn serve(args: ServeArgs, config: Config) -> Result<(), Failure> {
    let json = config.log.format == LogFormat::Json;
    let _log = telemetry::install(&LogOptions { filter: config.log.filter.clone(), json })?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let node = app::start(config, Parts::default()).await?;
    if args.demo {
        // A signal ends the filling; what it left half done is removed by the next start, which fills it anew.
        tokio::select! {
            prepared = demo::prepare(&node, args.demo_players) => prepared?,
            _ = terminate.recv() => return stop(node, "SIGTERM").await,
            _ = interrupt.recv() => return stop(node, "SIGINT").await,
        }
    }
    eprintln!("Tenantry answers at {}. Stop it with Ctrl-C.", node.url());
    loop {
        tokio::select! {
            _ = terminate.recv() => return stop(node, "SIGTERM").await,
            _ = interrupt.recv() => return stop(node, "SIGINT").await,
            _ = hangup.recv() => node.reload_certificates(),
        }
    }
}

async fn stop(node: app::RunningNode, signal: &str) -> Result<(), Failure> {
    tracing::info!("stopping on {signal}");
    Ok(node.stop().await?)
}

async fn tenant(client: &Client, command: TenantCommand) -> Result<(), Failure> {
    let path = |tenant: &str| format!("/api/tenants/{}", segment(tenant));
    let limits = usage::named_limits(&command);
    let shown = match command {
        TenantCommand::Create { slug, name, blueprint } => {
            let name = name.unwrap_or_else(|| slug.clone());
            let mut body = json!({ "slug": slug, "name": name });
            if let Some(blueprint) = blueprint {
                body["blueprint"] = json!(blueprint);
            }
            client.send(Method::POST, "/api/tenants", &body).await?
        }
        TenantCommand::List => return list_tenants(client).await,
        TenantCommand::Show { tenant } => client.get(&path(&tenant)).await?,
        TenantCommand::Rename { tenant, slug, name } => {
            let mut body = json!({});
            slug.into_iter().for_each(|slug| body["slug"] = json!(slug));
            name.into_iter().for_each(|name| body["name"] = json!(name));
            client.send(Method::PATCH, &path(&tenant), &body).await?
        }
        TenantCommand::Suspend { tenant } => {
            client.send_empty(Method::POST, &format!("{}/suspend", path(&tenant))).await?
        }
        TenantCommand::Resume { tenant } => {
            client.send_empty(Method::POST, &format!("{}/resume", path(&tenant))).await?
        }
        TenantCommand::Clone { tenant, slug, name } => {
            let name = name.unwrap_or_else(|| slug.clone());
            let body = json!({ "slug": slug, "name": name });
            client.send(Method::POST, &format!("{}/clone", path(&tenant)), &body).await?
        }
        TenantCommand::Export { tenant, out } => return export_tenant(client, &path(&tenant), &out).await,
        TenantCommand::Import { slug, name, from } => {
            let name = name.unwrap_or_else(|| slug.clone());
            let query = format!("/api/tenants/import?slug={}&name={}", segment(&slug), segment(&name));
            let body = stream_file(&from).await?;
            let request = client.request(Method::POST, &query).header("content-type", "application/octet-stream");
            accepted(request.body(body).send().await?).await?.json().await?
        }
        TenantCommand::Limit { tenant, reset, .. } if reset.is_empty() && limits.is_empty() => {
            return usage::limits(client, &tenant).await;
        }
        TenantCommand::Limit { tenant, reset, .. } => {
            let cleared = reset.into_iter().map(|name| (name, Value::Null));
            let limits: serde_json::Map<String, Value> = limits.into_iter().chain(cleared).collect();
            client.send(Method::PATCH, &path(&tenant), &json!({ "limits": limits })).await?
        }
        TenantCommand::Delete { tenant, yes: _ } => {
            client.send_empty(Method::DELETE, &path(&tenant)).await?;
            say!("deleted {tenant}");
            return Ok(());
        }
    };
    say!("{}", serde_json::to_string_pretty(&shown).unwrap_or_default());
    Ok(())
}

async fn stream_file(path: &Path) -> Result<reqwest::Body, Failure> {
    stream_file_under(path, ProgressBar::hidden()).await
}

/// The file, while `bar` shows how much of it is sent.
async fn stream_file_under(path: &Path, bar: ProgressBar) -> Result<reqwest::Body, Failure> {
    let file = tokio::fs::File::open(path).await.map_err(|error| about_file(path, &error))?;
    let pieces = futures_util::stream::try_unfold(file, next_chunk);
    Ok(reqwest::Body::wrap_stream(pieces.inspect_ok(move |piece| bar.inc(piece.len() as u64))))
}

/// A failure that says which file it is about.
pub(super) fn about_file(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Io(std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// A bar over `len` bytes; it shows on a terminal only.
fn sending(len: u64) -> ProgressBar {
    let bar = ProgressBar::new(len);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar
}

async fn next_chunk(mut file: tokio::fs::File) -> std::io::Result<Option<(bytes::Bytes, tokio::fs::File)>> {
    let mut buffer = bytes::BytesMut::with_capacity(256 * 1024);
    let read = tokio::io::AsyncReadExt::read_buf(&mut file, &mut buffer).await?;
    Ok((read > 0).then(|| (buffer.freeze(), file)))
}

/// Every tenant of the node.
pub(super) async fn all_tenants(client: &Client) -> Result<Vec<Value>, Failure> {
    let page = async |page: usize| client.get(&format!("/api/tenants?perPage={PAGE_LEN}&page={page}")).await;
    collect_pages(page).await
}

async fn list_tenants(client: &Client) -> Result<(), Failure> {
    let items = all_tenants(client).await?;
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["SLUG", "ID", "STATE", "NAME"]);
    for item in &items {
        let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        table.add_row([text("slug"), text("id"), text("state"), text("name")]);
    }
    say!("{table}");
    Ok(())
}

/// The items of every page, from the first to one that is not full.
async fn collect_pages(mut page: impl AsyncFnMut(usize) -> Result<Value, Failure>) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    for number in 1.. {
        let list = page(number).await?;
        let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_last = items.len() < PAGE_LEN;
        all.extend(items);
        if is_last {
            break;
        }
    }
    Ok(all)
}

async fn export_tenant(client: &Client, path: &str, out: &Path) -> Result<(), Failure> {
    let response = accepted(client.request(Method::GET, &format!("{path}/export")).send().await?).await?;
    if out == Path::new("-") {
        return print_whole(response).await;
    }
    let opened = tokio::fs::OpenOptions::new().write(true).create_new(true).open(out).await;
    let file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Usage(format!("{} exists; choose another name, nothing is overwritten", out.display()))
        }
        _ => about_file(out, &error),
    })?;
    let written = write_whole(file, response).await;
    if written.is_err() {
        // Half an export looks like one.
        let _ = tokio::fs::remove_file(out).await;
    }
    written.map_err(|failure| match failure {
        Failure::Io(error) => about_file(out, &error),
        failure => failure,
    })?;
    say!("wrote {}", out.display());
    Ok(())
}

/// To the standard output, which has to be a pipe or a file; a reader that goes away has read enough.
async fn print_whole(response: reqwest::Response) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if std::io::IsTerminal::is_terminal(&out) {
        return Err(Failure::Usage("a tenant is no text; send it to a file: --out FILE".to_owned()));
    }
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        if !say::wrote(out.write_all(&piece?).and_then(|()| out.flush()))? {
            break;
        }
    }
    Ok(())
}

async fn write_whole(mut file: tokio::fs::File, response: reqwest::Response) -> Result<(), Failure> {
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        file.write_all(&chunk?).await?;
    }
    Ok(file.sync_all().await?)
}

/// The password of the first line of the standard input, or a new one that is printed once.
fn password_of(args: &SuperuserArgs) -> Result<Secret, Failure> {
    if !args.password_stdin {
        let password = opaque::generate_password(&SystemRandom::default());
        say!("password: {}", password.expose());
        return Ok(password);
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::Usage("the standard input holds no password".to_owned())),
        password => Ok(Secret::new(password)),
    }
}

async fn create_superuser(client: &Client, args: SuperuserArgs) -> Result<(), Failure> {
    let password = password_of(&args)?;
    let body = json!({ "email": args.email, "password": password.expose(), "passwordConfirm": password.expose() });
    let made = client.send(Method::POST, "/api/collections/_superusers/records", &body).await;
    made.map_err(|failure| match failure {
        Failure::Refused { status, code, message, errors, request } if is_taken(&errors) => {
            let message = format!(
                "{message} {} is a superuser already: `tenantry superuser reset` sets another password.",
                args.email
            );
            Failure::Refused { status, code, message, errors, request }
        }
        failure => failure,
    })?;
    say!("created superuser {}", args.email);
    Ok(())
}

/// Whether a refusal says that the address has an account.
fn is_taken(errors: &[Value]) -> bool {
    errors.iter().any(|error| error["field"] == "email" && error["code"] == "validation_not_unique")
}

async fn reset_superuser(client: &Client, args: SuperuserArgs) -> Result<(), Failure> {
    let id = find_superuser(client, &args.email).await?;
    let password = password_of(&args)?;
    let body = json!({ "password": password.expose(), "passwordConfirm": password.expose() });
    client.send(Method::PATCH, &format!("/api/collections/_superusers/records/{}", segment(&id)), &body).await?;
    say!("changed the password of {}", args.email);
    Ok(())
}

async fn reset_mfa(client: &Client, email: &str) -> Result<(), Failure> {
    let id = find_superuser(client, email).await?;
    let path = format!("/api/collections/_superusers/second-factors/{}", segment(&id));
    client.send_empty(Method::DELETE, &path).await?;
    say!("{email} has no second factor any more and logs in by password");
    Ok(())
}

/// The record id of the superuser with this address.
async fn find_superuser(client: &Client, email: &str) -> Result<String, Failure> {
    let quoted = email.replace('\\', "\\\\").replace('\'', "\\'");
    let filter = segment(&format!("email = '{quoted}'"));
    let found = client.get(&format!("/api/collections/_superusers/records?filter={filter}")).await?;
    let id = found.pointer("/items/0/id").and_then(Value::as_str).map(str::to_owned);
    id.ok_or_else(|| Failure::NotFound(format!("there is no superuser {email}")))
}

async fn records(client: &Client, command: RecordsCommand) -> Result<(), Failure> {
    match command {
        RecordsCommand::Export { collection, tenant, format, filter } => {
            let filter = filter.map(|filter| format!("&filter={}", segment(&filter))).unwrap_or_default();
            let path = format!("{}/export?format={}{filter}", records_path(&tenant, &collection), segment(&format));
            let mut pieces = accepted(client.request(Method::GET, &path).send().await?).await?.bytes_stream();
            let mut out = std::io::stdout().lock();
            while let Some(piece) = pieces.next().await {
                if !say::wrote(out.write_all(&piece?).and_then(|()| out.flush()))? {
                    break;
                }
            }
            Ok(())
        }
        RecordsCommand::Import { collection, from, tenant, format, dry_run, skip_lines, key, ignore_unknown } => {
            let is_csv = from.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
            let format = format.unwrap_or_else(|| if is_csv { "csv" } else { "ndjson" }.to_owned());
            let path = format!(
                "{}/import?format={}&dryRun={dry_run}&skipLines={skip_lines}&unknown={}",
                records_path(&tenant, &collection),
                segment(&format),
                if ignore_unknown { "ignore" } else { "refuse" }
            );
            let about = tokio::fs::metadata(&from).await.map_err(|error| about_file(&from, &error))?;
            let bar = sending(about.len());
            let request = client.request(Method::POST, &path).body(stream_file_under(&from, bar.clone()).await?);
            let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
            let answer = accepted(request.send().await?).await;
            bar.finish_and_clear();
            let report: Value = answer?.json().await?;
            say!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
            match report.get("refused").and_then(Value::as_u64) {
                Some(0) | None => Ok(()),
                Some(refused) => Err(Failure::Incomplete(refused)),
            }
        }
    }
}

fn records_path(tenant: &str, collection: &str) -> String {
    format!("/t/{}/api/collections/{}", segment(tenant), segment(collection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_longer_than_a_page_is_read_to_its_end() {
        for all in [0, 1, PAGE_LEN - 1, PAGE_LEN, PAGE_LEN + 1, 3 * PAGE_LEN] {
            let page = async |number: usize| {
                let from = (number - 1) * PAGE_LEN;
                let items: Vec<usize> = (from..all).take(PAGE_LEN).collect();
                Ok(json!({ "items": items }))
            };
            let found = collect_pages(page).await.unwrap();
            assert_eq!(found, (0..all).map(|item| json!(item)).collect::<Vec<_>>());
        }
    }
}
