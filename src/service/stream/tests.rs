//! The service on virtual shards: every seed is another order of messages, tasks, syncs and worker jobs.

mod fleet;

pub(super) use fleet::{Fleet, SHARDS, all, content, id, loaded, produce, read};

use super::*;
use crate::runtime::sim::{SimDisk, seeds};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a reader saw, once it is at the end.
type Seen = Rc<RefCell<Option<(Vec<u8>, State)>>>;

/// A reader on every shard, from the start.
fn readers(fleet: &Fleet, found: &Found) -> Vec<Seen> {
    (0..SHARDS)
        .map(|shard| {
            let slot = Rc::new(RefCell::new(None));
            let (told, streams, tail) = (slot.clone(), fleet.shards[shard].clone(), found.tail.clone());
            fleet.world.enter(shard, |shard| {
                shard.executor().spawn("reader", async move {
                    let seen = read(streams.follow(tail, 0)).await;
                    told.replace(Some(seen));
                });
            });
            slot
        })
        .collect()
}

/// Catches a lost wake-up (the world comes to rest with a reader asleep), a byte seen twice or out of order, and
/// an end seen before the last byte.
#[test]
fn readers_on_every_shard_see_every_byte_once() {
    for seed in seeds(40) {
        let fleet = Fleet::new(seed);
        let (home, sent) = (fleet.any(), content(seed, 700_000));
        let mut producer = fleet.open(home, "a", false).expect("free");
        let found = fleet.find(fleet.any(), "a").expect("opened");
        assert_eq!(&found.metadata[..], b"{}");
        let seen = readers(&fleet, &found);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let sizes = [1, 80, 5_000, 250_000];
            let (now, later) = rest.split_at(sizes[fleet.world.chance().below(4) as usize].min(rest.len()));
            let (kept, done) = fleet.append(home, producer, now);
            (producer, rest) = (kept, later);
            done.expect("appended");
        }
        let len = fleet.run(home, async move |_| producer.end().await);
        assert_eq!(len, Ok(sent.len() as u64));
        assert!(fleet.world.run_until(|| seen.iter().all(|slot| slot.borrow().is_some()), 1_000_000));
        for slot in seen {
            let (bytes, state) = slot.take().expect("told");
            assert!(bytes == sent, "{} of {} bytes", bytes.len(), sent.len());
            assert_eq!(state, State::Complete);
        }
        assert!(found.tail.durable() == len.unwrap(), "what was promised is on disk");
        assert_eq!(fleet.world.panics(), 0);
    }
}

/// Catches a reader that looks, then announces itself, and sleeps through the last word in between: nothing comes
/// after an end that could wake it.
#[test]
fn the_last_word_wakes_who_just_fell_asleep() {
    for seed in seeds(200) {
        let fleet = Fleet::new(seed);
        let (home, shard) = (fleet.any(), fleet.any());
        let mut producer = fleet.open(home, "a", false).expect("free");
        let found = fleet.find(shard, "a").expect("opened");
        let seen: Seen = Rc::default();
        let (told, streams) = (seen.clone(), fleet.shards[shard].clone());
        fleet.world.enter(home, |shard| {
            shard.executor().spawn("producer", async move {
                produce(&mut producer, b"word").await.expect("appended");
                producer.end().await.expect("ended");
            });
        });
        for _ in 0..fleet.world.chance().below(60) {
            fleet.world.step();
        }
        fleet.world.enter(shard, |shard| {
            shard.executor().spawn("reader", async move {
                let all = read(streams.follow(found.tail, 0)).await;
                told.replace(Some(all));
            });
        });
        fleet.world.run_for(Duration::from_secs(10));
        assert_eq!(seen.take(), Some((b"word".to_vec(), State::Complete)));
    }
}

