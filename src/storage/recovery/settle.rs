//! From facts to streams: which runs make a stream, how far they are whole, how it stands.
//!
//! Invariant: a stream is a prefix of what was appended, from where it begins: runs follow each other without a gap,
//! each as far as a mark says whose data is on disk, and none reaches beyond the cut of its epoch. What lies in front
//! of a stream's beginning belongs to nobody, whatever marks and moves say. Runs before shards serve.

use super::super::bulk::segment::Segment;
use super::super::extent::{LogId, WINDOW};
use super::super::journal::record::Mark;
use super::super::placement::Key;
use super::super::tail::{End, Placed, Tail};
use super::super::tally::Slot;
use super::super::window::{checksum, checksums};
use super::facts::{Facts, MarkFact, Rank, Written};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The bulk segments by log and number.
pub type Segments = BTreeMap<(LogId, u32), Arc<Segment>>;

/// A stream as it was found.
pub struct Settled {
    /// Its bytes.
    pub tail: Arc<Tail>,
    /// The epoch that recovery began because the stream was open, with its cut.
    pub raised: Option<(u64, u64)>,
    /// The mark that its last run was believed by. Written again when an epoch is begun: marks of that run that
    /// reach further, and were not believed, are durable from then on.
    pub last_mark: Option<Mark<'static>>,
    /// No record says when it ended in its last epoch.
    pub end_untold: bool,
    /// What is missing that was durable.
    pub losses: Vec<Loss>,
    /// Data that has to be made durable before anyone is told about it.
    pub unsynced: Vec<(Arc<Segment>, Range<u64>)>,
    /// Moves whose copies did not outlive the crash. They have to be made void: their records are durable from now on, and
    /// the next start would believe them.
    pub unmoved: Vec<Written>,
}

/// Something of a stream that was durable and is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The file with these bytes is gone.
    Segment {
        /// Whose.
        log: LogId,
        /// Which.
        number: u32,
        /// The file's position of the first byte.
        offset: u64,
        /// The stream's position of it.
        from: u64,
        /// And of the one behind the last.
        to: u64,
    },
    /// A mark is lost that no later one stands in for: there may be more bytes than are known.
    Mark,
    /// What said where it begins is lost: some of its first bytes may be gone.
    Trim,
    /// The stream is shorter than something durable says.
    Behind {
        /// Its length.
        from: u64,
        /// What it was at least.
        to: u64,
    },
    /// Its runs contradict each other, or are more than a stream can have.
    Runs,
}

/// Puts the stream `uid` together, which counts in `slot`.
pub fn settle(
    facts: &mut Facts,
    segments: &Segments,
    uid: u64,
    key: &Key,
    slot: Slot,
    shards: usize,
) -> Settled {
    let key_hash = key.hash();
    let marks = facts.marks.remove(&uid).unwrap_or_default();
    let mut epochs = facts.epochs.remove(&uid).unwrap_or_default();
    let first_epoch = facts.first_epochs.remove(&uid).unwrap_or(1);
    epochs.insert(first_epoch, 0);
    let tail = Arc::new(Tail::new(uid, first_epoch, slot, key_hash, shards));
    let mut settled = Settled {
        tail: tail.clone(),
        raised: None,
        last_mark: None,
        end_untold: false,
        losses: Vec::new(),
        unsynced: Vec::new(),
        unmoved: Vec::new(),
    };
    let trim = facts.trims.remove(&uid);
    let first = trim.map_or(0, |(first, _)| first);
    tail.recover_first(first);
    let len = settled.place_runs(first, &marks, &epochs, segments);
    if let Some(lost) = facts.lost_trims.get_mut(&key_hash) {
        lost.retain(|lost| !trim.is_some_and(|(_, written)| written.is_after(lost)));
        if !lost.is_empty() {
            settled.losses.push(Loss::Trim);
        }
    }
    if lost_a_last_mark(facts, key_hash, &marks) {
        settled.losses.push(Loss::Mark);
    }
    let (&epoch, &cut) = epochs.last_key_value().expect("the first epoch is always there");
    // Something durable said that the stream is longer: by its epoch's cut, or by a mark.
    let said = |fact: &MarkFact| fact.mark.total.min(cut_of(&epochs, fact.mark.epoch));
    let longest = marks.iter().filter(|fact| !fact.unsynced).map(said).max().unwrap_or(0);
    if len < longest.max(cut) {
        settled.losses.push(Loss::Behind { from: len, to: longest.max(cut) });
    }
    let end = marks
        .iter()
        .filter(|fact| fact.mark.end.is_some() && fact.mark.epoch == epoch && fact.mark.total == len)
        .max_by_key(|fact| fact.written.seq)
        .and_then(|fact| fact.mark.end);
    // A damaged stream keeps what it has; it is not served, so its epochs need not be extended.
    for (&number, &start) in epochs.iter().skip(1).filter(|(_, start)| **start <= len) {
        tail.recover_epoch(number, start);
    }
    if end.is_none() && settled.losses.is_empty() {
        tail.recover_epoch(epoch + 1, len);
        settled.raised = Some((epoch + 1, len));
    }
    // What a crash ended in the last epoch, an earlier start may have found already.
    let ended = facts.ended.remove(&uid).filter(|(ended_epoch, _)| *ended_epoch == epoch);
    settled.end_untold = ended.is_none() || settled.raised.is_some();
    tail.recover(len, end.unwrap_or(End::Interrupted), ended.map_or(0, |(_, at_ms)| at_ms));
    settled
}

/// Where `epoch` ended.
fn cut_of(epochs: &BTreeMap<u64, u64>, epoch: u64) -> u64 {
    epochs.range(epoch + 1..).next().map_or(u64::MAX, |(_, &start)| start)
}

