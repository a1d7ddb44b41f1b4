//! HTTP/1.1 as RFC 9112 and RFC 9110 have it: every shape of request that is taken, refused or waited for.
//!
//! Each case is raw bytes with the section that decides about it. All of them run against the loom listener and
//! against the admin listener. Whatever the outcome, a request that follows in the same segment must be answered
//! as itself or not at all: that is what makes smuggling impossible.
//!
//! In the bytes `{T}` stands for a target to read, `{P}` for one to post to.

mod common;

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use common::http::{Trouble, find};
use common::{Answer, Conn, Daemon, End, Setup};

/// What the daemon must do.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// Answer it by its meaning, keep the connection and answer the next request.
    Served,
    /// Answer it by its meaning, then end the connection.
    Closes,
    /// Answer it with one of these; the connection may stay.
    Answers(&'static [u16]),
    /// Take the body; what is stored is exactly this.
    Stored(&'static [u8]),
    /// Answer it with one of these, take nothing that follows for a request, and end the connection.
    Refused(&'static [u16]),
    /// The RFC allows both: to answer it by its meaning, or to refuse it with one of these.
    Either(&'static [u16]),
    /// The framing breaks inside the body: end the connection, without ever saying that all was well.
    Broken,
    /// Say nothing until these bytes have come, then serve it.
    Waits(&'static str),
}
use Expect::{Answers, Broken, Closes, Either, Refused, Served, Stored, Waits};

struct Case {
    name: &'static str,
    section: &'static str,
    raw: Raw,
    expect: Expect,
}

enum Raw {
    Bytes(&'static [u8]),
    /// Too long to write down.
    Made(fn() -> Vec<u8>),
}

const fn case(name: &'static str, section: &'static str, raw: &'static [u8], expect: Expect) -> Case {
    Case { name, section, raw: Raw::Bytes(raw), expect }
}

const fn made(name: &'static str, section: &'static str, raw: fn() -> Vec<u8>, expect: Expect) -> Case {
    Case { name, section, raw: Raw::Made(raw), expect }
}

/// A GET with further fields.
macro_rules! get {
    ($fields:literal) => {
        concat!("GET {T} HTTP/1.1\r\nHost: mill.test\r\n", $fields, "\r\n").as_bytes()
    };
}

/// A GET that goes on behind its `Host` as written.
macro_rules! get_with_body {
    ($rest:literal) => {
        concat!("GET {T} HTTP/1.1\r\nHost: mill.test\r\n", $rest).as_bytes()
    };
}

/// A GET whose target is written out, or follows from `{T}`.
macro_rules! target {
    ($target:literal) => {
        concat!("GET ", $target, " HTTP/1.1\r\nHost: mill.test\r\n\r\n").as_bytes()
    };
}

/// A GET with this version.
macro_rules! version {
    ($version:literal) => {
        concat!("GET {T} ", $version, "\r\nHost: mill.test\r\n\r\n").as_bytes()
    };
}

/// A GET with this `Host`.
macro_rules! host {
    ($host:literal) => {
        concat!("GET {T} HTTP/1.1\r\nHost: ", $host, "\r\n\r\n").as_bytes()
    };
}

/// A POST with these framing fields and body.
macro_rules! post {
    ($fields:literal, $body:literal) => {
        concat!("POST {P} HTTP/1.1\r\nHost: mill.test\r\n", $fields, "\r\n", $body).as_bytes()
    };
}

/// A POST with `Content-Length` as written and the body `hello`.
macro_rules! length {
    ($length:literal) => {
        concat!("POST {P} HTTP/1.1\r\nHost: mill.test\r\nContent-Length:", $length, "\r\n\r\nhello")
            .as_bytes()
    };
}

/// A POST with this `Transfer-Encoding` and the body `hello` in one chunk.
macro_rules! coding {
    ($coding:literal) => {
        concat!(
            "POST {P} HTTP/1.1\r\nHost: mill.test\r\nTransfer-Encoding:",
            $coding,
            "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
        .as_bytes()
    };
}

/// A chunked POST with this body.
macro_rules! chunked {
    ($body:literal) => {
        post!("Transfer-Encoding: chunked\r\n", $body)
    };
}

const BAD: Expect = Refused(&[400]);
const BAD_VERSION: Expect = Refused(&[400, 505]);
const BAD_CODING: Expect = Refused(&[400, 501]);

const REQUEST_LINE: &[Case] = &[
    case("get_is_served", "9112 3", get!(""), Served),
    case("head_is_served", "9110 9.3.2", b"HEAD {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", Served),
    case(
        "one_empty_line_before_it_is_ignored",
        "9112 2.2",
        b"\r\nGET {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n",
        Served,
    ),
    case(
        "two_empty_lines_before_it",
        "9112 2.2",
        b"\r\n\r\nGET {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n",
        Either(&[400]),
    ),
    case("line_feed_before_it", "9112 2.2", b"\nGET {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", Either(&[400])),
    case("carriage_return_before_it", "9112 2.2", b"\rGET {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("ended_by_line_feed_alone", "9112 2.2", b"GET {T} HTTP/1.1\nHost: mill.test\r\n\r\n", BAD),
    case("ended_by_carriage_return_alone", "9112 2.2", b"GET {T} HTTP/1.1\rHost: mill.test\r\n\r\n", BAD),
    case("ended_by_two_carriage_returns", "9112 2.2", b"GET {T} HTTP/1.1\r\r\nHost: mill.test\r\n\r\n", BAD),
    case("two_spaces_before_target", "9112 3", b"GET  {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("two_spaces_before_version", "9112 3", b"GET {T}  HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("tab_before_target", "9112 3", b"GET\t{T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("tab_before_version", "9112 3", b"GET {T}\tHTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("form_feed_before_target", "9112 3", b"GET\x0c{T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("vertical_tab_before_version", "9112 3", b"GET {T}\x0bHTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("space_before_method", "9112 3", b" GET {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("space_behind_version", "9112 3", b"GET {T} HTTP/1.1 \r\nHost: mill.test\r\n\r\n", BAD),
    case("word_behind_version", "9112 3", b"GET {T} HTTP/1.1 now\r\nHost: mill.test\r\n\r\n", BAD),
    case("target_missing", "9112 3", b"GET HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD_VERSION),
    case("version_missing", "9112 3", b"GET {T}\r\nHost: mill.test\r\n\r\n", BAD_VERSION),
    case("version_missing_after_a_space", "9112 3", b"GET {T} \r\nHost: mill.test\r\n\r\n", BAD_VERSION),
    case("method_alone", "9112 3", b"GET\r\nHost: mill.test\r\n\r\n", BAD),
    case("method_missing", "9112 3.1", b" {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("method_holds_zero_byte", "9112 3.1", b"GE\0T {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("method_holds_at_sign", "9112 3.1", b"G@T {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("method_holds_parenthesis", "9112 3.1", b"GE(T {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("method_holds_colon", "9112 3.1", b"GET: {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("method_holds_quote", "9112 3.1", b"\"GET\" {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("method_outside_ascii", "9112 3.1", b"G\xc3\x8bT {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case(
        "method_in_lower_case",
        "9110 9.1",
        b"get {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n",
        Answers(&[400, 405, 501]),
    ),
    case("method_unknown", "9110 9.1", b"BREW {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", Answers(&[405, 501])),
    case(
        "method_of_odd_token_characters",
        "9110 5.6.2",
        b"!#$%&'*+-.^_`|~ {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n",
        Answers(&[400, 405, 501]),
    ),
    case(
        "method_trace",
        "9110 9.3.8",
        b"TRACE {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n",
        Answers(&[400, 405, 501]),
    ),
    case(
        "method_connect",
        "9110 9.3.6",
        b"CONNECT mill.test:443 HTTP/1.1\r\nHost: mill.test:443\r\n\r\n",
        Answers(&[400, 405, 501]),
    ),
    case("preface_of_http_2", "9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD_VERSION),
    case("hello_of_tls", "9112 3", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n", BAD),
    case("status_line_instead", "9112 2.1", b"HTTP/1.1 200 OK\r\nHost: mill.test\r\n\r\n", BAD_VERSION),
    case("field_line_instead", "9112 2.1", b"Host: mill.test\r\n\r\n", BAD_VERSION),
    case("zero_bytes_instead", "9112 2.1", b"\0\0\0\0\r\n\r\n", BAD),
];

const TARGET: &[Case] = &[
    case("origin_form_with_query", "9112 3.2.1", target!("{T}?x=1&y"), Served),
    case("origin_form_with_empty_query", "9112 3.2.1", target!("{T}?"), Served),
    case("query_with_question_marks", "3986 3.4", target!("{T}?a=?&b=/"), Served),
    case("absolute_form", "9112 3.2.2", target!("http://mill.test{T}"), Served),
    case("absolute_form_in_mixed_case", "9110 4.2.3", target!("HtTp://MILL.test{T}"), Served),
    case("absolute_form_with_port", "9112 3.2.2", target!("http://mill.test:80{T}"), Served),
    case(
        "absolute_form_outweighs_host",
        "9112 3.2.2",
        b"GET http://mill.test{T} HTTP/1.1\r\nHost: other.test\r\n\r\n",
        Either(&[400]),
    ),
    case("absolute_form_without_host_field", "9112 3.2", b"GET http://mill.test{T} HTTP/1.1\r\n\r\n", BAD),
    case("absolute_form_without_authority", "9110 4.2.1", target!("http://{T}"), Either(&[400])),
    case(
        "absolute_form_of_strange_scheme",
        "9112 3.2.2",
        target!("gopher://mill.test{T}"),
        Refused(&[400, 421]),
    ),
    case("authority_form_with_get", "9112 3.2.3", target!("mill.test:80"), BAD),
    case("asterisk_form_with_get", "9112 3.2.4", target!("*"), BAD),
    case(
        "asterisk_form_with_options",
        "9112 3.2.4",
        b"OPTIONS * HTTP/1.1\r\nHost: mill.test\r\n\r\n",
        Answers(&[200, 204, 404, 405]),
    ),
    case("asterisk_with_more", "9112 3.2.4", b"OPTIONS *{T} HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("relative_path", "9112 3.2", target!("stream/x"), BAD),
    case("query_alone", "9112 3.2", target!("?x=1"), BAD),
    case("fragment", "9112 3.2", target!("{T}#part"), BAD),
    case("space_inside", "9112 3.2", target!("{T} more"), BAD),
    case("tab_inside", "9112 3.2", target!("{T}\tmore"), BAD),
    case("zero_byte_inside", "9112 3.2", b"GET {T}\0 HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("control_byte_inside", "9112 3.2", b"GET {T}\x01 HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("delete_byte_inside", "9112 3.2", b"GET {T}\x7f HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("carriage_return_inside", "9112 2.2", b"GET {T}\rx HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("byte_outside_ascii", "3986 2", b"GET {T}\xe9 HTTP/1.1\r\nHost: mill.test\r\n\r\n", BAD),
    case("characters_no_uri_has", "3986 2", target!("{T}<>|^`"), Either(&[400])),
    case("percent_without_hex", "3986 2.1", target!("{T}%zz"), Answers(&[400, 404])),
    case("percent_cut_short", "3986 2.1", target!("{T}%a"), Answers(&[400, 404])),
    case("percent_at_the_end", "3986 2.1", target!("{T}%"), Answers(&[400, 404])),
    case("percent_zero_byte", "3986 2.1", target!("{T}%00"), Answers(&[400, 404])),
    case("dot_segments", "3986 5.2.4", target!("{T}/../../etc/passwd"), Answers(&[400, 404])),
    made("target_too_long", "9112 3", || long_target("{T}"), Refused(&[414, 431])),
    made("query_too_long", "9112 3", || long_target("{T}?"), Refused(&[414, 431])),
    made("method_too_long", "9112 3", long_method, Refused(&[400, 405, 414, 431, 501])),
];

const VERSION: &[Case] = &[
    case("http_1_0_without_host", "9112 2.3", b"GET {T} HTTP/1.0\r\n\r\n", Closes),
    case("http_1_0_with_host", "9112 9.3", version!("HTTP/1.0"), Closes),
    case(
        "http_1_0_asks_to_stay",
        "9112 9.3",
        b"GET {T} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        Either(&[]),
    ),
    case("http_1_2_is_1_1_to_us", "9110 2.5", version!("HTTP/1.2"), Either(&[400, 505])),
    case("http_2_0", "9110 15.6.6", version!("HTTP/2.0"), BAD_VERSION),
    case("http_3_0", "9110 15.6.6", version!("HTTP/3.0"), BAD_VERSION),
    case("http_0_9", "9110 15.6.6", version!("HTTP/0.9"), BAD_VERSION),
    case("http_9_9", "9110 15.6.6", version!("HTTP/9.9"), BAD_VERSION),
    case("minor_missing", "9112 2.3", version!("HTTP/1"), BAD_VERSION),
    case("minor_empty", "9112 2.3", version!("HTTP/1."), BAD_VERSION),
    case("major_empty", "9112 2.3", version!("HTTP/.1"), BAD_VERSION),
    case("dot_missing", "9112 2.3", version!("HTTP/11"), BAD_VERSION),
    case("two_digit_minor", "9112 2.3", version!("HTTP/1.10"), BAD_VERSION),
    case("leading_zeros", "9112 2.3", version!("HTTP/01.01"), BAD_VERSION),
    case("three_parts", "9112 2.3", version!("HTTP/1.1.1"), BAD_VERSION),
    case("comma_for_dot", "9112 2.3", version!("HTTP/1,1"), BAD_VERSION),
    case("sign_before_major", "9112 2.3", version!("HTTP/+1.1"), BAD_VERSION),
    case("letters_behind", "9112 2.3", version!("HTTP/1.1x"), BAD_VERSION),
    case("lower_case_name", "9112 2.3", version!("http/1.1"), BAD_VERSION),
    case("other_name", "9112 2.3", version!("HTTPS/1.1"), BAD_VERSION),
    case("space_for_slash", "9112 2.3", version!("HTTP 1.1"), BAD_VERSION),
    case("space_behind_slash", "9112 2.3", version!("HTTP/ 1.1"), BAD_VERSION),
    case("slash_missing", "9112 2.3", version!("HTTP1.1"), BAD_VERSION),
    case("hex_minor", "9112 2.3", version!("HTTP/1.a"), BAD_VERSION),
];

const HOST: &[Case] = &[
    case("host_missing", "9112 3.2", b"GET {T} HTTP/1.1\r\n\r\n", BAD),
    case("host_missing_beside_others", "9112 3.2", b"GET {T} HTTP/1.1\r\nAccept: */*\r\n\r\n", BAD),
    case("host_twice_the_same", "9112 3.2", get!("Host: mill.test\r\n"), BAD),
    case("host_twice_different", "9112 3.2", get!("Host: other.test\r\n"), BAD),
    case("host_twice_in_other_case", "9112 3.2", get!("hOST: mill.test\r\n"), BAD),
    case(
        "host_twice_in_http_1_0",
        "9112 3.2",
        b"GET {T} HTTP/1.0\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        BAD,
    ),
    case("host_in_lower_case", "9110 5.1", b"GET {T} HTTP/1.1\r\nhost: mill.test\r\n\r\n", Served),
    case("host_with_port", "9110 7.2", host!("mill.test:3060"), Served),
    case("host_is_ipv4", "9110 7.2", host!("127.0.0.1:80"), Served),
    case("host_is_ipv6", "3986 3.2.2", host!("[::1]:3060"), Served),
    case("host_empty", "9110 7.2", host!(""), Either(&[400])),
    case("host_with_empty_port", "3986 3.2.3", host!("mill.test:"), Either(&[400])),
    case("host_with_user", "9110 4.2.4", host!("me@mill.test"), BAD),
    case("host_with_path", "9112 3.2", host!("mill.test/x"), BAD),
    case("host_with_query", "9112 3.2", host!("mill.test?x"), BAD),
    case("host_with_fragment", "9112 3.2", host!("mill.test#x"), BAD),
    case("host_with_scheme", "9112 3.2", host!("http://mill.test"), BAD),
    case("host_with_space", "9112 3.2", host!("mill test"), BAD),
    case("host_with_comma", "9112 3.2", host!("mill.test, other.test"), BAD),
    case("host_with_letters_for_port", "9112 3.2", host!("mill.test:http"), BAD),
    case("host_with_two_ports", "9112 3.2", host!("mill.test:80:81"), BAD),
    case("host_with_bracket_open", "9112 3.2", host!("[::1"), BAD),
    case("host_with_angle_brackets", "9112 3.2", host!("<mill>"), BAD),
    case("host_with_backslash", "9112 3.2", host!("mill\\test"), BAD),
    case("host_with_zero_byte", "9110 5.5", b"GET {T} HTTP/1.1\r\nHost: mill\0.test\r\n\r\n", BAD),
];

const FIELDS: &[Case] = &[
    case("field_value_empty", "9110 5.5", get!("X-A:\r\n"), Served),
    case("field_value_of_spaces", "9110 5.5", get!("X-A: \t \r\n"), Served),
    case("field_without_space_behind_colon", "9112 5", get!("X-A:b\r\n"), Served),
    case("field_with_spaces_behind_value", "9112 5.1", get!("X-A: b \t\r\n"), Served),
    case("field_with_tab_in_value", "9110 5.5", get!("X-A: b\tc\r\n"), Served),
    case("field_with_colon_in_value", "9112 5", get!("X-A: b:c:d\r\n"), Served),
    case(
        "field_with_obs_text",
        "9110 5.5",
        b"GET {T} HTTP/1.1\r\nHost: mill.test\r\nX-A: \xff\xfe\r\n\r\n",
        Served,
    ),
    case("field_name_of_odd_token_characters", "9110 5.6.2", get!("!#$%&'*+-.^_`|~: x\r\n"), Served),
    case("field_twice", "9110 5.3", get!("X-A: b\r\nX-A: c\r\n"), Served),
    case("space_before_colon", "9112 5.1", get!("X-A : b\r\n"), BAD),
    case("tab_before_colon", "9112 5.1", get!("X-A\t: b\r\n"), BAD),
    case(
        "space_before_first_field",
        "9112 2.2",
        b"GET {T} HTTP/1.1\r\n X-A: b\r\nHost: mill.test\r\n\r\n",
        BAD,
    ),
    case(
        "tab_before_first_field",
        "9112 2.2",
        b"GET {T} HTTP/1.1\r\n\tX-A: b\r\nHost: mill.test\r\n\r\n",
        BAD,
    ),
    case("line_of_one_space_first", "9112 2.2", b"GET {T} HTTP/1.1\r\n \r\nHost: mill.test\r\n\r\n", BAD),
    case("fold_by_space", "9112 5.2", get!("X-A: b\r\n c\r\n"), BAD),
    case("fold_by_tab", "9112 5.2", get!("X-A: b\r\n\tc\r\n"), BAD),
    case("fold_of_host", "9112 5.2", b"GET {T} HTTP/1.1\r\nHost: mill\r\n .test\r\n\r\n", BAD),
    case("fold_of_an_empty_value", "9112 5.2", get!("X-A:\r\n b\r\n"), BAD),
    case("fold_of_nothing", "9112 5.2", get!("X-A: b\r\n \r\n"), BAD),
    case("colon_missing", "9112 5", get!("X-A\r\n"), BAD),
    case("name_empty", "9112 5", get!(": b\r\n"), BAD),
    case("name_with_space", "9110 5.1", get!("X A: b\r\n"), BAD),
    case("name_with_parenthesis", "9110 5.1", get!("X(A): b\r\n"), BAD),
    case("name_with_slash", "9110 5.1", get!("X/A: b\r\n"), BAD),
    case("name_with_brackets", "9110 5.1", get!("X[A]: b\r\n"), BAD),
    case("name_with_quote", "9110 5.1", get!("\"X\": b\r\n"), BAD),
    case("name_with_zero_byte", "9110 5.1", b"GET {T} HTTP/1.1\r\nHost: mill.test\r\nX\0A: b\r\n\r\n", BAD),
    case(
        "name_with_delete_byte",
        "9110 5.1",
        b"GET {T} HTTP/1.1\r\nHost: mill.test\r\nX\x7fA: b\r\n\r\n",
        BAD,
    ),
    case(
        "name_outside_ascii",
        "9110 5.1",
        b"GET {T} HTTP/1.1\r\nHost: mill.test\r\nX\xc3\xa9: b\r\n\r\n",
        BAD,
    ),
    case(
        "value_with_zero_byte",
        "9110 5.5",
        b"GET {T} HTTP/1.1\r\nHost: mill.test\r\nX-A: b\0c\r\n\r\n",
        BAD,
    ),
    case("value_with_carriage_return", "9112 2.2", get!("X-A: b\rc\r\n"), BAD),
    case("value_with_line_feed", "9112 2.2", get!("X-A: b\nc\r\n"), BAD),
    case(
        "value_with_control_byte",
        "9110 5.5",
        b"GET {T} HTTP/1.1\r\nHost: mill.test\r\nX-A: b\x01c\r\n\r\n",
        Either(&[400]),
    ),
    case(
        "value_with_delete_byte",
        "9110 5.5",
        b"GET {T} HTTP/1.1\r\nHost: mill.test\r\nX-A: b\x7fc\r\n\r\n",
        Either(&[400]),
    ),
    case("line_ended_by_line_feed_alone", "9112 2.2", get!("X-A: b\nX-B: c\r\n"), BAD),
    case("line_ended_by_carriage_return_alone", "9112 2.2", get!("X-A: b\rX-B: c\r\n"), BAD),
    case("line_ended_by_two_carriage_returns", "9112 2.2", get!("X-A: b\r\r\n"), BAD),
    case("head_ended_by_line_feed_alone", "9112 2.2", b"GET {T} HTTP/1.1\r\nHost: mill.test\r\n\n", BAD),
    case(
        "head_ended_by_carriage_return_and_more",
        "9112 2.2",
        b"GET {T} HTTP/1.1\r\nHost: mill.test\r\n\rX-A: b\r\n\r\n",
        BAD,
    ),
    case("head_of_line_feeds_only", "9112 2.2", b"GET {T} HTTP/1.1\nHost: mill.test\n\n", BAD),
    made("field_of_four_kib", "9110 5.4", || one_field(4 << 10), Served),
    made("field_too_long", "6585 5", || one_field(40 << 10), Refused(&[431])),
    made("field_name_too_long", "6585 5", long_name, Refused(&[431, 400])),
    made("fields_sixty", "9110 5.4", || many_fields(60), Served),
    made("fields_too_many", "6585 5", || many_fields(4000), Refused(&[431])),
    made(
        "field_too_long_and_never_ended",
        "6585 5",
        || one_field(40 << 10)[..38 << 10].to_vec(),
        Refused(&[431]),
    ),
];

const CONNECTION: &[Case] = &[
    case("close_is_obeyed", "9112 9.6", get!("Connection: close\r\n"), Closes),
    case("close_in_mixed_case", "9110 7.6.1", get!("Connection: cLoSe\r\n"), Closes),
    case("close_in_a_list", "9110 7.6.1", get!("Connection: keep-alive, close\r\n"), Closes),
    case("close_in_a_second_field", "9110 7.6.1", get!("Connection: x-a\r\nConnection: close\r\n"), Closes),
    case("close_as_part_of_a_word", "9110 7.6.1", get!("Connection: close-to-home\r\n"), Served),
    case("keep_alive_is_the_default", "9112 9.3", get!("Connection: keep-alive\r\n"), Served),
    case("connection_empty", "9110 7.6.1", get!("Connection:\r\n"), Served),
    case("upgrade_is_not_taken", "9110 7.8", get!("Connection: upgrade\r\nUpgrade: h2c\r\n"), Served),
    case("expectation_without_body", "9110 10.1.1", get!("Expect: 100-continue\r\n"), Either(&[417])),
    case(
        "expectation_unknown",
        "9110 10.1.1",
        post!("Expect: a-miracle\r\nContent-Length: 5\r\n", "hello"),
        Refused(&[417]),
    ),
    case("te_trailers_is_harmless", "9110 10.1.4", get!("TE: trailers\r\n"), Served),
];

const LENGTH: &[Case] = &[
    case("length_of_five", "9112 6.3", length!(" 5"), Stored(b"hello")),
    case("length_without_space", "9112 5", length!("5"), Stored(b"hello")),
    case("length_with_spaces_around", "9112 5.1", length!("  5 \t"), Stored(b"hello")),
    case("length_of_zero", "9112 6.3", post!("Content-Length: 0\r\n", ""), Stored(b"")),
    case("length_and_coding_absent", "9112 6.3", post!("", ""), Stored(b"")),
    case("length_of_a_get", "9110 9.3.1", get_with_body!("Content-Length: 5\r\n\r\nhello"), Either(&[400])),
    case("length_with_zeros_before", "9110 8.6", length!(" 0005"), Either(&[400])),
    case("length_twice_the_same", "9110 8.6", length!(" 5\r\nContent-Length: 5"), Either(&[400])),
    case("length_as_a_list_of_the_same", "9110 8.6", length!(" 5, 5"), Either(&[400])),
    case("length_twice_different", "9112 6.3", length!(" 5\r\nContent-Length: 6"), BAD),
    case("length_twice_one_invalid", "9112 6.3", length!(" 5\r\nContent-Length: x"), BAD),
    case("length_as_a_list_of_different", "9112 6.3", length!(" 5, 6"), BAD),
    case("length_with_comma_behind", "9112 6.3", length!(" 5,"), BAD),
    case("length_empty", "9112 6.3", length!(""), BAD),
    case("length_with_plus", "9112 6.3", length!(" +5"), BAD),
    case("length_with_minus", "9112 6.3", length!(" -5"), BAD),
    case("length_minus_zero", "9112 6.3", length!(" -0"), BAD),
    case("length_in_hex", "9112 6.3", length!(" 0x5"), BAD),
    case("length_with_fraction", "9112 6.3", length!(" 5.0"), BAD),
    case("length_with_exponent", "9112 6.3", length!(" 5e0"), BAD),
    case("length_with_underscore", "9112 6.3", length!(" 1_0"), BAD),
    case("length_with_space_inside", "9112 6.3", length!(" 5 5"), BAD),
    case("length_with_semicolon", "9112 6.3", length!(" 5;"), BAD),
    case("length_as_a_word", "9112 6.3", length!(" five"), BAD),
    case("length_in_quotes", "9112 6.3", length!(" \"5\""), BAD),
    case("length_in_other_digits", "9112 6.3", length!(" \u{665}"), BAD),
    case("length_with_zero_byte", "9112 6.3", length!(" 5\0"), BAD),
    case("length_just_beyond_64_bits", "9112 6.3", length!(" 18446744073709551616"), Refused(&[400, 413])),
    case(
        "length_far_beyond_64_bits",
        "9112 6.3",
        length!(" 99999999999999999999999999999999"),
        Refused(&[400, 413]),
    ),
    case("length_that_wraps_to_five", "9112 6.3", length!(" 18446744073709551621"), Refused(&[400, 413])),
    case("length_with_space_before_colon", "9112 5.1", post!("Content-Length : 5\r\n", "hello"), BAD),
    case("length_with_underscore_in_name", "9110 5.1", post!("Content_Length: 5\r\n", ""), Stored(b"")),
];

const CODING: &[Case] = &[
    case("chunked_body", "9112 7.1", coding!(" chunked"), Stored(b"hello")),
    case("chunked_in_mixed_case", "9112 7", coding!(" ChUnKeD"), Stored(b"hello")),
    case("chunked_with_spaces_around", "9112 5.1", coding!(" \tchunked \t"), Stored(b"hello")),
    case("coding_unknown", "9112 6.1", coding!(" gzip"), BAD_CODING),
    case("coding_unknown_before_chunked", "9112 6.1", coding!(" gzip, chunked"), BAD_CODING),
    case("coding_identity", "9112 7", coding!(" identity"), BAD_CODING),
    case("coding_identity_before_chunked", "9112 7", coding!(" identity, chunked"), BAD_CODING),
    case("coding_chunked_not_last", "9112 6.3", coding!(" chunked, gzip"), BAD_CODING),
    case("coding_chunked_twice", "9112 7.1", coding!(" chunked, chunked"), BAD_CODING),
    case(
        "coding_chunked_in_two_fields",
        "9112 7.1",
        coding!(" chunked\r\nTransfer-Encoding: chunked"),
        BAD_CODING,
    ),
    case(
        "coding_and_another_in_two_fields",
        "9112 6.1",
        coding!(" chunked\r\nTransfer-Encoding: x"),
        BAD_CODING,
    ),
    case(
        "coding_another_first_in_two_fields",
        "9112 6.1",
        coding!(" x\r\nTransfer-Encoding: chunked"),
        BAD_CODING,
    ),
    case("coding_empty", "9112 6.1", coding!(""), BAD_CODING),
    case("coding_with_comma_behind", "9112 6.1", coding!(" chunked,"), Either(&[400, 501])),
    case("coding_with_parameter", "9112 7", coding!(" chunked;q=1"), BAD_CODING),
    case("coding_in_quotes", "9112 7", coding!(" \"chunked\""), BAD_CODING),
    case("coding_with_letter_before", "9112 7", coding!(" xchunked"), BAD_CODING),
    case("coding_with_letter_behind", "9112 7", coding!(" chunkedx"), BAD_CODING),
    case("coding_with_space_inside", "9112 7", coding!(" chun ked"), BAD_CODING),
    case("coding_with_vertical_tab", "9112 7", coding!(" \x0bchunked"), BAD_CODING),
    case("coding_with_form_feed_behind", "9112 7", coding!(" chunked\x0c"), BAD_CODING),
    case("coding_with_zero_byte", "9112 7", coding!(" chunked\0"), BAD_CODING),
    case(
        "coding_with_space_before_colon",
        "9112 5.1",
        post!("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        BAD,
    ),
    case(
        "coding_behind_a_space",
        "9112 5.2",
        post!("X-A: b\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        BAD,
    ),
    case(
        "coding_behind_a_carriage_return",
        "9112 2.2",
        post!("X-A: b\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        BAD,
    ),
    case(
        "coding_behind_a_line_feed",
        "9112 2.2",
        post!("X-A: b\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        BAD,
    ),
    case("coding_folded", "9112 5.2", coding!("\r\n chunked"), BAD),
    case(
        "coding_with_underscore_in_name",
        "9110 5.1",
        post!("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello"),
        Stored(b"hello"),
    ),
    case(
        "coding_and_length",
        "9112 6.1",
        post!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nsmugg"),
        BAD,
    ),
    case(
        "length_and_coding",
        "9112 6.1",
        post!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\nsmugg"),
        BAD,
    ),
    case(
        "coding_unknown_and_length",
        "9112 6.1",
        post!("Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n", "hello"),
        BAD_CODING,
    ),
    case(
        "coding_in_http_1_0",
        "9112 6.1",
        b"POST {P} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD_CODING,
    ),
    case(
        "coding_of_a_get",
        "9112 6.3",
        get_with_body!("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        Either(&[400]),
    ),
];

const CHUNKS: &[Case] = &[
    case("chunks_none", "9112 7.1", chunked!("0\r\n\r\n"), Stored(b"")),
    case(
        "chunks_three",
        "9112 7.1",
        chunked!("1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n"),
        Stored(b"abcdef"),
    ),
    case(
        "chunk_size_in_lower_case",
        "9112 7.1",
        chunked!("b\r\nelevenbytes\r\n0\r\n\r\n"),
        Stored(b"elevenbytes"),
    ),
    case(
        "chunk_size_in_upper_case",
        "9112 7.1",
        chunked!("B\r\nelevenbytes\r\n0\r\n\r\n"),
        Stored(b"elevenbytes"),
    ),
    case(
        "chunk_data_that_looks_like_framing",
        "9112 7.1",
        chunked!("5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
        Stored(b"0\r\n\r\n"),
    ),
    case(
        "chunk_data_that_looks_like_a_request",
        "9112 7.1",
        chunked!("12\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"),
        Stored(b"GET / HTTP/1.1\r\n\r\n"),
    ),
    case("chunk_size_with_zeros_before", "9112 7.1", chunked!("0005\r\nhello\r\n0\r\n\r\n"), Either(&[400])),
    case("last_chunk_of_many_zeros", "9112 7.1", chunked!("5\r\nhello\r\n000\r\n\r\n"), Either(&[400])),
    case("chunk_extension", "9112 7.1.1", chunked!("5;a=b\r\nhello\r\n0\r\n\r\n"), Stored(b"hello")),
    case(
        "chunk_extension_without_value",
        "9112 7.1.1",
        chunked!("5;a\r\nhello\r\n0\r\n\r\n"),
        Stored(b"hello"),
    ),
    case(
        "chunk_extension_in_quotes",
        "9112 7.1.1",
        chunked!("5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n"),
        Stored(b"hello"),
    ),
    case(
        "chunk_extensions_two",
        "9112 7.1.1",
        chunked!("5;a=b;c=d\r\nhello\r\n0;e\r\n\r\n"),
        Stored(b"hello"),
    ),
    case(
        "chunk_extension_behind_space",
        "9112 7.1.1",
        chunked!("5 ;a=b\r\nhello\r\n0\r\n\r\n"),
        Either(&[400]),
    ),
    case("chunk_size_empty", "9112 7.1", chunked!("\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_empty_with_extension", "9112 7.1", chunked!(";a=b\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_with_prefix", "9112 7.1", chunked!("0x5\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_with_plus", "9112 7.1", chunked!("+5\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_with_minus", "9112 7.1", chunked!("-5\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_with_space_before", "9112 7.1", chunked!(" 5\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_with_tab_before", "9112 7.1", chunked!("\t5\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_with_underscore", "9112 7.1", chunked!("0_5\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_no_hex", "9112 7.1", chunked!("g\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_with_fraction", "9112 7.1", chunked!("5.0\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_with_comma", "9112 7.1", chunked!("5,a\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_with_zero_byte", "9112 7.1", chunked!("5\0\r\nhello\r\n0\r\n\r\n"), Broken),
    case(
        "chunk_size_beyond_64_bits",
        "9112 7.1",
        chunked!("10000000000000005\r\nhello\r\n0\r\n\r\n"),
        Broken,
    ),
    case("chunk_size_of_all_ones", "9112 7.1", chunked!("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_ended_by_line_feed", "9112 2.2", chunked!("5\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_size_ended_by_carriage_return", "9112 2.2", chunked!("5\rhello\r\n0\r\n\r\n"), Broken),
    case("chunk_extension_with_line_feed", "9112 7.1.1", chunked!("5;a\nb\r\nhello\r\n0\r\n\r\n"), Broken),
    case(
        "chunk_extension_with_carriage_return",
        "9112 7.1.1",
        chunked!("5;a\rb\r\nhello\r\n0\r\n\r\n"),
        Broken,
    ),
    case("chunk_extension_with_zero_byte", "9112 7.1.1", chunked!("5;a\0\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_data_longer_than_size", "9112 7.1", chunked!("4\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_data_shorter_than_size", "9112 7.1", chunked!("6\r\nhello\r\n0\r\n\r\n"), Broken),
    case("chunk_data_without_line_end", "9112 7.1", chunked!("5\r\nhello0\r\n\r\n"), Broken),
    case("chunk_data_ended_by_line_feed", "9112 2.2", chunked!("5\r\nhello\n0\r\n\r\n"), Broken),
    case("chunk_data_ended_by_carriage_return", "9112 2.2", chunked!("5\r\nhello\r0\r\n\r\n"), Broken),
    case("chunk_data_ended_by_two_other_bytes", "9112 7.1", chunked!("5\r\nhelloXX0\r\n\r\n"), Broken),
    case("last_chunk_ended_by_line_feeds", "9112 2.2", chunked!("5\r\nhello\r\n0\n\n"), Broken),
    made("chunk_extension_without_end", "9112 7.1.1", long_extension, Broken),
];

const TRAILERS: &[Case] = &[
    case("trailer", "9112 7.1.2", chunked!("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), Stored(b"hello")),
    case(
        "trailers_two",
        "9112 7.1.2",
        chunked!("5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-End: now\r\n\r\n"),
        Stored(b"hello"),
    ),
    case(
        "trailer_that_may_not_be_one",
        "9110 6.5.1",
        chunked!("5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n"),
        Either(&[400]),
    ),
    case(
        "trailer_that_would_reframe",
        "9110 6.5.1",
        chunked!("5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Either(&[400]),
    ),
    case(
        "trailer_that_would_authorise",
        "9110 6.5.1",
        chunked!("5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\n\r\n"),
        Either(&[400]),
    ),
    case("trailer_without_colon", "9112 7.1.2", chunked!("5\r\nhello\r\n0\r\nX-Sum\r\n\r\n"), Broken),
    case("trailer_with_space_in_name", "9112 7.1.2", chunked!("5\r\nhello\r\n0\r\nX Sum: 1\r\n\r\n"), Broken),
    case(
        "trailer_with_space_before_colon",
        "9112 5.1",
        chunked!("5\r\nhello\r\n0\r\nX-Sum : 1\r\n\r\n"),
        Broken,
    ),
    case("trailer_folded", "9112 5.2", chunked!("5\r\nhello\r\n0\r\nX-Sum: 1\r\n 2\r\n\r\n"), Broken),
    case("trailer_ended_by_line_feed", "9112 2.2", chunked!("5\r\nhello\r\n0\r\nX-Sum: 1\n\r\n"), Broken),
    case("trailer_with_zero_byte", "9110 5.5", chunked!("5\r\nhello\r\n0\r\nX-Sum: \0\r\n\r\n"), Broken),
    made("trailers_too_long", "9112 7.1.2", long_trailers, Broken),
];

const WAITS: &[Case] = &[
    case("waits_in_the_method", "9112 2.2", b"GE", Waits("T {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n")),
    case(
        "waits_behind_an_empty_line",
        "9112 2.2",
        b"\r\n",
        Waits("GET {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n"),
    ),
    case("waits_behind_the_method", "9112 2.2", b"GET", Waits(" {T} HTTP/1.1\r\nHost: mill.test\r\n\r\n")),
    case("waits_before_the_target", "9112 2.2", b"GET ", Waits("{T} HTTP/1.1\r\nHost: mill.test\r\n\r\n")),
    case("waits_behind_the_target", "9112 2.2", b"GET {T}", Waits(" HTTP/1.1\r\nHost: mill.test\r\n\r\n")),
    case("waits_in_the_version", "9112 2.2", b"GET {T} HTTP/1.", Waits("1\r\nHost: mill.test\r\n\r\n")),
    case("waits_in_the_line_end", "9112 2.2", b"GET {T} HTTP/1.1\r", Waits("\nHost: mill.test\r\n\r\n")),
    case(
        "waits_behind_the_request_line",
        "9112 2.2",
        b"GET {T} HTTP/1.1\r\n",
        Waits("Host: mill.test\r\n\r\n"),
    ),
    case("waits_in_a_field_name", "9112 2.2", b"GET {T} HTTP/1.1\r\nHo", Waits("st: mill.test\r\n\r\n")),
    case("waits_in_a_field_value", "9112 2.2", b"GET {T} HTTP/1.1\r\nHost: mill", Waits(".test\r\n\r\n")),
    case("waits_for_the_last_line", "9112 2.2", b"GET {T} HTTP/1.1\r\nHost: mill.test\r\n", Waits("\r\n")),
    case("waits_for_the_last_byte", "9112 2.2", b"GET {T} HTTP/1.1\r\nHost: mill.test\r\n\r", Waits("\n")),
];

fn all() -> impl Iterator<Item = &'static Case> {
    [REQUEST_LINE, TARGET, VERSION, HOST, FIELDS, CONNECTION, LENGTH, CODING, CHUNKS, TRAILERS, WAITS]
        .into_iter()
        .flatten()
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = all().map(|case| case.name).collect();
    assert_eq!(names.len(), all().count());
    assert!(names.len() >= 150, "{} cases", names.len());
}

#[test]
fn the_loom_listener_keeps_to_the_rfc() {
    let daemon = daemon();
    run(&Door { addr: daemon.loom(), read: "/stream/absent", post: "/stream/posted-", loom: true });
}

#[test]
fn the_admin_listener_keeps_to_the_rfc() {
    let daemon = daemon();
    run(&Door { addr: daemon.admin(), read: "/livez", post: "/livez?", loom: false });
}

#[test]
fn no_case_makes_the_daemon_panic() {
    let daemon = daemon();
    // All cases again at once, then the count: the other tests of this file may still run, which only helps.
    for door in [
        Door { addr: daemon.loom(), read: "/stream/absent", post: "/stream/again-", loom: true },
        Door { addr: daemon.admin(), read: "/livez", post: "/livez?", loom: false },
    ] {
        for (number, case) in all().enumerate() {
            let mut conn = Conn::open(door.addr);
            let _ = conn.try_send(door.fill(&case.bytes(), number));
            conn.half_close();
            let _ = conn.rest();
        }
    }
    assert_eq!(daemon.metrics().sum("millpond_panics_contained_total"), 0.0);
}

fn daemon() -> common::Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().limits("max_header_bytes = \"16KiB\"").share(&DAEMON)
}

/// A listener, and what is asked of it.
struct Door<'a> {
    addr: &'a str,
    read: &'a str,
    post: &'a str,
    loom: bool,
}

#[track_caller]
fn run(door: &Door) {
    let mut wrong = Vec::new();
    for (number, case) in all().enumerate() {
        if let Err(why) = check(door, case, number) {
            wrong.push(format!("{} (RFC {}), expected {:?}: {why}", case.name, case.section, case.expect));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), all().count(), wrong.join("\n"));
}

/// The statuses that say that a request was not understood.
const REFUSALS: &[u16] = &[400, 408, 411, 413, 414, 417, 421, 431, 501, 505];

/// What is pipelined behind every case.
const FOLLOW_UP: &[u8] =
    b"GET {T}?follow-up HTTP/1.1\r\nHost: mill.test\r\nX-Follow: up\r\nConnection: close\r\n\r\n";

/// Says what was wrong.
fn check(door: &Door, case: &Case, number: usize) -> Result<(), String> {
    let raw = door.fill(&case.bytes(), number);
    let mut conn = Conn::open(door.addr);
    conn.patience = Duration::from_secs(8);
    if let Waits(rest) = case.expect {
        conn.send(&raw);
        if !conn.is_silent_for(Duration::from_millis(60)) {
            return Err(format!("it did not wait, {}", conn.leftover()));
        }
        conn.send(door.fill(rest.as_bytes(), number));
        conn.send(door.fill(FOLLOW_UP, number));
        return served(door, &mut conn, "GET");
    }

    let mut bytes = raw.clone();
    bytes.extend_from_slice(&door.fill(FOLLOW_UP, number));
    // A daemon that has refused may end the connection while this is under way; what it said counts.
    let _ = conn.try_send(&bytes);
    let method = method_of(&raw);
    match case.expect {
        Served => served(door, &mut conn, method),
        Closes => {
            let answer = by_meaning(&mut conn, method)?;
            if !answer.closes() {
                return Err(format!("it closes without saying so: {answer:?}"));
            }
            at_its_end(&mut conn)
        }
        Answers(statuses) => {
            let answer = first(&mut conn, method)?;
            match statuses.contains(&answer.status) {
                true => stays_or_ends(door, &mut conn, &answer),
                false => Err(format!("status {}", answer.status)),
            }
        }
        Refused(statuses) => refused(&mut conn, method, statuses),
        Either(statuses) => {
            let answer = first(&mut conn, method)?;
            if statuses.contains(&answer.status) && answer.closes() {
                return at_its_end(&mut conn);
            }
            // A broken body may only show after the 201 is on its way; the end of the connection is a refusal too.
            if answer.end == End::Cut && !statuses.is_empty() {
                return at_its_end(&mut conn);
            }
            match REFUSALS.contains(&answer.status) || answer.status >= 500 {
                true => Err(format!("status {}", answer.status)),
                false => stays_or_ends(door, &mut conn, &answer),
            }
        }
        Stored(body) => {
            let answer = by_meaning(&mut conn, method)?;
            stays_or_ends(door, &mut conn, &answer)?;
            match door.loom {
                true => stored(door, number, body),
                false => Ok(()),
            }
        }
        Broken => {
            // The half that sends ends, so that a daemon which wants more of a chunk learns that none comes.
            conn.half_close();
            let answer = first(&mut conn, method)?;
            if answer.status == 201 && answer.end != End::Cut {
                return Err(format!("it said that all was well: {answer:?}"));
            }
            at_its_end(&mut conn)?;
            match door.loom && answer.status == 201 {
                true => interrupted(door, number),
                false => Ok(()),
            }
        }
        Waits(_) => unreachable!("handled above"),
    }
}

fn served(door: &Door, conn: &mut Conn, method: &str) -> Result<(), String> {
    let answer = by_meaning(conn, method)?;
    if answer.closes() {
        return Err(format!("it ends the connection: {answer:?}"));
    }
    stays_or_ends(door, conn, &answer)
}

/// After an answer, either the follow-up is answered and nothing else, or the answer said that the end comes.
fn stays_or_ends(door: &Door, conn: &mut Conn, answer: &Answer) -> Result<(), String> {
    if answer.closes() {
        return at_its_end(conn);
    }
    let next = conn.try_answer_to("GET").map_err(|trouble| format!("the next request: {trouble:?}"))?;
    let wanted = if door.loom { 404 } else { 200 };
    if next.status != wanted {
        return Err(format!("the next request got {}, not {wanted}: {next:?}", next.status));
    }
    at_its_end(conn)
}

fn refused(conn: &mut Conn, method: &str, statuses: &[u16]) -> Result<(), String> {
    let answer = first(conn, method)?;
    if !statuses.contains(&answer.status) {
        return Err(format!("status {}", answer.status));
    }
    if !answer.closes() {
        return Err("the refusal does not say that the connection ends".to_owned());
    }
    at_its_end(conn)
}

fn first(conn: &mut Conn, method: &str) -> Result<Answer, String> {
    conn.try_answer_to(method).map_err(|trouble| format!("no answer: {trouble:?}, {}", conn.leftover()))
}

fn by_meaning(conn: &mut Conn, method: &str) -> Result<Answer, String> {
    let answer = first(conn, method)?;
    match REFUSALS.contains(&answer.status) || answer.status >= 500 || answer.end == End::Cut {
        true => Err(format!("status {}, {:?}, {}", answer.status, answer.end, answer.body.escape_ascii())),
        false => Ok(answer),
    }
}

fn at_its_end(conn: &mut Conn) -> Result<(), String> {
    match conn.try_head() {
        Err(Trouble::Ended) => Ok(()),
        Ok(second) => Err(format!("a second answer: {second:?}")),
        Err(trouble) => Err(format!("the connection does not end: {trouble:?}, {}", conn.leftover())),
    }
}

fn stored(door: &Door, number: usize, body: &[u8]) -> Result<(), String> {
    let answer = common::get(door.addr, &format!("{}{number}", door.post));
    match answer.status == 200 && answer.end == End::Length && answer.body == body {
        true => Ok(()),
        false => Err(format!("stored is {} {:?}", answer.status, answer.body.escape_ascii().to_string())),
    }
}

fn interrupted(door: &Door, number: usize) -> Result<(), String> {
    let target = format!("{}{number}", door.post);
    let answer = common::get(door.addr, &target).whole();
    let state = common::head(door.addr, &target).header("x-stream-state").map(str::to_owned);
    if state.as_deref() != Some("interrupted") {
        return Err(format!("the stream's state is {state:?}"));
    }
    // Bytes before the break may stay; none of the framing, and none of what follows it.
    match find(&answer.body, b"mill.test") {
        None => Ok(()),
        Some(_) => Err(format!("stored is {:?}", answer.body.escape_ascii().to_string())),
    }
}

impl Door<'_> {
    fn fill(&self, raw: &[u8], number: usize) -> Vec<u8> {
        let raw = replace(raw, b"{T}", self.read.as_bytes());
        replace(&raw, b"{P}", format!("{}{number}", self.post).as_bytes())
    }
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        match self.raw {
            Raw::Bytes(bytes) => bytes.to_vec(),
            Raw::Made(make) => make(),
        }
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = find(rest, from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn method_of(raw: &[u8]) -> &'static str {
    match raw.starts_with(b"HEAD ") {
        true => "HEAD",
        false => "GET",
    }
}

fn long_target(start: &str) -> Vec<u8> {
    format!("GET {start}{} HTTP/1.1\r\nHost: mill.test\r\n\r\n", "x".repeat(40 << 10)).into_bytes()
}

fn long_method() -> Vec<u8> {
    format!("{} {{T}} HTTP/1.1\r\nHost: mill.test\r\n\r\n", "M".repeat(40 << 10)).into_bytes()
}

fn one_field(len: usize) -> Vec<u8> {
    format!("GET {{T}} HTTP/1.1\r\nHost: mill.test\r\nX-A: {}\r\n\r\n", "b".repeat(len)).into_bytes()
}

fn long_name() -> Vec<u8> {
    format!("GET {{T}} HTTP/1.1\r\nHost: mill.test\r\nX-{}: b\r\n\r\n", "a".repeat(40 << 10)).into_bytes()
}

fn many_fields(count: usize) -> Vec<u8> {
    let fields: String = (0..count).map(|number| format!("X-{number}: {number}\r\n")).collect();
    format!("GET {{T}} HTTP/1.1\r\nHost: mill.test\r\n{fields}\r\n").into_bytes()
}

fn long_extension() -> Vec<u8> {
    let mut raw = chunked!("5;").to_vec();
    raw.extend(std::iter::repeat_n(b'a', 200 << 10));
    raw
}

fn long_trailers() -> Vec<u8> {
    let mut raw = chunked!("5\r\nhello\r\n0\r\nX-A: ").to_vec();
    raw.extend(std::iter::repeat_n(b'a', 200 << 10));
    raw
}