/// Catches two openers that both have the id, and a third answer than "yours" and "taken".
#[test]
fn of_many_who_open_one_id_one_has_it() {
    for seed in seeds(40) {
        let fleet = Fleet::new(seed);
        let outcomes = Rc::new(RefCell::new(Vec::new()));
        for number in 0..6 {
            let (streams, told) = (fleet.shards[number % SHARDS].clone(), outcomes.clone());
            fleet.world.enter(number % SHARDS, |shard| {
                shard.executor().spawn("opener", async move {
                    let opened = streams.open(id("one"), Open::default()).await;
                    told.borrow_mut().push(opened.map(std::mem::forget));
                });
            });
        }
        assert!(fleet.world.run_until(|| outcomes.borrow().len() == 6, 1_000_000));
        let outcomes = outcomes.take();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err(OpenError::Taken)).count(), 5);
    }
}

/// Catches two takers of the last room, a refused open that keeps room, and a deletion that gives none.
#[test]
fn never_are_there_more_streams_than_are_allowed() {
    for seed in seeds(40) {
        let fleet = Fleet::new(seed);
        let max = 1 + fleet.world.chance().below(6);
        fleet.limit(Limits { streams: Some(max), ..Limits::default() });
        let tally = || fleet.shards[0].store.tally().names(crate::service::owner::space::STREAMS, 0);
        for round in 0..4 {
            let before = tally();
            let outcomes = Rc::new(RefCell::new(Vec::new()));
            for number in 0..9 {
                let (streams, told) = (fleet.shards[number % SHARDS].clone(), outcomes.clone());
                fleet.world.enter(number % SHARDS, |shard| {
                    shard.executor().spawn("opener", async move {
                        let id = id(&format!("{round}-{number}"));
                        let opened = streams.open(id, Open::default()).await;
                        told.borrow_mut().push(opened.map(drop));
                    });
                });
            }
            let most = Cell::new(0);
            let seen = || {
                most.set(tally().max(most.get()));
                outcomes.borrow().len() == 9
            };
            assert!(fleet.world.run_until(seen, 1_000_000));
            assert!(most.get() <= max, "{} of {max}", most.get());
            let outcomes = outcomes.take();
            let opened = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
            assert_eq!(opened, (max - before).min(9), "{outcomes:?}");
            let refused = Err(OpenError::Limit(Limit::Streams(max)));
            assert_eq!(outcomes.iter().filter(|outcome| **outcome == refused).count() as u64, 9 - opened);
            fleet.world.run_until_idle();
            assert_eq!(fleet.list(0, all()).streams.len() as u64, max);
            // Replacing one takes no room.
            let there = fleet.list(0, all()).streams.remove(0).id;
            let shard = fleet.any();
            let forced = fleet.open(shard, &there.text(), true).expect("forced");
            fleet.world.enter(shard, |_| drop(forced));
            let gone = fleet.run(shard, async move |streams| streams.delete(there).await);
            assert_eq!((gone, tally()), (Ok(true), max - 1), "whoever was told finds the room");
        }
    }
}

