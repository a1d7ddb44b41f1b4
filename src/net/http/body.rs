//! Reads a message's body from its connection, piece by piece.
//!
//! Invariant: not a byte beyond the body's end is taken, and an end that framing did not announce is an error.
//! Memory does not depend on the body: payload lies in the inbox or the shard's window while it is looked at.
//! Lives on: the connection's shard.

use super::chunked::{ChunkLimits, ChunkedDecoder, Piece};
use super::{Refusal, Step};
use crate::net::stream::Stream;

/// Most body bytes taken in one step.
const PIECE_MAX: usize = 256 * 1024;

/// What a step of reading the body brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyStep {
    /// This many payload bytes; zero when only framing arrived.
    Bytes(usize),
    /// The body is complete.
    End,
}

/// Why a body cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The peer vanished, or ended before the announced length.
    Gone,
    /// The framing is broken; the connection cannot be used any more.
    Refused(Refusal),
}

/// How far a body has been read.
#[derive(Debug)]
pub(super) enum BodyReader {
    Exact { left: u64 },
    Chunked(ChunkedDecoder),
    UntilClose,
    Done,
    Failed(BodyError),
}

impl BodyReader {
    /// Of a body of `len` bytes.
    pub fn exact(len: u64) -> BodyReader {
        if len == 0 { BodyReader::Done } else { BodyReader::Exact { left: len } }
    }

    /// Of a chunked one.
    pub fn chunked() -> BodyReader {
        BodyReader::Chunked(ChunkedDecoder::new(ChunkLimits::default()))
    }

    /// What is known without waiting: the end, or that there is none to be had.
    pub fn settled(&self) -> Option<Result<BodyStep, BodyError>> {
        match self {
            BodyReader::Done => Some(Ok(BodyStep::End)),
            BodyReader::Failed(error) => Some(Err(*error)),
            BodyReader::Exact { .. } | BodyReader::Chunked(_) | BodyReader::UntilClose => None,
        }
    }

    /// Gives what has arrived to `take`, in one or several pieces, waiting if nothing has.
    pub async fn step(
        &mut self,
        stream: &Stream,
        mut take: impl FnMut(&[u8]),
    ) -> Result<BodyStep, BodyError> {
        let step = match self {
            BodyReader::Exact { left } => read_exact(stream, left, &mut take).await,
            BodyReader::Chunked(decoder) => read_chunked(stream, decoder, &mut take).await,
            BodyReader::UntilClose => read_until_close(stream, &mut take).await,
            BodyReader::Done => return Ok(BodyStep::End),
            BodyReader::Failed(error) => return Err(*error),
        };
        match step {
            Ok(BodyStep::Bytes(_)) => {}
            Ok(BodyStep::End) => *self = BodyReader::Done,
            Err(error) => *self = BodyReader::Failed(error),
        }
        step
    }
}

async fn read_exact(
    stream: &Stream,
    left: &mut u64,
    take: &mut impl FnMut(&[u8]),
) -> Result<BodyStep, BodyError> {
    if *left == 0 {
        return Ok(BodyStep::End);
    }
    let max = usize::try_from(*left).unwrap_or(PIECE_MAX).min(PIECE_MAX);
    match take_piece(stream, max, take).await? {
        Some(len) => {
            *left -= len as u64;
            Ok(BodyStep::Bytes(len))
        }
        None => Err(BodyError::Gone),
    }
}

async fn read_until_close(stream: &Stream, take: &mut impl FnMut(&[u8])) -> Result<BodyStep, BodyError> {
    Ok(take_piece(stream, PIECE_MAX, take).await?.map_or(BodyStep::End, BodyStep::Bytes))
}

async fn take_piece(
    stream: &Stream,
    max: usize,
    take: &mut impl FnMut(&[u8]),
) -> Result<Option<usize>, BodyError> {
    let piece = stream.next_piece(max, |bytes| {
        take(bytes);
        bytes.len()
    });
    piece.await.map_err(|_| BodyError::Gone)
}

async fn read_chunked(
    stream: &Stream,
    decoder: &mut ChunkedDecoder,
    take: &mut impl FnMut(&[u8]),
) -> Result<BodyStep, BodyError> {
    if decoder.is_done() {
        return Ok(BodyStep::End);
    }
    let mut payload = 0;
    let mut refused = None;
    let piece = stream.next_piece(PIECE_MAX, |bytes| {
        let mut used = 0;
        while used < bytes.len() && !decoder.is_done() {
            match decoder.step(&bytes[used..]) {
                Step::Done(Piece::Payload { skip, len }) => {
                    if len > 0 {
                        take(&bytes[used + skip..used + skip + len]);
                    }
                    payload += len;
                    used += skip + len;
                }
                Step::Done(Piece::End { skip }) => used += skip,
                Step::NeedMore => break,
                Step::Refuse(refusal) => {
                    refused = Some(refusal);
                    break;
                }
            }
        }
        used
    });
    let arrived = piece.await;
    match (refused, arrived) {
        (Some(refusal), _) => Err(BodyError::Refused(refusal)),
        (None, Ok(Some(_))) if payload == 0 && decoder.is_done() => Ok(BodyStep::End),
        (None, Ok(Some(_))) => Ok(BodyStep::Bytes(payload)),
        (None, Ok(None) | Err(_)) => Err(BodyError::Gone),
    }
}
