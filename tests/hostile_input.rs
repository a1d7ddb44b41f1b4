//! Hostile names, paths, documents and signatures, at least 500 of them, over vblob and s3: each gets the right error,
//! nothing escapes, nothing is lost, and what is legal comes back byte by byte.
//!
//! Explicit lists, and more made from a seed (`MILLPOND_SEED`), which every failure names.

mod common;

use std::collections::BTreeSet;

use common::content::{Rng, number_from};
use common::s3::{Signer, plain, send, text_of, texts_of, timestamp, with_keys};
use common::{Answer, Conn, Daemon, Setup, bytes_of, get, request};

fn seed() -> u64 {
    number_from("MILLPOND_SEED").unwrap_or(0x5eed_4057)
}

fn escaped(key: &[u8]) -> String {
    key.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Every byte, alone and among others, and what means something to paths, shells, XML, SQL, URLs and terminals.
fn keys() -> Vec<Vec<u8>> {
    let texts = [
        ".",
        "..",
        "./",
        "../",
        "../../etc/passwd",
        "..\\..\\x",
        "/",
        "//",
        "/etc/passwd",
        "a/../b",
        "a//b",
        "a/./b",
        "a/",
        " ",
        "  a  ",
        "a b",
        "a+b",
        "a%2Fb",
        "%",
        "%zz",
        "%00",
        "%252e",
        "~",
        "~root",
        "$HOME",
        "$(id)",
        "`id`",
        "a;b",
        "a|b",
        "a&b",
        "a&&b",
        "*",
        "?",
        "[a]",
        "{a,b}",
        "'",
        "\"",
        "' or '1'='1",
        "<",
        ">",
        "</Key>",
        "<Key>x</Key>",
        "]]>",
        "<!--",
        "&amp;",
        "&#0;",
        "<?xml?>",
        "\\",
        "\\x00",
        "#",
        "#fragment",
        "?query=1",
        "a?b=c",
        ":",
        "C:\\x",
        "con",
        "nul",
        "\t",
        "\n",
        "\r\n",
        "a\r\nX-Evil: 1",
        "\u{feff}",
        "\u{202e}txt",
        "é",
        "e\u{301}",
        "日本",
        "\u{1f600}",
        "\u{0}",
        "a\u{0}b",
        "uploads",
        "streams",
        "acl",
        "list-type=2",
        "{}",
        "null",
        "-",
        "--help",
        "-rf",
        ".hidden",
        "a.tmp",
        "LOCK",
        "FORMAT",
        "journal-0/1",
        "\u{7f}",
        "\u{1b}[31m",
        "%n%s%x",
        "{{7*7}}",
        "${jndi:ldap://x}",
        "a=b&c=d",
    ];
    let mut keys: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    keys.extend((0..=255).map(|byte| vec![byte]));
    keys.extend([
        vec![0xff; 1024],
        vec![b'k'; 1024],
        b"\xc3\x28".to_vec(),
        b"\xed\xa0\x80".to_vec(),
        b"a\xffb".to_vec(),
    ]);
    let mut rng = Rng::new(seed());
    for _ in 0..60 {
        let len = 1 + rng.below(40) as usize;
        keys.push((0..len).map(|_| rng.below(256) as u8).collect());
    }
    keys.sort();
    keys.dedup();
    keys
}

/// All keys, put through one door and read through the other; then all of them listed, in order, by pages.
#[test]
fn legal_names_come_back_byte_by_byte_through_both_doors() {
    let daemon = Setup::default().vblob("").s3("").start();
    plain(daemon.s3(), "PUT", "/box", &[], b"").expect(200);
    plain(daemon.s3(), "PUT", "/other", &[], b"").expect(200);
    plain(daemon.s3(), "PUT", "/other/bystander", &[], b"untouched").expect(200);
    let before = files(&daemon);
    let keys = keys();
    assert!(keys.len() >= 350, "{}", keys.len());
    for (number, key) in keys.iter().enumerate() {
        let (put, read) = match number % 2 {
            0 => (daemon.s3(), daemon.vblob()),
            _ => (daemon.vblob(), daemon.s3()),
        };
        let target = format!("/box/{}", escaped(key));
        let body = bytes_of(seed() ^ number as u64, 1 + number);
        let stored = request(put, "PUT", &target, &[], &body);
        assert_eq!(stored.status, 200, "{}: {stored:?}", key.escape_ascii());
        let got = get(read, &target);
        assert!(got.status == 200 && got.body == body, "{}: {got:?}", key.escape_ascii());
    }
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let target = format!("/box?list-type=2&encoding-type=url&max-keys=50{token}");
        let page = plain(daemon.s3(), "GET", &target, &[], b"").expect(200);
        listed.extend(texts_of(&page, "Key").iter().map(|key| decoded(key)));
        if text_of(&page, "IsTruncated") == "false" {
            break;
        }
        token = format!("&continuation-token={}", text_of(&page, "NextContinuationToken"));
    }
    assert!(listed == keys, "listed {} of {} or in another order", listed.len(), keys.len());
    assert_eq!(get(daemon.s3(), "/other/bystander").body, b"untouched");
    assert_eq!(files(&daemon), before, "a name became part of a path");
    for (number, key) in keys.iter().enumerate() {
        let addr = if number % 2 == 0 { daemon.vblob() } else { daemon.s3() };
        request(addr, "DELETE", &format!("/box/{}", escaped(key)), &[], b"").expect(204);
    }
    plain(daemon.s3(), "DELETE", "/box", &[], b"").expect(204);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

fn decoded(text: &str) -> Vec<u8> {
    millpond::codec::text::percent_decode(text.as_bytes()).expect("escaped").into_owned()
}

/// What is in the data directory, but for how many segments there are.
fn files(daemon: &Daemon) -> BTreeSet<String> {
    fn walk(dir: &std::path::Path, root: &std::path::Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).expect("readable").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => {
                    found.insert(path.strip_prefix(root).expect("below").display().to_string());
                    walk(&path, root, found);
                }
                // Segments come and go; their names are numbers.
                false => {
                    let name = entry.file_name().into_string().expect("text");
                    if !name.bytes().any(|byte| byte.is_ascii_digit()) {
                        found.insert(name);
                    }
                }
            }
        }
    }
    let (root, mut found) = (daemon.data_dir(), BTreeSet::new());
    walk(&root, &root, &mut found);
    found
}

