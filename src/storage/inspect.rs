//! A data directory, looked at while nobody serves it: what a start would find, and every byte that a name refers to.
//!
//! Reads by the very code that recovery reads by ([`recovery::look`]), and then every window of every run. What it
//! finds it tells as [`Damage`]: where it is and what is lost by it, which is often nothing, because something later
//! says the same. Invariant: changes nothing; the disk it is given may refuse every change.
//!
//! One kind of damage cannot be told: the end of a log, from behind the last record that a later one calls durable,
//! looks the same torn by a crash and damaged afterwards. It is told as a torn tail, which is no damage.
//! Blocks; runs on any thread but a shard's.

pub mod damage;
pub mod repair;
pub mod runs;

use super::LOCK;
use super::ahead::Place;
use super::body::BODIES;
use super::checkpoint::{self, Manifest};
use super::error::{OpenError, Unreadable};
use super::extent::LogId;
use super::header::Kind;
use super::journal::record::{is_about_the_log, is_mark, is_of_a_group, is_time, is_trim, kind_name};
use super::placement::Key;
use super::recovery::finding::{Finding, LostRecords};
use super::recovery::format::{self, Document};
use super::recovery::settle::Loss;
use super::recovery::{self, Look};
use super::tally::Tally;
use super::twice::Copy;
use crate::runtime::Disk;
use damage::{Damage, Lost, Name, What};
use repair::LostWindow;
use runs::Links;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A data directory that nobody else can open meanwhile.
pub struct Inspection {
    dir: PathBuf,
    place: Place,
    document: Option<Document>,
    look: Option<Look>,
    links: Links,
    damage: Vec<Damage>,
    /// Windows that do not match, once they were read.
    lost: Vec<LostWindow>,
    _lock: Option<Box<dyn Send + Sync>>,
}

/// What one look sees.
struct Seen {
    place: Place,
    document: Option<Document>,
    look: Option<Look>,
    damage: Vec<Damage>,
}

impl Seen {
    fn of(disk: &dyn Disk, dir: &Path) -> Result<Self, OpenError> {
        let copies = format::read(disk, dir)?;
        let mut damage = of_format(&copies, format::has_logs(disk, dir)?);
        let document = match Document::newest(disk, dir, copies) {
            Ok(Some(document)) => Ok(document),
            Ok(None) => return Err(OpenError::Unreadable { path: dir.to_owned(), why: Unreadable::NoData }),
            Err(error) => Err(error),
        };
        let secret = document.as_ref().ok().and_then(Document::secret).unwrap_or_default();
        let place = Place { dir: dir.to_owned(), secret, segment_size: 0 };
        let looked = document.and_then(|document| {
            damage.extend(of_manifest(&Manifest::read(disk, &place)?));
            let look = recovery::look(disk, &place, &document.logs(), 1, &Tally::new(|_| 0));
            look.map(|look| (document, look))
        });
        let (document, look) = match looked {
            Ok((document, look)) => (Some(document), Some(look)),
            Err(OpenError::Unreadable { path, why: Unreadable::Header }) => {
                let file = path.strip_prefix(dir).unwrap_or(&path).to_owned();
                let lost =
                    Lost::Unknown("not known: nothing else was read; put what belongs there in its place");
                damage.push(Damage { file, at: Some(0), what: What::Foreign, lost });
                (None, None)
            }
            // Both copies of something are damaged, and were told.
            Err(OpenError::Unreadable { .. }) => (None, None),
            Err(error) => return Err(error),
        };
        Ok(Seen { place, document, look, damage })
    }
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Names that stand for streams.
    pub streams: u64,
    /// Names that stand for parts of bodies: containers, blobs and what belongs to them.
    pub links: u64,
    /// Records of journals and of the checkpoint.
    pub records: u64,
    /// Windows of stored bytes.
    pub windows: u64,
    /// Bytes in these windows.
    pub bytes: u64,
}

