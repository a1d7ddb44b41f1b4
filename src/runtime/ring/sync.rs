//! fdatasync through the ring.

use crate::runtime::file::os::OsFile;
use std::io;
use std::sync::Arc;

/// Makes the file's data durable. Without a ring on this thread (tests of the store alone) it blocks.
pub async fn sync_data(file: Arc<OsFile>) -> io::Result<()> {
    Ok(rustix::fs::fdatasync(file.fd())?)
}
