//! Packs: small blobs of one owner lie one behind the other in a body that they share.
//!
//! So a small blob costs two gathered writes, which it shares with its whole turn, and no memory but its link. A pack is
//! given up when it is long enough, and its bytes go when nothing is left in it.
//! Invariant: a blob's bytes lie in one piece of the pack. Lives on: the owner's shard.

use crate::runtime::notify::Notify;
use crate::runtime::shard;
use crate::storage::{Appender, Body, Part, Store, StoreError};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// The longest blob that goes into a pack: a body of its own takes a run of 16 KiB at least, and some records.
pub const PACKED_MAX: usize = 64 * 1024;
/// A pack is given up at this length: what is deleted goes sooner from short ones.
const PACK_LEN: u64 = 8 << 20;

/// The pack that is being filled.
#[derive(Default)]
pub struct Packer {
    pack: RefCell<Option<Pack>>,
    /// Somebody writes into it at present.
    busy: Cell<bool>,
    free: Notify,
}

struct Pack {
    body: Arc<Body>,
    appender: Appender,
}

impl Packer {
    /// Appends `bytes`; they are published with the end of this turn, or before.
    pub async fn append(&self, store: &Rc<Store>, bytes: &[u8]) -> Result<Option<Part>, StoreError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let _turn = self.take_turn().await;
        let mut pack = match self.pack.take() {
            Some(pack) => pack,
            None => {
                let (body, appender) = store.new_body()?;
                Pack { body, appender }
            }
        };
        let from = pack.appender.len();
        // What went wrong with this one need not with the next: its appender lets go of it here.
        pack.appender.append_all(bytes).await?;
        let part = Part::new(pack.body.clone(), from, bytes.len() as u64);
        if pack.appender.len() < PACK_LEN {
            self.pack.replace(Some(pack));
        } else {
            let store = store.clone();
            shard::spawn("seal pack", async move {
                if let Err(error) = store.commit_body(&pack.body, pack.appender).await {
                    tracing::debug!(%error, "a pack was not sealed; the next start does it");
                }
            });
        }
        Ok(Some(part))
    }

    /// Seals what is being filled, for the end of the shard.
    pub async fn close(&self, store: &Store) {
        let _turn = self.take_turn().await;
        if let Some(pack) = self.pack.take() {
            let _ = store.commit_body(&pack.body, pack.appender).await;
        }
    }

    async fn take_turn(&self) -> Turn<'_> {
        while self.busy.replace(true) {
            self.free.wait().await;
        }
        Turn(self)
    }
}

struct Turn<'a>(&'a Packer);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.set(false);
        self.0.free.notify_all();
    }
}
