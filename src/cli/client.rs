//! The client of the command line: finds the node that serves the folder, or serves it for the moment.
//!
//! Keeps true: a node started here listens on loopback only and is stopped cleanly before the command ends.
//! Does not do: knowing routes; `commands` does.

use super::outcome::Failure;
use crate::app::{self, FolderError, Parts, RunningNode, StartError};
use crate::config::{AcmeConfig, Config, TlsConfig};
use crate::kernel::random::SystemRandom;
use crate::secrets::Secret;
use crate::tls;
use reqwest::{ClientBuilder, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Tries to learn the address of a node that has the lock but has not announced itself yet.
const ADDRESS_TRIES: u32 = 40;
const ADDRESS_PAUSE: Duration = Duration::from_millis(50);

/// A way to the node.
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    key: Secret,
    /// The node this command started, if none was running.
    own: Option<RunningNode>,
}

impl Client {
    /// Finds the running node, or starts one.
    pub(super) async fn connect(mut config: Config) -> Result<Self, Failure> {
        let folder = config.data.dir.clone();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.http.workers = 1;
        config.tls = TlsConfig::default();
        config.acme = AcmeConfig::default();
        config.log.access = false;
        for _ in 0..ADDRESS_TRIES {
            match app::start(config.clone(), Parts::default()).await {
                Ok(node) => return Self::new(node.url(), &folder, Some(node)),
                Err(StartError::Folder(FolderError::InUse { url: Some(url), .. })) => {
                    return Self::new(url, &folder, None);
                }
                Err(StartError::Folder(FolderError::InUse { url: None, .. })) => {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "another process says nothing when it has written its address"
                    )]
                    tokio::time::sleep(ADDRESS_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StartError::Folder(FolderError::InUse { folder, url: None }).into())
    }

    /// A client of a node whose address is known.
    pub(super) fn new(url: String, folder: &Path, own: Option<RunningNode>) -> Result<Self, Failure> {
        let key = app::load_or_create_key(folder, &SystemRandom::default())?;
        tls::install_provider();
        let builder = reqwest::Client::builder().no_proxy();
        let (builder, url) = match url.strip_prefix("https://") {
            Some(address) => by_tls(builder, address, folder)?,
            None => (builder, url),
        };
        Ok(Self { http: builder.build()?, url, key, own })
    }

    /// Begins a request as the node's administrator.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        request.header("authorization", format!("Node {}", self.key.expose()))
    }

    /// `GET`, answered with JSON.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        read_json(self.request(Method::GET, path).send().await?).await
    }

    /// Sends `body` as JSON.
    pub(super) async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        read_json(self.request(method, path).json(body).send().await?).await
    }

    /// Sends nothing.
    pub(super) async fn send_empty(&self, method: Method, path: &str) -> Result<Value, Failure> {
        read_json(self.request(method, path).send().await?).await
    }

    /// Ends the node that this command started.
    pub(super) async fn close(self) -> Result<(), Failure> {
        // Kept-alive connections would make the node wait for them.
        drop(self.http);
        match self.own {
            Some(node) => Ok(node.stop().await?),
            None => Ok(()),
        }
    }
}

/// Trusts nobody but the node of this folder, whatever names its other certificates have.
fn by_tls(builder: ClientBuilder, address: &str, folder: &Path) -> Result<(ClientBuilder, String), Failure> {
    let address: SocketAddr =
        address.parse().map_err(|_| Failure::Unreachable(format!("{address:?} is no address")))?;
    let certificate = reqwest::Certificate::from_pem(&std::fs::read(folder.join(tls::LOCAL_CERTIFICATE))?)?;
    let builder = builder.tls_certs_only([certificate]).resolve(tls::LOCAL_NAME, address);
    Ok((builder, format!("https://{}:{}", tls::LOCAL_NAME, address.port())))
}

/// Turns a problem body into a failure.
pub(super) async fn accepted(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body: Value = response.json().await.unwrap_or_default();
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    // A failure of the node's own tells its cause to its log alone; a full disk or a busy node is told in the message.
    let own = status == StatusCode::INTERNAL_SERVER_ERROR;
    let request = Some(text("requestId")).filter(|id| own && !id.is_empty());
    // How far an import came: without it a second one would write the same rows again.
    let came = body.get("lastLine").and_then(Value::as_u64);
    let came = came.map(|line| match line {
        0 => " Nothing of it is done.".to_owned(),
        line => format!(" Lines up to {line} are done: go on with --skip-lines {line}."),
    });
    Err(Failure::Refused {
        status: status.as_u16(),
        code: text("code"),
        message: text("message") + &came.unwrap_or_default(),
        errors: body.get("errors").and_then(Value::as_array).cloned().unwrap_or_default(),
        request,
    })
}

async fn read_json(response: Response) -> Result<Value, Failure> {
    let bytes = accepted(response).await?.bytes().await?;
    Ok(serde_json::from_slice(&bytes).unwrap_or(json!(null)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_failure_of_the_node_is_told_with_the_id_of_the_request() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = tokio::spawn(async move {
            for status in ["500 Internal Server Error", "404 Not Found", "507 Insufficient Storage"] {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 1_024]).await.unwrap();
                let body = r#"{"code":"internal","message":"It failed.","requestId":"abc.1"}"#;
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                socket.write_all((head + body).as_bytes()).await.unwrap();
            }
        });
        tls::install_provider();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let said = async || accepted(http.get(&url).send().await.unwrap()).await.unwrap_err().to_string();
        assert!(said().await.contains("request id abc.1"));
        assert!(!said().await.contains("abc.1"), "what the caller did wrong is in the message");
        assert!(!said().await.contains("abc.1"), "the log says no more of a full disk than that request");
        answers.await.unwrap();
    }
}
