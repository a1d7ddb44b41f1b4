//! Reading a journal segment: bytes in, records out, and an honest word about what is not a record.
//!
//! Where a valid record is missing, two things may have happened. A crash tore the tail: what was not yet synced
//! was written in part. Or the disk lost something that had been synced: damage. Every record says how far the
//! log was durable when it was written, so a missing sequence up to that point is damage and one beyond it is the
//! tail. After damage the scan looks for the next record at every multiple of 8.
//!
//! Invariant: never panics, whatever the bytes; sequences rise by one except over what is told as damage; the
//! boot number never falls, which is what keeps a record left from before an earlier crash from being believed.
//! Pure; runs anywhere.

use super::record::{ALIGN, HEADER_LEN, Header, Record, decode_payload};

/// What is known about a segment before it is read.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// Seeds every checksum.
    pub generation: u32,
    /// The sequence of its first record.
    pub first_seq: u64,
    /// No record may be of an earlier start than this.
    pub boot: u32,
    /// The highest sequence that any record of the log says is durable.
    pub synced_seq: u64,
    /// The first sequence that was found in the segment after it, if there is one.
    pub next_seq: Option<u64>,
}

/// What was found next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found<'a> {
    /// A record.
    Record {
        /// Its position in the segment's content.
        at: usize,
        /// Its header.
        header: Header,
        /// What it says.
        record: Record<'a>,
    },
    /// Records that were synced and do not read any more.
    Damaged {
        /// Where they begin.
        at: usize,
        /// The first sequence that is missing.
        from_seq: u64,
        /// The first that is there again.
        to_seq: u64,
        /// The header of the first one, when that much is whole.
        header: Option<Header>,
    },
    /// The end of what is valid. Always the last thing found.
    Tail {
        /// Bytes in front of it: writing may go on here.
        valid_len: usize,
        /// The sequence to go on with.
        next_seq: u64,
        /// The start that the last record was of.
        boot: u32,
        /// Whether something unreadable follows that was never synced.
        torn: bool,
    },
}

/// The scan of one segment's content, which is what follows its header.
pub struct Scan<'a> {
    content: &'a [u8],
    expect: Expect,
    at: usize,
    seq: u64,
    boot: u32,
    done: bool,
}

/// Scans `content`. A next segment that claims to begin before this one does is taken to follow it at once.
pub fn scan(content: &[u8], mut expect: Expect) -> Scan<'_> {
    expect.next_seq = expect.next_seq.map(|next| next.max(expect.first_seq));
    Scan { content, expect, at: 0, seq: expect.first_seq, boot: expect.boot, done: false }
}

/// What a first look at a segment tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// The lowest sequence found, in whatever is valid.
    pub first_seq: Option<u64>,
    /// The highest sequence that any record says is durable, or an abort says is void: records up to there are
    /// damage when they are missing.
    pub settled_seq: u64,
    /// Ranges of sequences that abort records declare void.
    pub aborts: Vec<(u64, u64)>,
}

/// Takes the first look: reads whatever is valid, in any order.
pub fn survey(content: &[u8], generation: u32) -> Survey {
    // A first record with a damaged payload still tells its sequence.
    let first_seq = Header::decode(content, generation).map(|header| header.seq);
    let mut survey = Survey { first_seq, ..Survey::default() };
    let mut at = 0;
    while let Some(found) = next_valid(content, at, generation) {
        survey.first_seq.get_or_insert(found.header.seq);
        survey.settled_seq = survey.settled_seq.max(found.header.synced_seq);
        if let Record::Abort { from, to } = found.record {
            survey.settled_seq = survey.settled_seq.max(to);
            survey.aborts.push((from, to));
        }
        at = found.at + found.header.record_len();
    }
    survey
}

impl<'a> Iterator for Scan<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        if self.done {
            return None;
        }
        if self.expect.next_seq == Some(self.seq) {
            return Some(self.finish(false));
        }
        match valid_at(self.content, self.at, self.expect.generation) {
            Some(found) if found.header.seq == self.seq && found.header.boot >= self.boot => {
                Some(self.accept(found))
            }
            // A segment that is followed by another ends where it was full, or where the rest was lost: then
            // the next one does not begin with the sequence that is expected there.
            _ if self.expect.next_seq.is_some() && self.is_free() => Some(self.finish(false)),
            _ if self.seq <= self.expect.synced_seq => Some(self.skip_damage()),
            _ => Some(self.finish(!self.is_free())),
        }
    }
}

impl<'a> Scan<'a> {
    fn is_free(&self) -> bool {
        let rest = self.content.get(self.at..).unwrap_or_default();
        rest.iter().take(HEADER_LEN).all(|&byte| byte == 0)
    }

