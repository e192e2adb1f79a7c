//! TLS from certificate files: the right one by name, TLS 1.2 and 1.3, exchanged while running, the redirect beside it.

use crate::support::{RawConnection, TestServer, has_head};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client, StatusCode, tls};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tenantry::app::{self, Parts};
use tenantry::config::RawConfig;
use tenantry::kernel::clock::SystemClock;

/// An authority and the files it signed.
struct Papers {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Papers {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), authority }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Writes `{file}.crt` and `{file}.key`, good for `names` until the year `until`.
    fn sign(&self, file: &str, names: &[&str], until: i32) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        // Written aside and renamed, as a careful deployment does.
        for (ending, text) in [("crt", certificate.pem()), ("key", key.serialize_pem())] {
            std::fs::write(self.path("draft"), text).unwrap();
            std::fs::rename(self.path("draft"), self.path(&format!("{file}.{ending}"))).unwrap();
        }
    }

    fn toml(&self, files: &[&str]) -> String {
        let list = |ending: &str| {
            let paths = files.iter().map(|file| format!("'{}'", self.path(&format!("{file}.{ending}")).display()));
            paths.collect::<Vec<_>>().join(", ")
        };
        format!(
            "[tls]\ncertificate_files = [{}]\nkey_files = [{}]\nreload_s = 1\nredirect_listen = '127.0.0.1:0'",
            list("crt"),
            list("key")
        )
    }

    /// A client that trusts this authority alone, makes every connection anew and finds every `*.test` at `server`.
    fn client(&self, server: &TestServer) -> reqwest::ClientBuilder {
        let address = server.url().trim_start_matches("https://").parse().unwrap();
        let root = Certificate::from_pem(self.authority.as_ref().pem().as_bytes()).unwrap();
        let hosts = ["a.test", "b.test", "deep.wild.test", "other.test"];
        let builder = Client::builder().no_proxy().pool_max_idle_per_host(0).tls_certs_only([root]);
        hosts.iter().fold(builder, |builder, host| builder.resolve(host, address)).tls_info(true)
    }
}

fn url(server: &TestServer, host: &str) -> String {
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    format!("https://{host}:{port}/api/health")
}

