//! Mails as a test reads them: files below `outbox/`.

use super::TestServer;
use std::path::PathBuf;
use std::time::Duration;

/// The texts of all mails to `to` that are there now, oldest first.
pub(crate) fn mails(server: &TestServer, to: &str) -> Vec<String> {
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    let mut folders = vec![server.folder().join("outbox")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match std::fs::read_to_string(entry.path()) {
                Ok(text) if text.contains(&format!("To: {to}")) => found.push((entry.path(), text)),
                Ok(_) => {}
                Err(_) => folders.push(entry.path()),
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, text)| text.replace("=\r\n", "").replace("=3D", "=")).collect()
}

/// The link in the newest mail to `to` that holds `wanted`, once it is there.
pub(crate) async fn link(server: &TestServer, to: &str, wanted: &str) -> String {
    for _ in 0..1_200 {
        for text in mails(server, to).iter().rev() {
            let mut links = text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
            if let Some(link) = links.find(|link| link.contains(wanted)) {
                return link.to_owned();
            }
        }
        super::pause(Duration::from_millis(25)).await;
    }
    panic!("no mail to {to} with {wanted}");
}
