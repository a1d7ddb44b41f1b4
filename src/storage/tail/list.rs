//! A list that one shard appends to while every shard reads it.
//!
//! Invariant: an element never moves and never changes its place, and a reader sees only whole elements: the
//! count is stored (Release) after the element. Lives on: all shards; one of them appends.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Buckets of 8, 64, 512 … elements behind the first.
const BUCKETS: usize = 7;

/// An append-only list. The first element lies inside, since most lists have no more; a long one costs few
/// allocations.
pub struct AppendList<T> {
    first: OnceLock<T>,
    more: OnceLock<Box<[Bucket<T>; BUCKETS]>>,
    count: AtomicUsize,
}

/// Made whole with its first element.
type Bucket<T> = OnceLock<Box<[OnceLock<T>]>>;

impl<T> AppendList<T> {
    /// An empty list.
    pub fn new() -> Self {
        AppendList { first: OnceLock::new(), more: OnceLock::new(), count: AtomicUsize::new(0) }
    }

    /// How many elements.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The element at `index`.
    pub fn at(&self, index: usize) -> Option<&T> {
        let Some(behind) = index.checked_sub(1) else { return self.first.get() };
        let (bucket, within) = place(behind)?;
        self.more.get()?[bucket].get()?.get(within)?.get()
    }

    /// The last element.
    pub fn last(&self) -> Option<&T> {
        self.at(self.count().checked_sub(1)?)
    }

    /// All elements, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.count()).map_while(|index| self.at(index))
    }

    /// Appends. One shard at a time may call this; false when the list is full.
    pub fn push(&self, element: T) -> bool {
        let index = self.count.load(Ordering::Relaxed);
        let cell = match index.checked_sub(1) {
            None => &self.first,
            Some(behind) => {
                let Some((bucket, within)) = place(behind) else { return false };
                let buckets = self.more.get_or_init(|| Box::new([const { OnceLock::new() }; BUCKETS]));
                let size = size_of_bucket(bucket);
                &buckets[bucket].get_or_init(|| (0..size).map(|_| OnceLock::new()).collect())[within]
            }
        };
        assert!(cell.set(element).is_ok(), "one shard appends");
        self.count.store(index + 1, Ordering::Release);
        true
    }

    /// The last element for which `is_before` holds, given that those for which it holds come first.
    pub fn last_where(&self, is_before: impl Fn(&T) -> bool) -> Option<(usize, &T)> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle).is_some_and(&is_before) { low = middle + 1 } else { high = middle }
        }
        let index = low.checked_sub(1)?;
        self.at(index).map(|element| (index, element))
    }
}

/// Which bucket, and where in it, for what is so far behind the first.
fn place(behind: usize) -> Option<(usize, usize)> {
    let mut within = behind;
    for bucket in 0..BUCKETS {
        let size = size_of_bucket(bucket);
        if within < size {
            return Some((bucket, within));
        }
        within -= size;
    }
    None
}

fn size_of_bucket(bucket: usize) -> usize {
    8 << (3 * bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a wrong bucket boundary: every index has its own place, and finds its own element.
    #[test]
    fn elements_are_found_where_they_were_put() {
        let list = AppendList::new();
        assert!(list.last().is_none() && list.last_where(|_| true).is_none());
        for number in 0..1000usize {
            assert!(list.push(number * 10));
            assert_eq!(list.last(), Some(&(number * 10)));
        }
        assert!(list.iter().copied().eq((0..1000).map(|number| number * 10)));
        for looked_for in 0..9_995 {
            let (index, found) = list.last_where(|&element| element <= looked_for).expect("0 is before all");
            assert_eq!((index, *found), (looked_for / 10, looked_for / 10 * 10));
        }
    }
}
