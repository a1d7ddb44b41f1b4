//! `GET /spy[?color]`: every stream that has a producer, in one text.
//!
//! ```text
//! START: build-7
//! build-7:
//! what build-7 says
//! END: build-7
//! ```
//!
//! The line with the id comes before bytes of another stream than the bytes before. With colours each stream
//! has the next one of nine, closed before and opened after every line end, and the first line is bold up to its
//! last colon. Bytes pass as they are. Lives on: the spy's shard.

use super::{Loom, answer};
use crate::net::http::Status;
use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::target::Param;
use crate::service::stream::{Id, Sight, SpyError, StoreError, What};

/// Shows everything, until the reader leaves or the daemon ends.
pub async fn spy(loom: &Loom, exchange: &mut Exchange) -> Result<(), Gone> {
    let is_coloured = Param::find(exchange.head().query(), "color").is_present();
    let mut spy = match loom.streams.spy(loom.settings().shown).await {
        Ok(spy) => spy,
        Err(SpyError::Store(error)) => return answer::store_error(exchange, &error).await,
        Err(error @ SpyError::TooSlow) => {
            return answer::error(exchange, Status::SERVICE_UNAVAILABLE, &error.to_string()).await;
        }
    };
    exchange.begin(Status::OK, Framing::Live).finish();
    let mut script = Script { is_coloured, last: None };
    loop {
        if !spy.has_more() {
            exchange.flush().await?;
        }
        let sight = match exchange.while_connected(spy.next()).await? {
            Ok(Some(sight)) => sight,
            Ok(None) => return exchange.finish(&[]).await,
            Err(error) => {
                tracing::warn!(%error, "a spy was cut");
                exchange.abandon();
                return Ok(());
            }
        };
        if let Err(error) = show(loom, exchange, &mut script, sight).await? {
            tracing::warn!(%error, "a spy was cut");
            exchange.abandon();
            return Ok(());
        }
    }
}

async fn show(
    loom: &Loom,
    exchange: &mut Exchange,
    script: &mut Script,
    sight: Sight,
) -> Result<Result<(), StoreError>, Gone> {
    let Sight { id, number, what } = sight;
    match what {
        What::Start => exchange.send(&script.line(b"START: ", &id, number)).await?,
        What::End => exchange.send(&script.line(b"END: ", &id, number)).await?,
        What::Bytes(range) if script.is_coloured => {
            let bytes = match loom.streams.load(&range).await {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error)),
            };
            let mut text = script.heading(&id);
            text.extend_from_slice(&bytes);
            exchange.send(&paint(&text, number)).await?;
        }
        What::Bytes(range) => {
            exchange.send(&script.heading(&id)).await?;
            exchange.send_stored(range).await?;
        }
    }
    Ok(Ok(()))
}

/// What was said so far, as far as it matters for what is said next.
struct Script {
    is_coloured: bool,
    /// Whose bytes came last.
    last: Option<Id>,
}

impl Script {
    fn line(&self, word: &[u8], id: &Id, number: u64) -> Vec<u8> {
        let line = [word, id.as_bytes(), b"\n"].concat();
        if self.is_coloured { paint(&line, number) } else { line }
    }

    /// What comes before bytes of `id`: its line, unless bytes of it came last.
    fn heading(&mut self, id: &Id) -> Vec<u8> {
        if self.last.as_ref() == Some(id) {
            return Vec::new();
        }
        self.last = Some(id.clone());
        [id.as_bytes(), b":\n"].concat()
    }
}

/// Black, red, green, yellow, blue, gray, magenta, cyan, white.
const COLOURS: [&[u8]; 9] = [b"30", b"31", b"32", b"33", b"34", b"90", b"35", b"36", b"37"];
const COLOUR_END: &[u8] = b"\x1b[39m";
const BOLD: &[u8] = b"\x1b[1m";
const BOLD_END: &[u8] = b"\x1b[22m";