impl Inspection {
    /// Takes the directory and reads all records. An error means that it cannot be looked at: it is in use, of a newer
    /// release, no data directory, or the system refused something.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, OpenError> {
        let lock = match disk.lock(&dir.join(LOCK)) {
            Ok(lock) => Some(lock),
            // A copy of a directory may be without it; then nobody serves it.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(OpenError::Locked(dir.to_owned()));
            }
            Err(error) => return Err(OpenError::Io(dir.join(LOCK), error)),
        };
        let seen = Seen::of(disk, dir)?;
        let mut inspection = Inspection {
            dir: dir.to_owned(),
            place: seen.place.clone(),
            document: None,
            look: None,
            links: Links::default(),
            damage: Vec::new(),
            lost: Vec::new(),
            _lock: lock,
        };
        inspection.take(seen);
        Ok(inspection)
    }

    fn take(&mut self, seen: Seen) {
        let Seen { place, document, look, damage } = seen;
        (self.place, self.document, self.damage) = (place, document, damage);
        self.links = look.as_ref().map(|look| Links::of(&look.owned.links)).unwrap_or_default();
        self.look = look;
        self.judge();
    }

    /// What is damaged: in records as soon as it is open, in windows once [`Inspection::check_windows`] has run. In
    /// the order of files and positions.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Whether nothing could be read because a file that everything depends on is damaged.
    pub fn is_unreadable(&self) -> bool {
        self.look.is_none()
    }

    /// Where a crash tore a log: the file, and the position from which on it does not count.
    pub fn torn(&self) -> Vec<(PathBuf, u64)> {
        let torn = self.look.iter().flat_map(|look| &look.facts.torn);
        torn.map(|(path, at)| (self.relative(path), *at)).collect()
    }

    /// The version of the format, if it could be read.
    pub fn format(&self) -> Option<u32> {
        self.document.as_ref().map(Document::format)
    }

    /// How far a bulk segment is handed out, its header included; none of one that no record speaks of.
    pub fn handed_out(&self, log: LogId, number: u32) -> Option<u64> {
        Some(self.look.as_ref()?.bulk.segments.get(&(log, number))?.used())
    }

    /// How much there is.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        if let Some(look) = &self.look {
            let streams = look.owned.names.iter().flatten().filter(|entry| entry.key().space != BODIES);
            totals.streams = streams.count() as u64;
            totals.links = look.owned.links.iter().map(|links| links.len() as u64).sum();
            totals.records = look.facts.records;
        }
        for run in self.runs() {
            totals.windows += run.windows();
            totals.bytes += run.len;
        }
        totals
    }

    /// Reads every window and compares its checksum; `progress` is told how many bytes were read so far.
    pub fn check_windows(&mut self, mut progress: impl FnMut(u64)) {
        let (mut found, mut lost, mut read, mut buffer) = (Vec::new(), Vec::new(), 0, Vec::new());
        // In the order in which they lie, which is how a disk reads fastest.
        let mut runs: Vec<_> = self.runs().collect();
        runs.sort_by_key(|run| (run.log, run.segment, run.offset));
        for run in &runs {
            for window in 0..run.windows() {
                if let Some(damage) = run.check(window, &mut buffer) {
                    lost.push(run.lost(window, &buffer, &damage));
                    found.push(damage);
                }
                read += run.window_len(window);
                progress(read);
            }
        }
        drop(runs);
        self.lost = lost;
        self.damage.extend(found);
        self.sort();
    }

    /// Turns what was found in records and files into damage, as far as it is any.
    fn judge(&mut self) {
        let Some(look) = &self.look else { return self.sort() };
        let names = Names::of(look);
        let mut found: Vec<Damage> = look
            .facts
            .findings
            .iter()
            .filter_map(|finding| self.judge_finding(look, &names, finding))
            .collect();
        for (key_hash, losses) in &look.owned.losses {
            found.extend(self.judge_losses(&names, *key_hash, losses));
        }
        found.extend(look.owned.nameless.iter().map(|&key_hash| Damage {
            file: PathBuf::from("."),
            at: None,
            what: What::Nameless,
            lost: Lost::Latest(Name { key_hash, key: None }),
        }));
        found.extend(look.owned.bodiless.iter().map(|key| Damage {
            file: PathBuf::from("."),
            at: None,
            what: What::Bodiless,
            lost: Lost::latest(Name { key_hash: key.hash(), key: Some(key.clone()) }),
        }));
        let known = self.document.as_ref().map_or(0, Document::boot);
        if look.facts.boot_max > known {
            let what = What::Stale { known, found: look.facts.boot_max };
            let lost = Lost::Nothing("the next start goes on from what the records say");
            found.push(Damage { file: format::NAMES[0].into(), at: None, what, lost });
        }
        self.damage.extend(found);
        self.sort();
    }

    fn judge_finding(&self, look: &Look, names: &Names, finding: &Finding) -> Option<Damage> {
        // Where nothing lives, nothing is lost.
        let is_dead = |bulk: &Option<(LogId, u32)>| {
            let segment = bulk.and_then(|bulk| look.bulk.segments.get(&bulk));
            segment.is_some_and(|segment| segment.claimed() == 0)
        };
        let (path, at, what, lost) = match finding {
            Finding::Records(lost) => {
                let (what, at) = (self.what(lost), Some(lost.at));
                (&lost.path, at, what, cost(look, names, lost))
            }
            Finding::Mended { path, at, seq, kind } => {
                let what = What::Mended { kind: kind_name(*kind), seq: *seq };
                (path, Some(*at), what, Lost::Nothing("one bit of it is wrong, and known"))
            }
            Finding::Header { bulk, .. } | Finding::CutShort { bulk, .. } if is_dead(bulk) => return None,
            Finding::Header { path, whole, .. } => {
                let copies = whole.iter().filter(|whole| !**whole).count();
                let lost = Lost::Nothing(match copies {
                    1 => "the other copy is whole",
                    _ => "what it said follows from where it stands",
                });
                (path, Some(0), What::Header { copies }, lost)
            }
            Finding::CutShort { path, len, made, bulk } => {
                let lost = match bulk {
                    Some(_) => Lost::Nothing("windows that are missing are told one by one"),
                    None => Lost::Unknown("whatever stood behind"),
                };
                (path, Some(*len), What::CutShort { made: *made }, lost)
            }
            Finding::NoJournal { dir } => (
                dir,
                None,
                What::NoJournal,
                Lost::Unknown("the latest about every name that it decided over"),
            ),
        };
        Some(Damage { file: self.relative(path), at, what, lost })
    }

    fn what(&self, lost: &LostRecords) -> What {
        What::Records {
            kind: lost.header.map(|(kind, _)| kind_name(kind)),
            seq: lost.from_seq,
            count: lost.count,
            missing: lost.missing.as_ref().map(|path| self.relative(path)),
        }
    }

    /// What a stream misses, unless the damaged record that is the cause tells it already.
    fn judge_losses(&self, names: &Names, key_hash: u64, losses: &[Loss]) -> Vec<Damage> {
        let is_told =
            losses.iter().any(|loss| matches!(loss, Loss::Mark | Loss::Trim | Loss::Segment { .. }));
        let name = || names.named(key_hash, None);
        let log = names.homes.get(&key_hash).copied().unwrap_or(LogId(0));
        let journal = || self.relative(&self.place.log_dir(Kind::Journal, log));
        let of_loss = |loss: &Loss| match *loss {
            Loss::Segment { log, number, offset, from, to } => Some(Damage {
                file: self.relative(&self.place.segment_path(Kind::Bulk, log, number)),
                at: Some(offset),
                what: What::Missing,
                lost: Lost::Bytes { name: name(), from, to: Some(to) },
            }),
            Loss::Behind { from, to } if !is_told => {
                let lost = Lost::Bytes { name: name(), from, to: Some(to) };
                Some(Damage { file: journal(), at: None, what: What::Stream, lost })
            }
            Loss::Runs => {
                Some(Damage { file: journal(), at: None, what: What::Stream, lost: Lost::Latest(name()) })
            }
            Loss::Mark | Loss::Trim | Loss::Behind { .. } => None,
        };
        losses.iter().filter_map(of_loss).collect()
    }

    fn sort(&mut self) {
        self.damage.sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.dir).unwrap_or(path).to_owned()
    }
}

