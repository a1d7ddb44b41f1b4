//! Heads that are taken, and heads that two readers could take differently.

use super::super::fields::IDLE_BYTES_MAX;
use super::*;
use proptest::prelude::*;

fn parse(input: &[u8]) -> (Step<usize>, RequestHead) {
    let mut head = RequestHead::new();
    (head.parse(input, &HeadLimits::default()), head)
}

fn accepted(input: &[u8]) -> RequestHead {
    let (step, head) = parse(input);
    assert_eq!(step, Step::Done(input.len()), "{}", input.escape_ascii());
    head
}

fn refused(input: &[u8]) -> Reason {
    match parse(input).0 {
        Step::Refuse(refusal) => refusal.reason,
        step => panic!("{step:?} for {}", input.escape_ascii()),
    }
}

fn with_line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
}

fn with_field(field: &[u8]) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nHost: a\r\n", field, b"\r\n\r\n"].concat()
}

const VALID: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"\r\n\r\nOPTIONS * HTTP/1.1\r\nhoSt:\ta\r\nempty:\r\nblank: \t \r\n\r\n",
    b"POST http://b:80?x=y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"P!#$%&'*+-.^_`|~9 /a%zz/?q#f HTTP/1.1\r\nX_y.z: \xff\t ~ \r\nHost: [::1]:80\r\nContent-Length: 7\r\n\r\n",
];

