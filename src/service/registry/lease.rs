//! Which registrations end when, unless they are renewed.
//!
//! Invariant: an id has one lease at most, and [`Leases::take_due`] gives it once. Ordered by time, so that the
//! next one is found without looking at the others; renewing costs two steps in the order. Lives on: the writer.

use crate::runtime::Moment;
use std::collections::{BTreeSet, HashMap};

/// The leases of all nodes.
#[derive(Debug, Default)]
pub struct Leases {
    order: BTreeSet<(Moment, String)>,
    of: HashMap<String, Moment>,
}

impl Leases {
    /// Ends the registration of `id` at `end`; never, without one.
    pub fn set(&mut self, id: &str, end: Option<Moment>) {
        self.remove(id);
        if let Some(end) = end {
            self.order.insert((end, id.to_owned()));
            self.of.insert(id.to_owned(), end);
        }
    }

    /// Forgets about an id.
    pub fn remove(&mut self, id: &str) {
        if let Some(end) = self.of.remove(id) {
            self.order.remove(&(end, id.to_owned()));
        }
    }

    /// When the next one ends.
    pub fn next(&self) -> Option<Moment> {
        self.order.first().map(|(end, _)| *end)
    }

    /// Takes those that have ended by `now`.
    pub fn take_due(&mut self, now: Moment) -> Vec<String> {
        let mut due = Vec::new();
        while self.next().is_some_and(|end| end <= now)
            && let Some((_, id)) = self.order.pop_first()
        {
            self.of.remove(&id);
            due.push(id);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_word_about_an_id_holds() {
        let at = Moment::from_nanos;
        let mut leases = Leases::default();
        leases.set("a", Some(at(10)));
        leases.set("b", Some(at(20)));
        leases.set("c", Some(at(5)));
        leases.set("a", Some(at(30)));
        leases.set("c", None);
        assert_eq!(leases.next(), Some(at(20)));
        assert_eq!(leases.take_due(at(19)), [""; 0]);
        assert_eq!(leases.take_due(at(30)), ["b", "a"]);
        assert_eq!((leases.next(), leases.of.len()), (None, 0));
    }
}
