//! What the journals and the checkpoint say, by what it is about: names, marks of streams, links, and what of it is lost.
//!
//! Invariant: a fact comes from a valid record that no abort declares void, and the latest word holds, however the records
//! are shared out among threads. Runs before shards serve.

use super::super::extent::LogId;
use super::super::header::{HEADER, Header, noted_len, whole_copies};
use super::super::journal::link::{LinkRecord, PartAt};
use super::super::journal::record::{self, Mark, Record, is_about_the_log, is_mark, is_time, is_trim};
use super::super::journal::snapshot::Snapshot;
use super::super::placement::{Key, owner_of};
use super::finding::{Finding, LostRecords};
use super::linked::ReadyLink;
use super::numbers::{NumberSet, Numbers};
use super::parts::marks;
use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// When and where a record was written: later ones of the same name are greater within one log, and by start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Written {
    /// The start of the program.
    pub boot: u32,
    /// Whose journal.
    pub log: LogId,
    /// Where in it.
    pub seq: u64,
}

impl Written {
    /// Whether this was certainly written after `other`, both being about one name.
    pub fn is_after(&self, other: &Written) -> bool {
        self.boot > other.boot || (self.log == other.log && self.seq > other.seq)
    }
}

/// The latest that is known about a name.
pub struct NameFact {
    /// Greater is later.
    pub version: u64,
    /// Its record.
    pub written: Written,
    /// What it stands for, unless it was deleted.
    pub stands: Option<Stands>,
}

/// What a name stands for.
pub struct Stands {
    /// When it was put.
    pub created_ms: u64,
    /// The log of its first appender.
    pub home: LogId,
    /// The service's part.
    pub attributes: Vec<u8>,
}

/// What a link was said to stand for at some time. All are kept until it is known whose bodies are there.
pub struct LinkFact {
    /// Its record.
    pub written: Written,
    /// What it says.
    pub link: LinkRecord<'static>,
}

/// A mark, and whether its data has to be looked at before it is believed.
pub struct MarkFact {
    /// Its record.
    pub written: Written,
    /// No record says that it is durable.
    pub unsynced: bool,
    /// Of two places of one run, which is the later.
    pub rank: Rank,
    /// The name that its record is about.
    pub key_hash: u64,
    /// What it says.
    pub mark: Mark<'static>,
}

/// What kind of record says where a run lies, from the weakest word to the last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rank {
    /// Its appender's mark: where it was written.
    Written,
    /// A checkpoint: where it lay at some time after.
    Checkpoint,
    /// A record about its move, after the checkpoint.
    Moved,
}

/// Everything the journals say.
#[derive(Default)]
pub struct Facts {
    /// Names by key.
    pub names: BTreeMap<Key, NameFact>,
    /// Marks by stream.
    pub marks: Numbers<Vec<MarkFact>>,
    /// The first epoch of each stream.
    pub first_epochs: Numbers<u64>,
    /// The highest number of any epoch, of streams that are gone too.
    pub epoch_max: u64,
    /// The latest start of the program that a record is of.
    pub boot_max: u32,
    /// Later epochs by stream: number and cut.
    pub epochs: Numbers<BTreeMap<u64, u64>>,
    /// Links of the checkpoint of which no journal record after it speaks.
    pub ready: Vec<ReadyLink>,
    /// What links were said to stand for, by key.
    pub links: BTreeMap<Key, Vec<LinkFact>>,
    /// Records that say several links at once, with the parts of all of them.
    pub together: Vec<(Written, Vec<PartAt>)>,
    /// Where streams begin, with the record that says so.
    pub trims: Numbers<(u64, Written)>,
    /// When streams ended: the last epoch that did, and the time.
    pub ended: Numbers<(u64, u64)>,
    /// Lost records about names, by placement hash.
    pub lost_names: Numbers<Vec<Written>>,
    /// Lost marks, by placement hash.
    pub lost_marks: Numbers<Vec<Written>>,
    /// Lost records about where a stream begins, by placement hash.
    pub lost_trims: Numbers<Vec<Written>>,
    /// Lost records of which not even the header is whole.
    pub lost_unknown: u64,
    /// All lost records, those included that a later one stands in for.
    pub lost_records: u64,
    /// The highest end of a mark in each bulk segment, void ones included.
    pub bulk_used: HashMap<(LogId, u32), u64>,
    /// What is not as it was written.
    pub findings: Vec<Finding>,
    /// Records that were read.
    pub records: u64,
    /// Where a crash tore a log.
    pub torn: Vec<(PathBuf, u64)>,
    /// Placement hashes of names that a journal speaks of.
    touched: NumberSet,
}

/// Facts by the shard that owns what they are about: nothing in one of them needs another, so they are put together and
/// settled side by side.
pub struct Shelves(Vec<Facts>);

