//! fdatasync through the ring.

use super::slot::Keep;
use crate::runtime::file::os::OsFile;
use io_uring::{opcode, types};
use std::io;
use std::sync::Arc;

/// Makes the file's data durable. On a thread without a ring (tests of the store alone) it blocks instead.
pub async fn sync_data(file: Arc<OsFile>) -> io::Result<()> {
    let Some(ring) = super::try_current() else { return Ok(rustix::fs::fdatasync(file.fd())?) };
    let entry = opcode::Fsync::new(types::Fd(file.raw_fd())).flags(types::FsyncFlags::DATASYNC).build();
    let (completion, _) = ring.start(entry, Keep::File(file)).await;
    completion.into_result().map(drop)
}