const DELETION: &str = "<Delete><Quiet>false</Quiet><Object><Key>gone</Key></Object></Delete>";

/// Documents that are none, or ask for what there is not. `gone` alone may go.
#[test]
fn hostile_documents_are_refused_and_touch_nothing() {
    let daemon = Setup::default().s3("").start();
    plain(daemon.s3(), "PUT", "/box", &[], b"").expect(200);
    plain(daemon.s3(), "PUT", "/box/kept", &[], b"kept").expect(200);
    let begun = plain(daemon.s3(), "POST", "/box/whole?uploads", &[], b"").expect(200);
    let completion = format!("/box/whole?uploadId={}", text_of(&begun, "UploadId"));
    let put = plain(daemon.s3(), "PUT", &format!("{completion}&partNumber=1"), &[], b"part").expect(200);
    let tag = put.header("etag").expect("a tag").to_owned();
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    let bomb = "<!DOCTYPE d [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><Delete><Object><Key>&b;</Key></Object></Delete>";
    let external = "<!DOCTYPE d [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><Delete><Object><Key>&x;</Key></Object></Delete>";
    let many = format!("<Delete>{}</Delete>", "<Object><Key>kept</Key></Object>".repeat(1001));
    let mut documents: Vec<Vec<u8>> = [
        "",
        " ",
        "<",
        "<>",
        "</Delete>",
        "<Delete>",
        "<Delete/>",
        "<Delete></Delete>",
        "<delete></delete>",
        "<Delete><Object/></Delete>",
        "<Delete><Object><Key></Key></Object></Delete>",
        "<Delete><Object><Key>kept</Object></Delete>",
        "kept",
        "{\"Key\":\"kept\"}",
        "<Delete><Object><Key>kept</Key></Object></Delete><x/>",
        "x<Delete><Object><Key>kept</Key></Object></Delete>",
        "<Delete><Object><Key>&kept;</Key></Object></Delete>",
        "<Delete><Object><Key>&#xD800;</Key></Object></Delete>",
        "<Delete><Object><Key>&#x110000;</Key></Object></Delete>",
        "<Delete><Object><Key>&#99999999999;</Key></Object></Delete>",
        "<Other><Object><Key>kept</Key></Object></Other>",
        "<?xml version=\"1.0\"?>",
        "<!-- <Delete/> -->",
        bomb,
        external,
        &deep,
        &many,
        "<Delete><Object><Key><![CDATA[kept</Key></Object></Delete>",
        "<Delete><Object Key=\"kept\"/></Delete>",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    documents.push([&b"\xff\xfe"[..], DELETION.as_bytes()].concat());
    documents.push(DELETION.replace("gone", "\u{0}").replace('\u{0}', "\u{fffe}").into_bytes().split_off(3));
    documents.push(DELETION.encode_utf16().flat_map(u16::to_le_bytes).collect());
    let mut rng = Rng::new(seed());
    documents.extend((0..DELETION.len()).map(|len| DELETION.as_bytes()[..len].to_vec()));
    let explicit = documents.len();
    for _ in 0..120 {
        let mut bytes = DELETION.as_bytes().to_vec();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.below(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"<>&/\"'\0]!?"[rng.below(10) as usize]),
            }
        }
        documents.push(bytes);
    }
    assert!(documents.len() >= 200);
    for (number, document) in documents.iter().enumerate() {
        let answer = plain(daemon.s3(), "POST", "/box?delete", &[], document);
        let told = || {
            format!("document {number}, MILLPOND_SEED={:#x}: {}", seed(), String::from_utf8_lossy(document))
        };
        let is_right = match (answer.status, &*text_of(&answer, "Code")) {
            (400, "MalformedXML" | "EntityTooLarge") => true,
            // A change may leave the document one that can be read.
            (200, _) => number >= explicit || texts_of(&answer, "Deleted").is_empty(),
            _ => false,
        };
        assert!(is_right, "{}: {answer:?}", told());
    }
    let part = |number: &str, tag: &str| {
        let tag = tag.replace('"', "&quot;");
        format!(
            "<CompleteMultipartUpload><Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part></CompleteMultipartUpload>"
        )
    };
    for number in ["0", "-1", "10001", "99999999999999999999", "1.5", "one", "", "0x1", "+1", "\u{661}"] {
        let answer = plain(daemon.s3(), "POST", &completion, &[], part(number, &tag).as_bytes());
        let code = text_of(&answer, "Code");
        let is_right = ["MalformedXML", "InvalidPart", "InvalidArgument"].contains(&&*code);
        assert!(answer.status == 400 && is_right, "{number}: {answer:?}");
    }
    for wrong in ["", "\"\"", "x", "\"0123456789abcdef0123456789abcdef\"", "*", "W/\"x\""] {
        let answer = plain(daemon.s3(), "POST", &completion, &[], part("1", wrong).as_bytes());
        let code = text_of(&answer, "Code");
        assert!(
            answer.status == 400 && ["InvalidPart", "MalformedXML"].contains(&&*code),
            "{wrong}: {answer:?}"
        );
    }
    assert_eq!(get(daemon.s3(), "/box/kept").expect(200).body, b"kept");
    get(daemon.s3(), "/box/whole").expect(404);
    plain(daemon.s3(), "POST", &completion, &[], part("1", &tag).as_bytes()).expect(200);
    assert_eq!(get(daemon.s3(), "/box/whole").expect(200).body, b"part");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// A right signature with anything of it changed is none; the object that it would have made is not there.
