//! Retention on virtual shards, where days pass between two steps.

use super::super::tests::{Fleet, SHARDS, content, id, loaded, read};
use super::super::{Follower, Found, Keeper, Keepers, Look, OpenError, Producer, State, What};
use super::*;
use crate::runtime::sim::seeds;
use std::collections::BTreeMap;

const HOUR: Duration = Duration::from_secs(3600);
const MS_PER_HOUR: u64 = 3_600_000;

impl Fleet {
    fn retain(&self, retention: Retention) {
        self.retain_of(Keeper::Loom, retention);
    }

    fn retain_of(&self, keeper: Keeper, retention: Retention) {
        for (index, shard) in self.shards.iter().enumerate() {
            self.world.enter(index, |_| shard.retain(keeper, retention));
        }
    }

    fn now_ms(&self) -> u64 {
        self.world.enter(0, |_| now_ms())
    }

    /// A stream that ended now, one way or the other.
    fn ended(&self, name: &str, bytes: &[u8]) -> Found {
        let shard = self.any();
        let producer = self.open(shard, name, false).expect("free");
        let (producer, done) = self.append(shard, producer, bytes);
        done.expect("appended");
        let found = self.find(shard, name).expect("opened");
        match self.world.chance().one_in(2) {
            true => drop(self.run(shard, async move |_| producer.end().await)),
            false => self.world.enter(shard, |_| drop(producer)),
        }
        assert!(self.world.run_until(|| found.tail.ended_ms() > 0, 1_000_000));
        found
    }

    fn reaped(&self) -> Reaped {
        let metrics = self.shards.iter().map(|shard| &shard.metrics);
        metrics.fold(Reaped::default(), |sum, shard| Reaped {
            streams: sum.streams + shard.reaped_streams.value(),
            bytes: sum.bytes + shard.reaped_bytes.value(),
            ..sum
        })
    }
}

fn by_age(days: u64) -> Retention {
    Retention { age_max: Some(24 * HOUR * days as u32), bytes_max: None }
}

fn by_bytes(bytes_max: u64) -> Retention {
    Retention { age_max: None, bytes_max: Some(bytes_max) }
}

/// Catches a stream that goes too early, too late or never, and one that is open and goes.
#[test]
fn days_pass_and_what_ended_long_ago_goes() {
    for seed in seeds(6) {
        let fleet = Fleet::new(seed);
        fleet.retain(by_age(3));
        let open = fleet.open(0, "open", false).expect("free");
        let (open, done) = fleet.append(0, open, b"never ends");
        done.expect("appended");
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        for round in 0..25 {
            let name = format!("{round:02}");
            let found = fleet.ended(&name, &content(seed, fleet.world.chance().below(3000) as usize));
            ends.insert(name, found.tail.ended_ms());
            fleet.world.run_for(HOUR * fleet.world.chance().below(20) as u32);
            // No clock of a test is at the very moment: what is due now may stand or not.
            let now = fleet.now_ms();
            let there: Vec<String> = fleet
                .list(fleet.any(), super::super::tests::all())
                .streams
                .iter()
                .map(|found| found.id.text().into_owned())
                .filter(|name| name != "open")
                .collect();
            let age = |name: &str| now - ends[name];
            assert!(there.iter().all(|name| age(name) <= 72 * MS_PER_HOUR + 2000), "at {now}: {ends:?}");
            let kept = ends.keys().filter(|name| age(name) < 72 * MS_PER_HOUR);
            assert!(kept.clone().all(|name| there.contains(name)), "at {now}: {there:?} of {ends:?}");
        }
        fleet.world.run_for(24 * HOUR * 4);
        assert_eq!(fleet.find(1, "open").expect("it is open").tail.state(), State::Open);
        assert_eq!(fleet.list(0, super::super::tests::all()).streams.len(), 1);
        assert_eq!(fleet.reaped().streams, 25);
        assert_eq!(fleet.shards[0].total_bytes(Keeper::Loom), 10, "what went counts no more");
        // Their names are free.
        let again = fleet.open(0, "00", false).expect("free");
        fleet.world.enter(0, |_| drop((again, open)));
        fleet.world.run_for(24 * HOUR * 4);
        assert_eq!(fleet.list(0, super::super::tests::all()).streams.len(), 0);
        assert_eq!(fleet.world.panics(), 0);
    }
}

