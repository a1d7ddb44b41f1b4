//! Who may: nobody is asked, or basic, digest or signed requests, as the configuration says.
//!
//! Invariant: secrets are compared in time that depends on lengths alone, and every 401 says how to do it right.
//! Accounts themselves are for the main one alone, by basic authentication, whatever else is configured.
//! Pure but for the clock; runs on the connection's shard.

mod basic;
mod digest;
mod signed;

use super::Settings;
use super::accounts::{Accounts, Bound};
use super::answer::Refusal;
use crate::config::{Secret, VblobAuth};
use crate::net::http::RequestHead;
use crate::runtime::shard;
use std::sync::Arc;

/// What browsers show, and what a digest is over.
const REALM: &str = "vblob restricted area";

/// Refuses a request of somebody who may not.
pub fn judge(
    settings: &Settings,
    accounts: &Accounts,
    head: &RequestHead,
    about_accounts: bool,
) -> Result<(), Refusal> {
    if about_accounts {
        return basic::judge(&Known { main: settings.main.as_ref(), bound: None }, head);
    }
    // Before the table is touched, which all shards share.
    if settings.auth == VblobAuth::Disabled {
        return Ok(());
    }
    let known = Known { main: settings.main.as_ref(), bound: Some(accounts.bound()) };
    let now_seconds = || shard::current().wall().unix_seconds();
    match settings.auth {
        VblobAuth::Disabled => Ok(()),
        VblobAuth::Basic => basic::judge(&known, head),
        VblobAuth::Digest => digest::judge(&known, accounts.nonce_key(), head, now_seconds()),
        VblobAuth::S3 => signed::judge(&known, head, now_seconds()),
    }
}

/// Whose secrets count.
struct Known<'a> {
    main: Option<&'a (Box<str>, Secret)>,
    bound: Option<Arc<Bound>>,
}

impl Known<'_> {
    fn secret(&self, id: &str) -> Option<&Secret> {
        match self.main {
            Some((main, secret)) if **main == *id => Some(secret),
            _ => self.bound.as_ref()?.secret(id),
        }
    }
}

/// What follows the scheme of an `Authorization` field, if it is this one.
fn credentials<'a>(head: &'a RequestHead, scheme: &str) -> Option<&'a [u8]> {
    let field = head.header("authorization")?;
    let (word, rest) = field.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ")?;
    word.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest.trim_ascii())
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::net::http::{HeadLimits, Step};

    pub fn request(line: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut text = format!("{line} HTTP/1.1\r\nHost: a\r\n");
        fields.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(text.len()));
        head
    }

    pub fn main_account(id: &str, secret: &str) -> (Box<str>, Secret) {
        (id.into(), Secret::new(secret))
    }
}
