//! What can be typed.
//!
//! Keeps true: help shows an example for every command. Does not do: anything; `commands` acts.

use super::outcome::EXIT_CODES;
use crate::config::{Config, ConfigError, RawConfig};
use crate::telemetry;
use clap::{Args as ClapArgs, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The multi-tenant backend in one binary.
///
/// Every customer gets a database of their own. Start with `tenantry serve --demo`.
#[derive(Debug, Parser)]
#[command(name = "tenantry", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(super) struct Args {
    /// Folder with everything the node keeps [default: data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Configuration file in TOML; `tenantry config print` shows all keys
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve the folder until SIGTERM or SIGINT
    #[command(
        after_help = "Examples:\n  tenantry serve --demo\n  tenantry serve --listen 0.0.0.0:80 --data-dir /var/lib/tenantry\n  TENANTRY__LOG__FORMAT=json tenantry serve"
    )]
    Serve(ServeArgs),
    /// Create, list and change tenants, with or without a running node
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Create superusers, give them new passwords, let them in who lost their second factor
    #[command(subcommand)]
    Superuser(SuperuserCommand),
    /// Suspend accounts, let them in again, look at their sessions and end them
    #[command(subcommand)]
    User(UserCommand),
    /// Look at blueprints and bring tenants to them
    #[command(subcommand)]
    Blueprint(BlueprintCommand),
    /// Ask why a rule holds, which rules look like mistakes, what a stranger can read
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Look at and move collections
    #[command(subcommand)]
    Collection(CollectionCommand),
    /// Bring records in and out as NDJSON or CSV
    #[command(subcommand)]
    Records(RecordsCommand),
    /// Look at the response cache, empty it, refill it, check it
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Show who uses how much of what, the busiest tenants first
    #[command(after_help = "Examples:\n  tenantry usage\n  tenantry usage --tenant acme\n  tenantry usage --watch")]
    Usage {
        /// Slug or id of the one tenant to show
        #[arg(long)]
        tenant: Option<String>,
        /// Show it anew every two seconds until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Look at the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Look at every tenant's file and log, and whether 256 MiB are free
    #[command(after_help = "Examples:\n  tenantry doctor --data-dir /var/lib/tenantry")]
    Doctor,
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  tenantry completions bash > /etc/bash_completion.d/tenantry\n  tenantry completions zsh > ~/.zfunc/_tenantry"
    )]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let wanted =
        "an IP address and a port are wanted, such as 127.0.0.1:8090, 0.0.0.0:80 or [::]:80; names are not looked up";
    text.parse().map_err(|_| wanted.to_owned())
}

#[derive(Debug, ClapArgs)]
pub(super) struct ServeArgs {
    /// Address and port [default: 127.0.0.1:8090]
    #[arg(long, value_name = "IP:PORT", value_parser = listen_address)]
    pub(super) listen: Option<SocketAddr>,
    /// Make a superuser, an empty tenant `main` and a tenant `demo-org` with sample data, if they are not there
    #[arg(long)]
    pub(super) demo: bool,
    /// Players in the sample data; for tests, which need no 20,000 of them
    #[arg(long, hide = true, requires = "demo")]
    pub(super) demo_players: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the effective configuration, secrets hidden
    #[command(
        after_help = "Examples:\n  tenantry config print\n  TENANTRY__HTTP__WORKERS=4 tenantry config print --config node.toml"
    )]
    Print,
}

