//! L5: configuration. What was typed, in layers, becomes one validated [`Config`].
//!
//! Precedence: defaults < TOML file < `TENANTRY__SECTION__KEY` < flags. Keeps true: a [`Config`] exists only if every
//! key is known and in range, and all mistakes are reported together, each with its key and where it was written.
//! Does not do: settings that change while the node runs; those live in the control database.

mod sections;
mod value;

pub use sections::{
    AcmeConfig, BudgetsConfig, CacheConfig, Config, DataConfig, HttpConfig, Key, LimitsConfig, LogConfig, MailConfig,
    OutboundConfig, TlsConfig,
};
pub use value::{Cidr, LogFormat};

use sections::RENAMED;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use toml::{Table, Value};

/// The prefix of environment variables that are keys.
pub const ENV_PREFIX: &str = "TENANTRY__";

/// One value as it was typed, before anything is known about its key.
#[derive(Debug, Clone)]
pub struct Entry {
    /// `section.key`.
    pub path: String,
    /// What was written.
    pub value: Value,
    /// Where: file name, variable or flag.
    pub source: String,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The key at fault, or the file that could not be read.
    pub path: String,
    /// Where it was written.
    pub source: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} problem(s){}", .0.len(), .0.iter().map(line).collect::<String>())]
pub struct ConfigError(pub Vec<ConfigProblem>);

fn line(problem: &ConfigProblem) -> String {
    format!("\n  {}: {} ({})", problem.path, problem.message, problem.source)
}

/// The layers above the defaults, weakest first.
#[derive(Debug, Default)]
pub struct RawConfig {
    entries: Vec<Entry>,
    problems: Vec<ConfigProblem>,
    checks: Vec<(&'static str, Check)>,
}

/// Says what is wrong with a text.
pub type Check = fn(&str) -> Result<(), String>;

impl RawConfig {
    /// Adds a TOML file.
    #[must_use]
    pub fn with_file(self, path: &Path) -> Self {
        let source = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self.with_toml(&text, &source),
            Err(error) => self.with_problem(&source, &source, format!("cannot be read: {error}")),
        }
    }

    /// Adds TOML text; `source` is what problems call it.
    #[must_use]
    pub fn with_toml(mut self, text: &str, source: &str) -> Self {
        let table = match text.parse::<Table>() {
            Ok(table) => table,
            Err(error) => return self.with_problem(source, source, format!("is not TOML: {}", error.message())),
        };
        for (section, value) in table {
            match value {
                Value::Table(keys) => self.entries.extend(keys.into_iter().map(|(key, value)| Entry {
                    path: format!("{section}.{key}"),
                    value,
                    source: source.to_owned(),
                })),
                value => self.entries.push(Entry { path: section, value, source: source.to_owned() }),
            }
        }
        self
    }

    /// Adds the variables that begin with [`ENV_PREFIX`]; others are ignored.
    #[must_use]
    pub fn with_env(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, text) in variables {
            if let Some(path) = name.strip_prefix(ENV_PREFIX) {
                let path = path.to_ascii_lowercase().replacen("__", ".", 1);
                self.entries.push(Entry { path, value: Value::String(text), source: name });
            }
        }
        self
    }

    /// Adds one flag.
    #[must_use]
    pub fn with_flag(mut self, flag: &str, path: &str, value: impl Into<Value>) -> Self {
        self.entries.push(Entry { path: path.to_owned(), value: value.into(), source: flag.to_owned() });
        self
    }

    /// Adds a check of a text that only the part which it configures can make; configuration imports no such part.
    #[must_use]
    pub fn with_check(mut self, path: &'static str, check: Check) -> Self {
        self.checks.push((path, check));
        self
    }

    fn with_problem(mut self, path: &str, source: &str, message: String) -> Self {
        self.problems.push(ConfigProblem { path: path.to_owned(), source: source.to_owned(), message });
        self
    }

    /// Checks every entry, the strongest layer last, and reports all mistakes together.
    pub fn validate(self) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        let mut problems = self.problems;
        let is_public_url_left_out = self.entries.iter().all(|entry| entry.path != "http.public_url");
        for entry in self.entries {
            let checked = || match (self.checks.iter().find(|(path, _)| *path == entry.path), entry.value.as_str()) {
                (Some((_, check)), Some(text)) => check(text),
                _ => Ok(()),
            };
            let message = match config.set(&entry.path, &entry.value).map(|set| set.and_then(|()| checked())) {
                Some(Ok(())) => continue,
                Some(Err(message)) => message,
                None => unknown(&entry.path),
            };
            problems.push(ConfigProblem { path: entry.path, source: entry.source, message });
        }
        // A port that the system chooses is not known yet.
        if is_public_url_left_out && config.http.listen.port() != 0 {
            config.http.public_url = config.local_url();
        }
        problems.extend(contradictions(&config));
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }
}

fn contradictions(config: &Config) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    if config.http.body_bytes_max > config.http.multipart_bytes_max {
        problems.push(ConfigProblem {
            path: "http.multipart_bytes_max".to_owned(),
            source: "together with http.body_bytes_max".to_owned(),
            message: "must not be smaller than http.body_bytes_max".to_owned(),
        });
    }
    let tls = &config.tls;
    if tls.certificate_files.len() != tls.key_files.len() {
        problems.push(ConfigProblem {
            path: "tls.key_files".to_owned(),
            source: "together with tls.certificate_files".to_owned(),
            message: format!("has {} files for {} certificates", tls.key_files.len(), tls.certificate_files.len()),
        });
    }
    if tls.redirect_listen.is_some() && !config.serves_tls() {
        problems.push(ConfigProblem {
            path: "tls.redirect_listen".to_owned(),
            source: "together with tls.certificate_files".to_owned(),
            message: "needs a certificate to redirect to".to_owned(),
        });
    }
    if config.acme.enabled && !config.acme.terms_agreed {
        problems.push(ConfigProblem {
            path: "acme.terms_agreed".to_owned(),
            source: "together with acme.enabled".to_owned(),
            message: "must be true: the authority wants its terms agreed to".to_owned(),
        });
    }
    problems
}

