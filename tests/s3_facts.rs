//! Buckets and objects as S3 shows them to somebody who may do everything.

mod common;

use std::sync::OnceLock;

use common::s3::{plain, refused, text_of, texts_of};
use common::{Answer, Conn, End, Setup, Shared, bytes_of, fresh_id, request};
use md5::{Digest, Md5};

fn daemon() -> Shared {
    static DAEMON: OnceLock<common::Daemon> = OnceLock::new();
    Setup::default().s3("").vblob("").share(&DAEMON)
}

/// A bucket of its own for a test.
fn bucket(daemon: &Shared) -> String {
    let name = fresh_id("bucket");
    plain(daemon.s3(), "PUT", &format!("/{name}"), &[], b"").expect(200);
    name
}

fn md5(bytes: &[u8]) -> String {
    common::s3::hex(&Md5::digest(bytes))
}

struct Bucket<'d> {
    daemon: &'d Shared,
    name: String,
}

impl<'d> Bucket<'d> {
    fn new(daemon: &'d Shared) -> Self {
        Bucket { daemon, name: bucket(daemon) }
    }

    #[track_caller]
    fn send(&self, method: &str, key: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        plain(self.daemon.s3(), method, &format!("/{}{key}", self.name), headers, body)
    }

    #[track_caller]
    fn put(&self, key: &str, body: &[u8]) -> Answer {
        self.send("PUT", key, &[], body).expect(200)
    }

    #[track_caller]
    fn get(&self, key: &str) -> Answer {
        self.send("GET", key, &[], b"")
    }
}

#[test]
fn a_bucket_is_made_seen_and_deleted() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    refused(&bucket.send("PUT", "/", &[], b""), 409, "BucketAlreadyOwnedByYou");
    for path in ["", "/"] {
        let head = bucket.send("HEAD", path, &[], b"").expect(200);
        assert_eq!(head.header("x-amz-bucket-region"), Some("us-east-1"));
    }
    assert_eq!(text_of(&bucket.get("?location"), "LocationConstraint"), "");
    assert!(bucket.get("?versioning").expect(200).text().contains("<VersioningConfiguration xmlns="));
    let all = plain(daemon.s3(), "GET", "/", &[], b"").expect(200);
    assert!(texts_of(&all, "Name").contains(&bucket.name), "{all:?}");
    bucket.put("/k", b"x");
    refused(&bucket.send("DELETE", "", &[], b""), 409, "BucketNotEmpty");
    bucket.send("DELETE", "/k", &[], b"").expect(204);
    bucket.send("DELETE", "", &[], b"").expect(204);
    refused(&bucket.get(""), 404, "NoSuchBucket");
    bucket.send("HEAD", "", &[], b"").expect(404);
    refused(&bucket.send("DELETE", "", &[], b""), 404, "NoSuchBucket");
    refused(&bucket.send("PUT", "/k", &[], b"x"), 404, "NoSuchBucket");
}

#[test]
fn names_that_no_bucket_has() {
    let daemon = daemon();
    for name in ["ab", "Upper", "a_b", "192.168.5.4", "a..b", "-ab"] {
        refused(&plain(daemon.s3(), "PUT", &format!("/{name}"), &[], b""), 400, "InvalidBucketName");
    }
    refused(&plain(daemon.s3(), "PUT", "/streams", &[], b""), 409, "BucketAlreadyExists");
    refused(&plain(daemon.s3(), "PUT", "/fine-name", &[], b"<broken"), 400, "MalformedXML");
}

