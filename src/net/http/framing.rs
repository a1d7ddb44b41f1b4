//! Decides where a message ends: body length, persistence, expectation (RFC 9112 sections 3.2, 6, 9).
//!
//! Invariant: whatever two readers could frame differently is refused, whoever would be right.
//! Lives on: the connection's shard.

use super::target::is_authority;
use super::{Reason, Status, Version, is_token, list_elements, trim};

/// How the body is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// No body.
    #[default]
    None,
    /// Exactly so many bytes, possibly zero.
    Exact(u64),
    /// Chunks until the last one.
    Chunked,
}

/// What the fields say about this message as a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing<'a> {
    /// A valid Host; empty only for HTTP/1.0 without one.
    pub host: &'a [u8],
    pub body: BodyLength,
    pub keep_alive: bool,
    pub expects_continue: bool,
    /// Connection lists `upgrade`, so that Upgrade counts.
    pub may_upgrade: bool,
}

/// Reads the fields that frame a message, in one pass.
pub(super) fn decide<'a>(
    version: Version,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<Framing<'a>, Reason> {
    let mut seen = Seen::default();
    for (name, value) in fields {
        seen.take(name, value)?;
    }
    let keep_alive = !seen.close && (version == Version::Http11 || seen.keep_alive);
    Ok(Framing {
        host: seen.host(version)?,
        body: seen.body(version)?,
        keep_alive,
        expects_continue: seen.expects_continue(version)?,
        may_upgrade: seen.upgrade && version == Version::Http11,
    })
}

/// What the fields of an answer say about it as a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerFraming {
    /// `None` when only the connection's end ends it.
    pub body: Option<BodyLength>,
    pub keep_alive: bool,
}

/// Reads the fields that frame an answer with `status`; `to_head` when HEAD asked for it (RFC 9112 section 6.3).
pub(super) fn decide_answer<'a>(
    version: Version,
    status: Status,
    to_head: bool,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<AnswerFraming, Reason> {
    let mut seen = Seen::default();
    for (name, value) in fields {
        match name.len() {
            10 | 14 | 17 => seen.take(name, value)?,
            _ => {}
        }
    }
    let announced = seen.body(version)?;
    let body = match announced {
        _ if to_head || !status.has_body() => Some(BodyLength::None),
        BodyLength::None => None,
        length => Some(length),
    };
    let keep_alive = body.is_some() && !seen.close && (version == Version::Http11 || seen.keep_alive);
    Ok(AnswerFraming { body, keep_alive })
}

#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    coding: Option<Result<(), Reason>>,
    expectation: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl<'a> Seen<'a> {
    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Reason> {
        // The length first: most fields are none of these, and one comparison of numbers says so.
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is("host") => self.take_host(value),
            6 if is("expect") => self.take_expectation(value),
            10 if is("connection") => self.take_connection(value),
            14 if is("content-length") => self.take_length(value),
            17 if is("transfer-encoding") => self.take_coding(value),
            _ => Ok(()),
        }
    }

    fn take_host(&mut self, value: &'a [u8]) -> Result<(), Reason> {
        if self.host.replace(value).is_some() {
            return Err(Reason::HostRepeated);
        }
        if is_authority(value) { Ok(()) } else { Err(Reason::HostInvalid) }
    }

    fn take_expectation(&mut self, value: &'a [u8]) -> Result<(), Reason> {
        // Two of them are one list, which is not "100-continue".
        let repeated = self.expectation.replace(value).is_some();
        if repeated {
            self.expectation = Some(b"");
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) -> Result<(), Reason> {
        for option in list_elements(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }

    /// RFC 9110 lets a recipient fold "5, 5" into 5; we do not, nor do we accept the field twice.
    fn take_length(&mut self, value: &[u8]) -> Result<(), Reason> {
        let length = decimal(value).ok_or(Reason::LengthInvalid)?;
        if self.length.replace(length).is_some() { Err(Reason::LengthRepeated) } else { Ok(()) }
    }

    fn take_coding(&mut self, value: &[u8]) -> Result<(), Reason> {
        let repeated = self.coding.is_some();
        self.coding = Some(if repeated { Err(Reason::CodingNotAlone) } else { judge_coding(value) });
        Ok(())
    }

    fn host(&self, version: Version) -> Result<&'a [u8], Reason> {
        match (self.host, version) {
            (Some(host), _) => Ok(host),
            (None, Version::Http10) => Ok(b""),
            (None, Version::Http11) => Err(Reason::HostMissing),
        }
    }

    fn body(&self, version: Version) -> Result<BodyLength, Reason> {
        match (self.coding, self.length) {
            (None, None) => Ok(BodyLength::None),
            (None, Some(length)) => Ok(BodyLength::Exact(length)),
            (Some(_), Some(_)) => Err(Reason::LengthAndCoding),
            (Some(_), None) if version == Version::Http10 => Err(Reason::CodingInHttp10),
            (Some(judged), None) => judged.map(|()| BodyLength::Chunked),
        }
    }

    /// HTTP/1.0 knows no interim answers, so its Expect is ignored (RFC 9110 section 10.1.1).
    fn expects_continue(&self, version: Version) -> Result<bool, Reason> {
        match self.expectation {
            Some(value) if version == Version::Http11 => {
                if value.eq_ignore_ascii_case(b"100-continue") {
                    Ok(true)
                } else {
                    Err(Reason::Expectation)
                }
            }
            Some(_) | None => Ok(false),
        }
    }
}

/// Digits alone: no sign, no space, no list; `None` when they exceed 64 bits.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let append = |number: u64, byte| number.checked_mul(10)?.checked_add(digit(byte)?);
    if text.is_empty() { None } else { text.iter().try_fold(0, append) }
}