/// Catches an age that is counted from the first end of a stream that went on, and one that goes under its producer.
#[test]
fn who_goes_on_with_a_stream_keeps_it() {
    for seed in seeds(12) {
        let fleet = Fleet::new(seed);
        fleet.retain(by_age(3));
        let shard = fleet.any();
        let producer = fleet.open(shard, "a", false).expect("free");
        fleet.world.enter(shard, |_| drop(producer));
        fleet.world.run_for(70 * HOUR);
        let found = fleet.find(0, "a").expect("not yet");
        let resumed = fleet.resume(shard, "a", 0, found.tail.epoch()).expect("resumed");
        fleet.world.run_for(70 * HOUR);
        assert_eq!(fleet.find(0, "a").map(|found| found.tail.state()), Some(State::Open));
        let ended = fleet.run(shard, async move |_| resumed.end().await);
        assert_eq!(ended, Ok(0));
        fleet.world.run_for(71 * HOUR);
        assert!(fleet.find(0, "a").is_some());
        fleet.world.run_for(2 * HOUR);
        assert!(fleet.find(0, "a").is_none());
    }
}

/// Catches a reader that loses bytes to retention, where a deletion would leave them to it.
#[test]
fn who_reads_a_stream_that_goes_reads_on_as_after_a_deletion() {
    for seed in seeds(8) {
        let fleet = Fleet::new(seed);
        let bytes = content(seed, 1_500_000);
        let found = fleet.ended("a", &bytes);
        let shard = fleet.any();
        let mut reader = fleet.shards[shard].read(found.tail.clone(), 0, found.tail.published());
        let (mut reader, first): (Follower, Look) = fleet.run(shard, async move |_| {
            let first = reader.next().await.expect("readable");
            (reader, first)
        });
        let Look::Ready(first) = first else { panic!("there are bytes") };
        fleet.retain(by_age(1));
        fleet.world.run_for(48 * HOUR);
        assert!(fleet.find(shard, "a").is_none());
        let (rest, state) = fleet.run(shard, async move |_| {
            let mut rest = Vec::new();
            loop {
                match reader.next().await.expect("readable") {
                    Look::Ready(range) => rest.extend(loaded(&range)),
                    Look::End(state) => return (rest, state),
                }
            }
        });
        assert!([loaded(&first), rest].concat() == bytes, "a reader that has it open reads on");
        assert_eq!(state, State::Gone);
    }
}

/// Catches one stream too many or too few, a younger one that goes before an older one of another shard, and a sum
/// that stays too much because nobody looks.
#[test]
fn the_oldest_go_until_all_together_are_within_bounds() {
    for seed in seeds(20) {
        let fleet = Fleet::new(seed);
        // Each stream is one run, which stays while its producer does.
        let bytes_max = 1 + fleet.world.chance().below(75_000);
        fleet.retain(by_bytes(bytes_max));
        let held = fleet.open(0, "held", false).expect("free");
        // Told by its length: an append is published at the end of a turn, which may be still to come.
        let held_bytes = 1 + fleet.world.chance().below(16_000);
        let (held, done) = fleet.append(0, held, &content(seed, held_bytes as usize));
        done.expect("appended");
        // Oldest first: what ended and is there.
        let mut model: Vec<(String, u64)> = Vec::new();
        for round in 0..20 {
            let name = format!("{round:02}");
            let len = fleet.world.chance().below(16_000);
            fleet.ended(&name, &content(seed, len as usize));
            model.push((name, len));
            // Either at once or after a while: nothing may depend on the pauses of who looks.
            fleet.world.run_for(Duration::from_millis(fleet.world.chance().below(3000)));
            if fleet.world.chance().one_in(3) {
                fleet.world.run_for(FRUITLESS + 2 * STEP);
                expect(&fleet, &mut model, held_bytes, bytes_max);
            }
        }
        fleet.world.run_for(FRUITLESS + 2 * STEP);
        expect(&fleet, &mut model, held_bytes, bytes_max);
        assert_eq!(fleet.reaped().streams as usize, 20 - model.len());
        fleet.world.enter(0, |_| drop(held));
        fleet.world.run_for(FRUITLESS + 2 * STEP);
        model.push(("held".to_owned(), held_bytes));
        expect(&fleet, &mut model, 0, bytes_max);
        assert_eq!(fleet.world.panics(), 0);
    }
}