#[test]
fn an_object_comes_back_as_it_was_put() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let body = bytes_of(1, 3_000_000);
    let fields = [("Content-Type", "a/b"), ("x-amz-meta-Two", "2"), ("Cache-Control", "no-store")];
    let put = bucket.send("PUT", "/a%20b/%E6%97%A5+", &fields, &body).expect(200);
    let etag = format!("\"{}\"", md5(&body));
    assert_eq!(put.header("etag"), Some(etag.as_str()));
    for method in ["GET", "HEAD"] {
        let got = bucket.send(method, "/a%20b/%E6%97%A5%2B", &[], b"").expect(200);
        for (name, value) in [
            ("etag", etag.as_str()),
            ("content-type", "a/b"),
            ("x-amz-meta-two", "2"),
            ("cache-control", "no-store"),
            ("accept-ranges", "bytes"),
            ("content-length", "3000000"),
        ] {
            assert_eq!(got.header(name), Some(value), "{method} {name}");
        }
        assert!(got.header("last-modified").is_some_and(|date| date.ends_with(" GMT")));
        assert_eq!(got.body, if method == "GET" { &body[..] } else { b"" });
    }
    bucket.put("/bare", b"");
    assert_eq!(bucket.get("/bare").expect(200).header("content-type"), Some("binary/octet-stream"));
    refused(&bucket.get("/none"), 404, "NoSuchKey");
    assert_eq!(bucket.send("HEAD", "/none", &[], b"").end, End::Bodyless);
    bucket.send("DELETE", "/none", &[], b"").expect(204);
}

/// The other dialect over the same service.
#[test]
fn an_object_is_a_file_of_vblob() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let fields = [("x-amz-meta-a", "b"), ("Content-Type", "a/b")];
    bucket.send("PUT", "/k", &fields, b"hello").expect(200);
    let file = request(daemon.vblob(), "GET", &format!("/{}/k", bucket.name), &[], b"").expect(200);
    assert_eq!((file.header("x-blb-meta-a"), file.header("content-type")), (Some("b"), Some("a/b")));
    assert_eq!(file.body, b"hello");
    let target = format!("/{}/other", bucket.name);
    request(daemon.vblob(), "PUT", &target, &[("x-blb-meta-c", "d")], b"there").expect(200);
    let object = bucket.get("/other").expect(200);
    assert_eq!((object.header("x-amz-meta-c"), &object.body[..]), (Some("d"), &b"there"[..]));
    assert_eq!(object.header("etag"), Some(format!("\"{}\"", md5(b"there")).as_str()));
}

#[test]
fn ranges_are_cut_to_fit() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    bucket.put("/k", b"0123456789");
    let range = |value: &str| bucket.send("GET", "/k", &[("Range", value)], b"");
    for (value, part, bytes) in [
        ("bytes=0-0", "bytes 0-0/10", &b"0"[..]),
        ("bytes=5-52428799", "bytes 5-9/10", b"56789"),
        ("bytes=7-", "bytes 7-9/10", b"789"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=-99", "bytes 0-9/10", b"0123456789"),
    ] {
        let got = range(value).expect(206);
        assert_eq!((got.header("content-range"), &got.body[..]), (Some(part), bytes), "{value}");
    }
    for value in ["bytes=0-1,3-4", "items=0-1", "bytes=x"] {
        assert_eq!(range(value).expect(200).body, b"0123456789", "{value}");
    }
    let beyond = range("bytes=10-");
    refused(&beyond, 416, "InvalidRange");
    assert_eq!(beyond.header("content-range"), Some("bytes */10"));
    assert_eq!(text_of(&beyond, "ActualObjectSize"), "10");
}

#[test]
fn conditions_guard_reads() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let etag = bucket.put("/k", b"x").header("etag").unwrap().to_owned();
    let with = |name: &str, value: &str| bucket.send("GET", "/k", &[(name, value)], b"");
    with("If-Match", &etag).expect(200);
    refused(&with("If-Match", "\"other\""), 412, "PreconditionFailed");
    let same = with("If-None-Match", &etag).expect(304);
    assert_eq!((same.header("etag"), same.end), (Some(etag.as_str()), End::Bodyless));
    with("If-None-Match", "\"other\"").expect(200);
    with("If-Modified-Since", "Sat, 01 Jan 2000 00:00:00 GMT").expect(200);
    refused(&with("If-Unmodified-Since", "Sat, 01 Jan 2000 00:00:00 GMT"), 412, "PreconditionFailed");
}