/// Exactly `chunked`; everything else is refused with the reason that helps most.
fn judge_coding(value: &[u8]) -> Result<(), Reason> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|byte| *byte == b',').map(coding_name);
    if !codings.clone().all(is_token) {
        return Err(Reason::CodingMalformed);
    }
    if codings.any(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(Reason::CodingNotAlone);
    }
    Err(Reason::CodingUnknown)
}

/// Without parameters and the space around.
fn coding_name(element: &[u8]) -> &[u8] {
    trim(element.split(|byte| *byte == b';').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn judge<'a>(version: Version, fields: Fields<'a>) -> Result<Framing<'a>, Reason> {
        decide(version, fields.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    fn with_host(name: &str, value: &str) -> Result<BodyLength, Reason> {
        judge(Version::Http11, &[("Host", "a"), (name, value)]).map(|framing| framing.body)
    }

    #[test]
    fn lengths() {
        assert_eq!(with_host("content-LENGTH", "0"), Ok(BodyLength::Exact(0)));
        assert_eq!(with_host("Content-Length", "005"), Ok(BodyLength::Exact(5)));
        assert_eq!(with_host("Content-Length", "18446744073709551615"), Ok(BodyLength::Exact(u64::MAX)));
        for bad in ["", "18446744073709551616", "+5", "-0", "5,5", "5 5", "0x5", "1_0", "5.0", "５"] {
            assert_eq!(with_host("Content-Length", bad), Err(Reason::LengthInvalid), "{bad}");
        }
    }

    #[test]
    fn a_length_comes_once_and_alone() {
        let fields = [("Host", "a"), ("Content-Length", "5"), ("content-length", "5")];
        assert_eq!(judge(Version::Http11, &fields), Err(Reason::LengthRepeated));
        for coding in ["chunked", "gzip", ""] {
            let fields = [("Host", "a"), ("Transfer-Encoding", coding), ("Content-Length", "5")];
            assert_eq!(judge(Version::Http11, &fields), Err(Reason::LengthAndCoding));
        }
    }

    #[test]
    fn codings() {
        assert_eq!(with_host("Transfer-Encoding", "cHunked"), Ok(BodyLength::Chunked));
        for (value, reason) in [
            ("gzip", Reason::CodingUnknown),
            ("identity", Reason::CodingUnknown),
            ("xchunked", Reason::CodingUnknown),
            ("gzip;q=1, deflate", Reason::CodingUnknown),
            ("gzip, chunked", Reason::CodingNotAlone),
            ("chunked, gzip", Reason::CodingNotAlone),
            ("chunked, chunked", Reason::CodingNotAlone),
            ("chunked;a=b", Reason::CodingNotAlone),
            ("", Reason::CodingMalformed),
            (",chunked", Reason::CodingMalformed),
            ("chunked,", Reason::CodingMalformed),
            ("chunked\u{a0}", Reason::CodingMalformed),
            ("\"chunked\"", Reason::CodingMalformed),
        ] {
            assert_eq!(with_host("Transfer-Encoding", value), Err(reason), "{value}");
        }
    }

    #[test]
    fn a_coding_comes_once_and_not_in_http10() {
        let twice = [("Host", "a"), ("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")];
        assert_eq!(judge(Version::Http11, &twice), Err(Reason::CodingNotAlone));
        assert_eq!(judge(Version::Http10, &twice[..2]), Err(Reason::CodingInHttp10));
    }

    #[test]
    fn hosts() {
        assert_eq!(judge(Version::Http11, &[]), Err(Reason::HostMissing));
        assert_eq!(judge(Version::Http10, &[]).unwrap().host, b"");
        for version in [Version::Http10, Version::Http11] {
            assert_eq!(judge(version, &[("Host", "a"), ("hOST", "a")]), Err(Reason::HostRepeated));
            for bad in ["", "a/b", "a, b", "u@a", "a b"] {
                assert_eq!(judge(version, &[("Host", bad)]), Err(Reason::HostInvalid), "{bad}");
            }
        }
    }

    #[test]
    fn persistence() {
        let keeps =
            |version, value| judge(version, &[("Host", "a"), ("Connection", value)]).unwrap().keep_alive;
        assert!(judge(Version::Http11, &[("Host", "a")]).unwrap().keep_alive);
        assert!(!judge(Version::Http10, &[]).unwrap().keep_alive);
        assert!(keeps(Version::Http10, "Keep-Alive"));
        assert!(!keeps(Version::Http11, "foo, CLOSE"));
        assert!(!keeps(Version::Http10, "keep-alive, close"));
        assert!(keeps(Version::Http11, "closed"));
    }

    #[test]
    fn expectations() {
        let judged =
            |version, value| judge(version, &[("Host", "a"), ("Expect", value)]).map(|f| f.expects_continue);
        assert_eq!(judged(Version::Http11, "100-Continue"), Ok(true));
        assert_eq!(judged(Version::Http10, "100-continue"), Ok(false));
        assert_eq!(judged(Version::Http10, "200-ok"), Ok(false));
        assert_eq!(judged(Version::Http11, "200-ok"), Err(Reason::Expectation));
        let twice = [("Host", "a"), ("Expect", "100-continue"), ("Expect", "100-continue")];
        assert_eq!(judge(Version::Http11, &twice), Err(Reason::Expectation));
    }

    #[test]
    fn upgrades_need_the_connection_option() {
        let may =
            |version, value| judge(version, &[("Host", "a"), ("Connection", value)]).unwrap().may_upgrade;
        assert!(may(Version::Http11, "keep-alive, Upgrade"));
        assert!(!may(Version::Http10, "upgrade"));
        assert!(!may(Version::Http11, "keep-alive"));
    }
}