/// `text` in the colour of the stream that was shown as number `number`.
fn paint(text: &[u8], number: u64) -> Vec<u8> {
    let colour = [b"\x1b[", COLOURS[(number % COLOURS.len() as u64) as usize], b"m"].concat();
    let mut painted = colour.clone();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let (line, has_end) = line.strip_suffix(b"\n").map_or((line, false), |line| (line, true));
        painted.extend_from_slice(line);
        if has_end {
            painted.extend_from_slice(&[COLOUR_END, b"\n", &colour].concat());
        }
    }
    painted.extend_from_slice(COLOUR_END);
    embolden(painted)
}

/// The first line bold up to its last colon, the colour's beginning included.
fn embolden(painted: Vec<u8>) -> Vec<u8> {
    let line = painted.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    match memchr::memrchr(b':', line) {
        None => painted,
        Some(colon) => {
            let (bold, rest) = painted.split_at(colon + 1);
            [BOLD, bold, BOLD_END, rest].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn script(is_coloured: bool) -> Script {
        Script { is_coloured, last: None }
    }

    fn id(text: &str) -> Id {
        Id::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_heading_stands_where_the_stream_changes() {
        let mut script = script(false);
        let headings: Vec<u8> =
            ["A", "A", "B", "A"].into_iter().flat_map(|name| script.heading(&id(name))).collect();
        assert_eq!(headings, b"A:\nB:\nA:\n");
        // A line about a stream is no bytes of it.
        assert_eq!(script.line(b"START: ", &id("B"), 0), b"START: B\n");
        assert_eq!(script.heading(&id("A")), b"");
    }

    #[test]
    fn colours_are_painted_to_the_byte() {
        for (text, painted) in [
            (&b"START: A\n"[..], &b"\x1b[1m\x1b[32mSTART:\x1b[22m A\x1b[39m\n\x1b[32m\x1b[39m"[..]),
            (b"A:\na1\n", b"\x1b[1m\x1b[32mA:\x1b[22m\x1b[39m\n\x1b[32ma1\x1b[39m\n\x1b[32m\x1b[39m"),
            (b"x\n", b"\x1b[32mx\x1b[39m\n\x1b[32m\x1b[39m"),
            (b"no end", b"\x1b[32mno end\x1b[39m"),
            (b"a:b: c\nd: e", b"\x1b[1m\x1b[32ma:b:\x1b[22m c\x1b[39m\n\x1b[32md: e\x1b[39m"),
            (b"a\nb: c", b"\x1b[32ma\x1b[39m\n\x1b[32mb: c\x1b[39m"),
        ] {
            assert_eq!(paint(text, 2).escape_ascii().to_string(), painted.escape_ascii().to_string());
        }
    }

    #[test]
    fn colours_come_in_their_order_and_again() {
        let shown: Vec<String> =
            (0..11).map(|number| String::from_utf8(paint(b"", number)).unwrap()).collect();
        let expected = [30, 31, 32, 33, 34, 90, 35, 36, 37, 30, 31].map(|c| format!("\x1b[{c}m\x1b[39m"));
        assert_eq!(shown, expected);
    }

    proptest! {
        /// Paint goes on, nothing comes off: without the escapes the text is what it was.
        #[test]
        fn paint_changes_no_byte_of_the_text(
            text in proptest::collection::vec(any::<u8>().prop_filter("no escapes", |byte| *byte != 0x1b), 0..80),
            number in 0..20u64,
        ) {
            let painted = paint(&text, number);
            let mut bare = Vec::new();
            let mut rest = painted.as_slice();
            while let Some((byte, after)) = rest.split_first() {
                if *byte == 0x1b {
                    let end = rest.iter().position(|byte| *byte == b'm').expect("an escape ends");
                    rest = &rest[end + 1..];
                } else {
                    bare.push(*byte);
                    rest = after;
                }
            }
            prop_assert_eq!(bare, text);
        }
    }
}