/// What is lost by records that do not read.
fn cost(look: &Look, names: &Names, lost: &LostRecords) -> Lost {
    let Some((kind, key_hash)) = lost.header else { return Lost::Unknown("what was said, and of whom") };
    if lost.count > 1 {
        return Lost::Unknown("what was said, and of whom but for the first");
    }
    if is_about_the_log(kind) {
        return Lost::Nothing("it speaks of the log alone");
    }
    if is_time(kind) {
        return Lost::Nothing("it says when a stream ended, and the next start says so anew");
    }
    let by_hash = match kind {
        _ if is_mark(kind) => &look.facts.lost_marks,
        _ if is_trim(kind) => &look.facts.lost_trims,
        _ => &look.facts.lost_names,
    };
    if !by_hash.get(&key_hash).is_some_and(|all| all.contains(&lost.written)) {
        return Lost::Nothing("a later record stands in for it");
    }
    let name = names.named(key_hash, lost.key.as_ref());
    match names.lengths.get(&key_hash) {
        Some(&from) if is_mark(kind) => {
            let losses = look.owned.losses.iter().filter(|(hash, _)| *hash == key_hash);
            let behind = losses.flat_map(|(_, losses)| losses).find_map(|loss| match *loss {
                Loss::Behind { to, .. } => Some(to),
                _ => None,
            });
            Lost::Bytes { name, from, to: behind }
        }
        _ if is_of_a_group(kind) => Lost::Group(name),
        _ => Lost::latest(name),
    }
}