#[test]
fn a_signature_with_anything_changed_is_refused() {
    let daemon = Setup::default().s3(&with_keys()).start();
    let signed = |method: &str, target: &str, body: &[u8]| {
        let digest = common::sha256(body);
        let mut signer = Signer::new(common::s3::SECRET, timestamp());
        let fields = signer.fields(method, target, &[], &digest);
        send(daemon.s3(), method, target, &[], &fields, body)
    };
    signed("PUT", "/box", b"").expect(200);
    let (target, body) = ("/box/forged", b"forged");
    let mut rng = Rng::new(seed());
    let mut tried = 0;
    let mut refuse = |target: &str, fields: &[(String, String)], what: &str| {
        tried += 1;
        let answer = send(daemon.s3(), "PUT", target, &[], fields, body);
        let code = text_of(&answer, "Code");
        let known = [
            (403, "AccessDenied"),
            (403, "SignatureDoesNotMatch"),
            (403, "InvalidAccessKeyId"),
            (403, "RequestTimeTooSkewed"),
            (400, "AuthorizationHeaderMalformed"),
            (400, "AuthorizationQueryParametersError"),
            (400, "InvalidRequest"),
            (400, "XAmzContentSHA256Mismatch"),
            (400, "InvalidArgument"),
            // A parameter with another name is one that nobody knows.
            (501, "NotImplemented"),
        ];
        assert!(known.contains(&(answer.status, &*code)), "{what}, MILLPOND_SEED={:#x}: {answer:?}", seed());
    };
    let fields =
        || Signer::new(common::s3::SECRET, timestamp()).fields("PUT", target, &[], &common::sha256(body));
    for number in 0..110 {
        let mut fields = fields();
        let at = fields.len() - 1;
        let mut text = std::mem::take(&mut fields[at].1).into_bytes();
        let place = rng.below(text.len() as u64) as usize;
        match number % 3 {
            // Another letter, digit or sign, in place of the one that is there.
            0 => {
                let others: Vec<u8> =
                    (b'!'..=b'~').filter(|byte| !byte.eq_ignore_ascii_case(&text[place])).collect();
                text[place] = others[rng.below(others.len() as u64) as usize];
            }
            1 => text.truncate(place),
            _ => text.insert(place, b"azAZ09=/;,"[rng.below(10) as usize]),
        }
        fields[at].1 = String::from_utf8(text).expect("letters");
        refuse(target, &fields, &format!("{:?}", fields[at].1));
    }
    for authorization in [
        "",
        " ",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 ",
        "AWS",
        "AWS :",
        "AWS a:",
        "AWS a:b",
        "Basic YTpi",
        "Bearer x",
        "Digest",
        "AWS4-HMAC-SHA256 Credential=",
        "AWS4-HMAC-SHA256 Credential=////,SignedHeaders=,Signature=",
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20300101/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=00",
        "AWS4-HMAC-SHA512 Credential=a/b/c/d/e,SignedHeaders=host,Signature=0",
        "AWS4-ECDSA-P256-SHA256 Credential=a",
    ] {
        let mut fields = fields();
        fields.last_mut().expect("the last").1 = authorization.into();
        refuse(target, &fields, authorization);
    }
    for (field, values) in [
        (0, &["", "20000101T000000Z", "99991231T235959Z", "x", "20260230T000000Z", "-1"][..]),
        (1, &["", "x", "0000000000000000000000000000000000000000000000000000000000000000", "STREAMING-X"]),
    ] {
        for value in values {
            let mut fields = fields();
            fields[field].1 = (*value).into();
            refuse(target, &fields, &format!("{}: {value}", fields[field].0));
        }
    }
    for query in [
        "X-Amz-Signature=0",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256",
        "AWSAccessKeyId=AKIDEXAMPLE&Signature=x&Expires=9999999999",
        "AWSAccessKeyId=x&Signature=x&Expires=1",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a&X-Amz-Expires=604801",
    ] {
        refuse(&format!("{target}?{query}"), &[], query);
    }
    let mut signer = Signer::new(common::s3::SECRET, timestamp());
    let presigned = signer.presigned("PUT", target, 60);
    for _ in 0..40 {
        let mut text = presigned.clone().into_bytes();
        let place = target.len() + 1 + rng.below((text.len() - target.len() - 1) as u64) as usize;
        text[place] = if text[place] == b'0' { b'1' } else { b'0' };
        let text = String::from_utf8(text).expect("letters");
        refuse(&text, &[], &text);
    }
    assert!(tried >= 180, "{tried}");
    let left = signed("GET", "/box", b"").expect(200);
    assert_eq!(texts_of(&left, "Key"), [""; 0], "a forgery was stored");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// Heads that no client library would send, over both doors: an answer, a closed connection, and a daemon that goes on.
#[test]
fn raw_paths_are_answered_and_escape_nowhere() {
    let daemon = Setup::default().vblob("").s3("").start();
    plain(daemon.s3(), "PUT", "/box", &[], b"").expect(200);
    plain(daemon.s3(), "PUT", "/box/kept", &[], b"kept").expect(200);
    let before = files(&daemon);
    let targets = [
        "/..",
        "/../..",
        "/../../etc/passwd",
        "/box/../../etc/passwd",
        "/box/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "///",
        "/box//../kept",
        "/./box/kept",
        "/box/kept/..",
        "/box\\kept",
        "/box/kept%00.txt",
        "*",
        "box/kept",
        "http://other/box/kept",
        "/box/kept#x",
        "/box/kept;x=1",
        "/box?prefix=../../",
        "/box?marker=%2e%2e",
        "/\u{e9}/k",
        "/box/\u{0}",
        "/box/a b",
        "/box/\t",
        "file:///etc/passwd",
        "//box/kept",
        "/box/%c0%ae%c0%ae/",
        "/box/%u002e",
        "/~bind",
        "/~config",
        "/.git/config",
    ];
    for addr in [daemon.s3(), daemon.vblob()] {
        for method in ["GET", "DELETE", "PUT"] {
            for target in targets {
                let mut conn = Conn::open(addr);
                conn.send(format!(
                    "{method} {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                ));
                let answer: Answer = conn.answer_to(method);
                assert!(answer.status < 500, "{method} {target}: {answer:?}");
                assert!(
                    !String::from_utf8_lossy(&answer.body).contains("root:"),
                    "{method} {target}: {answer:?}"
                );
            }
        }
    }
    // What the absolute form and the dots above named were names like others.
    assert!(matches!(get(daemon.s3(), "/box").status, 200));
    assert_eq!(files(&daemon), before, "a path became a path of ours");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}