    fn accept(&mut self, found: Valid<'a>) -> Found<'a> {
        self.at = found.at + found.header.record_len();
        self.seq = found.header.seq + 1;
        self.boot = found.header.boot;
        Found::Record { at: found.at, header: found.header, record: found.record }
    }

    fn skip_damage(&mut self) -> Found<'a> {
        let (at, from_seq) = (self.at, self.seq);
        let header = self.content.get(at..).and_then(|bytes| Header::decode(bytes, self.expect.generation));
        let header = header.filter(|header| header.seq == from_seq && header.boot >= self.boot);
        let mut from = at + header.map_or(0, |header| header.record_len());
        let limit = self.expect.next_seq.unwrap_or(u64::MAX);
        while let Some(found) = next_valid(self.content, from, self.expect.generation) {
            if (from_seq..limit).contains(&found.header.seq) && found.header.boot >= self.boot {
                (self.at, self.seq) = (found.at, found.header.seq);
                return Found::Damaged { at, from_seq, to_seq: self.seq, header };
            }
            from = found.at + ALIGN;
        }
        // Nothing more in this segment: all that was settled is missing, up to the next segment.
        self.at = from.min(self.content.len());
        self.seq = self.expect.next_seq.unwrap_or(self.expect.synced_seq.saturating_add(1));
        Found::Damaged { at, from_seq, to_seq: self.seq, header }
    }

    fn finish(&mut self, torn: bool) -> Found<'a> {
        self.done = true;
        Found::Tail { valid_len: self.at, next_seq: self.seq, boot: self.boot, torn }
    }
}

struct Valid<'a> {
    at: usize,
    header: Header,
    record: Record<'a>,
}

fn valid_at(content: &[u8], at: usize, generation: u32) -> Option<Valid<'_>> {
    let bytes = content.get(at..)?;
    let header = Header::decode(bytes, generation)?;
    let payload = bytes.get(HEADER_LEN..HEADER_LEN + header.payload_len as usize)?;
    if header.seq == u64::MAX || !header.fits(payload, generation) {
        return None;
    }
    let record = decode_payload(header.kind, payload)?;
    Some(Valid { at, header, record })
}

fn next_valid(content: &[u8], from: usize, generation: u32) -> Option<Valid<'_>> {
    (from..content.len()).step_by(ALIGN).find_map(|at| valid_at(content, at, generation))
}

#[cfg(test)]
mod tests {
    use super::super::record::{encode, finish, tests::record};
    use super::*;
    use proptest::prelude::*;

    const GENERATION: u32 = 77;

    /// A segment of records with sequences from `first`; each says that `synced(seq)` is durable.
    fn segment(records: &[Record<'_>], first: u64, synced: impl Fn(u64) -> u64) -> (Vec<u8>, Vec<usize>) {
        let (mut content, mut starts) = (Vec::new(), Vec::new());
        for (seq, record) in (first..).zip(records) {
            let at = content.len();
            starts.push(at);
            encode(record, seq * 10, seq, synced(seq), 1, &mut content);
            finish(&mut content[at..], GENERATION);
        }
        (content, starts)
    }

    /// Found by fuzzing: sequences fell when the next segment claimed to begin before this one.
    #[test]
    fn a_next_segment_from_the_past_makes_no_sequence_fall() {
        let expect = Expect { next_seq: Some(42), first_seq: 124, ..expect(190) };
        let found: Vec<_> = scan(b"q", expect).collect();
        assert_eq!(found, [Found::Tail { valid_len: 0, next_seq: 124, boot: 1, torn: false }]);
    }

    fn expect(synced_seq: u64) -> Expect {
        Expect { generation: GENERATION, first_seq: 1, boot: 1, synced_seq, next_seq: None }
    }

    fn marks(count: usize) -> Vec<Record<'static>> {
        (0..count as u64).map(|uid| Record::Epoch { uid, epoch: 2, cut: 3 }).collect()
    }

    fn sequences(content: &[u8], expect: Expect) -> Vec<u64> {
        let seq = |found| match found {
            Found::Record { header, .. } => Some(header.seq),
            Found::Damaged { .. } | Found::Tail { .. } => None,
        };
        scan(content, expect).filter_map(seq).collect()
    }

    /// Catches a scan that calls every missing record the tail (and loses what follows), and one that calls the
    /// torn tail damage.
    #[test]
    fn a_missing_record_is_damage_when_it_was_synced_and_the_tail_when_not() {
        let (mut content, starts) = segment(&marks(6), 1, |seq| if seq >= 5 { 3 } else { 0 });
        content.resize(content.len() + 512, 0);
        assert_eq!(
            survey(&content, GENERATION),
            Survey { first_seq: Some(1), settled_seq: 3, aborts: vec![] }
        );

        let mut damaged = content.clone();
        damaged[starts[2] + HEADER_LEN] ^= 1;
        let found: Vec<_> = scan(&damaged, expect(survey(&damaged, GENERATION).settled_seq)).collect();
        let Found::Damaged { at, from_seq: 3, to_seq: 4, header: Some(header) } = &found[2] else {
            panic!("{found:?}")
        };
        assert_eq!((*at, header.key_hash), (starts[2], 30), "the header still tells whom it was about");
        assert_eq!(sequences(&damaged, expect(3)), [1, 2, 4, 5, 6]);

        let mut torn = content.clone();
        torn[starts[3] + 20] ^= 1;
        let found: Vec<_> = scan(&torn, expect(survey(&torn, GENERATION).settled_seq)).collect();
        assert_eq!(found.len(), 4);
        let tail = Found::Tail { valid_len: starts[3], next_seq: 4, boot: 1, torn: true };
        assert_eq!(found[3], tail, "4 was never synced, so 5 and 6 go with it");
    }

