//! Reading a journal segment: bytes in, records out, and an honest word about what is not a record.
//!
//! Where a valid record is missing, two things may have happened. A crash tore the tail: what was not yet synced
//! was written in part. Or the disk lost something that had been synced: damage. Every record says how far the
//! log was durable when it was written, so a missing sequence up to that point is damage and one beyond it is the
//! tail. After damage the scan looks for the next record at every multiple of 8. A header of which one bit is wrong
//! is put right: it has to agree with its own checksum and with the payload's, so nothing else can pass for it.
//!
//! Invariant: never panics, whatever the bytes; sequences rise by one except over what is told as damage; the
//! boot number never falls, which is what keeps a record left from before an earlier crash from being believed.
//! Pure; runs anywhere.

use super::record::{ALIGN, HEADER_LEN, Header, Record, decode_payload, is_abort};

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
        /// One bit of its header is wrong on disk.
        mended: bool,
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

/// Takes the first look: reads whatever is valid, in any order. A header tells its part even if the payload behind it
/// is damaged.
pub fn survey(content: &[u8], generation: u32) -> Survey {
    let mut survey = Survey::default();
    let mut at = 0;
    loop {
        let found = valid_at(content, at, generation).or_else(|| mended_at(content, at, generation));
        let header = match &found {
            Some(found) => Some(found.header),
            None => content.get(at..).and_then(|bytes| Header::decode(bytes, generation)),
        };
        let Some(header) = header.filter(|header| header.seq < u64::MAX) else {
            let Some(next) = next_valid(content, at, generation) else { return survey };
            at = next.at;
            continue;
        };
        survey.first_seq.get_or_insert(header.seq);
        survey.settled_seq = survey.settled_seq.max(header.synced_seq);
        let abort = match found.map(|found| found.record) {
            Some(Record::Abort { from, to }) => Some((from, to)),
            Some(_) => None,
            None => aborted(&header),
        };
        if let Some((from, to)) = abort {
            survey.settled_seq = survey.settled_seq.max(to);
            survey.aborts.push((from, to));
        }
        at += header.record_len();
    }
}

/// The range of an abort record of which only the header is whole: from what was durable up to the record itself.
fn aborted(header: &Header) -> Option<(u64, u64)> {
    is_abort(header.kind).then_some((header.synced_seq.checked_add(1)?, header.seq.checked_sub(1)?))
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
                Some(self.accept(found, false))
            }
            found => {
                if found.is_none()
                    && let Some(found) = self.mended()
                {
                    return Some(self.accept(found, true));
                }
                if self.seq <= self.expect.synced_seq {
                    return Some(self.skip_damage());
                }
                // A segment that is followed by another ends where it was full, or where the rest was lost: then
                // the next one does not begin with the sequence that is expected there.
                let torn = !self.is_free();
                Some(self.finish(torn))
            }
        }
    }
}

impl<'a> Scan<'a> {
    fn is_free(&self) -> bool {
        let rest = self.content.get(self.at..).unwrap_or_default();
        rest.iter().take(HEADER_LEN).all(|&byte| byte == 0)
    }

    fn mended(&self) -> Option<Valid<'a>> {
        let found = mended_at(self.content, self.at, self.expect.generation)?;
        (found.header.seq == self.seq && found.header.boot >= self.boot).then_some(found)
    }

    fn accept(&mut self, found: Valid<'a>, mended: bool) -> Found<'a> {
        self.at = found.at + found.header.record_len();
        self.seq = found.header.seq + 1;
        self.boot = found.header.boot;
        Found::Record { at: found.at, header: found.header, record: found.record, mended }
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
    whole(Header::decode(bytes, generation)?, bytes, at, generation)
}

/// The record at the start of `bytes`, if the payload is what its header describes.
fn whole(header: Header, bytes: &[u8], at: usize, generation: u32) -> Option<Valid<'_>> {
    let payload = bytes.get(HEADER_LEN..HEADER_LEN + header.payload_len as usize)?;
    if header.seq == u64::MAX || !header.fits(payload, generation) {
        return None;
    }
    let record = decode_payload(header.kind, payload)?;
    Some(Valid { at, header, record })
}

/// The record there with one bit of its header put right, if that makes it whole.
fn mended_at(content: &[u8], at: usize, generation: u32) -> Option<Valid<'_>> {
    let bytes = content.get(at..)?;
    let header: [u8; HEADER_LEN] = bytes.get(..HEADER_LEN)?.try_into().ok()?;
    // Free space is asked at the end of every log.
    if header.iter().all(|&byte| byte == 0) {
        return None;
    }
    (0..8 * HEADER_LEN).find_map(|bit| {
        let mut header = header;
        header[bit / 8] ^= 1 << (bit % 8);
        whole(Header::decode(&header, generation)?, bytes, at, generation)
    })
}

