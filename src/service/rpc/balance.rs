//! Which node gets a call: of two that chance picks, the one that costs less; and which one rests.
//!
//! What a call costs is how long the node takes for an answer, times the calls that it has and this one. How long that is
//! is learned from its answers, each of which moves it half of the way up, or a quarter of it down; unheard it fades by half
//! every [`FADE`], so that who was slow is asked again; and it is never less than the silence of a node that owes answers, so that one that
//! becomes slow is known for it before its first slow answer has come.
//!
//! A node that failed [`FAILURES_MAX`] times in a row rests. When its rest is over one call at a time tests it: a good
//! answer makes it as good as new, a failure makes the rest twice as long, up to [`REST_MAX`]; so it is back after as
//! long again as it was away, at most. When another one goes to rest, those that rest are tested at once, since fewer are
//! left. Invariants: the last node of a service that does not rest never goes to rest; resting nodes are used all the
//! same when there is no other; nothing is picked that was tried before for the same call.
//! Pure but for the moment and the chance that come in; lives on every shard, each with what it saw itself.

use crate::runtime::Moment;
use crate::runtime::entropy::Entropy;
use std::collections::HashMap;
use std::time::Duration;

/// Failures in a row that put a node to rest.
pub const FAILURES_MAX: u32 = 5;
/// How long it rests the first time.
pub const REST: Duration = Duration::from_millis(500);
/// How long it rests at most.
pub const REST_MAX: Duration = Duration::from_secs(30);
/// Calls that one shard has open to a node; beyond that it gets no more.
pub const IN_FLIGHT_MAX: usize = 1024;
/// In which time half of what is known of a node's slowness is forgotten, while nothing is heard of it.
pub const FADE: Duration = Duration::from_secs(2);
/// Differences below are chance: all that answer so quickly are alike.
const QUICK: Duration = Duration::from_millis(1);
/// The share in what is known of an answer that took longer, and of one that did not.
const SHARES: (f64, f64) = (0.5, 0.25);
/// Nodes about which something is remembered before what matters least is forgotten.
const SEEN_MAX: usize = 16 * 1024;

/// What a shard knows about nodes, by address.
#[derive(Debug, Default)]
pub struct Nodes {
    of: HashMap<String, Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Calls that are not over.
    in_flight: usize,
    /// Of them, those that were not judged.
    unanswered: usize,
    /// Since when nothing was heard of these.
    silent_since: Moment,
    /// How long an answer took, in seconds, as of a moment; none before the first.
    took: Option<(f64, Moment)>,
    failures: u32,
    /// In a row.
    rests: u32,
    /// Set until a good answer comes.
    rests_until: Option<Moment>,
    is_tested: bool,
}

/// Where a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Its place among the candidates.
    pub place: usize,
    /// Whether the call tests a node whose rest is over.
    pub is_test: bool,
}

