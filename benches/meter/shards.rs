//! Real shards for a bench: pinned threads with rings, as the daemon has them.
//!
//! Invariant: what the work returns comes back in the order of the shards, and a shard that died fails the bench.
//! Runs on: the bench's main thread, which waits.

use millpond::runtime::driver;
use millpond::runtime::file::os::OsDisk;
use millpond::runtime::park::Unpark;
use std::future::Future;
use std::sync::{Arc, mpsc::sync_channel};

/// Runs `work` once on each of as many shards as there are `parts`, and gives what they return.
pub fn run<P, T, F>(parts: Vec<P>, work: impl Fn(P, Vec<Arc<Unpark>>) -> F + Clone + Send + 'static) -> Vec<T>
where
    P: Send + 'static,
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let count = parts.len();
    let handout = Handout::of(parts);
    let (give, results) = sync_channel(count);
    let running = driver::start(count, Arc::new(OsDisk), move |id, unparks| {
        let (give, work) = (give.clone(), work.clone());
        let part = handout.take(id.index());
        Box::pin(async move {
            let result = work(part, unparks).await;
            give.send((id, result)).expect("the main thread waits");
        })
    });
    let running = running.unwrap_or_else(|error| panic!("{error}"));
    assert!(running.join(), "every shard ends in order");
    let mut results: Vec<_> = results.try_iter().collect();
    assert_eq!(results.len(), count, "every shard gave its result");
    results.sort_by_key(|(id, _)| *id);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What each shard is given, taken once.
#[allow(clippy::disallowed_types, reason = "each shard takes its part once, before anything is measured")]
struct Handout<P>(Arc<std::sync::Mutex<Vec<Option<P>>>>);

impl<P> Clone for Handout<P> {
    fn clone(&self) -> Self {
        Handout(self.0.clone())
    }
}

impl<P> Handout<P> {
    fn of(parts: Vec<P>) -> Self {
        Handout(Arc::new(parts.into_iter().map(Some).collect::<Vec<_>>().into()))
    }

    fn take(&self, index: usize) -> P {
        let mut parts = self.0.lock().expect("nothing panics under this lock");
        parts[index].take().expect("each shard starts once")
    }
}
