//! What happens at the bounds: a queue that is full, an operation under way, a question that costs too much, a stop.
//!
//! Time plays no part: a gate at a failpoint holds the node where the bound shows, until the test lets it go.

use crate::support::{Answer, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::{Arc, Condvar, Mutex};
use tenantry::app::Parts;
use tenantry::store::{FaultPoint, Faults, Injected};
use tokio::task::JoinSet;

/// Holds everybody who comes to one point of the store while it is closed.
#[derive(Debug)]
struct Gate {
    point: FaultPoint,
    /// Whether it is closed, and how many wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn at(point: FaultPoint) -> Arc<Self> {
        Arc::new(Self { point, state: Mutex::new((false, 0)), changed: Condvar::new() })
    }

    fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    /// Waits until somebody stands before the closed gate.
    async fn reached(self: &Arc<Self>) {
        let gate = Arc::clone(self);
        let wait = move || drop(gate.changed.wait_while(gate.state.lock().unwrap(), |(_, waiting)| *waiting == 0));
        tokio::task::spawn_blocking(wait).await.unwrap();
    }
}

impl Faults for Gate {
    fn at(&self, point: FaultPoint) -> Option<Injected> {
        let mut state = self.state.lock().unwrap();
        if point == self.point && state.0 {
            state.1 += 1;
            self.changed.notify_all();
            drop(self.changed.wait_while(state, |(closed, _)| *closed));
        }
        None
    }
}

async fn gated(toml: &str, point: FaultPoint) -> (TestServer, Arc<Gate>) {
    let gate = Gate::at(point);
    let server = TestServer::start_parts(toml, Parts { faults: gate.clone(), ..Parts::default() }).await;
    (server, gate)
}

fn notes() -> Value {
    json!({ "name": "notes", "type": "base", "listRule": "", "viewRule": "", "createRule": "",
        "fields": [{ "name": "text", "type": "text" }] })
}