impl Shelves {
    /// Empty ones for `shards` shards.
    pub fn new(shards: usize) -> Self {
        Shelves((0..shards).map(|_| Facts::default()).collect())
    }

    /// What is about names with this placement hash.
    pub fn of(&mut self, key_hash: u64) -> &mut Facts {
        let shards = self.0.len();
        &mut self.0[owner_of(key_hash, shards).index()]
    }

    /// Takes in a record of a journal; of a void one only which bytes it used.
    pub(super) fn learn(
        &mut self,
        written: Written,
        unsynced: bool,
        void: bool,
        key_hash: u64,
        record: Record<'_>,
    ) {
        let facts = self.of(key_hash);
        facts.touched.insert(key_hash);
        facts.learn(written, unsynced, void, key_hash, record);
    }

    /// Whether a journal has something about a name with this placement hash, or may have had.
    pub fn touches(&self, key_hash: u64) -> bool {
        self.0[owner_of(key_hash, self.0.len()).index()].touched.contains(&key_hash)
    }

    /// Where notes go that are about no name.
    pub(super) fn common(&mut self) -> &mut Facts {
        &mut self.0[0]
    }

    /// Those of all logs, in the order of logs, as one; `many` if it is worth threads.
    pub fn merge(logs: Vec<Shelves>, many: bool) -> Shelves {
        let mut by_owner: Vec<Vec<Facts>> = Vec::new();
        for shelves in logs {
            by_owner.resize_with(shelves.0.len(), Vec::new);
            by_owner.iter_mut().zip(shelves.0).for_each(|(all, one)| all.push(one));
        }
        let merge = |all: Vec<Facts>| {
            let mut all = all.into_iter();
            let first = all.next().unwrap_or_default();
            all.fold(first, |mut known, next| {
                known.absorb(next);
                known
            })
        };
        Shelves(side_by_side(by_owner, many, merge))
    }

    /// Takes in records of a checkpoint's part, by owner; `many` if that is worth threads.
    pub fn learn_parts(&mut self, records: Vec<Vec<(Written, u64, Record<'static>)>>, many: bool) {
        let work: Vec<_> = self.0.iter_mut().zip(records).collect();
        side_by_side(work, many, |(facts, records)| {
            records.into_iter().for_each(|(at, key_hash, record)| facts.learn_part(at, key_hash, record));
        });
    }

    /// Takes what is about no name.
    pub fn take_common(&mut self) -> Facts {
        let mut common = Facts::default();
        self.0.iter_mut().for_each(|facts| common.absorb(facts.take_common()));
        common
    }

    /// Names with a record in a journal.
    pub fn names(&self) -> usize {
        self.0.iter().map(|facts| facts.names.len()).sum()
    }

    /// One by one, once nobody asks any more what they touch.
    pub fn into_vec(mut self) -> Vec<Facts> {
        self.0.iter_mut().for_each(|facts| facts.touched = NumberSet::default());
        self.0
    }

    /// Takes note of records that do not read any more.
    pub fn lose(&mut self, lost: LostRecords) {
        let known = u64::from(lost.header.is_some());
        if let Some((kind, key_hash)) =
            lost.header.filter(|&(kind, _)| !is_about_the_log(kind) && !is_time(kind))
        {
            let facts = self.of(key_hash);
            facts.touched.insert(key_hash);
            facts.lost_of(kind).entry(key_hash).or_default().push(lost.written);
        }
        let common = self.common();
        common.lost_records += lost.count;
        common.lost_unknown += lost.count.saturating_sub(known);
        common.findings.push(Finding::Records(lost));
    }
}

/// What `work` makes of each, in order; by a thread for each if there is `much` to do.
pub fn side_by_side<T: Send, R: Send>(all: Vec<T>, much: bool, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if !much || all.len() < 2 {
        return all.into_iter().map(work).collect();
    }
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = all.into_iter().map(|one| scope.spawn(move || work(one))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a start does not panic")).collect()
    })
}

impl Facts {
    /// Whether a record is lost that may have been about bytes which look dead without it.
    pub fn has_losses(&self) -> bool {
        self.lost_unknown > 0 || self.lost_names.values().any(|lost| !lost.is_empty())
    }

    /// Takes note that a bulk segment was written to, up to `end`.
    pub fn use_bulk(&mut self, log: LogId, number: u32, end: u64) {
        let used = self.bulk_used.entry((log, number)).or_default();
        *used = (*used).max(end);
    }

