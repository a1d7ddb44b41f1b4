//! Basic authentication (RFC 7617).

use super::{Known, REALM, credentials};
use crate::codec::text::unbase64;
use crate::dialect::vblob::answer::Refusal;
use crate::net::http::RequestHead;

/// Refuses a request without id and secret of somebody known.
pub fn judge(known: &Known<'_>, head: &RequestHead) -> Result<(), Refusal> {
    let refuse = |message| Err(Refusal::Unauthorized(vec![challenge()], message));
    let Some(text) = credentials(head, "Basic") else { return refuse("Basic authentication is needed") };
    if is_known(known, text) { Ok(()) } else { refuse("Credentials do not match") }
}

fn is_known(known: &Known<'_>, text: &[u8]) -> bool {
    let pair = unbase64(text).and_then(|pair| String::from_utf8(pair).ok());
    let pair = pair.as_deref().and_then(|pair| pair.split_once(':'));
    pair.is_some_and(|(id, secret)| known.secret(id).is_some_and(|wanted| wanted.matches(secret.as_bytes())))
}

fn challenge() -> String {
    format!(r#"Basic realm="{REALM}", charset="UTF-8""#)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{main_account, request};
    use super::*;
    use crate::codec::text::base64;

    #[test]
    fn only_id_and_secret_of_somebody_known_pass() {
        let main = main_account("id", "sec:ret");
        let known = Known { main: Some(&main), bound: None };
        let judged = |field: &str| judge(&known, &request("GET /c", &[("Authorization", field)])).is_ok();
        assert!(judged(&format!("Basic {}", base64(b"id:sec:ret"))));
        assert!(judged(&format!("bASIC  {}", base64(b"id:sec:ret"))));
        for pair in ["id:sec", "id:", "id", ":", "", "ID:sec:ret", "other:sec:ret"] {
            assert!(!judged(&format!("Basic {}", base64(pair.as_bytes()))), "{pair}");
        }
        for field in ["", "Basic", "Basic !", "Digest aWQ6c2VjOnJldA==", "aWQ6c2VjOnJldA=="] {
            assert!(!judged(field), "{field}");
        }
        assert!(judge(&Known { main: None, bound: None }, &request("GET /c", &[])).is_err());
    }
}
