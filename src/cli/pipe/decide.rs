//! What a producer does after its connection broke: one table, no I/O.
//!
//! Invariant: no row of it ever skips, invents or repeats a byte, nor writes into another producer's
//! history. Where the server's answer allows two readings, it asks again or gives up with a reason.
//!
//! Runs in: `millpond pipe`. Pure.

use std::fmt;

use crate::cli::client::state::{Extent, State};

/// What the server said about the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It has the stream.
    Stream(Extent),
    /// It has no such stream.
    Missing,
    /// It refused to resume and named the true end and epoch, but no state.
    Precondition {
        /// The stream's end.
        next: u64,
        /// The stream's epoch.
        epoch: u64,
    },
}

/// What the producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ours {
    /// Where this producer's bytes begin.
    pub start: u64,
    /// First byte that can be sent again.
    pub kept_from: u64,
    /// Highest offset that was ever sent.
    pub sent_most: u64,
    /// Offset after the newest byte read from stdin.
    pub end: u64,
    /// Whether stdin has ended.
    pub input_ended: bool,
    /// The epoch that the server last confirmed to us.
    pub epoch: u64,
    /// Whether we asked to resume since then and saw no answer, so that an epoch may have risen by us.
    pub resume_unanswered: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Continue the stream from this offset in this epoch.
    Resume {
        /// First byte to send.
        offset: u64,
        /// Epoch to name.
        epoch: u64,
    },
    /// Everything is stored and durable: only the answer was lost.
    Done,
    /// Create the stream again and send everything from its start.
    CreateAgain,
    /// The answer is not conclusive yet: look again.
    AskAgain,
    /// Nothing can be done without damage.
    GiveUp(Loss),
}

/// Why a stream cannot be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The server ends below the first byte that is still at hand.
    BytesLost {
        /// Where the server's stream ends.
        next: u64,
        /// First byte still kept here.
        kept_from: u64,
    },
    /// The server has more than was ever sent.
    OthersWrote {
        /// Where the server's stream ends.
        next: u64,
        /// The most that was sent.
        sent_most: u64,
    },
    /// Another producer has taken the id.
    Replaced {
        /// The epoch of this producer.
        ours: u64,
        /// The epoch of the stream now.
        theirs: u64,
    },
    /// The stream was completed by somebody else.
    Completed {
        /// Where the server's stream ends.
        next: u64,
        /// What was read from stdin.
        end: u64,
    },
    /// The stream was deleted after bytes of it were durable.
    Deleted {
        /// First byte still kept here.
        kept_from: u64,
    },
}

/// The table.
#[must_use]
pub fn after_break(seen: Seen, ours: &Ours) -> Decision {
    match seen {
        Seen::Missing if ours.start == 0 && ours.kept_from == 0 => Decision::CreateAgain,
        Seen::Missing => Decision::GiveUp(Loss::Deleted { kept_from: ours.kept_from }),
        // The state is not known: an epoch that differs may be our own cut or another's takeover.
        Seen::Precondition { epoch, .. } if epoch != ours.epoch => Decision::AskAgain,
        Seen::Precondition { next, epoch } => resume(next, epoch, ours),
        Seen::Stream(extent) if extent.epoch < ours.epoch => replaced(extent.epoch, ours),
        Seen::Stream(extent) => match extent.state {
            State::Complete => completed(&extent, ours),
            // A cut raises the epoch and leaves the stream without a producer. One that has a producer
            // in an epoch that is not ours has somebody else's, unless that somebody is the resume of
            // ours whose answer was lost.
            State::Open if extent.epoch != ours.epoch && !ours.resume_unanswered => {
                replaced(extent.epoch, ours)
            }
            State::Open | State::Interrupted => resume(extent.next, extent.epoch, ours),
        },
    }
}

fn resume(next: u64, epoch: u64, ours: &Ours) -> Decision {
    if next < ours.kept_from {
        Decision::GiveUp(Loss::BytesLost { next, kept_from: ours.kept_from })
    } else if next > ours.sent_most {
        Decision::GiveUp(Loss::OthersWrote { next, sent_most: ours.sent_most })
    } else {
        Decision::Resume { offset: next, epoch }
    }
}

fn completed(extent: &Extent, ours: &Ours) -> Decision {
    if !ours.input_ended || extent.next != ours.end {
        Decision::GiveUp(Loss::Completed { next: extent.next, end: ours.end })
    } else if extent.durable < ours.end {
        Decision::AskAgain
    } else {
        Decision::Done
    }
}

