//! Logging in: does the answer's time tell whether an account exists, and do logins starve reads?
//!
//! Keeps true: both kinds of attempt alternate on one connection, so drift of the machine touches both alike.
//! Does not do: the shape of the answers; that is a test of the auth suite.

mod support;

use std::rc::Rc;
use support::args::Args;
use support::load::{self, Fill, Plan};
use support::report::{Report, count, time_us};
use support::rng::Rng;
use support::rounds::median;
use support::site::{Ask, Form, Site};
use tenantry::kernel::clock;

const USERS: &str = "/t/demo-org/api/collections/users";
/// Logs in while reads are measured.
const EMAIL: &str = "reader@example.com";
/// Wrong passwords tried per identity; past 20 the throttle answers without hashing.
const TRIES: usize = 8;
const PASSWORD: &str = "the password of a known account";
/// Connections that log in while reads are measured.
const LOGINS: usize = 8;

/// What is measured is the answer, not the refusal of one mail too many.
const NO_MAIL_LIMITS: [(&str, &str); 3] = [
    ("TENANTRY__LIMITS__MAILS_ASKED_MAX", "1000000"),
    ("TENANTRY__LIMITS__MAILS_ASKED_PER_IP_MAX", "1000000"),
    ("TENANTRY__LIMITS__MAILS_PER_RECIPIENT_MAX", "1000000"),
];

fn main() -> anyhow::Result<()> {
    let Some(args) = Args::read() else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let site = Site::start_tenantry_with(dir.path().join("node"), true, &NO_MAIL_LIMITS)?;
    let mut report = Report::new("auth", &["what", "figure", "detail"], &args);
    register(&site, EMAIL)?;
    measure_oracle(&args, &site, &mut report)?;
    measure_starvation(&args, &site, &mut report)?;
    report.finish()
}

fn register(site: &Site, email: &str) -> anyhow::Result<()> {
    let body = serde_json::json!({ "email": email, "password": PASSWORD, "passwordConfirm": PASSWORD }).to_string();
    let request = load::render("POST", &format!("{USERS}/records"), site.headers(), Some(&body));
    let answer = load::fetch(site.server.addr, &request)?;
    anyhow::ensure!(answer.status == 200, "register: {}", String::from_utf8_lossy(&answer.body));
    Ok(())
}

fn attempt(identity: &str, password: &str) -> Vec<u8> {
    let body = serde_json::json!({ "identity": identity, "password": password }).to_string();
    load::render("POST", &format!("{USERS}/auth-with-password"), &[], Some(&body))
}

/// Every request that a stranger can make about an address: one that has an account against one that has none.
fn measure_oracle(args: &Args, site: &Site, report: &mut Report) -> anyhow::Result<()> {
    let otp = serde_json::json!({ "otp": { "enabled": true } }).to_string();
    let enabled = load::fetch(site.server.addr, &load::render("PATCH", USERS, site.headers(), Some(&otp)))?;
    anyhow::ensure!(enabled.status == 200, "otp: {}", String::from_utf8_lossy(&enabled.body));
    // Below the 200 failures per address at which the throttle would answer instead.
    let pairs: usize = if args.quick { 6 } else { 44 };
    for at in 0..pairs.div_ceil(TRIES) {
        register(site, &email(true, at * TRIES))?;
    }
    let password = |known: bool, at: usize| Ok(attempt(&email(known, at), &format!("wrong password {at}")));
    measure_pairs(site, report, "a wrong password", pairs, password)?;
    let asking = |path: &'static str| {
        move |known: bool, at: usize| Ok(ask(path, &serde_json::json!({ "email": email(known, at) })))
    };
    measure_pairs(site, report, "asking for a one-time code", pairs, asking("request-otp"))?;
    measure_pairs(site, report, "asking for a password reset", pairs, asking("request-password-reset"))?;
    measure_pairs(site, report, "asking for a verification", pairs, asking("request-verification"))?;
    let guess = |known: bool, at: usize| {
        let asked = load::fetch(site.server.addr, &asking("request-otp")(known, at)?)?;
        let asked: serde_json::Value = serde_json::from_slice(&asked.body)?;
        Ok(ask("auth-with-otp", &serde_json::json!({ "otpId": asked["otpId"], "password": "00000000" })))
    };
    measure_pairs(site, report, "a wrong one-time code", pairs, guess)?;
    let registering = |known: bool, at: usize| {
        let (email, password) = (email(known, at), format!("{PASSWORD} {at}"));
        Ok(ask("records", &serde_json::json!({ "email": email, "password": password, "passwordConfirm": password })))
    };
    measure_pairs(site, report, "registering", pairs, registering)
}