/// Catches a quota that a producer steps over by more than it may, a gap where bytes were left out, and room that a
/// deletion does not give.
#[test]
fn a_quota_stops_producers_at_it_and_deletions_let_them_go_on() {
    for seed in seeds(30) {
        let fleet = Fleet::new(seed);
        let quota = 1 + fleet.world.chance().below(900_000);
        fleet.limit(Limits { bytes: Some(quota), ..Limits::default() });
        let total = || fleet.shards[0].total_bytes(Keeper::Loom);
        let producers = 1 + fleet.world.chance().below(6) as usize;
        let ended = Rc::new(Cell::new(0));
        for number in 0..producers {
            let (streams, ended) = (fleet.shards[number % SHARDS].clone(), ended.clone());
            fleet.world.enter(number % SHARDS, |shard| {
                shard.executor().spawn("producer", async move {
                    let sent = content(number as u64, 400_000);
                    let cut = match streams.open(id(&format!("p{number}")), Open::default()).await {
                        Ok(mut producer) => match produce(&mut producer, &sent).await {
                            Ok(()) => producer.end().await.map(drop),
                            Err(error) => Err(error),
                        },
                        Err(OpenError::Limit(limit)) => Err(limit.into()),
                        Err(other) => panic!("{other}"),
                    };
                    assert!(matches!(cut, Ok(()) | Err(ProduceError::Limit(Limit::Quota(_)))), "{cut:?}");
                    ended.set(ended.get() + 1);
                });
            });
        }
        let most = Cell::new(0);
        let seen = || {
            most.set(total().max(most.get()));
            ended.get() == producers
        };
        assert!(fleet.world.run_until(seen, 2_000_000));
        fleet.world.run_until_idle();
        let sent = 400_000 * producers as u64;
        // `produce` gathers at most so many bytes in one receive.
        assert!(most.get() <= (quota + 100_000 * producers as u64).min(sent), "{} of {quota}", most.get());
        let page = fleet.list(fleet.any(), all());
        let mut there = 0;
        for found in &page.streams {
            let number = found.id.text()[1..].parse().expect("a number");
            let (bytes, state) = fleet.content(fleet.any(), found);
            assert!(bytes == content(number, bytes.len()), "{}: a prefix", found.id);
            assert_eq!(state == State::Complete, bytes.len() == 400_000);
            there += bytes.len() as u64;
        }
        assert_eq!((there, total()), (most.get(), most.get()));
        assert_eq!(there < sent, quota < sent, "{there} of {sent} with {quota}");
        for found in page.streams {
            let shard = fleet.any();
            let (gone, id) = (total() - found.tail.published(), found.id);
            assert_eq!(fleet.run(shard, async move |streams| streams.delete(id).await), Ok(true));
            fleet.world.run_until_idle();
            assert_eq!(total(), gone);
        }
        let shard = fleet.any();
        assert!(
            fleet.open(shard, "again", false).map(|again| fleet.world.enter(shard, |_| drop(again))).is_ok()
        );
        assert_eq!(fleet.world.panics(), 0);
    }
}

/// Catches a switch that readers see half of, and a producer that is told that all went well.
#[test]
fn force_ends_old_readers_at_the_old_bytes_and_fences_the_old_producer() {
    for seed in seeds(40) {
        let fleet = Fleet::new(seed);
        let (old_home, new_home) = (fleet.any(), fleet.any());
        let producer = fleet.open(old_home, "a", false).expect("free");
        let old = fleet.find(0, "a").expect("opened");
        let (producer, done) = fleet.append(old_home, producer, b"old bytes");
        done.expect("appended");
        fleet.world.run_until(|| old.tail.published() == 9, 100_000);
        let seen = readers(&fleet, &old);
        let replacement = fleet.open(new_home, "a", true).expect("forced");
        assert!(replacement.has_replaced());
        // The switch is one record, and the old producer hears of it by a message.
        fleet.world.run_until_idle();
        let (_, refused) = fleet.append(old_home, producer, b"more");
        assert!(
            matches!(refused, Err(ProduceError::Store(StoreError::Gone | StoreError::Fenced))),
            "{refused:?}"
        );
        let (replacement, done) = fleet.append(new_home, replacement, b"new");
        done.expect("appended");
        assert_eq!(fleet.run(new_home, async move |_| replacement.end().await), Ok(3));
        assert!(fleet.world.run_until(|| seen.iter().all(|slot| slot.borrow().is_some()), 1_000_000));
        for slot in seen {
            assert_eq!(slot.take(), Some((b"old bytes".to_vec(), State::Gone)));
        }
        let new = fleet.find(fleet.any(), "a").expect("replaced");
        assert_eq!(fleet.content(fleet.any(), &new), (b"new".to_vec(), State::Complete));
        assert!(!old.tail.is_attached(), "the old appender let go");
    }
}

/// Catches a stream that stays open without anyone who could end it.
#[test]
fn an_opener_that_leaves_leaves_an_interrupted_stream() {
    for seed in seeds(60) {
        let fleet = Fleet::new(seed);
        let (shard, steps) = (fleet.any(), fleet.world.chance().below(60));
        let streams = fleet.shards[shard].clone();
        // Polled once and left at a moment that the seed picks.
        let left = Rc::new(std::cell::Cell::new(false));
        let leave = left.clone();
        fleet.world.enter(shard, |shard| {
            shard.executor().spawn("leaver", async move {
                let mut opening = std::pin::pin!(streams.open(id("a"), Open::default()));
                let mut polls = 0;
                std::future::poll_fn(|cx| {
                    polls += 1;
                    cx.waker().wake_by_ref();
                    match opening.as_mut().poll(cx) {
                        std::task::Poll::Pending if polls < steps => std::task::Poll::Pending,
                        _ => std::task::Poll::Ready(()),
                    }
                })
                .await;
                leave.set(true);
            });
        });
        assert!(fleet.world.run_until(|| left.get(), 1_000_000));
        fleet.world.run_for(Duration::from_secs(2));
        let found = fleet.find(fleet.any(), "a").expect("the owner decided");
        assert_eq!(found.tail.state(), State::Interrupted);
        assert!(!found.tail.is_attached());
    }
}

