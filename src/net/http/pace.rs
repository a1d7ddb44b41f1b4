//! The least pace of a reader that keeps space from being given back.
//!
//! A file of which nothing is alive any more is removed while readers go on with what they opened, and the disk has its
//! space back only when the last of them lets go. One that is slower than [`RATE_MIN`] at that is expired: its connection
//! is closed. Whoever reads what is still stored may take as long as they like.
//!
//! Invariant: only the time counts in which the peer took nothing, so nobody is expired for what did not come.
//! Lives on: the connection's shard.

use crate::runtime::file::File;
use crate::runtime::{Moment, shard, timer};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

/// Bytes a second.
const RATE_MIN: u64 = 128 << 10;
/// The shortest time after which anyone is expired.
const GRACE: Duration = Duration::from_secs(5);
/// How often one that waits is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// One reader's. See the module.
#[derive(Default)]
pub(super) struct Pace {
    /// How long it let us wait with bytes of removed files, and how many it took.
    waited: Duration,
    taken: u64,
}

impl Pace {
    /// Waits for `sending` of `len` bytes of `file`; `None` when the reader is expired, and the sending is given up.
    pub async fn keep<T>(&mut self, file: &File, len: u64, sending: impl Future<Output = T>) -> Option<T> {
        let mut sending = pin!(sending);
        let begun = shard::now();
        loop {
            // A timer is set only when it is not over at once.
            let sent = timer::until(shard::now() + LOOK, sending.as_mut()).await;
            match sent {
                Some(sent) => {
                    self.note(file, len, begun);
                    return Some(sent);
                }
                None if file.is_removed()
                    && is_too_slow(self.waited + (shard::now() - begun), self.taken + len) =>
                {
                    return None;
                }
                None => {}
            }
        }
    }

    fn note(&mut self, file: &File, len: u64, begun: Moment) {
        if file.is_removed() {
            self.waited += shard::now() - begun;
            self.taken += len;
        }
    }
}

/// Whether one who took so long for no more than so many bytes is expired.
fn is_too_slow(waited: Duration, bytes: u64) -> bool {
    waited >= GRACE && u128::from(bytes) * 1000 < u128::from(RATE_MIN) * waited.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a short pause that counts, and a rate that is off.
    #[test]
    fn the_least_pace_is_kept_on_average_and_not_at_once() {
        let seconds = Duration::from_secs;
        assert!(!is_too_slow(seconds(4), 0), "everybody may pause");
        assert!(is_too_slow(seconds(5), 1));
        assert!(!is_too_slow(seconds(8), 1 << 20) && is_too_slow(seconds(9), 1 << 20));
        assert!(!is_too_slow(seconds(1 << 20), u64::MAX >> 20));
    }
}
