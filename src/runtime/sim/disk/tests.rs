//! What the simulated disk keeps, what it loses, and when it says so.

use super::{Faults, SimDisk};
use crate::runtime::clock::Clock;
use crate::runtime::entropy::Entropy;
use crate::runtime::shard::Parts;
use crate::runtime::sim::{World, seeds};
use crate::runtime::{Disk, File, Shard, ShardId, shard};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

const FILE: &str = "d/file";
const LEN: u64 = 64 * 1024;

/// A disk with a durable file, and a shard entered on this thread: off a shard a sync completes by itself.
fn disk_with_file(seed: u64) -> (SimDisk, File) {
    let disk = SimDisk::new(seed);
    shard::enter(Some(Shard::new(Parts {
        id: ShardId(0),
        count: 1,
        clock: Clock::Simulated { nanos: Rc::default() },
        entropy: Entropy::from_seed(seed),
        disk: Arc::new(disk.clone()),
        unpark: Box::new(|| {}),
    })));
    disk.create_dir(Path::new("d")).unwrap();
    let file = disk.create(Path::new(FILE), LEN).unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    (disk, file)
}

/// Syncs without a world.
fn sync(disk: &SimDisk, file: &File) -> io::Result<()> {
    let mut syncing = file.sync_data();
    let mut cx = Context::from_waker(Waker::noop());
    while syncing.as_mut().poll(&mut cx).is_pending() {
        disk.complete_one_sync();
        if let std::task::Poll::Ready(result) = syncing.as_mut().poll(&mut cx) {
            return result;
        }
    }
    panic!("a sync does not complete by itself");
}

fn content(disk: &SimDisk) -> Vec<u8> {
    disk.read(Path::new(FILE)).unwrap()
}

#[test]
fn a_kill_keeps_the_cache_and_frees_the_locks() {
    let (disk, file) = disk_with_file(1);
    let _lock = disk.lock(Path::new("d/LOCK")).unwrap();
    let refused = disk.lock(Path::new("./d/LOCK")).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    file.write_at(b"cached", 0).unwrap();
    let next = disk.kill();
    assert!(file.write_at(b"late", 0).is_err(), "a dead process writes no more");
    assert!(disk.open(Path::new(FILE)).is_err(), "nor does it open anything");
    assert_eq!(&content(&next)[..6], b"cached");
    let held = next.lock(Path::new("d/LOCK")).unwrap();
    drop(_lock);
    assert!(next.lock(Path::new("d/LOCK")).is_err(), "a dead process's lock is not the living one's");
    drop(held);
    assert!(next.lock(Path::new("d/LOCK")).is_ok());
}

