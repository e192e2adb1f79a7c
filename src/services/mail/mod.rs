//! Mails: what one is, who takes them, and how they leave the node.
//!
//! Keeps true: handing a mail over never waits for a disk or a network, so a request for a known address takes as long as
//! one for an unknown address; what was taken over is on disk before it is sent and stays there until it was accepted, so a
//! mail server that is down delays mails and loses none. Every queue is bounded; what does not fit is logged.
//! Does not do: deciding who gets a mail.

mod courier;
mod smtp;
mod template;

pub use courier::{Courier, CourierOptions, MailTrial};
pub use smtp::{MailError, Route};
pub use template::{Fillings, render};

use crate::kernel::ident::TenantId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One mail, ready to be sent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// The address.
    pub to: String,
    /// The subject, one line.
    pub subject: String,
    /// The body for people, HTML.
    pub html: String,
    /// The same as plain text.
    pub text: String,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies carry codes and tokens.
        f.debug_struct("Mail").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Takes mails; must not block.
pub trait Mailer: Send + Sync + fmt::Debug {
    /// Takes `mail` over on behalf of `tenant`.
    fn hand_over(&self, tenant: &TenantId, mail: Mail);
}