/// What is known of the names that damage is about.
#[derive(Default)]
struct Names {
    keys: HashMap<u64, Key>,
    lengths: HashMap<u64, u64>,
    homes: HashMap<u64, LogId>,
}

impl Names {
    fn of(look: &Look) -> Self {
        let mut names = Names::default();
        let mut wanted: HashSet<u64> = look.owned.losses.iter().map(|(key_hash, _)| *key_hash).collect();
        for finding in &look.facts.findings {
            if let Finding::Records(LostRecords { header: Some((_, key_hash)), key, .. }) = finding {
                wanted.insert(*key_hash);
                names.keys.extend(key.clone().map(|key| (*key_hash, key)));
            }
        }
        // Of a group any name tells which; a record that reads in part may know another.
        for link in look.owned.links.iter().flatten().filter(|link| link.key().group().is_some()) {
            let key_hash = link.key().hash();
            if wanted.contains(&key_hash) {
                names.keys.entry(key_hash).or_insert_with(|| link.key().to_key());
            }
        }
        for entry in look.owned.names.iter().flatten() {
            let key_hash = entry.tail.key_hash();
            if wanted.contains(&key_hash) {
                names.keys.insert(key_hash, entry.key().to_key());
                names.lengths.insert(key_hash, entry.tail.published());
                names.homes.insert(key_hash, entry.home);
            }
        }
        names
    }

    fn named(&self, key_hash: u64, key: Option<&Key>) -> Name {
        Name { key_hash, key: self.keys.get(&key_hash).or(key).cloned() }
    }
}

fn of_format(copies: &[Copy<Document>; 2], has_logs: bool) -> Vec<Damage> {
    // The oldest directories have one copy, without a checksum.
    let alone = matches!(&copies[0], Copy::Whole(document) if !document.has_crc());
    let none_is_whole = !copies.iter().any(|copy| matches!(copy, Copy::Whole(_)));
    of_copies(copies, format::NAMES, none_is_whole, |at, missing| {
        // The first copy is written last, and logs come after it.
        let is_damage = !missing || if at == 0 { has_logs } else { !alone };
        is_damage.then_some(What::Format { missing })
    })
}

fn of_manifest(copies: &[Copy<Manifest>; 2]) -> Vec<Damage> {
    let none_is_whole = !copies.iter().any(|copy| matches!(copy, Copy::Whole(_)));
    // Written one after the other: the second of the first checkpoint may never have been.
    let is_first = matches!(&copies[0], Copy::Whole(manifest) if manifest.number <= 1);
    let never = copies.iter().all(|copy| *copy == Copy::Missing);
    let dir = checkpoint::DIRECTORY;
    of_copies(copies, checkpoint::NAMES, none_is_whole, |at, missing| {
        let is_damage = !missing || !(never || (is_first && at == 1));
        is_damage.then_some(What::Manifest { missing })
    })
    .into_iter()
    .map(|damage| Damage { file: Path::new(dir).join(&damage.file), ..damage })
    .collect()
}

fn of_copies<T>(
    copies: &[Copy<T>; 2],
    names: [&str; 2],
    none_is_whole: bool,
    what: impl Fn(usize, bool) -> Option<What>,
) -> Vec<Damage> {
    let lost = || match none_is_whole {
        true => Lost::Unknown("everything else needs it, so nothing else was read"),
        false => Lost::Nothing("the other copy is whole"),
    };
    let damaged = copies.iter().enumerate().filter_map(|(at, copy)| {
        let what = match copy {
            Copy::Whole(_) => None,
            Copy::Missing => what(at, true),
            Copy::Damaged => what(at, false),
        }?;
        Some(Damage { file: names[at].into(), at: None, what, lost: lost() })
    });
    damaged.collect()
}
