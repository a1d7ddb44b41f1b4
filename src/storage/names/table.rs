//! The names of a shard, found by key in a time that does not grow with their number, and listed in order.
//!
//! Invariant: both halves hold the same keys, each key's bytes being stored once. Lives on: the owner's shard.

use super::Found;
use crate::storage::placement::Key;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

/// See the module.
#[derive(Default)]
pub struct Table {
    /// A search in the order alone would touch a cold line of memory for every halving.
    found: HashMap<Key, Found>,
    order: BTreeSet<Key>,
}

impl Table {
    /// What `key` stands for.
    pub fn get(&self, key: &Key) -> Option<&Found> {
        self.found.get(key)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Found> {
        self.found.get_mut(key)
    }

    /// Puts `key`; returns what it stood for before.
    pub fn insert(&mut self, key: Key, found: Found) -> Option<Found> {
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
    pub fn range(&self, from: Bound<Key>) -> impl Iterator<Item = (&Key, &Found)> {
        let keys = self.order.range((from, Bound::Unbounded));
        keys.map(|key| (key, self.found.get(key).expect("both halves hold the same keys")))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.found.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Ticket;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn keys(table: &Table, from: Bound<Key>) -> Vec<(Key, Ticket)> {
        table.range(from).map(|(key, found)| (key.clone(), found.ticket)).collect()
    }

    proptest! {
        /// Catches a key that stays in one half, and one that is listed twice or out of order.
        #[test]
        fn it_is_an_ordered_map(actions in proptest::collection::vec((0u8..3, 0u8..20, 0u8..2), 0..100)) {
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
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
    }
}
