//! Rows in bulk over HTTP: a hundred thousand in and out again, as NDJSON and CSV.
//!
//! Keeps true: what came in and went out is counted before a time is believed. Does not do: rates of small writes.

use super::site::Site;
use anyhow::{Context, ensure};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use tenantry::kernel::clock;

const API: &str = "/t/demo-org/api/collections";

/// The collection that the rows go to, and how many there are.
pub(crate) struct Bulk<'a> {
    site: &'a Site,
    rows: usize,
}

/// How rows are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One JSON object per line.
    Ndjson,
    /// A line of names, then a line per row.
    Csv,
}

impl Form {
    /// Its name in an address.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }
}

impl<'a> Bulk<'a> {
    /// Makes the collection `bulk` with a unique index beside the id.
    pub(crate) fn new(site: &'a Site, rows: usize) -> anyhow::Result<Self> {
        let body = serde_json::json!({ "name": "bulk", "type": "base", "fields": [
            { "name": "title", "type": "text", "required": true },
            { "name": "score", "type": "number" },
            { "name": "tags", "type": "select", "values": ["red", "blue"], "maxSelect": 2 },
            { "name": "body", "type": "text" },
            { "name": "created", "type": "autodate", "onCreate": true },
        ], "indexes": ["CREATE UNIQUE INDEX bulk_title ON bulk (title)"] });
        let bulk = Self { site, rows };
        bulk.send("POST", API, body.to_string().as_bytes())?;
        Ok(bulk)
    }

    /// The rows as a text.
    pub(crate) fn text(&self, form: Form) -> String {
        let mut text = String::new();
        if form == Form::Csv {
            text.push_str("title,score,tags,body\n");
        }
        for row in 0..self.rows {
            let score = row % 1_000;
            text.push_str(&match form {
                Form::Ndjson => {
                    format!(
                        "{{\"title\":\"Title {row}\",\"score\":{score},\"tags\":[\"red\"],\"body\":\"some words\"}}\n"
                    )
                }
                Form::Csv => format!("Title {row},{score},\"[\"\"red\"\"]\",some words\n"),
            });
        }
        text
    }

    /// Imports `text`; `parameters` are further ones of the address.
    pub(crate) fn import(&self, form: Form, text: &str, parameters: &str) -> anyhow::Result<Duration> {
        let path = format!("{API}/bulk/import?format={}{parameters}", form.name());
        let (took, answer) = self.send("POST", &path, text.as_bytes())?;
        let wanted = format!("\"created\":{}", self.rows);
        ensure!(answer.contains(&wanted), "import: {}", answer.chars().take(600).collect::<String>());
        Ok(took)
    }

    /// Exports every row.
    pub(crate) fn export(&self, form: Form) -> anyhow::Result<Duration> {
        let (took, answer) = self.send("GET", &format!("{API}/bulk/export?format={}", form.name()), b"")?;
        let seen = answer.matches("Title ").count();
        ensure!(seen == self.rows, "export: {seen} rows");
        Ok(took)
    }

    /// Empties the collection.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        self.send("DELETE", &format!("{API}/bulk/truncate"), b"").map(|_| ())
    }

    /// One request on a connection of its own; how long it took until the last byte, and the answer with its head.
    fn send(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<(Duration, String)> {
        let headers = self.site.headers().iter().map(|line| format!("{line}\r\n")).collect::<String>();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let began = clock::instant();
        let mut stream = TcpStream::connect(self.site.server.addr)?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let took = began.elapsed();
        let answer = String::from_utf8(answer)?;
        let status = answer.get(9..12).context("no status line")?;
        ensure!(status.starts_with('2'), "{method} {path}: {}", answer.chars().take(600).collect::<String>());
        Ok((took, answer))
    }
}
