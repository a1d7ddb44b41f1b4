//! Records come back as they were written, and from nothing else.

use super::super::link::PartAt;
use super::super::snapshot::Piece;
use super::*;
use proptest::prelude::*;

fn bytes(len_max: usize) -> impl Strategy<Value = Cow<'static, [u8]>> {
    proptest::collection::vec(any::<u8>(), 0..len_max).prop_map(Cow::Owned)
}

fn mark() -> impl Strategy<Value = Record<'static>> {
    let end = prop_oneof![Just(None), Just(Some(End::Complete)), Just(Some(End::Interrupted))];
    let ids = (any::<u64>(), any::<u64>(), 0..1u64 << 50, any::<u16>(), any::<u32>(), any::<u32>());
    (ids, end, 0..1u64 << 40, 0..5_000_000u64, any::<u32>()).prop_map(|(ids, end, offset, len, crc)| {
        let (uid, epoch, start, log, segment, generation) = ids;
        let crcs = (0..Extent::window_count(len)).map(|at| crc.rotate_left(at as u32)).collect();
        let (total, log) = (start + len, LogId(log));
        Record::Mark(Mark { uid, epoch, start, total, end, log, segment, generation, offset, len, crcs })
    })
}

fn runs() -> impl Strategy<Value = Runs<'static>> {
    proptest::collection::vec(mark(), 0..4).prop_map(|marks| {
        let mut runs = Runs::default();
        for record in marks {
            let Record::Mark(mark) = record else { unreachable!("marks only") };
            let Mark { epoch, start, log, segment, generation, offset, len, .. } = mark;
            let crcs = mark.crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect::<Vec<_>>().into();
            if len > 0 {
                runs.push(&Piece { epoch, start, log, segment, generation, offset, len, crcs });
            }
        }
        runs
    })
}

fn snapshot() -> impl Strategy<Value = Record<'static>> {
    let end = prop_oneof![Just(None), Just(Some(End::Complete)), Just(Some(End::Interrupted))];
    let numbers = (any::<[u64; 6]>(), any::<u16>(), any::<u8>(), any::<bool>());
    (numbers, end, bytes(80), bytes(300), runs()).prop_map(|(numbers, end, key, attributes, runs)| {
        let ([uid, first_epoch, epoch, created_ms, start, total], home, space, more) = numbers;
        let home = LogId(home);
        Record::Stream(Snapshot {
            uid,
            first_epoch,
            epoch,
            created_ms,
            start,
            total,
            home,
            space,
            end,
            more,
            key,
            attributes,
            runs,
        })
    })
}

fn link() -> impl Strategy<Value = LinkRecord<'static>> {
    let part = (any::<u64>(), 0..1u64 << 50, 1..1u64 << 50);
    let parts = proptest::collection::vec(part.prop_map(|(uid, from, len)| PartAt { uid, from, len }), 0..5);
    (any::<[u64; 2]>(), any::<u8>(), bytes(80), bytes(300), parts).prop_map(
        |([version, created_ms], space, key, attributes, parts)| LinkRecord {
            version,
            created_ms,
            space,
            key,
            attributes,
            parts,
        },
    )
}

/// Any record.
pub fn record() -> impl Strategy<Value = Record<'static>> {
    prop_oneof![
        any::<u16>().prop_map(|shards| Record::Boot { shards }),
        (any::<[u64; 3]>(), any::<u16>(), any::<u8>(), bytes(80), bytes(300)).prop_map(
            |([uid, epoch, created_ms], home, space, key, attributes)| Record::Name {
                uid,
                epoch,
                created_ms,
                home: LogId(home),
                space,
                key,
                attributes
            }
        ),
        (any::<u64>(), any::<u8>(), bytes(80)).prop_map(|(version, space, key)| Record::Delete {
            version,
            space,
            key
        }),
        mark(),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(uid, epoch, cut)| Record::Epoch {
            uid,
            epoch,
            cut
        }),
        any::<(u64, u64)>().prop_map(|(uid, first)| Record::Trim { uid, first }),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(uid, epoch, at_ms)| Record::Ended {
            uid,
            epoch,
            at_ms
        }),
        Just(Record::SyncMark),
        (any::<u64>(), any::<u64>()).prop_map(|(from, to)| Record::Abort { from, to }),
        mark().prop_map(|mark| match mark {
            Record::Mark(mark) => Record::Moved(mark),
            other => other,
        }),
        link().prop_map(Record::Link),
        proptest::collection::vec(link(), 0..4).prop_map(Record::Links),
        snapshot(),
        (any::<u64>(), runs()).prop_map(|(uid, runs)| Record::Runs { uid, runs }),
    ]
}