const NOTES: &str = "/api/collections/notes/records";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_forgets_nobody_whom_it_took() {
    let (server, gate) = gated("", FaultPoint::BeforeCommit).await;
    let admin = server.tenant("acme").await;
    admin.post("/api/collections", notes()).await.created();
    gate.set_closed(true);
    let mut writes = JoinSet::new();
    for number in 0..1_400 {
        let admin = admin.clone();
        writes.spawn(async move { admin.post(NOTES, json!({ "text": number.to_string() })).await });
    }
    // While nothing can be committed, only a refusal can be the first answer.
    let first = writes.join_next().await.unwrap().unwrap().has_status(503);
    assert!(first.header("retry-after").is_some());
    first.problem("queue_full");
    gate.set_closed(false);
    let mut kept = 0;
    while let Some(answer) = writes.join_next().await {
        match answer.unwrap() {
            answer if answer.status.as_u16() == 200 => kept += 1,
            refused => drop(refused.has_status(503).problem("queue_full")),
        }
    }
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_in_flight_are_one_write() {
    let (server, gate) = gated("", FaultPoint::BeforeCommit).await;
    let admin = server.tenant("acme").await;
    admin.post("/api/collections", notes()).await.created();
    let keyed = admin.clone().with_header("idempotency-key", "once");
    gate.set_closed(true);
    let mut twins = JoinSet::new();
    for _ in 0..8 {
        let keyed = keyed.clone();
        twins.spawn(async move { keyed.post(NOTES, json!({ "text": "mine" })).await });
    }
    // None of them can be durable before the others are on their way.
    gate.reached().await;
    gate.set_closed(false);
    let (mut records, mut replays) = (Vec::new(), 0);
    while let Some(answer) = twins.join_next().await {
        let answer = answer.unwrap();
        replays += usize::from(answer.header("idempotent-replayed").is_some());
        records.push(answer.created());
    }
    assert_eq!((records.len(), replays), (8, 7));
    assert!(records.iter().all(|record| *record == records[0]), "{records:?}");
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_administrative_operation_at_a_time() {
    let (server, gate) = gated("", FaultPoint::BeforeRename).await;
    server.tenant("acme").await;
    gate.set_closed(true);
    let node = server.node();
    let clone = tokio::spawn(async move { node.post("/api/tenants/acme/clone", json!({ "slug": "copy" })).await });
    gate.reached().await;
    server.node().get("/api/tenants/acme/export").await.has_status(409).problem("tenant_busy");
    gate.set_closed(false);
    clone.await.unwrap().created();
    server.node().get("/api/tenants/acme/export").await.has_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_under_way() {
    let (mut server, gate) = gated("[http]\ndrain_timeout_s = 60", FaultPoint::BeforeCommit).await;
    let admin = server.tenant("acme").await;
    admin.post("/api/collections", notes()).await.created();
    gate.set_closed(true);
    let write = tokio::spawn(async move { admin.post(NOTES, json!({ "text": "under way" })).await });
    gate.reached().await;
    let stopped = server.stop_in_background();
    gate.set_closed(false);
    write.await.unwrap().created();
    stopped.join().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expand_beyond_its_bound_is_refused_with_the_way_out() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let hubs = admin.post("/api/collections", json!({ "name": "hubs", "type": "base" })).await.created();
    let to = |name: &str| json!({ "name": name, "type": "relation", "collectionId": hubs["id"], "maxSelect": 1 });
    let fields = json!([to("a"), to("b"), to("c"), to("d")]);
    admin.post("/api/collections", json!({ "name": "spokes", "type": "base", "fields": fields })).await.created();
    let hub = admin.post("/api/collections/hubs/records", json!({})).await.created()["id"].clone();
    let row = json!({ "a": hub, "b": hub, "c": hub, "d": hub });
    let import = admin.request(Method::POST, "/api/collections/spokes/import");
    assert_eq!(Answer::of(import.body(format!("{row}\n").repeat(1_600))).await.ok()["created"], 1_600);
    let name = |at: usize| ["a", "b", "c", "d"][at % 4];
    let path = |at: usize| format!("spokes_via_{}.{}.spokes_via_{}", name(at / 16), name(at / 4), name(at));
    let paths: Vec<String> = (0..32).map(path).collect();
    admin.get("/api/collections/hubs/records?expand=spokes_via_a.a").await.ok();
    // Few records, but each of a thousand would embed the same thousand: hundreds of megabytes.
    let repeated = format!("/api/collections/hubs/records?expand={}", paths[0]);
    admin.get(&repeated).await.has_status(400).problem("query_too_expensive");
    let many = format!("/api/collections/hubs/records?expand={}", paths.join(","));
    let problem = admin.get(&many).await.has_status(400).problem("query_too_expensive");
    // Which bound is met first, records or steps, depends on the build; each says what to ask for instead.
    let said = problem["message"].as_str().unwrap();
    assert!(said.contains("expand less") || said.contains("narrow the filter"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_logins_than_can_wait_are_told_to_come_back() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let rules = json!({ "createRule": "@request.auth.id != ''", "updateRule": "id = @request.auth.id" });
    admin.patch("/api/collections/users", rules).await.ok();
    let guest = admin.without_authorization();
    let mut logins = JoinSet::new();
    for number in 0..150 {
        let guest = guest.clone();
        let login = json!({ "identity": format!("nobody{number}@example.com"), "password": "some password" });
        logins.spawn(async move { guest.post("/api/collections/users/auth-with-password", login).await });
    }
    loop {
        let answer = logins.join_next().await.expect("one of them is told to wait").unwrap();
        if answer.status.as_u16() == 503 {
            assert!(answer.header("retry-after").is_some());
            answer.problem("busy");
            break;
        }
    }
    // Whom a rule refuses waits for no hash, and costs the others none.
    let account =
        json!({ "email": "new@example.com", "password": "some password", "passwordConfirm": "some password" });
    const USERS: &str = "/api/collections/users/records";
    guest.post(USERS, account.clone()).await.problem("create_refused");
    guest.patch(&format!("{USERS}/{}", ada.id), account.clone()).await.problem("record_not_found");
    guest.post("/api/collections/_superusers/records", account).await.problem("superuser_required");
    // Those that still wait give up, and their turns with them.
    logins.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_holds_only_so_many_locks() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let lease = json!({ "leaseMs": 3_600_000 });
    for number in 0..20_000 {
        let answer = admin.post(&format!("/api/locks/n{number}"), lease.clone()).await;
        if answer.status.as_u16() != 200 {
            answer.has_status(429).problem("quota_exceeded");
            return;
        }
    }
    panic!("no bound on locks was met");
}
