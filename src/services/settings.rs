//! What a tenant's superuser sets at run time: how its mails look and how they leave.
//!
//! Keeps true: kept in the tenant's own file, so it moves with the tenant; the mail server's password is sealed there and
//! never shown; what a change does not mention stays. Does not do: sending (`mail`), the node's own configuration.

use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::ident::RecordId;
use crate::kernel::random::Random;
use crate::kernel::value::Stored;
use crate::query::error::closest;
use crate::secrets::Secret;
use crate::secrets::seal::Sealer;
use crate::services::tenants::rows;
use crate::services::tenants::sealed::SMTP_PASSWORD_PLACE;
use crate::services::tenants::system::SETTINGS;
use crate::store::{Reader, StoreError, TenantDb, WriteMeta, WriteTx};
use lettre::Address;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::Arc;
use url::Url;

const TEXT_CHARS_MAX: usize = 255;

/// How the connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encryption {
    /// TLS after `STARTTLS`, without which nothing is sent.
    #[default]
    StartTls,
    /// TLS from the first byte.
    Implicit,
    /// None, for a server on the same machine or network.
    None,
}

impl Encryption {
    /// The name in settings and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StartTls => "starttls",
            Self::Implicit => "implicit",
            Self::None => "none",
        }
    }

    /// Reads the name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::StartTls, Self::Implicit, Self::None].into_iter().find(|one| one.as_str() == text)
    }
}

/// How a tenant presents itself in mails; empty members fall back to the node's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetaSettings {
    /// `{APP_NAME}`.
    pub app_name: String,
    /// `{APP_URL}`.
    pub app_url: String,
    /// Name in `From`.
    pub sender_name: String,
    /// Address in `From`.
    pub sender_address: String,
}

/// A tenant's own mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpSettings {
    /// Whether it is used; if not, the node's is.
    pub enabled: bool,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Login, empty for none.
    pub username: String,
    /// Sealed; empty for none.
    password: String,
    /// `PLAIN` or `LOGIN`.
    pub auth_method: String,
    /// How the connection is protected.
    pub encryption: Encryption,
    /// What the node calls itself in `EHLO`; empty is the machine's name.
    pub local_name: String,
}

impl Default for SmtpSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            host: String::new(),
            port: 587,
            username: String::new(),
            password: String::new(),
            auth_method: "PLAIN".to_owned(),
            encryption: Encryption::StartTls,
            local_name: String::new(),
        }
    }
}

impl SmtpSettings {
    /// The password; `None` if another node or tenant sealed it.
    pub fn open_password(&self, sealer: &Sealer, tenant: &TenantDb) -> Option<Secret> {
        if self.password.is_empty() {
            return Some(Secret::default());
        }
        let bytes = sealer.open(tenant.id(), SMTP_PASSWORD_PLACE, &self.password)?;
        String::from_utf8(bytes.to_vec()).ok().map(Secret::new)
    }
}

/// Everything a tenant has set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantSettings {
    /// How it presents itself.
    pub meta: MetaSettings,
    /// How its mails leave.
    pub smtp: SmtpSettings,
}

const META_MEMBERS: [&str; 5] = ["appName", "appURL", "appUrl", "senderName", "senderAddress"];
const SMTP_MEMBERS: [&str; 9] =
    ["enabled", "host", "port", "username", "password", "authMethod", "encryption", "tls", "localName"];

/// Why settings were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Members were refused.
    #[error("{} member(s) were refused", .0.len())]
    Invalid(Vec<Detail>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fault for SettingsError {
    fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::ValidationFailed,
            Self::Store(error) => error.code(),
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::Invalid(_) => Cow::Borrowed(self.code().explanation()),
            Self::Store(error) => error.public(),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::Invalid(details) => details.clone(),
            Self::Store(error) => error.details(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Store(error) => error.retry_after_s(),
            Self::Invalid(_) => None,
        }
    }
}

