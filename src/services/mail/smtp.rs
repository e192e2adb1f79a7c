//! Speaking to mail servers.
//!
//! Keeps true: without TLS nothing is sent unless the settings say so; addresses and headers are built by the mail library
//! from parsed values, never pasted; every step has a deadline; connections are kept per server and login, a few of each.
//! Does not do: deciding when to try again (`courier`).

use super::Mail;
use crate::kernel::limits;
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::services::settings::Encryption;
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::PoolConfig;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// How a mail leaves: from whom, by which server.
#[derive(Debug, Clone)]
pub struct Route {
    /// Name in `From`; may be empty.
    pub sender_name: String,
    /// Address in `From`.
    pub sender_address: String,
    /// Host name or address of the server.
    pub host: String,
    /// The addresses to reach it at, tried in this order, where it was looked up already; the name still has to be that of
    /// its certificate.
    pub addresses: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Login, empty for none.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// `LOGIN` instead of `PLAIN`.
    pub login_method: bool,
    /// How the connection is protected.
    pub encryption: Encryption,
    /// What the node calls itself; empty is the machine's name.
    pub local_name: String,
}

/// Why a mail was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailError {
    /// It will never be: the address or the mail was refused.
    #[error("refused for good: {0}")]
    Refused(String),
    /// It may be later: the server is away, busy, or does not know the login.
    #[error("not now: {0}")]
    Later(String),
}

/// The connections; shared by all deliveries, one short lock per lookup. Bound: `limits::MAIL_SERVERS_MAX` servers.
pub(super) struct Servers {
    known: Mutex<HashMap<String, Transport>>,
    /// Certificates that are believed beside the built-in ones, PEM.
    authorities: Vec<Vec<u8>>,
    timeout: Duration,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").finish_non_exhaustive()
    }
}

impl Servers {
    pub(super) fn new(authorities: Vec<Vec<u8>>, timeout: Duration) -> Self {
        Self { known: Mutex::default(), authorities, timeout }
    }

    /// Sends one mail; `id` names it for whoever gets it twice.
    pub(super) async fn send(&self, route: &Route, mail: &Mail, id: &str, now_ms: i64) -> Result<(), MailError> {
        let message = message(route, mail, id, now_ms)?;
        let mut targets: Vec<String> = route.addresses.iter().map(IpAddr::to_string).collect();
        if targets.is_empty() {
            targets.push(route.host.clone());
        }
        let mut refusal = MailError::Later("the server has no address".to_owned());
        for target in targets {
            let transport = self.transport(route, &target)?;
            let sent = tokio::time::timeout(self.timeout.saturating_mul(4), transport.send(message.clone())).await;
            match sent {
                Ok(Ok(_)) => return Ok(()),
                // A server that answers has decided.
                Ok(Err(error)) if error.is_permanent() || error.is_transient() => return Err(judge(&error)),
                Ok(Err(error)) => refusal = judge(&error),
                Err(_) => return Err(MailError::Later("it took too long".to_owned())),
            }
        }
        Err(refusal)
    }

    fn transport(&self, route: &Route, target: &str) -> Result<Transport, MailError> {
        let name = opaque::digest_hex(&format!(
            "{}\n{}\n{}\n{}\n{}\n{}\n{:?}\n{}",
            route.host,
            target,
            route.port,
            route.username,
            route.password.expose(),
            route.login_method,
            route.encryption,
            route.local_name
        ));
        let mut known = self.known.lock();
        if let Some(transport) = known.get(&name) {
            return Ok(transport.clone());
        }
        if known.len() >= limits::MAIL_SERVERS_MAX
            && let Some(any) = known.keys().next().cloned()
        {
            known.remove(&any);
        }
        let transport = self.build(route, target)?;
        known.insert(name, transport.clone());
        Ok(transport)
    }

    fn build(&self, route: &Route, target: &str) -> Result<Transport, MailError> {
        let tls = match route.encryption {
            Encryption::None => Tls::None,
            Encryption::StartTls => Tls::Required(self.tls(&route.host)?),
            Encryption::Implicit => Tls::Wrapper(self.tls(&route.host)?),
        };
        let mut builder = Transport::builder_dangerous(target)
            .port(route.port)
            .tls(tls)
            .timeout(Some(self.timeout))
            .pool_config(PoolConfig::new().min_idle(0).max_size(limits::MAIL_CONNECTIONS_PER_SERVER_MAX));
        if !route.local_name.is_empty() {
            builder = builder.hello_name(ClientId::Domain(route.local_name.clone()));
        }
        if !route.username.is_empty() {
            let mechanism = if route.login_method { Mechanism::Login } else { Mechanism::Plain };
            let credentials = Credentials::new(route.username.clone(), route.password.expose().to_owned());
            builder = builder.credentials(credentials).authentication(vec![mechanism]);
        }
        Ok(builder.build())
    }

