//! Checks of the data directory: is it writable, on what does it lie, is there room, who has it, is it from the
//! future.
//!
//! A directory that does not exist yet is judged by the nearest one above it that does, where `serve` would make
//! it. Invariant: nothing that is written keeps a name. Runs on the main thread.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::Check;
use super::file_system::{Nature, of_magic};
use crate::config::Config;
use crate::daemon::{holder, options, shard_count};
use crate::storage::LOCK;

pub fn examine(config: &Config) -> Vec<Check> {
    let dir = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let Some(base) = nearest(&dir) else {
        let fix = "set data_dir to a directory below one that exists";
        return vec![Check::fail(WRITABLE, format!("nothing of {} can be looked at", dir.display()), fix)];
    };
    let shards = shard_count(config).unwrap_or(1);
    let needed = options(config, shards).bytes_at_start();
    vec![
        writable(&dir, &base),
        file_system(&base),
        free_space(&base, needed, dir.join("FORMAT").exists()),
        lock(&dir),
        written(&dir, SystemTime::now()),
    ]
}

/// The path itself, or the nearest above it that exists.
fn nearest(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().find(|path| path.symlink_metadata().is_ok()).map(Path::to_owned)
}

const WRITABLE: &str = "data_dir";
/// What is written to try.
const TRIAL_LEN: u64 = 1 << 20;
/// A disk that takes longer for a sync of little makes every acknowledgement slow.
const SYNC_SLOW: Duration = Duration::from_millis(50);

fn writable(dir: &Path, base: &Path) -> Check {
    let at = dir.display();
    if !base.is_dir() {
        let found = format!("{} is no directory", base.display());
        return Check::fail(WRITABLE, found, "set data_dir to a directory, or remove what is in its place");
    }
    let state = if dir == base { String::new() } else { format!(", to be made in {}", base.display()) };
    match try_out(base) {
        Ok(took) if took >= SYNC_SLOW => {
            let found = format!("{at}{state}, writable, and one sync took {took:.0?}");
            Check::warn(
                WRITABLE,
                found,
                "put it on a faster disk, or set durability = \"cache\" if you can lose a little",
            )
        }
        Ok(took) => Check::ok(WRITABLE, format!("{at}{state}, writable, one sync took {took:.1?}")),
        Err(error) => {
            let found = format!("{at}{state}, cannot be written ({error})");
            let fix = match Errno::from_io_error(&error) {
                Some(Errno::OPNOTSUPP) => {
                    "put it on a file system that can allocate files ahead, such as ext4 or xfs".into()
                }
                Some(Errno::NOSPC | Errno::DQUOT) => {
                    "make room on that file system, or put data_dir elsewhere".into()
                }
                Some(Errno::ROFS) => "mount it writable, or put data_dir elsewhere".into(),
                _ => {
                    let uid = rustix::process::geteuid().as_raw();
                    format!("give {} to uid {uid}, or run as its owner", base.display())
                }
            };
            Check::fail(WRITABLE, found, fix)
        }
    }
}

/// Does what a segment needs, in a file without a name: allocate, write, sync. How long the sync took.
fn try_out(base: &Path) -> io::Result<Duration> {
    let file = nameless(base)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, TRIAL_LEN)?;
    rustix::io::pwrite(&file, &[1; 4096], 0)?;
    let begun = Instant::now();
    rustix::fs::fdatasync(&file)?;
    Ok(begun.elapsed())
}

fn nameless(base: &Path) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o600);
    match rustix::fs::open(base, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
        opened => return Ok(opened?),
    }
    // Some network and user file systems know no files without a name.
    let path = base.join(format!(".millpond-doctor-{}", std::process::id()));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, mode)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn file_system(base: &Path) -> Check {
    const NAME: &str = "file system";
    let magic = match rustix::fs::statfs(base) {
        Ok(stat) => stat.f_type as u64,
        Err(error) => {
            let fix = "make sure that the directory can be reached";
            return Check::warn(NAME, format!("{} cannot be asked ({error})", base.display()), fix);
        }
    };
    let (name, nature) = of_magic(magic);
    let elsewhere = "put data_dir on a local file system such as ext4 or xfs";
    match nature {
        Nature::Local => Check::ok(NAME, name),
        Nature::Memory => Check::warn(
            NAME,
            format!("{name}, whose content is gone after a restart of the machine"),
            elsewhere,
        ),
        Nature::Overlay => {
            let found = format!("{name}, which goes with its container and syncs as well as what is below");
            Check::warn(NAME, found, "mount a volume there, or put data_dir on one")
        }
        Nature::Fuse => {
            Check::warn(NAME, format!("{name}, where a process decides what a sync is worth"), elsewhere)
        }
        Nature::Network => {
            let found = format!("{name}, a network file system, where locks and syncs may mean less");
            Check::warn(NAME, found, elsewhere)
        }
        Nature::Unknown => Check::warn(NAME, format!("{name} (type {magic:#x})"), elsewhere),
    }
}

