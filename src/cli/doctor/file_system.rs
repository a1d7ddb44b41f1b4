//! Which file system a directory lies on, by the number that statfs(2) gives it, and whether ours belongs there.
//!
//! Pure; runs on the main thread.

/// What a file system is, as far as a store cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nature {
    /// Blocks of a disk of this machine.
    Local,
    /// Memory: gone with the machine's next start.
    Memory,
    /// A view over other file systems: copies files up, and syncs as well as what is below.
    Overlay,
    /// Served by a process, which decides what a sync is worth.
    Fuse,
    /// On another machine, or shared with one: locks and syncs are as good as the protocol.
    Network,
    /// Not in the table.
    Unknown,
}

/// The name and nature of a file system.
pub fn of_magic(magic: u64) -> (&'static str, Nature) {
    let found = KNOWN.iter().find(|(known, ..)| *known == magic);
    found.map_or(("unknown", Nature::Unknown), |(_, name, nature)| (name, *nature))
}

const KNOWN: &[(u64, &str, Nature)] = &[
    (0xef53, "ext4", Nature::Local),
    (0x5846_5342, "xfs", Nature::Local),
    (0x9123_683e, "btrfs", Nature::Local),
    (0xf2f5_2010, "f2fs", Nature::Local),
    (0xca45_1a4e, "bcachefs", Nature::Local),
    (0x2fc1_2fc1, "zfs", Nature::Local),
    (0x0102_1994, "tmpfs", Nature::Memory),
    (0x8584_58f6, "ramfs", Nature::Memory),
    (0x794c_7630, "overlay", Nature::Overlay),
    (0x6175_6673, "aufs", Nature::Overlay),
    (0xf15f, "ecryptfs", Nature::Overlay),
    (0x6573_5546, "FUSE", Nature::Fuse),
    (0x6969, "NFS", Nature::Network),
    (0xff53_4d42, "CIFS", Nature::Network),
    (0xfe53_4d42, "SMB", Nature::Network),
    (0x517b, "SMB", Nature::Network),
    (0x0102_1997, "9p", Nature::Network),
    (0x00c3_6400, "ceph", Nature::Network),
    (0x5346_414f, "AFS", Nature::Network),
    (0x6b41_4653, "AFS", Nature::Network),
    (0x7375_7245, "coda", Nature::Network),
    (0x0116_1970, "gfs2", Nature::Network),
    (0x7461_636f, "ocfs2", Nature::Network),
    (0x0bd0_0bd0, "lustre", Nature::Network),
    (0x4750_4653, "gpfs", Nature::Network),
    (0x786f_4256, "vboxsf", Nature::Network),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_number_stands_once() {
        let numbers: BTreeSet<u64> = KNOWN.iter().map(|(magic, ..)| *magic).collect();
        assert_eq!(numbers.len(), KNOWN.len());
        assert_eq!(of_magic(7), ("unknown", Nature::Unknown));
    }

    /// The kernel's own numbers, through file systems that every Linux has.
    #[test]
    fn the_kernel_agrees() {
        let shm = rustix::fs::statfs("/dev/shm").expect("/dev/shm is there");
        assert_eq!(of_magic(shm.f_type as u64), ("tmpfs", Nature::Memory));
        let proc = rustix::fs::statfs("/proc").expect("/proc is there");
        assert_eq!(of_magic(proc.f_type as u64).1, Nature::Unknown);
    }
}