proptest! {
    /// Catches a field that is forgotten, swapped or read at another width, and padding left unaligned.
    #[test]
    fn what_was_encoded_decodes(record in record(), key_hash: u64, seq: u64, generation in 1u32..) {
        let mut out = Vec::new();
        let len = encode(&record, key_hash, seq, seq / 2, 9, &mut out);
        prop_assert_eq!(finish(&mut out, generation), len);
        prop_assert_eq!(len, out.len());
        prop_assert_eq!(len % ALIGN, 0);
        let header = Header::decode(&out, generation).expect("a header");
        prop_assert_eq!((header.seq, header.synced_seq), (seq, seq / 2));
        prop_assert_eq!((header.key_hash, header.boot, header.record_len()), (key_hash, 9, len));
        let payload = &out[HEADER_LEN..HEADER_LEN + header.payload_len as usize];
        prop_assert!(header.fits(payload, generation));
        prop_assert_eq!(decode_payload(header.kind, payload), Some(record));
        prop_assert!(Header::decode(&out, generation ^ 1).is_none(), "another generation");
    }

    /// Catches accepting what is cut short or too long.
    #[test]
    fn no_other_length_decodes(record in record(), more in 1usize..3) {
        let mut payload = Vec::new();
        let kind = encode_payload(&record, &mut payload);
        for len in 0..payload.len() {
            prop_assert!(decode_payload(kind, &payload[..len]).is_none());
        }
        payload.extend(std::iter::repeat_n(0, more));
        prop_assert!(decode_payload(kind, &payload).is_none());
    }

    /// Catches a panic on what a disk may hold.
    #[test]
    fn anything_may_be_fed(kind: u8, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_payload(kind, &payload);
        let _ = Header::decode(&payload, u32::from(kind));
    }
}

/// Catches any change of the format: these are the bytes that every release reads.
#[test]
fn a_record_is_these_bytes() {
    let mut out = Vec::new();
    let record = Record::Delete { version: 0x0102, space: 7, key: b"k"[..].into() };
    encode(&record, 0x11, 0x22, 0x21, 3, &mut out);
    finish(&mut out, 5);
    let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
    let header = "0e00000003000000\
                  2200000000000000210000000000000011000000000000000300000000000000";
    let payload = "0201000000000000070100000".to_owned() + "06b0000";
    assert_eq!(hex[16..], format!("{header}{payload}"));
}

#[test]
fn a_name_with_a_wrong_bit_is_known_by_its_hash() {
    let key = Key::new(1, b"builds/17");
    let record = Record::Delete { version: 3, space: key.space, key: (&key.bytes[..]).into() };
    let mut whole = Vec::new();
    encode(&record, key.hash(), 1, 0, 1, &mut whole);
    finish(&mut whole, 7);
    let header = Header::decode(&whole, 7).expect("it is whole");
    let at = whole.windows(9).position(|bytes| bytes == b"builds/17").expect("it is there");
    for place in at..at + 9 {
        let mut bytes = whole.clone();
        bytes[place] ^= 4;
        assert_eq!(key_in(&header, &bytes), Some(key.clone()));
        bytes[place] ^= 2;
        assert_eq!(key_in(&header, &bytes), None, "two bits are too many");
    }
}
