//! The balancer against nodes that are quick, slow, gone and back, in a time that the tests move.

use super::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const MS: Duration = Duration::from_millis(1);

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("n{number}")).collect()
}

fn at(now: Duration) -> Moment {
    Moment::default() + now
}

/// A call that is over as soon as it was made.
fn one(
    nodes: &mut Nodes,
    of: &[String],
    tried: &[usize],
    verdict: Verdict,
    after: Duration,
    now: Moment,
) -> Pick {
    let pick = nodes.pick(of, tried, now, &Entropy::from_seed(1)).unwrap();
    nodes.judge(of, pick, verdict, after, now);
    nodes.leave(of, pick);
    pick
}

/// Calls at one place until it rests.
fn fail(nodes: &mut Nodes, of: &[String], place: usize, now: Moment) {
    let tried: Vec<usize> = (0..of.len()).filter(|other| *other != place).collect();
    for _ in 0..FAILURES_MAX {
        one(nodes, of, &tried, Verdict::Bad, MS, now);
    }
}

#[test]
fn the_one_with_less_to_do_gets_it() {
    let (mut nodes, chance, two) = (Nodes::default(), Entropy::from_seed(1), names(2));
    let mut counts = [0; 2];
    for _ in 0..100 {
        counts[nodes.pick(&two, &[], Moment::default(), &chance).unwrap().place] += 1;
    }
    assert_eq!(counts, [50, 50], "none ends, so they stay level");
}

#[test]
fn what_was_tried_is_not_tried_again() {
    let (mut nodes, chance, three) = (Nodes::default(), Entropy::from_seed(2), names(3));
    let mut tried = Vec::new();
    for _ in 0..3 {
        tried.push(nodes.pick(&three, &tried, Moment::default(), &chance).unwrap().place);
    }
    tried.sort_unstable();
    assert_eq!(tried, [0, 1, 2]);
    assert_eq!(nodes.pick(&three, &tried, Moment::default(), &chance), Err(Nobody::Left));
}

#[test]
fn what_fails_rests_and_the_last_one_never() {
    let (mut nodes, chance, two) = (Nodes::default(), Entropy::from_seed(3), names(2));
    let now = at(MS);
    fail(&mut nodes, &two, 0, now);
    assert!(nodes.rests("n0"));
    for _ in 0..20 {
        assert_eq!(nodes.pick(&two, &[], now, &chance), Ok(Pick { place: 1, is_test: false }));
    }
    fail(&mut nodes, &two, 1, now);
    assert!(!nodes.rests("n1"), "no other one is left");
    assert_eq!(nodes.pick(&two, &[1], now, &chance).map(|pick| pick.place), Ok(0), "rather than none");
}

#[test]
fn one_call_at_a_time_tests_a_node_whose_rest_is_over() {
    let (mut nodes, chance, two) = (Nodes::default(), Entropy::from_seed(4), names(2));
    fail(&mut nodes, &two, 0, at(MS));
    let later = at(MS + REST);
    let test = nodes.pick(&two, &[], later, &chance).unwrap();
    assert_eq!(test, Pick { place: 0, is_test: true });
    for _ in 0..20 {
        assert_eq!(nodes.pick(&two, &[], later, &chance).unwrap().place, 1, "it is being tested");
    }
    // Nobody knows how it went: the next call tests it.
    nodes.judge(&two, test, Verdict::Open, MS, later);
    nodes.leave(&two, test);
    let test = nodes.pick(&two, &[], later, &chance).unwrap();
    assert_eq!(test, Pick { place: 0, is_test: true });
    nodes.judge(&two, test, Verdict::Good, MS, later);
    assert!(!nodes.rests("n0"), "a good answer brings it back at once");
    // Only a call that could go elsewhere is a test.
    fail(&mut nodes, &two, 1, later);
    assert!(!nodes.pick(&two, &[0], later + REST, &chance).unwrap().is_test);
}

