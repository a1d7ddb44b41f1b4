//! The next segment, made before it is needed.
//!
//! A worker allocates the file, writes the header and syncs the directory; the shard syncs the header. Invariant:
//! one attempt at a time, and a failed one leaves nothing behind: those who waited for it get its error, a later
//! wish begins another. Lives on: the log's shard.

use super::core::Core;
use super::error::StoreError;
use super::extent::LogId;
use super::header::{HEADER, Header, Kind};
use crate::runtime::notify::Notify;
use crate::runtime::{Disk, File, blocking, shard};
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// A slot for the next segment.
pub struct Ahead<S> {
    ready: RefCell<Option<S>>,
    running: Cell<bool>,
    attempts: Cell<u64>,
    failed: RefCell<Option<StoreError>>,
    number: Cell<u32>,
    changed: Notify,
}

/// A segment file with its header.
pub struct Made {
    /// The file.
    pub file: File,
    /// Its header.
    pub header: Header,
    /// Its path.
    pub path: Arc<PathBuf>,
}

impl<S> Ahead<S> {
    /// An empty slot; the next file gets `number`.
    pub fn new(number: u32) -> Self {
        Ahead {
            ready: RefCell::new(None),
            running: Cell::new(false),
            attempts: Cell::new(0),
            failed: RefCell::new(None),
            number: Cell::new(number),
            changed: Notify::new(),
        }
    }

    /// No file with this number or a greater one was made yet.
    pub fn next_number(&self) -> u32 {
        self.number.get()
    }

    /// Whether there is one.
    pub fn is_ready(&self) -> bool {
        self.ready.borrow().is_some()
    }

    /// Takes it.
    pub fn take(&self) -> Option<S> {
        self.ready.borrow_mut().take()
    }

    /// Why the last attempt failed, if it did.
    pub fn failure(&self) -> Option<StoreError> {
        self.failed.borrow().clone()
    }

    /// Waits for the attempt that runs, or one begun by `begin`; an error when it fails.
    pub async fn wait(&self, begin: impl FnOnce()) -> Result<(), StoreError> {
        let attempt = self.attempts.get();
        begin();
        while !self.is_ready() && self.attempts.get() == attempt {
            self.changed.wait().await;
        }
        match self.failure() {
            Some(error) if !self.is_ready() && self.attempts.get() == attempt + 1 => Err(error),
            _ => Ok(()),
        }
    }
}

/// Begins an attempt unless one runs or the slot is full. `finish` makes the segment of what the worker made.
pub fn begin<S: 'static>(
    core: &Rc<Core>,
    kind: Kind,
    slot: fn(&Core) -> &Ahead<S>,
    finish: fn(&Core, Made) -> S,
) {
    let ahead = slot(core);
    if ahead.is_ready() || ahead.running.replace(true) {
        return;
    }
    let number = ahead.number.get();
    ahead.number.set(number + 1);
    let core = core.clone();
    shard::spawn("allocate segment", async move {
        let made = allocate(&core, kind, number).await;
        let ahead = slot(&core);
        match made {
            Ok(made) => {
                *ahead.ready.borrow_mut() = Some(finish(&core, made));
                *ahead.failed.borrow_mut() = None;
            }
            Err(error) => {
                tracing::warn!(%error, ?kind, "no new segment");
                *ahead.failed.borrow_mut() = Some(error);
            }
        }
        ahead.running.set(false);
        ahead.attempts.set(ahead.attempts.get() + 1);
        ahead.changed.notify_all();
        core.nudge();
    });
}

async fn allocate(core: &Core, kind: Kind, number: u32) -> Result<Made, StoreError> {
    let header = core.place.header(kind, core.log, number);
    let path = Arc::new(core.place.segment_path(kind, core.log, number));
    let (disk, len, at) = (core.disk.clone(), core.place.segment_len(kind), path.clone());
    let made = blocking::run(move || make(&*disk, &at, len, &header)).await.and_then(|made| made);
    let file = made.map_err(|error| StoreError::from_io(&error, &path))?;
    if let Err(error) = file.sync_data().await {
        let (disk, at) = (core.disk.clone(), path.clone());
        let _ = blocking::run(move || disk.remove(&at)).await;
        return Err(StoreError::from_io(&error, &path));
    }
    Ok(Made { file, header, path })
}

/// Makes a segment file. Blocks.
pub fn make(disk: &dyn Disk, path: &Path, len: u64, header: &Header) -> io::Result<File> {
    let file = disk.create(path, len)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    match file.write_at(&header.encode_for(len), 0).and_then(|()| disk.sync_dir(dir)) {
        Ok(()) => Ok(file),
        Err(error) => {
            let _ = disk.remove(path);
            Err(error)
        }
    }
}

/// Where files lie, and what their headers say.
#[derive(Clone, Debug)]
pub struct Place {
    /// The data directory.
    pub dir: PathBuf,
    /// The directory's secret, of which generations are made.
    pub secret: u64,
    /// Length of a bulk segment.
    pub segment_size: u64,
}

/// The longest journal segment: recovery reads one at a time into memory.
const JOURNAL_LEN_MAX: u64 = 64 << 20;

impl Place {
    /// The directory of a log's segments.
    pub fn log_dir(&self, kind: Kind, log: LogId) -> PathBuf {
        match kind {
            Kind::Journal => self.dir.join(format!("journal-{}", log.0)),
            Kind::Bulk => self.dir.join(format!("bulk-{}", log.0)),
            Kind::Checkpoint => self.dir.join("checkpoint"),
        }
    }

    /// The path of a segment.
    pub fn segment_path(&self, kind: Kind, log: LogId, number: u32) -> PathBuf {
        let name = match kind {
            Kind::Journal | Kind::Bulk => format!("{number:08x}.{}", suffix(kind)),
            Kind::Checkpoint => format!("{:04x}-{number:08x}.{}", log.0, suffix(kind)),
        };
        self.log_dir(kind, log).join(name)
    }

    /// The length of a new segment.
    pub fn segment_len(&self, kind: Kind) -> u64 {
        segment_len(kind, self.segment_size)
    }

    /// The header of a segment.
    pub fn header(&self, kind: Kind, log: LogId, number: u32) -> Header {
        let mut bytes = [0; 7];
        bytes[0] = kind as u8;
        bytes[1..3].copy_from_slice(&log.0.to_le_bytes());
        bytes[3..7].copy_from_slice(&number.to_le_bytes());
        // Never zero: free space must not look like a record.
        let generation = xxhash_rust::xxh3::xxh3_64_with_seed(&bytes, self.secret) as u32 | 1;
        Header { kind, log, number, generation }
    }
}

/// The length of a new segment where bulk segments have `segment_size`.
pub fn segment_len(kind: Kind, segment_size: u64) -> u64 {
    match kind {
        Kind::Journal => segment_size.min(JOURNAL_LEN_MAX),
        // A chunk of a checkpoint is as long as its content.
        Kind::Bulk | Kind::Checkpoint => segment_size,
    }
}

/// The number in a segment's file name.
pub fn segment_number(kind: Kind, name: &str) -> Option<u32> {
    let (number, found) = name.split_once('.')?;
    (found == suffix(kind) && number.len() == 8).then(|| u32::from_str_radix(number, 16).ok())?
}

fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Journal => "mpj",
        Kind::Bulk => "mpb",
        Kind::Checkpoint => "mpc",
    }
}

const _: () = assert!(HEADER == 4096);
