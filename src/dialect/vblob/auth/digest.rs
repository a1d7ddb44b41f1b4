//! Digest authentication (RFC 7616): MD5 and SHA-256, `qop=auth`.
//!
//! A nonce is its moment and our signature of it, so that any shard accepts it and none remembers it. It holds for
//! [`NONCE_SECONDS_MAX`]; a client with a good answer to an older one is told `stale=true` and goes on by itself.
//! A request that somebody listened to can be repeated as long as that: there is no TLS here that would prevent it.

use super::{Known, REALM, credentials};
use crate::codec::text::{hex, unhex};
use crate::config::Secret;
use crate::dialect::vblob::answer::Refusal;
use crate::net::http::RequestHead;
use hmac::{Hmac, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const NONCE_SECONDS_MAX: u64 = 300;
const OPAQUE: &str = "millpond";

/// Refuses a request without a good answer to one of our nonces.
pub fn judge(
    known: &Known<'_>,
    nonce_key: &[u8; 32],
    head: &RequestHead,
    now_seconds: u64,
) -> Result<(), Refusal> {
    let refuse = |stale, message| {
        Err(Refusal::Unauthorized(challenges(&nonce(nonce_key, now_seconds), stale), message))
    };
    let Some(text) = credentials(head, "Digest") else {
        return refuse(false, "Digest authentication is needed");
    };
    let Some(answer) = Answer::parse(text) else { return refuse(false, "Authorization cannot be read") };
    if !answer.is_about(head)
        || !known.secret(&answer.username).is_some_and(|secret| answer.knows(secret, head))
    {
        return refuse(false, "Credentials do not match");
    }
    match nonce_seconds(nonce_key, &answer.nonce) {
        None => refuse(true, "The nonce is none of ours"),
        Some(then) if now_seconds.saturating_sub(then) > NONCE_SECONDS_MAX => {
            refuse(true, "The nonce is too old")
        }
        Some(_) => Ok(()),
    }
}

/// The stronger one first: a client takes the first that it understands.
fn challenges(nonce: &str, stale: bool) -> Vec<String> {
    let stale = if stale { ", stale=true" } else { "" };
    let challenge = |algorithm| {
        format!(
            r#"Digest realm="{REALM}", qop="auth", algorithm={algorithm}, nonce="{nonce}", opaque="{OPAQUE}"{stale}"#
        )
    };
    ["SHA-256", "MD5"].map(challenge).into()
}

fn nonce(key: &[u8; 32], seconds: u64) -> String {
    format!("{seconds:016x}{}", hex(&signature(key, seconds)))
}

/// When a nonce was given out, if it was by us.
fn nonce_seconds(key: &[u8; 32], nonce: &str) -> Option<u64> {
    let bytes = unhex(nonce.as_bytes())?;
    let (seconds, signed) = bytes.split_at_checked(8)?;
    let seconds = u64::from_be_bytes(seconds.try_into().expect("eight bytes"));
    bool::from(signature(key, seconds).ct_eq(signed)).then_some(seconds)
}

fn signature(key: &[u8; 32], seconds: u64) -> [u8; 16] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    mac.update(&seconds.to_be_bytes());
    mac.finalize().into_bytes()[..16].try_into().expect("sixteen of thirty-two bytes")
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn hex_of(self, parts: &[&[u8]]) -> String {
        let text = parts.join(&b':');
        match self {
            Algorithm::Md5 => hex(&Md5::digest(text)),
            Algorithm::Sha256 => hex(&Sha256::digest(text)),
        }
    }
}

/// What a client says.
struct Answer {
    username: String,
    nonce: String,
    uri: String,
    response: String,
    nc: String,
    cnonce: String,
    algorithm: Algorithm,
}

impl Answer {
    fn parse(text: &[u8]) -> Option<Self> {
        let parameters = parameters(text)?;
        let find = |name: &str| {
            let mut found = parameters.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            let (_, value) = found.next()?;
            found.next().is_none().then(|| value.clone())
        };
        let algorithm = match find("algorithm") {
            None => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            Some(_) => return None,
        };
        if find("realm")? != REALM || find("qop")? != "auth" {
            return None;
        }
        Some(Answer {
            username: find("username")?,
            nonce: find("nonce")?,
            uri: find("uri")?,
            response: find("response")?,
            nc: find("nc")?,
            cnonce: find("cnonce")?,
            algorithm,
        })
    }

    /// An answer for another target must not open this one. Some clients name the whole URI.
    fn is_about(&self, head: &RequestHead) -> bool {
        let behind_authority =
            self.uri.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
        self.uri == head.target() || behind_authority == Some(head.target())
    }

    fn knows(&self, secret: &Secret, head: &RequestHead) -> bool {
        let of = |parts: &[&str]| {
            let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            self.algorithm.hex_of(&parts)
        };
        let who = of(&[&self.username, REALM, secret.expose()]);
        let what = of(&[head.method_text(), &self.uri]);
        let expected = of(&[&who, &self.nonce, &self.nc, &self.cnonce, "auth", &what]);
        expected.as_bytes().ct_eq(self.response.to_ascii_lowercase().as_bytes()).into()
    }
}