#[test]
fn conditions_guard_writes() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let put = |value: (&str, &str), body: &[u8]| bucket.send("PUT", "/k", &[value], body);
    refused(&put(("If-Match", "\"x\""), b"no"), 404, "NoSuchKey");
    let etag = put(("If-None-Match", "*"), b"first").expect(200).header("etag").unwrap().to_owned();
    refused(&put(("If-None-Match", "*"), b"second"), 412, "PreconditionFailed");
    refused(&put(("If-Match", "\"other\""), b"third"), 412, "PreconditionFailed");
    assert_eq!(bucket.get("/k").body, b"first");
    put(("If-Match", &etag), b"fourth").expect(200);
    assert_eq!(bucket.get("/k").body, b"fourth");
    refused(&bucket.send("DELETE", "/k", &[("If-Match", &etag)], b""), 412, "PreconditionFailed");
    // Somebody who waits for leave to send is refused without being asked for the body.
    let mut conn = Conn::open(daemon.s3());
    let target = format!("/{}/k", bucket.name);
    conn.send(format!(
        "PUT {target} HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    ));
    conn.head().expect(412);
    let mut conn = Conn::open(daemon.s3());
    conn.send(format!(
        "PUT {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    ));
    conn.answer().expect(100);
    conn.send("ok");
    conn.answer().expect(200);
}

/// Of many who create the same object at the same time, one does.
#[test]
fn of_many_creators_one_wins() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let outcomes: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| bucket.send("PUT", "/lock", &[("If-None-Match", "*")], b"x").status))
            .collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    assert_eq!(outcomes.iter().filter(|status| **status == 200).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|status| **status == 412).count(), 7, "{outcomes:?}");
}

#[test]
fn digests_that_do_not_fit_store_nothing() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let put = |name: &str, value: &str| bucket.send("PUT", "/k", &[(name, value)], b"hello");
    refused(&put("Content-MD5", "nonsense"), 400, "InvalidDigest");
    refused(&put("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="), 400, "BadDigest");
    refused(&put("x-amz-content-sha256", &"0".repeat(64)), 400, "XAmzContentSHA256Mismatch");
    refused(&put("x-amz-checksum-crc32", "AAAAAA=="), 400, "BadDigest");
    refused(&put("x-amz-checksum-crc32", "AAAA"), 400, "InvalidRequest");
    refused(&bucket.get("/k"), 404, "NoSuchKey");
    put("Content-MD5", "XUFAKrxLKna5cZ2REBfFkg==").expect(200);
}

#[test]
fn checksums_are_kept_and_shown_when_asked_for() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    for (name, value) in [
        ("x-amz-checksum-crc32", "NhCmhg=="),
        ("x-amz-checksum-crc32c", "mnG7TA=="),
        ("x-amz-checksum-crc64nvme", "M3eFcAZSQlc="),
        ("x-amz-checksum-sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00="),
        ("x-amz-checksum-sha256", "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="),
    ] {
        let put = bucket.send("PUT", "/k", &[(name, value)], b"hello").expect(200);
        assert_eq!(put.header(name), Some(value));
        for method in ["GET", "HEAD"] {
            let got = bucket.send(method, "/k", &[("x-amz-checksum-mode", "ENABLED")], b"").expect(200);
            assert_eq!(
                (got.header(name), got.header("x-amz-checksum-type")),
                (Some(value), Some("FULL_OBJECT"))
            );
        }
        assert_eq!(bucket.get("/k").header(name), None);
        let range = [("x-amz-checksum-mode", "ENABLED"), ("Range", "bytes=0-1")];
        assert_eq!(bucket.send("GET", "/k", &range, b"").expect(206).header(name), None);
    }
    let listed = bucket.get("?list-type=2").expect(200);
    assert_eq!(text_of(&listed, "ChecksumAlgorithm"), "SHA256");
}

