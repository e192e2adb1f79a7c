//! The program as people run it: exit codes, help, mistakes in the configuration, a folder in use.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: a panic is the failure")]

#[path = "cli/cache.rs"]
mod cache;
#[path = "cli/pipes.rs"]
mod pipes;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use tempfile::TempDir;

fn tenantry(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command.args(args).current_dir(folder).env("NO_COLOR", "1");
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    tenantry(folder, args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn code(output: &Output, expected: i32) -> String {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(expected), "{said}");
    said
}

/// A folder whose tenant `acme` has the collection `notes` with the text field `t`.
fn with_notes() -> TempDir {
    let folder = TempDir::new().unwrap();
    code(&run(folder.path(), &["tenant", "create", "acme"]), 0);
    let notes = r#"[{"name":"notes","type":"base","fields":[{"name":"t","type":"text"}]}]"#;
    std::fs::write(folder.path().join("notes.json"), notes).unwrap();
    code(&run(folder.path(), &["collection", "import", "notes.json", "--tenant", "acme"]), 0);
    folder
}

/// A running `serve`, stopped by SIGTERM.
struct Node {
    child: Child,
    url: String,
    /// What it says after its address, until it ends.
    log: Option<JoinHandle<Vec<String>>>,
}

impl Node {
    fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    fn start_with(folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = tenantry(folder, &["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"])
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said =
            lines.find_map(|line| Some(line.unwrap().split_once("answers at ")?.1.to_owned())).expect("an address");
        // Keeps the pipe from filling up.
        let log = std::thread::spawn(move || lines.map(Result::unwrap).collect());
        let url = said.split(". ").next().unwrap().to_owned();
        Self { child, url, log: Some(log) }
    }

    fn stop(self) -> Option<i32> {
        self.stop_and_read().0
    }

    fn stop_and_read(mut self) -> (Option<i32>, Vec<String>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Node {
    /// A test that failed leaves no process behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_teaches_by_example() {
    let folder = TempDir::new().unwrap();
    let help = code(&run(folder.path(), &["--help"]), 0);
    for word in ["serve", "tenant", "superuser", "doctor", "config", "completions", "Exit codes"] {
        assert!(help.contains(word), "{word}\n{help}");
    }
    for command in [&["serve", "--help"][..], &["tenant", "create", "--help"], &["superuser", "create", "--help"]] {
        assert!(code(&run(folder.path(), command), 0).contains("Examples:"), "{command:?}");
    }
    assert!(code(&run(folder.path(), &["--version"]), 0).starts_with("tenantry "));
}

#[test]
fn an_orderly_stop_leaves_no_log_line_unwritten() {
    for format in ["text", "json"] {
        let folder = TempDir::new().unwrap();
        let node = Node::start_with(folder.path(), &[("TENANTRY__LOG__FORMAT", format)]);
        let address = node.url.strip_prefix("http://").unwrap().to_owned();
        for number in 0..50 {
            let mut stream = std::net::TcpStream::connect(&address).unwrap();
            let head = format!(
                "GET /livez HTTP/1.1\r\nHost: a\r\nX-Request-Id: request-{number}\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        }
        let (code, log) = node.stop_and_read();
        assert_eq!(code, Some(0));
        for number in 0..50 {
            // Behind the node's own id.
            let id = format!(".request-{number}\"");
            let lines: Vec<_> = log.iter().filter(|line| line.contains(&id)).collect();
            assert!(matches!(lines[..], [line] if line.contains("GET /livez 200")), "{id}: {lines:?}");
        }
        assert!(log.iter().any(|line| line.contains("stopping on SIGTERM")), "{log:?}");
    }
}

#[test]
fn nonsense_is_a_usage_error() {
    let folder = TempDir::new().unwrap();
    for args in [&["fly"][..], &[], &["serve", "--listen", "here"], &["tenant", "delete", "main"]] {
        code(&run(folder.path(), args), 2);
    }
}

#[test]
fn every_configuration_mistake_is_listed_and_secrets_are_not_printed() {
    let folder = TempDir::new().unwrap();
    std::fs::write(
        folder.path().join("bad.toml"),
        "[http]\nlissten = 'x'\nworkers = 'many'\n[log]\nformat = 'xml'\nfilter = 'info,tenantry=loud'",
    )
    .unwrap();
    let said = code(&run(folder.path(), &["serve", "--config", "bad.toml"]), 3);
    for key in ["http.lissten", "did you mean http.listen?", "http.workers", "log.format", "log.filter", "bad.toml"] {
        assert!(said.contains(key), "{key}\n{said}");
    }
    let missing = code(&run(folder.path(), &["config", "print", "--config", "none.toml"]), 3);
    assert!(missing.contains("none.toml"), "{missing}");
    let output = tenantry(folder.path(), &["config", "print", "--data-dir", "elsewhere"])
        .env("TENANTRY__HTTP__METRICS_TOKEN", "sesame")
        .env("TENANTRY__HTTP__KEEP_ALIVE_S", "9")
        .output()
        .unwrap();
    let printed = code(&output, 0);
    assert!(printed.contains("keep_alive_s = 9") && printed.contains("dir = \"elsewhere\""), "{printed}");
    assert!(!printed.contains("sesame"), "{printed}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    let folder = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(code(&run(folder.path(), &["completions", shell]), 0).contains("tenantry"), "{shell}");
    }
}

#[test]
fn two_nodes_never_share_a_folder_and_stopping_is_clean() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path());
    let said = code(&run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"]), 4);
    assert!(said.contains("in use") && said.contains(&node.url), "{said}");
    assert_eq!(node.stop(), Some(0));
    let again = Node::start(folder.path());
    assert_eq!(again.stop(), Some(0));
}

/// Runs a command that must succeed, with text on its standard input.
#[track_caller]
fn fed(folder: &Path, args: &[&str], input: &str) -> String {
    code(&fed_output(folder, args, input), 0)
}

fn fed_output(folder: &Path, args: &[&str], input: &str) -> Output {
    let mut child =
        tenantry(folder, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn lifecycle(folder: &Path) {
    let data = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--data-dir", "data"]);
        run(folder, &all)
    };
    code(&data(&["tenant", "create", "acme", "--name", "Acme Ltd"]), 0);
    assert!(code(&data(&["tenant", "create", "acme"]), 5).contains("tenant_exists"));
    assert!(code(&data(&["tenant", "list"]), 0).contains("Acme Ltd"));
    code(&data(&["tenant", "rename", "acme", "--slug", "acme-inc"]), 0);
    assert!(code(&data(&["tenant", "show", "acme"]), 5).contains("tenant_not_found"));
    assert!(code(&data(&["tenant", "suspend", "acme-inc"]), 0).contains("suspended"));
    assert!(code(&data(&["tenant", "resume", "acme-inc"]), 0).contains("active"));
    code(&data(&["tenant", "clone", "acme-inc", "acme-copy"]), 0);
    code(&data(&["tenant", "export", "acme-copy", "--out", "acme.tenant"]), 0);
    code(&data(&["tenant", "import", "acme-again", "--from", "acme.tenant"]), 0);
    for slug in ["acme-inc", "acme-copy", "acme-again"] {
        code(&data(&["tenant", "delete", slug, "--yes"]), 0);
    }
    std::fs::remove_file(folder.join("acme.tenant")).unwrap();
    fed(
        folder,
        &["superuser", "create", "ada@example.com", "--password-stdin", "--data-dir", "data"],
        "correct horse\n",
    );
    fed(
        folder,
        &["superuser", "reset", "ada@example.com", "--password-stdin", "--data-dir", "data"],
        "battery staple\n",
    );
    assert!(code(&data(&["superuser", "reset-mfa", "ada@example.com"]), 0).contains("logs in by password"));
    assert!(code(&data(&["superuser", "reset-mfa", "eve@example.com"]), 1).contains("no superuser"));
    let create = ["superuser", "create", "ada@example.com", "--password-stdin", "--data-dir", "data"];
    let again = code(&fed_output(folder, &create, "correct horse\n"), 5);
    assert!(again.contains("`tenantry superuser reset`"), "{again}");
    assert!(code(&data(&["serve", "--listen", "localhost:18091"]), 2).contains("names are not looked up"));
    code(&data(&["doctor"]), 0);
}

/// Overwrites all of a database but its first pages.
fn damage(file: &Path, pages: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[pages * 4_096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(file, bytes).unwrap();
}

/// The doctor served the folder for the look, which repaired, made folders that were mistyped, and stopped at a control
/// database that was damaged.
#[test]
fn the_doctor_looks_at_a_folder_that_nobody_serves_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let data = |args: &[&str]| run(folder.path(), &[args, &["--data-dir", "data"]].concat());
    let said = code(&data(&["doctor"]), 4);
    assert!(said.contains("control.db") && said.contains("--data-dir"), "{said}");
    assert!(!folder.path().join("data").exists(), "a mistyped folder is not made");
    for slug in ["acme", "beta"] {
        code(&data(&["tenant", "create", slug]), 0);
    }
    let said = code(&data(&["doctor"]), 0);
    assert!(said.contains("ok   tenant acme") && said.contains("ok   the control database"), "{said}");
    let shown = code(&data(&["tenant", "show", "acme"]), 0);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let id = shown["id"].as_str().unwrap();
    damage(&folder.path().join("data/tenants").join(id).join("data.db"), 10);
    let said = code(&data(&["doctor"]), 6);
    assert!(said.contains("FAIL tenant acme") && said.contains("ok   tenant beta"), "{said}");
    damage(&folder.path().join("data/control.db"), 1);
    let said = code(&data(&["doctor"]), 6);
    assert!(said.contains("FAIL the control database") && said.contains(id), "{said}");
    assert!(said.matches("ok   tenant").count() >= 2, "what is sound is still told: {said}");
}

/// A mistyped name made a folder in silence, and so did a node that could not even listen.
#[test]
fn whoever_makes_a_folder_says_so_and_a_node_that_cannot_listen_makes_none() {
    let folder = TempDir::new().unwrap();
    let said = code(&run(folder.path(), &["tenant", "create", "acme", "--data-dir", "daat"]), 0);
    assert!(said.contains("made a new data folder: daat"), "{said}");
    let said = code(&run(folder.path(), &["tenant", "create", "beta", "--data-dir", "daat"]), 0);
    assert!(!said.contains("made a new data folder"), "{said}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = code(&run(folder.path(), &["serve", "--listen", &address, "--data-dir", "data"]), 4);
    assert!(said.contains(&address), "{said}");
    assert!(!folder.path().join("data").exists());
}

/// A purge list with a slug that nobody has told nobody of anything.
#[test]
fn a_purge_list_that_names_no_tenant_is_told_at_start() {
    let folder = TempDir::new().unwrap();
    let variables = [
        ("TENANTRY__CACHE__PURGE_TENANTS", "nope,main"),
        ("TENANTRY__CACHE__PURGE_URL", "http://127.0.0.1:9/purge"),
        ("TENANTRY__OUTBOUND__PRIVATE_ALLOWED", "127.0.0.1"),
    ];
    let mut child = tenantry(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
    let child = child.envs(variables).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    // In the log, whose lines are written a moment later than what is said to people.
    let said: Vec<String> = lines.take_while(|line| !line.contains("listening on")).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let told: Vec<&String> = said.iter().filter(|line| line.contains("cache.purge_tenants")).collect();
    assert_eq!(told.len(), 1, "{said:#?}");
    assert!(told[0].contains("nope"), "{told:#?}");
}

/// Run in the wrong folder, they made a new one and found it empty.
#[test]
fn commands_about_what_there_is_make_no_folder() {
    let folder = TempDir::new().unwrap();
    let list: [&[&str]; 4] =
        [&["tenant", "list"], &["tenant", "suspend", "acme"], &["records", "export", "notes"], &["cache", "stats"]];
    for args in list {
        let said = code(&run(folder.path(), &[args, &["--data-dir", "data"]].concat()), 4);
        assert!(said.contains("control.db") && said.contains("--data-dir"), "{said}");
    }
    assert!(!folder.path().join("data").exists());
}

/// The lines of the demo's output that are commands, as a shell would read them.
fn printed_commands(said: &str) -> Vec<Vec<String>> {
    let joined = said.replace("\\\n", " ");
    let commands = joined.lines().filter_map(|line| line.trim().strip_prefix("curl "));
    commands.map(|line| line.split('\'').skip(1).step_by(2).map(str::to_owned).collect()).collect()
}

/// Runs one of them.
fn perform(command: &[String]) -> serde_json::Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    runtime.block_on(async {
        let request = match command {
            [url] => client.get(url),
            [url, header, body] => {
                let (name, value) = header.split_once(": ").unwrap();
                client.post(url).header(name, value).body(body.clone())
            }
            other => panic!("{other:?}"),
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{command:?}");
        response.json().await.unwrap()
    })
}

/// `serve --demo`; a test that failed leaves no process behind.
struct Demo(Child);

impl Demo {
    /// With so many players; the standard output is read once it ended.
    fn start(folder: &Path, players: &str) -> Self {
        let args = ["serve", "--demo", "--demo-players", players, "--listen", "127.0.0.1:0", "--data-dir", "data"];
        Self(tenantry(folder, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn end(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_does_what_it_prints_and_can_be_stopped_while_it_fills() {
    tenantry::tls::install_provider();
    let folder = TempDir::new().unwrap();
    let mut demo = Demo::start(folder.path(), "2000000");
    let tenants = folder.path().join("data/tenants");
    // `main` and the one that is being filled.
    while std::fs::read_dir(&tenants).map_or(0, Iterator::count) < 2 {
        assert!(demo.0.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    assert_eq!(demo.end(), Some(0), "a signal while filling");

    for first in [true, false] {
        let mut demo = Demo::start(folder.path(), "300");
        let mut said = String::new();
        let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
        while printed_commands(&said).last().is_none_or(|command| command.len() != 3) {
            said.push_str(&lines.next().expect("three commands").unwrap());
            said.push('\n');
        }
        assert_eq!(said.contains("(shown this once)"), first, "{said}");
        let commands = printed_commands(&said);
        assert_eq!(commands.len(), 3, "{said}");
        for command in &commands[..2] {
            assert!(perform(command)["totalItems"].as_u64().unwrap() > 0, "{command:?}");
        }
        let export = ["records", "export", "players", "--tenant", "demo-org", "--data-dir", "data"];
        let players = code(&run(folder.path(), &export), 0);
        assert_eq!(players.lines().count(), 300, "what was cut off is gone, not counted twice");
        if first {
            assert!(perform(&commands[2])["token"].is_string());
        }
        assert_eq!(demo.end(), Some(0));
    }
}

#[test]
fn tenants_live_and_die_without_a_running_node() {
    lifecycle(TempDir::new().unwrap().path());
}

#[test]
fn tenants_live_and_die_beside_a_running_node() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path());
    lifecycle(folder.path());
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn collections_records_blueprints_and_rules_from_the_command_line() {
    let folder = TempDir::new().unwrap();
    let data = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--data-dir", "data"]);
        run(folder.path(), &all)
    };
    assert!(code(&data(&["blueprint", "list"]), 0).contains("tournament"));
    assert!(code(&data(&["rules", "test", "cms"]), 0).contains("ok"));
    code(&data(&["blueprint", "apply", "cms"]), 0);
    assert!(code(&data(&["collection", "list"]), 0).contains("entries"));
    std::fs::write(
        folder.path().join("notes.json"),
        r#"[{"name":"notes","type":"base","fields":[{"name":"t","type":"text"}]}]"#,
    )
    .unwrap();
    code(&data(&["collection", "import", "notes.json"]), 0);
    std::fs::write(folder.path().join("notes.ndjson"), "{\"t\":\"a\"}\n{\"t\":\"b\"}\n").unwrap();
    assert!(code(&data(&["records", "import", "notes", "--from", "notes.ndjson"]), 0).contains("\"created\": 2"));
    assert!(code(&data(&["records", "export", "notes", "--filter", "t = 'b'"]), 0).contains("\"b\""));
    std::fs::write(folder.path().join("notes.csv"), "t\nfrom csv\n").unwrap();
    assert!(code(&data(&["records", "import", "notes", "--from", "notes.csv"]), 0).contains("\"created\": 1"));
    std::fs::write(folder.path().join("bad.ndjson"), "nonsense\n").unwrap();
    code(&data(&["records", "import", "notes", "--from", "bad.ndjson"]), 1);
    assert!(code(&data(&["records", "import", "notes", "--from", "gone.ndjson"]), 1).contains("gone.ndjson"));
    assert!(code(&data(&["collection", "import", "gone.json"]), 1).contains("gone.json"));
    let definitions = data(&["collection", "export"]).stdout;
    std::fs::write(folder.path().join("all.json"), definitions).unwrap();
    code(&data(&["tenant", "create", "copy"]), 0);
    code(&data(&["collection", "import", "all.json", "--tenant", "copy"]), 0);
    code(&data(&["rules", "strangers"]), 0);
    let missing = data(&["rules", "explain", "notes", "nothing", "view"]);
    code(&missing, 5);
}

#[test]
fn a_column_that_is_no_field_is_passed_over_where_that_is_said() {
    let folder = with_notes();
    std::fs::write(folder.path().join("notes.csv"), "t,u\nx,y\n").unwrap();
    let import = ["records", "import", "notes", "--from", "notes.csv", "--tenant", "acme"];
    let said = code(&run(folder.path(), &import), 5);
    assert!(said.contains("\"u\" is no field of notes") && said.contains("--ignore-unknown"), "{said}");
    assert!(said.contains("Nothing of it is done") && !said.contains("up to 0"), "{said}");
    assert!(code(&run(folder.path(), &[&import[..], &["--ignore-unknown"]].concat()), 0).contains("\"created\": 1"));
    let listed = code(&run(folder.path(), &["audit", "list", "--tenant", "acme"]), 0);
    assert!(listed.contains("create notes/") && listed.contains("schema"), "what was done to data is named: {listed}");
    let csv = code(&run(folder.path(), &["audit", "export", "--tenant", "acme", "--format", "csv"]), 0);
    assert!(csv.lines().any(|line| line.contains(",create,notes,") && line.contains("\"\"t\"\":\"\"x\"\"")), "{csv}");
}

#[test]
fn the_command_line_speaks_to_a_node_with_certificates_of_any_name() {
    let folder = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["shop.example.com".to_owned()]).unwrap();
    std::fs::write(folder.path().join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let variables = [("TENANTRY__TLS__CERTIFICATE_FILES", "tls.crt"), ("TENANTRY__TLS__KEY_FILES", "tls.key")];
    let node = Node::start_with(folder.path(), &variables);
    assert!(node.url.starts_with("https://"), "{}", node.url);
    code(&run(folder.path(), &["tenant", "create", "acme", "--data-dir", "data"]), 0);
    let listed = code(&run(folder.path(), &["tenant", "list", "--data-dir", "data"]), 0);
    assert!(listed.contains("acme"), "{listed}");
    let pid = rustix::process::Pid::from_child(&node.child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    code(&run(folder.path(), &["tenant", "show", "acme", "--data-dir", "data"]), 0);
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn budgets_and_the_audit_log_are_at_hand_on_the_command_line() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path());
    let tenantry = |args: &[&str]| run(folder.path(), &[args, &["--data-dir", "data"]].concat());
    code(&tenantry(&["tenant", "create", "acme"]), 0);
    let limits = ["tenant", "limit", "acme", "--requests-per-minute", "600", "--storage-bytes", "1000000000"];
    code(&tenantry(&limits), 0);
    let shown = code(&tenantry(&["tenant", "limit", "acme"]), 0);
    assert!(shown.contains("/600") && shown.contains("/1000000000"), "{shown}");
    code(&tenantry(&["tenant", "limit", "acme", "--reset", "requestsPerMinute"]), 0);
    let shown = code(&tenantry(&["usage"]), 0);
    assert!(shown.contains("acme") && shown.contains("main") && !shown.contains("/600"), "{shown}");
    code(&tenantry(&["tenant", "limit", "acme", "--reset", "nonsense"]), 5);

    let listed = code(&tenantry(&["audit", "list", "--tenant", "_node"]), 0);
    assert!(listed.contains("superuser:node") && listed.contains("127.0.0.1"), "{listed}");
    let lines = code(&tenantry(&["audit", "export", "--tenant", "_node", "--collection", "_tenants"]), 0);
    assert!(lines.lines().all(|line| line.starts_with('{')) && lines.contains("acme"), "{lines}");
    let csv = code(&tenantry(&["audit", "export", "--tenant", "_node", "--format", "csv"]), 0);
    assert!(csv.starts_with("position,time,actor,ip,request,op,"), "{csv}");
    let held = code(&tenantry(&["audit", "verify", "--tenant", "_node"]), 0);
    assert!(held.contains("the chain holds"), "{held}");
    code(&tenantry(&["audit", "verify", "--tenant", "nobody"]), 5);
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn accounts_are_suspended_and_resumed_from_the_command_line() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path());
    let tenantry = |args: &[&str]| run(folder.path(), &[args, &["--data-dir", "data"]].concat());
    let ada = |command| ["user", command, "ada@example.com", "--collection", "_superusers"];
    code(&tenantry(&["superuser", "create", "ada@example.com"]), 0);
    let suspended = [&ada("suspend")[..], &["--reason", "left", "--until", "2999-01-31"]].concat();
    let suspended = tenantry(&suspended);
    assert!(code(&suspended, 0).contains("suspended ada@example.com"));
    code(&tenantry(&[&ada("suspend")[..], &["--until", "yesterday"]].concat()), 5);
    assert!(code(&tenantry(&ada("sessions")), 0).contains("SESSION"));
    // Of another account, or of nobody: not ada's.
    code(&tenantry(&[&ada("sessions")[..], &["--end", "abcdefghijklmno"]].concat()), 1);
    assert!(code(&tenantry(&[&ada("sessions")[..], &["--end-all"]].concat()), 0).contains("ended every session"));
    assert!(code(&tenantry(&ada("resume")), 0).contains("resumed"));
    code(&tenantry(&ada("resume")), 5);
    code(&tenantry(&["user", "resume", "nobody@example.com"]), 1);
    code(&tenantry(&["user", "suspend", "nobody"]), 5);
    code(&tenantry(&["superuser", "reset", "nobody@example.com"]), 1);
    let trail = code(&tenantry(&["audit", "list", "--tenant", "_node", "--kind", "auth"]), 0);
    assert!(trail.contains("suspend ok") && trail.contains("resume ok"), "{trail}");
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn what_is_made_is_for_its_owner_alone_and_an_export_overwrites_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    code(&run(folder.path(), &["tenant", "create", "acme"]), 0);
    let mut looked = 0;
    let mut folders = vec![folder.path().join("data")];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", entry.path().display());
            looked += 1;
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    assert!(looked > 5);
    code(&run(folder.path(), &["tenant", "export", "acme", "--out", "acme.tenant"]), 0);
    let before = std::fs::read(folder.path().join("acme.tenant")).unwrap();
    let said = code(&run(folder.path(), &["tenant", "export", "acme", "--out", "acme.tenant"]), 2);
    assert!(said.contains("acme.tenant exists"), "{said}");
    let said = code(&run(folder.path(), &["tenant", "export", "acme", "--out", "nowhere/acme.tenant"]), 1);
    assert!(said.contains("nowhere/acme.tenant: "), "{said}");
    assert_eq!(std::fs::read(folder.path().join("acme.tenant")).unwrap(), before);
}

/// The names of the threads of a process.
#[cfg(target_os = "linux")]
fn threads(of: &Child) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", of.id())).unwrap();
    // One may end while they are looked at.
    tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok()).collect()
}

#[cfg(target_os = "linux")]
#[expect(clippy::disallowed_methods, reason = "what another process does cannot be waited on")]
async fn moment() {
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

#[test]
#[cfg(target_os = "linux")]
fn an_open_tenant_with_nothing_to_do_holds_no_thread() {
    const TENANTS: usize = 48;
    tenantry::tls::install_provider();
    let folder = TempDir::new().unwrap();
    // The disk tier of the cache has a pool of its own that comes and goes with its work, whoever's that is.
    let node = Node::start_with(folder.path(), &[("TENANTRY__CACHE__DISK", "false")]);
    let key = std::fs::read_to_string(folder.path().join("data/node.key")).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = |method: &str, path: &str, body: Option<serde_json::Value>| {
        let request = client.request(method.parse().unwrap(), format!("{}{path}", node.url));
        let request = request.header("authorization", format!("Node {key}"));
        let request = body.into_iter().fold(request, |request, body| request.json(&body));
        async move {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.text().await.unwrap()
        }
    };
    // Made, written to and read from, so it has a writer's queue, a log and readers.
    let visit = async |slug: String| {
        send("POST", "/api/tenants", Some(serde_json::json!({ "slug": slug }))).await;
        let body = serde_json::json!({ "email": "a@example.com", "password": "a long word", "passwordConfirm": "a long word" });
        send("POST", &format!("/t/{slug}/api/collections/users/records"), Some(body)).await;
        send("GET", &format!("/t/{slug}/api/collections/users/records?filter=name~'x'"), None).await;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        visit("first".to_owned()).await;
        let with_one = threads(&node.child);
        for number in 0..TENANTS {
            visit(format!("t{number}")).await;
        }
        // Threads that blocking work borrows go after ten seconds of rest.
        let mut with_many = threads(&node.child);
        for _ in 0..900 {
            if with_many.len() <= with_one.len() {
                break;
            }
            moment().await;
            with_many = threads(&node.child);
        }
        let metrics = send("GET", "/metrics", None).await;
        let open = metrics.lines().find_map(|line| line.strip_prefix("tenantry_store_open_tenants "));
        let open: usize = open.unwrap().parse().unwrap();
        assert!(open > TENANTS, "{open} tenants are open");
        assert!(with_many.len() <= with_one.len(), "{with_many:?} with many, {with_one:?} with one");
    });
    assert_eq!(node.stop(), Some(0));
}
