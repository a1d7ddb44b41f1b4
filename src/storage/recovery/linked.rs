//! From facts to links: which of the things that a name was said to stand for it stands for.
//!
//! The latest whose bodies are all there. A crash may leave a link's record and take its bodies, which are another log's;
//! then nobody was told of it, or in the cache class only, and what it replaced was kept: that stands again, and the
//! record is made void; of links that one record says, all or none. Where something was durable and is damaged, nothing
//! falls back: the name is refused instead.
//! Bodies that nothing stands for are left out; if records are lost they stay, as a lost one may have been their link.
//!
//! Invariant: the outcome depends on the files alone, so that a start that is cut off and the next one agree.
//! Runs before shards serve.

use super::super::body::{BODIES, Body};
use super::super::journal::link::{LinkRecord, PartAt};
use super::super::links::{Content, Link, Part};
use super::super::names::{Entry, Ticket};
use super::super::placement::{Key, KeyRef, owner_of};
use super::super::tail::Tail;
use super::super::tally::Tally;
use super::facts::{Facts, LinkFact, Written};
use super::owned::Owned;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Puts links together, once names are; leaves out bodies that none of them needs.
pub fn settle_links(facts: &mut Facts, owned: &mut Owned, tally: &Tally) {
    let shards = owned.names.len();
    let entries = owned.names.iter().flatten().filter(|entry| entry.key().space == BODIES);
    let mut bodies: Bodies = entries
        .map(|entry| {
            (entry.tail.uid(), Found { tail: entry.tail.clone(), key: entry.key().to_key(), body: None })
        })
        .collect();
    let lossy = facts.has_losses();
    let halves: HashSet<Written> = std::mem::take(&mut facts.together)
        .into_iter()
        .filter(|(_, parts)| !are_there(parts, &bodies) && !are_damaged(parts, &bodies, owned, lossy))
        .map(|(written, _)| written)
        .collect();
    owned.fallen.extend(&halves);
    for ready in std::mem::take(&mut facts.ready) {
        // Most are like that. What is not is looked at like everything else.
        match ready.make(owned, &mut bodies) {
            Ok(link) => {
                tally.take_name(tally.slot(link.key()), u64::MAX);
                owned.links[owner_of(link.key().hash(), shards).index()].push(link);
            }
            Err(ready) => {
                let (key, fact) = ready.into_fact();
                facts.links.entry(key).or_default().push(fact);
            }
        }
    }
    for (key, mut said) in std::mem::take(&mut facts.links) {
        let key_hash = key.hash();
        let owner = owner_of(key_hash, shards).index();
        said.sort_by_key(|fact| fact.link.version);
        if key.as_ref().is_alone()
            && let Some(lost) = facts.lost_names.get_mut(&key_hash)
        {
            lost.retain(|lost| !said.iter().any(|fact| fact.written.is_after(lost)));
            if lost.is_empty() {
                owned.damaged[owner].remove(&key_hash);
            }
        }
        let deleted = owned.deleted.get(&key).copied().unwrap_or(0);
        let mut fallen = Vec::new();
        let mut said = said
            .into_iter()
            .rev()
            .filter(|fact| fact.link.version > deleted && !halves.contains(&fact.written));
        let chosen = said.by_ref().find(|fact| {
            // The same word may stand in the checkpoint and in the journal.
            let parts = &fact.link.parts;
            let stands = are_there(parts, &bodies) || are_damaged(parts, &bodies, owned, lossy);
            if !stands {
                fallen.push(fact.written);
            }
            stands
        });
        owned.fallen.extend(fallen);
        let Some(LinkFact { link, .. }) = chosen else { continue };
        if link.parts.iter().any(|part| !part_is_there(part, &bodies)) {
            owned.damaged[owner].insert(key_hash);
            owned.bodiless.push(key.clone());
        }
        tally.take_name(tally.slot(key.as_ref()), u64::MAX);
        let link = make(link, owned, &mut bodies);
        owned.links[owner].push(link);
    }
    if !lossy {
        leave_out(owned, &bodies, tally);
    }
}

