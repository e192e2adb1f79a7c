//! A small HTTP server of the test's own: keeps what is posted to it, answers as it is told.

use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Posted {
    /// The request line and the headers.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Value,
}

/// How the sink answers one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// With this status.
    Status(u16),
    /// Never.
    Silence,
}

#[derive(Default)]
struct State {
    posted: Mutex<Vec<Posted>>,
    /// The manners of the next requests; afterwards 200.
    manners: Mutex<VecDeque<Manner>>,
}

/// The running server; ends when dropped.
pub(crate) struct Sink {
    state: Arc<State>,
    url: String,
    task: JoinHandle<()>,
}

impl Sink {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { state, url, task }
    }

    /// Its address, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How the next requests are answered.
    pub(crate) fn answer_next(&self, manners: impl IntoIterator<Item = Manner>) {
        self.state.manners.lock().unwrap().extend(manners);
    }

    /// Everything that was posted so far.
    pub(crate) fn posted(&self) -> Vec<Posted> {
        self.state.posted.lock().unwrap().clone()
    }

    /// Waits until what was posted satisfies `enough`.
    pub(crate) async fn until(&self, what: &str, enough: impl Fn(&[Posted]) -> bool) -> Vec<Posted> {
        for _ in 0..1_200 {
            let posted = self.posted();
            if enough(&posted) {
                return posted;
            }
            crate::support::pause(Duration::from_millis(25)).await;
        }
        panic!("{what} was never posted: {:#?}", self.posted());
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut buffer = Vec::new();
    while let Some(posted) = read_one(&mut stream, &mut buffer).await {
        state.posted.lock().unwrap().push(posted);
        let manner = state.manners.lock().unwrap().pop_front().unwrap_or(Manner::Status(200));
        match manner {
            Manner::Silence => std::future::pending().await,
            Manner::Status(status) => {
                let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn read_one(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Posted> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |text| text.trim().parse().unwrap());
            if buffer.len() >= end + 4 + length {
                let body = serde_json::from_slice(&buffer[end + 4..end + 4 + length]).unwrap_or_default();
                buffer.drain(..end + 4 + length);
                return Some(Posted { head, body });
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