fn next_valid(content: &[u8], mut from: usize, generation: u32) -> Option<Valid<'_>> {
    while from < content.len() {
        // Most of what is passed is free space. A header is never all zero, but may begin with zeros.
        let free = zeros(&content[from..]).saturating_sub(HEADER_LEN) / ALIGN * ALIGN;
        from += free;
        let end = (from + STRETCH).min(content.len());
        let found = (from..end).step_by(ALIGN).find_map(|at| valid_at(content, at, generation));
        if found.is_some() {
            return found;
        }
        from = from.max(end.next_multiple_of(ALIGN));
    }
    None
}

/// Positions looked at between two looks for free space: a multiple of the alignment.
const STRETCH: usize = 1 << 16;

/// How many zeros these bytes begin with.
pub fn zeros(bytes: &[u8]) -> usize {
    const PAGE: [u8; 4096] = [0; 4096];
    let pages = bytes.chunks_exact(PAGE.len()).take_while(|page| **page == PAGE).count() * PAGE.len();
    pages + bytes[pages..].iter().take_while(|byte| **byte == 0).count()
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
        torn[starts[3] + HEADER_LEN + 1] ^= 1;
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
        let mut cut = content[..starts[3]].to_vec();
        for free in [0, 4096] {
            cut.resize(starts[3] + free, 0);
            let found: Vec<_> = scan(&cut, bounded).collect();
            let lost = Found::Damaged { at: starts[3], from_seq: 4, to_seq: 5, header: None };
            assert_eq!(found[3], lost, "what is missing is told where it stood");
            assert!(matches!(found[4], Found::Tail { next_seq: 5, torn: false, .. }), "{found:?}");
        }
        let unsettled = Expect { synced_seq: 3, ..bounded };
        let found: Vec<_> = scan(&cut, unsettled).collect();
        let tail = Found::Tail { valid_len: starts[3], next_seq: 4, boot: 1, torn: false };
        assert_eq!(found[3], tail, "what nobody called durable may never have been written");
        let (next, _) = segment(&marks(2), 5, |_| 0);
        let found: Vec<_> = scan(&next, Expect { first_seq: 4, synced_seq: 4, ..expect(0) }).collect();
        let Found::Damaged { from_seq: 4, to_seq: 5, .. } = found[0] else { panic!("{found:?}") };
        assert_eq!(sequences(&next, Expect { first_seq: 4, synced_seq: 4, ..expect(0) }), [5, 6]);
    }

    /// Catches a header whose one wrong bit costs what its record says, and a mended record that is not told.
    #[test]
    fn one_wrong_bit_in_a_header_is_put_right_and_two_are_not() {
        let (mut content, starts) = segment(&marks(3), 1, |seq| seq.saturating_sub(1));
        content.resize(content.len() + 64, 0);
        let survey_before = survey(&content, GENERATION);
        for (record, at) in starts.iter().enumerate() {
            for bit in 0..8 * HEADER_LEN {
                let mut flipped = content.clone();
                flipped[at + bit / 8] ^= 1 << (bit % 8);
                assert_eq!(survey(&flipped, GENERATION), survey_before);
                let told: Vec<bool> = scan(&flipped, expect(2))
                    .filter_map(|found| match found {
                        Found::Record { mended, .. } => Some(mended),
                        Found::Damaged { .. } | Found::Tail { .. } => None,
                    })
                    .collect();
                let expected: Vec<bool> = (0..3).map(|index| index == record).collect();
                assert_eq!(told, expected, "bit {bit} of the header at {at}");
                let other = (bit + 9) % (8 * HEADER_LEN);
                flipped[at + other / 8] ^= 1 << (other % 8);
                assert!(!sequences(&flipped, expect(2)).contains(&(record as u64 + 1)));
            }
        }
    }

    /// Catches void records that are believed because the record that calls them so is damaged.
    #[test]
    fn an_abort_is_known_by_its_header() {
        let (mut content, _) = segment(&[Record::Abort { from: 4, to: 9 }], 10, |_| 3);
        let whole = survey(&content, GENERATION);
        assert_eq!(whole, Survey { first_seq: Some(10), settled_seq: 9, aborts: vec![(4, 9)] });
        content[HEADER_LEN + 2] ^= 1;
        assert_eq!(survey(&content, GENERATION), whole);
    }

    /// Catches records behind a stretch of zeros that are given up because another segment follows.
    #[test]
    fn a_lost_sector_in_the_middle_costs_what_stood_there() {
        let (mut content, starts) = segment(&marks(9), 1, |_| 0);
        content[starts[3]..starts[5]].fill(0);
        let bounded = Expect { next_seq: Some(10), synced_seq: 9, ..expect(0) };
        assert_eq!(sequences(&content, bounded), [1, 2, 3, 6, 7, 8, 9]);
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
            // Padding is covered by no checksum, so a flip there costs nothing; a header with one is mended.
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
