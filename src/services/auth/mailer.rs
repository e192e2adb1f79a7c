//! Where mails go: the [`Mailer`] trait, and the outbox folder that is used until a mail server is configured.
//!
//! Keeps true: handing a mail over never waits, so a request for a known address takes as long as one for an unknown
//! address; the queue is bounded and what does not fit is counted and logged, never blocks.
//! Does not do: SMTP, templates of a tenant's own design beyond placeholders.

use crate::kernel::clock::Clock;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::kernel::random::{self, Random};
use serde_json::{Map, Value};
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// One mail, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// On whose behalf.
    pub tenant: TenantId,
    /// The address.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// The body, HTML.
    pub html: String,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies carry codes and tokens.
        f.debug_struct("Mail").field("tenant", &self.tenant).field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Takes mails; must not block.
pub trait Mailer: Send + Sync + fmt::Debug {
    /// Takes `mail` over.
    fn hand_over(&self, mail: Mail);
}

/// What a mail's template is filled with.
#[derive(Debug, Clone, Default)]
pub(super) struct Fillings<'a> {
    pub(super) app_name: &'a str,
    pub(super) app_url: &'a str,
    pub(super) token: &'a str,
    pub(super) otp: &'a str,
}

/// Fills the template `key` of an auth collection's options (or `fallback`, subject and body) for `to`.
pub(super) fn render(
    rest: &Map<String, Value>,
    key: &str,
    fallback: (&str, &str),
    fillings: &Fillings<'_>,
    tenant: &TenantId,
    to: &str,
) -> Mail {
    let template = rest.get(key).map(|value| value.get("emailTemplate").unwrap_or(value));
    let part = |name: &str, fallback: &str| {
        let text = template.and_then(|template| template.get(name)).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).unwrap_or(fallback).to_owned()
    };
    Mail {
        tenant: tenant.clone(),
        to: to.to_owned(),
        subject: fill(&part("subject", fallback.0), fillings),
        html: fill(&part("body", fallback.1), fillings),
    }
}

fn fill(template: &str, fillings: &Fillings<'_>) -> String {
    template
        .replace("{APP_NAME}", fillings.app_name)
        .replace("{APP_URL}", fillings.app_url)
        .replace("{TOKEN}", fillings.token)
        .replace("{OTP}", fillings.otp)
}

/// Writes each mail as a file into a folder; the log says so.
#[derive(Debug)]
pub struct OutboxMailer {
    /// Bound: `limits::MAIL_QUEUE_LEN_MAX`. The writing thread ends when this is dropped.
    queue: SyncSender<Mail>,
}

impl OutboxMailer {
    /// Starts the thread that writes into `<folder>/<tenant>/`.
    pub fn start(folder: PathBuf, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> std::io::Result<Self> {
        let (queue, mails) = sync_channel(limits::MAIL_QUEUE_LEN_MAX);
        std::thread::Builder::new()
            .name("mail-outbox".to_owned())
            .spawn(move || write_all(&folder, &mails, clock.as_ref(), random.as_ref()))?;
        Ok(Self { queue })
    }
}

impl Mailer for OutboxMailer {
    fn hand_over(&self, mail: Mail) {
        let tenant = mail.tenant.clone();
        if self.queue.try_send(mail).is_err() {
            tracing::error!(tenant.id = %tenant, "the mail queue is full; a mail was dropped");
        }
    }
}

fn write_all(folder: &Path, mails: &Receiver<Mail>, clock: &dyn Clock, random: &dyn Random) {
    for mail in mails {
        let name = format!("{}-{}.eml", clock.now_ms(), random::lowercase_id(random, 8));
        match write_one(&folder.join(mail.tenant.as_str()), &name, &mail) {
            Ok(()) => tracing::info!(
                tenant.id = %mail.tenant,
                mail.file = %name,
                "no mail server is configured; the mail is in the outbox folder"
            ),
            Err(error) => tracing::error!(tenant.id = %mail.tenant, %error, "a mail could not be written"),
        }
    }
}

fn write_one(folder: &Path, name: &str, mail: &Mail) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".mail.").tempfile_in(folder)?;
    let header = |text: &str| text.replace(['\r', '\n'], " ");
    write!(
        file,
        "To: {}\r\nSubject: {}\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{}\r\n",
        header(&mail.to),
        header(&mail.subject),
        mail.html
    )?;
    file.persist(folder.join(name)).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_and_a_missing_one_falls_back() {
        let rest = serde_json::json!({"t": {"subject": "Hi {APP_NAME}", "body": ""}});
        let fillings = Fillings { app_name: "Acme", app_url: "https://a", token: "tok", otp: "" };
        let tenant = TenantId::parse("t1").unwrap();
        let rest = rest.as_object().unwrap();
        let mail = render(rest, "t", ("s", "{APP_URL}/x/{TOKEN}"), &fillings, &tenant, "a@b.c");
        assert_eq!((mail.subject.as_str(), mail.html.as_str()), ("Hi Acme", "https://a/x/tok"));
        assert!(!format!("{mail:?}").contains("tok\""));
    }

    #[test]
    fn a_line_break_in_an_address_adds_no_header() {
        let folder = tempfile::tempdir().unwrap();
        let mail = Mail {
            tenant: TenantId::parse("t1").unwrap(),
            to: "a@b.c\r\nBcc: evil@x.y".into(),
            subject: "s".into(),
            html: "h".into(),
        };
        write_one(folder.path(), "one.eml", &mail).unwrap();
        let text = fs::read_to_string(folder.path().join("one.eml")).unwrap();
        assert!(!text.contains("\nBcc:"));
    }
}
