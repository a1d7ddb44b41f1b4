//! Requests signed by others: the published examples, and what botocore makes of requests like those that clients send.

use super::*;
use crate::config::Secret;
use crate::net::http::{HeadLimits, Step};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const NOW: u64 = 1_767_323_045;

fn keys() -> Keys {
    let secret = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    Keys::new("us-east-1", [("other".into(), Secret::new("x")), ("AKIDEXAMPLE".into(), secret)])
}

fn parsed(text: &[u8]) -> Option<RequestHead> {
    let mut head = RequestHead::new();
    matches!(head.parse(text, &HeadLimits::default()), Step::Done(_)).then_some(head)
}

fn judged(text: &str, now: u64) -> Result<Granted, Denied> {
    judge_text(&keys(), text, now)
}

fn judge_text(keys: &Keys, text: &str, now: u64) -> Result<Granted, Denied> {
    let head = parsed(text.as_bytes()).expect("a head");
    let bucket = head.host().strip_suffix(".localhost:9000").map(str::to_owned);
    judge(keys, &head, bucket.as_deref(), now)
}

/// How many of [`SIGNED`], from the first on, are of version 4.
const VERSION_4: usize = 7;

/// From botocore 1.44 on 2026-01-02 at 03:04:05.
const SIGNED: &[&str] = &[
    "GET / HTTP/1.1\r\n\
     Host: 127.0.0.1:9000\r\n\
     X-Amz-Date: 20260102T030405Z\r\n\
     X-Amz-Content-SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n\
     Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=a721f05f3ce076cc139a07ad09c5260c4b775d44f6be9aeadabf824b611eccab\r\n\r\n",
    "GET /bucket?list-type=2&prefix=a%2Fb%20c&delimiter=%2F&encoding-type=url HTTP/1.1\r\n\
     Host: 127.0.0.1:9000\r\n\
     X-Amz-Date: 20260102T030405Z\r\n\
     X-Amz-Content-SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n\
     Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=2b358f198398131a45ad540e4ba382aeb3877132d22570620db0d54fa6674aaf\r\n\r\n",
    "PUT /bucket/a%20b/%E6%97%A5%2B~%28x%29 HTTP/1.1\r\n\
     Host: 127.0.0.1:9000\r\n\
     Content-Type: text/plain\r\n\
     x-amz-meta-two-words:   one   two \r\n\
     X-Amz-Date: 20260102T030405Z\r\n\
     X-Amz-Content-SHA256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\r\n\
     Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/s3/aws4_request, SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-meta-two-words, Signature=74900e12ef967f20b619e22f2d34c27e5aa5ba831042c0b0990ba2664828bad2\r\n\r\n",
    "POST /bucket?delete HTTP/1.1\r\n\
     Host: 127.0.0.1:9000\r\n\
     Content-MD5: abc\r\n\
     X-Amz-Date: 20260102T030405Z\r\n\
     X-Amz-Content-SHA256: e2000f6b1fc1db795626ddaf9c13324157e9f56cb7820b40d7c3253a08ee5b91\r\n\
     Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/s3/aws4_request, SignedHeaders=content-md5;host;x-amz-content-sha256;x-amz-date, Signature=5229d9802482670ec4f0f04a5c7e1fac7e8b8ae5e8a3c65ed38b2a8e975a2c77\r\n\r\n",
    "GET /key//..//x HTTP/1.1\r\n\
     Host: bucket.localhost:9000\r\n\
     Range: bytes=0-1\r\n\
     X-Amz-Date: 20260102T030405Z\r\n\
     X-Amz-Content-SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n\
     Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=ce6763a10a134404ff5172be4523ee9c385cf77101637ebf384fff02bb01c50a\r\n\r\n",
    "GET /bucket/a%20key?response-content-type=text%2Fplain&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20260102%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20260102T030405Z&X-Amz-Expires=600&X-Amz-SignedHeaders=host&X-Amz-Signature=57e752190e3025d38cd7aafda2d8b77a841ac993016b4ae112cb53ef32f63828 HTTP/1.1\r\n\
     Host: 127.0.0.1:9000\r\n\r\n",
    "PUT /bucket/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20260102%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20260102T030405Z&X-Amz-Expires=600&X-Amz-SignedHeaders=host%3Bx-amz-meta-a&X-Amz-Signature=c0c5ec5e807e6cdb5718c2b1dffc4b0bf83e85bc28fb0dc2dd9cdac80ebcaea6 HTTP/1.1\r\n\
     Host: 127.0.0.1:9000\r\n\
     x-amz-meta-a: b\r\n\r\n",
    "GET /bucket/a%20key?uploadId=x%2By&partNumber=3&max-parts=7 HTTP/1.1\r\n\
     Host: 127.0.0.1:9000\r\n\
     Date: Fri, 02 Jan 2026 03:04:05 GMT\r\n\
     Authorization: AWS AKIDEXAMPLE:hZcnQzZ0tXkktcL7QLck4/XosJw=\r\n\r\n",
    "PUT /bucket/key HTTP/1.1\r\n\
     Host: 127.0.0.1:9000\r\n\
     Content-Type: text/plain\r\n\
     Content-MD5: XUFAKrxLKna5cZ2REBfFkg==\r\n\
     x-amz-meta-b: 2\r\n\
     x-amz-meta-a: 1\r\n\
     Date: Fri, 02 Jan 2026 03:04:05 GMT\r\n\
     Authorization: AWS AKIDEXAMPLE:I4Fq32UMlsCEGT3g2m74/bhC9fk=\r\n\r\n",
    "GET /bucket/key?response-content-type=text%2Fplain&AWSAccessKeyId=AKIDEXAMPLE&Signature=BNWJcuVD8mEKG7jTtdka5oLfKfM%3D&Expires=1767323645 HTTP/1.1\r\n\
     Host: 127.0.0.1:9000\r\n\
     Date: 1767323645\r\n\r\n",
];