/// Catches an old appender that gets a byte in behind the take-over, and a resumption at a place that is none.
#[test]
fn a_resumption_takes_an_open_stream_over_and_continues_an_interrupted_one() {
    for seed in seeds(60) {
        let fleet = Fleet::new(seed);
        let (old_home, new_home) = (fleet.any(), fleet.any());
        let old = fleet.open(old_home, "a", false).expect("free");
        let (old, done) = fleet.append(old_home, old, b"0123456789");
        done.expect("appended");
        let found = fleet.find(fleet.any(), "a").expect("opened");
        fleet.world.run_until(|| found.tail.published() == 10, 100_000);
        let epoch = found.tail.epoch();
        for (offset, wrong) in [(11, epoch), (0, epoch + 1)] {
            let refused = fleet.resume(new_home, "a", offset, wrong).map(drop);
            assert_eq!(refused, Err(OpenError::WrongPlace { offset: 10, epoch }));
        }
        assert_eq!(fleet.resume(new_home, "b", 0, 1).map(drop), Err(OpenError::Unknown));
        let interrupted = fleet.world.chance().one_in(2);
        let old = match interrupted {
            true => {
                fleet.world.enter(old_home, |_| drop(old));
                fleet.world.run_until(|| found.tail.state() == State::Interrupted, 100_000);
                None
            }
            false => Some(old),
        };
        // Sent again from 7: three bytes are there already.
        let new = fleet.resume(new_home, "a", 7, epoch).expect("resumed");
        assert!(new.epoch() > epoch);
        assert_eq!(new.start(), 10);
        if let Some(old) = old {
            let (_, refused) = fleet.append(old_home, old, b"INTRUDER");
            assert!(matches!(refused, Err(ProduceError::Store(StoreError::Fenced))), "{refused:?}");
        }
        let (new, done) = fleet.append(new_home, new, b"789and on");
        done.expect("appended");
        assert_eq!(fleet.run(new_home, async move |_| new.end().await), Ok(16));
        assert_eq!(fleet.content(fleet.any(), &found), (b"0123456789and on".to_vec(), State::Complete));
        let refused = fleet.resume(new_home, "a", 16, found.tail.epoch()).map(drop);
        assert_eq!(refused, Err(OpenError::Complete { offset: 16, epoch: found.tail.epoch() }));
        assert_eq!(fleet.world.panics(), 0);
    }
}

