//! From a FIFO into its stream, until the last writer has closed.
//!
//! Invariant: bytes are stored in the order in which they were taken, each once, also across a kill: what the file beside
//! the FIFO has beyond the stream is stored before anything else is taken. Lives on: a task of the output's shard.

use super::{Output, Outputs, Over};
use crate::runtime::gate::Pass;
use crate::runtime::ring::fifo::Take;
use crate::runtime::{ring, shard};
use crate::service::stream::{ProduceError, Producer};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// Why a pump stops.
enum Stopped {
    /// Nobody writes any more.
    End,
    /// The daemon ends.
    Closing,
    /// The store takes no more.
    Refused(ProduceError),
    /// The FIFO or its file cannot be read.
    Broken(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Stopped::Broken(error)
    }
}

/// What ended a wait.
#[derive(PartialEq, Eq)]
enum Woken {
    Fifo,
    Change,
}

impl Outputs {
    pub(super) async fn pump(
        self: Rc<Self>,
        output: Rc<Output>,
        mut producer: Producer,
        mut had_writer: bool,
        _pass: Pass,
    ) {
        self.metrics.outputs_open.inc();
        let over = match self.pass_on(&output, &mut producer, &mut had_writer).await {
            Stopped::End => self.end(&output, producer).await,
            Stopped::Closing => Over::Cut,
            Stopped::Refused(error) => {
                tracing::error!(id = %output.id, %error, "output is lost from here on");
                self.lose(&output, producer).await
            }
            Stopped::Broken(error) => {
                tracing::error!(id = %output.id, %error, "output is lost from here on");
                self.lose(&output, producer).await
            }
        };
        self.metrics.outputs_open.dec();
        output.over.set(Some(over));
        output.changed.notify_all();
    }

    async fn pass_on(&self, output: &Rc<Output>, producer: &mut Producer, had_writer: &mut bool) -> Stopped {
        match self.try_pass_on(output, producer, had_writer).await {
            Ok(()) => Stopped::End,
            Err(stopped) => stopped,
        }
    }

    async fn try_pass_on(
        &self,
        output: &Rc<Output>,
        producer: &mut Producer,
        had_writer: &mut bool,
    ) -> Result<(), Stopped> {
        let fifo = &output.fifo;
        // The file has the stream's bytes at their offsets. Only a power failure could part the two, and takes the
        // writers along.
        let is_aligned = producer.start() <= fifo.taken() && fifo.has_from(producer.start());
        let mut stored = if is_aligned { producer.start() } else { fifo.taken() };
        let mut is_removed = false;
        loop {
            if stored < fifo.taken() {
                let ring = ring::current();
                let window = &mut ring.window()[..];
                let want = usize::try_from(fifo.taken() - stored).unwrap_or(usize::MAX).min(window.len());
                let len = fifo.read(stored, &mut window[..want])?;
                producer.take(&window[..len]);
                stored += len as u64;
                self.metrics.output_bytes.add(len as u64);
            }
            producer.make_room().await.map_err(Stopped::Refused)?;
            if stored < fifo.taken() {
                continue;
            }
            if is_aligned {
                fifo.forget(output.tail.published());
            }
            self.hold_back(output).await?;
            match fifo.take()? {
                Take::Bytes(_) => {
                    *had_writer = true;
                    shard::yield_now().await;
                }
                Take::Nothing => {
                    *had_writer = true;
                    self.wait(output).await?;
                }
                Take::NoWriter if *had_writer => return Ok(()),
                Take::NoWriter if is_removed => return Ok(()),
                Take::NoWriter if output.client_at.get().is_none() => {
                    // Nobody wrote, and who asked is gone. Whoever opened it until now is found by a last look.
                    self.remove(fifo.path().to_owned()).await;
                    is_removed = true;
                }
                Take::NoWriter => *had_writer |= self.wait(output).await? == Woken::Fifo,
            }
        }
    }

    /// Waits as long as the client is there and too far behind.
    async fn hold_back(&self, output: &Output) -> Result<(), Stopped> {
        if !output.holds_back() {
            return Ok(());
        }
        let since = shard::now();
        while output.holds_back() {
            let changed = output.changed.wait();
            self.unless_closing(changed).await?;
        }
        self.metrics.output_blocked.record(shard::now().since(since));
        Ok(())
    }

    /// Waits for the FIFO, or for the client to go.
    async fn wait(&self, output: &Output) -> Result<Woken, Stopped> {
        let changed = output.changed.wait();
        let (mut readable, mut changed) = (pin!(output.fifo.readable()), pin!(changed));
        self.unless_closing(std::future::poll_fn(|cx| match readable.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Woken::Fifo),
            // Only its going matters: where it stands changes with everything it is sent.
            Poll::Pending => match changed.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Woken::Change),
                Poll::Pending => Poll::Pending,
            },
        }))
        .await
    }

    async fn unless_closing<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        crate::net::listener::unless_closing(&self.pumping, work).await.ok_or(Stopped::Closing)
    }

    /// Everything was taken: the stream ends, then the FIFO goes, and only then the client is told.
    async fn end(&self, output: &Output, producer: Producer) -> Over {
        let ended = producer.end().await;
        self.remove(output.fifo.path().to_owned()).await;
        match ended {
            Ok(0) => {
                // What never had a byte is nothing to keep.
                if let Err(error) = self.streams.delete(output.id.clone()).await {
                    tracing::warn!(id = %output.id, %error, "an empty output stays");
                }
                Over::Whole
            }
            Ok(bytes) => {
                tracing::info!(id = %output.id, bytes, reason = "end", "output complete");
                Over::Whole
            }
            Err(error) => {
                tracing::error!(id = %output.id, %error, "output not stored");
                Over::Cut
            }
        }
    }

    /// The store takes no more, which is no reason for anyone to wait: bytes are let go until nobody writes any more.
    async fn lose(&self, output: &Output, producer: Producer) -> Over {
        drop(producer);
        output.over.set(Some(Over::Cut));
        output.changed.notify_all();
        loop {
            match output.fifo.discard() {
                Ok(Take::Bytes(len)) => {
                    self.metrics.output_dropped_bytes.add(len as u64);
                    shard::yield_now().await;
                }
                Ok(Take::Nothing) => {
                    if self.unless_closing(output.fifo.readable()).await.is_err() {
                        return Over::Cut;
                    }
                }
                Ok(Take::NoWriter) | Err(_) => break,
            }
        }
        self.remove(output.fifo.path().to_owned()).await;
        Over::Cut
    }
}
