//! Bodies of requests: how they are coded and signed, and what is computed while they come in.
//!
//! | `x-amz-content-sha256` | body | computed |
//! |---|---|---|
//! | 64 hex digits | as it is | SHA-256, which must be that |
//! | `UNSIGNED-PAYLOAD`, or no such field | as it is | |
//! | `STREAMING-AWS4-HMAC-SHA256-PAYLOAD` | chunks, each signed | SHA-256 of each chunk |
//! | `STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER` | the same, and signed trailers | SHA-256 of each chunk |
//! | `STREAMING-UNSIGNED-PAYLOAD-TRAILER` | chunks, and trailers | |
//!
//! Beside that: MD5 for every object and part, since entity tags are made of it, and for any body that comes with
//! `Content-MD5`; and the checksum that the fields or trailers carry, or that the upload was begun with. All of it
//! but the digests of signed chunks is computed beside the receiving, by a worker where the body is long.
//! Without access keys signatures of chunks are read and not judged; digests and checksums are judged always.
//!
//! Invariant: nothing is done with a body before all that it came with was compared.
//! Lives on: the connection's shard.

pub mod checksum;
pub mod chunks;

use super::fault::{Code, Fault};
use super::sign::Chain;
use crate::codec::text::unhex;
use crate::net::http::exchange::{BodyError, BodyStep, Exchange, Gone};
use crate::net::http::{BodyLength, RequestHead};
use crate::service::blob::Upload;
use crate::service::blob::digest::{Algorithm as Digest, Digested, Digests};
use checksum::{Algorithm, Checksum, Claim};
use chunks::AwsChunks;
use data_encoding::BASE64;

/// How a body is coded, and what of it is signed in the head.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Mode {
    /// As it is, with this SHA-256 if there is one.
    Plain(Option<[u8; 32]>),
    /// In chunks.
    Chunks { signed: bool, trailers: bool },
}

/// What is known of a body before it comes.
#[derive(Debug)]
pub struct Plan {
    mode: Mode,
    chain: Option<Chain>,
    /// The length of what the body says, if that is known.
    len: Option<u64>,
    md5: Option<[u8; 16]>,
    claimed: Option<Claim>,
    /// The checksum that a trailer is to carry.
    in_trailer: Option<Algorithm>,
    has_length: bool,
}

/// What a whole body turned out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// Its MD5, if it was computed.
    pub md5: Option<[u8; 16]>,
    /// Its checksum, if one was sent or wanted.
    pub checksum: Option<Checksum>,
}

/// Why a body was not received.
#[derive(Debug)]
pub enum Trouble {
    /// The peer is gone, or its framing is broken: nobody is there to be told.
    Gone,
    /// The peer is to be told.
    Fault(Fault),
}

impl<T: Into<Fault>> From<T> for Trouble {
    fn from(fault: T) -> Self {
        Trouble::Fault(fault.into())
    }
}

impl From<Gone> for Trouble {
    fn from(_: Gone) -> Self {
        Trouble::Gone
    }
}

