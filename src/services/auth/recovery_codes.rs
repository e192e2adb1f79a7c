//! Recovery codes: ten texts that each stand in once for a lost authenticator app.
//!
//! A code has 125 bits, so a digest salted with the account's id is enough to keep it (OWASP ASVS 5.0, 6.5.2); the digest
//! needs no key of the node, so codes go on working when a tenant moves to another node, where sealed secrets do not open.
//!
//! Keeps true: a code works once; making new ones ends the old; nobody can read them again.
//! Does not do: counting guesses, deciding when a code is asked for.

use super::error::AuthError;
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::random::{self, Random};
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::services::tenants::rows;
use crate::services::tenants::system::RECOVERY_CODES;
use crate::store::{Reader, WriteTx};
use std::sync::Arc;

/// 32 letters and digits without look-alikes: five bits each.
const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
const CODE_LEN: usize = 25;
/// Of codes that were given out before; they work until new ones are made.
const OLD_CODE_LEN: usize = 20;
/// A dash after so many, for people who type.
const GROUP_LEN: usize = 5;

/// New codes, with the row ids under which they are to be stored.
pub(super) struct NewCodes(Vec<(RecordId, Secret)>);

impl NewCodes {
    pub(super) fn draw(source: &dyn Random) -> Self {
        let draw = |_| (RecordId::generate(source), Secret::new(random::from_alphabet(source, ALPHABET, CODE_LEN)));
        Self((0..limits::RECOVERY_CODES).map(draw).collect())
    }

    /// The codes as people write them down: `abcde-fghij-kmnpq-rstuv-wxyz2`.
    pub(super) fn shown(&self) -> Vec<Secret> {
        self.0.iter().map(|(_, code)| group(code.expose())).collect()
    }

    /// Stores the digests in the place of those the account had.
    pub(super) fn store(&self, tx: &mut WriteTx<'_>, account: &AuthRecord) -> Result<(), AuthError> {
        forget(tx, account)?;
        let codes = codes(tx.schema())?;
        for (id, code) in &self.0 {
            let values = [
                ("collectionRef", Stored::text(&account.collection.id)),
                ("recordRef", Stored::text(&account.record.id)),
                ("codeHash", Stored::from(digest(account, code.expose()))),
            ];
            tx.insert(&codes, &rows::image(&codes, id.clone(), &values, tx.now_ms()))?;
        }
        Ok(())
    }
}

fn group(code: &str) -> Secret {
    let mut text = String::with_capacity(code.len() + code.len() / GROUP_LEN);
    for (at, letter) in code.chars().enumerate() {
        if at > 0 && at % GROUP_LEN == 0 {
            text.push('-');
        }
        text.push(letter);
    }
    Secret::new(text)
}

/// A code as it was drawn, whichever way it was typed; `None` if it cannot be one.
fn normal(code: &Secret) -> Option<Secret> {
    let letters = code.expose().chars().filter(|letter| !letter.is_whitespace() && *letter != '-');
    let plain = Secret::new(letters.map(|letter| letter.to_ascii_lowercase()).collect::<String>());
    [CODE_LEN, OLD_CODE_LEN].contains(&plain.len()).then_some(plain)
}

/// Uses `code` up; `false` if it is none of the account's.
pub(super) fn redeem(tx: &mut WriteTx<'_>, account: &AuthRecord, code: &Secret) -> Result<bool, AuthError> {
    let Some(plain) = normal(code) else { return Ok(false) };
    let codes = codes(tx.schema())?;
    let wanted = digest(account, plain.expose());
    let found = of_account(tx, &codes, account)?
        .into_iter()
        .find(|row| Secret::new(rows::text(&codes, row, "codeHash")).matches(&wanted));
    let Some(row) = found else { return Ok(false) };
    tx.delete(&codes, &row.id)?;
    Ok(true)
}

/// How many codes the account has left.
pub(super) fn count(reader: &Reader<'_>, account: &AuthRecord) -> Result<usize, AuthError> {
    let codes = codes(reader.schema())?;
    Ok(of_account(reader, &codes, account)?.len())
}

/// Ends every code of the account.
pub(super) fn forget(tx: &mut WriteTx<'_>, account: &AuthRecord) -> Result<(), AuthError> {
    let codes = codes(tx.schema())?;
    for row in of_account(tx, &codes, account)? {
        tx.delete(&codes, &row.id)?;
    }
    Ok(())
}

fn digest(account: &AuthRecord, code: &str) -> String {
    opaque::digest_hex(&format!("{}:{code}", account.record.id))
}

fn of_account(reader: &Reader<'_>, codes: &Collection, account: &AuthRecord) -> Result<Vec<RecordImage>, AuthError> {
    let owner = [("collectionRef", account.collection.id.as_str()), ("recordRef", account.record.id.as_str())];
    Ok(rows::find_by_texts(reader, codes, &owner)?)
}

fn codes(schema: &Schema) -> Result<Arc<Collection>, AuthError> {
    schema.find(RECOVERY_CODES).cloned().ok_or_else(|| AuthError::UnknownCollection(RECOVERY_CODES.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SystemRandom;

    #[test]
    fn codes_have_125_bits_and_those_of_before_are_still_read() {
        let shown = NewCodes::draw(&SystemRandom::default()).shown();
        assert_eq!(shown.len(), limits::RECOVERY_CODES);
        for code in &shown {
            let plain = normal(code).expect("a code as it is shown");
            // 32 letters are 5 bits each.
            assert_eq!((ALPHABET.len(), plain.len() * 5), (32, 125));
        }
        for (typed, read) in [
            ("ABCDE-fghij kmnpq-rstuv", Some("abcdefghijkmnpqrstuv")),
            ("abcde-fghij-kmnpq-rstuv-wxyz2", Some("abcdefghijkmnpqrstuvwxyz2")),
            ("abcde-fghij-kmnpq-rstu", None),
            ("", None),
        ] {
            assert_eq!(normal(&Secret::new(typed)).as_ref().map(Secret::expose), read, "{typed}");
        }
    }
}
