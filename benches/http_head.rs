//! What it costs to read a request head, and to write the head of an answer.
//!
//! Expected: one pass of a vectorised parser, one copy of the head, no allocation once the buffers have grown.
//! Not measured: sockets, and the lookup of fields by name.

mod meter;

use meter::measure;
use millpond::codec::time::HttpDate;
use millpond::net::http::{HeadLimits, RequestHead, ResponseHead, Status, Step};

const SMALL: &[u8] = b"GET /stream/build-42 HTTP/1.1\r\nHost: 127.0.0.1:3060\r\n\r\n";
const BROWSER: &[u8] = b"GET /bucket/a/long/name/of/an/object.tar.gz?versionId=null HTTP/1.1\r\n\
    Host: store.example:9981\r\nConnection: keep-alive\r\nCache-Control: max-age=0\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Range: bytes=0-1023\r\nIf-None-Match: \"5d41402abc4b2a76b9719d911017c592\"\r\n\
    Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n";

fn main() {
    read("read a head of 2 lines", SMALL);
    read("read a head of 11 lines", BROWSER);
    write();
}

fn read(name: &str, input: &[u8]) {
    let limits = HeadLimits::default();
    let mut head = RequestHead::new();
    measure(name, || {
        assert_eq!(head.parse(input, &limits), Step::Done(input.len()));
        head.keep_alive()
    });
}

fn write() {
    let date = HttpDate::at(784_111_777);
    let mut out = Vec::new();
    measure("write a head of 4 lines", || {
        out.clear();
        let head = ResponseHead::start(&mut out, Status::OK, &date);
        head.header("Content-Type", "application/octet-stream").content_length(262_144).finish();
        assert!(out.ends_with(b"Content-Length: 262144\r\n\r\n"));
    });
}