/// What a call says about its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered as it should.
    Good,
    /// It failed.
    Bad,
    /// Nothing, but how long it did not answer.
    Open,
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
    /// Picks among `candidates`, and counts the call until [`Nodes::judge`] and [`Nodes::leave`].
    pub fn pick(
        &mut self,
        candidates: &[String],
        tried: &[usize],
        now: Moment,
        chance: &Entropy,
    ) -> Result<Pick, Nobody> {
        let (mut awake, mut resting, mut due) = (Vec::new(), Vec::new(), None);
        for place in (0..candidates.len()).filter(|place| !tried.contains(place)) {
            match self.of.get(&candidates[place]) {
                Some(seen) if seen.in_flight >= IN_FLIGHT_MAX => {}
                Some(seen) if seen.rests_until.is_some() => {
                    resting.push(place);
                    due = due.or(seen.is_due(now).then_some(place));
                }
                _ => awake.push(place),
            }
        }
        // A test may fail: only a call that may go elsewhere afterwards makes one.
        let test = due.filter(|_| tried.is_empty());
        let place = match test {
            Some(place) => place,
            None if !awake.is_empty() => self.cheaper(candidates, &awake, now, chance),
            None if !resting.is_empty() => self.cheaper(candidates, &resting, now, chance),
            None if tried.len() < candidates.len() => return Err(Nobody::Idle),
            None => return Err(Nobody::Left),
        };
        self.make_room();
        let seen = self.of.entry(candidates[place].clone()).or_default();
        if seen.unanswered == 0 {
            seen.silent_since = now;
        }
        seen.in_flight += 1;
        seen.unanswered += 1;
        seen.is_tested |= test.is_some();
        Ok(Pick { place, is_test: test.is_some() })
    }

    /// Of two places that chance takes, the one where a call costs less.
    fn cheaper(&self, candidates: &[String], places: &[usize], now: Moment, chance: &Entropy) -> usize {
        if let [only] = places {
            return *only;
        }
        let one = chance.below(places.len() as u64) as usize;
        // Another one than the first, each of the others as likely.
        let other = (one + 1 + chance.below(places.len() as u64 - 1) as usize) % places.len();
        let (one, other) = (places[one], places[other]);
        let cost =
            |place: usize| self.of.get(&candidates[place]).map_or(QUICK.as_secs_f64(), |seen| seen.cost(now));
        if cost(other) < cost(one) { other } else { one }
    }

    /// What came of a call that was picked `after` so long. True when the node goes to rest.
    pub fn judge(
        &mut self,
        candidates: &[String],
        pick: Pick,
        verdict: Verdict,
        after: Duration,
        now: Moment,
    ) -> bool {
        let Some(seen) = self.of.get_mut(&candidates[pick.place]) else { return false };
        seen.unanswered = seen.unanswered.saturating_sub(1);
        if verdict != Verdict::Open {
            seen.silent_since = now;
        }
        seen.is_tested &= !pick.is_test;
        // Who fails at once is not quick, and who was left alone is at least as slow as that took.
        if verdict == Verdict::Good || after.as_secs_f64() > seen.known(now) {
            seen.learn(after, now);
        }
        match verdict {
            Verdict::Open => return false,
            Verdict::Good => {
                (seen.failures, seen.rests, seen.rests_until) = (0, 0, None);
                return false;
            }
            Verdict::Bad => {}
        }
        if seen.rests_until.is_some() {
            // Calls that were under way when it went to rest are no news; nor are those that had no choice.
            if pick.is_test {
                seen.rest(now);
            }
            return false;
        }
        seen.failures = (seen.failures + 1).min(FAILURES_MAX);
        seen.failures == FAILURES_MAX && self.put_to_rest(candidates, pick.place, now)
    }

    /// Unless all others rest. They are looked at again, since fewer are left.
    fn put_to_rest(&mut self, candidates: &[String], place: usize, now: Moment) -> bool {
        let others = (0..candidates.len()).filter(|other| *other != place);
        if others.clone().all(|other| self.rests(&candidates[other])) {
            return false;
        }
        for other in others {
            if let Some(seen) = self.of.get_mut(&candidates[other]) {
                seen.rests_until = seen.rests_until.map(|until| until.min(now));
            }
        }
        self.of.get_mut(&candidates[place]).is_some_and(|seen| {
            seen.rest(now);
            true
        })
    }

    /// A call that was judged is over.
    pub fn leave(&mut self, candidates: &[String], pick: Pick) {
        let address = &candidates[pick.place];
        let Some(seen) = self.of.get_mut(address) else { return };
        seen.in_flight = seen.in_flight.saturating_sub(1);
        // Where there is no choice nothing has to be known, and callers may name any address.
        if seen.in_flight == 0 && candidates.len() == 1 && seen.rests_until.is_none() {
            self.of.remove(address);
        }
    }

    /// Every node about which something is known: its address, calls under way, and whether it rests.
    pub fn each(&self) -> impl Iterator<Item = (&str, usize, bool)> {
        self.of.iter().map(|(address, seen)| (address.as_str(), seen.in_flight, seen.rests_until.is_some()))
    }

    /// Whether a node rests.
    pub fn rests(&self, address: &str) -> bool {
        self.of.get(address).is_some_and(|seen| seen.rests_until.is_some())
    }

    /// What is known of nodes that nobody calls goes when there is too much of it: first of those that do not rest.
    fn make_room(&mut self) {
        if self.of.len() >= SEEN_MAX {
            self.of.retain(|_, seen| seen.in_flight > 0 || seen.rests_until.is_some());
        }
        if self.of.len() >= SEEN_MAX {
            self.of.retain(|_, seen| seen.in_flight > 0);
        }
    }
}

impl Seen {
    fn is_due(&self, now: Moment) -> bool {
        !self.is_tested && self.rests_until.is_some_and(|until| until <= now)
    }

    fn rest(&mut self, now: Moment) {
        let rest = REST.saturating_mul(1 << self.rests.min(16)).min(REST_MAX);
        (self.failures, self.rests, self.rests_until) = (0, self.rests.saturating_add(1), Some(now + rest));
    }

    fn cost(&self, now: Moment) -> f64 {
        let silence = if self.unanswered > 0 { now.since(self.silent_since).as_secs_f64() } else { 0.0 };
        (self.in_flight + 1) as f64 * self.known(now).max(silence).max(QUICK.as_secs_f64())
    }

    /// How long an answer takes, in seconds, as far as is known.
    fn known(&self, now: Moment) -> f64 {
        let faded = |(took, at)| took * (-now.since(at).div_duration_f64(FADE)).exp2();
        self.took.map_or(0.0, faded)
    }

    fn learn(&mut self, after: Duration, now: Moment) {
        let (known, after) = (self.known(now), after.as_secs_f64());
        let share = match self.took {
            None => 1.0,
            Some(_) if after > known => SHARES.0,
            Some(_) => SHARES.1,
        };
        self.took = Some((known + (after - known) * share, now));
    }
}

#[cfg(test)]
mod tests;