/// As the JavaScript SDK sends streams: chunks within chunks.
#[test]
fn a_body_in_chunks_with_a_trailer() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let fields = [
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("x-amz-decoded-content-length", "5"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
        ("Content-Encoding", "aws-chunked"),
    ];
    let body = |crc: &str| format!("3\r\nhel\r\n2\r\nlo\r\n0\r\nx-amz-checksum-crc32:{crc}\r\n\r\n");
    let put = bucket.send("PUT", "/k", &fields, body("NhCmhg==").as_bytes()).expect(200);
    assert_eq!(put.header("x-amz-checksum-crc32"), Some("NhCmhg=="));
    let got = bucket.get("/k").expect(200);
    assert_eq!((&got.body[..], got.header("content-encoding")), (&b"hello"[..], None));
    refused(&bucket.send("PUT", "/k", &fields, body("AAAAAA==").as_bytes()), 400, "BadDigest");
    let missing = b"5\r\nhello\r\n0\r\n\r\n";
    refused(&bucket.send("PUT", "/k", &fields, missing), 400, "InvalidRequest");
    let short = b"4\r\nhell\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
    refused(&bucket.send("PUT", "/k", &fields, short), 400, "IncompleteBody");
    let mut conn = Conn::open(daemon.s3());
    let inner = body("NhCmhg==");
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    conn.send(format!(
        "PUT /{}/js HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n{fields}\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
        bucket.name,
        inner.len()
    ));
    conn.answer().expect(200);
    assert_eq!(bucket.get("/js").body, b"hello");
}

#[test]
fn what_is_too_much_is_refused() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let fields = [("x-amz-meta-a", &*"x".repeat(2048))];
    refused(&bucket.send("PUT", "/k", &fields, b"x"), 400, "MetadataTooLarge");
    refused(&bucket.send("PUT", &format!("/{}", "k".repeat(1025)), &[], b"x"), 400, "KeyTooLongError");
    bucket.put(&format!("/{}", "k".repeat(1024)), b"x");
    let mut conn = Conn::open(daemon.s3());
    conn.send(format!("PUT /{}/k HTTP/1.1\r\nHost: h\r\n\r\n", bucket.name));
    refused(&conn.answer(), 411, "MissingContentLength");
    refused(&bucket.get("/%zz"), 400, "InvalidURI");
}

#[test]
fn sub_resources_never_fall_through() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    bucket.put("/k", b"x");
    for sub in ["acl", "policy", "tagging", "cors", "lifecycle", "website", "somethingNew"] {
        refused(&bucket.get(&format!("?{sub}")), 501, "NotImplemented");
        refused(&bucket.send("PUT", &format!("/k?{sub}"), &[], b"other"), 501, "NotImplemented");
        refused(&bucket.send("DELETE", &format!("/k?{sub}"), &[], b""), 501, "NotImplemented");
    }
    assert_eq!(bucket.get("/k?x-id=GetObject").expect(200).body, b"x");
    let answer = bucket.send("PATCH", "/k", &[], b"");
    refused(&answer, 405, "MethodNotAllowed");
    assert!(answer.header("allow").is_some());
}

#[test]
fn a_copy_shares_what_it_was_made_of() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let body = bytes_of(2, 100_000);
    let fields = [("x-amz-meta-a", "1"), ("Content-Type", "a/b")];
    let etag = bucket.send("PUT", "/a%20b", &fields, &body).expect(200).header("etag").unwrap().to_owned();
    let copy = |to: &str, source: &str, more: &[(&str, &str)]| {
        let fields = [&[("x-amz-copy-source", source)], more].concat();
        bucket.send("PUT", to, &fields, b"")
    };
    for source in [format!("{}/a%20b", bucket.name), format!("/{}/a%20b", bucket.name)] {
        assert_eq!(text_of(&copy("/c", &source, &[]).expect(200), "ETag"), etag);
        let got = bucket.get("/c").expect(200);
        assert_eq!((got.header("x-amz-meta-a"), got.header("content-type")), (Some("1"), Some("a/b")));
        assert_eq!(got.body, body);
    }
    let source = format!("{}/a%20b", bucket.name);
    copy("/c", &source, &[("x-amz-metadata-directive", "REPLACE"), ("x-amz-meta-b", "2")]).expect(200);
    let got = bucket.get("/c").expect(200);
    assert_eq!((got.header("x-amz-meta-a"), got.header("x-amz-meta-b")), (None, Some("2")));
    assert_eq!(got.header("content-type"), Some("binary/octet-stream"));
    refused(&copy("/a%20b", &source, &[]), 400, "InvalidRequest");
    refused(&copy("/c", &format!("{}/none", bucket.name), &[]), 404, "NoSuchKey");
    refused(&copy("/c", "no-such-bucket/k", &[]), 404, "NoSuchBucket");
    refused(&copy("/c", "nothing", &[]), 400, "InvalidArgument");
    let other = [("x-amz-copy-source-if-match", "\"other\"")];
    refused(&copy("/c", &source, &other), 412, "PreconditionFailed");
    refused(&copy("/c", &source, &[("x-amz-copy-source-if-none-match", &etag)]), 412, "PreconditionFailed");
    refused(&copy("/c", &source, &[("If-None-Match", "*")]), 412, "PreconditionFailed");
}

