//! Disks that are full: refused with the right code, reads go on, a restart is possible, recovers when there is room.
//!
//! A small file system is mounted for it. Who may not mount does it in a user namespace of their own (`unshare`); where
//! that is not possible either the part is skipped and says so, and is a failure if `TENANTRY_CI` is set: `.ci/run` sets
//! it, so the gate cannot pass without.

use super::cache::{Node, config};
use super::{all_ids, options, set_up, tenant_id, write_pair};
use reqwest::Method;
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use tenantry::app;
use tenantry::kernel::error::{Code, Fault};
use tenantry::store::{Tenants, check_file, free_bytes};

/// Set in the process that runs in a namespace.
const IN_NAMESPACE: &str = "TENANTRY_CRASH_NAMESPACE";

/// A small file system, unmounted when dropped.
pub(super) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: no right to.
    pub(super) fn mount(folder: &Path, size: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs this test again where it may mount, if here it may not; its exit code.
pub(super) fn run_with_right_to_mount() -> Option<ExitCode> {
    let folder = tempfile::tempdir().unwrap();
    if std::env::var_os(IN_NAMESPACE).is_some() || SmallDisk::mount(folder.path(), "1m").is_some() {
        return None;
    }
    let unshare = |program: &Path| {
        let mut command = Command::new("unshare");
        command.arg("-rm").arg(program).env(IN_NAMESPACE, "1");
        command
    };
    if !unshare(Path::new("true")).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return None;
    }
    let status = unshare(&std::env::current_exe().unwrap()).args(std::env::args_os().skip(1)).status().unwrap();
    Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A part that cannot be run here.
pub(super) fn skip(part: &str) {
    assert!(std::env::var_os("TENANTRY_CI").is_none(), "{part} cannot be tested: no right to mount a small tmpfs");
    println!("crash: SKIPPED {part}: no right to mount a small tmpfs here");
}

pub(super) fn full(runtime: &tokio::runtime::Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), "6m") else { return skip("the full disk") };
    runtime.block_on(fill(folder.path()));
    drop(disk);
    let Some(disk) = SmallDisk::mount(folder.path(), "32m") else { return skip("the full disk") };
    runtime.block_on(restart(folder.path()));
    drop(disk);
    let Some(disk) = SmallDisk::mount(folder.path(), "32m") else { return skip("the full disk") };
    runtime.block_on(orderly(folder.path()));
    drop(disk);
}

/// Takes what room there is, to the last byte.
fn take_all(ballast: &Path) {
    std::fs::write(ballast, vec![0_u8; 64 * 1024 * 1024]).unwrap_err();
}

async fn fill(folder: &Path) {
    set_up(folder).await;
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![0_u8; 2 * 1024 * 1024]).unwrap();
    let tenants = Tenants::start(options(folder)).unwrap();
    let tenant = tenants.open(&tenant_id()).await.unwrap();
    let pairs = tenant.schema().find("pairs").unwrap().clone();
    let mut stored = HashSet::new();
    let refused = loop {
        let id = format!("full{:08}", stored.len());
        match write_pair(&tenant, &pairs, &id, 5_000).await {
            Ok(()) => stored.insert(id),
            Err(error) => break error,
        };
        assert!(stored.len() < 10_000, "the disk never filled up");
    };
    assert_eq!(refused.code(), Code::StorageFull, "{refused}");
    let found = all_ids(&tenant).await;
    assert_eq!(found.len(), stored.len() * 2, "reads go on, and the refused write left nothing");
    assert!(write_pair(&tenant, &pairs, "stillfull000", 5_000).await.is_err());
    std::fs::remove_file(&ballast).unwrap();
    assert!(free_bytes(folder).unwrap() > 0);
    for number in 0..20 {
        write_pair(&tenant, &pairs, &format!("room{number:08}"), 5_000).await.unwrap();
    }
    drop(tenant);
    tenants.shutdown().await;
    let report = check_file(folder, &tenant_id()).unwrap();
    assert!(report.is_healthy(), "{:?}", report.problems);
    assert_eq!(report.records[0].2, u64::try_from((stored.len() + 20) * 2).unwrap());

    // Opening needs a little room of its own, which SQLite reports as an I/O error. What the look left beside the file
    // (it may not remove it) would be that room.
    let beside = |suffix: &str| folder.join(format!("tenants/{}/data.db{suffix}", tenant_id()));
    let log = std::fs::metadata(beside("-wal")).map_or(0, |about| about.len());
    assert_eq!(log, 0, "an orderly stop folds the log into the file");
    for suffix in ["-shm", "-wal"] {
        let _ = std::fs::remove_file(beside(suffix));
    }
    take_all(&ballast);
    let tenants = Tenants::start(options(folder)).unwrap();
    let refused = tenants.open(&tenant_id()).await.expect_err("no room for the shared memory");
    assert_eq!(refused.code(), Code::StorageFull, "{refused}");
    std::fs::remove_file(&ballast).unwrap();
    let tenant = tenants.open(&tenant_id()).await.unwrap();
    assert_eq!(all_ids(&tenant).await.len(), (stored.len() + 20) * 2);
    drop(tenant);
    tenants.shutdown().await;
    println!("crash: a full disk refuses, keeps answering and recovers");
}

