//! Who speaks: an address prefix, an authorization, headers.

use super::Answer;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// One speaker; cheap to clone and to vary.
#[derive(Clone)]
pub(crate) struct Actor {
    http: reqwest::Client,
    base: String,
    headers: Vec<(String, String)>,
}

impl Actor {
    pub(crate) fn new(http: reqwest::Client, base: String) -> Self {
        Self { http, base, headers: Vec::new() }
    }

    /// The same, with an `Authorization` header.
    pub(crate) fn with_authorization(self, value: impl Into<String>) -> Self {
        self.with_header("authorization", value)
    }

    /// What it sends as `Authorization`.
    pub(crate) fn authorization(&self) -> String {
        let sent = self.headers.iter().find(|(name, _)| name == "authorization");
        sent.map(|(_, value)| value.clone()).expect("an authorization")
    }

    /// The same, but a stranger.
    pub(crate) fn without_authorization(mut self) -> Self {
        self.headers.retain(|(known, _)| known != "authorization");
        self
    }

    /// The same, with one more header; an earlier one of that name is replaced.
    pub(crate) fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same, speaking to `/t/{tenant}`.
    pub(crate) fn at(mut self, tenant: &str) -> Self {
        let root = self.base.split("/t/").next().unwrap_or_default().to_owned();
        self.base = format!("{root}/t/{tenant}");
        self
    }

    /// Begins a request.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PATCH, path).json(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PUT, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    /// Sends bytes as they are, labelled as JSON.
    pub(crate) async fn send_raw(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        Answer::of(self.request(method, path).header("content-type", "application/json").body(body)).await
    }
}