/// Catches a spy that misses a stream, a byte or an end, or that sees one stream's bytes in another order.
#[test]
fn a_spy_sees_what_is_produced_anywhere() {
    for seed in seeds(30) {
        let fleet = Fleet::new(seed);
        let early = fleet.open(0, "early", false).expect("free");
        let (early, done) = fleet.append(0, early, b"before ");
        done.expect("appended");
        // A stream is shown once its name is committed.
        assert!(fleet.find(0, "early").is_some());
        fleet.world.run_until_idle();
        type Shown = BTreeMap<String, (u64, Vec<u8>, bool)>;
        let shown: Rc<RefCell<Shown>> = Rc::default();
        let (told, streams, at) = (shown.clone(), fleet.shards[1].clone(), fleet.any());
        let streams = if at == 1 { streams } else { fleet.shards[at].clone() };
        fleet.world.enter(at, |shard| {
            shard.executor().spawn("spy", async move {
                let mut spy = streams.spy(Keepers::of([Keeper::Loom])).await.expect("a spy");
                while let Some(Sight { id, number, what }) = spy.next().await.expect("in time") {
                    let mut shown = told.borrow_mut();
                    match what {
                        What::Start => {
                            let before = shown.insert(id.text().into_owned(), (number, Vec::new(), false));
                            assert!(before.is_none(), "{id} started twice");
                        }
                        What::Bytes(range) => shown.get_mut(&*id.text()).unwrap().1.extend(loaded(&range)),
                        What::End => shown.get_mut(&*id.text()).unwrap().2 = true,
                    }
                }
            });
        });
        fleet.world.run_until_idle();
        let mut producers = vec![(0, "early".to_owned(), early)];
        for number in 0..5 {
            let home = fleet.any();
            let name = format!("late-{number}");
            let producer = fleet.open(home, &name, false).expect("free");
            producers.push((home, name, producer));
        }
        for (home, name, producer) in producers {
            let bytes = content(name.len() as u64, 150_000);
            let (producer, done) = fleet.append(home, producer, &bytes);
            done.expect("appended");
            match fleet.world.chance().one_in(2) {
                true => drop(fleet.run(home, async move |_| producer.end().await)),
                false => fleet.world.enter(home, |_| drop(producer)),
            }
        }
        let all_ended = || shown.borrow().len() == 6 && shown.borrow().values().all(|(.., ended)| *ended);
        assert!(fleet.world.run_until(all_ended, 2_000_000), "{:?}", shown.borrow().keys());
        for (name, (_, bytes, _)) in &*shown.borrow() {
            let sent = content(name.len() as u64, 150_000);
            let expected = if name == "early" { [&b"before "[..], &sent].concat() } else { sent };
            assert!(*bytes == expected, "{name}: {} of {} bytes", bytes.len(), expected.len());
        }
        let mut numbers: Vec<u64> = shown.borrow().values().map(|(number, ..)| *number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
        assert_eq!(fleet.world.panics(), 0);
    }
}

/// Catches a page with a gap or a double, and a page that says that it is the last and is not.
#[test]
fn pages_are_the_whole_in_order() {
    for seed in seeds(10) {
        let fleet = Fleet::new(seed);
        let names: Vec<String> = (0..25).map(|number| format!("p-{number:02}")).collect();
        for name in names.iter().chain(&["o".to_owned(), "q".to_owned()]) {
            let shard = fleet.any();
            let producer = fleet.open(shard, name, false).expect("free");
            fleet.run(shard, async move |_| producer.end().await).expect("ended");
        }
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let limit = 1 + fleet.world.chance().below(9) as usize;
            let prefix = Bytes::from_static(b"p-");
            let page = fleet.list(fleet.any(), Query { prefix, after, limit, state: None });
            listed.extend(page.streams.iter().map(|found| found.id.text().into_owned()));
            after = page.streams.last().map(|found| Bytes::copy_from_slice(found.id.as_bytes()));
            if !page.has_more {
                break;
            }
            assert_eq!(page.streams.len(), limit, "a page with more behind it is full");
        }
        assert_eq!(listed, names);
        let shard = fleet.any();
        let deleted = fleet.run(shard, async move |streams| streams.delete_prefix(b"p-1").await);
        let deleted: Vec<String> = deleted.unwrap().iter().map(|id| id.text().into_owned()).collect();
        assert_eq!(deleted, names[10..20]);
        assert_eq!(fleet.list(0, all()).streams.len(), 17);
    }
}

