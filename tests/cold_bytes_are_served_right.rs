//! Bytes that are not in memory any more come as they were written, whatever their length and the way they leave by: read
//! behind the head, sent from where they lie, or by sendfile; verified before, or not since the start.

mod common;

use std::fs::File;
use std::io::IoSliceMut;

use common::damage::files;
use common::loom::post;
use common::{Conn, Daemon, bytes_of};
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};

/// On both sides of every length at which a stream leaves by another way, and of a run and of a window.
const LENGTHS: [usize; 10] = [1, 1000, 8192, 8193, 32_768, 32_769, 65_536, 262_144, 262_145, 3_000_000];

/// Has the kernel forget the stored bytes; whether it did of some of them.
fn forget(daemon: &Daemon) -> bool {
    let mut is_any_gone = false;
    let bulk =
        files(&daemon.data_dir()).into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "mpb"));
    for path in bulk {
        let file = File::open(path).expect("it is there");
        file.sync_data().expect("it can be synced");
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advice is taken");
        let page = &mut [0; 4096];
        let read = rustix::io::preadv2(&file, &mut [IoSliceMut::new(page)], 4096, ReadWriteFlags::NOWAIT);
        is_any_gone |= read == Err(Errno::AGAIN);
    }
    is_any_gone
}

/// All of them twice on one connection, the second request before the first answer is read.
fn check(daemon: &Daemon, when: &str) {
    let mut conn = Conn::open(daemon.loom());
    for (number, len) in LENGTHS.into_iter().enumerate() {
        let bytes = bytes_of(number as u64, len);
        let from = len / 3;
        conn.send(format!("GET /stream/s{number} HTTP/1.1\r\nHost: x\r\n\r\n"));
        conn.send(format!("GET /stream/s{number} HTTP/1.1\r\nHost: x\r\nRange: bytes={from}-\r\n\r\n"));
        let (whole, part) = (conn.answer().expect(200), conn.answer().expect(206));
        assert!(whole.body == bytes, "{when}: {len} bytes");
        assert!(part.body == bytes[from..], "{when}: from {from} of {len} bytes");
    }
}

#[test]
fn cold_bytes_are_served_right() {
    let mut daemon = Daemon::start();
    for (number, len) in LENGTHS.into_iter().enumerate() {
        post(daemon.loom(), &format!("s{number}"), &bytes_of(number as u64, len)).expect(201);
    }
    check(&daemon, "in memory");
    let was_any_gone = forget(&daemon);
    check(&daemon, "forgotten");
    assert!(daemon.terminate().success());
    daemon.restart();
    let is_any_gone = forget(&daemon);
    check(&daemon, "forgotten and not verified");
    assert!(was_any_gone || is_any_gone, "nothing was cold: the test's directory has to be on a disk");
}
