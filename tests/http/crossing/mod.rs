//! Every route of the table, tried with what belongs to one tenant at another: ids, tokens, keys, codes, cursors, tags.
//!
//! Keeps true: a route without a case fails the suite, and so does a case without a route or one that sends nothing. Nothing of tenant A, neither
//! what it holds nor what it is called, is in any answer of tenant B unless the request itself said it; and afterwards A's
//! log, records, values, locks and cached answers are what they were, and each token and code is still good at home.
//! Does not do: the tenants' own rules; those have suites of their own.

mod cases;
mod loot;

use crate::support::{Actor, Answer, TestServer};
use cases::{Call, NO_CODE, OWN};
use loot::{Loot, TOML, loot};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tenantry::http::routes::TABLE;
use tenantry::kernel::clock::ManualClock;

/// Sends one call as `actor`; what A owns and the request did not name must not come back.
async fn try_one(call: &Call, actor: &Actor, who: &str, expected: &str, of_a: &[String], failures: &mut Vec<String>) {
    let mut request = actor.request(call.method.clone(), &call.path);
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    let sent = format!("{} {} {:?} {:?}", call.path, who, call.headers, call.body).replace("\\\"", "\"");
    if let Some(body) = &call.body {
        request = match body {
            Value::String(raw) => request.header("content-type", "application/json").body(raw.clone()),
            body => request.json(body),
        };
    }
    let answer = Answer::of(request).await;
    let (status, code) = (answer.status.as_u16(), answer.json()["code"].as_str().unwrap_or_default().to_owned());
    let as_expected = expected.split('|').any(|one| match one {
        OWN => answer.status.is_success(),
        NO_CODE => !answer.status.is_success() && code.is_empty(),
        code_wanted => !answer.status.is_success() && code == code_wanted,
    });
    let what = format!("{} {} as {who}", call.method, call.path);
    if !as_expected {
        let body: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
        failures.push(format!("{what}: {status} where {expected} is expected: {body}"));
    }
    let shown = format!("{:?}\n{}", answer.headers, String::from_utf8_lossy(&answer.body));
    for mark in of_a.iter().filter(|mark| !sent.contains(mark.as_str())) {
        if shown.contains(mark.as_str()) {
            let at = shown.find(mark.as_str()).unwrap_or_default();
            let around: String = shown[..at].chars().rev().take(80).collect::<String>().chars().rev().collect();
            failures.push(format!("{what}: {status} shows {mark:?} of the other tenant after …{around}"));
        }
    }
}

/// What stands in a tenant: its whole log and trail, its records, its applications' values.
async fn state(side: &Loot) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        "/api/changes?since=0&limit=1000",
        "/api/audit?limit=1000",
        "/api/collections",
        "/api/collections/notes/records?sort=id",
        "/api/collections/users/records?sort=id",
        "/api/settings",
    ] {
        all.push(side.admin.get(path).await.ok());
    }
    for name in [&side.cache_key, &side.counter] {
        all.push(side.admin.get(&format!("/api/cache/{name}")).await.ok()["value"].clone());
    }
    all
}

/// The same without what a refused login leaves in the trail.
async fn records(side: &Loot) -> Vec<Value> {
    let mut all = Vec::new();
    for collection in ["notes", "users", side.only.as_str()] {
        all.push(side.admin.get(&format!("/api/collections/{collection}/records?sort=id")).await.ok()["items"].clone());
    }
    all.push(side.admin.get("/api/collections").await.ok());
    all
}

#[test]
fn every_route_has_a_case() {
    let routes: BTreeSet<String> =
        TABLE.iter().flat_map(|(path, methods)| methods.iter().map(move |method| format!("{method} {path}"))).collect();
    let cases: BTreeSet<String> = cases::all().map(|(route, _)| (*route).to_owned()).collect();
    let without: Vec<_> = routes.difference(&cases).collect();
    assert!(without.is_empty(), "routes that nobody tries across tenants: {without:#?}");
    let stale: Vec<_> = cases.difference(&routes).collect();
    assert!(stale.is_empty(), "cases of routes that do not exist: {stale:#?}");
    assert_eq!(cases.len(), cases::all().count(), "a route has one case");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_one_tenant_opens_or_shows_anything_at_another() {
    let clock = Arc::new(ManualClock::new(loot::NOON_MS));
    let server = TestServer::start_with(TOML, clock.clone()).await;
    let a = loot(&server, &clock, "tenant-a", "alphamark").await;
    let b = loot(&server, &clock, "tenant-b", "betamark").await;
    let (before, warm) = (state(&a).await, a.warm_list().await);
    assert_eq!(warm, "l1", "A's list is in memory before the replay");

    let of_a = a.marks();
    let mut failures = Vec::new();
    let mut sent: BTreeMap<&str, usize> = cases::all().map(|(route, _)| (*route, 0)).collect();
    let records_of_b = records(&b).await;
    let credentials = [
        ("token of A", &a.token),
        ("key of A", &a.key),
        ("file token of A", &a.file_token),
        ("refresh token of A", &a.refresh),
    ];
    for (route, calls) in cases::all() {
        for call in calls(&a, &b) {
            for (who, credential) in credentials.iter().filter(|_| !call.thief.is_empty()) {
                let thief = b.anon.clone().with_authorization(credential.as_str());
                try_one(&call, &thief, who, call.thief, &of_a, &mut failures).await;
                *sent.entry(*route).or_default() += 1;
            }
        }
    }
    assert_eq!(records(&b).await, records_of_b, "what A's credentials did at B");
    for (route, calls) in cases::all() {
        for call in calls(&a, &b) {
            let user = call.user.as_ref().unwrap_or(&b.user);
            for (who, actor, expected) in [("B's user", user, call.local), ("B's administrator", &b.admin, call.admin)]
            {
                if !expected.is_empty() {
                    try_one(&call, actor, who, expected, &of_a, &mut failures).await;
                    *sent.entry(*route).or_default() += 1;
                }
            }
        }
    }
    let untried: Vec<_> = sent.iter().filter(|(_, calls)| **calls == 0).collect();
    assert!(untried.is_empty(), "cases that send nothing: {untried:?}");
    let tried: usize = sent.values().sum();
    assert!(failures.is_empty(), "{} of {tried}:\n{}", failures.len(), failures.join("\n"));

    for (at, (then, now)) in before.iter().zip(state(&a).await).enumerate() {
        let end: String = now.to_string().chars().rev().take(500).collect::<String>().chars().rev().collect();
        assert!(*then == now, "state {at} of A is another, now it ends …{end}");
    }
    assert_eq!(a.warm_list().await, "l1", "A's answers are where they were");
    a.is_still_good_at_home().await;
}
