//! The types a configuration key may have: how each is read from TOML or an environment variable, and how it prints.
//!
//! Keeps true: a secret never prints itself. Does not do: defaults, ranges or documentation, those are in `sections`.

use crate::secrets::Secret;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use toml::Value;

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// What the documentation calls the type.
    const KIND: &'static str;
    /// Reads the value; the error says what was expected.
    fn read(value: &Value) -> Result<Self, String>;
    /// The value as `config print` shows it: TOML, secrets hidden.
    fn show(&self) -> String;
}

/// A range of addresses in CIDR notation (RFC 4632); a bare address is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base.parse().ok()?, Some(bits.parse::<u8>().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let widest = if matches!(base, IpAddr::V4(_)) { 32 } else { 128 };
        let bits = bits.unwrap_or(widest);
        (bits <= widest).then_some(Self { base, bits })
    }

    /// Whether `address` lies in the range; an IPv4 address written as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                (u32::from(base) ^ u32::from(address)).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                (u128::from(base) ^ u128::from(address)).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object per line for machines.
    Json,
}

/// A text of the environment counts as the TOML value it spells, so `TENANTRY__HTTP__WORKERS=4` is a number.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::String(text) => text.trim().replace('_', "").parse().ok(),
        _ => None,
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("expected text, found {}", value.type_str()))
}

macro_rules! unsigned {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            const KIND: &'static str = "integer";
            fn read(value: &Value) -> Result<Self, String> {
                integer(value)
                    .and_then(|number| <$type>::try_from(number).ok())
                    .ok_or_else(|| format!("expected a whole number, found {value}"))
            }
            fn show(&self) -> String { self.to_string() }
        }
    )*};
}
unsigned!(u32, u64, usize);

impl Setting for bool {
    const KIND: &'static str = "true or false";
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Boolean(flag) => Ok(*flag),
            Value::String(text) if text == "true" || text == "on" => Ok(true),
            Value::String(text) if text == "false" || text == "off" => Ok(false),
            _ => Err(format!("expected true or false, found {value}")),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    const KIND: &'static str = "text";
    fn read(value: &Value) -> Result<Self, String> {
        text(value).map(str::to_owned)
    }
    fn show(&self) -> String {
        Value::String(self.clone()).to_string()
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path";
    fn read(value: &Value) -> Result<Self, String> {
        match text(value)? {
            "" => Err("expected a path, found empty text".to_owned()),
            path => Ok(Self::from(path)),
        }
    }
    fn show(&self) -> String {
        Value::String(self.display().to_string()).to_string()
    }
}

impl Setting for SocketAddr {
    const KIND: &'static str = "address:port";
    fn read(value: &Value) -> Result<Self, String> {
        let text = text(value)?;
        text.parse()
            .map_err(|_| format!("expected an IP address and port such as 127.0.0.1:8090 or [::]:8090, found {text:?}"))
    }
    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

/// Empty text is no address.
impl Setting for Option<SocketAddr> {
    const KIND: &'static str = "address:port or empty";
    fn read(value: &Value) -> Result<Self, String> {
        match text(value)? {
            "" => Ok(None),
            _ => SocketAddr::read(value).map(Some),
        }
    }
    fn show(&self) -> String {
        self.map_or_else(|| "\"\"".to_owned(), |address| Setting::show(&address))
    }
}

impl Setting for Vec<PathBuf> {
    const KIND: &'static str = "list of paths";
    fn read(value: &Value) -> Result<Self, String> {
        list(value, |text| {
            if text.is_empty() { Err("expected a path, found empty text".to_owned()) } else { Ok(PathBuf::from(text)) }
        })
    }
    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Setting::show).collect::<Vec<_>>().join(", "))
    }
}

impl Setting for Secret {
    const KIND: &'static str = "secret text";
    fn read(value: &Value) -> Result<Self, String> {
        text(value).map(Self::new)
    }
    fn show(&self) -> String {
        if self.is_empty() { "\"\"".to_owned() } else { "\"***\"".to_owned() }
    }
}

impl Setting for LogFormat {
    const KIND: &'static str = "text or json";
    fn read(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            _ => Err(format!("expected \"text\" or \"json\", found {value}")),
        }
    }
    fn show(&self) -> String {
        if *self == Self::Text { "\"text\"".to_owned() } else { "\"json\"".to_owned() }
    }
}

/// Reads a list; the environment separates items by commas.
fn list<T>(value: &Value, item: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    match value {
        Value::Array(values) => values.iter().map(|value| item(text(value)?)).collect(),
        Value::String(text) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(item).collect(),
        _ => Err(format!("expected a list of texts, found {}", value.type_str())),
    }
}

impl Setting for Vec<String> {
    const KIND: &'static str = "list of texts";
    fn read(value: &Value) -> Result<Self, String> {
        list(value, |text| Ok(text.to_owned()))
    }
    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Setting::show).collect::<Vec<_>>().join(", "))
    }
}

impl Setting for Vec<Cidr> {
    const KIND: &'static str = "list of address ranges";
    fn read(value: &Value) -> Result<Self, String> {
        list(value, |text| {
            Cidr::parse(text)
                .ok_or_else(|| format!("expected an address or a range such as 10.0.0.0/8, found {text:?}"))
        })
    }
    fn show(&self) -> String {
        let ranges: Vec<_> = self.iter().map(|range| format!("\"{}/{}\"", range.base, range.bits)).collect();
        format!("[{}]", ranges.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_name() {
        for (range, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("::/0", "10.0.0.1", false),
        ] {
            let range = Cidr::parse(range).expect(range);
            assert_eq!(range.contains(address.parse().unwrap()), inside, "{range:?} {address}");
        }
        assert_eq!(Cidr::parse("10.0.0.0/33"), None);
    }

    #[test]
    fn a_secret_prints_stars() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?}{}", secret.show()).contains("hunter2"));
    }
}