/// Reads a tenant's settings; what was never set has its default.
pub async fn read(tenant: &TenantDb) -> Result<TenantSettings, StoreError> {
    tenant.read(read_stored).await
}

fn read_stored(reader: &Reader<'_>) -> Result<TenantSettings, StoreError> {
    let Some(collection) = reader.schema().find(SETTINGS).cloned() else {
        return Ok(TenantSettings::default());
    };
    let mut stored = Map::new();
    for key in ["meta", "smtp"] {
        for row in rows::find_by_texts(reader, &collection, &[("key", key)])? {
            let value = serde_json::from_str(rows::text(&collection, &row, "value")).unwrap_or(Value::Null);
            stored.insert(key.to_owned(), value);
        }
    }
    Ok(TenantSettings::from_stored(&stored))
}

/// Changes what `body` mentions; the answer is everything as it became. Read and stored in one transaction, so that two
/// changes at the same time both stay.
pub async fn update(
    tenant: &TenantDb,
    meta: WriteMeta,
    random: &Arc<dyn Random>,
    sealer: &Sealer,
    body: &Map<String, Value>,
) -> Result<TenantSettings, SettingsError> {
    let (id, random, sealer, body) = (tenant.id().clone(), Arc::clone(random), sealer.clone(), body.clone());
    let written = tenant.write(meta, move |tx| {
        let seal = |plain: &str| sealer.seal(random.as_ref(), &id, SMTP_PASSWORD_PLACE, plain.as_bytes());
        let next = read_stored(tx)?.changed(&body, seal)?;
        store(tx, random.as_ref(), &next.to_stored())?;
        Ok::<_, SettingsError>(next)
    });
    Ok(written.await?.value)
}

fn store(tx: &mut WriteTx<'_>, random: &dyn Random, stored: &Map<String, Value>) -> Result<(), StoreError> {
    let schema = Arc::clone(tx.schema());
    let collection = schema.find(SETTINGS).ok_or_else(|| StoreError::Sql(Arc::from("no collection _settings")))?;
    for (key, value) in stored {
        let value = Stored::from(value.to_string());
        match rows::find_by_texts(tx, collection, &[("key", key)])?.first() {
            Some(row) => {
                let changes = rows::changes_at(collection, &[("value", value)], tx.now_ms());
                tx.update(collection, &row.id, &changes)?;
            }
            None => {
                let values = [("key", Stored::text(key)), ("value", value)];
                let image = rows::image(collection, RecordId::generate(random), &values, tx.now_ms());
                tx.insert(collection, &image)?;
            }
        }
    }
    Ok(())
}

impl TenantSettings {
    /// The members that a superuser sees; no secret among them.
    pub fn to_wire(&self) -> Value {
        let mut shown = self.to_stored();
        if let Some(smtp) = shown.get_mut("smtp").and_then(Value::as_object_mut) {
            smtp.remove("password");
            smtp.insert("tls".to_owned(), json!(self.smtp.encryption == Encryption::Implicit));
        }
        Value::Object(shown)
    }

    fn to_stored(&self) -> Map<String, Value> {
        let (meta, smtp) = (&self.meta, &self.smtp);
        let stored = json!({
            "meta": {
                "appName": meta.app_name, "appURL": meta.app_url,
                "senderName": meta.sender_name, "senderAddress": meta.sender_address,
            },
            "smtp": {
                "enabled": smtp.enabled, "host": smtp.host, "port": smtp.port, "username": smtp.username,
                "password": smtp.password, "authMethod": smtp.auth_method,
                "encryption": smtp.encryption.as_str(), "localName": smtp.local_name,
            },
        });
        stored.as_object().cloned().unwrap_or_default()
    }

