//! Memory that is free goes back to the system, and how much there is of it.
//!
//! Opening a store takes memory for everything that is read, most of which is free again before anything is served;
//! the allocator would keep it. Lives on: the main thread, once, before shards serve.

/// What the kernel says about this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Bytes in memory.
    pub resident: u64,
    /// Threads.
    pub threads: u64,
}

impl Process {
    /// Looks now; reads a file of the kernel's, so a shard has a worker do it. Zero where it says nothing.
    pub fn look() -> Process {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Process { resident: number("VmRSS:").unwrap_or(0) * 1024, threads: number("Threads:").unwrap_or(0) }
    }
}

/// Gives back what was freed, as far as whole pages are free.
pub fn give_back() {
    // musl has no such call, and gives back by itself.
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer and may be called at any time from any thread: glibc locks its own arenas.
    unsafe {
        libc::malloc_trim(0);
    }
}
