//! The scrub finds damage before anyone asks for it, and nobody is served it afterwards.

mod store;

use millpond::storage::Durability;
use std::time::Duration;
use store::{Rig, options, pattern};

/// Catches a scrub that never comes, one that misses a window, and damage that is served because it was written well
/// in this very life.
#[test]
fn damage_is_found_in_time_and_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &options(2, Durability::Sync));
    for shard in 0..2 {
        rig.on_shard(shard, || rig.stores[shard].keep_scrubbed());
    }
    let whole = pattern(1, 600_000);
    rig.write(0, "whole", &whole);
    let tail = rig.write(1, "hit", &pattern(2, 600_000));
    let place = tail.range(300_000, 1).unwrap();
    let mut byte = [0];
    place.file.read_exact_at(&mut byte, place.offset).unwrap();
    place.file.write_at(&[byte[0] ^ 1], place.offset).unwrap();
    assert!(rig.read(&tail).is_ok(), "what was written in this life is trusted");

    rig.wait(Duration::from_secs(3600));
    rig.settle();
    let damaged = |rig: &Rig| rig.metrics.iter().map(|metrics| metrics.windows_damaged.value()).sum::<u64>();
    let scrubs = |rig: &Rig| rig.metrics.iter().map(|metrics| metrics.scrubs.value()).sum::<u64>();
    assert_eq!((damaged(&rig), scrubs(&rig)), (1, 2));
    assert!(rig.read(&tail).is_err());
    assert!(rig.read(&rig.found("whole").tail).unwrap() == whole);

    // A week later again; nothing in between.
    rig.wait(Duration::from_secs(6 * 24 * 3600));
    rig.settle();
    assert_eq!(scrubs(&rig), 2);
    rig.wait(Duration::from_secs(24 * 3600));
    rig.settle();
    assert_eq!(scrubs(&rig), 4);
    rig.close();
}