#[derive(Debug, Subcommand)]
pub(super) enum SuperuserCommand {
    /// Create a superuser, who may do everything on this node
    #[command(after_help = "Examples:\n  tenantry superuser create ada@example.com --password-stdin < password.txt")]
    Create(SuperuserArgs),
    /// Give a superuser a new password and end every session
    #[command(after_help = "Examples:\n  tenantry superuser reset ada@example.com --password-stdin < password.txt")]
    Reset(SuperuserArgs),
    /// Take the authenticator app, recovery codes and passkeys of a locked-out superuser away and end every session
    #[command(after_help = "Examples:\n  tenantry superuser reset-mfa ada@example.com --data-dir /var/lib/tenantry")]
    ResetMfa {
        /// The e-mail address to log in with
        email: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct SuperuserArgs {
    /// The e-mail address to log in with
    pub(super) email: String,
    /// Read the password from the first line of the standard input; without it a password is made and printed once
    #[arg(long)]
    pub(super) password_stdin: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct UserArgs {
    /// E-mail address or record id of the account
    pub(super) account: String,
    /// Slug or id of the tenant
    #[arg(long, default_value = "main")]
    pub(super) tenant: String,
    /// The auth collection; `_superusers` are those of the node
    #[arg(long, default_value = "users")]
    pub(super) collection: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Refuse every login, token and API key of an account from now on
    #[command(
        after_help = "Examples:\n  tenantry user suspend ada@example.com --tenant acme --reason \"left the company\"\n  tenantry user suspend ada@example.com --until 2030-01-31"
    )]
    Suspend {
        #[command(flatten)]
        user: UserArgs,
        /// Why, for the administrators
        #[arg(long, default_value = "")]
        reason: String,
        /// Resume by itself at this moment, such as 2030-01-31 or 2030-01-31T08:00:00Z
        #[arg(long, default_value = "")]
        until: String,
    },
    /// Let a suspended account in again
    #[command(after_help = "Examples:\n  tenantry user resume ada@example.com --tenant acme")]
    Resume {
        #[command(flatten)]
        user: UserArgs,
    },
    /// List the sessions of an account, or end them
    #[command(
        after_help = "Examples:\n  tenantry user sessions ada@example.com --tenant acme\n  tenantry user sessions ada@example.com --end SESSION\n  tenantry user sessions ada@example.com --end-all"
    )]
    Sessions {
        #[command(flatten)]
        user: UserArgs,
        /// End this session
        #[arg(long, value_name = "SESSION", conflicts_with = "end_all")]
        end: Option<String>,
        /// End every session and token
        #[arg(long)]
        end_all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Create a tenant
    #[command(
        after_help = "Examples:\n  tenantry tenant create acme\n  tenantry tenant create acme --name \"Acme Ltd\" --blueprint tournament"
    )]
    Create {
        /// The name in URLs: a-z, 0-9 and -
        slug: String,
        /// The name for people [default: the slug]
        #[arg(long)]
        name: Option<String>,
        /// Start from this blueprint
        #[arg(long)]
        blueprint: Option<String>,
    },
    /// List all tenants
    List,
    /// Show one tenant
    Show {
        /// Slug or id
        tenant: String,
    },
    /// Change the slug or the name
    #[command(after_help = "Examples:\n  tenantry tenant rename acme --slug acme-inc --name \"Acme Inc\"")]
    Rename {
        /// Slug or id
        tenant: String,
        /// The new slug
        #[arg(long, required_unless_present = "name")]
        slug: Option<String>,
        /// The new name
        #[arg(long)]
        name: Option<String>,
    },
    /// Refuse every request to a tenant until it is resumed
    Suspend {
        /// Slug or id
        tenant: String,
    },
    /// Let a suspended tenant answer again
    Resume {
        /// Slug or id
        tenant: String,
    },
    /// Copy a tenant with all its data into a new one
    #[command(after_help = "Examples:\n  tenantry tenant clone acme acme-staging")]
    Clone {
        /// Slug or id of the original
        tenant: String,
        /// Slug of the copy
        slug: String,
        /// Name of the copy [default: its slug]
        #[arg(long)]
        name: Option<String>,
    },
    /// Write a tenant into one file
    #[command(
        after_help = "Examples:\n  tenantry tenant export acme --out acme.tenant\n  tenantry tenant export acme --out - | ssh backup 'cat > acme.tenant'"
    )]
    Export {
        /// Slug or id
        tenant: String,
        /// The file to write, which must not exist; - is the standard output
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a tenant from an exported file
    #[command(after_help = "Examples:\n  tenantry tenant import acme-copy --from acme.tenant")]
    Import {
        /// Slug of the new tenant
        slug: String,
        /// Name of the new tenant [default: the slug]
        #[arg(long)]
        name: Option<String>,
        /// The exported file
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// Give a tenant limits of its own, or show those in force
    #[command(
        after_help = "Examples:\n  tenantry tenant limit acme --requests-per-minute 600 --storage-bytes 1000000000\n  tenantry tenant limit acme --reset requestsPerMinute\n  tenantry tenant limit acme"
    )]
    Limit {
        /// Slug or id
        tenant: String,
        /// Requests per minute; 0 is no limit
        #[arg(long)]
        requests_per_minute: Option<u64>,
        /// Requests per day; 0 is no limit
        #[arg(long)]
        requests_per_day: Option<u64>,
        /// Records changed per minute; 0 is no limit
        #[arg(long)]
        writes_per_minute: Option<u64>,
        /// Steps of SQLite per minute; 0 is no limit
        #[arg(long)]
        read_steps_per_minute: Option<u64>,
        /// Bytes of database, log and files; 0 is no limit
        #[arg(long)]
        storage_bytes: Option<u64>,
        /// Requests at the same moment; 0 is no limit
        #[arg(long)]
        concurrent_requests: Option<u64>,
        /// Open connections; 0 is no limit
        #[arg(long)]
        connections: Option<u64>,
        /// Go back to the node's default for this limit, by its name in the API; may be repeated
        #[arg(long, value_name = "NAME")]
        reset: Vec<String>,
    },
    /// Delete a tenant with all its data
    #[command(after_help = "Examples:\n  tenantry tenant delete acme --yes")]
    Delete {
        /// Slug or id
        tenant: String,
        /// Really
        #[arg(long, required = true)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BlueprintCommand {
    /// List the blueprints of this node
    List,
    /// Write a blueprint as JSON
    #[command(after_help = "Examples:\n  tenantry blueprint show tournament > mine.json")]
    Show {
        /// Its name
        name: String,
    },
    /// Add a blueprint, or a newer version of one
    #[command(after_help = "Examples:\n  tenantry blueprint publish mine.json")]
    Publish {
        /// A file as `blueprint show` writes it
        file: PathBuf,
    },
    /// Bring a tenant to the newest version of a blueprint; what it has beside it stays
    #[command(after_help = "Examples:\n  tenantry blueprint apply cms --tenant acme --dry-run")]
    Apply {
        /// Its name
        name: String,
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
        /// Only tell what would change
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// Say why somebody may or may not do something to a record
    #[command(
        after_help = "Examples:\n  tenantry rules explain posts RECORD view --tenant acme --as users/USER\n  tenantry rules explain employees RECORD view --as users/USER --field salary\n  tenantry rules explain posts - create --body '{\"title\": \"new\"}'"
    )]
    Explain {
        /// Name of the collection
        collection: String,
        /// Id of the record; - for a creation
        record: String,
        /// list, view, create, update, delete, manage or auth
        action: String,
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
        /// Who: collection/id; without it, somebody who is not logged in
        #[arg(long = "as", value_name = "COLLECTION/ID")]
        caller: Option<String>,
        /// A field whose own rule (readRule, writeRule) is asked instead of the record's: for reading with list and view, for
        /// writing with create and update; where it has none, ask without this
        #[arg(long)]
        field: Option<String>,
        /// The body that would be sent, as JSON
        #[arg(long, value_name = "JSON")]
        body: Option<String>,
    },
    /// Run the promises that a blueprint makes about its rules
    #[command(
        after_help = "Examples:\n  tenantry rules test tournament\n  tenantry rules test tournament --tenant acme"
    )]
    Test {
        /// Name of the blueprint
        blueprint: String,
        /// Slug or id of a tenant whose present rules are tried, with the records of the promises only; nothing changes
        #[arg(long)]
        tenant: Option<String>,
    },
    /// List rules that look like mistakes
    Lint {
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
    },
    /// Report what somebody who is not logged in can read
    Strangers {
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum CollectionCommand {
    /// List the collections of a tenant
    List {
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
    },
    /// Write the definitions of a tenant's collections as JSON
    #[command(after_help = "Examples:\n  tenantry collection export --tenant acme > collections.json")]
    Export {
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
    },
    /// Make a tenant's collections as a JSON file says
    #[command(after_help = "Examples:\n  tenantry collection import collections.json --tenant acme")]
    Import {
        /// What `collection export` wrote
        file: PathBuf,
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
        /// Also delete collections and fields that the file does not have
        #[arg(long)]
        delete_missing: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RecordsCommand {
    /// Write records to the standard output
    #[command(
        after_help = "Examples:\n  tenantry records export notes --tenant acme > notes.ndjson\n  tenantry records export notes --format csv --filter \"done = false\""
    )]
    Export {
        /// Name of the collection
        collection: String,
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
        /// ndjson or csv
        #[arg(long, default_value = "ndjson")]
        format: String,
        /// Only records that satisfy this filter
        #[arg(long)]
        filter: Option<String>,
    },
    /// Read records from a file; a row with the id of a record changes it
    #[command(
        after_help = "Examples:\n  tenantry records import notes --from notes.ndjson --tenant acme\n  tenantry records import notes --from notes.csv --dry-run\n  tenantry records import notes --from notes.ndjson --key monday"
    )]
    Import {
        /// Name of the collection
        collection: String,
        /// The file
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
        /// ndjson or csv; without it, csv for a file that is called .csv, else ndjson
        #[arg(long)]
        format: Option<String>,
        /// Check every row, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Pass over rows up to this line, to go on after an interruption
        #[arg(long, default_value_t = 0)]
        skip_lines: u64,
        /// A word of your own for this import; given again, the import goes on where it was cut
        #[arg(long)]
        key: Option<String>,
        /// Pass over columns that are no fields of the collection, instead of refusing them
        #[arg(long)]
        ignore_unknown: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Show hits, misses and sizes, of the node by tenant or of a tenant by collection
    #[command(after_help = "Examples:\n  tenantry cache stats\n  tenantry cache stats --tenant acme")]
    Stats {
        /// Slug or id of the tenant
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Forget answers; nothing that is named is served again
    #[command(
        after_help = "Examples:\n  tenantry cache purge --tenant acme --collection posts\n  tenantry cache purge --tenant acme --tag front\n  tenantry cache purge --tenant acme --event order.paid\n  tenantry cache purge --tenant acme --all\n  tenantry cache purge --all",
        group = clap::ArgGroup::new("what").required(true).args(["key", "tag", "event", "collection", "all"])
    )]
    Purge {
        /// Slug or id of the tenant; left out, `main`, and with --all every tenant
        #[arg(long)]
        tenant: Option<String>,
        /// One answer, by the key that `cache stats` of the API names
        #[arg(long)]
        key: Option<String>,
        /// Every answer with a word of `Cache-Tag`, such as a policy's tag; the tenant's id in front may be left out
        #[arg(long)]
        tag: Option<String>,
        /// Every answer whose collection's policy names an event that has happened
        #[arg(long)]
        event: Option<String>,
        /// Every answer of a collection
        #[arg(long)]
        collection: Option<String>,
        /// Everything of the tenant, or of every tenant where none is named
        #[arg(long)]
        all: bool,
    },
    /// Read again what was asked for often and is not there any more
    #[command(after_help = "Examples:\n  tenantry cache warm --tenant acme")]
    Warm {
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
    },
    /// Recompute a sample of the kept answers and compare
    #[command(after_help = "Examples:\n  tenantry cache verify --tenant acme --sample 500")]
    Verify {
        /// Slug or id of the tenant
        #[arg(long, default_value = "main")]
        tenant: String,
        /// Answers to recompute at most
        #[arg(long, default_value_t = 100)]
        sample: u32,
    },
}