/// Catches a page of any size, and one that ends early and leaves names out that lie before its end.
#[test]
fn pages_with_large_metadata_are_shorter_and_leave_nothing_out() {
    for seed in seeds(4) {
        let fleet = Fleet::new(seed);
        let names: Vec<String> = (0..40).map(|number| format!("m-{number:02}")).collect();
        for name in &names {
            // Shorter ones on some owners, so that their parts reach further.
            let len = if fleet.world.chance().one_in(2) { 200_000 } else { 10 };
            let open = Open { metadata: vec![b'1'; len].into(), ..Open::default() };
            let id = id(name);
            let opened = fleet.run(0, async move |streams| streams.open(id, open).await);
            fleet.world.enter(0, |_| drop(opened.expect("free")));
        }
        let (mut listed, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = fleet.list(fleet.any(), Query { after, ..all() });
            let metadata: usize = page.streams.iter().map(|found| found.metadata.len()).sum();
            assert!(metadata < SHARDS * 1_300_000, "{metadata} bytes of metadata on a page");
            listed.extend(page.streams.iter().map(|found| found.id.text().into_owned()));
            after = page.streams.last().map(|found| Bytes::copy_from_slice(found.id.as_bytes()));
            pages += 1;
            if !page.has_more {
                break;
            }
        }
        assert_eq!(listed, names);
        assert!(pages > 1, "some page ended early");
        let open = Open { metadata: vec![b'1'; Open::METADATA_MAX + 1].into(), ..Open::default() };
        let refused = fleet.run(0, async move |streams| streams.open(id("big"), open).await.map(drop));
        assert_eq!(refused, Err(OpenError::MetadataTooLong(Open::METADATA_MAX + 1)));
    }
}

/// Catches an id that stays taken by a stream that nobody was told of.
#[test]
fn a_full_disk_is_told_before_anything_is_promised() {
    for seed in seeds(10) {
        let disk = SimDisk::new(seed);
        let fleet = Fleet::on(seed, disk.clone());
        disk.set_capacity(0);
        let mut producers = Vec::new();
        let refused = loop {
            assert!(producers.len() < 64, "64 streams filled no segment");
            match fleet.open(0, &format!("s-{}", producers.len()), false) {
                Ok(producer) => {
                    let (producer, done) = fleet.append(0, producer, &content(seed, 1 << 20));
                    producers.push(producer);
                    if done.is_err() {
                        continue;
                    }
                }
                Err(error) => break error,
            }
        };
        assert_eq!(refused, OpenError::Store(StoreError::NoSpace));
        let name = format!("s-{}", producers.len());
        assert!(fleet.find(1, &name).is_none(), "the id is free");
        fleet.world.enter(0, |_| drop(producers));
        fleet.world.run_for(Duration::from_secs(1));
    }
}

/// Catches a drain that ends before the last stream is sealed, and one that lets a new one in.
#[test]
fn a_drain_ends_when_the_last_producer_is_sealed() {
    for seed in seeds(20) {
        let fleet = Fleet::new(seed);
        let home = fleet.any();
        let producer = fleet.open(home, "a", false).expect("free");
        let (producer, done) = fleet.append(home, producer, b"so far");
        done.expect("appended");
        let found = fleet.find(home, "a").expect("opened");
        let drained = Rc::new(std::cell::Cell::new(false));
        let (told, streams) = (drained.clone(), fleet.shards[home].clone());
        fleet.world.enter(home, |shard| {
            shard.executor().spawn("drain", async move {
                streams.drain().await;
                told.set(true);
            });
        });
        fleet.world.run_for(Duration::from_secs(1));
        assert!(!drained.get(), "a producer is there");
        let refused = fleet.open(home, "b", false).map(drop);
        assert_eq!(refused, Err(OpenError::Store(StoreError::Closing)));
        fleet.world.enter(home, |_| drop(producer));
        assert!(fleet.world.run_until(|| drained.get(), 1_000_000));
        assert_eq!(found.tail.state(), State::Interrupted);
        assert_eq!(found.tail.durable(), 6);
    }
}

/// What a stream should be.
struct Expected {
    bytes: Vec<u8>,
    ended: Option<State>,
    producer: Option<(usize, Producer)>,
}

