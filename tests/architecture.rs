//! The rules of the house, checked by machine: who may import whom, which crate belongs to which room, what every file
//! has, what no file has.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: a panic is the failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may name with `crate::`, bottom up. A room is a top-level module; `services` rooms are listed below.
const ALLOWED: &[(&str, &[&str])] = &[
    ("kernel", &[]),
    ("schema", &["kernel"]),
    ("query", &["kernel", "schema"]),
    ("access", &["kernel", "schema", "query"]),
    ("telemetry", &["kernel"]),
    ("secrets", &["kernel"]),
    ("tls", &["kernel"]),
    ("store", &["kernel", "schema", "query", "telemetry"]),
    ("cache", &["kernel", "schema", "telemetry", "store"]),
    ("outbound", &["kernel", "tls"]),
    ("services", &["kernel", "schema", "query", "access", "telemetry", "secrets", "store", "cache", "outbound"]),
    ("http", &["kernel", "schema", "query", "access", "telemetry", "secrets", "tls", "store", "cache", "services"]),
    ("config", &["kernel", "secrets"]),
    (
        "app",
        &[
            "kernel",
            "schema",
            "query",
            "access",
            "telemetry",
            "secrets",
            "tls",
            "store",
            "cache",
            "outbound",
            "services",
            "http",
            "config",
        ],
    ),
    ("cli", &["kernel", "secrets", "tls", "telemetry", "config", "app"]),
    ("main", &["cli"]),
];

/// Crates that one room owns; nobody else names them. `ring` and `quick_cache` have a second reader with a reason.
const OWNERS: &[(&str, &[&str])] = &[
    ("actix_web", &["http"]),
    ("actix_multipart", &["http"]),
    ("actix_tls", &["http"]),
    ("actix_http", &["http"]),
    ("actix_service", &["http"]),
    ("foldhash", &["http"]),
    ("rusqlite", &["store"]),
    ("r2d2", &["store"]),
    ("r2d2_sqlite", &["store"]),
    ("scheduled_thread_pool", &["store"]),
    ("minicbor", &["store"]),
    ("sled", &["cache"]),
    // services keep compiled query plans, which hold typed schema references and so cannot live in the byte cache.
    ("quick_cache", &["cache", "services"]),
    ("argon2", &["secrets"]),
    ("zxcvbn", &["secrets"]),
    ("totp_rs", &["secrets"]),
    ("webauthn_rs", &["services"]),
    // kernel::random is the operating system's generator; entity tags are SHA-256 made where bodies are made.
    ("ring", &["secrets", "tls", "kernel", "cache", "services", "store"]),
    ("flate2", &["http", "cache"]),
    ("brotli", &["http", "cache"]),
    ("zstd", &["http", "cache"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("comfy_table", &["cli"]),
    ("indicatif", &["cli"]),
    // tls asks for certificates, services::purging tells caches; what settings name is reached through outbound alone
    ("reqwest", &["tls", "cli", "outbound", "services"]),
    ("lettre", &["services"]),
    ("rustls", &["tls"]),
    ("toml", &["config"]),
    ("rcgen", &["tls"]),
    ("instant_acme", &["tls"]),
    ("acme_http", &["tls"]),
    ("x509_parser", &["tls"]),
    ("mime_guess", &["services"]),
    ("infer", &["services"]),
    ("tracing_subscriber", &["telemetry"]),
];

struct Source {
    path: PathBuf,
    room: String,
    /// Without comments and string literals.
    code: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    found.sort();
    let load = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let relative = path.strip_prefix(&root).unwrap().to_owned();
        let first = relative.iter().next().unwrap().to_string_lossy();
        let room = first.trim_end_matches(".rs").to_owned();
        Source { path: relative, room, code: strip(&text), text }
    };
    found.into_iter().map(load).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Takes out comments and the inside of string literals, keeping everything else.
fn strip(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(letter) = chars.next() {
        match letter {
            '/' if chars.peek() == Some(&'/') => {
                for skipped in chars.by_ref() {
                    if skipped == '\n' {
                        out.push('\n');
                        break;
                    }
                }
            }
            '"' => {
                out.push('"');
                while let Some(inside) = chars.next() {
                    match inside {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                out.push('"');
            }
            '\'' if chars.peek() == Some(&'"') => {
                chars.next();
                chars.next();
            }
            _ => out.push(letter),
        }
    }
    out
}

/// The words that directly follow `prefix`; `{a, b::c}` counts as all its first words.
fn words_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0, 0);
            for (position, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => {
                        found.insert(word(group[start..position].trim()));
                        break;
                    }
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.insert(word(group[start..position].trim()));
                        start = position + 1;
                    }
                    _ => {}
                }
            }
        } else {
            found.insert(word(rest));
        }
    }
    found.remove("");
    found
}

