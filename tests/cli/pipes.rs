//! What the program writes to its standard output, for another program that may read it whole or leave.

use super::{code, run, tenantry, with_notes};
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;

/// Runs a command whose reader leaves at once: it ends well and says nothing.
fn cut_short(folder: &Path, args: &[&str]) {
    let mut child = tenantry(folder, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_tenant_is_exported_to_the_standard_output_and_comes_back() {
    let folder = with_notes();
    let out = run(folder.path(), &["tenant", "export", "acme", "--out", "-"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(!folder.path().join("-").exists());
    std::fs::write(folder.path().join("acme.tenant"), out.stdout).unwrap();
    code(&run(folder.path(), &["tenant", "import", "again", "--from", "acme.tenant"]), 0);
    assert!(code(&run(folder.path(), &["collection", "list", "--tenant", "again"]), 0).contains("notes"));
}

#[test]
fn a_completion_script_may_be_cut_short_by_its_reader() {
    let folder = TempDir::new().unwrap();
    cut_short(folder.path(), &["completions", "bash"]);
}

#[test]
fn an_export_may_be_cut_short_by_its_reader() {
    let folder = with_notes();
    std::fs::write(folder.path().join("notes.ndjson"), "{\"t\":\"a\"}\n".repeat(20)).unwrap();
    code(&run(folder.path(), &["records", "import", "notes", "--from", "notes.ndjson", "--tenant", "acme"]), 0);
    for export in [&["records", "export", "notes"][..], &["audit", "export", "--format", "csv"]] {
        cut_short(folder.path(), &[export, &["--tenant", "acme"]].concat());
    }
}
