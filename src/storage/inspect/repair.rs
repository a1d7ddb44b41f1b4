//! `verify --repair`: what is damaged leaves the directory, and what is left is whole again.
//!
//! In three steps, each of which leaves a directory that can be looked at and repaired again, wherever it is cut off:
//! files that belong elsewhere move away; segments with damaged headers or missing ends are made whole around what they
//! have; names of which something is lost are written out into the quarantine, and all others into a checkpoint, after
//! which the journals and chunks before it move away. Invariant: nothing is deleted. Bytes of a name leave the store's
//! files only once they lie in a file in the quarantine, durably, and a file moves by a rename.
//! Runs while nobody serves; blocks.

use super::super::ahead::make;
use super::super::body::BODIES;
use super::super::error::OpenError;
use super::super::extent::WINDOW;
use super::super::header::{Kind, noted_len};
use super::super::names::Entry;
use super::super::placement::Key;
use super::super::recovery::finding::Finding;
use super::super::recovery::{Look, anew, io, sync_now};
use super::super::tail::{State, Tail};
use super::damage::{Name, What};
use super::{Inspection, Seen};
use crate::runtime::{Disk, File};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// The directory in a data directory where what a repair took away lies.
pub const QUARANTINE: &str = "quarantine";

/// What a repair did.
#[derive(Default)]
pub struct Repaired {
    /// Where everything lies that it took away, from the data directory; `None` when there was nothing to do.
    pub quarantine: Option<PathBuf>,
    /// The names that are gone, as far as they are known.
    pub names: Vec<Name>,
    /// The files that lie in the quarantine now, whole or as copies.
    pub files: Vec<PathBuf>,
}

/// Why there was no repair.
pub enum Refused {
    /// Everything else depends on two copies of something, and neither is whole.
    BothCopies,
    /// The system refused something.
    Open(OpenError),
}

impl From<OpenError> for Refused {
    fn from(error: OpenError) -> Self {
        Refused::Open(error)
    }
}

impl Inspection {
    /// Repairs what [`Inspection::damage`] tells; afterwards the inspection is of the repaired directory, its windows
    /// read. `disk` must be the one that it was opened with, and allow changes.
    pub fn repair(&mut self, disk: &dyn Disk, mut progress: impl FnMut(u64)) -> Result<Repaired, Refused> {
        if self.damage.is_empty() {
            return Ok(Repaired::default());
        }
        let told = self.damage.iter().map(|damage| damage.to_string()).collect();
        let mut repair = Repair::begin(disk, self.dir.clone(), told)?;
        while let Some(foreign) = self.damage.iter().find(|damage| damage.what == What::Foreign) {
            repair.take_file(&foreign.file.clone())?;
            self.look_again(disk, &mut progress)?;
        }
        if self.is_unreadable() {
            return Err(Refused::BothCopies);
        }
        if repair.mend_segments(self)? {
            self.look_again(disk, &mut progress)?;
        }
        if !self.damage.is_empty() {
            repair.write_anew(self)?;
            self.look_again(disk, &mut progress)?;
        }
        Ok(repair.done)
    }

    fn look_again(&mut self, disk: &dyn Disk, progress: impl FnMut(u64)) -> Result<(), OpenError> {
        let seen = Seen::of(disk, &self.dir)?;
        self.take(seen);
        self.check_windows(progress);
        Ok(())
    }
}

struct Repair<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    /// The quarantine of this repair.
    to: PathBuf,
    told: Vec<String>,
    taken: Vec<Value>,
    done: Repaired,
}

impl<'a> Repair<'a> {
    /// With an empty quarantine of its own.
    fn begin(disk: &'a dyn Disk, dir: PathBuf, told: Vec<String>) -> Result<Self, OpenError> {
        let all = dir.join(QUARANTINE);
        disk.create_dir(&all).map_err(io(&all))?;
        let names = disk.list(&all).map_err(io(&all))?;
        let last = names.iter().filter_map(|name| name.parse::<u32>().ok()).max().unwrap_or(0);
        let to = all.join(format!("{:04}", last + 1));
        disk.create_dir(&to).map_err(io(&to))?;
        let quarantine = Some(to.strip_prefix(&dir).unwrap_or(&to).to_owned());
        let done = Repaired { quarantine, ..Repaired::default() };
        Ok(Repair { disk, dir, to, told, taken: Vec::new(), done })
    }

