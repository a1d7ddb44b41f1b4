//! `millpond stream`: the plain producer, one `POST` with stdin as its body.
//!
//! It prints status and message of the answer as soon as they come, then the answer's body; it speaks
//! to any loom server and never reconnects (`pipe` does). The exit code is 0 when the answer ended
//! properly with a 2xx status, else 1.
//!
//! Runs in: a process of its own, on one thread around one `poll`.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags};

use super::args::StreamArgs;
use super::client::body::Body;
use super::client::console::{self, Input, Output};
use super::client::frame::Frame;
use super::client::place::{Misnamed, Place};
use super::client::socket::{Socket, Trouble};

const READ_BYTES: usize = 256 * 1024;
const LINES: &str = "Connection: keep-alive\r\nX-Stream-Metadata: {}\r\nTransfer-Encoding: chunked\r\n";

/// Runs the command.
pub fn run(args: StreamArgs) -> ExitCode {
    match send(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            console::say("stream", &failure);
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    Misnamed(Misnamed),
    Trouble(Trouble),
    Input(io::Error),
    Output(io::Error),
}

/// The answer on its way in.
#[derive(Default)]
struct Incoming {
    body: Option<Body>,
    success: bool,
}

fn send(args: &StreamArgs) -> Result<bool, Failure> {
    let place = Place::new(&args.url, &args.id, None).map_err(Failure::Misnamed)?;
    let query = if args.force { "force=true" } else { "" };
    let mut socket = Socket::connect(&place.peer).map_err(Failure::Trouble)?;
    socket.send(&place.request("POST", query, LINES)).map_err(Failure::Trouble)?;

    let mut chunk = vec![0; READ_BYTES];
    let (mut frame, mut start, mut len) = (Frame::default(), 0, 0);
    let mut input_ended = false;
    let mut incoming = Incoming::default();
    loop {
        while !frame.is_done() {
            let slices = frame.slices([IoSlice::new(&chunk[start..len]), IoSlice::new(&[])]);
            match socket.write(&slices) {
                Ok(Some(written)) => start += frame.wrote(written) as usize,
                Ok(None) => break,
                // An answer that has come explains why the writing fails.
                Err(trouble) => {
                    return if incoming.read(&mut socket)? {
                        Ok(incoming.success)
                    } else {
                        Err(Failure::Trouble(trouble))
                    };
                }
            }
        }
        let reading = frame.is_done() && !input_ended;
        let output = if frame.is_done() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds = vec![PollFd::new(&socket, output)];
        if reading {
            fds.push(PollFd::from_borrowed_fd(Input.fd(), PollFlags::IN));
        }
        console::wait(&mut fds, None).map_err(Failure::Input)?;
        let answered = fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        let readable = reading && !fds[1].revents().is_empty();
        drop(fds);
        // The answer first: one that has ended makes further input pointless.
        if answered && incoming.read(&mut socket)? {
            return Ok(incoming.success);
        }
        if readable {
            match Input.read(&mut [IoSliceMut::new(&mut chunk)]).map_err(Failure::Input)? {
                Some(0) => (frame, start, len, input_ended) = (Frame::last(), 0, 0, true),
                Some(read) => (frame, start, len) = (Frame::chunk(read as u64), 0, read),
                None => {}
            }
        }
    }
}

impl Incoming {
    /// Prints what has come of the answer; true at its end.
    fn read(&mut self, socket: &mut Socket) -> Result<bool, Failure> {
        loop {
            let got = socket.fill();
            if self.print(socket)? {
                return Ok(true);
            }
            match got {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(false),
                Err(Trouble::Closed) if self.body.as_ref().is_some_and(Body::is_until_close) => {
                    return Ok(true);
                }
                Err(trouble) => return Err(Failure::Trouble(trouble)),
            }
        }
    }

    fn print(&mut self, socket: &mut Socket) -> Result<bool, Failure> {
        let body = match &mut self.body {
            Some(body) => body,
            none => {
                let Some(answer) = socket.take_answer().map_err(Failure::Trouble)? else { return Ok(false) };
                let line = format!("{} {}\n", answer.status, answer.reason);
                Output.write_all(&mut [IoSlice::new(line.as_bytes())]).map_err(Failure::Output)?;
                self.success = answer.is_success();
                none.insert(answer.body(false).map_err(|garbled| Failure::Trouble(garbled.into()))?)
            }
        };
        let input = socket.take_read();
        let mut at = 0;
        while at < input.len() && !body.ended() {
            let step = body.step(&input[at..]).map_err(|garbled| Failure::Trouble(garbled.into()))?;
            Output.write_all(&mut [IoSlice::new(&input[at..][step.payload])]).map_err(Failure::Output)?;
            at += step.used;
        }
        Ok(body.ended())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misnamed(why) => why.fmt(f),
            Self::Trouble(trouble) => trouble.fmt(f),
            Self::Input(error) => write!(f, "cannot read stdin: {error}"),
            Self::Output(error) => write!(f, "cannot write to stdout: {error}"),
        }
    }
}