    /// Catches believing a record that an earlier crash left behind the place where writing went on.
    #[test]
    fn a_record_left_from_an_earlier_start_is_not_believed() {
        let (mut content, starts) = segment(&marks(4), 1, |_| 0);
        // 2 was torn, so the next start wrote its own 2 over it, of the same length.
        let at = starts[1];
        let mut again = Vec::new();
        encode(&marks(1)[0], 0, 2, 0, 2, &mut again);
        finish(&mut again, GENERATION);
        content[at..at + again.len()].copy_from_slice(&again);
        let found: Vec<_> = scan(&content, expect(0)).collect();
        let tail = Found::Tail { valid_len: starts[2], next_seq: 3, boot: 2, torn: true };
        assert_eq!(found.last(), Some(&tail));
    }

    /// Catches running past the next segment's first sequence, and not telling what is missing before it.
    #[test]
    fn the_next_segment_bounds_this_one() {
        let (content, starts) = segment(&marks(4), 1, |_| 0);
        let bounded = Expect { next_seq: Some(5), synced_seq: 4, ..expect(0) };
        assert_eq!(sequences(&content, bounded), [1, 2, 3, 4]);
        let found: Vec<_> = scan(&content[..starts[3]], bounded).collect();
        let tail = Found::Tail { valid_len: starts[3], next_seq: 4, boot: 1, torn: false };
        assert_eq!(found[3], tail, "the next segment is asked for 4, and tells that it is missing");
        let (next, _) = segment(&marks(2), 5, |_| 0);
        let found: Vec<_> = scan(&next, Expect { first_seq: 4, synced_seq: 4, ..expect(0) }).collect();
        let Found::Damaged { from_seq: 4, to_seq: 5, .. } = found[0] else { panic!("{found:?}") };
        assert_eq!(sequences(&next, Expect { first_seq: 4, synced_seq: 4, ..expect(0) }), [5, 6]);
    }

    proptest! {
        /// Catches any record that does not survive, and a scan that stops early or late.
        #[test]
        fn what_was_written_is_found(records in proptest::collection::vec(record(), 0..12), free in 0usize..200) {
            let (mut content, _) = segment(&records, 1, |_| 0);
            let valid_len = content.len();
            content.resize(valid_len + free, 0);
            let found: Vec<_> = scan(&content, expect(0)).collect();
            let read: Vec<_> = found.iter().filter_map(|found| match found {
                Found::Record { record, .. } => Some(record.clone()),
                Found::Damaged { .. } | Found::Tail { .. } => None,
            }).collect();
            prop_assert_eq!(&read, &records);
            let next_seq = records.len() as u64 + 1;
            prop_assert_eq!(found.last(), Some(&Found::Tail { valid_len, next_seq, boot: 1, torn: false }));
        }

        /// Catches damage that spreads: one flipped byte costs at most the record it hit.
        #[test]
        fn one_flipped_byte_costs_one_record(
            records in proptest::collection::vec(record(), 1..10),
            place: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let (mut content, starts) = segment(&records, 1, |_| 0);
            let at = place.index(content.len());
            content[at] ^= 1 << bit;
            let hit = starts.iter().rposition(|&start| start <= at).expect("a record") as u64 + 1;
            let count = records.len() as u64;
            let found = sequences(&content, expect(count));
            let whole: Vec<_> = (1..=count).filter(|&seq| seq != hit).collect();
            // Padding is covered by no checksum, so a flip there costs nothing.
            prop_assert!(found == whole || found == (1..=count).collect::<Vec<_>>(), "{found:?}, hit {hit}");
        }

        /// Catches a panic or an endless loop on what a disk may hold.
        #[test]
        fn anything_may_be_scanned(
            records in proptest::collection::vec(record(), 0..4),
            noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            (first_seq, synced_seq, next_seq) in (0u64..5, 0u64..9, proptest::option::of(0u64..9)),
        ) {
            let (mut content, _) = segment(&records, 1, |seq| seq / 2);
            content.resize(content.len() + 64, 0);
            for (at, byte) in noise {
                let at = at.index(content.len());
                content[at] = byte;
            }
            survey(&content, GENERATION);
            let expect = Expect { first_seq, synced_seq, next_seq, ..expect(0) };
            let count = scan(&content, expect).count();
            prop_assert!(count <= content.len() / ALIGN + 2);
        }
    }
}
