//! A bare socket, for what a proper client would never send.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One TCP connection.
pub(crate) struct RawConnection(TcpStream);

/// Bytes that do not fit between a node that writes and a client that does not read.
pub(crate) fn more_than_is_buffered() -> usize {
    let limits = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap_or_default();
    let buffer = limits.split_whitespace().last().and_then(|most| most.parse().ok()).unwrap_or(4 << 20);
    buffer.clamp(4 << 20, 64 << 20) * 3 / 2
}

/// Whether an answer's head is there.
pub(crate) fn has_head(all: &[u8]) -> bool {
    all.windows(4).any(|four| four == b"\r\n\r\n")
}

impl RawConnection {
    pub(crate) async fn open(url: &str) -> Self {
        Self(TcpStream::connect(url.trim_start_matches("http://")).await.unwrap())
    }

    /// With so small a window that the node cannot send ahead of what is read.
    pub(crate) async fn open_narrow(url: &str) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        Self(socket.connect(url.trim_start_matches("http://").parse().unwrap()).await.unwrap())
    }

    /// Sends a request and reads its answer, which has a length; the connection stays open.
    pub(crate) async fn exchange(&mut self, request: &str) -> String {
        self.send(request.as_bytes()).await;
        let mut all = self.read_until(has_head).await;
        let head = all.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
        let wanted = head.len() + 4 + length.unwrap_or(0);
        while all.len() < wanted {
            all.push_str(&self.read_until(|_| true).await);
        }
        all
    }

    /// Everything until the node closes, or until `enough`.
    pub(crate) async fn read_until(&mut self, enough: impl Fn(&[u8]) -> bool) -> String {
        let mut all = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = tokio::time::timeout(Duration::from_secs(60), self.0.read(&mut buffer)).await;
            match read.expect("the node says something, or closes") {
                Ok(0) | Err(_) => return String::from_utf8_lossy(&all).into_owned(),
                Ok(read) => all.extend_from_slice(&buffer[..read]),
            }
            if enough(&all) {
                return String::from_utf8_lossy(&all).into_owned();
            }
        }
    }

    /// What arrived by now, at most `len` bytes; `None` once the connection ended.
    pub(crate) async fn read_some(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut buffer = vec![0; len];
        let read = self.0.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        buffer.truncate(read);
        Some(buffer)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The node may close first; what it said before is what counts.
        let _ = self.0.write_all(bytes).await;
    }

    /// Everything until the node closes, or until `wait` has passed without anything new.
    pub(crate) async fn read_all(&mut self, wait: Duration) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(Ok(read)) = tokio::time::timeout(wait, self.0.read(&mut buffer)).await {
            if read == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}