    fn tls(&self, host: &str) -> Result<TlsParameters, MailError> {
        let unusable =
            |error: lettre::transport::smtp::Error| MailError::Later(format!("TLS cannot be set up: {error}"));
        let mut builder = TlsParameters::builder(host.to_owned());
        for pem in &self.authorities {
            builder = builder.add_root_certificate(Certificate::from_pem(pem).map_err(unusable)?);
        }
        builder.build_rustls().map_err(unusable)
    }
}

fn message(route: &Route, mail: &Mail, id: &str, now_ms: i64) -> Result<Message, MailError> {
    let address = |text: &str, what: &str| {
        text.parse::<Address>().map_err(|error| MailError::Refused(format!("{what} {text:?}: {error}")))
    };
    let from = address(&route.sender_address, "sender")?;
    let domain = from.domain().to_owned();
    // The library refuses control characters in a name by panicking and in a subject by encoding them; neither has any.
    let line =
        |text: &str| text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect::<String>();
    let name = Some(line(&route.sender_name)).filter(|name| !name.trim().is_empty());
    let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
    Message::builder()
        .from(Mailbox::new(name, from))
        .to(Mailbox::new(None, address(&mail.to, "address")?))
        .subject(line(&mail.subject))
        .date(now)
        .message_id(Some(format!("<{id}@{domain}>")))
        .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
        .map_err(|error| MailError::Refused(error.to_string()))
}

/// What is final is only what the server said about this mail (RFC 5321, 4.2.1); a login it does not know is a setting.
fn judge(error: &lettre::transport::smtp::Error) -> MailError {
    let text = error.to_string();
    let text = match std::error::Error::source(error) {
        Some(source) => format!("{text}: {source}"),
        None => text,
    };
    let about_login = error.status().is_some_and(|code| matches!(u16::from(code), 530 | 534 | 535 | 538));
    if error.is_permanent() && !about_login { MailError::Refused(text) } else { MailError::Later(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route {
            sender_name: "Ac\"me, <Inc>\r\nBcc: evil@x.test".to_owned(),
            sender_address: "noreply@acme.test".to_owned(),
            host: "localhost".to_owned(),
            addresses: Vec::new(),
            port: 25,
            username: String::new(),
            password: Secret::default(),
            login_method: false,
            encryption: Encryption::None,
            local_name: String::new(),
        }
    }

    fn mail(to: &str) -> Mail {
        let text = "Grüße".to_owned();
        Mail { to: to.to_owned(), subject: "Hé\r\nX-Evil: 1".to_owned(), html: "<p>Grüße</p>".to_owned(), text }
    }

    /// Takes one mail and says yes to everything.
    async fn serve_one(listener: tokio::net::TcpListener) -> bool {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
        let (socket, _) = listener.accept().await.unwrap();
        let (reads, mut writes) = socket.into_split();
        let mut lines = BufReader::new(reads).lines();
        writes.write_all(b"220 ready\r\n").await.unwrap();
        let mut in_data = false;
        while let Ok(Some(line)) = lines.next_line().await {
            match (in_data, line.as_str()) {
                (true, ".") => {
                    writes.write_all(b"250 taken\r\n").await.unwrap();
                    return true;
                }
                (true, _) => {}
                (false, "DATA") => {
                    in_data = true;
                    writes.write_all(b"354 go on\r\n").await.unwrap();
                }
                (false, _) => writes.write_all(b"250 ok\r\n").await.unwrap(),
            }
        }
        false
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_one_address_does_not_answer_the_next_is_tried() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = ["127.0.0.2", "127.0.0.1"].map(|text| text.parse().unwrap()).to_vec();
        let route = Route { addresses, port, sender_name: String::new(), ..route() };
        let taken = tokio::spawn(serve_one(listener));
        let servers = Servers::new(Vec::new(), Duration::from_secs(5));
        servers.send(&route, &mail("ada@acme.test"), "id1", 0).await.unwrap();
        assert!(taken.await.unwrap());
        // Nobody listens any more.
        assert!(matches!(servers.send(&route, &mail("ada@acme.test"), "id2", 0).await, Err(MailError::Later(_))));
    }

    #[test]
    fn no_value_adds_a_header_or_a_recipient() {
        let built = message(&route(), &mail("ada@acme.test"), "id1", 0).unwrap();
        let text = String::from_utf8(built.formatted()).unwrap();
        let headers = text.split("\r\n\r\n").next().unwrap();
        for line in headers.lines() {
            assert!(!line.starts_with("Bcc") && !line.starts_with("X-Evil"), "{headers}");
        }
        assert_eq!(built.envelope().to().len(), 1);
        for to in ["a@b.test\r\nBcc: evil@x.test", "a@b.test, evil@x.test", "", "a b@c.test"] {
            assert!(matches!(message(&route(), &mail(to), "id", 0), Err(MailError::Refused(_))), "{to:?}");
        }
    }
}