    /// Writes down what is taken away and why, before it is.
    fn report(&self) -> Result<(), OpenError> {
        let path = self.to.join("report.json");
        let files: Vec<_> = self.done.files.iter().map(|file| file.display().to_string()).collect();
        let report = json!({ "damage": self.told, "names": self.taken, "files": files });
        let text = format!("{report:#}\n");
        self.disk.replace(&path, text.as_bytes()).map_err(io(&path))
    }

    /// Where a file of the data directory goes; makes the directory for it.
    fn place_for(&mut self, file: &Path) -> Result<PathBuf, OpenError> {
        let to = self.to.join(file);
        let dir = to.parent().unwrap_or(&self.to).to_owned();
        self.disk.create_dir(&dir).map_err(io(&dir))?;
        if !self.done.files.iter().any(|known| known == file) {
            self.done.files.push(file.to_owned());
        }
        Ok(to)
    }

    /// Moves a file away.
    fn take_file(&mut self, file: &Path) -> Result<(), OpenError> {
        let (from, to) = (self.dir.join(file), self.place_for(file)?);
        self.report()?;
        self.disk.rename(&from, &to).map_err(io(&from))?;
        for dir in [&to, &from].into_iter().filter_map(|path| path.parent()) {
            self.disk.sync_dir(dir).map_err(io(dir))?;
        }
        Ok(())
    }

    /// Copies what can be read of a file to another one, which has at least its length.
    fn copy(&self, from: &File, into: &File, skip: u64) -> std::io::Result<()> {
        let mut piece = vec![0; WINDOW as usize];
        for at in (skip..from.len()).step_by(WINDOW as usize) {
            let piece = &mut piece[..(from.len() - at).min(WINDOW) as usize];
            // What the disk does not give stays zeros.
            if from.read_exact_at(piece, at).is_ok() && piece.iter().any(|&byte| byte != 0) {
                into.write_at(piece, at)?;
            }
        }
        sync_now(into)
    }

    /// Bulk segments whose header or end is damaged: those with something alive are copied into the quarantine and made
    /// whole, the others move there. Whether there was one.
    fn mend_segments(&mut self, inspection: &Inspection) -> Result<bool, OpenError> {
        let Some(look) = &inspection.look else { return Ok(false) };
        let hit = look.facts.findings.iter().filter_map(|finding| match finding {
            Finding::Header { bulk, .. } | Finding::CutShort { bulk, .. } => *bulk,
            _ => None,
        });
        let hit: BTreeSet<_> = hit.collect();
        for at in &hit {
            let Some(segment) = look.bulk.segments.get(at) else { continue };
            let file = inspection.relative(&segment.path);
            if segment.claimed() == 0 {
                self.take_file(&file)?;
                continue;
            }
            let mut page = vec![0; super::super::header::HEADER as usize];
            segment.file.read_at(&mut page, 0).map_err(io(&segment.path))?;
            let len = segment.file.len().max(noted_len(&page).unwrap_or(0)).next_multiple_of(4096);
            let kept = self.place_for(&file)?;
            let copy = self.disk.create(&kept, segment.file.len()).map_err(io(&kept))?;
            self.copy(&segment.file, &copy, 0).map_err(io(&kept))?;
            self.report()?;
            let fresh = self.to.join("segment.new");
            let header = inspection.place.header(Kind::Bulk, segment.log, segment.number);
            let made = make(self.disk, &fresh, len, &header).map_err(io(&fresh))?;
            self.copy(&segment.file, &made, super::super::header::HEADER).map_err(io(&fresh))?;
            self.disk.rename(&fresh, &segment.path).map_err(io(&segment.path))?;
            for dir in [&*self.to, segment.path.parent().unwrap_or(&self.dir)] {
                self.disk.sync_dir(dir).map_err(io(dir))?;
            }
        }
        Ok(!hit.is_empty())
    }

