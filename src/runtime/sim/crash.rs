//! How a simulated machine ends: a killed process, a power loss, or a stop at a chosen operation.
//!
//! To visit every crash of a history, run it once to learn [`SimDisk::ops`], then again with
//! [`SimDisk::stop_at`] for each operation: the world stands still there, and the test decides whether only
//! the process died or the power went too.
//!
//! Invariant: what ended never touches the disk again; its handles answer with errors. Lives on: tests.

use super::disk::SimDisk;
use crate::runtime::entropy::Entropy;

impl SimDisk {
    /// SIGKILL: the page cache stays as it is, locks are free, operations on their way are gone. Returns the
    /// next process's view.
    #[must_use = "the old view is dead"]
    pub fn kill(&self) -> SimDisk {
        let machine = &mut *self.machine();
        machine.life += 1;
        machine.syncs.clear();
        machine.locks.clear();
        machine.stop_at = None;
        machine.stopped = false;
        machine.files.values_mut().for_each(|inode| inode.handles = 0);
        machine.collect();
        self.in_life(machine.life)
    }

    /// The power fails: what was synced remains, of everything else a part that `chance` picks, sector by
    /// sector and name by name; now and then all of it, or nothing. Returns the next process's view.
    #[must_use = "the old view is dead"]
    pub fn power_loss(&self, chance: &Entropy) -> SimDisk {
        let after = self.kill();
        let machine = &mut *after.machine();
        // In quarters: a disk that had stored nothing yet, half of it, most of it, everything.
        let [names, bytes] = [0, 1].map(|_| [0, 2, 3, 4][chance.below(4) as usize]);
        machine.tree.lose_power(names, chance);
        machine.files.values_mut().for_each(|inode| inode.content.lose_power(bytes, chance));
        machine.collect();
        self.in_life(machine.life)
    }

    /// How many operations changed something so far: writes, syncs, and whatever names and locks needed.
    pub fn ops(&self) -> u64 {
        self.machine().ops
    }

    /// Stops the machine at the operation with this number, counted from zero as [`SimDisk::ops`] counts: it
    /// fails (a write may have stored a part), and so does everything after it.
    pub fn stop_at(&self, op: u64) {
        self.machine().stop_at = Some(op);
    }

    /// Whether the operation to stop at was reached. A stopped disk needs [`SimDisk::kill`] or
    /// [`SimDisk::power_loss`].
    pub fn is_stopped(&self) -> bool {
        self.machine().stopped
    }
}