#[test]
fn many_objects_go_at_once() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    for key in ["/a", "/b", "/c&d"] {
        bucket.put(key, b"x");
    }
    let body = b"<Delete><Object><Key>a</Key></Object><Object><Key>c&amp;d</Key><VersionId>null</VersionId></Object>\
                 <Object><Key>none</Key></Object><Object><Key>b</Key><VersionId>7</VersionId></Object></Delete>";
    let answer = bucket.send("POST", "?delete", &[], body).expect(200);
    assert_eq!(texts_of(&answer, "Deleted").len(), 3, "{answer:?}");
    assert_eq!(text_of(&answer, "Code"), "NoSuchVersion");
    let left = bucket.get("?list-type=2").expect(200);
    assert_eq!(texts_of(&left, "Key"), ["b"]);
    let quiet = b"<Delete><Quiet>true</Quiet><Object><Key>b</Key></Object></Delete>";
    assert!(texts_of(&bucket.send("POST", "?delete=", &[], quiet).expect(200), "Deleted").is_empty());
    refused(&bucket.send("POST", "?delete", &[], b"<Delete>"), 400, "MalformedXML");
    refused(
        &bucket.send("POST", "?delete", &[("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA==")], quiet),
        400,
        "BadDigest",
    );
}

#[test]
fn a_listing_goes_page_by_page() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    for key in ["a", "b/1", "b/2", "b--x", "c", "d/e/f", "g%20h+"] {
        bucket.put(&format!("/{key}"), b"x");
    }
    let keys = |query: &str| texts_of(&bucket.get(query).expect(200), "Key");
    let all = ["a", "b--x", "b/1", "b/2", "c", "d/e/f", "g h+"];
    assert_eq!(keys(""), all);
    assert_eq!(keys("?list-type=2"), all);
    assert_eq!(keys("?versions"), all);
    assert_eq!(keys("?prefix=b/"), ["b/1", "b/2"]);
    assert_eq!(keys("?marker=b/1"), ["b/2", "c", "d/e/f", "g h+"]);
    assert_eq!(keys("?list-type=2&start-after=c&encoding-type=url"), ["d/e/f", "g%20h%2B"]);
    let folded = bucket.get("?delimiter=/").expect(200);
    assert_eq!(texts_of(&folded, "Key"), ["a", "b--x", "c", "g h+"]);
    assert_eq!(texts_of(&folded, "CommonPrefixes"), ["<Prefix>b/</Prefix>", "<Prefix>d/</Prefix>"]);
    let long = bucket.get("?delimiter=--&prefix=b").expect(200);
    assert_eq!(texts_of(&long, "CommonPrefixes"), ["<Prefix>b--</Prefix>"]);
    // All pages of one entry, in both versions, with the folded ones once each.
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = bucket.get(&format!("?list-type=2&delimiter=/&max-keys=1{token}")).expect(200);
        assert_eq!(text_of(&page, "KeyCount"), "1");
        seen.extend(texts_of(&page, "Key"));
        seen.extend(texts_of(&page, "CommonPrefixes"));
        if text_of(&page, "IsTruncated") == "false" {
            break;
        }
        token = format!("&continuation-token={}", text_of(&page, "NextContinuationToken"));
    }
    assert_eq!(seen, ["a", "b--x", "<Prefix>b/</Prefix>", "c", "<Prefix>d/</Prefix>", "g h+"]);
    let (mut seen, mut marker) = (Vec::new(), String::new());
    loop {
        let page = bucket.get(&format!("?delimiter=/&max-keys=2{marker}&encoding-type=url")).expect(200);
        seen.extend(texts_of(&page, "Key"));
        seen.extend(texts_of(&page, "CommonPrefixes"));
        if text_of(&page, "IsTruncated") == "false" {
            break;
        }
        marker = format!("&marker={}", text_of(&page, "NextMarker"));
    }
    // Keys stand before what is folded on each page.
    assert_eq!(seen, ["a", "b--x", "c", "<Prefix>b/</Prefix>", "g%20h%2B", "<Prefix>d/</Prefix>"]);
    let none = bucket.get("?max-keys=0").expect(200);
    assert_eq!((texts_of(&none, "Key").len(), text_of(&none, "IsTruncated")), (0, "false".into()));
    refused(&bucket.get("?max-keys=x"), 400, "InvalidArgument");
    refused(&bucket.get("?encoding-type=x"), 400, "InvalidArgument");
    refused(&bucket.get("?list-type=2&continuation-token=!"), 400, "InvalidArgument");
    refused(&plain(daemon.s3(), "GET", "/no-such-bucket?list-type=2", &[], b""), 404, "NoSuchBucket");
}