/// The certificate that `host` shows to `client`.
async fn shown(client: &Client, server: &TestServer, host: &str) -> Result<Vec<u8>, reqwest::Error> {
    let response = client.get(url(server, host)).send().await?;
    assert_eq!(response.status(), StatusCode::OK);
    let info = response.extensions().get::<tls::TlsInfo>().unwrap();
    Ok(info.peer_certificate().unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let papers = Papers::new();
    papers.sign("first", &["a.test"], 2090);
    papers.sign("second", &["b.test", "*.wild.test"], 2090);
    let server = TestServer::start_with(&papers.toml(&["first", "second"]), Arc::new(SystemClock)).await;
    let client = papers.client(&server).build().unwrap();
    let (a, b) = (shown(&client, &server, "a.test").await.unwrap(), shown(&client, &server, "b.test").await.unwrap());
    assert_ne!(a, b);
    assert_eq!(shown(&client, &server, "deep.wild.test").await.unwrap(), b);
    let lenient = papers.client(&server).tls_danger_accept_invalid_hostnames(true).build().unwrap();
    assert_eq!(shown(&lenient, &server, "other.test").await.unwrap(), a, "strangers get the first one");
    shown(&client, &server, "other.test").await.expect_err("and their clients notice");

    let answer = client.get(url(&server, "a.test")).send().await.unwrap();
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    let plain = format!("http://{}", server.url().trim_start_matches("https://"));
    Client::builder().no_proxy().build().unwrap().get(plain).send().await.expect_err("no plain HTTP on this port");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_1_3_are_spoken() {
    let papers = Papers::new();
    papers.sign("first", &["a.test"], 2090);
    let server = TestServer::start_with(&papers.toml(&["first"]), Arc::new(SystemClock)).await;
    for version in [tls::Version::TLS_1_2, tls::Version::TLS_1_3] {
        let client = papers.client(&server).tls_version_min(version).tls_version_max(version).build().unwrap();
        shown(&client, &server, "a.test").await.unwrap_or_else(|error| panic!("{version:?}: {error:?}"));
    }
}

/// The framework stops to accept once as many handshakes are under way as it was told, 256 unless it was told otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stand_still_keep_nobody_out() {
    let papers = Papers::new();
    papers.sign("first", &["a.test"], 2090);
    let toml = format!("{}\n[http]\nworkers = 1\nhead_timeout_ms = 120000", papers.toml(&["first"]));
    let server = TestServer::start_with(&toml, Arc::new(SystemClock)).await;
    let address = server.url().trim_start_matches("https://").to_owned();
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let client = papers.client(&server).build().unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(30), shown(&client, &server, "a.test")).await;
    answered.expect("the node accepts others").unwrap();
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanged_files_are_served_without_a_restart_and_broken_ones_never() {
    let papers = Papers::new();
    papers.sign("first", &["a.test"], 2090);
    let server = TestServer::start_with(&papers.toml(&["first"]), Arc::new(SystemClock)).await;
    // A client that has been here before resumes its session and shows the certificate it saw then.
    let fresh = async || shown(&papers.client(&server).build().unwrap(), &server, "a.test").await.unwrap();
    let before = fresh().await;

    papers.sign("stranger", &["a.test"], 2090);
    std::fs::copy(papers.path("stranger.key"), papers.path("first.key")).unwrap();
    server.reload_certificates();
    assert_eq!(fresh().await, before, "a key of another certificate changes nothing");

    papers.sign("first", &["a.test"], 2090);
    // Nobody calls `reload_certificates` here: the node looks by itself.
    let noticed = async {
        while fresh().await == before {
            crate::support::pause(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), noticed).await.expect("the new certificate is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_sent_to_https_and_nowhere_else() {
    let papers = Papers::new();
    papers.sign("first", &["a.test"], 2090);
    let server = TestServer::start_with(&papers.toml(&["first"]), Arc::new(SystemClock)).await;
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    let address = server.redirect_addr();
    let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let ask = |host: &'static str| client.post(format!("http://{address}/api/x?y=1")).header("host", host).send();
    let answer = ask("a.test:8080").await.unwrap();
    assert_eq!(answer.status(), StatusCode::PERMANENT_REDIRECT);
    assert_eq!(answer.headers()["location"], format!("https://a.test:{port}/api/x?y=1"));
    for forged in ["evil.test/path", "user@evil.test", "evil.test?", ""] {
        let answer = ask(forged).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{forged:?}");
        assert!(answer.headers().get("location").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_sent_to_https_has_ended() {
    let papers = Papers::new();
    papers.sign("first", &["a.test"], 2090);
    let server = TestServer::start_with(&papers.toml(&["first"]), Arc::new(SystemClock)).await;
    for path in ["/", "/.well-known/acme-challenge/unknown"] {
        let mut raw = RawConnection::open(&format!("http://{}", server.redirect_addr())).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n");
        raw.send(request.as_bytes()).await;
        let said = raw.read_until(has_head).await.to_ascii_lowercase();
        assert!(said.starts_with("http/1.1 ") && said.contains("connection: close"), "{said}");
        raw.send(request.as_bytes()).await;
        assert_eq!(raw.read_until(|_| false).await, "", "{path}");
    }
}

/// Whoever held connections there that ask for nothing kept everybody else from being sent on.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_so_many_connections_to_the_redirect_and_no_more() {
    let papers = Papers::new();
    papers.sign("first", &["a.test"], 2090);
    let toml = format!("{}\n[http]\nconnections_per_ip_max = 4\nhead_timeout_ms = 60000", papers.toml(&["first"]));
    let server = TestServer::start_with(&toml, Arc::new(SystemClock)).await;
    let url = format!("http://{}", server.redirect_addr());
    let (head, end) = (b"GET / HTTP/1.1\r\nhost: a.test\r\n", b"\r\n");
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut connection = RawConnection::open(&url).await;
        connection.send(head).await;
        held.push(connection);
    }
    for _ in 0..3 {
        let mut connection = RawConnection::open(&url).await;
        connection.send(&[&head[..], end].concat()).await;
        assert_eq!(connection.read_until(has_head).await, "", "one too many");
    }
    for mut connection in held {
        connection.send(end).await;
        assert!(connection.read_until(has_head).await.starts_with("HTTP/1.1 308"));
    }
    let again = async {
        loop {
            let mut connection = RawConnection::open(&url).await;
            connection.send(&[&head[..], end].concat()).await;
            if !connection.read_until(has_head).await.is_empty() {
                break;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), again).await.expect("places come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_served_and_reported() {
    let papers = Papers::new();
    papers.sign("first", &["a.test"], 2001);
    let server = TestServer::start_with(&papers.toml(&["first"]), Arc::new(SystemClock)).await;
    shown(&papers.client(&server).build().unwrap(), &server, "a.test").await.expect_err("clients refuse it");
    let client = papers.client(&server).tls_danger_accept_invalid_certs(true).build().unwrap();
    let health = client.get(url(&server, "a.test").replace("/api/health", "/health")).send().await.unwrap();
    let health: serde_json::Value = health.json().await.unwrap();
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["checks"]["certificates"], "error: the certificate of a.test has expired");
    let metrics = client.get(url(&server, "a.test").replace("/api/health", "/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("tenantry_tls_certificate_expiry_timestamp_seconds{name=\"a.test\"} 978307200"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_certificates_cannot_be_used_does_not_start_and_says_why() {
    let papers = Papers::new();
    papers.sign("first", &["a.test"], 2090);
    papers.sign("second", &["b.test"], 2090);
    std::fs::write(papers.path("empty.crt"), "").unwrap();
    let pair = |certificate: &str, key: &str| {
        let (certificate, key) = (papers.path(certificate), papers.path(key));
        format!("[tls]\ncertificate_files = ['{}']\nkey_files = ['{}']", certificate.display(), key.display())
    };
    for (toml, said) in [
        (pair("none.crt", "first.key"), "none.crt cannot be read"),
        (pair("empty.crt", "first.key"), "empty.crt holds no certificate"),
        (pair("first.crt", "first.crt"), "first.crt holds no private key"),
        (pair("first.crt", "second.key"), "second.key does not belong to the certificate in"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let raw = RawConfig::default().with_toml("[http]\nlisten = '127.0.0.1:0'", "suite").with_toml(&toml, "test");
        let config = raw.with_flag("--data-dir", "data.dir", folder.path().display().to_string()).validate().unwrap();
        let error = app::start(config, Parts::default()).await.expect_err(said).to_string();
        assert!(error.contains(said), "{error}");
    }
}
