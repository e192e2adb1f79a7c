//! From a collection's mail template to a mail: placeholders filled, in one pass.
//!
//! Keeps true: what is filled in is escaped where it lands in HTML and loses its control characters everywhere, so nobody's
//! name or address writes into a mail; what was filled in is not looked at again, so a name that reads `{TOKEN}` stays one.
//! Does not do: choosing the template, sending.

use super::Mail;
use crate::query::request::AuthRecord;
use crate::schema::field::Storage;
use crate::schema::mail_text::MailText;
use serde_json::{Map, Value};

/// What a mail's template is filled with; the names are PocketBase's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fillings<'a> {
    /// `{APP_NAME}`.
    pub app_name: &'a str,
    /// `{APP_URL}`, without a slash at the end.
    pub app_url: &'a str,
    /// `{TOKEN}`.
    pub token: &'a str,
    /// `{ACTION_URL}`: where the default template leads.
    pub action_url: &'a str,
    /// `{OTP}`.
    pub otp: &'a str,
    /// `{OTP_ID}`.
    pub otp_id: &'a str,
    /// `{ALERT_INFO}`.
    pub alert_info: &'a str,
    /// `{RECORD:field}`: the account, its visible fields alone.
    pub record: Option<&'a AuthRecord>,
}

/// Fills `mail`, as an auth collection's options have it, for `to`; what they leave empty is as in a new collection.
///
/// A template has `subject`, `body` (HTML) and, optionally, `text`; without it the text is the HTML without its tags.
pub fn render(options: &Map<String, Value>, mail: MailText, fillings: &Fillings<'_>, to: &str) -> Mail {
    let own = options.get(mail.member()).map(|value| value.get("emailTemplate").unwrap_or(value));
    let part = |name: &str| own.and_then(|own| own.get(name)).and_then(Value::as_str).filter(|text| !text.is_empty());
    let html = part("body").map_or_else(|| mail.body(), str::to_owned);
    Mail {
        to: to.to_owned(),
        subject: one_line(&fill(part("subject").unwrap_or(mail.subject()), fillings, |value| value)),
        text: match part("text") {
            Some(text) => fill(text, fillings, one_line_of),
            None => fill(&without_tags(&html), fillings, one_line_of),
        },
        html: fill(&html, fillings, |value| escape(&value)),
    }
}

fn one_line_of(value: String) -> String {
    one_line(&value)
}

/// Replaces every known placeholder by what `dress` makes of its value; unknown ones stay.
fn fill(template: &str, fillings: &Fillings<'_>, dress: impl Fn(String) -> String) -> String {
    let mut out = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        match after.split_once('}').and_then(|(name, tail)| Some((fillings.value(name)?, tail))) {
            Some((value, tail)) => {
                out.push_str(&dress(value));
                rest = tail;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

impl Fillings<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let value = match name {
            "APP_NAME" => self.app_name,
            "APP_URL" => self.app_url,
            "TOKEN" => self.token,
            "ACTION_URL" => self.action_url,
            "OTP" => self.otp,
            "OTP_ID" => self.otp_id,
            "ALERT_INFO" => self.alert_info,
            _ => return self.record_value(name.strip_prefix("RECORD:")?),
        };
        Some(value.to_owned())
    }

    fn record_value(&self, name: &str) -> Option<String> {
        let account = self.record?;
        if name == "id" {
            return Some(account.record.id.to_string());
        }
        let field = account.collection.find_field(name)?;
        let shown = !field.hidden && field.read_rule.is_none() && field.kind.storage() == Storage::Text;
        let value = account.record.get(field.number).and_then(|value| value.as_text().map(str::to_owned));
        shown.then(|| value.unwrap_or_default())
    }
}

/// Makes text safe inside HTML, in attributes too.
pub(super) fn escape(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).fold(String::with_capacity(text.len()), |mut out, letter| {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
        out
    })
}

fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The text of a template's HTML: tags out, links kept as their address.
fn without_tags(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        let (tag, tail) = after.split_once('>').unwrap_or((after, ""));
        if let Some((_, link)) = tag.split_once("href=\"")
            && let Some((address, _)) = link.split_once('"')
        {
            out.push_str(address);
            out.push(' ');
        }
        if tag.starts_with("/p") || tag.starts_with("br") {
            out.push('\n');
        }
        rest = tail;
    }
    out.push_str(rest);
    ["&lt;", "&gt;", "&quot;", "&#39;", "&amp;"]
        .iter()
        .zip(["<", ">", "\"", "'", "&"])
        .fold(out, |text, (entity, letter)| text.replace(entity, letter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn mail(options: &Value, fillings: &Fillings<'_>) -> Mail {
        render(options.as_object().unwrap(), MailText::PasswordReset, fillings, "a@b.test")
    }

    #[test]
    fn a_template_is_filled_and_its_gaps_fall_back() {
        let fillings = Fillings {
            app_name: "Acme",
            app_url: "https://a",
            token: "tok",
            action_url: "https://a/x/tok",
            ..Fillings::default()
        };
        let own =
            mail(&json!({"resetPasswordTemplate": {"subject": "Hi {APP_NAME}", "body": "", "text": ""}}), &fillings);
        let html = "<p>Hello,</p>\n<p>Follow the link to choose a new password.</p>\n\
                    <p><a href=\"https://a/x/tok\">Continue</a></p>\n<p>Acme</p>";
        assert_eq!((own.subject.as_str(), own.html.as_str()), ("Hi Acme", html));
        assert!(own.text.contains("\nhttps://a/x/tok Continue\n"), "{}", own.text);
        assert_eq!(mail(&json!({}), &fillings).html, html);
        let nested = mail(
            &json!({"resetPasswordTemplate": {"emailTemplate": {"body": "{APP_URL}/y/{TOKEN} {UNKNOWN} {", "text": "T {OTP}"}}}),
            &fillings,
        );
        assert_eq!(nested.html, "https://a/y/tok {UNKNOWN} {");
        assert_eq!((nested.text.as_str(), nested.subject.as_str()), ("T ", "Reset your Acme password"));
        assert!(!format!("{nested:?}").contains("tok"));
    }

    #[test]
    fn names_write_neither_headers_nor_html_nor_placeholders() {
        let name = "</p><script>\r\nBcc: evil@x.test\r\n{TOKEN}";
        let fillings = Fillings { app_name: name, token: "secret", ..Fillings::default() };
        let mail =
            mail(&json!({"resetPasswordTemplate": {"body": "<b title=\"{APP_NAME}\">{APP_NAME}</b>"}}), &fillings);
        assert!(!mail.subject.contains(['\r', '\n']) && mail.subject.contains("{TOKEN}"));
        assert!(!mail.html.contains("<script") && !mail.html.contains("secret") && !mail.html.contains('\n'));
        assert!(!mail.text.contains("secret"));
    }

    proptest! {
        #[test]
        fn whatever_is_filled_in_opens_no_tag_and_no_line(value in ".{0,80}") {
            let fillings = Fillings { app_name: &value, alert_info: &value, ..Fillings::default() };
            let mail = mail(&json!({"resetPasswordTemplate": {"subject": "{APP_NAME}", "body": "{ALERT_INFO}", "text": "{APP_NAME}"}}), &fillings);
            prop_assert!(!mail.html.contains(['<', '>', '"', '\'']));
            prop_assert!(!mail.subject.chars().any(char::is_control) && !mail.text.chars().any(char::is_control));
        }
    }
}