fn free_space(base: &Path, needed: u64, exists: bool) -> Check {
    match rustix::fs::statvfs(base) {
        Ok(stat) => of_space(stat.f_bavail.saturating_mul(stat.f_frsize), needed, exists),
        Err(error) => {
            let fix = "make sure that the directory can be reached";
            Check::warn(SPACE, format!("{} cannot be asked ({error})", base.display()), fix)
        }
    }
}

const SPACE: &str = "free space";

/// `needed` is one segment of each kind for every shard. The next ones are made before those are full.
fn of_space(free: u64, needed: u64, exists: bool) -> Check {
    let found = format!(
        "{} free, {} is one segment of each kind per shard",
        super::bytes(free),
        super::bytes(needed)
    );
    let fix = "make room there, or set a smaller segment_size or fewer shards";
    match free {
        free if free >= needed.saturating_mul(2) => Check::ok(SPACE, found),
        free if free >= needed => Check::warn(SPACE, format!("{found}, and the next are made ahead"), fix),
        _ if exists => Check::warn(SPACE, format!("{found}, so only what is allocated can be filled"), fix),
        _ => Check::fail(SPACE, found, fix),
    }
}

fn lock(dir: &Path) -> Check {
    const NAME: &str = "lock";
    let path = dir.join(LOCK);
    let file = match rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Check::ok(NAME, "nobody uses the directory yet"),
        Err(error) => {
            let owner =
                fs::metadata(&path).map_or_else(|_| String::new(), |it| format!(" of uid {}", it.uid()));
            let fix =
                "run as the user who owns the data directory, or give all of it to this one with chown -R";
            return Check::fail(NAME, format!("{}{owner} cannot be opened ({error})", path.display()), fix);
        }
    };
    // Shared, and for no longer than it takes to ask: a daemon that starts in this very moment would be refused.
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Check::ok(NAME, "free"),
        Err(Errno::WOULDBLOCK) => {
            let who =
                holder::of_lock(&path).map_or("another process".to_owned(), |holder| holder.to_string());
            Check::fail(NAME, format!("held by {who}"), "end that process first, or use another data_dir")
        }
        Err(error) => {
            let fix = "put data_dir on a file system with locks, such as ext4 or xfs";
            Check::fail(NAME, format!("{} cannot be locked ({error})", path.display()), fix)
        }
    }
}

/// How far ahead of the clock a file may be: other machines' clocks, and their drift.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// The clock against what was written: a file from the future means that one of two clocks was wrong.
fn written(dir: &Path, now: SystemTime) -> Check {
    const NAME: &str = "last written";
    let Some((path, modified)) = newest(dir) else { return Check::ok(NAME, "never") };
    let shown = path.strip_prefix(dir).unwrap_or(&path).display();
    match modified.duration_since(now) {
        Ok(ahead) if ahead > AHEAD_MAX => {
            let found = format!("{shown} at {}, which is yet to come", super::time(modified));
            let fix =
                "find out which clock was wrong before anything is deleted by age, and set this one right";
            Check::warn(NAME, found, fix)
        }
        _ => Check::ok(NAME, format!("{shown} at {}", super::time(modified))),
    }
}

/// The file of the directory, and of those in it, that was changed last.
fn newest(dir: &Path) -> Option<(PathBuf, SystemTime)> {
    let files =
        |dir: &Path| -> Vec<fs::DirEntry> { fs::read_dir(dir).into_iter().flatten().flatten().collect() };
    let top = files(dir);
    let below: Vec<fs::DirEntry> = top.iter().flat_map(|entry| files(&entry.path())).collect();
    let dated = |entry: &fs::DirEntry| {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((entry.path(), metadata.modified().ok()?))
    };
    top.iter().chain(&below).filter_map(dated).max_by_key(|(_, modified)| *modified)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn room_is_needed_for_the_next_segments_too() {
        for (free, exists, verdict) in [
            (200, false, Verdict::Ok),
            (199, false, Verdict::Warn),
            (100, true, Verdict::Warn),
            (99, true, Verdict::Warn),
            (99, false, Verdict::Fail),
        ] {
            assert_eq!(of_space(free, 100, exists).verdict, verdict, "{free}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().expect("a directory");
        let wanted = dir.path().join("a/b");
        assert_eq!(nearest(&wanted).as_deref(), Some(dir.path()));
        let check = writable(&wanted, dir.path());
        assert!(check.verdict != Verdict::Fail && check.found.contains("to be made in"), "{check:?}");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 0, "nothing stays");
        fs::write(dir.path().join("a"), "a file").expect("written");
        let base = nearest(&wanted).expect("the file");
        assert_eq!(writable(&wanted, &base).verdict, Verdict::Fail);
    }

    #[test]
    fn a_file_from_the_future_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(written(dir.path(), SystemTime::now()), Check::ok("last written", "never"));
        fs::create_dir(dir.path().join("journal-0")).expect("made");
        fs::write(dir.path().join("journal-0/x.mpj"), "").expect("written");
        let now = SystemTime::now();
        assert_eq!(written(dir.path(), now).verdict, Verdict::Ok);
        let check = written(dir.path(), now - Duration::from_secs(3600));
        assert!(check.verdict == Verdict::Warn && check.found.starts_with("journal-0/x.mpj at"), "{check:?}");
    }
}
