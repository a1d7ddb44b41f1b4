//! System calls that no crate wraps. Each is one function over a borrowed descriptor.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct cachestat_range` of cachestat(2).
#[repr(C)]
struct CachestatRange {
    off: u64,
    len: u64,
}

/// `struct cachestat` of cachestat(2).
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    nr_cache: u64,
    nr_dirty: u64,
    nr_writeback: u64,
    nr_evicted: u64,
    nr_recently_evicted: u64,
}

const SYS_CACHESTAT: libc::c_long = 451;

/// How many pages of the range are in the page cache, or `None` when the kernel (before 6.5) cannot tell.
pub fn cached_pages(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Option<u64> {
    let range = CachestatRange { off: offset, len };
    let mut stat = Cachestat::default();
    // SAFETY: both pointers are to live locals of the layouts that cachestat(2) names, and the kernel writes
    // only into `stat`. The descriptor is borrowed for the whole call.
    let result = unsafe {
        libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), &raw const range, &raw mut stat, 0 as libc::c_uint)
    };
    (result == 0).then_some(stat.nr_cache)
}

/// Asks for writeback of the range to begin, without waiting for it.
pub fn start_writeback(fd: BorrowedFd<'_>, offset: u64, len: u64) {
    // SAFETY: no pointers; the descriptor is borrowed for the whole call. The result is advice not taken at worst.
    let _ = unsafe {
        libc::sync_file_range(fd.as_raw_fd(), offset as i64, len as i64, libc::SYNC_FILE_RANGE_WRITE)
    };
}

/// Bytes of a TCP socket that its peer has not acknowledged; none where the socket cannot tell.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one int, to a live local. The descriptor is borrowed for the whole call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}
