//! Two sockets joined: each direction passes what comes, at the speed of whoever takes it.
//!
//! Up to [`COPY_MAX`] waiting bytes are copied, from the ring's provided buffers by one send; where more waits, bytes
//! go by splice through a pooled pipe until the sender falls behind for a while. A direction that cannot be written
//! to is not read from: that is all the back-pressure there is. Held per direction: 64 KiB copied or one pipe.
//!
//! | what happens at one side | what the other side sees |
//! |---|---|
//! | it ends its sending | the same, behind its last byte; the other direction goes on |
//! | it resets the connection | a reset |
//! | it takes no more, but still sends | the rest of what it sends, then an end; what comes for it is dropped |
//! | it ended its sending and then goes away | an end, at once |
//!
//! Invariant: an end never overtakes bytes, and a direction that broke never ends like one that is whole, as far as
//! the other side can tell. Nothing ends a connection for resting. Lives on: one task of the shard that accepted.

use crate::net::deadline::Deadline;
use crate::observe::metrics::{Dialect, ShardMetrics};
use crate::runtime::ring::poll::{self, HangUp};
use crate::runtime::ring::recv::{End, Receiver};
use crate::runtime::ring::socket::Socket;
use crate::runtime::ring::splice::Pipe;
use crate::runtime::{ring, shard, timer};
use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Waiting bytes up to this many are copied: the copy costs less than the system calls of a splice do.
const COPY_MAX: usize = 16 * 1024;
/// This many splices in a row that would have been copies send a direction back to copying.
const SHORT_SPLICES_MAX: u32 = 4;
/// A side that takes no more, or is gone, has this long and this much to let the other one read its last bytes.
const PART: Duration = Duration::from_secs(2);
const PART_BYTES_MAX: usize = 1 << 20;
/// How often a connection that is to be reset is asked whether its bytes have arrived; nobody tells.
const RESET_STEP: Duration = Duration::from_millis(5);

/// What a joined pair counts, and how long half of it may live.
pub struct Flow {
    /// Whose connections these are.
    pub dialect: Dialect,
    /// Where the shard counts.
    pub metrics: Arc<ShardMetrics>,
    /// After one side's end, the other direction ends once nothing has moved for this long; `None` is for ever.
    pub linger: Option<Duration>,
}

/// Why a direction ended before its sender did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    /// The side that sends broke.
    Source,
    /// The side that receives takes no more.
    Target,
}

/// One direction.
struct Direction<'a> {
    from: &'a Rc<Socket>,
    to: &'a Rc<Socket>,
    flow: &'a Flow,
    /// Whether it leads to the backend.
    is_up: bool,
    moved: Cell<u64>,
}

/// Passes bytes between `client` and `backend` until both directions have ended. `first` came from the client before
/// and goes first.
pub async fn join(client: &Rc<Socket>, backend: &Rc<Socket>, first: &[u8], flow: &Flow) {
    let up = Direction { from: client, to: backend, flow, is_up: true, moved: Cell::new(0) };
    let down = Direction { from: backend, to: client, flow, is_up: false, moved: Cell::new(0) };
    let (mut going_up, mut going_down) = (pin!(Some(up.run(first))), pin!(Some(down.run(&[]))));
    let ended = std::future::poll_fn(|cx| match poll(going_up.as_mut(), cx) {
        Poll::Ready(ended) => Poll::Ready((true, ended)),
        Poll::Pending => poll(going_down.as_mut(), cx).map(|ended| (false, ended)),
    });
    match ended.await {
        // Apart: what an end takes is not kept ready by every pair that rests.
        (true, ended) => Box::pin(up.settle(ended, &down, going_down)).await,
        (false, ended) => Box::pin(down.settle(ended, &up, going_up)).await,
    }
}

/// Polls a direction that is still going.
fn poll<F: Future>(going: Pin<&mut Option<F>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    going.as_pin_mut().map_or(Poll::Pending, |going| going.poll(cx))
}

