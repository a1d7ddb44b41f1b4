//! Memory that is free goes back to the system.
//!
//! Opening a store takes memory for everything that is read, most of which is free again before anything is served;
//! the allocator would keep it. Lives on: the main thread, once, before shards serve.

/// Gives back what was freed, as far as whole pages are free.
pub fn give_back() {
    // musl has no such call, and gives back by itself.
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer and may be called at any time from any thread: glibc locks its own arenas.
    unsafe {
        libc::malloc_trim(0);
    }
}
