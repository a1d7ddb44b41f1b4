//! Which node gets a call: of two that chance picks, the one with less to do, unless it fails.
//!
//! A node that failed [`FAILURES_MAX`] times in a row rests, for [`REST`] the first time and longer each time after;
//! one answer that it gives makes it as good as new. Invariant: resting nodes are used all the same when there is no
//! other, so the last node is never out; nothing is picked that was tried before for the same call.
//! Pure but for the moment and the chance that come in; lives on every shard, each with what it saw itself.

use crate::runtime::Moment;
use crate::runtime::entropy::Entropy;
use std::collections::HashMap;
use std::time::Duration;

/// Failures in a row that put a node to rest.
pub const FAILURES_MAX: u32 = 5;
/// How long it rests the first time.
pub const REST: Duration = Duration::from_secs(30);
/// Calls that one shard has open to a node; beyond that it gets no more.
pub const IN_FLIGHT_MAX: usize = 1024;
/// Nodes about which something is remembered before what matters least is forgotten.
const SEEN_MAX: usize = 16 * 1024;
/// Rests grow up to this many times the first.
const RESTS_MAX: u32 = 10;

/// What a shard knows about nodes, by address.
#[derive(Debug, Default)]
pub struct Nodes {
    of: HashMap<String, Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    in_flight: usize,
    failures: u32,
    rests: u32,
    rests_until: Option<Moment>,
}

/// Why nothing was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nobody {
    /// All were tried.
    Left,
    /// Those that were not tried have [`IN_FLIGHT_MAX`] calls.
    Idle,
}

impl Nodes {
    /// Picks among `candidates` by their places, and counts the call.
    pub fn pick(
        &mut self,
        candidates: &[String],
        tried: &[usize],
        now: Moment,
        chance: &Entropy,
    ) -> Result<usize, Nobody> {
        let untried: Vec<usize> = (0..candidates.len()).filter(|place| !tried.contains(place)).collect();
        let seen = |place: usize| self.of.get(&candidates[place]).copied().unwrap_or_default();
        let idle: Vec<usize> =
            untried.iter().copied().filter(|place| seen(*place).in_flight < IN_FLIGHT_MAX).collect();
        let awake: Vec<usize> = idle
            .iter()
            .copied()
            .filter(|place| seen(*place).rests_until.is_none_or(|until| until <= now))
            .collect();
        let from = if awake.is_empty() { &idle } else { &awake };
        let picked = match from[..] {
            [] if untried.is_empty() => return Err(Nobody::Left),
            [] => return Err(Nobody::Idle),
            [only] => only,
            _ => {
                let one = chance.below(from.len() as u64) as usize;
                // Another one than the first, each of the others as likely.
                let other = (one + 1 + chance.below(from.len() as u64 - 1) as usize) % from.len();
                if seen(from[other]).in_flight < seen(from[one]).in_flight { from[other] } else { from[one] }
            }
        };
        if self.of.len() >= SEEN_MAX {
            // Callers may name any address: what nobody calls and does not rest is forgotten.
            self.of.retain(|_, seen| seen.in_flight > 0 || seen.rests_until.is_some_and(|until| until > now));
        }
        self.of.entry(candidates[picked].clone()).or_default().in_flight += 1;
        Ok(picked)
    }

    /// A call is over; `good` is `None` when it says nothing about the node. True when the node goes to rest.
    pub fn over(&mut self, address: &str, good: Option<bool>, now: Moment) -> bool {
        let Some(seen) = self.of.get_mut(address) else { return false };
        seen.in_flight = seen.in_flight.saturating_sub(1);
        match good {
            None => {}
            Some(true) => (seen.failures, seen.rests, seen.rests_until) = (0, 0, None),
            Some(false) => {
                seen.failures += 1;
                if seen.failures >= FAILURES_MAX {
                    seen.failures = 0;
                    seen.rests = (seen.rests + 1).min(RESTS_MAX);
                    seen.rests_until = Some(now + REST * seen.rests);
                    return true;
                }
            }
        }
        // What is unknown again is as good as new: nothing is kept about nodes that went and are not called.
        if seen.in_flight == 0 && seen.failures == 0 && seen.rests == 0 {
            self.of.remove(address);
        }
        false
    }

    /// Every node about which something is known: its address, calls under way, and whether it rests.
    pub fn each(&self, now: Moment) -> impl Iterator<Item = (&str, usize, bool)> {
        let rests = move |seen: &Seen| seen.rests_until.is_some_and(|until| until > now);
        self.of.iter().map(move |(address, seen)| (address.as_str(), seen.in_flight, rests(seen)))
    }

    /// Whether a node rests.
    pub fn rests(&self, address: &str, now: Moment) -> bool {
        self.of.get(address).and_then(|seen| seen.rests_until).is_some_and(|until| until > now)
    }
}

