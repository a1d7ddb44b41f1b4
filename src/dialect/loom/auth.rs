//! Who may: bearer tokens in `Authorization`, in `Authentication`, or as `?access_token=`.
//!
//! Invariant: every token is compared, in time that depends on lengths alone, and none is ever logged.
//! Pure; runs on the connection's shard.

use crate::config::Secret;
use crate::net::http::RequestHead;
use crate::net::http::target::Param;

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// It carries no token.
    NoToken,
    /// It carries one that we do not know.
    WrongToken,
    /// The field is not two words, or there are two tokens.
    Malformed,
}

/// Whether `head` carries one of `tokens`. Without tokens everyone may.
pub fn judge(tokens: &[Secret], head: &RequestHead) -> Result<(), Denied> {
    if tokens.is_empty() {
        return Ok(());
    }
    let field = head.header("authorization").or_else(|| head.header("authentication"));
    let param = Param::find(head.query(), "access_token").value();
    decide(tokens, field, param.as_deref().filter(|token| !token.is_empty()))
}

fn decide(tokens: &[Secret], field: Option<&[u8]>, param: Option<&[u8]>) -> Result<(), Denied> {
    let presented = match (field.map(bearer).transpose()?.flatten(), param) {
        (Some(_), Some(_)) => return Err(Denied::Malformed),
        (Some(token), None) | (None, Some(token)) => token,
        (None, None) => return Err(Denied::NoToken),
    };
    // No early end: how long this takes must not tell which token came close.
    let known = tokens.iter().fold(false, |known, token| known | token.matches(presented));
    if known { Ok(()) } else { Err(Denied::WrongToken) }
}

/// The token of a field; nothing when it is of another scheme.
fn bearer(field: &[u8]) -> Result<Option<&[u8]>, Denied> {
    let mut words = field.split(|byte| *byte == b' ');
    match (words.next(), words.next(), words.next()) {
        (Some(scheme), Some(token), None) if scheme.eq_ignore_ascii_case(b"bearer") => Ok(Some(token)),
        (Some(_), Some(_), None) => Ok(None),
        _ => Err(Denied::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches every way in without a token, and every way of keeping one with a token out.
    #[test]
    fn only_a_known_token_presented_once_passes() {
        let tokens = [Secret::new("token1"), Secret::new("token2")];
        let cases = [
            (Some("Bearer token1"), None, Ok(())),
            (Some("bEARER token2"), None, Ok(())),
            (None, Some("token2"), Ok(())),
            (Some("Basic token1"), Some("token1"), Ok(())),
            (None, None, Err(Denied::NoToken)),
            (Some("Basic token1"), None, Err(Denied::NoToken)),
            (Some("Bearer token3"), None, Err(Denied::WrongToken)),
            (Some("Bearer token"), None, Err(Denied::WrongToken)),
            (Some("Bearer "), None, Err(Denied::WrongToken)),
            (None, Some("token11"), Err(Denied::WrongToken)),
            (Some("Bearer token1"), Some("token1"), Err(Denied::Malformed)),
            (Some("Bearer"), None, Err(Denied::Malformed)),
            (Some("Bearer token1 token2"), None, Err(Denied::Malformed)),
            (Some(""), Some("token1"), Err(Denied::Malformed)),
        ];
        for (field, param, verdict) in cases {
            let judged = decide(&tokens, field.map(str::as_bytes), param.map(str::as_bytes));
            assert_eq!(judged, verdict, "{field:?} {param:?}");
        }
    }
}