    /// Takes in a record of a journal; of a void one only which bytes it used.
    pub(super) fn learn(
        &mut self,
        written: Written,
        unsynced: bool,
        void: bool,
        key_hash: u64,
        record: Record<'_>,
    ) {
        self.boot_max = self.boot_max.max(written.boot);
        if let Record::Mark(mark) | Record::Moved(mark) = &record {
            self.use_bulk(mark.log, mark.segment, mark.offset.saturating_add(mark.len));
        }
        if void {
            return;
        }
        match record {
            Record::Name { uid, epoch, created_ms, home, space, key, attributes } => {
                self.first_epochs.insert(uid, epoch);
                self.epoch_max = self.epoch_max.max(epoch);
                let stands = Stands { created_ms, home, attributes: attributes.into_owned() };
                self.name(space, key, uid, written, Some(stands));
            }
            Record::Delete { version, space, key } => self.name(space, key, version, written, None),
            Record::Mark(mark) => self.mark(written, unsynced, Rank::Written, key_hash, mark),
            Record::Moved(mark) => self.mark(written, unsynced, Rank::Moved, key_hash, mark),
            Record::Epoch { uid, epoch, cut } => {
                self.epoch_max = self.epoch_max.max(epoch);
                self.epochs.entry(uid).or_default().insert(epoch, cut);
            }
            Record::Trim { uid, first } => self.trim(uid, first, written),
            Record::Ended { uid, epoch, at_ms } => {
                self.end(uid, (epoch, at_ms));
            }
            Record::Link(link) => {
                self.link(written, link);
            }
            Record::Links(links) => {
                let parts = links.iter().flat_map(|link| link.parts.iter().copied()).collect();
                self.together.push((written, parts));
                links.into_iter().for_each(|link| self.link(written, link));
            }
            Record::Stream(_)
            | Record::Runs { .. }
            | Record::Boot { .. }
            | Record::SyncMark
            | Record::Abort { .. } => {}
        }
    }

    fn link(&mut self, written: Written, link: LinkRecord<'_>) {
        let key = Key { space: link.space, bytes: (&*link.key).into() };
        self.links.entry(key).or_default().push(LinkFact { written, link: link.into_owned() });
    }

    fn name(
        &mut self,
        space: u8,
        key: Cow<'_, [u8]>,
        version: u64,
        written: Written,
        stands: Option<Stands>,
    ) {
        self.learn_name(Key { space, bytes: (*key).into() }, NameFact { version, written, stands });
    }

    fn learn_name(&mut self, key: Key, fact: NameFact) {
        match self.names.get_mut(&key) {
            Some(known) if known.version >= fact.version => {}
            Some(known) => *known = fact,
            None => drop(self.names.insert(key, fact)),
        }
    }

    fn end(&mut self, uid: u64, ended: (u64, u64)) {
        let known = self.ended.entry(uid).or_insert(ended);
        *known = (*known).max(ended);
    }

    fn trim(&mut self, uid: u64, first: u64, written: Written) {
        let known = self.trims.entry(uid).or_insert((first, written));
        if first >= known.0 {
            *known = (first, written);
        }
    }

    fn mark(&mut self, written: Written, unsynced: bool, rank: Rank, key_hash: u64, mark: Mark<'_>) {
        let mark = Mark { crcs: Cow::Owned(mark.crcs.into_owned()), ..mark };
        // Most streams have one run, with a mark of its bytes and one of the end.
        let marks = self.marks.entry(mark.uid).or_insert_with(|| Vec::with_capacity(2));
        let fact = MarkFact { written, unsynced, rank, key_hash, mark };
        // A later mark of the same run says all that an earlier one said, once it needs no proof.
        match marks.last_mut() {
            Some(last)
                if !unsynced
                    && last.rank == rank
                    && last.mark.is_of_run(&fact.mark)
                    && last.mark.len <= fact.mark.len
                    && written.log == last.written.log =>
            {
                *last = fact;
            }
            _ => marks.push(fact),
        }
    }

    /// Takes note of a header that is not whole.
    pub fn note_header(&mut self, path: &Path, header: &Header, page: &[u8], bulk: Option<(LogId, u32)>) {
        let whole = whole_copies(header, page);
        if whole != [true, true] {
            tracing::warn!(path = %path.display(), ?whole, "a copy of the segment's header is damaged");
            self.findings.push(Finding::Header { path: path.to_owned(), whole, bulk });
        }
    }

    /// Takes note of a file of `len` bytes that is shorter than it was made; whether it is. One without a byte was
    /// never used: a crash leaves one behind.
    pub fn note_length(&mut self, path: &Path, page: &[u8], len: u64, bulk: Option<(LogId, u32)>) -> bool {
        let made = noted_len(page);
        let is_short = len > 0 && (len < made.unwrap_or(HEADER) || !len.is_multiple_of(4096));
        if is_short {
            tracing::error!(path = %path.display(), len, made, "this file was cut short");
            self.findings.push(Finding::CutShort { path: path.to_owned(), len, made, bulk });
        }
        is_short
    }