/// What is there is what the model keeps.
fn expect(fleet: &Fleet, model: &mut Vec<(String, u64)>, held_bytes: u64, bytes_max: u64) {
    let total = |model: &[(String, u64)]| model.iter().map(|(_, bytes)| bytes).sum::<u64>() + held_bytes;
    while total(model) > bytes_max
        && let Some(oldest) = model.iter().position(|(_, bytes)| *bytes > 0)
    {
        model.remove(oldest);
    }
    let page = fleet.list(fleet.any(), super::super::tests::all());
    let mut there: Vec<String> = page.streams.iter().map(|found| found.id.text().into_owned()).collect();
    there.retain(|name| name != "held" || held_bytes == 0);
    let mut kept: Vec<String> = model.iter().map(|(name, _)| name.clone()).collect();
    kept.sort();
    assert_eq!(there, kept, "within {bytes_max}");
    assert_eq!(fleet.shards[0].total_bytes(Keeper::Loom), total(model));
}

/// Catches a bound that is not kept for what was there before it, and more in one go than there is memory for.
#[test]
fn a_new_bound_holds_for_all_there_is() {
    let fleet = Fleet::new(7);
    let count = BATCH + 500;
    let sizes: Vec<u64> = (0..count as u64).map(|number| 1 + number % 7).collect();
    for (number, len) in sizes.iter().enumerate() {
        let shard = number % SHARDS;
        let name = id(&format!("{number:04}"));
        let bytes = content(*len, *len as usize);
        fleet.run(shard, async move |streams| {
            let mut producer = streams.open(name, Default::default()).await.expect("free");
            producer.make_room().await.expect("room");
            producer.take(&bytes);
            producer.make_room().await.expect("room");
            producer.end().await.expect("ended");
        });
    }
    let all: u64 = sizes.iter().sum();
    assert_eq!(fleet.shards[0].total_bytes(Keeper::Loom), all);
    fleet.retain(by_bytes(all / 10));
    fleet.world.run_for(60 * STEP);
    assert!(fleet.shards[0].total_bytes(Keeper::Loom) <= all / 10);
    let newest = *sizes.last().expect("some");
    assert!(
        fleet.shards[0].total_bytes(Keeper::Loom) + 7 > all / 10
            && fleet.find(0, &format!("{:04}", count - 1)).is_some()
    );
    let reaped = fleet.reaped();
    assert_eq!(reaped.bytes, all - fleet.shards[0].total_bytes(Keeper::Loom));
    fleet.retain(Retention { age_max: Some(HOUR), bytes_max: None });
    fleet.world.run_for(3 * HOUR);
    assert_eq!(
        (fleet.shards[0].total_bytes(Keeper::Loom), fleet.reaped().streams),
        (0, count as u64),
        "{newest}"
    );
}

