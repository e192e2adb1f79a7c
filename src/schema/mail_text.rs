//! The mails about accounts: where a collection keeps the text of each, and what it says until somebody changes it.
//!
//! Keeps true: the words stand here alone; a new collection begins with them, and they stand in for what a template leaves
//! empty. Does not do: filling placeholders, choosing what is mailed.

use serde_json::{Value, json};

/// A mail about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailText {
    /// Somebody came in from a new place.
    Alert,
    /// A one-time code.
    OneTimeCode,
    /// The link that confirms an address.
    Verification,
    /// The link that sets a new password.
    PasswordReset,
    /// The link that moves an account to another address.
    EmailChange,
    /// The link that completes a registration.
    Registration,
    /// Somebody registered with an address that has an account.
    RegistrationNotice,
}

impl MailText {
    /// Every mail there is.
    pub const ALL: [Self; 7] = [
        Self::Alert,
        Self::OneTimeCode,
        Self::Verification,
        Self::PasswordReset,
        Self::EmailChange,
        Self::Registration,
        Self::RegistrationNotice,
    ];

    /// The member of a collection's options that holds the template, by itself or as `emailTemplate`.
    pub const fn member(self) -> &'static str {
        match self {
            Self::Alert => "authAlert",
            Self::OneTimeCode => "otp",
            Self::Verification => "verificationTemplate",
            Self::PasswordReset => "resetPasswordTemplate",
            Self::EmailChange => "confirmEmailChangeTemplate",
            Self::Registration => "registrationTemplate",
            Self::RegistrationNotice => "registrationNoticeTemplate",
        }
    }

    /// The subject to begin with.
    pub const fn subject(self) -> &'static str {
        match self {
            Self::Alert => "Login from a new location",
            Self::OneTimeCode => "Your code for {APP_NAME}",
            Self::Verification => "Verify your {APP_NAME} e-mail address",
            Self::PasswordReset => "Reset your {APP_NAME} password",
            Self::EmailChange => "Confirm your new {APP_NAME} e-mail address",
            Self::Registration => "Complete your registration at {APP_NAME}",
            Self::RegistrationNotice => "Somebody registered at {APP_NAME} with your address",
        }
    }

    /// The HTML to begin with.
    pub fn body(self) -> String {
        const LINK: &str = "<p><a href=\"{ACTION_URL}\">Continue</a></p>";
        let paragraphs: &[&str] = match self {
            Self::Alert => &[
                "<p>Your {APP_NAME} account was used from a new location: {ALERT_INFO}</p>",
                "<p>If this was not you, change your password now.</p>",
            ],
            Self::OneTimeCode => &["<p>Your one-time password is <strong>{OTP}</strong>.</p>", "<p>{APP_NAME}</p>"],
            Self::Verification => &[
                "<p>Please confirm that this address is yours. If you did not register, do not follow the link.</p>",
                LINK,
                "<p>{APP_NAME}</p>",
            ],
            Self::PasswordReset => &["<p>Follow the link to choose a new password.</p>", LINK, "<p>{APP_NAME}</p>"],
            Self::EmailChange => {
                &["<p>Follow the link to use this address from now on.</p>", LINK, "<p>{APP_NAME}</p>"]
            }
            Self::Registration => &[
                "<p>Somebody registered with your address. Follow the link only if that was you, just now: it asks for the \
                 password that was chosen, and makes the account. Otherwise ignore this mail; nothing is made then.</p>",
                LINK,
                "<p>{APP_NAME}</p>",
            ],
            Self::RegistrationNotice => &[
                "<p>Somebody registered with your address, which has an account already. If it was you, log in, or choose a \
                 new password:</p>",
                LINK,
                "<p>If it was not you, there is nothing to do.</p>",
                "<p>{APP_NAME}</p>",
            ],
        };
        format!("<p>Hello,</p>\n{}", paragraphs.join("\n"))
    }

    /// The template to begin with, as options hold it.
    pub(super) fn template(self) -> Value {
        json!({"subject": self.subject(), "body": self.body()})
    }
}