#[test]
fn rests_grow_to_their_bound_and_calls_from_before_do_not_lengthen_them() {
    let (mut nodes, chance, two) = (Nodes::default(), Entropy::from_seed(5), names(2));
    let mut now = at(MS);
    let under_way = nodes.pick(&two, &[1], now, &chance).unwrap();
    fail(&mut nodes, &two, 0, now);
    nodes.judge(&two, under_way, Verdict::Bad, MS, now);
    let mut rests = Vec::new();
    for _ in 0..9 {
        let rested = (1..).find(|ms| nodes.of["n0"].is_due(now + MS * *ms)).unwrap();
        rests.push(rested);
        now = now + MS * rested;
        assert!(one(&mut nodes, &two, &[], Verdict::Bad, MS, now).is_test);
    }
    assert_eq!(rests, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
}

#[test]
fn when_one_goes_to_rest_those_that_rest_are_tested() {
    let (mut nodes, chance, three) = (Nodes::default(), Entropy::from_seed(6), names(3));
    fail(&mut nodes, &three, 0, at(MS));
    assert!(!nodes.pick(&three, &[], at(2 * MS), &chance).unwrap().is_test);
    fail(&mut nodes, &three, 1, at(2 * MS));
    assert_eq!(nodes.pick(&three, &[], at(2 * MS), &chance), Ok(Pick { place: 0, is_test: true }));
}

#[test]
fn a_busy_node_gets_no_more() {
    let (mut nodes, chance, one) = (Nodes::default(), Entropy::from_seed(7), names(1));
    let first = nodes.pick(&one, &[], Moment::default(), &chance).unwrap();
    for _ in 1..IN_FLIGHT_MAX {
        nodes.pick(&one, &[], Moment::default(), &chance).unwrap();
    }
    assert_eq!(nodes.pick(&one, &[], Moment::default(), &chance), Err(Nobody::Idle));
    nodes.judge(&one, first, Verdict::Good, MS, Moment::default());
    assert_eq!(nodes.pick(&one, &[], Moment::default(), &chance), Err(Nobody::Idle), "it is not over yet");
    nodes.leave(&one, first);
    assert!(nodes.pick(&one, &[], Moment::default(), &chance).is_ok());
}

#[test]
fn what_is_known_is_bounded_and_nothing_is_known_without_a_choice() {
    let (mut nodes, now) = (Nodes::default(), at(MS));
    one(&mut nodes, &names(1), &[], Verdict::Bad, MS, now);
    assert_eq!(nodes.each().count(), 0);
    for number in 0..SEEN_MAX + 10 {
        let pair = [format!("a{number}"), format!("b{number}")];
        fail(&mut nodes, &pair, 0, now);
        one(&mut nodes, &pair, &[0], Verdict::Good, MS, now);
    }
    assert!(nodes.of.len() <= SEEN_MAX);
}

/// Calls at a rate, to nodes of which each takes so long, or refuses when it takes no time at all.
struct World {
    nodes: Nodes,
    names: Vec<String>,
    chance: Entropy,
    now: Moment,
    under_way: BinaryHeap<Reverse<(Moment, usize, bool, Moment)>>,
    /// Calls that each node got.
    got: Vec<usize>,
    /// Calls that no node took.
    failed: usize,
}

impl World {
    fn new(count: usize, seed: u64) -> Self {
        World {
            nodes: Nodes::default(),
            names: names(count),
            chance: Entropy::from_seed(seed),
            now: at(MS),
            under_way: BinaryHeap::new(),
            got: vec![0; count],
            failed: 0,
        }
    }

    /// Goes on for so many calls, one a millisecond; what each node got of them.
    fn run(&mut self, calls: usize, takes: &[Option<Duration>]) -> Vec<usize> {
        let before = self.got.clone();
        for _ in 0..calls {
            self.now = self.now + MS;
            while let Some(Reverse((ends, place, is_test, began))) = self.under_way.peek().copied()
                && ends <= self.now
            {
                self.under_way.pop();
                let pick = Pick { place, is_test };
                self.nodes.judge(&self.names, pick, Verdict::Good, ends.since(began), ends);
                self.nodes.leave(&self.names, pick);
            }
            self.call(takes);
        }
        self.got.iter().zip(before).map(|(got, before)| got - before).collect()
    }

    fn call(&mut self, takes: &[Option<Duration>]) {
        let mut tried = Vec::new();
        while tried.len() < 2 {
            let Ok(pick) = self.nodes.pick(&self.names, &tried, self.now, &self.chance) else { break };
            tried.push(pick.place);
            self.got[pick.place] += 1;
            match takes[pick.place] {
                Some(takes) => {
                    // Nothing takes exactly as long as it takes.
                    let takes = takes / 2 + takes.mul_f64(self.chance.below(1000) as f64 / 1000.0);
                    self.under_way.push(Reverse((self.now + takes, pick.place, pick.is_test, self.now)));
                    return;
                }
                None => {
                    self.nodes.judge(&self.names, pick, Verdict::Bad, Duration::ZERO, self.now);
                    self.nodes.leave(&self.names, pick);
                }
            }
        }
        self.failed += 1;
    }
}

const QUICKLY: Option<Duration> = Some(Duration::from_millis(3));
const SLOWLY: Option<Duration> = Some(Duration::from_millis(500));

#[test]
fn equals_get_equal_shares() {
    for seed in 0..20 {
        let got = World::new(3, seed).run(9000, &[QUICKLY; 3]);
        assert!(got.iter().all(|got| (2000..4000).contains(got)), "{got:?}, seed {seed}");
    }
}

#[test]
fn a_slow_node_gets_few_calls_and_its_share_when_it_is_quick_again() {
    for seed in 0..20 {
        let mut world = World::new(3, seed);
        world.run(1000, &[QUICKLY; 3]);
        let got = world.run(10_000, &[QUICKLY, QUICKLY, SLOWLY]);
        assert!((1..100).contains(&got[2]), "less than one in a hundred: {got:?}, seed {seed}");
        world.run(20_000, &[QUICKLY; 3]);
        let got = world.run(3000, &[QUICKLY; 3]);
        assert!(got[2] > 600, "{got:?}, seed {seed}");
    }
}

#[test]
fn one_is_slow_and_another_one_goes_and_comes_in_turn() {
    for seed in 0..8 {
        let mut world = World::new(3, seed);
        for slow in (0..3).cycle().take(6) {
            let mut takes = [QUICKLY; 3];
            takes[slow] = SLOWLY;
            let gone = (slow + 1) % 3;
            let calm = world.run(2000, &takes);
            takes[gone] = None;
            let without = world.run(2000, &takes);
            assert!((1..40).contains(&without[gone]), "{without:?}, seed {seed}");
            takes[gone] = QUICKLY;
            let back = world.run(4000, &takes);
            assert!(back[gone] > 100, "it is back: {back:?}, seed {seed}");
            let slow = calm[slow] + without[slow] + back[slow];
            assert!(slow < 80, "less than one in a hundred waited: {slow}, seed {seed}");
        }
        assert_eq!(world.failed, 0, "seed {seed}");
    }
}

#[test]
fn when_only_the_slow_one_is_left_the_first_that_comes_back_takes_over() {
    for seed in 0..20 {
        let mut world = World::new(3, seed);
        world.run(1000, &[QUICKLY, QUICKLY, SLOWLY]);
        let got = world.run(3000, &[None, None, SLOWLY]);
        assert!(got[2] > 2900 && got[0] + got[1] < 60, "{got:?}, seed {seed}");
        let got = world.run(10_000, &[QUICKLY, None, SLOWLY]);
        assert!(
            got[0] > 5000,
            "it is back after as long again as it was gone, at most: {got:?}, seed {seed}"
        );
    }
}