/// An address: of the accounts that were registered, or of nobody.
fn email(known: bool, at: usize) -> String {
    format!("{}{}@example.com", if known { "known" } else { "maybe" }, at / TRIES)
}

fn ask(path: &str, body: &serde_json::Value) -> Vec<u8> {
    load::render("POST", &format!("{USERS}/{path}"), &[], Some(&body.to_string()))
}

/// Sends what `prepare` makes for known and unknown addresses by turns and compares the times of the answers.
fn measure_pairs(
    site: &Site,
    report: &mut Report,
    what: &str,
    pairs: usize,
    prepare: impl Fn(bool, usize) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<()> {
    let (mut known, mut unknown, mut refused) = (Vec::new(), Vec::new(), 0);
    for at in 0..pairs {
        let mut requests = [(prepare(true, at)?, &mut known), (prepare(false, at)?, &mut unknown)];
        if at % 2 == 1 {
            requests.reverse();
        }
        for (request, times) in requests {
            let began = clock::instant();
            let answer = load::fetch(site.server.addr, &request)?;
            match answer.status {
                429 => refused += 1,
                _ => times.push(began.elapsed().as_secs_f64() * 1e6),
            }
        }
    }
    anyhow::ensure!(refused == 0, "{refused} of {} attempts at {what} were throttled", 2 * pairs);
    let chance = chance_of_telling(&known, &unknown);
    let detail = format!(
        "median {} known, {} unknown, {pairs} of each; 0.50 is a coin",
        time_us(median(known)),
        time_us(median(unknown)),
    );
    report.row(vec![format!("chance to tell a known account by the time of {what}"), format!("{chance:.2}"), detail]);
    Ok(())
}

/// Probability that a random draw of the one is slower than one of the other (Mann and Whitney, 1947), from 0.5 up.
fn chance_of_telling(one: &[f64], other: &[f64]) -> f64 {
    let wins: usize = one.iter().map(|a| other.iter().filter(|b| *a > **b).count()).sum();
    let chance = wins as f64 / (one.len() * other.len()).max(1) as f64;
    chance.max(1.0 - chance)
}

/// Cached and uncached reads with and without logins beside them.
fn measure_starvation(args: &Args, site: &Site, report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan { connections: 8, warmup: args.warmup(), window: args.window(), seed: 11 };
    let reads = site.requests(Ask::Get, Form::Plain)?;
    let alone = load::drive(site.server.addr, &reads, plan)?;
    let addr = site.server.addr;
    let logins = std::thread::spawn(move || {
        let request = attempt(EMAIL, PASSWORD);
        let fill: Fill = Rc::new(move |_: &mut Rng, out: &mut Vec<u8>| {
            out.extend_from_slice(&request);
            200
        });
        load::drive(addr, &fill, Plan { connections: LOGINS, seed: 12, ..plan })
    });
    let beside = load::drive(site.server.addr, &reads, plan)?;
    let logins = logins.join().map_err(|_| anyhow::anyhow!("the login load panicked"))?;
    let logins =
        logins.map_or_else(|error| format!("logins failed: {error}"), |o| format!("{} logins/s", count(o.per_second)));
    for (name, outcome, detail) in
        [("alone", alone, String::new()), (&format!("beside {LOGINS} logins at a time"), beside, logins)]
    {
        let figure = format!("{} / {}", time_us(outcome.p50_us), time_us(outcome.p99_us));
        let detail = format!("{} reads/s {detail}", count(outcome.per_second));
        report.row(vec![format!("read by id, p50 / p99, {name}"), figure, detail]);
    }
    Ok(())
}
