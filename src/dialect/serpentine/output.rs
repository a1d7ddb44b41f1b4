//! Kind 1: the path of a FIFO, and then what is written to it.
//!
//! | bytes | meaning |
//! |---|---|
//! | 1 | the length of the path, at most 127: as a byte and as a LEB128 number it is the same |
//! | n | the path |
//! | all others | the output |
//!
//! There is no error: a connection that closes without a byte had none to give. Lives on: the connection's task.

use super::Serpentine;
use crate::service::proxy::Socket;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

/// Serves one connection until the output is over or the client is gone.
pub async fn output(serpentine: &Serpentine, client: &Rc<Socket>) {
    let asked = match serpentine.outputs.begin(serpentine.settings.output).await {
        Ok(asked) => asked,
        Err(error) => return tracing::warn!(%error, "no output for a client"),
    };
    let path = asked.path().as_os_str().as_bytes();
    let len = u8::try_from(path.len()).expect("the configuration bounds it");
    let head = [&[len], path].concat();
    asked.feed(client, head).await;
}
