//! What bounds vblob: a quota of bytes, a number of files, and nothing stored beyond them.

mod common;

use common::vblob::{elements, put, refused};
use common::{Conn, Setup, bytes_of, eventually, get, request};

#[test]
fn a_quota_is_kept_whether_or_not_a_length_is_announced() {
    let daemon = Setup::default().vblob("quota = \"1MiB\"").start();
    request(daemon.vblob(), "PUT", "/abc", &[], b"").expect(200);
    put(daemon.vblob(), "/abc/a", &[], &bytes_of(1, 700_000)).expect(200);
    refused(&put(daemon.vblob(), "/abc/b", &[], &bytes_of(2, 700_000)), 507, "UsageExceeded");
    let mut conn = Conn::open(daemon.vblob());
    conn.send("PUT /abc/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let piece = bytes_of(3, 100_000);
    for _ in 0..12 {
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
        if conn.try_send(chunk).is_err() {
            break;
        }
    }
    let _ = conn.try_send(b"0\r\n\r\n");
    refused(&conn.answer(), 507, "UsageExceeded");
    assert_eq!(elements(get(daemon.vblob(), "/abc").text(), "Key"), ["a"]);
    eventually("what was refused takes no room", || {
        (put(daemon.vblob(), "/abc/c", &[], &bytes_of(4, 200_000)).status == 200).then_some(())
    });
    request(daemon.vblob(), "DELETE", "/abc/a", &[], b"").expect(204);
    eventually("there is room again", || {
        (put(daemon.vblob(), "/abc/b", &[], &bytes_of(2, 700_000)).status == 200).then_some(())
    });
}

#[test]
fn no_more_files_than_allowed() {
    let daemon = Setup::default().vblob("object_limit = 2").start();
    request(daemon.vblob(), "PUT", "/abc", &[], b"").expect(200);
    for key in ["a", "b"] {
        put(daemon.vblob(), &format!("/abc/{key}"), &[], b"x").expect(200);
    }
    refused(&put(daemon.vblob(), "/abc/c", &[], b"x"), 507, "UsageExceeded");
    let copy = [("x-blb-copy-from", "/abc/a")];
    refused(&request(daemon.vblob(), "PUT", "/abc/c", &copy, b""), 507, "UsageExceeded");
    put(daemon.vblob(), "/abc/a", &[], b"replaced").expect(200);
    request(daemon.vblob(), "DELETE", "/abc/b", &[], b"").expect(204);
    eventually("there is room again", || {
        (put(daemon.vblob(), "/abc/c", &[], b"x").status == 200).then_some(())
    });
}

#[test]
fn limits_change_without_a_restart() {
    let mut daemon = Setup::default().vblob("quota = \"100KiB\"").start();
    request(daemon.vblob(), "PUT", "/abc", &[], b"").expect(200);
    refused(&put(daemon.vblob(), "/abc/a", &[], &bytes_of(1, 200_000)), 507, "UsageExceeded");
    daemon.reload_with(Setup::default().vblob("quota = \"1MiB\""));
    eventually("it fits now", || {
        (put(daemon.vblob(), "/abc/a", &[], &bytes_of(1, 200_000)).status == 200).then_some(())
    });
}
