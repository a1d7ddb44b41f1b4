//! The names of a shard, found by key in a time that does not grow with their number, and listed in order.
//!
//! Invariant: both halves hold the same keys, each key's bytes being stored once. Lives on: the owner's shard.

use crate::storage::placement::Key;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::ops::Bound;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// See the module.
pub struct Table<V> {
    /// A search in the order alone would touch a cold line of memory for every halving.
    found: HashMap<Key, V, Seed>,
    order: BTreeSet<Key>,
}

impl<V> Table<V> {
    /// An empty table. `seed` is nobody's to know, so that no row of names can be made to meet in one place.
    pub fn new(seed: u64) -> Self {
        Table { found: HashMap::with_hasher(Seed(seed)), order: BTreeSet::new() }
    }

    /// Puts many names, each only once, into an empty table: quickest when they come in order.
    pub fn fill(&mut self, names: impl ExactSizeIterator<Item = (Key, V)>) {
        assert!(self.found.is_empty(), "a table is filled once");
        let mut order = Vec::with_capacity(names.len());
        self.found.reserve(names.len());
        for (key, found) in names {
            order.push(key.clone());
            self.found.insert(key, found);
        }
        // Sorts first, which costs little where most are in order, and then builds from the bottom.
        self.order = BTreeSet::from_iter(order);
        assert_eq!(self.order.len(), self.found.len(), "both halves hold the same keys");
    }

    /// What `key` stands for.
    pub fn get(&self, key: &Key) -> Option<&V> {
        self.found.get(key)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut V> {
        self.found.get_mut(key)
    }

    /// Puts `key`; returns what it stood for before.
    pub fn insert(&mut self, key: Key, found: V) -> Option<V> {
        let before = self.found.insert(key.clone(), found);
        if before.is_none() {
            self.order.insert(key);
        }
        before
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &Key) {
        if self.found.remove(key).is_some() {
            self.order.remove(key);
        }
    }

    /// All from `from` on, in order.
    pub fn range(&self, from: Bound<Key>) -> impl Iterator<Item = (&Key, &V)> {
        let keys = self.order.range((from, Bound::Unbounded));
        keys.map(|key| (key, self.found.get(key).expect("both halves hold the same keys")))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.found.len()
    }
}

/// Hashes keys: a fifth of the time that the standard hasher takes.
struct Seed(u64);

/// See [`Seed`].
struct Mixed(u64);

impl BuildHasher for Seed {
    type Hasher = Mixed;
    fn build_hasher(&self) -> Mixed {
        Mixed(self.0)
    }
}

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    // A space and a length: where they differ so does the seed of what follows.
    fn write_u8(&mut self, value: u8) {
        self.0 = self.0.rotate_left(8) ^ u64::from(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.0 = self.0.rotate_left(8) ^ value as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::Found;
    use super::*;
    use crate::storage::Ticket;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn keys(table: &Table<Found>, from: Bound<Key>) -> Vec<(Key, Ticket)> {
        table.range(from).map(|(key, found)| (key.clone(), found.ticket)).collect()
    }

    proptest! {
        /// Catches a key that stays in one half, and one that is listed twice or out of order.
        #[test]
        fn it_is_an_ordered_map(actions in proptest::collection::vec((0u8..3, 0u8..20, 0u8..2), 0..100)) {
            let (mut table, mut model) = (Table::<Found>::new(0x5eed), BTreeMap::new());
            for (number, (action, name, space)) in actions.into_iter().enumerate() {
                let (key, ticket) = (Key::new(space, &[name]), Ticket(number as u64));
                if action == 0 {
                    table.remove(&key);
                    model.remove(&key);
                } else {
                    let before = table.insert(key.clone(), Found { entry: None, ticket });
                    prop_assert_eq!(before.map(|found| found.ticket), model.insert(key.clone(), ticket));
                    table.get_mut(&key).expect("just put").ticket.0 += 1000;
                    model.get_mut(&key).expect("just put").0 += 1000;
                }
                prop_assert_eq!(table.get(&key).map(|found| found.ticket), model.get(&key).copied());
                prop_assert_eq!(table.len(), model.len());
                let all: Vec<_> = model.clone().into_iter().collect();
                prop_assert_eq!(keys(&table, Bound::Unbounded), all);
                let above: Vec<_> = model.range((Bound::Excluded(&key), Bound::Unbounded)).collect();
                prop_assert!(keys(&table, Bound::Excluded(key.clone())).iter().map(|(k, t)| (k, t)).eq(above));
            }
        }

        /// Catches a name that is lost when all come at once, in whatever order.
        #[test]
        fn filled_at_once_it_is_the_same(names in proptest::collection::hash_set(any::<[u8; 2]>(), 0..300)) {
            let row = || names.iter().map(|name| (Key::new(1, name), Found::default()));
            let (mut filled, mut model) = (Table::<Found>::new(1), BTreeMap::new());
            filled.fill(row());
            model.extend(row().map(|(key, found)| (key, found.ticket)));
            prop_assert_eq!(keys(&filled, Bound::Unbounded), model.into_iter().collect::<Vec<_>>());
            prop_assert!(row().all(|(key, _)| filled.get(&key).is_some()));
        }
    }
}