#[test]
fn accessors() {
    let head = accepted(
        b"PUT /a/b?c=d?e HTTP/1.1\r\nHost: a.example:8080\r\nX-One:  1 \r\nx-one: 2\r\nContent-Length: 3\r\n\
          Expect: 100-continue\r\nConnection: close, upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!((head.method(), head.method_text(), head.version()), (Method::Put, "PUT", Version::Http11));
    assert_eq!((head.target(), head.path(), head.query()), ("/a/b?c=d?e", "/a/b", Some("c=d?e")));
    assert_eq!((head.host(), head.body()), ("a.example:8080", BodyLength::Exact(3)));
    assert_eq!(head.header("X-ONE"), Some(&b"1"[..]));
    assert_eq!(head.headers("x-one").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(head.header("x-on"), None);
    assert_eq!(head.all().count(), 7);
    assert!(!head.keep_alive() && head.expects_continue());
    assert_eq!(head.upgrade(), Some(&b"websocket"[..]));
}

#[test]
fn an_absolute_uri_replaces_host_and_is_reduced() {
    let head = accepted(b"GET http://b.example/x?y HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.host(), head.target(), head.path()), ("b.example", "/x?y", "/x"));
    let head = accepted(b"GET HTTPS://b:1?y HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.host(), head.target(), head.query()), ("b:1", "/?y", Some("y")));
    assert_eq!(accepted(b"GET http://b HTTP/1.1\r\nHost: a\r\n\r\n").path(), "/");
    assert_eq!(refused(b"GET http://b/ HTTP/1.1\r\n\r\n"), Reason::HostMissing);
}

#[test]
fn valid_heads_at_every_split() {
    for input in VALID {
        let expected = format!("{:?}", accepted(input));
        for split in 0..input.len() {
            let mut head = RequestHead::new();
            let limits = HeadLimits::default();
            assert_eq!(head.parse(&input[..split], &limits), Step::NeedMore, "split {split}");
            assert_eq!(head.parse(input, &limits), Step::Done(input.len()));
            assert_eq!(format!("{head:?}"), expected);
        }
    }
}

#[test]
fn valid_heads_byte_by_byte_and_in_a_pipeline() {
    let mut head = RequestHead::new();
    for input in VALID {
        for len in 0..input.len() {
            assert_eq!(head.parse(&input[..len], &HeadLimits::default()), Step::NeedMore);
        }
        let with_next = [input, VALID[0]].concat();
        assert_eq!(head.parse(&with_next, &HeadLimits::default()), Step::Done(input.len()));
    }
}

#[test]
fn request_lines_that_are_refused() {
    for line in [
        "GET",
        "GET /",
        "GET / ",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1 x",
        "GET / HTTP/1",
        "GET / HTTP/01.1",
        "GET / HTTP/ 1.1",
        "GET / http/1.1",
        "GET / ICE/1.0",
        "GET /a b HTTP/1.1",
        "G\u{1}T / HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET HTTP/1.1",
        "\u{16}\u{3}\u{1}",
    ] {
        assert_eq!(refused(&with_line(line)), Reason::RequestLine, "{line:?}");
    }
}

#[test]
fn versions_that_are_refused() {
    for version in ["0.9", "1.2", "2.0", "9.9"] {
        assert_eq!(refused(&with_line(&format!("GET / HTTP/{version}"))), Reason::Version);
    }
    assert_eq!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Reason::Version);
    assert_eq!(parse(b"GET / HTTP/2").0, Step::NeedMore);
    assert_eq!(refused(b"GET / HTTP/2.0"), Reason::Version);
    assert_eq!(refused(b"GET / HTTX"), Reason::RequestLine);
}

#[test]
fn targets_that_are_refused() {
    assert_eq!(refused(&with_line("GET * HTTP/1.1")), Reason::TargetForm);
    assert_eq!(refused(&with_line("GET a HTTP/1.1")), Reason::TargetForm);
    assert_eq!(refused(&with_line("GET /\u{e9} HTTP/1.1")), Reason::TargetByte);
    assert_eq!(refused(&with_line("GET http://u@a/ HTTP/1.1")), Reason::TargetAuthority);
    assert_eq!(refused(&with_line("CONNECT a:443 HTTP/1.1")), Reason::Connect);
}

#[test]
fn methods_are_case_sensitive_tokens() {
    assert_eq!(accepted(&with_line("get / HTTP/1.1")).method(), Method::Other);
    assert_eq!(accepted(&with_line("PROPFIND / HTTP/1.1")).method_text(), "PROPFIND");
}

#[test]
fn lines_end_with_crlf() {
    for input in [
        &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\rX",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(refused(input), Reason::LineEnd, "{}", input.escape_ascii());
    }
}

#[test]
fn fields_that_are_refused() {
    for field in
        [&b"X : a"[..], b" X: a", b"\tX: a", b": a", b"X", b"X[]: a", b"X\0: a", b"X\xe9: a", b"X\r: a"]
    {
        assert_eq!(refused(&with_field(field)), Reason::FieldName, "{}", field.escape_ascii());
    }
    assert_eq!(refused(&with_field(b"X: a\r\n b")), Reason::FieldName);
    for field in [&b"X: \0"[..], b"X: a\x07b", b"X: \x7f", b"X: a\rb", b"X:\rY: b"] {
        assert_eq!(refused(&with_field(field)), Reason::FieldValue, "{}", field.escape_ascii());
    }
}

#[test]
fn refusals_do_not_wait_for_the_end() {
    assert_eq!(refused(b"GET / HTTP/1.1\r\nX : a\r\n"), Reason::FieldName);
    assert_eq!(refused(b"GET / HTTP/1.1\r\nX: a\nY"), Reason::LineEnd);
    assert_eq!(refused(b"   \r\n"), Reason::RequestLine);
    assert_eq!(refused(b"GET /\r\n"), Reason::RequestLine);
}

#[test]
fn a_few_empty_lines_may_come_first() {
    let mut input = b"\r\n".repeat(LEADING_EMPTY_LINES_MAX);
    assert_eq!(parse(&input).0, Step::NeedMore);
    input.extend_from_slice(VALID[0]);
    accepted(&input);
    assert_eq!(refused(&b"\r\n".repeat(LEADING_EMPTY_LINES_MAX + 1)), Reason::LeadingEmptyLines);
}

#[test]
fn size_limits() {
    let limits = HeadLimits { bytes_max: 64, fields_max: 3 };
    let step = |input: &str| RequestHead::new().parse(input.as_bytes(), &limits);
    let sized = |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - 32));
    assert_eq!(step(&sized(64)), Step::Done(64));
    assert_eq!(step(&sized(65)), Reason::HeadTooLarge(64).into());
    assert_eq!(step(&format!("GET /{}", "a".repeat(60))), Reason::TargetTooLong(64).into());
    assert_eq!(step(&"A".repeat(64)), Reason::RequestLine.into());
    assert_eq!(step("GET / HTTP/1.1\r\nHost:a\r\na:b\r\nc:d\r\n\r\n"), Step::Done(36));
    assert_eq!(step("GET / HTTP/1.1\r\nHost:a\r\na:b\r\nc:d\r\ne:f\r\n"), Reason::TooManyFields(3).into());
}

#[test]
fn a_large_head_is_refused_alike_however_it_arrives() {
    let limits = HeadLimits { bytes_max: 64, fields_max: 128 };
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100));
    for split in 0..input.len() {
        let mut head = RequestHead::new();
        let first = head.parse(&input.as_bytes()[..split], &limits);
        let step = if first == Step::NeedMore { head.parse(input.as_bytes(), &limits) } else { first };
        assert_eq!(step, Reason::HeadTooLarge(64).into(), "split {split}");
    }
}