/// `name=value` and `name="quoted \" value"` with commas between them.
fn parameters(text: &[u8]) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = std::str::from_utf8(text).ok()?.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=')?;
        let behind = behind.trim_start_matches([' ', '\t']);
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, behind) = behind.split_at(behind.find(',').unwrap_or(behind.len()));
                (value.trim_end().to_owned(), behind)
            }
        };
        found.push((name.trim().to_owned(), value));
        let behind = behind.trim_start_matches([' ', '\t']);
        if !behind.is_empty() && !behind.starts_with(',') {
            return None;
        }
        rest = behind.trim_start_matches([' ', '\t', ',']);
    }
    Some(found)
}

/// A value up to its closing quote, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::{main_account, request};
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [7; 32];
    const NOW: u64 = 1_800_000_000;

    /// A client of its own, so that both sides cannot be wrong alike: everything is written out.
    fn field(algorithm: &str, user: &str, secret: &str, line: &str, nonce: &str) -> String {
        let (method, uri) = line.split_once(' ').unwrap();
        let hash = |text: String| match algorithm {
            "MD5" => hex(&Md5::digest(text)),
            _ => hex(&Sha256::digest(text)),
        };
        let ha1 = hash(format!("{user}:vblob restricted area:{secret}"));
        let ha2 = hash(format!("{method}:{uri}"));
        let response = hash(format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
        format!(
            r#"Digest username="{user}", realm="vblob restricted area", nonce="{nonce}", uri="{uri}", algorithm={algorithm}, response="{response}", qop=auth, nc=00000001, cnonce="c0ffee", opaque="millpond""#
        )
    }

    fn judged(line: &str, field: &str, now: u64) -> Result<(), (String, &'static str)> {
        let main = main_account("id", "secret");
        let known = Known { main: Some(&main), bound: None };
        judge(&known, &KEY, &request(line, &[("Authorization", field)]), now).map_err(|refusal| match refusal
        {
            Refusal::Unauthorized(challenges, message) => (challenges.join("\n"), message),
            other => panic!("{other:?}"),
        })
    }

    /// The example of RFC 7616 section 3.9.1: our arithmetic is that of the RFC.
    #[test]
    fn the_example_of_the_rfc() {
        for (algorithm, response) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let of = |parts: &[&str]| {
                algorithm.hex_of(&parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>())
            };
            let ha1 = of(&["Mufasa", "http-auth@example.org", "Circle of Life"]);
            let ha2 = of(&["GET", "/dir/index.html"]);
            let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            assert_eq!(of(&[&ha1, nonce, "00000001", cnonce, "auth", &ha2]), response);
        }
    }

    #[test]
    fn a_good_answer_passes_in_both_algorithms() {
        for algorithm in ["MD5", "SHA-256"] {
            let line = "PUT /c/k?a=b,c";
            let field = field(algorithm, "id", "secret", line, &nonce(&KEY, NOW));
            assert_eq!(judged(line, &field, NOW + NONCE_SECONDS_MAX), Ok(()), "{algorithm}");
        }
    }

    #[test]
    fn anything_else_is_challenged() {
        let good = field("MD5", "id", "secret", "GET /c/k", &nonce(&KEY, NOW));
        for (line, field) in [
            ("GET /c/k", field("MD5", "id", "wrong", "GET /c/k", &nonce(&KEY, NOW))),
            ("GET /c/k", field("MD5", "other", "secret", "GET /c/k", &nonce(&KEY, NOW))),
            ("GET /c/other", good.clone()),
            ("PUT /c/k", good.clone()),
            ("GET /c/k", good.replace("qop=auth", "qop=auth-int")),
            ("GET /c/k", good.replace("=MD5", "=MD5-sess")),
            ("GET /c/k", good.replace("00000001", "00000002")),
            ("GET /c/k", good.replace("nc=", "x=")),
            ("GET /c/k", format!("{good}, nc=00000001")),
            ("GET /c/k", "Digest ".into()),
            ("GET /c/k", "Basic aWQ6c2VjcmV0".into()),
        ] {
            let (challenges, _) = judged(line, &field, NOW).unwrap_err();
            assert!(
                challenges.contains("algorithm=SHA-256") && challenges.contains("algorithm=MD5"),
                "{field}"
            );
            assert!(!challenges.contains("stale"), "{field}");
        }
    }

    #[test]
    fn an_old_or_foreign_nonce_is_stale_for_who_knows_the_secret() {
        for (nonce, now) in [
            (nonce(&KEY, NOW), NOW + NONCE_SECONDS_MAX + 1),
            (nonce(&[8; 32], NOW), NOW),
            ("0".into(), NOW),
            (String::new(), NOW),
        ] {
            let (challenges, _) =
                judged("GET /c", &field("SHA-256", "id", "secret", "GET /c", &nonce), now).unwrap_err();
            assert!(challenges.contains("stale=true"), "{nonce}");
        }
    }

    #[test]
    fn parameters_may_be_quoted_and_escaped() {
        let expected =
            [("a", "b, \"c\""), ("d", "e"), ("f", "")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(parameters(br#" a = "b, \"c\"" ,, d=e , f="""#).unwrap(), expected);
        for bad in [&b"a"[..], b"a=\"b", b"a=\"b\" c=d", b"a=\"b\\", b"\xff=1"] {
            assert_eq!(parameters(bad), None, "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_field_is_judged(text in any::<Vec<u8>>(), nonce in ".*") {
            let _ = parameters(&text);
            let _ = Answer::parse(&text);
            prop_assert_eq!(nonce_seconds(&KEY, &nonce), None);
        }
    }
}