#[test]
fn a_bucket_can_stand_in_the_host() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    bucket.put("/k", b"x");
    let mut conn = Conn::open(daemon.s3());
    conn.send(format!("GET /k HTTP/1.1\r\nHost: {}.localhost:9000\r\n\r\n", bucket.name));
    assert_eq!(conn.answer().expect(200).body, b"x");
    // A name that is not ours is a name, not a bucket.
    conn.send(format!("GET /{}/k HTTP/1.1\r\nHost: {0}.other.example\r\n\r\n", bucket.name));
    assert_eq!(conn.answer().expect(200).body, b"x");
}

#[test]
fn standard_fields_can_be_overridden() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    bucket.put("/k", b"x");
    let got =
        bucket.get("/k?response-content-type=a%2Fb&response-content-disposition=attachment").expect(200);
    assert_eq!(got.header("content-type"), Some("a/b"));
    assert_eq!(got.header("content-disposition"), Some("attachment"));
}

const PART: usize = 5 << 20;

/// Begins an upload.
fn begin(bucket: &Bucket<'_>, key: &str, fields: &[(&str, &str)]) -> String {
    text_of(&bucket.send("POST", &format!("{key}?uploads"), fields, b"").expect(200), "UploadId")
}

fn completion(parts: &[(usize, &str)]) -> String {
    let parts = parts
        .iter()
        .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>())
}

