//! Who may do what where there are access keys: requests signed by a signer of our own, changed and not changed.

mod common;

use std::sync::OnceLock;

use common::s3::{ID, SECRET, Signer, plain, refused, send, signed, timestamp, timestamp_at, with_keys};
use common::{Conn, Setup, Shared, fresh_id, get};

fn daemon() -> Shared {
    static DAEMON: OnceLock<common::Daemon> = OnceLock::new();
    Setup::default().s3(&with_keys()).share(&DAEMON)
}

fn bucket(daemon: &Shared) -> String {
    let name = fresh_id("signed");
    signed(daemon.s3(), "PUT", &format!("/{name}"), &[], b"").expect(200);
    name
}

#[test]
fn only_who_signs_is_served() {
    let daemon = daemon();
    let bucket = bucket(&daemon);
    let target = format!("/{bucket}/a%20k?x-id=PutObject");
    signed(daemon.s3(), "PUT", &target, &[("x-amz-meta-a", "b")], b"hello").expect(200);
    let got = signed(daemon.s3(), "GET", &target, &[], b"").expect(200);
    assert_eq!((&got.body[..], got.header("x-amz-meta-a")), (&b"hello"[..], Some("b")));
    for (method, target) in [("GET", "/"), ("GET", target.as_str()), ("DELETE", target.as_str())] {
        refused(&plain(daemon.s3(), method, target, &[], b""), 403, "AccessDenied");
    }
    let nobody = [("Authorization", "AWS nobody:AAAA"), ("x-amz-date", &timestamp())];
    refused(&plain(daemon.s3(), "GET", "/", &nobody, b""), 403, "InvalidAccessKeyId");
}

#[test]
fn what_was_changed_is_refused() {
    let daemon = daemon();
    let bucket = bucket(&daemon);
    let target = format!("/{bucket}/k");
    let fields = |secret: &str, from_now: i64, method: &str| {
        Signer::new(secret, timestamp_at(from_now)).fields(method, &target, &[], "UNSIGNED-PAYLOAD")
    };
    let put = |fields: &[(String, String)], more: &[(&str, &str)]| {
        send(daemon.s3(), "PUT", &target, more, fields, b"x")
    };
    put(&fields(SECRET, 0, "PUT"), &[]).expect(200);
    refused(&put(&fields("other", 0, "PUT"), &[]), 403, "SignatureDoesNotMatch");
    refused(&put(&fields(SECRET, 0, "GET"), &[]), 403, "SignatureDoesNotMatch");
    refused(&put(&fields(SECRET, -1000, "PUT"), &[]), 403, "RequestTimeTooSkewed");
    refused(&put(&fields(SECRET, 1000, "PUT"), &[]), 403, "RequestTimeTooSkewed");
    put(&fields(SECRET, -800, "PUT"), &[]).expect(200);
    // Whoever stands in between cannot make a copy of it.
    let copy = [("x-amz-copy-source", "b/k")];
    refused(&put(&fields(SECRET, 0, "PUT"), &copy), 403, "AccessDenied");
    let elsewhere: Vec<_> = fields(SECRET, 0, "PUT")
        .into_iter()
        .map(|(name, value)| (name, value.replace("us-east-1", "eu-west-1")))
        .collect();
    refused(&put(&elsewhere, &[]), 400, "AuthorizationHeaderMalformed");
}

#[test]
fn the_body_is_what_was_signed() {
    let daemon = daemon();
    let target = format!("/{}/k", bucket(&daemon));
    let mut signer = Signer::new(SECRET, timestamp());
    let other = common::sha256(b"other");
    let fields = signer.fields("PUT", &target, &[], &other);
    refused(&send(daemon.s3(), "PUT", &target, &[], &fields, b"hello"), 400, "XAmzContentSHA256Mismatch");
    refused(&signed(daemon.s3(), "GET", &target, &[], b""), 404, "NoSuchKey");
}