fn replaced(theirs: u64, ours: &Ours) -> Decision {
    Decision::GiveUp(Loss::Replaced { ours: ours.epoch, theirs })
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BytesLost { next, kept_from } => write!(
                f,
                "the server lost bytes that it had called durable: its stream ends at {next}, and nothing \
                 below {kept_from} is kept here"
            ),
            Self::OthersWrote { next, sent_most } => write!(
                f,
                "another producer wrote to the stream: it ends at {next}, but only {sent_most} bytes were sent"
            ),
            Self::Replaced { ours, theirs } => write!(
                f,
                "another producer has taken over the stream: its epoch is {theirs}, this producer's was {ours}"
            ),
            Self::Completed { next, end } => write!(
                f,
                "the stream was completed at {next} bytes without this producer, which has read {end}"
            ),
            Self::Deleted { kept_from } => write!(
                f,
                "the stream was deleted on the server after {kept_from} bytes of it were durable; they are \
                 not kept here"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Ours = Ours {
        start: 0,
        kept_from: 10,
        sent_most: 20,
        end: 30,
        input_ended: false,
        epoch: 3,
        resume_unanswered: false,
    };

    fn stream(next: u64, epoch: u64, state: State) -> Seen {
        Seen::Stream(Extent { next, durable: next, epoch, state })
    }

    fn lost(loss: Loss) -> Decision {
        Decision::GiveUp(loss)
    }

    #[test]
    fn the_table() {
        use State::{Complete, Interrupted, Open};
        let ended = Ours { input_ended: true, sent_most: 30, ..OURS };
        let asked = Ours { resume_unanswered: true, ..OURS };
        let fresh = Ours { kept_from: 0, ..OURS };
        let replaced = |theirs| lost(Loss::Replaced { ours: 3, theirs });
        for (seen, ours, decision) in [
            (stream(15, 4, Interrupted), OURS, Decision::Resume { offset: 15, epoch: 4 }),
            (stream(15, 9, Interrupted), OURS, Decision::Resume { offset: 15, epoch: 9 }),
            (stream(10, 4, Interrupted), OURS, Decision::Resume { offset: 10, epoch: 4 }),
            (stream(20, 4, Interrupted), OURS, Decision::Resume { offset: 20, epoch: 4 }),
            (stream(9, 4, Interrupted), OURS, lost(Loss::BytesLost { next: 9, kept_from: 10 })),
            (stream(21, 4, Interrupted), OURS, lost(Loss::OthersWrote { next: 21, sent_most: 20 })),
            (stream(15, 2, Interrupted), OURS, replaced(2)),
            (stream(15, 3, Open), OURS, Decision::Resume { offset: 15, epoch: 3 }),
            (stream(15, 4, Open), OURS, replaced(4)),
            (stream(15, 4, Open), asked, Decision::Resume { offset: 15, epoch: 4 }),
            (stream(9, 4, Open), asked, lost(Loss::BytesLost { next: 9, kept_from: 10 })),
            (stream(30, 3, Complete), ended, Decision::Done),
            (stream(30, 4, Complete), ended, Decision::Done),
            (stream(30, 2, Complete), ended, replaced(2)),
            (stream(29, 3, Complete), ended, lost(Loss::Completed { next: 29, end: 30 })),
            (stream(31, 3, Complete), ended, lost(Loss::Completed { next: 31, end: 30 })),
            (stream(30, 3, Complete), OURS, lost(Loss::Completed { next: 30, end: 30 })),
            (stream(30, 4, Interrupted), ended, Decision::Resume { offset: 30, epoch: 4 }),
            (Seen::Missing, fresh, Decision::CreateAgain),
            (Seen::Missing, OURS, lost(Loss::Deleted { kept_from: 10 })),
            (Seen::Missing, Ours { start: 5, kept_from: 5, ..OURS }, lost(Loss::Deleted { kept_from: 5 })),
            (Seen::Precondition { next: 15, epoch: 3 }, OURS, Decision::Resume { offset: 15, epoch: 3 }),
            (Seen::Precondition { next: 15, epoch: 4 }, OURS, Decision::AskAgain),
            (
                Seen::Precondition { next: 9, epoch: 3 },
                OURS,
                lost(Loss::BytesLost { next: 9, kept_from: 10 }),
            ),
        ] {
            assert_eq!(after_break(seen, &ours), decision, "{seen:?} with {ours:?}");
        }
    }

    #[test]
    fn complete_counts_only_once_it_is_durable() {
        let ended = Ours { input_ended: true, sent_most: 30, ..OURS };
        let at = |durable| Seen::Stream(Extent { next: 30, durable, epoch: 3, state: State::Complete });
        assert_eq!(after_break(at(29), &ended), Decision::AskAgain);
        assert_eq!(after_break(at(30), &ended), Decision::Done);
    }

    fn seen() -> impl Strategy<Value = Seen> {
        let state = prop::sample::select(&[State::Open, State::Complete, State::Interrupted][..]);
        let stream = (0u64..8, 0u64..8, 0u64..4, state)
            .prop_map(|(next, durable, epoch, state)| Seen::Stream(Extent { next, durable, epoch, state }));
        let precondition = (0u64..8, 0u64..4).prop_map(|(next, epoch)| Seen::Precondition { next, epoch });
        prop_oneof![4 => stream, 1 => Just(Seen::Missing), 1 => precondition]
    }

    proptest! {
        #[test]
        fn nothing_is_ever_skipped_or_invented(
            seen in seen(),
            mut marks in prop::collection::vec(0u64..8, 4),
            (input_ended, resume_unanswered) in any::<(bool, bool)>(),
            epoch in 0u64..4,
        ) {
            marks.sort_unstable();
            let ours = Ours { start: marks[0], kept_from: marks[1], sent_most: marks[2], end: marks[3], input_ended, epoch, resume_unanswered };
            match (after_break(seen, &ours), seen) {
                (Decision::Resume { offset, epoch: asked }, Seen::Stream(Extent { next, epoch: theirs, .. }) | Seen::Precondition { next, epoch: theirs }) => {
                    prop_assert!(ours.kept_from <= offset && offset <= ours.sent_most);
                    prop_assert_eq!((offset, asked), (next, theirs));
                    prop_assert!(theirs >= epoch);
                }
                (Decision::Done, Seen::Stream(extent)) => {
                    prop_assert!(input_ended && extent.state == State::Complete);
                    prop_assert!(extent.next == ours.end && extent.durable >= ours.end);
                }
                (Decision::CreateAgain, seen) => {
                    prop_assert_eq!(seen, Seen::Missing);
                    prop_assert_eq!(ours.kept_from, 0);
                }
                (Decision::AskAgain | Decision::GiveUp(_), _) => {}
                (decision, seen) => prop_assert!(false, "{:?} for {:?}", decision, seen),
            }
        }
    }
}
