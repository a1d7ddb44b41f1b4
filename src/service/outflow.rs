//! Stored bytes on their way out: piece after piece, as they come and as the peer takes them.
//!
//! Invariant: while a reader waits, what was sent before is out, and a peer that goes away ends the wait. Nothing is
//! queued for a slow one. Lives on: the reader's shard.

use crate::net::http::exchange::{Exchange, Gone};
use crate::runtime::FileRange;
use crate::service::stream::{Look, state_text};
use crate::storage::State;
use std::future::Future;

/// The trailers that an answer has which goes on until its stream ends, as `Trailer` announces them.
pub const TRAILERS: &str = "X-Stream-State, Stream-Next-Offset, Stream-Closed";

/// Ends such an answer with how the stream stands at `offset`.
pub async fn finish_at_end(exchange: &mut Exchange, state: State, offset: u64) -> Result<(), Gone> {
    let offset = offset.to_string();
    let trailers =
        [("X-Stream-State", state_text(state)), ("Stream-Next-Offset", &offset), ("Stream-Closed", "true")];
    // The last one only where nothing can follow any more.
    let count = if state == State::Complete { 3 } else { 2 };
    exchange.finish(&trailers[..count]).await
}

/// What comes next.
#[derive(Debug)]
pub enum Piece {
    /// Bytes that lie in a file, and in memory.
    Stored(FileRange),
    /// Bytes that lie in no file of ours.
    Loaded(Vec<u8>),
    /// Nothing any more.
    End(State),
}

impl From<Look> for Piece {
    fn from(look: Look) -> Self {
        match look {
            Look::Ready(range) => Piece::Stored(range),
            Look::End(state) => Piece::End(state),
        }
    }
}

/// Something that gives its bytes in order.
pub trait Source {
    /// Why it cannot be read.
    type Error;

    /// What is there without waiting.
    fn look(&mut self) -> Result<Option<Piece>, Self::Error>;

    /// Waits for what comes next. May be dropped at any time.
    fn next(&mut self) -> impl Future<Output = Result<Piece, Self::Error>>;
}

/// Sends what `source` gives to its end, and says how that was; an error is one of reading. `first` is what was looked at
/// before the head of the answer was written.
pub async fn send<S: Source>(
    exchange: &mut Exchange,
    source: &mut S,
    first: Option<Piece>,
) -> Result<Result<State, S::Error>, Gone> {
    let mut next = first.map(Ok);
    loop {
        let look = match next.take() {
            Some(look) => look,
            None => match source.look() {
                Ok(Some(look)) => Ok(look),
                Ok(None) => {
                    exchange.flush().await?;
                    exchange.while_connected(source.next()).await?
                }
                Err(error) => Err(error),
            },
        };
        match look {
            Ok(Piece::Stored(range)) => exchange.send_stored(range).await?,
            Ok(Piece::Loaded(bytes)) => exchange.send(&bytes).await?,
            Ok(Piece::End(state)) => return Ok(Ok(state)),
            Err(error) => return Ok(Err(error)),
        }
    }
}
