//! What stands, by the shard that owns it: names put together from facts, side by side for all owners.
//!
//! Invariant: what one owner gets depends on the facts about its names alone. Runs before shards serve.

use super::super::body::Ends;
use super::super::bulk::segment::Segment;
use super::super::journal::record::Mark;
use super::super::links::Link;
use super::super::names::{Entry, Stream};
use super::super::placement::{Key, owner_of};
use super::super::tail::Tail;
use super::super::tally::Tally;
use super::facts::{Facts, Shelves, Stands, Written, side_by_side};
use super::parts::WORTH_THREADS;
use super::settle::{self, Loss, Segments};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// What each shard owns.
pub struct Owned {
    /// Names that stand for streams, by shard.
    pub names: Vec<Vec<Entry>>,
    /// Names of which nothing is left but the marks of their streams, by placement hash.
    pub nameless: BTreeSet<u64>,
    /// What streams miss, by their names' placement hashes.
    pub losses: Vec<(u64, Vec<Loss>)>,
    /// Links, by shard.
    pub links: Vec<Vec<Link>>,
    /// Links that stand for bytes which are not there, because something durable is damaged.
    pub bodiless: Vec<Key>,
    /// Records of links that have no bodies, and that an earlier one stands in for: void.
    pub fallen: Vec<Written>,
    /// Records of moves that did not come about: void.
    pub unmoved: Vec<Written>,
    /// The versions of deletions of links, by key.
    pub deleted: HashMap<Key, u64>,
    /// Where each shard is told of the bodies that others let go of.
    pub ends: Ends,
    /// Epochs that recovery began, by shard.
    pub raised: Vec<Vec<Raised>>,
    /// Placement hashes of names that are refused, by shard.
    pub damaged: Vec<BTreeSet<u64>>,
    /// Streams whose end no record tells, by shard.
    pub ends_untold: Vec<Vec<Arc<Tail>>>,
    /// Data that has to be durable before anyone is told about it.
    pub unsynced: Vec<(Arc<Segment>, Range<u64>)>,
}

impl Owned {
    /// Forgets the entries that do not stay, and calls `on_gone` with each: their bytes are dead.
    pub fn retain(&mut self, stays: impl Fn(&Entry) -> bool, on_gone: impl Fn(&Entry)) {
        let mut gone = HashSet::new();
        for names in &mut self.names {
            names.retain(|entry| {
                let stays = stays(entry);
                if !stays {
                    on_gone(entry);
                    for run in entry.tail.runs().iter() {
                        run.bury(|segment, len| segment.unclaim(len));
                    }
                    gone.insert(entry.tail.uid());
                }
                stays
            });
        }
        self.raised.iter_mut().for_each(|raised| raised.retain(|raised| !gone.contains(&raised.uid)));
        self.ends_untold.iter_mut().for_each(|untold| untold.retain(|tail| !gone.contains(&tail.uid())));
    }

    /// Whether what stands under this placement hash is not what it was.
    pub fn is_damaged(&self, key_hash: u64) -> bool {
        self.damaged[owner_of(key_hash, self.damaged.len()).index()].contains(&key_hash)
    }
}

/// An epoch that recovery began.
pub struct Raised {
    /// Where the stream ends now.
    pub mark: Option<Mark<'static>>,
    /// The stream.
    pub uid: u64,
    /// Its name's placement hash.
    pub key_hash: u64,
    /// The epoch.
    pub epoch: u64,
    /// Where it begins.
    pub cut: u64,
}

/// `ended` are the entries that need no settling and are counted already. What is left of the facts goes to `facts`.
pub fn settle_names(
    facts: &mut Facts,
    shelves: Shelves,
    segments: &Segments,
    ended: Vec<Vec<Entry>>,
    tally: &Tally,
) -> Owned {
    let shards = ended.len();
    let mut owned = Owned {
        names: Vec::new(),
        links: (0..shards).map(|_| Vec::new()).collect(),
        bodiless: Vec::new(),
        fallen: Vec::new(),
        unmoved: Vec::new(),
        deleted: HashMap::new(),
        ends: Ends::new(shards),
        raised: Vec::new(),
        nameless: BTreeSet::new(),
        losses: Vec::new(),
        damaged: Vec::new(),
        ends_untold: Vec::new(),
        unsynced: Vec::new(),
    };
    let much = shelves.names() >= WORTH_THREADS as usize;
    let is_unknown = facts.lost_unknown > 0;
    let work: Vec<_> = shelves.into_vec().into_iter().zip(ended).collect();
    let settle = |(mut facts, names): (Facts, Vec<Entry>)| {
        let shelf = Shelf::settle(&mut facts, names, segments, is_unknown, shards, tally);
        (shelf, facts)
    };
    for (shelf, rest) in side_by_side(work, much, settle) {
        facts.absorb(rest);
        owned.names.push(shelf.names);
        owned.deleted.extend(shelf.deleted);
        owned.raised.push(shelf.raised);
        owned.nameless.extend(shelf.nameless);
        owned.losses.extend(shelf.losses);
        owned.damaged.push(shelf.damaged);
        owned.ends_untold.push(shelf.ends_untold);
        owned.unsynced.extend(shelf.unsynced);
        owned.unmoved.extend(shelf.unmoved);
    }
    owned
}

