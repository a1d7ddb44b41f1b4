//! The history of a stream's cuts: when one epoch ended and the next began.
//!
//! Invariant: numbers and starts never fall from one entry to the next. Lives on: all shards; the owner appends.

use std::sync::OnceLock;

/// One epoch: a stretch of the stream that one appender wrote.
pub struct Epoch {
    /// Its number; greater than that of any epoch that a stream of the same name had before.
    pub number: u64,
    /// The offset where it began, which is where the one before ended.
    pub start: u64,
    next: OnceLock<Box<Epoch>>,
}

/// All epochs of a stream. Most have one, so the first lies inside.
pub struct Epochs(Epoch);

impl Epochs {
    /// The first epoch, numbered `first`.
    pub fn new(first: u64) -> Self {
        Epochs(Epoch { number: first, start: 0, next: OnceLock::new() })
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Epoch> {
        std::iter::successors(Some(&self.0), |epoch| epoch.next.get().map(Box::as_ref))
    }

    /// The current one.
    pub fn last(&self) -> &Epoch {
        self.iter().last().expect("the first epoch is always there")
    }

    /// Begins an epoch.
    pub fn push(&self, number: u64, start: u64) {
        let last = self.last();
        assert!(number > last.number && start >= last.start, "epochs and cuts only rise");
        let next = Box::new(Epoch { number, start, next: OnceLock::new() });
        assert!(last.next.set(next).is_ok(), "the owner alone begins epochs");
    }

    /// Whether one who knows the stream as of epoch `number` may go on at `offset`.
    pub fn admits(&self, number: u64, offset: u64) -> bool {
        let mut known = self.iter().skip_while(|epoch| epoch.number != number);
        match (known.next(), known.next()) {
            (Some(_), Some(next)) => offset <= next.start,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches `<` for `<=`, admitting an old epoch beyond its cut, and admitting unknown epochs.
    #[test]
    fn an_old_epoch_is_admitted_up_to_its_cut_and_no_further() {
        let epochs = Epochs::new(1);
        assert!(epochs.admits(1, u64::MAX), "the current epoch has no end yet");
        epochs.push(2, 100);
        epochs.push(5, 100);
        epochs.push(6, 300);
        for (epoch, offset, admitted) in [
            (1, 100, true),
            (1, 101, false),
            (2, 100, true),
            (2, 101, false),
            (5, 300, true),
            (5, 301, false),
            (6, 1 << 40, true),
            (0, 0, false),
            (3, 0, false),
            (7, 0, false),
        ] {
            assert_eq!(epochs.admits(epoch, offset), admitted, "epoch {epoch} at {offset}");
        }
    }
}