    /// Takes the names away of which something is lost, and writes down all others.
    fn write_anew(&mut self, inspection: &mut Inspection) -> Result<(), OpenError> {
        let lost = std::mem::take(&mut inspection.lost);
        let Some(mut look) = inspection.look.take() else { return Ok(()) };
        let stays = Stays::of(&look, &lost);
        self.export(&look, &stays)?;
        for damage in &inspection.damage {
            if matches!(damage.what, What::Format { missing: false } | What::Manifest { missing: false }) {
                let (from, to) = (self.dir.join(&damage.file), self.place_for(&damage.file)?);
                let bytes = self.disk.read(&from).map_err(io(&from))?;
                self.disk.replace(&to, &bytes).map_err(io(&to))?;
            }
        }
        self.report()?;
        // What no name stands for any more, and lies among what names do stand for, counts as it is.
        for window in lost.iter().filter(|window| !window.unreadable) {
            let entries = look.owned.names.iter().flatten();
            let entry =
                entries.filter(|entry| stays.entry(entry)).find(|entry| entry.tail.uid() == window.uid);
            let run = entry.and_then(|entry| entry.tail.runs().iter().find(|run| run.start() == window.run));
            if let Some(run) = run {
                run.window(window.index).accept(window.crc);
            }
        }
        look.owned.links.iter_mut().for_each(|links| links.retain(|link| stays.link(&link.key().to_key())));
        // No tally is kept here.
        look.owned.retain(|entry| stays.entry(entry), |_| {});
        let superseded = anew::write(self.disk, &inspection.place, look)?;
        for path in superseded {
            let file = inspection.relative(&path);
            self.place_for(&file)?;
            self.take_file(&file)?;
        }
        Ok(())
    }

    /// Writes the bytes of what does not stay into files of their own.
    fn export(&mut self, look: &Look, stays: &Stays) -> Result<(), OpenError> {
        for entry in look.owned.names.iter().flatten().filter(|entry| !stays.entry(entry)) {
            // The bytes of bodies that links stand for go with those.
            if entry.key().space != BODIES || !stays.linked.contains(&entry.tail.uid()) {
                let len = entry.tail.runs().iter().map(|run| run.end()).max().unwrap_or(0);
                let known = (entry.key().space != BODIES).then(|| entry.key().to_key());
                self.export_one(
                    entry.tail.key_hash(),
                    known.as_ref(),
                    entry.attributes(),
                    &[(&entry.tail, 0, len)],
                )?;
            }
        }
        for link in look.owned.links.iter().flatten() {
            let key = link.key().to_key();
            if stays.link(&key) {
                continue;
            }
            let parts: Vec<_> = link
                .parts
                .as_slice()
                .iter()
                .map(|part| (&**part.body().tail(), part.from(), part.len()))
                .collect();
            self.export_one(key.hash(), Some(&key), link.attributes(), &parts)?;
        }
        for &key_hash in &look.owned.nameless {
            self.export_marks(look, key_hash)?;
        }
        self.disk.sync_dir(&self.to).map_err(io(&self.to))
    }

    fn export_one(
        &mut self,
        key_hash: u64,
        key: Option<&Key>,
        attributes: &[u8],
        parts: &[(&Tail, u64, u64)],
    ) -> Result<(), OpenError> {
        let len: u64 = parts.iter().map(|(_, _, len)| len).sum();
        let state = match parts {
            [(tail, ..)] if key.is_some_and(|key| key.space != BODIES) => Some(state_word(tail.state())),
            _ => None,
        };
        let file = self.create(len)?;
        let mut at = 0;
        for &(tail, from, len) in parts {
            for run in tail.runs().iter() {
                let (Some(place), Some((name, file))) = (run.place(), &file) else { continue };
                let piece = run.start().max(from)..run.end().min(from + len);
                for start in piece.clone().step_by(WINDOW as usize) {
                    let mut bytes = vec![0; (piece.end - start).min(WINDOW) as usize];
                    let read =
                        place.segment.file.read_exact_at(&mut bytes, place.offset + (start - run.start()));
                    if read.is_ok() {
                        file.write_at(&bytes, at + start - from).map_err(io(Path::new(name)))?;
                    }
                }
            }
            at += len;
        }
        self.keep(key_hash, key, attributes, state, len, file)
    }

    /// A stream of which only the marks are left.
    fn export_marks(&mut self, look: &Look, key_hash: u64) -> Result<(), OpenError> {
        for marks in look.facts.marks.values() {
            let marks: Vec<_> =
                marks.iter().filter(|fact| fact.key_hash == key_hash).map(|fact| &fact.mark).collect();
            let Some(len) = marks.iter().map(|mark| mark.start + mark.len).max() else { continue };
            let file = self.create(len)?;
            for mark in marks {
                let segment = look.bulk.segments.get(&(mark.log, mark.segment));
                if let (Some(segment), Some((name, file))) = (segment, &file) {
                    let mut bytes = vec![0; mark.len as usize];
                    if segment.file.read_exact_at(&mut bytes, mark.offset).is_ok() {
                        file.write_at(&bytes, mark.start).map_err(io(Path::new(name)))?;
                    }
                }
            }
            self.keep(key_hash, None, &[], None, len, file)?;
        }
        Ok(())
    }