/// Where a body goes.
pub enum Sink<'a> {
    /// Into the store.
    Upload(&'a mut Upload),
    /// Into memory, so many bytes at most.
    Memory(&'a mut Vec<u8>, usize),
}

impl Plan {
    /// What the head says about the body.
    pub fn of(head: &RequestHead, chain: Option<Chain>) -> Result<Self, Fault> {
        Self::judge(head, chain, checksum::claimed(head)?)
    }

    fn judge(head: &RequestHead, chain: Option<Chain>, claimed: Option<Claim>) -> Result<Self, Fault> {
        let mode = Mode::of(head.header("x-amz-content-sha256"))?;
        let framed = match head.body() {
            BodyLength::None => Some(0),
            BodyLength::Exact(len) => Some(len),
            BodyLength::Chunked => None,
        };
        let len = match mode {
            Mode::Plain(_) => framed,
            Mode::Chunks { .. } => Some(decoded_len(head)?),
        };
        let md5 = head.header("content-md5").map(|value| {
            let md5 = BASE64.decode(value).ok().and_then(|md5| md5.try_into().ok());
            md5.ok_or(Fault::from(Code::InvalidDigest))
        });
        let in_trailer = trailer_of(head, &mode)?;
        if claimed.is_some() && in_trailer.is_some() {
            return Err(Fault::new(
                Code::InvalidRequest,
                "Expecting a single x-amz-checksum- header or trailer",
            ));
        }
        if let Some(named) = head.header("x-amz-sdk-checksum-algorithm") {
            let named = algorithm(named)?;
            let carried = claimed.as_ref().map(|(algorithm, _)| *algorithm).or(in_trailer);
            if carried.is_some_and(|carried| carried != named) {
                return Err(Fault::new(
                    Code::InvalidRequest,
                    "Value for x-amz-sdk-checksum-algorithm header is invalid.",
                ));
            }
        }
        Ok(Plan {
            has_length: head.body() != BodyLength::None,
            mode,
            chain,
            len,
            md5: md5.transpose()?,
            claimed,
            in_trailer,
        })
    }

    /// The same for a document whose request has checksum fields that speak of something else.
    pub fn of_document(head: &RequestHead, chain: Option<Chain>) -> Result<Self, Fault> {
        Self::judge(head, chain, None)
    }

    /// The length of what the body says, if that is known.
    pub fn announced(&self) -> Option<u64> {
        self.len
    }

    /// An object's body is announced, be it empty.
    pub fn demand_length(&self) -> Result<(), Fault> {
        if self.has_length { Ok(()) } else { Err(Code::MissingContentLength.into()) }
    }

    /// The checksum that the head says the body has.
    pub fn claimed(&self) -> Option<Checksum> {
        let (algorithm, digest) = self.claimed.as_ref()?;
        Some(Checksum::of_bytes(*algorithm, digest))
    }

    /// The checksum that the body comes with.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.claimed.as_ref().map(|(algorithm, _)| *algorithm).or(self.in_trailer)
    }

    /// Reads the whole body. `wanted` is computed even if the peer sent no checksum; the MD5 always for the store.
    pub async fn receive(
        mut self,
        exchange: &mut Exchange,
        mut sink: Sink<'_>,
        wanted: Option<Algorithm>,
    ) -> Result<Received, Trouble> {
        let computed = self.algorithm().or(wanted);
        let mut digests = Digests::new(&self.digests(&sink, computed));
        let mut decoder = match self.mode {
            Mode::Plain(_) => None,
            Mode::Chunks { signed, trailers } => {
                let chain = self.chain.take().filter(|_| signed);
                Some(AwsChunks::new(self.len.expect("chunks come with their length"), trailers, chain))
            }
        };
        loop {
            sink.make_room().await?;
            digests.ready().await;
            let mut bad = None;
            let step = exchange.read_body(|bytes| {
                let mut take = |bytes: &[u8]| {
                    digests.update(bytes);
                    sink.take(bytes);
                };
                match &mut decoder {
                    None => take(bytes),
                    Some(_) if bad.is_some() => {}
                    Some(decoder) => bad = decoder.feed(bytes, take).err(),
                }
            });
            let step = step.await;
            if let Some(bad) = bad {
                return Err(Fault::from(bad).into());
            }
            match step {
                Ok(BodyStep::Bytes(_)) => {}
                Ok(BodyStep::End) => break,
                Err(BodyError::Gone) => return Err(Trouble::Gone),
                Err(BodyError::Refused(refusal)) => {
                    return Err(Fault::new(Code::IncompleteBody, refusal.reason.to_string()).into());
                }
            }
        }
        let trailers = decoder.map_or(Ok(Vec::new()), AwsChunks::finish)?;
        sink.make_room().await?;
        self.compare(&digests.finish().await, &trailers, computed)
    }

    fn digests(&self, sink: &Sink<'_>, computed: Option<Algorithm>) -> Vec<Digest> {
        let mut wanted = Vec::new();
        if self.md5.is_some() || matches!(sink, Sink::Upload(_)) {
            wanted.push(Digest::Md5);
        }
        if matches!(self.mode, Mode::Plain(Some(_))) {
            wanted.push(Digest::Sha256);
        }
        if let Some(digest) = computed.map(Algorithm::digest)
            && !wanted.contains(&digest)
        {
            wanted.push(digest);
        }
        wanted
    }

    fn compare(
        &self,
        digested: &Digested,
        trailers: &[(String, Vec<u8>)],
        computed: Option<Algorithm>,
    ) -> Result<Received, Trouble> {
        let md5: Option<[u8; 16]> =
            digested.of(Digest::Md5).map(|md5| md5.try_into().expect("an MD5 has 16 bytes"));
        if self.md5.is_some() && self.md5 != md5 {
            return Err(Code::BadDigest.into());
        }
        if let Mode::Plain(Some(sha256)) = self.mode
            && digested.of(Digest::Sha256) != Some(&sha256[..])
        {
            return Err(Code::XAmzContentSHA256Mismatch.into());
        }
        let mut claimed = self.claimed.clone();
        if let Some(algorithm) = self.in_trailer {
            let trailer = trailers.iter().find(|(name, _)| name == algorithm.field());
            let (_, value) = trailer.ok_or_else(|| {
                Fault::new(Code::InvalidRequest, format!("The trailer {} is missing", algorithm.field()))
            })?;
            claimed = Some((algorithm, algorithm.decode(value)?));
        }
        if let Some((algorithm, claimed)) = &claimed
            && digested.of(algorithm.digest()) != Some(&claimed[..])
        {
            let message =
                format!("The {} you specified did not match the calculated checksum.", algorithm.text());
            return Err(Fault::new(Code::BadDigest, message).into());
        }
        let checksum = computed.map(|algorithm| {
            Checksum::of_bytes(algorithm, digested.of(algorithm.digest()).expect("it was wanted"))
        });
        Ok(Received { md5, checksum })
    }
}