#[derive(Debug, Default, ClapArgs)]
pub(super) struct AuditFilter {
    /// Slug or id of the tenant; `_node` is the log of the node itself
    #[arg(long, default_value = "main")]
    pub(super) tenant: String,
    /// auth: who came in, who tried to, whose access was changed; change: everything else
    #[arg(long)]
    pub(super) kind: Option<String>,
    /// Only changes by this actor
    #[arg(long)]
    pub(super) actor: Option<String>,
    /// Only changes in this collection
    #[arg(long)]
    pub(super) collection: Option<String>,
    /// Only changes of this record
    #[arg(long)]
    pub(super) record: Option<String>,
    /// Only changes from this address
    #[arg(long)]
    pub(super) ip: Option<String>,
    /// Only changes of this request
    #[arg(long)]
    pub(super) request: Option<String>,
    /// Only changes from this moment on, such as 2026-01-31 or 2026-01-31T08:00:00Z
    #[arg(long)]
    pub(super) from: Option<String>,
    /// Only changes before this moment
    #[arg(long)]
    pub(super) until: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Show the newest entries as a table
    #[command(
        after_help = "Examples:\n  tenantry audit list --tenant acme --actor record:users/USER\n  tenantry audit list --tenant acme --kind auth"
    )]
    List(AuditFilter),
    /// Write every matching entry to the standard output
    #[command(
        after_help = "Examples:\n  tenantry audit export --tenant acme > audit.ndjson\n  tenantry audit export --tenant acme --format csv --from 2026-01-01"
    )]
    Export {
        #[command(flatten)]
        filter: AuditFilter,
        /// ndjson or csv
        #[arg(long, default_value = "ndjson")]
        format: String,
    },
    /// Check that nobody changed the log behind the node's back
    #[command(after_help = "Examples:\n  tenantry audit verify --tenant acme")]
    Verify {
        /// Slug or id of the tenant; `_node` is the log of the node itself
        #[arg(long, default_value = "main")]
        tenant: String,
    },
}

impl Args {
    /// Defaults < file < environment < flags.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        let mut raw = RawConfig::default().with_check("log.filter", telemetry::check_filter);
        if let Some(path) = &self.config {
            raw = raw.with_file(path);
        }
        raw = raw.with_env(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        );
        if let Some(dir) = &self.data_dir {
            raw = raw.with_flag("--data-dir", "data.dir", dir.display().to_string());
        }
        if let Command::Serve(ServeArgs { listen: Some(listen), .. }) = &self.command {
            raw = raw.with_flag("--listen", "http.listen", listen.to_string());
        }
        raw.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_is_sound() {
        Args::command().debug_assert();
    }
}
