//! The names of a shard, found by key in a time that does not grow with their number, and listed in order.
//!
//! Both ways lead to the same cards. What finds them is cut into parts that grow one at a time: making room in one table
//! of millions would hold the shard up for as long as it takes to look at all of them.
//! Invariant: both halves hold the same cards. Lives on: the owner's shard.

use super::card::Card;
use crate::storage::placement::KeyRef;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// See the module.
pub struct Table<T> {
    /// A search in the order alone would touch a cold line of memory for every halving.
    found: Box<[HashTable<Card<T>>]>,
    order: BTreeSet<ByKey<T>>,
    seed: u64,
}

/// Parts of what finds cards: with millions of names, thousands in each.
const PARTS: usize = 256;

impl<T> Table<T> {
    /// An empty table. `seed` is nobody's to know, so that no row of names can be made to meet in one place.
    pub fn new(seed: u64) -> Self {
        Table { found: (0..PARTS).map(|_| HashTable::new()).collect(), order: BTreeSet::new(), seed }
    }

    /// Puts many names, each only once, into an empty table: quickest when they come in order.
    pub fn fill(&mut self, cards: Vec<Card<T>>) {
        assert!(self.order.is_empty(), "a table is filled once");
        let seed = self.seed;
        for part in &mut self.found {
            part.reserve(cards.len() / PARTS, |card| hash(seed, card.key()));
        }
        for card in &cards {
            let hash_of_it = hash(seed, card.key());
            self.part(hash_of_it).insert_unique(hash_of_it, card.clone(), |card| hash(seed, card.key()));
        }
        let count = cards.len();
        // Sorts first, which costs little where most are in order, and then builds from the bottom.
        self.order = cards.into_iter().map(ByKey).collect();
        assert_eq!(self.order.len(), count, "each name comes once");
    }

    /// What is said of `key`.
    pub fn get(&self, key: KeyRef<'_>) -> Option<&Card<T>> {
        let hash = hash(self.seed, key);
        self.found[place(hash)].find(hash, |card| card.key() == key)
    }

    /// Has this be what is said of its name; returns what was said before.
    pub fn insert(&mut self, card: Card<T>) -> Option<Card<T>> {
        let seed = self.seed;
        let hash_of_it = hash(seed, card.key());
        let is_it = |other: &Card<T>| other.key() == card.key();
        let before = match self.part(hash_of_it).entry(hash_of_it, is_it, |card| hash(seed, card.key())) {
            Entry::Occupied(mut found) => Some(std::mem::replace(found.get_mut(), card.clone())),
            Entry::Vacant(place) => {
                place.insert(card.clone());
                None
            }
        };
        self.order.replace(ByKey(card));
        before
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: KeyRef<'_>) {
        let hash = hash(self.seed, key);
        if let Ok(found) = self.part(hash).find_entry(hash, |card| card.key() == key) {
            found.remove();
            self.order.remove(&key as &dyn Keyed);
        }
    }

    /// All from `from` on, in order.
    pub fn range(&self, from: Bound<KeyRef<'_>>) -> impl Iterator<Item = &Card<T>> {
        let from = from.as_ref().map(|key| key as &dyn Keyed);
        self.order.range::<dyn Keyed, _>((from, Bound::Unbounded)).map(|card| &card.0)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    fn part(&mut self, hash: u64) -> &mut HashTable<Card<T>> {
        &mut self.found[place(hash)]
    }
}

/// A fifth of the time that the standard hasher takes.
fn hash(seed: u64, key: KeyRef<'_>) -> u64 {
    xxh3_64_with_seed(key.bytes, seed ^ u64::from(key.space))
}

/// The part for a hash. By bits that a part of few thousand cards does not use itself, which are the lowest and highest.
fn place(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

/// A card in the order of its key.
struct ByKey<T>(Card<T>);

/// What has a place in the order: a card, or the key that is looked for.
trait Keyed {
    fn key(&self) -> KeyRef<'_>;
}

impl<T> Keyed for ByKey<T> {
    fn key(&self) -> KeyRef<'_> {
        self.0.key()
    }
}

impl Keyed for KeyRef<'_> {
    fn key(&self) -> KeyRef<'_> {
        *self
    }
}

impl<'a, T: 'a> Borrow<dyn Keyed + 'a> for ByKey<T> {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
    }
}

impl Ord for dyn Keyed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for dyn Keyed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Keyed + '_ {}

impl<T> Ord for ByKey<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> PartialOrd for ByKey<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for ByKey<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for ByKey<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Key;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn card(key: &Key, number: usize) -> Card<usize> {
        Card::new(key.as_ref(), b"beside", number)
    }

    fn keys(table: &Table<usize>, from: Bound<KeyRef<'_>>) -> Vec<(Key, usize)> {
        table.range(from).map(|card| (card.key().to_key(), **card)).collect()
    }

    proptest! {
        /// Catches a name that stays in one half, one that is listed twice or out of order, and an old card that is
        /// still listed.
        #[test]
        fn it_is_an_ordered_map(actions in proptest::collection::vec((0u8..3, 0u8..20, 0u8..2), 0..100)) {
            let (mut table, mut model) = (Table::<usize>::new(0x5eed), BTreeMap::new());
            for (number, (action, name, space)) in actions.into_iter().enumerate() {
                let key = Key::new(space, &[name]);
                if action == 0 {
                    table.remove(key.as_ref());
                    model.remove(&key);
                } else {
                    let before = table.insert(card(&key, number));
                    prop_assert_eq!(before.map(|card| *card), model.insert(key.clone(), number));
                }
                prop_assert_eq!(table.get(key.as_ref()).map(|card| **card), model.get(&key).copied());
                prop_assert_eq!(table.len(), model.len());
                let all: Vec<_> = model.clone().into_iter().collect();
                prop_assert_eq!(keys(&table, Bound::Unbounded), all);
                let above = model.range((Bound::Excluded(&key), Bound::Unbounded));
                let above: Vec<_> = above.map(|(key, number)| (key.clone(), *number)).collect();
                prop_assert_eq!(keys(&table, Bound::Excluded(key.as_ref())), above);
            }
        }

        /// Catches a name that is lost when all come at once, in whatever order.
        #[test]
        fn filled_at_once_it_is_the_same(names in proptest::collection::hash_set(any::<[u8; 2]>(), 0..300)) {
            let row: Vec<_> = names.iter().map(|name| Key::new(1, name)).collect();
            let (mut filled, mut model) = (Table::<usize>::new(1), BTreeMap::new());
            filled.fill(row.iter().enumerate().map(|(number, key)| card(key, number)).collect());
            model.extend(row.iter().enumerate().map(|(number, key)| (key.clone(), number)));
            prop_assert_eq!(keys(&filled, Bound::Unbounded), model.into_iter().collect::<Vec<_>>());
            prop_assert!(row.iter().all(|key| filled.get(key.as_ref()).is_some()));
        }
    }
}