impl Sink<'_> {
    async fn make_room(&mut self) -> Result<(), Fault> {
        match self {
            Sink::Upload(upload) => upload.make_room().await.map_err(Fault::from),
            Sink::Memory(bytes, max) if bytes.len() <= *max => Ok(()),
            Sink::Memory(_, max) => {
                Err(Fault::new(Code::MalformedXML, format!("The body has more than {max} bytes")))
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        match self {
            Sink::Upload(upload) => upload.take(bytes),
            // What is beyond is refused before the next receive.
            Sink::Memory(out, max) if out.len() <= *max => out.extend_from_slice(bytes),
            Sink::Memory(..) => {}
        }
    }
}

impl Mode {
    fn of(value: Option<&[u8]>) -> Result<Self, Fault> {
        Ok(match value {
            None | Some(b"UNSIGNED-PAYLOAD" | b"") => Mode::Plain(None),
            Some(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD") => Mode::Chunks { signed: true, trailers: false },
            Some(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER") => {
                Mode::Chunks { signed: true, trailers: true }
            }
            Some(b"STREAMING-UNSIGNED-PAYLOAD-TRAILER") => Mode::Chunks { signed: false, trailers: true },
            Some(value) => {
                let sha256 = unhex(value).and_then(|sha256| sha256.try_into().ok());
                Mode::Plain(Some(sha256.ok_or(Fault::argument(
                    "x-amz-content-sha256",
                    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, \
                     STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, STREAMING-UNSIGNED-PAYLOAD-TRAILER or a valid \
                     sha256 value",
                ))?))
            }
        })
    }
}

fn decoded_len(head: &RequestHead) -> Result<u64, Fault> {
    let value = head.header("x-amz-decoded-content-length").ok_or(Fault::from(Code::MissingContentLength))?;
    let number =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    number.and_then(|text| text.parse().ok()).ok_or_else(|| {
        Fault::argument(
            "x-amz-decoded-content-length",
            "x-amz-decoded-content-length is not a number of bytes",
        )
    })
}

/// The checksum that `x-amz-trailer` names; other trailers mean nothing.
fn trailer_of(head: &RequestHead, mode: &Mode) -> Result<Option<Algorithm>, Fault> {
    let mut found = None;
    for value in head.headers("x-amz-trailer") {
        for name in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty())
        {
            let Some(algorithm) = Algorithm::of_field(name) else {
                return Err(Fault::new(
                    Code::InvalidRequest,
                    "The value specified in the x-amz-trailer header is not supported",
                ));
            };
            if found.replace(algorithm).is_some() {
                return Err(Fault::new(Code::InvalidRequest, "Expecting a single x-amz-checksum- trailer"));
            }
        }
    }
    match mode {
        Mode::Chunks { trailers: true, .. } => Ok(found),
        _ if found.is_none() => Ok(None),
        _ => Err(Fault::new(Code::InvalidRequest, "x-amz-trailer needs a payload mode with trailers")),
    }
}

/// The algorithm that a field names.
pub fn algorithm(value: &[u8]) -> Result<Algorithm, Fault> {
    Algorithm::parse(value).ok_or(Fault::new(
        Code::InvalidRequest,
        "Checksum algorithm provided is unsupported. Please try again with any of the valid types: \
         [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeadLimits, Step};

    fn plan(fields: &str) -> Result<Plan, Code> {
        let text = format!("PUT /b/k HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        assert!(matches!(head.parse(text.as_bytes(), &HeadLimits::default()), Step::Done(_)), "{text}");
        Plan::of(&head, None).map_err(|fault| fault.code)
    }

    const STREAMING: &str = "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n";

    #[test]
    fn all_modes_are_known() {
        let mode = |value: &str| {
            plan(&format!("x-amz-content-sha256: {value}\r\nx-amz-decoded-content-length: 5\r\n"))
                .map(|plan| plan.mode)
        };
        assert_eq!(mode("UNSIGNED-PAYLOAD"), Ok(Mode::Plain(None)));
        assert_eq!(mode(&"aB".repeat(32)), Ok(Mode::Plain(Some([0xab; 32]))));
        for (value, signed, trailers) in [
            ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", true, false),
            ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", true, true),
            ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", false, true),
        ] {
            assert_eq!(mode(value), Ok(Mode::Chunks { signed, trailers }));
        }
        for value in ["STREAMING", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "ab", &"g".repeat(64)] {
            assert_eq!(mode(value), Err(Code::InvalidArgument), "{value}");
        }
    }

    #[test]
    fn lengths_are_those_of_the_payload() {
        let len = |fields: &str| plan(fields).map(|plan| (plan.announced(), plan.demand_length().is_ok()));
        assert_eq!(len(""), Ok((Some(0), false)));
        assert_eq!(len("Content-Length: 0\r\n"), Ok((Some(0), true)));
        assert_eq!(len("Content-Length: 7\r\n"), Ok((Some(7), true)));
        assert_eq!(len("Transfer-Encoding: chunked\r\n"), Ok((None, true)));
        let decoded = |value: &str| {
            len(&format!("{STREAMING}x-amz-decoded-content-length: {value}\r\nContent-Length: 99\r\n"))
        };
        assert_eq!(decoded("5"), Ok((Some(5), true)));
        assert_eq!(decoded("+5"), Err(Code::InvalidArgument));
        assert_eq!(len(&format!("{STREAMING}Content-Length: 9\r\n")), Err(Code::MissingContentLength));
    }

    #[test]
    fn digests_are_read_or_refused() {
        let code = |fields: &str| plan(fields).err();
        assert_eq!(code("Content-MD5: XUFAKrxLKna5cZ2REBfFkg==\r\n"), None);
        for md5 in ["x", "XUFAKrxLKna5cZ2REBfF", ""] {
            assert_eq!(code(&format!("Content-MD5: {md5}\r\n")), Some(Code::InvalidDigest));
        }
        let crc = "x-amz-checksum-crc32: y/Q5Jg==\r\n";
        assert_eq!(plan(crc).unwrap().algorithm(), Some(Algorithm::Crc32));
        let sha1 = "x-amz-checksum-sha1: 98O8HYCOBHMq32eZZczDTKfuNEE=\r\n";
        assert_eq!(code(&format!("{crc}{sha1}")), Some(Code::InvalidRequest));
        assert_eq!(code("x-amz-checksum-crc32: AAAA\r\n"), Some(Code::InvalidRequest));
        assert_eq!(code(&format!("{crc}x-amz-sdk-checksum-algorithm: SHA1\r\n")), Some(Code::InvalidRequest));
        assert_eq!(code(&format!("{crc}x-amz-sdk-checksum-algorithm: crc32\r\n")), None);
        let trailer =
            format!("{STREAMING}x-amz-decoded-content-length: 1\r\nx-amz-trailer: x-amz-checksum-crc32c\r\n");
        assert_eq!(plan(&trailer).unwrap().algorithm(), Some(Algorithm::Crc32c));
        assert_eq!(code(&format!("{trailer}{crc}")), Some(Code::InvalidRequest));
        assert_eq!(code("x-amz-trailer: x-amz-checksum-crc32\r\n"), Some(Code::InvalidRequest));
        assert_eq!(code(&trailer.replace("x-amz-checksum-crc32c", "x-what")), Some(Code::InvalidRequest));
    }
}
