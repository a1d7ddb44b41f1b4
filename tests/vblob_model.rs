//! Random histories of vblob, with crashes, against a map: what was answered is what is there, listed and read alike.

mod common;

use std::collections::BTreeMap;

use common::content::Rng;
use common::vblob::{elements, put};
use common::{Daemon, Setup, bytes_of, get, request, sha256};

/// Keys that sort and fold in every way: few enough to meet again.
const KEYS: [&str; 14] =
    ["a", "a/", "a/b", "a/b/c", "a//", "a0", "b", "b/1", "b/2", "b/3", "c-d", "c.d", "cd", "d/e/f"];

/// What a file has: seed and length of its bytes, and a mark in its metadata.
type Model = BTreeMap<&'static str, (u64, usize, String)>;

struct History {
    rng: Rng,
    model: Model,
    next: u64,
}

impl History {
    fn key(&mut self) -> &'static str {
        KEYS[self.rng.below(KEYS.len() as u64) as usize]
    }

    /// One random change, in both.
    fn change(&mut self, addr: &str) {
        let key = self.key();
        let target = format!("/box/{key}");
        match self.rng.below(10) {
            0..6 => {
                self.next += 1;
                let bound = [1, 2_000, 20_000, 700_000][self.rng.below(4) as usize];
                let (seed, len, mark) = (self.next, self.rng.below(bound) as usize, self.next.to_string());
                put(addr, &target, &[("x-blb-meta-mark", &mark)], &bytes_of(seed, len)).expect(200);
                self.model.insert(key, (seed, len, mark));
            }
            6..8 => {
                request(addr, "DELETE", &target, &[], b"").expect(204);
                self.model.remove(key);
            }
            _ => {
                let from = self.key();
                let (source, mark) = (format!("/box/{from}"), format!("copy-{}", self.next));
                let fields = [
                    ("x-blb-copy-from", source.as_str()),
                    ("x-blb-metadata-copy-or-replace", "REPLACE"),
                    ("x-blb-meta-mark", &mark),
                ];
                let answer = request(addr, "PUT", &target, &fields, b"");
                match self.model.get(from).cloned() {
                    Some((seed, len, _)) => {
                        answer.expect(200);
                        self.model.insert(key, (seed, len, mark));
                    }
                    None => assert_eq!(answer.status, 404, "{from} to {key}"),
                }
            }
        }
    }

    fn compare_one(&mut self, addr: &str) {
        let key = self.key();
        let answer = get(addr, &format!("/box/{key}")).whole();
        match self.model.get(key) {
            Some((seed, len, mark)) => {
                assert_eq!(
                    (answer.status, answer.header("x-blb-meta-mark")),
                    (200, Some(mark.as_str())),
                    "{key}"
                );
                assert_eq!(sha256(&answer.body), sha256(&bytes_of(*seed, *len)), "{key}");
            }
            None => assert_eq!(answer.status, 404, "{key}"),
        }
    }

    fn compare_listing(&mut self, addr: &str) {
        let prefix = ["", "a", "a/", "b/", "c"][self.rng.below(5) as usize];
        let limit = 1 + self.rng.below(6) as usize;
        let (mut listed, mut marker) = (Vec::new(), String::new());
        loop {
            let page =
                get(addr, &format!("/box?prefix={prefix}&marker={marker}&max-keys={limit}")).expect(200);
            let sizes = elements(page.text(), "Size").into_iter().map(str::to_owned);
            listed.extend(elements(page.text(), "Key").into_iter().map(str::to_owned).zip(sizes));
            match elements(page.text(), "NextMarker").first() {
                Some(next) => marker = (*next).to_owned(),
                None => break,
            }
        }
        let there = self.model.iter().filter(|(key, _)| key.starts_with(prefix));
        let expected: Vec<_> = there.map(|(key, (_, len, _))| ((*key).to_owned(), len.to_string())).collect();
        assert_eq!(listed, expected, "{prefix:?} by {limit}");
    }

    fn compare_all(&mut self, addr: &str) {
        for _ in 0..40 {
            self.compare_one(addr);
        }
        (0..6).for_each(|_| self.compare_listing(addr));
    }
}

fn history(seed: u64, durability: &'static str) {
    eprintln!("seed {seed:#x}, {durability}");
    let mut daemon: Daemon = Setup::default().shards(3).durability(durability).vblob("").start();
    request(daemon.vblob(), "PUT", "/box", &[], b"").expect(200);
    let mut history = History { rng: Rng::new(seed), model: Model::new(), next: seed << 32 };
    for round in 0..4 {
        for _ in 0..60 {
            history.change(daemon.vblob());
            history.compare_one(daemon.vblob());
            if history.rng.below(6) == 0 {
                history.compare_listing(daemon.vblob());
            }
        }
        match round % 2 {
            0 => daemon.kill9(),
            _ => assert!(daemon.terminate().success()),
        }
        daemon.restart();
        history.compare_all(daemon.vblob());
    }
}

#[test]
fn a_history_with_crashes_is_what_a_map_says() {
    history(0x5eed_0b01, "sync");
}

#[test]
fn so_it_is_from_the_page_cache() {
    history(0x5eed_0b02, "cache");
}