#[test]
fn clear_forgets_and_gives_back() {
    let mut head = RequestHead::new();
    let large = with_field(format!("X: {}", "x".repeat(30_000)).as_bytes());
    assert_eq!(head.parse(&large, &HeadLimits::default()), Step::Done(large.len()));
    assert_eq!(head.parse(b"GET / HTTP/1.1\r\n", &HeadLimits::default()), Step::NeedMore);
    head.clear();
    assert!(head.fields.bytes.capacity() <= 2 * IDLE_BYTES_MAX);
    assert_eq!((head.host(), head.all().count(), head.seen), ("", 0, 0));
}

#[test]
fn nothing_is_allocated_once_the_buffers_have_grown() {
    let mut head = accepted(VALID[4]);
    let before = (
        head.fields.bytes.as_ptr(),
        head.fields.bytes.capacity(),
        head.fields.fields.as_ptr(),
        head.fields.fields.capacity(),
    );
    for input in VALID {
        assert_eq!(head.parse(input, &HeadLimits::default()), Step::Done(input.len()));
    }
    let after = (
        head.fields.bytes.as_ptr(),
        head.fields.bytes.capacity(),
        head.fields.fields.as_ptr(),
        head.fields.fields.capacity(),
    );
    assert_eq!(before, after);
}

/// Bytes that come close to a head more often than chance would.
fn near_heads() -> impl Strategy<Value = Vec<u8>> {
    let fragments: &[&[u8]] = &[
        b"GET ",
        b"/",
        b" HTTP/1.1",
        b"\r\n",
        b"Host: a",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"\r\n\r\n",
        b"X",
        b"\0",
        b"http://",
        b"*",
        b"\xff",
    ];
    let fragment = prop_oneof![
        4 => proptest::sample::select(fragments).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(fragment, 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn near_heads_are_judged_alike_at_every_split(input in near_heads(), split in 0_usize..80) {
        let (whole, expected) = parse(&input);
        let limits = HeadLimits::default();
        let mut head = RequestHead::new();
        let first = head.parse(&input[..split.min(input.len())], &limits);
        let step = if first == Step::NeedMore { head.parse(&input, &limits) } else { first };
        match (step, whole) {
            // An unfinished line may wait for its end before it is refused.
            (Step::NeedMore, Step::Refuse(_)) => {
                let ended = head.parse(&[&input[..], b"\n"].concat(), &limits);
                prop_assert!(matches!(ended, Step::Refuse(_)));
            }
            (Step::Refuse(_), Step::Refuse(_)) => {}
            (Step::Done(_), _) => {
                prop_assert_eq!(step, whole);
                prop_assert_eq!(format!("{head:?}"), format!("{expected:?}"));
            }
            _ => prop_assert_eq!(step, whole),
        }
    }

    #[test]
    fn what_is_accepted_has_clean_lines(input in near_heads()) {
        if let (Step::Done(len), head) = parse(&input) {
            prop_assert!(input[..len].ends_with(b"\r\n\r\n") && !has_lone_line_end(&input[..len]));
            prop_assert!(head.target().starts_with('/') || head.target() == "*");
            prop_assert!(head.version() == Version::Http10 || !head.host().is_empty());
        }
    }

    #[test]
    fn a_generated_request_equals_its_model(
        method in "[A-Z]{1,8}",
        path in "/[a-z0-9/%._~-]{0,20}",
        query in proptest::option::of("[a-z0-9=&%+?/]{0,20}"),
        host in "[a-z][a-z0-9.-]{0,12}(:[0-9]{1,4})?",
        fields in proptest::collection::vec(("x-[a-zA-Z0-9-]{0,8}", "[!-~]([ -~]{0,20}[!-~])?"), 0..20),
        length in proptest::option::of(any::<u64>()),
    ) {
        prop_assume!(method != "CONNECT");
        let target = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in &fields {
            text += &format!("{name}: {value}\r\n");
        }
        if let Some(length) = length {
            text += &format!("Content-Length: {length}\r\n");
        }
        text += "\r\n";

        let head = accepted(text.as_bytes());
        prop_assert_eq!((head.method_text(), head.target(), head.path()), (&*method, &*target, &*path));
        prop_assert_eq!((head.query(), head.host()), (query.as_deref(), &*host));
        prop_assert_eq!(head.body(), length.map_or(BodyLength::None, BodyLength::Exact));
        let own = |(name, _): &(&str, &[u8])| name.starts_with("x-");
        let seen: Vec<_> = head.all().filter(own).map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
        let model: Vec<_> = fields.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        prop_assert_eq!(seen, model);
    }
}
