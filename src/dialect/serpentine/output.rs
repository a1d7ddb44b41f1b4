//! Kinds 1 and 65: the paths of FIFOs, and then what is written to them.
//!
//! | bytes | meaning |
//! |---|---|
//! | 1 | the length of the path, at most 127: as a byte and as a LEB128 number it is the same |
//! | n | the path |
//! | 1, n | with kind 65, the same for standard error |
//! | all others | the output; with kind 65 in frames, as [`crate::service::output::frame`] has them |
//!
//! There is no error: a connection that closes without a byte had none to give. With kind 65 an output is whole if its
//! last frame says so. It ends when both FIFOs have been opened and closed; a client that ends its sending says that
//! nobody will open one that nobody has opened by then. Lives on: the connection's task.

use super::Serpentine;
use crate::service::proxy::Socket;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

/// Serves one connection until the output is over or the client is gone.
pub async fn output(serpentine: &Serpentine, client: &Rc<Socket>, is_framed: bool) {
    let asked = match serpentine.outputs.begin(serpentine.settings.output, is_framed).await {
        Ok(asked) => asked,
        Err(error) => return tracing::warn!(%error, "no output for a client"),
    };
    let mut head = Vec::new();
    for path in asked.paths() {
        let path = path.as_os_str().as_bytes();
        head.push(u8::try_from(path.len()).expect("the configuration bounds it"));
        head.extend_from_slice(path);
    }
    asked.feed(client, head).await;
}