    fn from_stored(stored: &Map<String, Value>) -> Self {
        let text = |group: &str, name: &str| {
            let value = stored.get(group).and_then(|group| group.get(name)?.as_str());
            value.unwrap_or_default().to_owned()
        };
        let smtp = stored.get("smtp").cloned().unwrap_or_default();
        let fallback = SmtpSettings::default();
        let port = smtp["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        Self {
            meta: MetaSettings {
                app_name: text("meta", "appName"),
                app_url: text("meta", "appURL"),
                sender_name: text("meta", "senderName"),
                sender_address: text("meta", "senderAddress"),
            },
            smtp: SmtpSettings {
                enabled: smtp["enabled"] == json!(true),
                host: text("smtp", "host"),
                port: port.unwrap_or(fallback.port),
                username: text("smtp", "username"),
                password: text("smtp", "password"),
                auth_method: Some(text("smtp", "authMethod"))
                    .filter(|it| !it.is_empty())
                    .unwrap_or(fallback.auth_method),
                encryption: Encryption::parse(&text("smtp", "encryption")).unwrap_or_default(),
                local_name: text("smtp", "localName"),
            },
        }
    }
}

impl MetaSettings {
    fn merge(&mut self, given: &Map<String, Value>, details: &mut Vec<Detail>) {
        for (name, value) in given {
            // PocketBase's dashboard sends members of its own; they mean nothing here. One that is nearly one of ours does.
            if !META_MEMBERS.contains(&name.as_str()) {
                if let Some(close) = closest(name, META_MEMBERS) {
                    let message = format!("Is not a member of meta; did you mean {close}?");
                    details.push(Detail::new(format!("meta.{name}"), "validation_unknown_setting", message));
                }
                continue;
            }
            let Some(text) = plain_text("meta", name, value, details) else { continue };
            match name.as_str() {
                "appName" => self.app_name = text,
                "senderName" => self.sender_name = text,
                "appURL" | "appUrl" if text.is_empty() || is_url(&text) => {
                    self.app_url = text.trim_end_matches('/').to_owned();
                }
                "appURL" | "appUrl" => {
                    let message = "Must be an address such as https://app.example.com.";
                    details.push(Detail::new("meta.appURL", "validation_is_url", message));
                }
                "senderAddress" if text.is_empty() || text.parse::<Address>().is_ok() => self.sender_address = text,
                "senderAddress" => {
                    let message = "Must be an e-mail address.";
                    details.push(Detail::new("meta.senderAddress", "validation_is_email", message));
                }
                _ => {}
            }
        }
    }
}

impl TenantSettings {
    /// These settings with what `body` mentions; all problems come together.
    fn changed(&self, body: &Map<String, Value>, seal: impl Fn(&str) -> String) -> Result<Self, SettingsError> {
        let mut next = self.clone();
        let mut details = Vec::new();
        for (group, members) in body {
            let Some(members) = members.as_object() else {
                details.push(Detail::new(group.as_str(), "validation_invalid_type", "Must be an object."));
                continue;
            };
            match group.as_str() {
                "meta" => next.meta.merge(members, &mut details),
                "smtp" => next.smtp.merge(members, &mut details, &seal),
                _ => {
                    let message = "Is not set here; `tenantry config print` shows the node's configuration.";
                    details.push(Detail::new(group.as_str(), "validation_unknown_setting", message));
                }
            }
        }
        next.smtp.check(&mut details);
        next.smtp.check_move(&self.smtp, &mut details);
        if details.is_empty() { Ok(next) } else { Err(SettingsError::Invalid(details)) }
    }
}

impl SmtpSettings {
    /// A password that is only kept does not follow to another server: whoever names one would be told it.
    fn check_move(&self, before: &Self, details: &mut Vec<Detail>) {
        let kept = !self.password.is_empty() && self.password == before.password;
        if kept && !self.host.eq_ignore_ascii_case(&before.host) {
            let message = "The password is kept for the server it was set for; send it again with another host.";
            details.push(Detail::new("smtp.password", "validation_required", message));
        }
    }

