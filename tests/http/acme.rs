//! Certificates that the node obtains by itself, from an authority that checks signatures, nonces and the challenge.
//!
//! Keeps true: the authority of these tests speaks RFC 8555 and connects back to the node as a real one would; the same
//! flow runs against Pebble, where that is installed, by `cargo test --test http -- --ignored pebble`.

use crate::support::{Authority, TestServer};
use reqwest::{Certificate, Client};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tenantry::kernel::clock::SystemClock;

fn toml(directory: &str, more: &str) -> String {
    format!(
        "[acme]\nenabled = true\nterms_agreed = true\ncontact = ['ops@example.com']\ndirectory_url = '{directory}'\n{more}"
    )
}

/// A client that trusts `root` alone, makes every connection anew and finds `host` at `server`.
fn client(server: &TestServer, root: &str, host: &str) -> Client {
    let address = server.url().trim_start_matches("https://").parse().unwrap();
    let root = Certificate::from_pem(root.as_bytes()).unwrap();
    let builder = Client::builder().no_proxy().pool_max_idle_per_host(0).tls_certs_only([root]);
    builder.resolve(host, address).build().unwrap()
}

/// Whether `host` answers with a certificate that `root` vouches for.
async fn is_served(server: &TestServer, root: &str, host: &str) -> bool {
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    client(server, root, host).get(format!("https://{host}:{port}/api/health")).send().await.is_ok()
}

async fn until_served(server: &TestServer, root: &str, host: &str) {
    let served = async {
        while !is_served(server, root, host).await {
            crate::support::pause(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), served)
        .await
        .unwrap_or_else(|_| panic!("{host} has no certificate"));
}

/// Every file below `folder` with its rights.
fn modes(folder: &std::path::Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        if entry.path().is_dir() {
            found.extend(modes(&entry.path()));
        }
        found.push((entry.file_name().into_string().unwrap(), mode));
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_obtained_kept_privately_and_used_after_a_restart() {
    let authority = Authority::start().await;
    let more = "hosts = ['shop.example.com']\n[tls]\nredirect_listen = '127.0.0.1:0'";
    let server = TestServer::start_with(&toml(&authority.directory(), more), Arc::new(SystemClock)).await;
    authority.reach_http_at(server.redirect_addr());
    until_served(&server, &authority.root(), "shop.example.com").await;
    assert_eq!(authority.orders(), ["shop.example.com"]);
    let folder = server.folder().join("acme");
    let kept = modes(&folder);
    let private = |name: &str| kept.iter().find(|(file, _)| file == name).map(|(_, mode)| *mode);
    assert_eq!((private("account.json"), private("shop.example.com.pem")), (Some(0o600), Some(0o600)), "{kept:?}");
    assert!(kept.iter().all(|(_, mode)| mode & 0o077 == 0), "{kept:?}");

    let server = server.restart_with(&toml(&authority.directory(), more)).await;
    until_served(&server, &authority.root(), "shop.example.com").await;
    assert_eq!(authority.orders().len(), 1, "what was kept is not asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_get_certificates_and_strangers_none() {
    let authority = Authority::start().await;
    let more = "[tls]\nredirect_listen = '127.0.0.1:0'\n[http]\ntenant_domains = ['apps.example.net']";
    let server = TestServer::start_with(&toml(&authority.directory(), more), Arc::new(SystemClock)).await;
    authority.reach_http_at(server.redirect_addr());
    let node = server.by_local_certificate();
    let body = json!({ "slug": "acme", "name": "Acme", "hosts": ["www.acme.example"] });
    node.post("/api/tenants", body).await.created();
    node.post("/api/tenants", json!({ "slug": "gone", "name": "Gone" })).await.created();
    node.post("/api/tenants/gone/suspend", json!({})).await.ok();

    for stranger in ["stranger.example", "nobody.apps.example.net", "gone.apps.example.net", "a.b.apps.example.net"] {
        assert!(!is_served(&server, &authority.root(), stranger).await, "{stranger}");
    }
    // The first client of a name that leads to a tenant brings the certificate about.
    until_served(&server, &authority.root(), "acme.apps.example.net").await;
    until_served(&server, &authority.root(), "www.acme.example").await;
    let mut orders = authority.orders();
    orders.sort();
    assert_eq!(orders, ["acme.apps.example.net", "www.acme.example"], "nothing is asked for strangers");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_refuses_is_asked_again_later_and_answers_go_on() {
    let authority = Authority::start().await;
    let more = "hosts = ['shop.example.com']\n[tls]\nredirect_listen = '127.0.0.1:0'";
    let server = TestServer::start_with(&toml(&authority.directory(), more), Arc::new(SystemClock)).await;
    // What answers here is the node's other listener, where there is no proof.
    authority.reach_http_at(server.url().trim_start_matches("https://").parse().unwrap());
    let refused = async {
        while authority.refusals() == 0 {
            crate::support::pause(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), refused).await.expect("the authority looked and refused");
    assert!(!is_served(&server, &authority.root(), "shop.example.com").await);
    server.by_local_certificate().get("/api/tenants").await.ok();
    assert_eq!(authority.orders(), ["shop.example.com"], "not again at once");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the programs pebble and pebble-challtestsrv"]
async fn pebble_signs_by_http_01_and_by_tls_alpn_01() {
    for plain_http in [true, false] {
        let redirect = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let pebble = crate::support::Pebble::start(redirect.port(), listen.port()).await;
        let tls = if plain_http { format!("[tls]\nredirect_listen = '{redirect}'") } else { String::new() };
        let files = pebble.authority_file().display().to_string();
        let more =
            format!("hosts = ['shop.example.com']\nauthority_files = ['{files}']\n[http]\nlisten = '{listen}'\n{tls}");
        let server = TestServer::start_with(&toml(&pebble.directory(), &more), Arc::new(SystemClock)).await;
        until_served(&server, &pebble.root().await, "shop.example.com").await;
    }
}