#[test]
fn parts_become_an_object() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let body = bytes_of(3, PART + 1000);
    let id = begin(&bucket, "/big", &[("x-amz-meta-a", "1"), ("Content-Type", "a/b")]);
    let part = |number: usize, bytes: &[u8]| {
        let answer = bucket.send("PUT", &format!("/big?partNumber={number}&uploadId={id}"), &[], bytes);
        answer.expect(200).header("etag").unwrap().to_owned()
    };
    let (last, first) = (part(7, &body[PART..]), part(3, &body[..PART]));
    refused(&bucket.get("/big"), 404, "NoSuchKey");
    let listed = bucket.get(&format!("/big?uploadId={id}")).expect(200);
    assert_eq!(texts_of(&listed, "PartNumber"), ["3", "7"]);
    assert_eq!(texts_of(&listed, "Size"), [PART.to_string(), "1000".into()]);
    let page = bucket.get(&format!("/big?uploadId={id}&max-parts=1&part-number-marker=3")).expect(200);
    assert_eq!(texts_of(&page, "PartNumber"), ["7"]);
    let uploads = bucket.get("?uploads").expect(200);
    assert_eq!(
        (texts_of(&uploads, "Key"), texts_of(&uploads, "UploadId")),
        (vec!["big".into()], vec![id.clone()])
    );
    let complete = |parts: &[(usize, &str)]| {
        bucket.send("POST", &format!("/big?uploadId={id}"), &[], completion(parts).as_bytes())
    };
    refused(&complete(&[(7, &last), (3, &first)]), 400, "InvalidPartOrder");
    refused(&complete(&[(3, &first), (3, &first)]), 400, "InvalidPartOrder");
    refused(&complete(&[(3, &first), (8, &last)]), 400, "InvalidPart");
    refused(&complete(&[(3, &last), (7, &last)]), 400, "InvalidPart");
    refused(&complete(&[]), 400, "MalformedXML");
    let done = complete(&[(3, &first), (7, &last)]).expect(200);
    let md5s = [Md5::digest(&body[..PART]), Md5::digest(&body[PART..])].concat();
    let etag = format!("\"{}-2\"", md5(&md5s));
    assert_eq!(text_of(&done, "ETag"), etag);
    let got = bucket.get("/big").expect(200);
    assert_eq!((got.header("etag"), got.header("x-amz-meta-a")), (Some(etag.as_str()), Some("1")));
    assert!(got.body == body, "the bytes of the parts in order");
    let second = bucket.get("/big?partNumber=2").expect(206);
    assert_eq!((second.header("x-amz-mp-parts-count"), &second.body[..]), (Some("2"), &body[PART..]));
    refused(&bucket.get("/big?partNumber=3"), 416, "InvalidPartNumber");
    let known = [("x-amz-object-attributes", "ETag,ObjectSize,ObjectParts")];
    let attributes = bucket.send("GET", "/big?attributes", &known, b"").expect(200);
    assert_eq!(text_of(&attributes, "ObjectSize"), (PART + 1000).to_string());
    assert_eq!(texts_of(&attributes, "Size"), [PART.to_string(), "1000".into()]);
    refused(&complete(&[(3, &first)]), 404, "NoSuchUpload");
    // Whoever lost the answer asks again and gets it; whoever asks for something else does not.
    assert_eq!(text_of(&complete(&[(3, &first), (7, &last)]).expect(200), "ETag"), etag);
    assert!(texts_of(&bucket.get("?uploads"), "UploadId").is_empty());
}

#[test]
fn a_small_part_is_only_the_last_one() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let id = begin(&bucket, "/k", &[]);
    for number in [1, 2] {
        bucket.send("PUT", &format!("/k?partNumber={number}&uploadId={id}"), &[], b"small").expect(200);
    }
    let etag = md5(b"small");
    let body = completion(&[(1, &etag), (2, &etag)]);
    let refusal = bucket.send("POST", &format!("/k?uploadId={id}"), &[], body.as_bytes());
    refused(&refusal, 400, "EntityTooSmall");
    bucket.send("DELETE", &format!("/k?uploadId={id}"), &[], b"").expect(204);
    refused(&bucket.send("DELETE", &format!("/k?uploadId={id}"), &[], b""), 404, "NoSuchUpload");
    refused(&bucket.send("PUT", &format!("/k?partNumber=1&uploadId={id}"), &[], b"x"), 404, "NoSuchUpload");
}

