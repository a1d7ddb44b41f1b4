//! Frames to messages: fragments joined, control frames in between, text checked as it comes.
//!
//! Invariant: whatever way the bytes are cut, the events are the same; a message never grows beyond the bound, and a
//! frame that would make it do so fails by its head. After a failure or a close nothing is read.
//! Pure; runs on any shard.

use super::frame::{self, FrameHead, HEAD_MAX, Opcode, Role};
use super::utf8::Utf8;
use super::{CloseCode, Failure, mask};

/// What a peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole message.
    Message {
        /// Whether it came as text; it is UTF-8 then.
        is_text: bool,
        /// What it says.
        payload: Vec<u8>,
    },
    /// To be answered with the same bytes.
    Ping(Vec<u8>),
    /// An answer to a ping.
    Pong(Vec<u8>),
    /// The end, to be answered with the same code.
    Close(Option<CloseCode>),
}

/// What a look at bytes brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All bytes were taken; more are needed.
    NeedMore,
    /// An event; bytes may be left.
    Done(Event),
    /// The peer broke the protocol; say so and leave.
    Fail(Failure),
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    message_max: usize,
    /// A head that has begun.
    head: [u8; HEAD_MAX],
    head_len: usize,
    /// The frame whose payload comes, and how much of it has.
    frame: Option<(FrameHead, u64)>,
    message: Vec<u8>,
    /// Whether the message that has begun is text; `None` between messages.
    kind: Option<bool>,
    text: Utf8,
    control: Vec<u8>,
    is_over: bool,
}

impl Decoder {
    /// For what is sent to `role`, with messages of at most `message_max` bytes.
    pub fn new(role: Role, message_max: usize) -> Self {
        Decoder {
            role,
            message_max,
            head: [0; HEAD_MAX],
            head_len: 0,
            frame: None,
            message: Vec::new(),
            kind: None,
            text: Utf8::default(),
            control: Vec::new(),
            is_over: false,
        }
    }

    /// Looks at `input`; with what it brought, how many bytes were taken.
    pub fn step(&mut self, input: &[u8]) -> (usize, Step) {
        let mut used = 0;
        while !self.is_over {
            let (taken, outcome) = match self.frame {
                None => self.step_head(&input[used..]),
                Some((head, at)) => self.step_payload(head, at, &input[used..]),
            };
            used += taken;
            match outcome {
                Ok(Some(event)) => {
                    self.is_over = matches!(event, Event::Close(_));
                    return (used, Step::Done(event));
                }
                Ok(None) if used == input.len() && !self.has_whole_frame() => break,
                Ok(None) => {}
                Err(failure) => {
                    self.is_over = true;
                    return (used, Step::Fail(failure));
                }
            }
        }
        // What follows the end is nobody's.
        (input.len(), Step::NeedMore)
    }

    fn has_whole_frame(&self) -> bool {
        self.frame.is_some_and(|(head, at)| at == head.len)
    }

    fn step_head(&mut self, input: &[u8]) -> (usize, Result<Option<Event>, Failure>) {
        let more = input.len().min(HEAD_MAX - self.head_len);
        self.head[self.head_len..self.head_len + more].copy_from_slice(&input[..more]);
        match frame::parse(&self.head[..self.head_len + more], self.role) {
            Ok(None) => {
                self.head_len += more;
                (more, Ok(None))
            }
            Ok(Some((head, len))) => {
                let taken = len - self.head_len;
                self.head_len = 0;
                (taken, self.open(head).map(|()| None))
            }
            Err(failure) => (0, Err(failure)),
        }
    }

    /// A frame whose payload comes next.
    fn open(&mut self, head: FrameHead) -> Result<(), Failure> {
        match (head.opcode, self.kind) {
            (Opcode::Continuation, None) => return Err(Failure::protocol("nothing has begun that goes on")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Failure::protocol("the message before has not ended"));
            }
            (Opcode::Text | Opcode::Binary, None) => {
                self.kind = Some(head.opcode == Opcode::Text);
                self.text = Utf8::default();
            }
            _ => {}
        }
        if !head.opcode.is_control() && head.len > (self.message_max - self.message.len()) as u64 {
            return Err(Failure { code: CloseCode::TOO_BIG, reason: "the message is longer than is taken" });
        }
        self.frame = Some((head, 0));
        Ok(())
    }

    fn step_payload(
        &mut self,
        head: FrameHead,
        at: u64,
        input: &[u8],
    ) -> (usize, Result<Option<Event>, Failure>) {
        let left = usize::try_from(head.len - at).unwrap_or(usize::MAX);
        let taken = left.min(input.len());
        let into = if head.opcode.is_control() { &mut self.control } else { &mut self.message };
        let start = into.len();
        into.extend_from_slice(&input[..taken]);
        if let Some(key) = head.mask {
            mask::apply(key, at, &mut into[start..]);
        }
        if !head.opcode.is_control()
            && self.kind == Some(true)
            && self.text.push(&self.message[start..]).is_err()
        {
            return (taken, Err(NOT_TEXT));
        }
        self.frame = Some((head, at + taken as u64));
        if taken < left {
            return (taken, Ok(None));
        }
        self.frame = None;
        (taken, self.close(head))
    }

    /// A frame that is whole.
    fn close(&mut self, head: FrameHead) -> Result<Option<Event>, Failure> {
        Ok(match head.opcode {
            Opcode::Ping => Some(Event::Ping(std::mem::take(&mut self.control))),
            Opcode::Pong => Some(Event::Pong(std::mem::take(&mut self.control))),
            Opcode::Close => Some(Event::Close(close_code(&std::mem::take(&mut self.control))?)),
            Opcode::Text | Opcode::Binary | Opcode::Continuation if !head.is_last => None,
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                let is_text = self.kind.take() == Some(true);
                if is_text && !self.text.is_whole() {
                    return Err(NOT_TEXT);
                }
                Some(Event::Message { is_text, payload: std::mem::take(&mut self.message) })
            }
        })
    }
}

const NOT_TEXT: Failure = Failure { code: CloseCode::INVALID_TEXT, reason: "a text message is not UTF-8" };

fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Failure> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        [_] => return Err(Failure::protocol("a close frame has no byte or at least two")),
    };
    let code = CloseCode::on_the_wire(code).ok_or(Failure::protocol("no such close code"))?;
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Failure { code: CloseCode::INVALID_TEXT, reason: "the reason to close is not UTF-8" }),
    }
}

#[cfg(test)]
mod tests;
