//! A bare socket, for what a proper client would never send.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One TCP connection.
pub(crate) struct RawConnection(TcpStream);

impl RawConnection {
    pub(crate) async fn open(url: &str) -> Self {
        Self(TcpStream::connect(url.trim_start_matches("http://")).await.unwrap())
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