#[test]
fn a_power_loss_keeps_what_was_synced() {
    for seed in seeds(50) {
        let (disk, file) = disk_with_file(seed);
        file.write_at(&[1; 9000], 100).unwrap();
        sync(&disk, &file).unwrap();
        file.write_at(&[2; 9000], 100).unwrap();
        let after = content(&disk.power_loss(&Entropy::from_seed(seed)));
        assert_eq!(after.len() as u64, LEN);
        assert!(after[100..9100].iter().all(|&byte| byte == 1 || byte == 2));
        assert!(after[9100..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_power_loss_reorders_writes() {
    // Two writes in order, no sync between: every combination of them turns up.
    let seen: BTreeSet<(u8, u8)> = (0..100)
        .map(|seed| {
            let (disk, file) = disk_with_file(seed);
            sync(&disk, &file).unwrap();
            file.write_at(b"1", 0).unwrap();
            file.write_at(b"2", 8192).unwrap();
            let after = content(&disk.power_loss(&Entropy::from_seed(seed)));
            (after[0], after[8192])
        })
        .collect();
    assert!(seen.into_iter().eq([(0, 0), (0, b'2'), (b'1', 0), (b'1', b'2')]));
}

#[test]
fn a_sync_that_has_not_completed_promises_nothing() {
    let lost = (0..50).any(|seed| {
        let (disk, file) = disk_with_file(seed);
        sync(&disk, &file).unwrap();
        file.write_at(b"x", 0).unwrap();
        let mut syncing = file.sync_data();
        assert!(syncing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(disk.pending_syncs(), 1);
        content(&disk.power_loss(&Entropy::from_seed(seed)))[0] == 0
    });
    assert!(lost);
}

#[test]
fn a_failed_sync_is_followed_by_one_that_lies() {
    let (disk, file) = disk_with_file(3);
    sync(&disk, &file).unwrap();
    file.write_at(b"gone", 0).unwrap();
    disk.fail_next_sync();
    assert_eq!(sync(&disk, &file).unwrap_err().raw_os_error(), Some(libc::EIO));
    sync(&disk, &file).unwrap();
    assert_eq!(&content(&disk)[..4], b"gone", "readers still see it");
    assert_eq!(content(&disk.power_loss(&Entropy::from_seed(3)))[..4], [0; 4]);
}

#[test]
fn a_sync_that_nobody_waits_for_still_happens() {
    let (disk, file) = disk_with_file(1);
    file.write_at(b"x", 0).unwrap();
    let mut syncing = file.sync_data();
    assert!(syncing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop((syncing, file));
    assert!(disk.complete_one_sync());
    assert!(!disk.complete_one_sync());
    assert_eq!(content(&disk.power_loss(&Entropy::from_seed(1)))[0], b'x');
}

#[test]
fn a_full_disk_refuses_and_keeps_nothing_of_it() {
    let (disk, file) = disk_with_file(1);
    disk.set_capacity(LEN + 10);
    let error = disk.create(Path::new("d/more"), 11).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.list(Path::new("d")).unwrap(), ["file"]);
    assert!(disk.create(Path::new("d/fits"), 10).is_ok());
    let error = disk.replace(Path::new("d/fits"), &[0; 11]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    disk.remove(Path::new(FILE)).unwrap();
    assert!(disk.create(Path::new("d/more"), 11).is_err(), "an open file takes room without a name");
    drop(file);
    assert!(disk.create(Path::new("d/more"), 11).is_ok());
}

#[test]
fn a_failing_write_may_leave_a_part() {
    let lens: BTreeSet<usize> = (0..50)
        .map(|seed| {
            let (disk, file) = disk_with_file(seed);
            disk.fail_next_write();
            assert!(file.write_at(&[1; 3 * 4096], 0).is_err());
            assert!(file.write_at(&[0; 1], LEN - 1).is_ok(), "only the next one was to fail");
            content(&disk).iter().filter(|&&byte| byte == 1).count()
        })
        .collect();
    assert!(lens.into_iter().eq([0, 4096, 8192, 12288]));
}

#[test]
fn odds_of_one_always_happen() {
    let (disk, file) = disk_with_file(1);
    disk.set_faults(Faults { reads_fail: 1, writes_fail: 1, syncs_fail: 1, syncs_slow: 1, not_resident: 0 });
    assert!(file.read_at(&mut [0; 4], 0).is_err());
    assert!(file.write_at(&[0; 4], 0).is_err());
    assert!(sync(&disk, &file).is_err());
    assert!(file.is_resident(0, 4));
    disk.set_faults(Faults { not_resident: 1, ..Faults::default() });
    assert_eq!(file.read_at_nowait(&mut [0; 4], 0).unwrap(), None);
    assert_eq!(file.read_at(&mut [0; 4], LEN - 2).unwrap(), 2, "short at the end of the file alone");
    assert!(file.write_at(&[0; 4], LEN - 2).is_err(), "files do not grow");
}

#[test]
fn damage_is_found_by_nobody_but_a_reader() {
    let (disk, file) = disk_with_file(1);
    file.write_at(&[6; 10], 600).unwrap();
    disk.damage(Path::new(FILE), 605);
    assert_eq!(content(&disk)[604..607], [6, 7, 6]);
    sync(&disk, &file).unwrap();
    assert_eq!(content(&disk.power_loss(&Entropy::from_seed(1)))[604..607], [6, 7, 6]);
}

/// Replaces a small file, the disk stopping at operation `op`; what is there after a power loss.
fn replaced_with_stop_at(op: u64, seed: u64) -> (bool, Vec<u8>) {
    let disk = SimDisk::new(seed);
    disk.replace(Path::new("small"), b"old").unwrap();
    disk.stop_at(disk.ops() + op);
    let world = World::new(seed, 1, disk.clone());
    let replaced = world
        .try_block_on(0, async { shard::current().disk().replace(Path::new("small"), b"newer").is_ok() });
    let after = disk.power_loss(world.chance());
    (replaced == Some(true), after.read(Path::new("small")).unwrap())
}

#[test]
fn a_replaced_file_is_old_or_new_at_every_stop() {
    let mut outcomes = BTreeSet::new();
    for seed in seeds(40) {
        for op in 0..6 {
            let (done, after) = replaced_with_stop_at(op, seed);
            assert_eq!(done, op >= 4, "replacing takes four operations");
            assert!(after == b"newer" || (!done && after == b"old"), "{after:?} after a stop at {op}");
            outcomes.insert((op, after));
        }
    }
    assert!(outcomes.contains(&(3, b"old".to_vec())) && outcomes.contains(&(3, b"newer".to_vec())));
}

/// A log of one-sector records. `sync_first` is the honest one: it counts a record only once it is synced.
fn records_lost(sync_first: bool, seed: u64) -> bool {
    let disk = SimDisk::new(seed);
    let file = disk.create(Path::new("log"), LEN).unwrap();
    disk.sync_dir(Path::new(".")).unwrap();
    let world = World::new(seed, 1, disk.clone());
    disk.stop_at(disk.ops() + world.chance().below(20));
    let acknowledged = Rc::new(std::cell::Cell::new(0));
    let counted = acknowledged.clone();
    world.try_block_on(0, async move {
        for record in 0..10u8 {
            file.write_at(&[record + 1; 512], u64::from(record) * 512)?;
            if sync_first {
                file.sync_data().await?;
            }
            counted.set(record + 1);
            shard::yield_now().await;
        }
        io::Result::Ok(())
    });
    let after = disk.power_loss(world.chance()).read(Path::new("log")).unwrap();
    (0..acknowledged.get()).any(|record| after.get(usize::from(record) * 512) != Some(&(record + 1)))
}

#[test]
fn the_net_catches_an_acknowledgement_before_the_sync_and_no_honest_one() {
    assert!(seeds(100).into_iter().all(|seed| !records_lost(true, seed)));
    assert!((0..100).filter(|&seed| records_lost(false, seed)).count() > 10);
}
