//! A websocket's bytes give the same events and the same failure however they are cut.
//!
//! Invariant: the first byte chooses the size of the pieces; the rest is what a client sends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::net::websocket::{Decoder, Event, Failure, Role, Step};

const MESSAGE_MAX: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((&step, input)) = data.split_first() else { return };
    let whole = decode(std::iter::once(input));
    let pieces = decode(input.chunks(usize::from(step).max(1)));
    assert_eq!(whole, pieces);
});

fn decode<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, Option<Failure>) {
    let mut decoder = Decoder::new(Role::Server, MESSAGE_MAX);
    let mut events = Vec::new();
    for mut rest in parts {
        loop {
            let (used, step) = decoder.step(rest);
            rest = &rest[used..];
            match step {
                Step::NeedMore => {
                    assert!(rest.is_empty(), "all is taken");
                    break;
                }
                Step::Done(event) => {
                    if let Event::Message { is_text, payload } = &event {
                        assert!(payload.len() <= MESSAGE_MAX);
                        assert!(!is_text || std::str::from_utf8(payload).is_ok());
                    }
                    events.push(event);
                }
                Step::Fail(failure) => return (events, Some(failure)),
            }
        }
    }
    (events, None)
}
