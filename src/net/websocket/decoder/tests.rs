//! The decoder against the classes of cases of the Autobahn suite (1 to 7 and 10) and against itself, cut anywhere.

use super::*;
use proptest::prelude::*;

const KEY: [u8; 4] = [0x12, 0x34, 0xfe, 0x01];

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, Opcode::Binary, payload, Some(KEY));
    bytes[0] = first;
    bytes
}

/// Events up to the end or the failure of `bytes`, which come in pieces of `piece`.
fn events(bytes: &[u8], piece: usize) -> Vec<Result<Event, CloseCode>> {
    let mut decoder = Decoder::new(Role::Server, 1 << 20);
    let mut found = Vec::new();
    for mut rest in bytes.chunks(piece.max(1)) {
        loop {
            let (used, step) = decoder.step(rest);
            rest = &rest[used..];
            match step {
                Step::NeedMore => {
                    assert!(rest.is_empty(), "all is taken");
                    break;
                }
                Step::Done(event) => found.push(Ok(event)),
                Step::Fail(failure) => {
                    found.push(Err(failure.code));
                    return found;
                }
            }
        }
    }
    found
}

fn all(parts: &[Vec<u8>]) -> Vec<Result<Event, CloseCode>> {
    let bytes = parts.concat();
    let whole = events(&bytes, usize::MAX);
    for piece in [1, 2, 3, 7] {
        assert_eq!(events(&bytes, piece), whole, "in pieces of {piece}");
    }
    whole
}

fn text(payload: &[u8]) -> Result<Event, CloseCode> {
    Ok(Event::Message { is_text: true, payload: payload.into() })
}

fn binary(payload: &[u8]) -> Result<Event, CloseCode> {
    Ok(Event::Message { is_text: false, payload: payload.into() })
}

const BROKEN: Result<Event, CloseCode> = Err(CloseCode::PROTOCOL_ERROR);
const NO_TEXT: Result<Event, CloseCode> = Err(CloseCode::INVALID_TEXT);

#[test]
fn class_1_messages_of_every_length_form() {
    for len in [0, 125, 126, 127, 128, 65535, 65536] {
        assert_eq!(all(&[frame(0x81, &vec![b'*'; len])]), [text(&vec![b'*'; len])]);
        assert_eq!(all(&[frame(0x82, &vec![0xfe; len])]), [binary(&vec![0xfe; len])]);
    }
}

#[test]
fn class_2_pings_and_pongs() {
    assert_eq!(all(&[frame(0x89, b"")]), [Ok(Event::Ping(vec![]))]);
    assert_eq!(all(&[frame(0x89, &[0xff; 125])]), [Ok(Event::Ping(vec![0xff; 125]))]);
    assert_eq!(all(&[frame(0x89, &[0; 126])]), [BROKEN]);
    assert_eq!(all(&[frame(0x8a, b"unasked")]), [Ok(Event::Pong(b"unasked".into()))]);
    assert_eq!(all(&vec![frame(0x89, b"x"); 10]).len(), 10);
}

#[test]
fn class_3_reserved_bits() {
    for bit in [0x10, 0x20, 0x40, 0x70] {
        assert_eq!(all(&[frame(0x81, b"a"), frame(0x81 | bit, b"b")]), [text(b"a"), BROKEN]);
    }
}

#[test]
fn class_4_reserved_opcodes() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(all(&[frame(0x81, b"a"), frame(0x80 | opcode, b"")]), [text(b"a"), BROKEN]);
    }
}

#[test]
fn class_5_fragments() {
    assert_eq!(all(&[frame(0x01, b"a"), frame(0x80, b"b")]), [text(b"ab")]);
    let between = [frame(0x01, b"a"), frame(0x89, b"p"), frame(0x00, b"b"), frame(0x80, b"")];
    assert_eq!(all(&between), [Ok(Event::Ping(b"p".into())), text(b"ab")]);
    assert_eq!(all(&[frame(0x09, b"a"), frame(0x80, b"b")]), [BROKEN], "a ping in fragments");
    assert_eq!(all(&[frame(0x80, b"a")]), [BROKEN], "nothing to go on with");
    assert_eq!(all(&[frame(0x00, b"a"), frame(0x81, b"b")]), [BROKEN]);
    assert_eq!(all(&[frame(0x01, b"a"), frame(0x81, b"b")]), [BROKEN], "two at once");
}

#[test]
fn class_6_text_is_utf8_and_known_early() {
    let greek = "κόσμε".as_bytes();
    let by_byte: Vec<Vec<u8>> = greek
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            let last = if at + 1 == greek.len() { 0x80 } else { 0 };
            frame(last | if at == 0 { 1 } else { 0 }, &[*byte])
        })
        .collect();
    assert_eq!(all(&by_byte), [text(greek)]);
    for wrong in [&b"\xed\xa0\x80"[..], b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xff", b"\xce", b"a\xfe"] {
        assert_eq!(all(&[frame(0x81, wrong)]), [NO_TEXT], "{wrong:x?}");
    }
    // Before the frame, let alone the message, has come to its end.
    let mut cut = frame(0x01, b"ok\xf4\x90....");
    cut.truncate(6 + 4);
    assert_eq!(events(&cut, 1), [NO_TEXT]);
    assert_eq!(all(&[frame(0x82, b"\xff")]), [binary(b"\xff")]);
}

#[test]
fn class_7_closes() {
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes(), reason].concat());
    assert_eq!(all(&[frame(0x88, b"")]), [Ok(Event::Close(None))]);
    assert_eq!(all(&[frame(0x88, b"x")]), [BROKEN]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let event = Event::Close(CloseCode::on_the_wire(code));
        assert_eq!(all(&[close(code, b"why"), frame(0x89, b"after")]), [Ok(event)], "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(all(&[close(code, b"")]), [BROKEN], "{code}");
    }
    assert_eq!(all(&[close(1000, b"\xce\xba\xff")]), [NO_TEXT]);
    assert_eq!(all(&[close(1000, &[b'*'; 124])]), [BROKEN], "126 bytes");
}

#[test]
fn class_10_a_message_in_many_small_pieces() {
    let payload = vec![b'*'; 65536];
    assert_eq!(events(&frame(0x81, &payload), 1300), [text(&payload)]);
}

#[test]
fn what_is_too_long_fails_by_its_head() {
    let mut decoder = Decoder::new(Role::Server, 10);
    let (_, step) = decoder.step(&frame(0x02, &[0; 6]));
    assert_eq!(step, Step::NeedMore);
    let (_, step) = decoder.step(&frame(0x80, &[0; 5])[..6]);
    assert!(matches!(step, Step::Fail(Failure { code: CloseCode::TOO_BIG, .. })), "{step:?}");
}

proptest! {
    #[test]
    fn cuts_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..60), piece in 1usize..20) {
        prop_assert_eq!(events(&bytes, piece), events(&bytes, usize::MAX));
    }

    #[test]
    fn fragments_are_joined(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6), piece in 1usize..50
    ) {
        let last = parts.len() - 1;
        let sent: Vec<u8> = parts
            .iter()
            .enumerate()
            .flat_map(|(at, part)| {
                frame(if at == last { 0x80 } else { 0 } | if at == 0 { 2 } else { 0 }, part)
            })
            .collect();
        prop_assert_eq!(events(&sent, piece), [binary(&parts.concat())]);
    }
}