/// Asks until the answer has this status.
#[expect(clippy::disallowed_methods, reason = "what another process does cannot be waited on")]
async fn ends(status: u16, ask: impl AsyncFn() -> Option<u16>) -> bool {
    for _ in 0..300 {
        if ask().await == Some(status) {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    false
}

/// A node that is stopped in good order on a full disk starts again on it, though everything it gave back is taken; it
/// answers reads, deletes, and says why it stores nothing.
async fn orderly(folder: &Path) {
    const NOTES: &str = "/t/acme/api/collections/notes/records";
    const ACCOUNTS: &str = "/t/acme/api/collections/records";
    let note = || Some(json!({"text": "x"}));
    let node = Node::start(folder, "none");
    node.send(Method::POST, "/api/tenants", json!({"slug": "acme", "name": "acme"})).await.unwrap();
    let body = json!({"name": "notes", "type": "base", "fields": [{"name": "text", "type": "text"}]});
    node.send(Method::POST, "/t/acme/api/collections", body).await.unwrap();
    for n in 0..20 {
        let body = json!({"id": format!("note{n:011}"), "text": "x"});
        node.send(Method::POST, NOTES, body).await.unwrap();
    }
    // Names that look like those of routes.
    let body = json!({"name": "records", "type": "auth"});
    node.send(Method::POST, "/t/acme/api/collections", body).await.unwrap();
    let body = json!({"id": "stolen000000000", "email": "a@example.com", "password": "correct-horse-battery", "passwordConfirm": "correct-horse-battery"});
    node.send(Method::POST, &format!("{ACCOUNTS}/records"), body).await.unwrap();
    let login = || Some(json!({"identity": "a@example.com", "password": "correct-horse-battery"}));
    let (door, suspension) =
        (format!("{ACCOUNTS}/auth-with-password"), format!("{ACCOUNTS}/records/stolen000000000/suspend"));
    node.stop();
    let ballast = folder.join("ballast");
    for round in 0..3 {
        // What the stop before gave back is gone as well, to the last byte.
        take_all(&ballast);
        let node = Node::start(folder, "none");
        assert_eq!(node.get(NOTES).await.1["totalItems"], 20 - round * 5, "reads go on");
        assert_eq!(node.status(Method::POST, NOTES, note()).await, Some(507));
        let more = [
            (Method::POST, "/api/tenants", json!({"slug": "more", "name": "more"})),
            (Method::POST, "/api/tenants/acme/clone", json!({"slug": "more", "name": "more"})),
            (Method::POST, "/t/acme/api/collections", json!({"name": "more", "type": "base"})),
            (Method::PATCH, "/t/acme/api/collections/notes", json!({"listRule": ""})),
            (Method::PATCH, "/t/acme/api/settings", json!({"meta": {"appName": "more"}})),
        ];
        for (method, path, body) in more {
            assert_eq!(node.status(method, path, Some(body)).await, Some(507), "{path}");
        }
        let value = node.status(Method::PUT, "/t/acme/api/cache/more", Some(json!({"value": 1}))).await.unwrap();
        assert!(value < 300, "values are in memory: {value}");
        assert_eq!(node.status(Method::POST, &door, login()).await, Some(200), "logins go on");
        assert_eq!(node.status(Method::POST, &suspension, Some(json!({}))).await, Some(200), "so do suspensions");
        assert_ne!(node.status(Method::POST, &door, login()).await, Some(200));
        assert_eq!(node.status(Method::DELETE, &suspension, None).await, Some(204));
        for n in round * 5..round * 5 + 5 {
            let path = format!("{NOTES}/note{n:011}");
            assert_eq!(node.status(Method::DELETE, &path, None).await, Some(204), "deletions go through");
        }
        let health = node.get("/health").await.1;
        assert_eq!(health["status"], "degraded", "{health}");
        node.stop();
    }
    take_all(&ballast);
    let examined = app::examine(&config(folder)).unwrap();
    let problem = |of: &str| {
        let found = examined.iter().find(|examined| examined.what.starts_with(of));
        found.unwrap_or_else(|| panic!("{examined:?}")).problem.clone().unwrap_or_default()
    };
    assert_eq!(problem("free space"), "the disk is full; 256 MiB should be free");
    assert!(problem("the control database").contains("not looked at: the disk is full"), "{examined:?}");
    std::fs::remove_file(&ballast).unwrap();
    let node = Node::start(folder, "none");
    assert_eq!(node.status(Method::POST, NOTES, note()).await, Some(200), "with room everything is stored again");
    take_all(&ballast);
    // The same while it runs.
    assert!(ends(507, async || node.status(Method::POST, NOTES, note()).await).await, "what there was is used up");
    let delete = async || node.status(Method::DELETE, &format!("{NOTES}/note{:011}", 15), None).await;
    assert!(ends(204, delete).await, "the reserve is given up within seconds");
    assert_eq!(node.status(Method::POST, NOTES, note()).await, Some(507));
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(node.status(Method::POST, NOTES, note()).await, Some(200), "room is seen as soon as it matters");
    node.stop();
    println!("crash: a node stopped in good order starts on a full disk, reads and deletes");
}

/// A node that is killed on a full disk starts again on it.
async fn restart(folder: &Path) {
    const NOTES: &str = "api/collections/notes/records";
    let note = || Some(json!({"text": "x"}));
    let node = Node::start(folder, "none");
    for slug in ["open", "cold"] {
        node.send(Method::POST, "/api/tenants", json!({"slug": slug, "name": slug})).await.unwrap();
        let body = json!({"name": "notes", "type": "base", "fields": [{"name": "text", "type": "text"}]});
        node.send(Method::POST, &format!("/t/{slug}/api/collections"), body).await.unwrap();
        assert_eq!(node.status(Method::POST, &format!("/t/{slug}/{NOTES}"), note()).await, Some(200));
    }
    take_all(&folder.join("ballast"));
    node.kill();
    let node = Node::start(folder, "none");
    for slug in ["open", "cold"] {
        let path = format!("/t/{slug}/{NOTES}");
        let read = node.status(Method::GET, &path, None).await.unwrap();
        assert!([200, 507].contains(&read), "reading {slug}: {read}");
        let mut written = 200;
        for _ in 0..10_000 {
            written = node.status(Method::POST, &path, note()).await.unwrap();
            if written != 200 {
                break;
            }
        }
        assert_eq!(written, 507, "writing to {slug}");
    }
    std::fs::remove_file(folder.join("ballast")).unwrap();
    for slug in ["open", "cold"] {
        let path = format!("/t/{slug}/{NOTES}");
        assert_eq!(node.status(Method::POST, &path, note()).await, Some(200));
        assert!(node.get(&path).await.1["totalItems"].as_u64().unwrap() >= 2);
    }
    node.stop();
    println!("crash: a node killed on a full disk starts again on it");
}
