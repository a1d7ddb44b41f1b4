//! Every segment has one descriptor, from before its first write to its end: a failed write to the disk is told to
//! descriptors that were open by then, and to no other.

mod store;

use millpond::storage::Durability;
use std::collections::HashSet;
use store::{Rig, options, pattern};
use tempfile::TempDir;

/// What is appended to, moved, read late and checkpointed is opened by nobody: its maker's descriptor serves.
#[test]
fn a_segment_is_opened_once_and_before_its_first_write() {
    let dir = TempDir::new().unwrap();
    let options = options(2, Durability::Sync);
    let rig = Rig::new(dir.path(), &options);
    for number in 0..60u64 {
        rig.write(number as usize % 2, &format!("s{number}"), &pattern(number, 70_000));
    }
    for number in (0..60).filter(|number| number % 4 != 0) {
        rig.delete(&format!("s{number}")).unwrap();
    }
    // Compaction and checkpoints, and whatever else there is to be done.
    let store = rig.stores[0].clone();
    assert!(rig.run(0, async move { store.checkpoint().await }));
    (0..5).for_each(|_| rig.settle());
    assert!(rig.metrics.iter().any(|metrics| metrics.compacted_bytes.value() > 0));
    assert!(rig.read(&rig.found("s4").tail).unwrap() == pattern(4, 70_000));
    let is_segment = |name: &str| name.starts_with("bulk-") || name.starts_with("journal-");
    let events = rig.disk.take_events();
    let (mut opened, mut written) = (HashSet::new(), HashSet::new());
    for event in &events {
        match event.split_once(' ').expect("what, and which") {
            ("create" | "open", name) if is_segment(name) => {
                assert!(opened.insert(name), "{name} has a second descriptor");
                assert!(!written.contains(name));
            }
            ("write", name) if is_segment(name) => {
                assert!(opened.contains(name), "{name} was written without one");
                written.insert(name);
            }
            _ => {}
        }
    }
    assert!(written.len() > 4, "{written:?}");
    rig.close();
}
