//! The world decides by its seed alone, and lets everything happen that can.

use super::World;
use crate::runtime::sim::{SimDisk, seeds};
use crate::runtime::{blocking, shard, timer};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// A little of everything on two shards; returns what the world says happened and in which order tasks ended.
fn history(seed: u64) -> (u64, Vec<(usize, u32)>) {
    let world = World::new(seed, 2, SimDisk::new(seed));
    let ended = Rc::new(RefCell::new(Vec::new()));
    for index in 0..2 {
        for number in 0..5 {
            let ended = ended.clone();
            world.enter(index, |shard| {
                shard.executor().spawn("history", async move {
                    let path = format!("{index}-{number}");
                    let disk = shard::current().disk().clone();
                    let file =
                        blocking::run(move || disk.create(Path::new(&path), 4096)).await.unwrap().unwrap();
                    file.write_at(b"bytes", 7).unwrap();
                    file.sync_data().await.unwrap();
                    timer::sleep(Duration::from_millis(u64::from(number % 2))).await;
                    ended.borrow_mut().push((index, number));
                });
            });
        }
    }
    assert!(world.run_until(|| ended.borrow().len() == 10, 100_000));
    (world.trace(), ended.take())
}

#[test]
fn the_same_seed_makes_the_same_history() {
    for seed in seeds(20) {
        assert_eq!(history(seed), history(seed));
    }
}

#[test]
fn other_seeds_make_other_histories() {
    let orders: BTreeSet<_> = (0..20).map(|seed| history(seed).1).collect();
    assert!(orders.len() > 15, "only {} different orders", orders.len());
}

#[test]
fn time_passes_only_when_nothing_else_can_happen_or_in_small_steps() {
    let world = World::new(1, 1, SimDisk::new(1));
    world.block_on(0, async { timer::sleep(Duration::from_secs(3600)).await });
    assert!(world.now().as_nanos() >= 3_600_000_000_000);
    world.run_for(Duration::from_secs(5));
    assert!(world.now().as_nanos() >= 3_605_000_000_000);
    let before = world.now();
    world.run_until_idle();
    assert_eq!(world.now(), before);
}

#[test]
fn a_periodic_timer_does_not_keep_the_world_from_rest() {
    let world = World::new(1, 1, SimDisk::new(1));
    let ticks = Rc::new(Cell::new(0));
    let ticking = ticks.clone();
    world.enter(0, |shard| {
        shard.executor().spawn("ticker", async move {
            loop {
                timer::sleep(Duration::from_millis(100)).await;
                ticking.set(ticking.get() + 1);
            }
        });
    });
    world.run_until_idle();
    assert_eq!(ticks.get(), 0);
    world.run_for(Duration::from_millis(1050));
    assert!((9..=10).contains(&ticks.get()), "{} ticks", ticks.get());
}

#[test]
#[should_panic(expected = "nothing is left that could complete")]
fn waiting_for_what_never_comes_is_told() {
    World::new(1, 1, SimDisk::new(1)).block_on(0, std::future::pending::<()>());
}

#[test]
#[should_panic(expected = "has panicked")]
fn waiting_for_a_task_that_panics_is_told() {
    World::new(1, 1, SimDisk::new(1)).block_on(0, async { panic!("a planted panic") });
}

#[test]
fn a_panicking_job_is_an_error_for_its_waiter() {
    let world = World::new(1, 1, SimDisk::new(1));
    let outcome = world.block_on(0, blocking::run(|| -> u32 { panic!("a planted panic") }));
    assert!(outcome.is_err());
    assert_eq!(world.enter(0, |shard| shard.jobs().in_flight()), 0);
}

#[test]
fn a_stopped_disk_stops_the_world() {
    let world = World::new(1, 1, SimDisk::new(1));
    world.disk().stop_at(1);
    let outcome = world.try_block_on(0, async {
        let file = shard::current().disk().create(Path::new("f"), 10).unwrap();
        let written = file.write_at(b"x", 0);
        assert!(written.is_err());
        std::future::pending::<()>().await;
    });
    assert_eq!(outcome, None);
    assert!(!world.step());
}