    /// Takes note of a record of whose header one bit was put right.
    pub fn note_mended(&mut self, path: &Path, at: usize, header: &record::Header) {
        let (path, at) = (path.to_owned(), HEADER + at as u64);
        let record::Header { seq, kind, .. } = *header;
        tracing::warn!(path = %path.display(), at, seq, "a bit of a record's header is wrong");
        self.findings.push(Finding::Mended { path, at, seq, kind });
    }

    /// Takes in what is known from elsewhere, of what comes later than this in the order of logs.
    pub fn absorb(&mut self, other: Facts) {
        match self.names.is_empty() {
            true => self.names = other.names,
            false => other.names.into_iter().for_each(|(key, fact)| self.learn_name(key, fact)),
        }
        if self.marks.is_empty() {
            self.marks = other.marks;
        } else {
            for (uid, marks) in other.marks {
                match self.marks.entry(uid) {
                    Entry::Occupied(mut known) => known.get_mut().extend(marks),
                    Entry::Vacant(place) => drop(place.insert(marks)),
                }
            }
        }
        self.first_epochs.extend(other.first_epochs);
        other.epochs.into_iter().for_each(|(uid, epochs)| self.epochs.entry(uid).or_default().extend(epochs));
        other.trims.into_iter().for_each(|(uid, (first, written))| self.trim(uid, first, written));
        other.ended.into_iter().for_each(|(uid, ended)| self.end(uid, ended));
        other.links.into_iter().for_each(|(key, said)| self.links.entry(key).or_default().extend(said));
        self.ready.extend(other.ready);
        self.together.extend(other.together);
        for (known, more) in [
            (&mut self.lost_names, other.lost_names),
            (&mut self.lost_marks, other.lost_marks),
            (&mut self.lost_trims, other.lost_trims),
        ] {
            more.into_iter().for_each(|(hash, lost)| known.entry(hash).or_default().extend(lost));
        }
        match self.touched.is_empty() {
            true => self.touched = other.touched,
            false => self.touched.extend(other.touched),
        }
        self.epoch_max = self.epoch_max.max(other.epoch_max);
        self.boot_max = self.boot_max.max(other.boot_max);
        self.lost_unknown += other.lost_unknown;
        self.lost_records += other.lost_records;
        self.records += other.records;
        other.bulk_used.into_iter().for_each(|((log, number), end)| self.use_bulk(log, number, end));
        self.findings.extend(other.findings);
        self.torn.extend(other.torn);
    }

    /// What is not about any name: the rest stays.
    fn take_common(&mut self) -> Facts {
        Facts {
            epoch_max: self.epoch_max,
            boot_max: self.boot_max,
            lost_unknown: std::mem::take(&mut self.lost_unknown),
            lost_records: std::mem::take(&mut self.lost_records),
            records: std::mem::take(&mut self.records),
            bulk_used: std::mem::take(&mut self.bulk_used),
            findings: std::mem::take(&mut self.findings),
            torn: std::mem::take(&mut self.torn),
            ..Facts::default()
        }
    }

    fn lost_of(&mut self, kind: u8) -> &mut Numbers<Vec<Written>> {
        match kind {
            _ if is_mark(kind) => &mut self.lost_marks,
            _ if is_trim(kind) => &mut self.lost_trims,
            _ => &mut self.lost_names,
        }
    }

    /// Takes in a record of a checkpoint's part.
    pub fn learn_part(&mut self, written: Written, key_hash: u64, record: Record<'static>) {
        match record {
            Record::Stream(snapshot) => self.stream(written, key_hash, snapshot),
            Record::Runs { uid, runs } => {
                marks(uid, &runs)
                    .for_each(|mark| self.mark(written, false, Rank::Checkpoint, key_hash, mark));
            }
            other => self.learn(written, false, false, key_hash, other),
        }
    }

    fn stream(&mut self, written: Written, key_hash: u64, snapshot: Snapshot<'static>) {
        let Snapshot { uid, first_epoch, epoch, created_ms, start, total, home, end, .. } = snapshot;
        if start > 0 {
            self.trim(uid, start, written);
        }
        self.first_epochs.insert(uid, first_epoch);
        self.epoch_max = self.epoch_max.max(epoch);
        marks(uid, &snapshot.runs)
            .for_each(|mark| self.mark(written, false, Rank::Checkpoint, key_hash, mark));
        // Without a run: says how long the stream is and how it ended, which later epochs may supersede.
        let (log, crcs) = (written.log, Cow::Borrowed(&[][..]));
        let (segment, generation, offset, len) = (0, 0, 0, 0);
        let bare = Mark { uid, epoch, start: total, total, end, log, segment, generation, offset, len, crcs };
        self.mark(written, false, Rank::Checkpoint, key_hash, bare);
        let stands = Stands { created_ms, home, attributes: snapshot.attributes.into_owned() };
        self.name(snapshot.space, snapshot.key, uid, written, Some(stands));
    }
}
