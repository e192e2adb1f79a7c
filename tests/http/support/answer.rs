//! An answer and what a test may claim about it.

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

/// Status, headers and the whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    what: String,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let (http, request) = request.build_split();
        let request = request.expect("a request");
        let what: String = format!("{} {}", request.method(), request.url()).chars().take(200).collect();
        let response = http.execute(request).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.unwrap_or_else(|error| panic!("{what}: {error:?}")).to_vec();
        Self { status, headers, body, what }
    }

    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// One header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What a cache has to tell requests apart by, over all lines.
    pub(crate) fn vary(&self) -> Vec<&str> {
        let lines = self.headers.get_all("vary").iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(str::trim).collect()
    }

    /// Whether caches are told, once, that the page that asks makes a difference.
    pub(crate) fn varies_by_origin(&self) -> bool {
        self.vary().iter().filter(|name| name.eq_ignore_ascii_case("Origin")).count() == 1
    }

    #[track_caller]
    pub(crate) fn has_status(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}: {}", self.what, String::from_utf8_lossy(&self.body));
        self
    }

    /// 200; the body.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        self.has_status(200).json()
    }

    /// 200, as PocketBase answers creations; the body, which has an id.
    #[track_caller]
    pub(crate) fn created(self) -> Value {
        let body = self.ok();
        assert!(body["id"].is_string(), "a created thing has an id: {body}");
        body
    }

    /// 204.
    #[track_caller]
    pub(crate) fn gone(self) {
        self.has_status(204);
    }

    /// A problem with this code, complete in form; the body.
    #[track_caller]
    pub(crate) fn problem(self, code: &str) -> Value {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}: {text}", self.what);
        let body = self.json();
        assert_eq!(body["code"], code, "{}: {text}", self.what);
        assert_eq!(body["status"], self.status.as_u16());
        assert!(body["type"].as_str().is_some_and(|text| text.ends_with(code)));
        assert!(body["data"].is_object() && body["errors"].is_array(), "{text}");
        assert_eq!(body["requestId"].as_str(), self.header("x-request-id"));
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{text}");
        body
    }
}