/// Catches a reaper that looks at a clock although nothing is to be kept within bounds.
#[test]
fn without_retention_and_within_bounds_no_timer_is_set() {
    let fleet = Fleet::new(3);
    fleet.ended("a", b"there");
    let timers = || {
        fleet.world.run_until_idle();
        (0..SHARDS).filter_map(|shard| fleet.world.enter(shard, |shard| shard.timers().next())).count()
    };
    assert_eq!(timers(), 0);
    fleet.retain(by_bytes(1 << 20));
    fleet.ended("b", b"there");
    assert_eq!(timers(), 0, "who makes it too much says so");
    fleet.retain(by_age(1));
    assert_eq!(timers(), SHARDS);
    fleet.retain(Retention::default());
    assert_eq!(timers(), 0);
}

/// How much a stream got, and when, oldest first.
type Came = Vec<(u64, u64)>;

impl Fleet {
    /// Appends `len` more bytes to a stream that has `from`, and notes when they came.
    fn grow(&self, producer: Producer, seed: u64, len: usize, came: &mut Came) -> Producer {
        let from = came.last().map_or(0, |(to, _)| *to);
        let bytes = &content(seed, from as usize + len)[from as usize..];
        let (producer, done) = self.append(0, producer, bytes);
        done.expect("appended");
        came.push((from + len as u64, self.now_ms()));
        producer
    }
}

/// What is left of a stream's bytes, wherever it begins by now.
fn is_suffix(fleet: &Fleet, name: &str, seed: u64, len: u64) -> u64 {
    let found = fleet.find(0, name).expect("there");
    let (first, shard) = (found.tail.first(), fleet.any());
    let bytes = fleet.run(shard, async move |streams| {
        let until = found.tail.published();
        read(streams.read(found.tail, first, until)).await.0
    });
    assert!(bytes == content(seed, len as usize)[first as usize..], "from {first} on it is what it was");
    first
}

/// Catches a byte that goes before its time, one that stays although nothing holds it, and one that is gone although
/// it lies behind where the stream begins.
#[test]
fn an_open_stream_loses_what_was_written_too_long_ago_by_whole_runs() {
    for seed in seeds(6) {
        let fleet = Fleet::new(seed);
        fleet.retain(by_age(2));
        let mut producer = fleet.open(0, "a", false).expect("free");
        let mut came = Came::new();
        let mut firsts = Vec::new();
        for _ in 0..60 {
            let len = 1 + fleet.world.chance().below(40_000) as usize;
            producer = fleet.grow(producer, seed, len, &mut came);
            fleet.world.run_for(HOUR * fleet.world.chance().below(8) as u32);
            let len = came.last().expect("some").0;
            let first = is_suffix(&fleet, "a", seed, len);
            let now = fleet.now_ms();
            let age_of = |byte: u64| now - came.iter().find(|(to, _)| byte < *to).expect("it came").1;
            assert!(first == 0 || age_of(first - 1) >= 48 * MS_PER_HOUR, "{first} of {len} went too early");
            // The run that was begun last stays whatever its age, and so may what waits for the next look.
            let tail = fleet.find(0, "a").expect("there").tail;
            let late = 51 * MS_PER_HOUR + 5000;
            if let Some(oldest) = tail.old_runs().next() {
                assert!(age_of(oldest.to - 1) < late, "{oldest:?} of {len} is still there at {now}");
            }
            firsts.push(first);
        }
        assert!(firsts.is_sorted() && firsts.last() > Some(&0));
        let went = fleet.reaped();
        assert_eq!((went.streams, went.bytes), (0, *firsts.last().expect("some")));
        assert_eq!(fleet.shards[0].total_bytes(Keeper::Loom), came.last().expect("some").0 - went.bytes);
        // Once it has ended it goes whole, counted from its end.
        let ended = fleet.run(0, async move |_| producer.end().await);
        assert_eq!(ended, Ok(came.last().expect("some").0));
        fleet.world.run_for(47 * HOUR);
        assert_eq!(is_suffix(&fleet, "a", seed, came.last().expect("some").0), went.bytes);
        fleet.world.run_for(2 * HOUR);
        assert!(fleet.find(0, "a").is_none());
        assert_eq!((fleet.shards[0].total_bytes(Keeper::Loom), fleet.reaped().streams), (0, 1));
        assert_eq!(fleet.world.panics(), 0);
    }
}