impl Config {
    /// Whether the listener speaks TLS.
    pub fn serves_tls(&self) -> bool {
        !self.tls.certificate_files.is_empty() || self.acme.enabled
    }

    /// Where somebody on this machine reaches the node.
    fn local_url(&self) -> String {
        let scheme = if self.serves_tls() { "https" } else { "http" };
        let mut address = self.http.listen;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        format!("{scheme}://{address}")
    }
}

fn unknown(path: &str) -> String {
    if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == path) {
        return format!("was renamed to {new}");
    }
    let nearest = Config::keys().into_iter().map(|key| (distance(path, key.path), key.path)).min();
    match nearest {
        Some((distance, near)) if distance <= 3 => format!("is not a key; did you mean {near}?"),
        _ => "is not a key; `tenantry config print` shows all keys".to_owned(),
    }
}

/// Edit distance (Levenshtein, 1966), for suggestions.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = (diagonal + usize::from(from != *to)).min(left + 1).min(*above + 1);
            diagonal = std::mem::replace(above, cost);
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The README table of keys, in Markdown.
pub fn keys_markdown() -> String {
    let mut out = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    for key in Config::keys() {
        out.push_str(&format!("| `{}` | {} | `{}` | {} |\n", key.path, key.kind, key.default, key.doc));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn later_layers_win() {
        let config = RawConfig::default()
            .with_toml("[http]\nworkers = 2\nkeep_alive_s = 5\n[data]\ndir = 'a'", "t.toml")
            .with_env(env(&[("TENANTRY__HTTP__WORKERS", "3"), ("TENANTRY__DATA__DIR", "b"), ("HOME", "x")]))
            .with_flag("--data-dir", "data.dir", "c")
            .validate()
            .unwrap();
        assert_eq!((config.http.workers, config.http.keep_alive_s), (3, 5));
        assert_eq!(config.data.dir, Path::new("c"));
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_its_key() {
        let error = RawConfig::default()
            .with_toml("[http]\nworkers = -1\nlissten = 'x'\naddress = 'y'\n[log]\nformat = 'xml'", "t.toml")
            .with_env(env(&[("TENANTRY__HTTP__LISTEN", "here"), ("TENANTRY__HTTP__KEEP_ALIVE_S", "0")]))
            .validate()
            .unwrap_err();
        let paths: Vec<_> = error.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            ["http.workers", "http.lissten", "http.address", "log.format", "http.listen", "http.keep_alive_s"]
        );
        let text = error.to_string();
        assert!(text.contains("did you mean http.listen?") && text.contains("was renamed to http.listen"), "{text}");
    }

    #[test]
    fn a_text_that_another_part_understands_is_checked_with_the_rest() {
        let even = |text: &str| if text.len().is_multiple_of(2) { Ok(()) } else { Err(format!("{text:?} is odd")) };
        let read = |filter: &str| {
            let text = format!("[log]\nfilter = '{filter}'\nformat = 'xml'");
            RawConfig::default().with_check("log.filter", even).with_toml(&text, "t.toml").validate().unwrap_err().0
        };
        let paths = |problems: Vec<ConfigProblem>| problems.into_iter().map(|one| one.path).collect::<Vec<_>>();
        assert_eq!(paths(read("odd")), ["log.filter", "log.format"]);
        assert_eq!(paths(read("even")), ["log.format"]);
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        let config = RawConfig::default()
            .with_toml("[http]\ntrusted_proxies = ['10.0.0.0/8']\nmetrics_token = 'sesame'", "t.toml")
            .validate()
            .unwrap();
        let printed = config.to_toml();
        assert!(!printed.contains("sesame"), "{printed}");
        let again = RawConfig::default().with_toml(&printed, "printed").validate().unwrap();
        assert_eq!(again.to_toml(), printed);
    }

    #[test]
    fn the_public_url_follows_the_listener_unless_it_is_said() {
        let url = |text: &str| RawConfig::default().with_toml(text, "test").validate().unwrap().http.public_url;
        assert_eq!(url(""), "http://127.0.0.1:8090");
        assert_eq!(url("[http]\nlisten = \"127.0.0.1:18471\""), "http://127.0.0.1:18471");
        assert_eq!(url("[http]\nlisten = \"0.0.0.0:80\""), "http://127.0.0.1:80");
        assert_eq!(url("[http]\nlisten = \"[::]:81\""), "http://[::1]:81");
        let tls = "[tls]\ncertificate_files = [\"a\"]\nkey_files = [\"b\"]";
        assert_eq!(url(&format!("[http]\nlisten = \"127.0.0.1:443\"\n{tls}")), "https://127.0.0.1:443");
        let said = "[http]\nlisten = \"127.0.0.1:1\"\npublic_url = \"https://app.example.com\"";
        assert_eq!(url(said), "https://app.example.com");
    }

    #[test]
    fn defaults_are_within_their_own_ranges() {
        let printed = Config::default().to_toml();
        assert_eq!(RawConfig::default().with_toml(&printed, "defaults").validate().unwrap().to_toml(), printed);
    }
}