    fn merge(&mut self, given: &Map<String, Value>, details: &mut Vec<Detail>, seal: impl Fn(&str) -> String) {
        for (name, value) in given {
            if !SMTP_MEMBERS.contains(&name.as_str()) {
                let message = format!("Is not a member of smtp; the members are {}.", SMTP_MEMBERS.join(", "));
                details.push(Detail::new(format!("smtp.{name}"), "validation_unknown_setting", message));
                continue;
            }
            match (name.as_str(), value) {
                ("enabled", Value::Bool(enabled)) => self.enabled = *enabled,
                ("tls", Value::Bool(implicit)) if !given.contains_key("encryption") => {
                    // False keeps what is set; `encryption` tells the other two apart.
                    match (implicit, self.encryption) {
                        (true, _) => self.encryption = Encryption::Implicit,
                        (false, Encryption::Implicit) => self.encryption = Encryption::StartTls,
                        (false, _) => {}
                    }
                }
                ("tls", Value::Bool(_)) => {}
                ("port", Value::Number(number)) => match number.as_u64().and_then(|port| u16::try_from(port).ok()) {
                    Some(port) if port > 0 => self.port = port,
                    _ => details.push(Detail::new("smtp.port", "validation_invalid_value", "Must be 1 to 65535.")),
                },
                ("enabled" | "tls", _) => {
                    let message = "Must be true or false.";
                    details.push(Detail::new(format!("smtp.{name}"), "validation_invalid_type", message));
                }
                ("port", _) => details.push(Detail::new("smtp.port", "validation_invalid_type", "Must be a number.")),
                _ => {
                    let Some(text) = plain_text("smtp", name, value, details) else { continue };
                    self.merge_text(name, text, details, &seal);
                }
            }
        }
    }

    fn merge_text(&mut self, name: &str, text: String, details: &mut Vec<Detail>, seal: &impl Fn(&str) -> String) {
        match name {
            "host" => self.host = text,
            "username" => self.username = text,
            "localName" => self.local_name = text,
            "password" => self.password = if text.is_empty() { text } else { seal(&text) },
            "authMethod" if matches!(text.as_str(), "" | "PLAIN" | "LOGIN") => {
                self.auth_method = if text.is_empty() { "PLAIN".to_owned() } else { text };
            }
            "authMethod" => {
                details.push(Detail::new("smtp.authMethod", "validation_in_invalid", "Must be PLAIN or LOGIN."));
            }
            "encryption" => match Encryption::parse(&text) {
                Some(encryption) => self.encryption = encryption,
                None => {
                    let message = "Must be starttls, implicit or none.";
                    details.push(Detail::new("smtp.encryption", "validation_in_invalid", message));
                }
            },
            _ => {}
        }
    }

    fn check(&self, details: &mut Vec<Detail>) {
        if self.enabled && self.host.is_empty() {
            details.push(Detail::new("smtp.host", "validation_required", "Cannot be blank while smtp is enabled."));
        }
        if !self.username.is_empty() && self.encryption == Encryption::None && !is_local(&self.host) {
            let message = "A login is not sent in the clear to another machine; use starttls or implicit.";
            details.push(Detail::new("smtp.encryption", "validation_invalid_value", message));
        }
    }
}

/// Whether `host` is this machine.
pub fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.has_host())
}

/// Text without control characters, which have no place in a header or an address.
fn plain_text(group: &str, name: &str, value: &Value, details: &mut Vec<Detail>) -> Option<String> {
    let fine = |text: &&str| text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control);
    match (value.as_str(), value.as_str().filter(fine)) {
        (_, Some(text)) => Some(text.trim().to_owned()),
        (given, None) => {
            let (code, message) = match given {
                Some(_) => ("validation_invalid_value", "Must be one line of at most 255 characters."),
                None => ("validation_invalid_type", "Must be a text."),
            };
            details.push(Detail::new(format!("{group}.{name}"), code, message));
            None
        }
    }
}