#[test]
fn imports_run_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.room != "lib") {
        let may = allowed.get(source.room.as_str()).unwrap_or_else(|| panic!("no rule for {}", source.room));
        let prefix = if source.room == "main" { "tenantry::" } else { "crate::" };
        for named in words_after(&source.code, prefix) {
            if named != source.room && !may.contains(&named.as_str()) {
                wrong.push(format!("{}: {prefix}{named}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that the layers do not allow:\n{}", wrong.join("\n"));
}

#[test]
fn the_allow_list_itself_has_no_cycle() {
    // Every room names only rooms above it in the list, so a cycle cannot be written down.
    for (position, (room, may)) in ALLOWED.iter().enumerate() {
        for named in *may {
            let at = ALLOWED.iter().position(|(other, _)| other == named).unwrap();
            assert!(at < position, "{room} may not name {named}, which comes later");
        }
    }
}

/// The rooms inside `services`, each naming only those before it.
const SERVICES: &[&str] = &[
    "throttle",
    "login_guard",
    "budget",
    "blueprints",
    "tenants",
    "doctor",
    "settings",
    "passwords",
    "mail",
    "purging",
    "collections",
    "sample",
    "auth",
    "files",
    "records",
];

#[test]
fn services_have_no_cycle_among_themselves() {
    let mut named_by: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| source.room == "services") {
        let Some(service) = source.path.iter().nth(1) else { continue };
        let service = service.to_string_lossy().trim_end_matches(".rs").to_owned();
        let mut named = words_after(&source.code, "crate::services::");
        named.remove(&service);
        named_by.entry(service).or_default().extend(named);
    }
    for (service, named) in &named_by {
        assert!(service == "mod" || SERVICES.contains(&service.as_str()), "no place for services::{service}");
        for other in named {
            let back = reaches(&named_by, other, service, &mut BTreeSet::new());
            assert!(!back, "services::{service} and services::{other} name each other");
        }
    }
}

fn reaches(graph: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str, seen: &mut BTreeSet<String>) -> bool {
    from == to
        || (seen.insert(from.to_owned())
            && graph.get(from).is_some_and(|next| next.iter().any(|next| reaches(graph, next, to, seen))))
}

#[test]
fn every_crate_has_one_owner() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, owners) in OWNERS {
            let uses = source.code.match_indices(&format!("{name}::")).any(|(at, _)| {
                !source.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '.')
            });
            if uses && !owners.contains(&source.room.as_str()) {
                wrong.push(format!("{} names {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut all: Vec<(PathBuf, String)> = sources().into_iter().map(|source| (source.path, source.text)).collect();
    for folder in ["tests", "benches"] {
        let mut found = Vec::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        if root.is_dir() {
            collect(&root, &mut found);
        }
        all.extend(found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())));
    }
    let bare: Vec<_> = all.iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(bare.is_empty(), "files without a header: {bare:?}");
}

#[test]
fn nothing_is_left_to_do_later() {
    // Put together from halves, so that this list does not find itself.
    let marks =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"], ["todo", "!("], ["unimplemented", "!("]].map(|half| half.concat());
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                wrong.push(format!("{}:{}: {}", source.path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_dead() {
    let sources = sources();
    let declares = |path: &Path, module: &str| {
        let declared = |keyword: &str| {
            sources.iter().any(|source| source.path == path && source.code.contains(&format!("{keyword} {module};")))
        };
        declared("mod")
    };
    let mut dead = Vec::new();
    for source in sources.iter().filter(|source| !["lib", "main"].contains(&source.room.as_str())) {
        let (folder, name) = (source.path.parent().unwrap(), source.path.file_stem().unwrap().to_string_lossy());
        let (folder, name) = if name == "mod" {
            (folder.parent().unwrap(), folder.file_name().unwrap().to_string_lossy())
        } else {
            (folder, name)
        };
        let parents = [folder.join("mod.rs"), folder.with_extension("rs"), PathBuf::from("lib.rs")];
        let parents = if folder == Path::new("") { &parents[2..] } else { &parents[..2] };
        if !parents.iter().any(|parent| declares(parent, &name)) {
            dead.push(source.path.display().to_string());
        }
    }
    assert!(dead.is_empty(), "files that no module declares: {dead:?}");
}

#[test]
fn files_fit_a_reader() {
    let long: Vec<_> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), source.path.display().to_string()))
        .filter(|(lines, _)| *lines > 900)
        .collect();
    assert!(long.is_empty(), "files past 900 lines: {long:?}");
}

#[test]
fn the_readme_lists_every_configuration_key() {
    const BEGIN: &str = "<!-- keys: generated by `cargo test readme`, do not edit -->\n";
    const END: &str = "<!-- end of keys -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has the begin marker of the key table");
    let (shown, after) = rest.split_once(END).expect("README.md has the end marker of the key table");
    let wanted = tenantry::config::keys_markdown();
    if shown != wanted && std::env::var_os("UPDATE_README").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        assert!(shown == wanted, "the key table is out of date; run UPDATE_README=1 cargo test --test architecture");
    }
}

/// Items of levels 1 and 2 in the chapters of ASVS 5.0 that SECURITY.md answers: section, and its items.
const ASVS: &[(&str, &[u8])] = &[
    ("2.4", &[1]),
    ("6.1", &[1, 2, 3]),
    ("6.2", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ("6.3", &[1, 2, 3, 4]),
    ("6.4", &[1, 2, 3, 4]),
    ("6.5", &[1, 2, 3, 4, 5]),
    ("6.6", &[1, 2, 3]),
    ("6.8", &[1, 2, 3, 4]),
    ("7.1", &[1, 2, 3]),
    ("7.2", &[1, 2, 3, 4]),
    ("7.3", &[1, 2]),
    ("7.4", &[1, 2, 3, 4, 5]),
    ("7.5", &[1, 2]),
    ("7.6", &[1, 2]),
    ("8.1", &[1, 2]),
    ("8.2", &[1, 2, 3]),
    ("8.3", &[1]),
    ("8.4", &[1]),
    ("9.1", &[1, 2, 3]),
    ("9.2", &[1, 2, 3, 4]),
    ("10.1", &[1, 2]),
    ("10.2", &[1, 2]),
    ("10.5", &[1, 2, 3, 4, 5]),
    ("16.2", &[1, 2, 3, 4, 5]),
    ("16.3", &[1, 2, 3, 4]),
    ("16.4", &[1, 2, 3]),
];

/// What SECURITY.md calls the way in behind each route that lets somebody in.
const WAYS_IN: &[(&str, &str)] = &[
    ("auth-refresh", "refresh"),
    ("auth-with-oauth2", "OAuth2/OIDC"),
    ("auth-with-otp", "one-time code by mail"),
    ("auth-with-passkey", "passkey"),
    ("auth-with-password", "password"),
    ("auth-with-recovery-code", "recovery code"),
    ("auth-with-totp", "authenticator app"),
];

#[test]
fn the_ways_to_log_in_are_those_that_security_md_names() {
    let routes: BTreeSet<&str> = tenantry::http::routes::TABLE
        .iter()
        .flat_map(|(path, _)| path.split('/'))
        .filter(|part| part.starts_with("auth-") && !["auth-methods", "auth-logout"].contains(part))
        .collect();
    let named: BTreeSet<&str> = WAYS_IN.iter().map(|(route, _)| *route).collect();
    assert_eq!(routes, named, "a new way in is named in SECURITY.md and here");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md")).unwrap();
    let (_, section) = text.split_once("\nWays to log in: ").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for (route, words) in WAYS_IN {
        assert!(section.contains(words), "SECURITY.md does not name {words:?}, the way in by {route}");
    }
}

#[test]
fn every_test_that_security_md_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut files = Vec::new();
    ["src", "tests"].iter().for_each(|folder| collect(&root.join(folder), &mut files));
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line[2..].starts_with(|first: char| first.is_ascii_digit()))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let wanted: Vec<String> =
        ASVS.iter().flat_map(|(section, items)| items.iter().map(move |item| format!("{section}.{item}"))).collect();
    let shown: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(shown, wanted, "every item, once, in order");
    let mut wrong = Vec::new();
    for row in &rows {
        let (item, state, tests) = (row[0], row[2], row.get(4).copied().unwrap_or_default());
        if !["met", "partly", "not met", "not applicable"].contains(&state) {
            wrong.push(format!("{item}: no state {state:?}"));
        }
        for name in tests.split('`').skip(1).step_by(2) {
            let is_there = match name.contains('/') {
                true => root.join(name).is_file(),
                false => code.contains(&format!("fn {name}(")),
            };
            if !is_there {
                wrong.push(format!("{item}: there is no {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