/// Whether a mark of this name is lost that no later one stands in for. Forgets the others.
fn lost_a_last_mark(facts: &mut Facts, key_hash: u64, marks: &[MarkFact]) -> bool {
    let Some(lost) = facts.lost_marks.get_mut(&key_hash) else { return false };
    lost.retain(|lost| !marks.iter().any(|mark| mark.written.is_after(lost)));
    !lost.is_empty()
}

/// What a mark that goes beyond the cut says of the bytes before it, which is as good as they are: nothing unless all
/// that it speaks of is as it was written.
fn up_to(cut: u64, fact: &MarkFact, segment: &Segment) -> Option<MarkFact> {
    let Mark { start, offset, len, .. } = fact.mark;
    let kept = cut.checked_sub(start).filter(|&kept| kept > 0 && kept < len)?;
    let mut crcs = checksums(segment, offset, len).ok().filter(|crcs| *crcs == *fact.mark.crcs)?;
    let last = (kept - 1) / WINDOW;
    crcs.truncate(last as usize);
    crcs.push(checksum(segment, offset + last * WINDOW, kept - last * WINDOW).ok()?);
    let mark = Mark { len: kept, total: cut, end: None, crcs: crcs.into(), ..fact.mark.clone() };
    Some(MarkFact { mark, ..*fact })
}

impl Settled {
    /// Adds the runs in order, from `first` on; returns the stream's length.
    fn place_runs(
        &mut self,
        first: u64,
        marks: &[MarkFact],
        epochs: &BTreeMap<u64, u64>,
        segments: &Segments,
    ) -> u64 {
        let mut runs: BTreeMap<(u64, u64), Vec<&MarkFact>> = BTreeMap::new();
        for fact in marks.iter().filter(|fact| fact.mark.len > 0 && fact.mark.start >= first) {
            runs.entry((fact.mark.epoch, fact.mark.start)).or_default().push(fact);
        }
        let mut len = first;
        for ((epoch, start), facts) in runs {
            let cut = cut_of(epochs, epoch);
            if start >= cut {
                continue;
            }
            let segment_of = |fact: &MarkFact| {
                let segment = segments.get(&(fact.mark.log, fact.mark.segment));
                segment.filter(|segment| segment.generation == fact.mark.generation)
            };
            // Marked and never published, because the producer was fenced: the longer mark may be all that is left of
            // the one that was.
            let up_to_cut = match facts.iter().any(|fact| start + fact.mark.len == cut) {
                true => None,
                false => facts.iter().rev().find_map(|fact| up_to(cut, fact, segment_of(fact)?)),
            };
            let mut facts: Vec<&MarkFact> = facts;
            facts.extend(&up_to_cut);
            if start > len {
                // A gap: the run before it was not whole, and what is behind is no prefix. When it was durable, the
                // stream is behind it, which is damage, and the bytes stay for a repair.
                for fact in facts.iter().filter(|fact| !fact.unsynced) {
                    if let Some(segment) = segment_of(fact) {
                        segment.claim(fact.mark.len);
                    }
                }
                continue;
            }
            // The last place that it was moved to, or the longest that is whole where it was written; what is durable
            // is whole, the others have to show it.
            facts.sort_by_key(|fact| (fact.rank, if fact.rank == Rank::Moved { 0 } else { fact.mark.len }));
            let whole = facts.iter().rev().find_map(|fact| {
                let segment = segment_of(fact).filter(|_| start + fact.mark.len <= cut)?;
                let whole = !fact.unsynced
                    || checksums(segment, fact.mark.offset, fact.mark.len)
                        .is_ok_and(|crcs| crcs == *fact.mark.crcs);
                whole.then_some((*fact, segment))
            });
            let believed = whole.map(|(fact, _)| fact.written);
            let later = facts.iter().rev().take_while(|fact| Some(fact.written) != believed);
            let unmoved = later.filter(|fact| fact.rank == Rank::Moved && fact.unsynced);
            self.unmoved.extend(unmoved.map(|fact| fact.written));
            let Some((fact, segment)) = whole else {
                let gone = facts.iter().rev().find(|fact| !fact.unsynced && segment_of(fact).is_none());
                self.losses.extend(gone.map(|fact| {
                    let Mark { log, segment: number, offset, len, .. } = fact.mark;
                    Loss::Segment { log, number, offset, from: start, to: start + len }
                }));
                continue;
            };
            // What its appender wrote after the checkpoint lies behind what the checkpoint knew, in the same place.
            let grown = facts.iter().filter(|grown| {
                grown.rank == Rank::Written
                    && grown.mark.is_of_run(&fact.mark)
                    && grown.mark.len > fact.mark.len
            });
            let grown = grown.rev().find(|grown| {
                start + grown.mark.len <= cut
                    && (!grown.unsynced
                        || checksums(segment, grown.mark.offset, grown.mark.len)
                            .is_ok_and(|crcs| crcs == *grown.mark.crcs))
            });
            let fact = grown.copied().unwrap_or(fact);
            let offset = fact.mark.offset;
            if start < len {
                self.losses.push(Loss::Runs);
                continue;
            }
            if fact.unsynced {
                self.unsynced.push((segment.clone(), offset..offset + fact.mark.len));
            }
            let placed = Placed::recovered(
                start,
                offset,
                epoch,
                segment.clone(),
                fact.mark.len,
                fact.mark.crcs.iter().copied(),
            );
            segment.claim(fact.mark.len);
            if !self.tail.runs().push(placed) {
                self.losses.push(Loss::Runs);
                break;
            }
            len = start + fact.mark.len;
            self.last_mark = Some(Mark { total: len, end: None, ..fact.mark.clone() });
        }
        len
    }
}
