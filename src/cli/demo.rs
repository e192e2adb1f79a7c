//! `serve --demo`: a superuser with a one-time password, an empty tenant, a tenant with sample data.
//!
//! Keeps true: what is there already is left alone, so a second start makes nothing anew.
//! Does not do: generating data; the node does, from a seed, and reports its progress.

use super::client::Client;
use super::outcome::Failure;
use crate::kernel::random::SystemRandom;
use crate::secrets::opaque;
use reqwest::Method;
use serde_json::{Value, json};

/// The superuser of the demo.
const EMAIL: &str = "admin@example.com";
/// The tenant with sample data.
const SLUG: &str = "demo-org";

/// Makes what is missing and prints how to go on.
pub(super) async fn prepare(client: &Client, url: &str) -> Result<(), Failure> {
    let known = client.get("/api/collections/_superusers/records?perPage=1&fields=id").await?;
    let first = known.pointer("/items/0").is_none();
    let password = opaque::generate_password(&SystemRandom::default());
    if first {
        let body = json!({ "email": EMAIL, "password": password.expose(), "passwordConfirm": password.expose() });
        client.send(Method::POST, "/api/collections/_superusers/records", &body).await?;
    }
    make_tenant(client).await?;
    if first {
        println!("\nSuperuser {EMAIL}, password {} (shown once)", password.expose());
    }
    println!("\nTry:");
    println!("  curl '{url}/t/{SLUG}/api/collections/tournaments/records?perPage=3&sort=-startDate'");
    println!("  curl '{url}/t/{SLUG}/api/collections/players/records?perPage=5&sort=-chips'");
    println!("  curl -X POST '{url}/api/collections/_superusers/auth-with-password' \\");
    println!("       -H 'content-type: application/json' \\");
    let shown = if first { password.expose() } else { "YOUR-PASSWORD" };
    println!("       -d '{{\"identity\":\"{EMAIL}\",\"password\":\"{shown}\"}}'");
    Ok(())
}

async fn make_tenant(client: &Client) -> Result<(), Failure> {
    match client.get(&format!("/api/tenants/{SLUG}")).await {
        Ok(_) => return Ok(()),
        Err(Failure::Refused { status: 404, .. }) => {}
        Err(error) => return Err(error),
    }
    let body = json!({ "slug": SLUG, "name": "Demo organisation", "blueprint": "tournament", "sample": true });
    let made: Value = client.send(Method::POST, "/api/tenants", &body).await?;
    debug_assert!(made.is_object());
    Ok(())
}