/// 200,000 bytes in chunks of 64 KiB, as minio's clients send them, with and without a trailer.
#[test]
fn signed_chunks_are_judged_one_by_one() {
    let daemon = daemon();
    let target = format!("/{}/k", bucket(&daemon));
    let data = common::bytes_of(1, 200_000);
    let send_chunks = |trailer: Option<&str>, harm: &dyn Fn(&mut Vec<u8>)| {
        let mode = match trailer {
            None => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            Some(_) => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        };
        let mut headers =
            vec![("x-amz-decoded-content-length", "200000"), ("content-encoding", "aws-chunked")];
        headers.extend(trailer.map(|_| ("x-amz-trailer", "x-amz-checksum-crc32c")));
        let mut signer = Signer::new(SECRET, timestamp());
        let fields = signer.fields("PUT", &target, &headers, mode);
        let mut body: Vec<u8> = data.chunks(65536).flat_map(|chunk| signer.chunk(chunk)).collect();
        body.extend(signer.chunk(b""));
        match trailer {
            None => body.extend_from_slice(b"\r\n"),
            Some(trailer) => body.extend(signer.trailer(trailer).into_bytes()),
        }
        harm(&mut body);
        send(daemon.s3(), "PUT", &target, &headers, &fields, &body)
    };
    send_chunks(None, &|_| {}).expect(200);
    assert!(signed(daemon.s3(), "GET", &target, &[], b"").body == data);
    for at in [200, 70_000, 199_000] {
        refused(&send_chunks(None, &|body| body[at] ^= 1), 403, "SignatureDoesNotMatch");
    }
    let crc = millpond_crc32c(&data);
    send_chunks(Some(&format!("x-amz-checksum-crc32c:{crc}")), &|_| {}).expect(200);
    refused(&send_chunks(Some("x-amz-checksum-crc32c:AAAAAA=="), &|_| {}), 400, "BadDigest");
    let harm = |body: &mut Vec<u8>| {
        let at = body.len() - 10;
        body[at] = if body[at] == b'0' { b'1' } else { b'0' };
    };
    let trailer = format!("x-amz-checksum-crc32c:{crc}");
    refused(&send_chunks(Some(&trailer), &harm), 403, "SignatureDoesNotMatch");
}

fn millpond_crc32c(bytes: &[u8]) -> String {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    data_encoding::BASE64.encode(&(crc as u32).to_be_bytes())
}

#[test]
fn presigned_requests_work_for_their_time() {
    let daemon = daemon();
    let target = format!("/{}/k", bucket(&daemon));
    let presigned = |method: &str, target: &str, from_now: i64, expires: u64| {
        Signer::new(SECRET, timestamp_at(from_now)).presigned(method, target, expires)
    };
    plain(daemon.s3(), "PUT", &presigned("PUT", &target, 0, 60), &[], b"hello").expect(200);
    let read = presigned("GET", &format!("{target}?response-content-type=a%2Fb"), 0, 60);
    let got = get(daemon.s3(), &read).expect(200);
    assert_eq!((&got.body[..], got.header("content-type")), (&b"hello"[..], Some("a/b")));
    refused(&get(daemon.s3(), &read.replace("a%2Fb", "a%2Fc")), 403, "SignatureDoesNotMatch");
    refused(&plain(daemon.s3(), "DELETE", &read, &[], b""), 403, "SignatureDoesNotMatch");
    let expired = get(daemon.s3(), &presigned("GET", &target, -100, 60));
    refused(&expired, 403, "AccessDenied");
    assert!(expired.text().contains("Request has expired"));
    get(daemon.s3(), &presigned("GET", &target, -100, 160)).expect(200);
    let long = presigned("GET", &target, 0, 604_801);
    refused(&get(daemon.s3(), &long), 400, "AuthorizationQueryParametersError");
    let add = [("x-amz-meta-a", "b")];
    refused(&plain(daemon.s3(), "PUT", &presigned("PUT", &target, 0, 60), &add, b"x"), 403, "AccessDenied");
}

/// Whoever may not put is not asked for the body.
#[test]
fn strangers_are_not_told_to_go_on() {
    let daemon = daemon();
    let mut conn = Conn::open(daemon.s3());
    conn.send("PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n");
    let answer = conn.answer();
    refused(&answer, 403, "AccessDenied");
    assert!(answer.closes(), "the body that is not wanted is not waited for");
}

#[test]
fn keys_can_be_changed_while_it_serves() {
    let mut daemon = Setup::default().s3(&with_keys()).start();
    signed(daemon.s3(), "GET", "/", &[], b"").expect(200);
    let addr = daemon.s3().to_owned();
    daemon
        .reload_with(Setup::default().s3(&format!("access_keys = [{{ id = \"{ID}\", secret = \"new\" }}]")));
    common::eventually("the old secret is refused", || {
        (signed(&addr, "GET", "/", &[], b"").status == 403).then_some(())
    });
    // Keys that are gone would let everyone in where a stranger may listen.
    daemon.reload_with(Setup::default().s3("access_keys = []"));
    common::eventually("the log says that it takes a restart", || {
        daemon.own_log().contains("needs a restart").then_some(())
    });
    refused(&plain(&addr, "GET", "/", &[], b""), 403, "AccessDenied");
}