#[test]
fn parts_have_checksums_and_so_has_the_whole() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let body = bytes_of(4, PART + 10);
    for (algorithm, kind, field) in [
        ("SHA256", "COMPOSITE", "x-amz-checksum-sha256"),
        ("CRC32C", "COMPOSITE", "x-amz-checksum-crc32c"),
        ("CRC64NVME", "FULL_OBJECT", "x-amz-checksum-crc64nvme"),
    ] {
        // The checksum of the whole, computed when it is put at once.
        let id =
            begin(&bucket, "/k", &[("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", kind)]);
        let mut etags = Vec::new();
        for (number, bytes) in [(1, &body[..PART]), (2, &body[PART..])] {
            let part =
                bucket.send("PUT", &format!("/k?partNumber={number}&uploadId={id}"), &[], bytes).expect(200);
            assert!(part.header(field).is_some(), "computed although it was not sent: {part:?}");
            etags.push(part.header("etag").unwrap().to_owned());
        }
        let named = completion(&[(1, &etags[0]), (2, &etags[1])]);
        let done = bucket.send("POST", &format!("/k?uploadId={id}"), &[], named.as_bytes()).expect(200);
        assert_eq!(text_of(&done, "ChecksumType"), kind);
        let mode = [("x-amz-checksum-mode", "ENABLED")];
        let shown = bucket.send("HEAD", "/k", &mode, b"").expect(200);
        let value = shown.header(field).expect("a checksum").to_owned();
        assert_eq!(value.ends_with("-2"), kind == "COMPOSITE");
        if kind == "FULL_OBJECT" {
            bucket.send("PUT", "/whole", &[(field, &value)], &body).expect(200);
        }
    }
    let id = begin(&bucket, "/k", &[("x-amz-checksum-algorithm", "SHA1")]);
    let sent = [("x-amz-checksum-crc32", "NhCmhg==")];
    let part = bucket.send("PUT", &format!("/k?partNumber=1&uploadId={id}"), &sent, b"hello");
    refused(&part, 400, "InvalidRequest");
    let wrong = [("x-amz-checksum-algorithm", "SHA1"), ("x-amz-checksum-type", "FULL_OBJECT")];
    refused(&bucket.send("POST", "/k?uploads", &wrong, b""), 400, "InvalidRequest");
}

#[test]
fn parts_are_copied_without_their_bytes() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let body = bytes_of(5, PART + 50);
    bucket.put("/source", &body);
    let source = format!("{}/source", bucket.name);
    let id = begin(&bucket, "/k", &[]);
    let copy = |number: usize, range: &str| {
        let fields = [("x-amz-copy-source", source.as_str()), ("x-amz-copy-source-range", range)];
        bucket.send("PUT", &format!("/k?partNumber={number}&uploadId={id}"), &fields, b"")
    };
    let first = text_of(&copy(1, &format!("bytes=0-{}", PART - 1)).expect(200), "ETag");
    let second = text_of(&copy(2, &format!("bytes={PART}-{}", PART + 49)).expect(200), "ETag");
    refused(&copy(3, &format!("bytes=0-{}", PART + 50)), 416, "InvalidRange");
    refused(&copy(3, "bytes=5-"), 400, "InvalidArgument");
    let named = completion(&[(1, &first), (2, &second)]);
    let when = [("If-None-Match", "*")];
    bucket.send("POST", &format!("/k?uploadId={id}"), &when, named.as_bytes()).expect(200);
    assert!(bucket.get("/k").expect(200).body == body);
    let id = begin(&bucket, "/k", &[]);
    bucket.send("PUT", &format!("/k?partNumber=1&uploadId={id}"), &[], b"x").expect(200);
    let named = completion(&[(1, &md5(b"x"))]);
    let late = bucket.send("POST", &format!("/k?uploadId={id}"), &when, named.as_bytes());
    refused(&late, 412, "PreconditionFailed");
}

/// Nobody is held to a signature that nobody could have.
#[test]
fn without_keys_signatures_mean_nothing() {
    let daemon = daemon();
    let bucket = Bucket::new(&daemon);
    let wrong = common::s3::signed(daemon.s3(), "PUT", &format!("/{}/k", bucket.name), &[], b"x");
    wrong.expect(200);
    assert_eq!(bucket.get("/k?X-Amz-Signature=nonsense&X-Amz-Algorithm=x").expect(200).body, b"x");
}

#[test]
fn objects_survive_a_kill() {
    let mut daemon = Setup::default().s3("").start();
    plain(daemon.s3(), "PUT", "/bucket", &[], b"").expect(200);
    let body = bytes_of(9, 700_000);
    plain(daemon.s3(), "PUT", "/bucket/k", &[("x-amz-meta-a", "1")], &body).expect(200);
    daemon.kill9();
    daemon.restart();
    let got = plain(daemon.s3(), "GET", "/bucket/k", &[], b"").expect(200);
    assert!(got.body == body && got.header("x-amz-meta-a") == Some("1"));
}
