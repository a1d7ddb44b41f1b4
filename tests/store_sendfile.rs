//! Bytes that left by sendfile stay what they were: a peer that reads late reads the stream it asked for, though
//! it was deleted meanwhile, its file is gone and new data was written.
//!
//! The receiver's queue refers to pages of the page cache. Writing over them in place, or zeroing the file, would
//! change what the peer reads after everything here is long done with.

mod store;

use millpond::storage::Durability;
use rustix::fs::sendfile;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::Read;
use store::{Rig, options, pattern};

/// Catches giving a dead segment's file back by any other way than unlinking it.
#[test]
fn a_late_reader_gets_the_bytes_that_were_sent() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(1, Durability::Sync));
    let bytes = pattern(1, 128 * 1024);
    let tail = rig.write(0, "sent", &bytes);
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4 << 20).unwrap();
    let mut sent = 0;
    while let Some(range) = tail.range(sent, u64::MAX) {
        let file = range.file.os_file();
        let mut offset = range.offset;
        let done = sendfile(&ours, file.fd(), Some(&mut offset), range.len as usize).unwrap();
        assert!(done > 0);
        sent += done as u64;
    }
    drop(ours);
    // Fill the segment, so that nothing else keeps it, and let everything in it die.
    rig.write(0, "filler", &pattern(2, 1_000_000));
    rig.delete("sent").unwrap();
    rig.delete("filler").unwrap();
    drop(tail);
    rig.settle();
    assert!(!dir.path().join("bulk-0/00000000.mpb").exists(), "the segment is retired");
    for number in 0..4 {
        rig.write(0, &format!("new {number}"), &pattern(3 + number, 700_000));
    }
    rig.settle();
    let mut received = Vec::new();
    std::fs::File::from(theirs).read_to_end(&mut received).unwrap();
    let wrong = received.iter().zip(&bytes).filter(|(got, sent)| got != sent).count();
    assert_eq!((received.len(), wrong), (bytes.len(), 0));
}

trait OsFileOf {
    fn os_file(&self) -> &millpond::runtime::file::os::OsFile;
}

impl OsFileOf for millpond::runtime::File {
    fn os_file(&self) -> &millpond::runtime::file::os::OsFile {
        self.os().expect("a real file")
    }
}