impl Direction<'_> {
    /// Sees the other direction to its end after this one has `ended`.
    async fn settle<F: Future<Output = Result<(), Broken>>>(
        &self,
        ended: Result<(), Broken>,
        other: &Direction<'_>,
        mut going: Pin<&mut Option<F>>,
    ) {
        let others = match ended {
            Ok(()) => self.outlive(other, going.as_mut()).await,
            Err(Broken::Source) => None,
            Err(Broken::Target) => Some(std::future::poll_fn(|cx| poll(going.as_mut(), cx)).await),
        };
        going.set(None);
        match (ended, others) {
            (Ok(()), Some(Ok(()))) => {}
            // What was passed on is out, its end too: it must not be lost to a reset from here.
            (Ok(()), Some(Err(Broken::Target)) | None) => part(self.to).await,
            (Err(Broken::Source), _) => reset(self.to).await,
            (_, Some(Err(Broken::Source))) => reset(self.from).await,
            (Err(Broken::Target), _) => part(self.from).await,
        }
    }

    /// This direction has ended: the other one goes on, unless there is nobody left to receive it, or nothing moves.
    async fn outlive<F: Future<Output = Result<(), Broken>>>(
        &self,
        other: &Direction<'_>,
        mut going: Pin<&mut Option<F>>,
    ) -> Option<Result<(), Broken>> {
        let gone = HangUp::of(self.from);
        let mut quiet = self.flow.linger.map(|linger| (linger, Deadline::new(shard::now() + linger)));
        let mut moved = other.moved.get();
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ended) = poll(going.as_mut(), cx) {
                return Poll::Ready(Some(ended));
            }
            if gone.poll_gone(cx).is_ready() {
                return Poll::Ready(None);
            }
            let Some((linger, deadline)) = &mut quiet else { return Poll::Pending };
            if std::mem::replace(&mut moved, other.moved.get()) != moved {
                deadline.set(shard::now() + *linger);
            }
            deadline.poll_passed(cx).map(|()| None)
        })
        .await
    }

    /// Passes everything on, and the end at last.
    async fn run(&self, first: &[u8]) -> Result<(), Broken> {
        let receiver = Receiver::frugal(self.from.clone());
        self.send(first).await?;
        loop {
            receiver.more_than(0).await;
            let mut is_plenty = receiver.buffered_len() > COPY_MAX;
            if !is_plenty {
                self.copy(&receiver).await?;
                is_plenty = receiver.is_overfull();
            }
            if is_plenty {
                Box::pin(receiver.stop()).await;
                self.copy(&receiver).await?;
            }
            match receiver.end() {
                Some(End::Finished) => break,
                Some(End::Broken(_)) => return Err(Broken::Source),
                None => {}
            }
            // Apart, as above: of ten thousand pairs few have much to pass on.
            if is_plenty && Box::pin(self.splice()).await? == Spliced::End {
                break;
            }
        }
        self.to.finish_sending();
        Ok(())
    }

    /// Passes on what is in the inbox, until it is empty.
    async fn copy(&self, receiver: &Receiver) -> Result<(), Broken> {
        while receiver.buffered_len() > 0 {
            let sent = self.to.send_now(&receiver.buffered());
            match sent {
                Ok(Some(len)) => {
                    receiver.consume(len);
                    self.note(len);
                }
                Ok(None) => poll::writable(self.to).await,
                Err(_) => return Err(Broken::Target),
            }
        }
        Ok(())
    }

    async fn send(&self, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match self.to.send_now(bytes) {
                Ok(Some(len)) => {
                    bytes = &bytes[len..];
                    self.note(len);
                }
                Ok(None) => poll::writable(self.to).await,
                Err(_) => return Err(Broken::Target),
            }
        }
        Ok(())
    }

    /// Passes on without a copy as long as much comes. Nothing is left in the pipe at the end.
    async fn splice(&self) -> Result<Spliced, Broken> {
        let mut short = 0;
        while short < SHORT_SPLICES_MAX {
            let Some(mut pipe) = Pipe::take() else { return Ok(Spliced::Little) };
            loop {
                match pipe.fill(self.from) {
                    Ok(Some(0)) => return Ok(Spliced::End),
                    Ok(Some(len)) => short = if len <= COPY_MAX { short + 1 } else { 0 },
                    Ok(None) => break,
                    Err(_) => return Err(Broken::Source),
                }
                while pipe.held() > 0 {
                    match pipe.drain(self.to) {
                        Ok(Some(len)) => self.note(len),
                        Ok(None) => poll::writable(self.to).await,
                        Err(_) => return Err(Broken::Target),
                    }
                }
                shard::yield_now().await;
            }
            drop(pipe);
            if short < SHORT_SPLICES_MAX {
                poll::more(self.from).await;
            }
        }
        Ok(Spliced::Little)
    }

    fn note(&self, len: usize) {
        self.moved.set(self.moved.get() + len as u64);
        let Flow { dialect, metrics, .. } = self.flow;
        let bytes = if self.is_up { &metrics.received_bytes } else { &metrics.sent_bytes };
        bytes.of(*dialect).add(len as u64);
    }
}

/// Why a direction does not splice any more.
#[derive(PartialEq, Eq)]
enum Spliced {
    /// Its sender has ended.
    End,
    /// What comes is better copied, or there is no pipe.
    Little,
}

/// Lets a peer have what was sent to it, and its end, before the socket goes: closing it with unread bytes would reset the
/// connection under them.
pub async fn part(socket: &Rc<Socket>) {
    socket.finish_sending();
    let discard = async {
        let mut discarded = 0;
        while discarded < PART_BYTES_MAX {
            let received = socket.receive_now(&mut ring::current().window());
            match received {
                Ok(Some(0)) | Err(_) => return,
                Ok(Some(len)) => discarded += len,
                Ok(None) => poll::readable(socket).await,
            }
        }
    };
    timer::until(shard::now() + PART, discard).await;
}

/// Passes a reset on, behind the bytes that came before it: a reset of ours would throw away what is still on its way.
async fn reset(socket: &Rc<Socket>) {
    let arrived = async {
        while socket.on_the_way() > 0 {
            timer::sleep(RESET_STEP).await;
        }
    };
    timer::until(shard::now() + PART, arrived).await;
    socket.reset_when_closed();
}