/// One owner's part of [`Owned`].
struct Shelf {
    names: Vec<Entry>,
    deleted: HashMap<Key, u64>,
    raised: Vec<Raised>,
    nameless: BTreeSet<u64>,
    losses: Vec<(u64, Vec<Loss>)>,
    damaged: BTreeSet<u64>,
    ends_untold: Vec<Arc<Tail>>,
    unsynced: Vec<(Arc<Segment>, Range<u64>)>,
    unmoved: Vec<Written>,
}

impl Shelf {
    fn settle(
        facts: &mut Facts,
        names: Vec<Entry>,
        segments: &Segments,
        is_unknown: bool,
        shards: usize,
        tally: &Tally,
    ) -> Shelf {
        let mut shelf = Shelf {
            names,
            deleted: HashMap::new(),
            raised: Vec::new(),
            nameless: BTreeSet::new(),
            losses: Vec::new(),
            damaged: BTreeSet::new(),
            ends_untold: Vec::new(),
            unsynced: Vec::new(),
            unmoved: Vec::new(),
        };
        let mut latest = HashMap::new();
        for (key, fact) in std::mem::take(&mut facts.names) {
            let key_hash = key.hash();
            if is_unknown {
                latest.insert(key_hash, fact.version);
            }
            // What was lost before the name's last record was about a stream that is gone, if it was about this name.
            let about = [&mut facts.lost_names, &mut facts.lost_marks, &mut facts.lost_trims];
            for lost in about.into_iter().filter(|_| key.as_ref().is_alone()) {
                if let Some(lost) = lost.get_mut(&key_hash) {
                    lost.retain(|lost| !fact.written.is_after(lost));
                }
            }
            let Some(stands) = fact.stands else {
                if facts.links.contains_key(&key) {
                    shelf.deleted.insert(key, fact.version);
                }
                continue;
            };
            let slot = tally.slot(key.as_ref());
            let settled = settle::settle(facts, segments, fact.version, &key, slot, shards);
            shelf.unsynced.extend(settled.unsynced);
            shelf.unmoved.extend(settled.unmoved);
            if !settled.losses.is_empty() {
                shelf.damaged.insert(key_hash);
                shelf.losses.push((key_hash, settled.losses));
            }
            if let Some((epoch, cut)) = settled.raised {
                let (mark, uid) = (settled.last_mark, fact.version);
                shelf.raised.push(Raised { mark, uid, key_hash, epoch, cut });
            }
            if settled.end_untold {
                shelf.ends_untold.push(settled.tail.clone());
            }
            let Stands { created_ms, home, attributes } = stands;
            let entry =
                Entry::new(key.as_ref(), &attributes, Stream { created_ms, home, tail: settled.tail });
            tally.count(&entry);
            shelf.names.push(entry);
        }
        if is_unknown {
            shelf.nameless = nameless(facts, &latest);
        }
        shelf.damaged.extend(&shelf.nameless);
        let lost = facts.lost_names.iter().filter(|(_, lost)| !lost.is_empty());
        shelf.damaged.extend(lost.map(|(&key_hash, _)| key_hash));
        shelf
    }
}

/// Names whose record is among the lost ones of which nothing is known: marks are there of a stream that no name
/// refers to, and no later record of the name says that it is gone.
fn nameless(facts: &Facts, latest: &HashMap<u64, u64>) -> BTreeSet<u64> {
    let left = facts.marks.iter().filter_map(|(uid, marks)| {
        let fact = marks.iter().find(|fact| !fact.unsynced && fact.key_hash != 0)?;
        latest.get(&fact.key_hash).is_none_or(|version| version < uid).then_some(fact.key_hash)
    });
    left.collect()
}