/// Catches a stream that grows beyond all bounds because it never ends, and one that loses more than it has to.
#[test]
fn an_open_stream_that_is_too_much_alone_loses_its_oldest_runs() {
    for seed in seeds(6) {
        let fleet = Fleet::new(seed);
        let bytes_max = 500_000;
        fleet.retain(by_bytes(bytes_max));
        let mut producer = fleet.open(0, "a", false).expect("free");
        let mut came = Came::new();
        for _ in 0..40 {
            let len = 1 + fleet.world.chance().below(60_000) as usize;
            producer = fleet.grow(producer, seed, len, &mut came);
            // A run may go once it is on disk, of which nobody tells.
            fleet.world.run_for(FRUITLESS + 2 * STEP);
            let (tail, total) =
                (fleet.find(0, "a").expect("there").tail, fleet.shards[0].total_bytes(Keeper::Loom));
            let len = came.last().expect("some").0;
            let first = is_suffix(&fleet, "a", seed, len);
            assert_eq!(total, len - first);
            assert!(total <= bytes_max || tail.old_runs().next().is_none(), "{total} and some could go");
            // Whatever went, without the last run of it there would have been too much.
            let largest = len.min(512 << 10);
            assert!(first == 0 || total + largest > bytes_max, "{first} of {len} went");
        }
        assert!(fleet.reaped().bytes > 0 && fleet.reaped().streams == 0);
        fleet.world.enter(0, |_| drop(producer));
    }
}

/// Catches a stream as long as may be that goes whole because a restart or a lost connection cut it for a moment, and
/// interrupted ones that never go.
#[test]
fn an_interrupted_stream_loses_its_beginning_before_it_goes() {
    for seed in seeds(6) {
        let fleet = Fleet::new(seed);
        let mut came = Came::new();
        let producer = fleet.open(0, "a", false).expect("free");
        let producer = fleet.grow(producer, seed, 300_000, &mut came);
        fleet.world.enter(0, |_| drop(producer));
        fleet.world.run_for(HOUR);
        let first_after = |bytes_max: u64| {
            fleet.retain(by_bytes(bytes_max));
            fleet.world.run_for(FRUITLESS + 3 * STEP);
            fleet.find(0, "a").map(|_| is_suffix(&fleet, "a", seed, 300_000))
        };
        // Runs of 16, 32, 64 and 128 KiB, and the rest in the last one.
        let [one, three, four] = [16 << 10, 112 << 10, 240 << 10];
        assert_eq!(first_after(299_999), Some(one));
        assert_eq!(first_after(200_000), Some(three));
        assert_eq!(first_after(60_000), Some(four));
        assert_eq!(first_after(50_000), None, "what is left of it is too much as well");
        assert_eq!(fleet.shards[0].total_bytes(Keeper::Loom), 0);
        let reaped = fleet.reaped();
        assert_eq!((reaped.streams, reaped.bytes), (1, 300_000));
    }
}

