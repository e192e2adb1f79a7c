//! Pebble, a test authority by the people behind Let's Encrypt, if it is installed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A running Pebble and the name server it asks; both end with this.
pub(crate) struct Pebble {
    folder: TempDir,
    port: u16,
    management: u16,
    children: Vec<Child>,
}

impl Pebble {
    /// Starts both; challenges are looked for at these ports of this machine.
    pub(crate) async fn start(http_port: u16, tls_port: u16) -> Self {
        tenantry::tls::install_provider();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, management, names, steering) = (free(), free(), free(), free());
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": folder.path().join("cert.pem"),
            "privateKey": folder.path().join("key.pem"),
            "httpPort": http_port,
            "tlsPort": tls_port,
        }});
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let spawn = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = spawn(
            Command::new("pebble-challtestsrv")
                .args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""])
                .args(["-dns01", &format!("127.0.0.1:{names}"), "-management", &format!("127.0.0.1:{steering}")]),
        );
        let pebble = spawn(
            Command::new("pebble")
                .arg("-config")
                .arg(folder.path().join("config.json"))
                .args(["-dnsserver", &format!("127.0.0.1:{names}")])
                .env("PEBBLE_VA_NOSLEEP", "1"),
        );
        let started = Self { folder, port, management, children: vec![server, pebble] };
        started.root().await;
        started
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// Whom the directory's own certificate is checked against.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The root that it signs with, once it answers.
    pub(crate) async fn root(&self) -> String {
        let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap();
        let url = format!("https://127.0.0.1:{}/roots/0", self.management);
        for _ in 0..600 {
            if let Ok(answer) = client.get(&url).send().await {
                return answer.text().await.unwrap();
            }
            crate::support::pause(Duration::from_millis(50)).await;
        }
        panic!("pebble does not answer");
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
