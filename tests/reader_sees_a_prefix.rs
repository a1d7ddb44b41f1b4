//! A reader sees a prefix: never a byte that was not sent, never one out of order, never half of anything.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::content::{Rng, difference};
use common::{Daemon, Live, Producer, Setup, bytes_of, request};

#[test]
fn under_random_writes_every_reader_sees_a_prefix_at_every_moment() {
    let seed = 0x5eed_0001;
    let daemon = Daemon::start();
    let content = bytes_of(seed, 6 << 20);
    let (sent, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut producer = Producer::begin(daemon.loom(), "random");
    let addr = daemon.loom();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rng = Rng::new(seed);
            let mut rest = content.as_slice();
            while !rest.is_empty() {
                let most = [1, 100, 5_000, 70_000, 300_000][rng.below(5) as usize];
                let (piece, more) = rest.split_at(rest.len().min(1 + rng.below(most) as usize));
                // Counted before it is sent: what a reader has must be below.
                sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
                producer.chunk(piece);
                rest = more;
            }
            producer.finish().whole();
            done.store(true, Ordering::SeqCst);
        });
        for reader in 0..3 {
            let (content, sent) = (&content, &sent);
            scope.spawn(move || {
                let mut live = Live::get(addr, "/stream/random");
                let mut checked = 0;
                loop {
                    let on = live.step(common::PATIENCE).expect("the stream goes on");
                    let seen = live.seen();
                    assert!(
                        seen.len() as u64 <= sent.load(Ordering::SeqCst),
                        "reader {reader} is ahead of the producer"
                    );
                    assert!(
                        seen[checked..] == content[checked..seen.len()],
                        "seed {seed:#x}, reader {reader}: {}",
                        difference(seen, content)
                    );
                    checked = seen.len();
                    if !on {
                        break;
                    }
                }
                assert_eq!(checked, content.len(), "reader {reader} ended early");
            });
        }
        let (content, done) = (&content, &done);
        scope.spawn(move || {
            let mut longest = 0;
            while !done.load(Ordering::SeqCst) {
                let answer = common::get(addr, "/stream/random?notail").expect(200).whole();
                assert!(content.starts_with(&answer.body), "{}", difference(&answer.body, content));
                assert!(
                    answer.body.len() >= longest,
                    "a stream got shorter: {} after {longest}",
                    answer.body.len()
                );
                longest = answer.body.len();
            }
        });
        writer.join().expect("the writer");
    });
}

#[test]
fn what_a_reader_saw_is_there_after_a_kill() {
    for (class, seed) in [("sync", 0x5eed_0002), ("cache", 0x5eed_0003)] {
        let mut daemon = Setup::default().durability(class).start();
        let content = bytes_of(seed, 4 << 20);
        let mut producer = Producer::begin(daemon.loom(), "killed");
        let addr = daemon.loom().to_owned();
        let seen = std::thread::scope(|scope| {
            let content = &content;
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                let mut rest = content.as_slice();
                while !rest.is_empty() {
                    let (piece, more) = rest.split_at(rest.len().min(1 + rng.below(20_000) as usize));
                    if producer.try_chunk(piece).is_err() {
                        return;
                    }
                    rest = more;
                }
            });
            let reader = scope.spawn(move || {
                let mut live = Live::get(&addr, "/stream/killed");
                while live.seen().len() < 1 << 20 {
                    assert!(live.step(common::PATIENCE).expect("the stream goes on"), "it ended early");
                }
                live
            });
            let live = reader.join().expect("the reader");
            daemon.kill9();
            // What was under way to the reader counts as seen.
            live.try_finish().expect("the end of the connection").body
        });
        assert!(content.starts_with(&seen), "{class}: {}", difference(&seen, &content));
        daemon.restart();
        let answer = daemon.get("/stream/killed").expect(200).whole();
        assert!(
            answer.body.len() >= seen.len(),
            "{class}: a reader saw {} bytes, {} are left",
            seen.len(),
            answer.body.len()
        );
        assert!(content.starts_with(&answer.body), "{class}: {}", difference(&answer.body, &content));
    }
}

#[test]
fn a_conflict_is_only_told_once_the_winner_is_there_to_be_read() {
    // A 409 is an answer derived from somebody else's creation: that stream must exist from then on.
    let daemon = Daemon::start();
    let addr = daemon.loom();
    for round in 0..30 {
        let target = format!("/stream/race-{round}");
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4u64)
                .map(|racer| {
                    let target = &target;
                    scope.spawn(move || {
                        let answer = request(addr, "POST", target, &[], &bytes_of(racer, 3000)).whole();
                        if answer.status == 409 {
                            common::get(addr, &format!("{target}?notail")).expect(200);
                        }
                        answer.status
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().expect("a racer")).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 3, "{statuses:?}");
        let winner = statuses.iter().position(|status| *status == 201).expect("a winner") as u64;
        assert!(common::get(addr, &target).body == bytes_of(winner, 3000), "the winner's bytes are stored");
    }
}
