//! `serve --demo`: shows the progress of the sample data and how to go on.
//!
//! Keeps true: a password is printed once, when it is made. Does not do: making anything; `app` does.

use super::outcome::Failure;
use crate::app::{DEMO_EMAIL, DEMO_TENANT, RunningNode};
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;

/// Makes what is missing, with so many players if it is said how many, and prints how to go on.
pub(super) async fn prepare(node: &RunningNode, players: Option<usize>) -> Result<(), Failure> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("sample data {wide_bar} {pos}/{len} records") {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let progress = move |done: usize, total: usize| {
        shown.set_length(total as u64);
        shown.set_position(done as u64);
    };
    let password = node.prepare_demo(players, Arc::new(progress)).await?;
    bar.finish_and_clear();
    let url = node.url();
    if let Some(password) = &password {
        say!("Superuser {DEMO_EMAIL}, password {} (shown this once)\n", password.expose());
    }
    let shown = password.as_ref().map_or("YOUR-PASSWORD", |password| password.expose());
    say!("Try:");
    say!("  curl '{url}/t/{DEMO_TENANT}/api/collections/tournaments/records?perPage=3&sort=-starts'");
    say!("  curl '{url}/t/{DEMO_TENANT}/api/collections/players/records?perPage=5&sort=-chips'");
    say!(
        "  curl '{url}/api/collections/_superusers/auth-with-password' -H 'content-type: application/json' \\\n       \
         -d '{{\"identity\":\"{DEMO_EMAIL}\",\"password\":\"{shown}\"}}'\n"
    );
    Ok(())
}
