//! One case per route: how what belongs to tenant A is brought to tenant B, and what B has to say to it.
//!
//! Keeps true: the expected word is a problem's code, so that a request which is refused for being badly made does not
//! count. Does not do: sending.

mod data;
mod node;
mod people;

use super::loot::Loot;
use crate::support::Actor;
use reqwest::Method;
use serde_json::Value;

/// Expected where B answers with what is its own.
pub(super) const OWN: &str = "own";

/// Expected where B refuses with a page for people, which has no code.
pub(super) const NO_CODE: &str = "no code";

/// One request to B. An expectation is one code, [`OWN`] or [`NO_CODE`], or several with `|` between; empty: not tried.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    /// A string is sent as it is.
    pub(super) body: Option<Value>,
    pub(super) headers: Vec<(&'static str, String)>,
    /// With each of A's credentials.
    pub(super) thief: &'static str,
    /// By a user of B.
    pub(super) local: &'static str,
    /// Who that is, where it is another one than usual.
    pub(super) user: Option<Actor>,
    /// By whoever administers B.
    pub(super) admin: &'static str,
}

fn call(method: Method, path: impl Into<String>) -> Call {
    Call { method, path: path.into(), body: None, headers: Vec::new(), thief: "", local: "", user: None, admin: "" }
}

fn get(path: impl Into<String>) -> Call {
    call(Method::GET, path)
}

fn post(path: impl Into<String>, body: Value) -> Call {
    Call { body: Some(body), ..call(Method::POST, path) }
}

fn patch(path: impl Into<String>, body: Value) -> Call {
    Call { body: Some(body), ..call(Method::PATCH, path) }
}

fn put(path: impl Into<String>, body: Value) -> Call {
    Call { body: Some(body), ..call(Method::PUT, path) }
}

fn delete(path: impl Into<String>) -> Call {
    call(Method::DELETE, path)
}

impl Call {
    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With `user` of B in the place of the usual one.
    fn by(self, user: &Actor) -> Self {
        Self { user: Some(user.clone()), ..self }
    }

    /// What A's credentials, B's user and B's administrator hear.
    fn says(self, thief: &'static str, local: &'static str, admin: &'static str) -> Self {
        Self { thief, local, admin, ..self }
    }
}

/// A route and how it is tried.
pub(super) type Case = (&'static str, fn(&Loot, &Loot) -> Vec<Call>);

/// Every case.
pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    data::CASES.iter().chain(people::CASES).chain(node::CASES)
}

const NOTES: &str = "/api/collections/notes/records";
const USERS: &str = "/api/collections/users";

/// What a stranger hears where somebody has to be logged in.
const STRANGER: &str = "token_invalid";

fn note(loot: &Loot) -> String {
    format!("{NOTES}/{}", loot.note)
}

/// The records of a collection that only A has, by name and by id.
fn only(a: &Loot, rest: &str) -> [String; 2] {
    [format!("/api/collections/{}{rest}", a.only), format!("/api/collections/{}{rest}", a.only_id)]
}

/// A call for administrators of the node alone: B's people are nobody there.
fn node_only(call: Call) -> Vec<Call> {
    vec![call.says(STRANGER, "superuser_required|token_invalid", "")]
}