/// Catches a live stream that is spared at the cost of younger ones that ended, and the other way round.
#[test]
fn the_oldest_bytes_go_first_whoever_they_belong_to() {
    for seed in seeds(6) {
        let fleet = Fleet::new(seed);
        let mut came = Came::new();
        let producer = fleet.open(0, "live", false).expect("free");
        // Fills its first runs, of 16 and 32 KiB, and begins the third.
        let producer = fleet.grow(producer, seed, 50_000, &mut came);
        fleet.world.run_for(HOUR);
        for name in ["one", "two", "three"] {
            fleet.ended(name, &content(1, 10_000));
            fleet.world.run_for(HOUR);
        }
        // Its third run, of 64 KiB, is whole now, and younger than those.
        let producer = fleet.grow(producer, seed, 70_000, &mut came);
        fleet.world.run_for(HOUR);
        let there = |bytes_max: u64| {
            fleet.retain(by_bytes(bytes_max));
            fleet.world.run_for(FRUITLESS + 3 * STEP);
            let streams = fleet.list(0, super::super::tests::all()).streams;
            let names = streams.iter().map(|found| found.id.text().into_owned()).collect::<Vec<_>>();
            (names.join(" "), fleet.find(0, "live").expect("open").tail.first())
        };
        let [first, second, third] = [16 << 10, 48 << 10, 112 << 10];
        for (bytes_max, names, begins) in [
            (150_000, "live one three two", 0),
            (149_999, "live one three two", first),
            (110_000, "live one three two", second),
            (100_000, "live three two", second),
            (82_000, "live three", second),
            (75_000, "live", second),
            (70_000, "live", third),
            (1, "live", third),
        ] {
            assert_eq!(there(bytes_max), (names.to_owned(), begins), "within {bytes_max}");
        }
        assert_eq!(is_suffix(&fleet, "live", seed, 120_000), third);
        fleet.world.enter(0, |_| drop(producer));
    }
}

/// Catches a reader that goes on behind what it missed as if nothing had been there.
#[test]
fn a_reader_that_is_overtaken_is_told_so() {
    for seed in seeds(8) {
        let fleet = Fleet::new(seed);
        let mut came = Came::new();
        let producer = fleet.open(0, "a", false).expect("free");
        let producer = fleet.grow(producer, seed, 3_000_000, &mut came);
        let found = fleet.find(0, "a").expect("open");
        let (shard, tail) = (fleet.any(), found.tail.clone());
        let (mut slow, piece) = fleet.run(shard, async move |streams| {
            let mut slow = streams.follow(tail, 0);
            let piece = slow.next().await;
            (slow, piece)
        });
        let Ok(Look::Ready(piece)) = piece else { panic!("there are bytes") };
        fleet.world.run_for(Duration::from_secs(5));
        fleet.retain(by_bytes(500_000));
        fleet.world.run_for(FRUITLESS);
        let first = found.tail.first();
        assert!(first > slow.position() && first < 3_000_000);
        // What it was given stays good.
        assert!(loaded(&piece) == content(seed, 3_000_000)[..piece.len as usize]);
        let next = fleet.run(shard, async move |_| slow.next().await.map(drop));
        assert_eq!(next, Err(StoreError::Trimmed(first)));
        // One that waits at the end is not concerned.
        let tail = found.tail.clone();
        let rest = fleet.run(shard, async move |streams| {
            let mut rest = streams.follow(tail, first);
            rest.next().await.map(|_| rest.position())
        });
        assert!(rest.is_ok_and(|position| position > first));
        // A spy that begins now begins where the stream does.
        let spied = fleet.run(shard, async move |streams| {
            let mut spy = streams.spy(Keepers::of([Keeper::Loom])).await.expect("a spy");
            let start = spy.next().await.expect("there is one");
            let bytes = spy.next().await.expect("it has bytes");
            (start.map(|sight| sight.what), bytes.map(|sight| sight.what))
        });
        let (Some(What::Start), Some(What::Bytes(range))) = spied else { panic!("{spied:?}") };
        assert!(loaded(&range) == content(seed, 3_000_000)[first as usize..][..range.len as usize]);
        fleet.world.enter(0, |_| drop(producer));
    }
}

/// Catches a spy that skips what it missed, or waits for it for ever.
#[test]
fn a_spy_that_is_overtaken_is_given_up() {
    let fleet = Fleet::new(11);
    let mut came = Came::new();
    let producer = fleet.open(0, "a", false).expect("free");
    let mut spy =
        fleet.run(1, async move |streams| streams.spy(Keepers::of([Keeper::Loom])).await.expect("a spy"));
    let producer = fleet.grow(producer, 1, 3_000_000, &mut came);
    let (mut spy, seen) = fleet.run(1, async move |_| {
        spy.next().await.expect("it begins");
        let seen = spy.next().await.expect("it has bytes");
        (spy, seen)
    });
    assert!(matches!(seen, Some(super::super::Sight { what: What::Bytes(_), .. })));
    fleet.retain(by_bytes(500_000));
    fleet.world.run_for(FRUITLESS);
    assert!(spy.has_more());
    let next = fleet.run(1, async move |_| spy.next().await.map(drop));
    let first = fleet.find(0, "a").expect("open").tail.first();
    assert_eq!(next, Err(super::super::SpyError::Store(StoreError::Trimmed(first))));
    fleet.world.enter(0, |_| drop(producer));
}