/// A link as the checkpoint has it, in little memory: there may be many.
pub struct ReadyLink {
    key: Key,
    version: u64,
    created_ms: u64,
    attributes: Box<[u8]>,
    parts: Box<[PartAt]>,
    written: Written,
}

impl ReadyLink {
    /// What `link` says, as written there.
    pub fn of(link: &LinkRecord<'_>, written: Written) -> Self {
        ReadyLink {
            key: Key { space: link.space, bytes: (&*link.key).into() },
            version: link.version,
            created_ms: link.created_ms,
            attributes: (&*link.attributes).into(),
            parts: (&*link.parts).into(),
            written,
        }
    }

    /// The link, unless bodies are missing.
    fn make(self, owned: &Owned, bodies: &mut Bodies) -> Result<Link, Self> {
        if !self.parts.iter().all(|part| part_is_there(part, bodies)) {
            return Err(self);
        }
        let parts = self.parts.iter().filter_map(|part| part_of(*part, owned, bodies)).collect();
        let ReadyLink { key, version, created_ms, attributes, .. } = self;
        Ok(Link::new(key.as_ref(), &attributes, Content { version, created_ms, parts }))
    }

    fn into_fact(self) -> (Key, LinkFact) {
        let ReadyLink { key, version, created_ms, attributes, parts, written } = self;
        let link = LinkRecord {
            version,
            created_ms,
            space: key.space,
            key: key.bytes.to_vec().into(),
            attributes: attributes.into_vec().into(),
            parts: parts.into_vec(),
        };
        (key, LinkFact { written, link })
    }
}

/// What is known of the bodies, by their numbers.
type Bodies = HashMap<u64, Found>;

struct Found {
    tail: Arc<Tail>,
    key: Key,
    /// Once a link needs it.
    body: Option<Arc<Body>>,
}

fn part_is_there(part: &PartAt, bodies: &Bodies) -> bool {
    bodies.get(&part.uid).is_some_and(|found| found.tail.published() >= part.from + part.len)
}

fn are_there(parts: &[PartAt], bodies: &Bodies) -> bool {
    parts.iter().all(|part| part_is_there(part, bodies))
}

/// Whether a body is not as long as it was because something durable is damaged.
fn are_damaged(parts: &[PartAt], bodies: &Bodies, owned: &Owned, lossy: bool) -> bool {
    let damaged = |part: &PartAt| match bodies.get(&part.uid) {
        None => lossy,
        Some(found) => owned.is_damaged(found.key.hash()),
    };
    parts.iter().filter(|part| !part_is_there(part, bodies)).any(damaged)
}

fn make(link: LinkRecord<'static>, owned: &Owned, bodies: &mut Bodies) -> Link {
    let parts = link.parts.iter().copied().filter_map(|part| part_of(part, owned, bodies)).collect();
    let LinkRecord { version, created_ms, space, key, attributes, .. } = link;
    Link::new(KeyRef { space, bytes: &key }, &attributes, Content { version, created_ms, parts })
}

/// A part; none without a body, which belongs to a name that is refused.
fn part_of(at: PartAt, owned: &Owned, bodies: &mut Bodies) -> Option<Part> {
    let found = bodies.get_mut(&at.uid)?;
    let body = found.body.get_or_insert_with(|| {
        Body::new(found.tail.clone(), found.key.clone(), Ticket::default(), owned.ends.of(&found.key))
    });
    Some(Part::new(body.clone(), at.from, at.len))
}

/// Forgets the bodies that no link needs: their bytes are dead.
fn leave_out(owned: &mut Owned, bodies: &Bodies, tally: &Tally) {
    let is_needed = |uid: u64| bodies.get(&uid).is_none_or(|found| found.body.is_some());
    let stays = |entry: &Entry| entry.key().space != BODIES || is_needed(entry.tail.uid());
    owned.retain(stays, |entry| tally.uncount(entry));
    let orphans: HashSet<u64> =
        bodies.values().filter(|found| found.body.is_none()).map(|found| found.key.hash()).collect();
    owned.damaged.iter_mut().for_each(|damaged| damaged.retain(|hash| !orphans.contains(hash)));
    owned.losses.retain(|(hash, _)| !orphans.contains(hash));
}