/// Random actions from random shards against a map of byte strings: every answer is the model's.
#[test]
fn whatever_is_done_from_anywhere_is_what_a_map_would_say() {
    for seed in seeds(40) {
        let fleet = Fleet::new(seed);
        let mut model: BTreeMap<String, Expected> = BTreeMap::new();
        for step in 0..60u64 {
            let name = format!("n{}", fleet.world.chance().below(4));
            let shard = fleet.any();
            match fleet.world.chance().below(9) {
                0 | 1 => {
                    let force = fleet.world.chance().one_in(3);
                    match (fleet.open(shard, &name, force), model.get(&name)) {
                        (Ok(producer), before) => {
                            assert!(before.is_none() || force, "{name} was free for all");
                            assert_eq!(producer.has_replaced(), before.is_some());
                            let producer = Some((shard, producer));
                            model.insert(name, Expected { bytes: Vec::new(), ended: None, producer });
                        }
                        (Err(OpenError::Taken), Some(_)) => assert!(!force),
                        (Err(error), _) => panic!("{name}: {error}"),
                    }
                }
                2 | 3 => {
                    let Some(expected) = model.get_mut(&name) else { continue };
                    let Some((home, producer)) = expected.producer.take() else { continue };
                    let bytes = content(step, fleet.world.chance().below(40_000) as usize);
                    let (producer, done) = fleet.append(home, producer, &bytes);
                    done.expect("appended");
                    expected.bytes.extend(bytes);
                    expected.producer = Some((home, producer));
                }
                4 => {
                    let Some(expected) = model.get_mut(&name) else { continue };
                    let Some((home, producer)) = expected.producer.take() else { continue };
                    let ended = fleet.run(home, async move |_| producer.end().await);
                    assert_eq!(ended, Ok(expected.bytes.len() as u64));
                    expected.ended = Some(State::Complete);
                }
                5 => {
                    let Some(expected) = model.get_mut(&name) else { continue };
                    let Some((home, producer)) = expected.producer.take() else { continue };
                    let found = fleet.find(shard, &name).expect("there");
                    fleet.world.enter(home, |_| drop(producer));
                    assert!(fleet.world.run_until(|| found.tail.state() == State::Interrupted, 1_000_000));
                    expected.ended = Some(State::Interrupted);
                }
                6 => {
                    let Some(found) = fleet.find(shard, &name) else { continue };
                    let expected = model.get_mut(&name).expect("found");
                    let len = expected.bytes.len() as u64;
                    fleet.world.run_until_idle();
                    let resumed = fleet.resume(shard, &name, len, found.tail.epoch());
                    match expected.ended {
                        Some(State::Complete) => assert!(matches!(resumed, Err(OpenError::Complete { .. }))),
                        _ => {
                            let old = expected.producer.replace((shard, resumed.expect("resumed")));
                            if let Some((home, old)) = old {
                                fleet.world.enter(home, |_| drop(old));
                            }
                            expected.ended = None;
                        }
                    }
                }
                7 => {
                    let gone = id(&name);
                    let deleted = fleet.run(shard, async move |streams| streams.delete(gone).await);
                    let before = model.remove(&name);
                    assert_eq!(deleted, Ok(before.is_some()));
                    if let Some((home, old)) = before.and_then(|expected| expected.producer) {
                        fleet.world.enter(home, |_| drop(old));
                    }
                }
                _ => {
                    let listed = fleet.list(shard, all());
                    let names: Vec<String> =
                        listed.streams.iter().map(|found| found.id.text().into_owned()).collect();
                    assert_eq!(names, model.keys().cloned().collect::<Vec<_>>());
                }
            }
        }
        fleet.world.run_until_idle();
        for (name, expected) in &model {
            let found = fleet.find(fleet.any(), name).expect("there");
            let (bytes, state) = fleet.content(fleet.any(), &found);
            assert!(bytes == expected.bytes, "{name}: {} of {}", bytes.len(), expected.bytes.len());
            assert_eq!(state, expected.ended.unwrap_or(State::Open), "{name}");
        }
        let (tally, space) = (fleet.shards[0].store.tally(), crate::service::owner::space::STREAMS);
        let bytes: usize = model.values().map(|expected| expected.bytes.len()).sum();
        assert_eq!((tally.names(space, 0), tally.bytes(space, 0)), (model.len() as u64, bytes as u64));
        let open = model.values().filter(|expected| expected.producer.is_some()).count();
        let counted: i64 = fleet.shards.iter().map(|shard| shard.metrics.streams_open.value()).sum();
        assert_eq!(counted, open as i64, "every producer that left was counted out");
        assert_eq!(fleet.world.panics(), 0);
        // Producers end on their own shards.
        for (home, producer) in model.into_values().filter_map(|expected| expected.producer) {
            fleet.world.enter(home, |_| drop(producer));
        }
        fleet.world.run_until_idle();
    }
}
