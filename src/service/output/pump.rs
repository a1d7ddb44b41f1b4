//! From FIFOs into their stream, until the last writer has closed.
//!
//! Invariant: bytes are stored in the order in which they were taken, each once, also across a kill: what the file beside
//! the FIFOs has beyond the stream is stored before anything else is taken. Lives on: a task of the output's shard.

use super::inflow::Found;
use super::{Output, Outputs, Over};
use crate::observe::metrics::Channel;
use crate::runtime::gate::Pass;
use crate::runtime::ring::fifo::Take;
use crate::runtime::{ring, shard};
use crate::service::stream::{ProduceError, Producer};
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// Why a pump stops.
enum Stopped {
    /// The daemon ends.
    Closing,
    /// The store takes no more.
    Refused(ProduceError),
    /// A FIFO or the file cannot be read.
    Broken(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Stopped::Broken(error)
    }
}

impl Outputs {
    pub(super) async fn pump(self: Rc<Self>, output: Rc<Output>, mut producer: Producer, _pass: Pass) {
        let open = Open { outputs: &self, output: &output, count: Cell::new(0) };
        open.count();
        let over = match self.try_pass_on(&output, &mut producer, &open).await {
            Ok(()) => self.end(&output, producer).await,
            Err(Stopped::Closing) => Over::Cut,
            Err(Stopped::Refused(error)) => {
                tracing::error!(id = %output.id, %error, "output is lost from here on");
                self.lose(&output, producer).await
            }
            Err(Stopped::Broken(error)) => {
                tracing::error!(id = %output.id, %error, "output is lost from here on");
                self.lose(&output, producer).await
            }
        };
        drop(open);
        output.over.set(Some(over));
        output.changed.notify_all();
    }

    async fn try_pass_on(
        &self,
        output: &Rc<Output>,
        producer: &mut Producer,
        open: &Open<'_>,
    ) -> Result<(), Stopped> {
        let (inflow, landing) = (&output.inflow, output.inflow.landing());
        // The file has the stream's bytes at their offsets. Only a power failure could part the two, and takes the
        // writers along.
        let is_aligned = producer.start() <= inflow.landed() && landing.has_from(producer.start());
        if !is_aligned && inflow.is_framed() {
            return Err(Stopped::Broken(io::Error::other("the stream and its file have parted")));
        }
        let mut stored = if is_aligned { producer.start() } else { inflow.landed() };
        let (mut counted, mut is_removed) = (inflow.totals().unwrap_or_default(), false);
        loop {
            if stored < inflow.landed() {
                let ring = ring::current();
                let window = &mut ring.window()[..];
                let want = usize::try_from(inflow.landed() - stored).unwrap_or(usize::MAX).min(window.len());
                let len = landing.read(stored, &mut window[..want])?;
                producer.take(&window[..len]);
                stored += len as u64;
                match inflow.totals() {
                    None => self.metrics.output_bytes.of(Channel::Both).add(len as u64),
                    Some(now) => {
                        self.metrics.output_bytes.of(Channel::Stdout).add(now.stdout - counted.stdout);
                        self.metrics.output_bytes.of(Channel::Stderr).add(now.stderr - counted.stderr);
                        counted = now;
                    }
                }
            }
            producer.make_room().await.map_err(Stopped::Refused)?;
            if stored < inflow.landed() {
                continue;
            }
            if is_aligned {
                landing.forget(output.tail.published());
            }
            self.hold_back(output).await?;
            let has_client = output.client_at.get().is_some();
            match inflow.take(!has_client || output.client_ended.get(), has_client)? {
                Found::Bytes => shard::yield_now().await,
                Found::Ended(number) => {
                    open.count();
                    // The last one goes when all is stored: it is what the next daemon would find the file by.
                    if inflow.open_count() > 0 {
                        self.unlink(inflow.paths()[number].clone()).await;
                    }
                }
                Found::Nothing => self.wait(output).await?,
                Found::Over => return Ok(()),
                Found::Unopened if is_removed => return Ok(()),
                Found::Unopened if !has_client => {
                    // Nobody wrote, and who asked is gone. Whoever opened it until now is found by a last look.
                    self.remove(inflow.stem(), inflow.paths()).await;
                    is_removed = true;
                }
                Found::Unopened => self.wait(output).await?,
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

    /// Waits for a FIFO, or for the client to go.
    async fn wait(&self, output: &Output) -> Result<(), Stopped> {
        let changed = output.changed.wait();
        let (mut readable, mut changed) = (pin!(output.inflow.readable()), pin!(changed));
        self.unless_closing(std::future::poll_fn(|cx| match readable.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            // Only its going matters: where it stands changes with everything it is sent.
            Poll::Pending => changed.as_mut().poll(cx),
        }))
        .await
    }

    async fn unless_closing<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        crate::net::listener::unless_closing(&self.pumping, work).await.ok_or(Stopped::Closing)
    }

    /// Everything was taken: the stream ends, then the FIFOs go, and only then the client is told.
    async fn end(&self, output: &Output, producer: Producer) -> Over {
        let inflow = &output.inflow;
        let ended = producer.end().await;
        self.remove(inflow.stem(), inflow.paths()).await;
        let is_empty = inflow.totals().is_some_and(|totals| totals.stdout + totals.stderr == 0);
        match ended.map(|bytes| if is_empty { 0 } else { bytes }) {
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
            match output.inflow.discard() {
                Ok(Take::Bytes(len)) => {
                    self.metrics.output_dropped_bytes.add(len as u64);
                    shard::yield_now().await;
                }
                Ok(Take::Nothing) => {
                    if self.unless_closing(output.inflow.readable()).await.is_err() {
                        return Over::Cut;
                    }
                }
                Ok(Take::NoWriter) | Err(_) => break,
            }
        }
        self.remove(output.inflow.stem(), output.inflow.paths()).await;
        Over::Cut
    }
}

/// Counts the FIFOs of an output that are read, until it is dropped.
struct Open<'a> {
    outputs: &'a Outputs,
    output: &'a Output,
    count: Cell<usize>,
}

impl Open<'_> {
    fn count(&self) {
        self.set(self.output.inflow.open_count());
    }

    fn set(&self, now: usize) {
        let gauge = &self.outputs.metrics.outputs_open;
        let before = self.count.replace(now);
        (before..now).for_each(|_| gauge.inc());
        (now..before).for_each(|_| gauge.dec());
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}