/// Catches a deletion of another stream than the one that was chosen.
#[test]
fn what_changed_since_it_was_chosen_stays() {
    let fleet = Fleet::new(5);
    let owner = |name: &str| fleet.shards[0].owner_of(&id(name)).index();
    let reap = |chosen: &Old| {
        let (chosen, shard) = (chosen.clone(), owner(&chosen.id.text()));
        fleet.run(shard, async move |streams| streams.reap(vec![chosen], Reason::Age).await)
    };
    let chosen = |name: &str| {
        let found = fleet.find(0, name).expect("there");
        let (at_ms, uid, bytes) = (found.tail.ended_ms(), found.tail.uid(), found.tail.published());
        Old { at_ms, id: found.id, uid, to: WHOLE, bytes }
    };
    fleet.ended("replaced", b"old");
    let before = chosen("replaced");
    let shard = fleet.any();
    let new = fleet.open(shard, "replaced", true).expect("forced");
    fleet.world.enter(shard, |_| drop(new));
    fleet.world.run_until_idle();
    assert_eq!(reap(&before), Ok(Reaped::default()));
    let producer = fleet.open(shard, "resumed", false).expect("free");
    fleet.world.enter(shard, |_| drop(producer));
    fleet.world.run_until_idle();
    let before = chosen("resumed");
    let epoch = fleet.find(0, "resumed").expect("there").tail.epoch();
    let resumed = fleet.resume(shard, "resumed", 0, epoch).expect("resumed");
    assert_eq!(reap(&before), Ok(Reaped::default()));
    fleet.world.enter(shard, |_| drop(resumed));
    fleet.world.run_for(STEP);
    assert_eq!(reap(&before), Ok(Reaped::default()), "it ended later than that");
    assert_eq!(reap(&chosen("resumed")), Ok(Reaped { streams: 1, ..Reaped::default() }));
    assert!(matches!(fleet.resume(shard, "resumed", 0, epoch).map(drop), Err(OpenError::Unknown)));
    let found = fleet.find(0, "replaced").expect("the new one");
    assert_eq!(
        fleet.run(0, async move |streams| read(streams.follow(found.tail, 0)).await.1),
        State::Interrupted
    );
}

fn stream(at_ms: u64, bytes: u64) -> Old {
    Old { at_ms, id: id(&at_ms.to_string()), uid: at_ms, to: WHOLE, bytes }
}

fn part(streams: &[(u64, u64)], has_more: bool) -> Oldest {
    Oldest { all: streams.iter().map(|&(at_ms, bytes)| stream(at_ms, bytes)).collect(), has_more }
}

/// Catches one stream too many or too few, and one that is taken before an older one that nobody told of.
#[test]
fn the_oldest_of_all_parts_are_chosen_and_no_more_than_have_to_go() {
    let chosen = |parts: &[Oldest], bytes| -> Vec<u64> {
        choose(parts.to_vec(), bytes).iter().map(|old| old.at_ms).collect()
    };
    let parts = [part(&[(1, 10), (4, 10)], false), part(&[(2, 10), (3, 10)], false), part(&[], false)];
    for (bytes, expected) in
        [(0, &[][..]), (1, &[1]), (10, &[1]), (11, &[1, 2]), (40, &[1, 2, 3, 4]), (99, &[1, 2, 3, 4])]
    {
        assert_eq!(chosen(&parts, bytes), expected, "{bytes}");
    }
    let parts = [part(&[(1, 10), (4, 10)], false), part(&[(2, 10), (3, 10)], true)];
    assert_eq!(chosen(&parts, 99), [1, 2, 3], "behind 3 there may be others");
}