#[test]
fn what_botocore_signs_is_granted() {
    for text in SIGNED {
        let granted = judged(text, NOW);
        assert!(granted.is_ok(), "{granted:?}: {text}");
    }
}

/// The published examples of version 4 for S3.
#[test]
fn published_examples_are_granted() {
    let secret = Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let keys = Keys::new("us-east-1", [("AKIAIOSFODNN7EXAMPLE".into(), secret)]);
    let now = v4::seconds_of(b"20130524T000000Z").unwrap();
    let scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
    let host = "Host: examplebucket.s3.amazonaws.com\r\n";
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let auth = |names: &str, signature: &str| {
        format!(
            "Authorization: AWS4-HMAC-SHA256 Credential={scope},SignedHeaders={names},Signature={signature}\r\n\r\n"
        )
    };
    let dated = format!("x-amz-content-sha256: {empty}\r\nx-amz-date: 20130524T000000Z\r\n");
    let plain = "host;x-amz-content-sha256;x-amz-date";
    for text in [
        format!(
            "GET /test.txt HTTP/1.1\r\n{host}Range: bytes=0-9\r\n{dated}{}",
            auth(
                "host;range;x-amz-content-sha256;x-amz-date",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
            )
        ),
        format!(
            "PUT /test$file.text HTTP/1.1\r\n{host}Date: Fri, 24 May 2013 00:00:00 GMT\r\n\
             x-amz-date: 20130524T000000Z\r\nx-amz-storage-class: REDUCED_REDUNDANCY\r\n\
             x-amz-content-sha256: 44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072\r\n{}",
            auth(
                "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
            )
        ),
        format!(
            "GET /?lifecycle HTTP/1.1\r\n{host}{dated}{}",
            auth(plain, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543")
        ),
        format!(
            "GET /?max-keys=2&prefix=J HTTP/1.1\r\n{host}{dated}{}",
            auth(plain, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")
        ),
        format!(
            "GET /test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date=20130524T000000Z\
             &X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=\
             aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404 HTTP/1.1\r\n{host}\r\n",
            scope.replace('/', "%2F")
        ),
    ] {
        let granted = judge_text(&keys, &text, now);
        assert!(granted.is_ok(), "{granted:?}: {text}");
    }
}

/// The published example of a body in signed chunks: 65 KiB of `a` in two of them.
#[test]
fn the_published_chain_is_followed() {
    let secret = Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let keys = Keys::new("us-east-1", [("AKIAIOSFODNN7EXAMPLE".into(), secret)]);
    let now = v4::seconds_of(b"20130524T000000Z").unwrap();
    let text = "PUT /examplebucket/chunkObject.txt HTTP/1.1\r\nHost: s3.amazonaws.com\r\n\
         x-amz-date: 20130524T000000Z\r\nx-amz-storage-class: REDUCED_REDUNDANCY\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
         SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;\
         x-amz-decoded-content-length;x-amz-storage-class,\
         Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9\r\n\
         x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\nContent-Encoding: aws-chunked\r\n\
         x-amz-decoded-content-length: 66560\r\nContent-Length: 66824\r\n\r\n";
    let mut chain = judge_text(&keys, text, now).unwrap().chain.expect("a chain");
    let chunks: [(usize, &[u8]); 3] = [
        (65536, b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        (1024, b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        (0, b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ];
    for (len, signature) in chunks {
        let digest: [u8; 32] = Sha256::digest(vec![b'a'; len]).into();
        let before = chain.clone();
        assert_eq!(chain.chunk(&digest, signature), Ok(()));
        assert!(before.clone().chunk(&[0; 32], signature).is_err(), "other data");
        assert!(before.clone().chunk(&digest, &signature[..63]).is_err(), "half a signature");
    }
}

#[test]
fn without_keys_everything_is_granted() {
    let none = Keys::new("us-east-1", []);
    for text in SIGNED {
        assert!(judge_text(&none, text, 0).unwrap().chain.is_none());
    }
}

#[test]
fn refusals_say_which() {
    let header = SIGNED[0];
    let presigned = SIGNED[5];
    let (v2, presigned_v2) = (SIGNED[8], SIGNED[9]);
    let after = SKEW_MAX_SECONDS + 1;
    let denied = |text: &str, now| judged(text, now).expect_err("refused");
    let unsigned = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(denied(unsigned, NOW), Denied::Anonymous);
    for (text, from, to, expected) in [
        (header, "AKIDEXAMPLE", "AKIDEXAMPLF", Denied::InvalidAccessKeyId),
        (header, "us-east-1", "eu-west-1", Denied::WrongRegion("us-east-1".into())),
        (header, "host;", "", Denied::HeadersNotSigned("host".into())),
        (header, ";x-amz-date", "", Denied::HeadersNotSigned("x-amz-date".into())),
        (header, "Signature=a", "Signature=b", Denied::SignatureDoesNotMatch),
        (header, "Signature=a", "Signature=", Denied::SignatureDoesNotMatch),
        (header, "X-Amz-Date", "X-Date", Denied::NoDate),
        (header, "X-Amz-Content-SHA256", "X-Content-SHA256", Denied::NoPayloadHash),
        (
            header,
            "\r\nX-Amz-D",
            "\r\nx-amz-copy-source: a\r\nX-Amz-D",
            Denied::HeadersNotSigned("x-amz-copy-source".into()),
        ),
        (header, "GET / ", "GET /?Signature=1 ", Denied::Twice),
        (header, "Authorization: ", "Authorization: Basic eDp5\r\nAuthorization: ", Denied::Twice),
        (presigned, "AKIDEXAMPLE", "nobody", Denied::InvalidAccessKeyId),
        (presigned, "text%2Fplain", "text%2Fhtml", Denied::SignatureDoesNotMatch),
        (
            presigned,
            "9000\r\n",
            "9000\r\nx-amz-meta-a: b\r\n",
            Denied::HeadersNotSigned("x-amz-meta-a".into()),
        ),
        (v2, "AKIDEXAMPLE", "nobody", Denied::InvalidAccessKeyId),
        (v2, "meta-a: 1", "meta-a: 2", Denied::SignatureDoesNotMatch),
        (v2, "\r\nDate: Fri, 02", "\r\nDate: Someday, 02", Denied::NoDate),
        (presigned_v2, "GET", "HEAD", Denied::SignatureDoesNotMatch),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(denied(&text.replacen(from, to, 1), NOW), expected, "{from} to {to}");
    }
    let malformed = |text: &str| matches!(denied(text, NOW), Denied::Malformed(_));
    assert!(malformed(&header.replace("aws4_request", "aws5_request")));
    assert!(malformed(&header.replace("/20260102/", "/20260103/")));
    assert!(malformed(&header.replace("SignedHeaders", "Headers")));
    assert!(malformed(&header.replace("AWS4-HMAC-SHA256 ", "AWS4-ECDSA-P256-SHA256 ")));
    assert!(malformed("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: AWS nobody\r\n\r\n"));
    let malformed = |text: &str| matches!(denied(text, NOW), Denied::QueryMalformed(_));
    assert!(malformed(&presigned.replace("X-Amz-Expires=600", "X-Amz-Expires=604801")));
    assert!(malformed(&presigned.replace("X-Amz-Expires=600", "X-Amz-Expires=0")));
    assert!(malformed(&presigned.replace("X-Amz-Date", "X-Date")));
    for (text, now, expected) in [
        (header, NOW + after, Denied::RequestTimeTooSkewed),
        (header, NOW - after, Denied::RequestTimeTooSkewed),
        (v2, NOW + after, Denied::RequestTimeTooSkewed),
        (presigned, NOW + 601, Denied::Expired),
        (presigned, NOW - after, Denied::NotYet),
        (presigned_v2, NOW + 601, Denied::Expired),
    ] {
        assert_eq!(denied(text, now), expected, "{now}");
    }
    assert!(judged(header, NOW + after - 1).is_ok() && judged(header, NOW + 1 - after).is_ok());
    assert!(judged(presigned, NOW + 600).is_ok() && judged(presigned_v2, NOW + 600).is_ok());
}

proptest! {
    /// Whatever byte of a request signed in version 4 is another one, it is refused, or says the same in other words.
    #[test]
    fn a_changed_byte_is_refused(which in 0..VERSION_4, at: prop::sample::Index, to in 0x20u8..0x7f) {
        let text = SIGNED[which];
        let mut changed = text.as_bytes().to_vec();
        let at = at.index(changed.len());
        changed[at] = to;
        let (Some(before), Some(after)) = (parsed(text.as_bytes()), parsed(&changed)) else { return Ok(()) };
        let granted = judge(&keys(), &after, after.host().strip_suffix(".localhost:9000"), NOW).is_ok();
        prop_assert!(!granted || means_the_same(&before, &after), "{}", changed.escape_ascii());
    }

    #[test]
    fn no_text_makes_it_panic(value in "[ -~]{0,80}", query in "[!-~]{0,60}") {
        for scheme in ["", "AWS ", "AWS4-HMAC-SHA256 "] {
            let text = format!("GET /?{query} HTTP/1.1\r\nHost: h\r\nAuthorization: {scheme}{value}\r\n\r\n");
            if let Some(head) = parsed(text.as_bytes()) {
                prop_assert!(judge(&keys(), &head, None, NOW).is_err());
            }
        }
        for rest in ["X-Amz-Signature=1&X-Amz-Algorithm=AWS4-HMAC-SHA256&", "Signature=1&Expires=9999999999&"] {
            let text = format!("GET /?{rest}{query} HTTP/1.1\r\nHost: h\r\n\r\n");
            if let Some(head) = parsed(text.as_bytes()) {
                prop_assert!(judge(&keys(), &head, None, NOW).is_err());
            }
        }
    }
}

/// Equal in all that a server acts on: method, path, host, parameters, and the fields that must be signed.
fn means_the_same(before: &RequestHead, after: &RequestHead) -> bool {
    let meaning = |head: &RequestHead| {
        let (mut path, mut query) = (String::new(), String::new());
        canonical::path(head.path(), &mut path);
        canonical::query(head.query(), "", &mut query);
        let mut fields: Vec<(String, Vec<u8>)> = head
            .all()
            .filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-amz-"))
            .map(|(name, _)| {
                let mut value = Vec::new();
                canonical::field(head, name, &mut value);
                (name.to_ascii_lowercase(), value)
            })
            .collect();
        fields.sort();
        (head.method_text().to_owned(), path, query, head.host().to_owned(), fields)
    };
    meaning(before) == meaning(after)
}