    /// A file for `len` bytes of the next name; none for none.
    fn create(&self, len: u64) -> Result<Option<(String, File)>, OpenError> {
        if len == 0 {
            return Ok(None);
        }
        let name = format!("{:04}.bytes", self.taken.len() + 1);
        let path = self.to.join(&name);
        Ok(Some((name, self.disk.create(&path, len).map_err(io(&path))?)))
    }

    fn keep(
        &mut self,
        key_hash: u64,
        key: Option<&Key>,
        attributes: &[u8],
        state: Option<&str>,
        len: u64,
        file: Option<(String, File)>,
    ) -> Result<(), OpenError> {
        if let Some((name, file)) = &file {
            sync_now(file).map_err(io(Path::new(name)))?;
        }
        self.taken.push(json!({
            "name": key.map(|key| key.bytes.escape_ascii().to_string()),
            "space": key.map(|key| key.space),
            "key_hash": format!("{key_hash:016x}"),
            "attributes": attributes.escape_ascii().to_string(),
            "state": state,
            "length": len,
            "bytes": file.map(|(name, _)| name),
        }));
        self.done.names.push(Name { key_hash, key: key.cloned() });
        Ok(())
    }
}

fn state_word(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Complete => "complete",
        State::Interrupted => "interrupted",
        State::Gone => "gone",
    }
}

/// A window that does not match its checksum.
pub struct LostWindow {
    /// The stream's number.
    pub uid: u64,
    /// The stream's position of the run.
    pub run: u64,
    /// Which window of it.
    pub index: usize,
    /// Positions of the stream.
    pub bytes: std::ops::Range<u64>,
    /// What its bytes add up to.
    pub crc: u32,
    /// They could not be read.
    pub unreadable: bool,
}

/// What is whole.
struct Stays {
    /// Names that go, and what belongs to them, by placement hash.
    gone: HashSet<u64>,
    /// Links that go because of bytes that they stand for.
    links: HashSet<Key>,
    /// Bodies that some link stands for, or stood for.
    linked: HashSet<u64>,
    /// Bodies that links which stay stand for.
    needed: HashSet<u64>,
}

impl Stays {
    fn of(look: &Look, lost: &[LostWindow]) -> Self {
        let owned = &look.owned;
        let entries = || owned.names.iter().flatten();
        let mut gone: HashSet<u64> =
            entries().map(|entry| entry.tail.key_hash()).filter(|hash| owned.is_damaged(*hash)).collect();
        let uids: HashSet<u64> = lost.iter().map(|window| window.uid).collect();
        let hit = entries().filter(|entry| entry.key().space != BODIES && uids.contains(&entry.tail.uid()));
        gone.extend(hit.map(|entry| entry.tail.key_hash()));
        let broken: HashSet<u64> =
            lost.iter().filter(|window| window.unreadable).map(|window| window.uid).collect();
        let (mut links, mut linked, mut needed) = (HashSet::new(), HashSet::new(), HashSet::new());
        for link in owned.links.iter().flatten() {
            let key = link.key().to_key();
            let parts = link.parts.as_slice();
            linked.extend(parts.iter().map(|part| part.body().tail().uid()));
            let is_hit = parts.iter().any(|part| {
                let (uid, bytes) = (part.body().tail().uid(), part.from()..part.from() + part.len());
                let mut windows = lost.iter().filter(|window| window.uid == uid);
                broken.contains(&uid)
                    || windows.any(|window| window.bytes.start < bytes.end && bytes.start < window.bytes.end)
            });
            if is_hit || owned.is_damaged(key.hash()) {
                links.insert(key.clone());
            } else {
                needed.extend(parts.iter().map(|part| part.body().tail().uid()));
            }
        }
        Stays { gone, links, linked, needed }
    }

    fn entry(&self, entry: &Entry) -> bool {
        match entry.key().space {
            BODIES => self.needed.contains(&entry.tail.uid()),
            _ => !self.gone.contains(&entry.tail.key_hash()),
        }
    }

    fn link(&self, key: &Key) -> bool {
        !self.links.contains(key)
    }
}