/// Catches growth that nobody tells of because something was told a moment ago, and that nobody looks for.
#[test]
fn what_grows_in_the_shadow_of_a_message_is_seen() {
    for seed in seeds(10) {
        let fleet = Fleet::new(seed);
        fleet.retain(by_bytes(1000));
        let produce = |shard: usize, name: &str| {
            let producer = fleet.open(shard, name, false).expect("free");
            let (producer, done) = fleet.append(shard, producer, &[b'x'; 600]);
            done.expect("appended");
            producer
        };
        let ended = produce(0, "ended");
        fleet.world.enter(0, |_| drop(ended));
        fleet.world.run_until_idle();
        let open = produce(0, "open");
        fleet.world.run_for(Duration::from_millis(400));
        assert_eq!(
            fleet.shards[0].total_bytes(Keeper::Loom),
            600,
            "the older one went, and the reaper rests"
        );
        // Too much again, told, and deleted by somebody else before the reaper looks.
        let told = produce(1, "told");
        let gone = fleet.run(1, async move |streams| streams.delete(id("told")).await);
        fleet.world.run_until_idle();
        assert_eq!((gone, fleet.shards[0].total_bytes(Keeper::Loom)), (Ok(true), 600));
        fleet.world.run_for(Duration::from_millis(750));
        // Nobody says so within a second of the last time.
        let silent = produce(1, "silent");
        fleet.world.enter(1, |_| drop((told, silent)));
        fleet.world.run_for(30 * STEP);
        assert_eq!(fleet.shards[0].total_bytes(Keeper::Loom), 600);
        assert!(fleet.find(0, "silent").is_none());
        fleet.world.enter(0, |_| drop(open));
    }
}

/// Catches a rule that is held against another keeper's streams, and bytes of theirs that count against it.
#[test]
fn each_keeper_has_a_rule_of_its_own() {
    for seed in seeds(6) {
        let fleet = Fleet::new(seed);
        let names = ["a", "serpentine/a", "ion/a", "b", "serpentine/b", "ion/b"];
        let there = || names.map(|name| fleet.find(fleet.any(), name).is_some());
        for name in names {
            fleet.ended(name, &content(seed, 1000));
            fleet.world.run_for(Duration::from_secs(1));
        }
        let bytes = || Keeper::ALL.map(|keeper| fleet.shards[0].total_bytes(keeper));
        assert_eq!(bytes(), [2000, 2000, 2000, 0]);
        // Each has as much as it may, and all together more than any may.
        fleet.retain_of(Keeper::Loom, by_bytes(2000));
        fleet.retain_of(Keeper::Serpentine, by_bytes(2000));
        fleet.world.run_for(HOUR);
        assert_eq!(there(), [true; 6]);
        fleet.retain_of(Keeper::Serpentine, by_bytes(1999));
        fleet.world.run_for(HOUR);
        assert_eq!(there(), [true, false, true, true, true, true]);
        fleet.retain_of(Keeper::Loom, by_bytes(1000));
        fleet.world.run_for(HOUR);
        assert_eq!(there(), [false, false, true, true, true, true]);
        assert_eq!(bytes(), [1000, 1000, 2000, 0]);
        fleet.retain_of(Keeper::Loom, by_age(2));
        fleet.retain_of(Keeper::Serpentine, by_age(1));
        fleet.world.run_for(30 * HOUR);
        assert_eq!(there(), [false, false, true, true, false, true]);
        fleet.world.run_for(24 * HOUR);
        assert_eq!(there(), [false, false, true, false, false, true], "what nobody gave a rule stays");
        assert_eq!(bytes(), [0, 0, 2000, 0]);
    }
}