/// How many retries there may be: one for every five calls, and ten a second beside them.
///
/// Without it, retries of a service that fails everywhere double its load when it can least take it.
#[derive(Debug)]
pub struct Budget {
    /// In millionths of a retry: fifths of one would not add up as binary fractions.
    millionths: u64,
    filled: Moment,
}

impl Budget {
    const ONE: u64 = 1_000_000;
    const PER_CALL: u64 = Self::ONE / 5;
    /// Ten a second.
    const PER_MICROSECOND: u64 = 10;
    const MAX: u64 = 100 * Self::ONE;

    /// A full one.
    pub fn new(now: Moment) -> Self {
        Budget { millionths: Self::MAX, filled: now }
    }

    /// A call was made.
    pub fn called(&mut self) {
        self.millionths = (self.millionths + Self::PER_CALL).min(Self::MAX);
    }

    /// Takes one retry, if there is one.
    pub fn take(&mut self, now: Moment) -> bool {
        let waited = u64::try_from(now.since(self.filled).as_micros()).unwrap_or(u64::MAX);
        let gained = waited.saturating_mul(Self::PER_MICROSECOND);
        (self.millionths, self.filled) = (self.millionths.saturating_add(gained).min(Self::MAX), now);
        let has = self.millionths >= Self::ONE;
        if has {
            self.millionths -= Self::ONE;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("n{number}")).collect()
    }

    #[test]
    fn the_one_with_less_to_do_gets_it() {
        let (mut nodes, chance, two) = (Nodes::default(), Entropy::from_seed(1), names(2));
        let mut counts = [0; 2];
        for _ in 0..100 {
            counts[nodes.pick(&two, &[], Moment::default(), &chance).unwrap()] += 1;
        }
        assert_eq!(counts, [50, 50], "none ends, so they stay level");
    }

    #[test]
    fn what_was_tried_is_not_tried_again() {
        let (mut nodes, chance, three) = (Nodes::default(), Entropy::from_seed(2), names(3));
        let mut tried = Vec::new();
        for _ in 0..3 {
            tried.push(nodes.pick(&three, &tried, Moment::default(), &chance).unwrap());
        }
        tried.sort_unstable();
        assert_eq!(tried, [0, 1, 2]);
        assert_eq!(nodes.pick(&three, &tried, Moment::default(), &chance), Err(Nobody::Left));
    }

    #[test]
    fn what_fails_rests_and_the_last_one_never() {
        let (mut nodes, chance, two) = (Nodes::default(), Entropy::from_seed(3), names(2));
        let now = Moment::from_nanos(1);
        let fail = |nodes: &mut Nodes, name: &str| {
            for count in 1..=FAILURES_MAX {
                let place = two.iter().position(|other| other == name).unwrap();
                nodes.pick(&two, &[1 - place], now, &chance).unwrap();
                assert_eq!(nodes.over(name, Some(false), now), count == FAILURES_MAX);
            }
        };
        fail(&mut nodes, "n0");
        assert!(nodes.rests("n0", now));
        for _ in 0..20 {
            assert_eq!(nodes.pick(&two, &[], now, &chance), Ok(1));
        }
        fail(&mut nodes, "n1");
        assert!(nodes.pick(&two, &[], now, &chance).is_ok(), "all rest, so all are used");
        let later = now + REST + Duration::from_nanos(1);
        assert!(!nodes.rests("n0", later));
        assert!(nodes.pick(&two, &[1], later, &chance).is_ok());
        nodes.over("n0", Some(true), later);
        fail(&mut nodes, "n0");
        assert!(!nodes.rests("n0", now + REST), "one good answer made it as good as new");
    }

    #[test]
    fn a_busy_node_gets_no_more() {
        let (mut nodes, chance, one) = (Nodes::default(), Entropy::from_seed(4), names(1));
        for _ in 0..IN_FLIGHT_MAX {
            nodes.pick(&one, &[], Moment::default(), &chance).unwrap();
        }
        assert_eq!(nodes.pick(&one, &[], Moment::default(), &chance), Err(Nobody::Idle));
        nodes.over("n0", None, Moment::default());
        assert!(nodes.pick(&one, &[], Moment::default(), &chance).is_ok());
    }

    #[test]
    fn retries_are_a_part_of_calls() {
        let now = Moment::default();
        let mut budget = Budget::new(now);
        assert_eq!((0..200).filter(|_| budget.take(now)).count(), 100, "what it holds when it is full");
        (0..10).for_each(|_| budget.called());
        assert_eq!((0..10).filter(|_| budget.take(now)).count(), 2);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| budget.take(later)).count(), 10);
    }
}
