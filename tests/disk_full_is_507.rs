//! A full disk is told with 507, costs nothing that was acknowledged, and is forgotten when there is room again.
//!
//! The daemon runs in a mount namespace of its own with a small tmpfs as data directory; both go with the test.

mod common;

use common::content::{Rng, number_from};
use common::daemon::Started;
use common::small_disk::SmallDisk;
use common::{Answer, End, bytes_of, eventually, request};
use std::collections::BTreeMap;

const STREAM: usize = 1 << 20;

#[test]
fn a_full_disk_is_told_loses_nothing_and_is_left_behind() {
    let disk = SmallDisk::plain(96);
    let (mut started, loom) = serve(&disk);

    let mut stored = Vec::new();
    let refusal = loop {
        let number = stored.len() as u64;
        assert!(number < 96, "96 MiB do not fit beside the journal");
        let answer = post(&loom, &format!("s{number}"), &bytes_of(number, STREAM));
        if !is_stored(&answer) {
            break answer;
        }
        stored.push(number);
    };
    assert!(!stored.is_empty(), "something fits");
    if refusal.status == 201 {
        assert!(refusal.text().contains("the disk is full"), "why it breaks off: {}", refusal.text());
    }
    // The one that ran out of space half way was cut; the next ones are refused before they begin.
    let refusal = if refusal.status == 507 { refusal } else { post(&loom, "late", b"x") };
    let refusal = if refusal.status == 507 { refusal } else { post(&loom, "later", &bytes_of(1, STREAM)) };
    assert_eq!(refusal.status, 507, "{}", refusal.text());
    assert!(refusal.text().contains("\"error\""), "{}", refusal.text());

    for &number in &stored {
        let answer = request(&loom, "GET", &format!("/stream/s{number}"), &[], b"").expect(200);
        assert!(answer.body == bytes_of(number, STREAM), "s{number} is whole");
    }

    for number in 0..=stored.len() {
        let status = request(&loom, "DELETE", &format!("/stream/s{number}"), &[], b"").status;
        assert!([204, 404].contains(&status), "deleting on a full disk: {status}");
    }
    for id in ["late", "later"] {
        request(&loom, "DELETE", &format!("/stream/{id}"), &[], b"");
    }
    let mut tries = 0;
    eventually("there is room again", || {
        tries += 1;
        is_stored(&post(&loom, &format!("again-{tries}"), &bytes_of(7, STREAM))).then_some(())
    });
    started.child.kill().expect("it runs");
    started.child.wait().expect("it ends");
}

/// Stores a stream, or as much of it as fits.
fn post(loom: &str, id: &str, body: &[u8]) -> Answer {
    request(loom, "POST", &format!("/stream/{id}"), &[], body)
}

/// Whether the stream was promised: a 201 with the end of its answer.
fn is_stored(answer: &Answer) -> bool {
    answer.status == 201 && answer.end == End::LastChunk
}

/// `millpond serve` on it; its loom address.
fn serve(disk: &SmallDisk) -> (Started, String) {
    let (started, ready) = disk.serve();
    (started, ready["loom"].as_str().expect("loom listens").to_owned())
}

/// `MILLPOND_OFFSETS=200` asks for more than a few, `MILLPOND_SEED` for others.
#[test]
fn space_runs_out_anywhere_and_nothing_acknowledged_is_lost() {
    let offsets = number_from("MILLPOND_OFFSETS").unwrap_or(5);
    let seed = number_from("MILLPOND_SEED").unwrap_or(1);
    let (mut rng, disk) = (Rng::new(seed), SmallDisk::plain(160));
    let (mut started, mut loom) = serve(&disk);
    let mut stored: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    let mut gone: Vec<String> = Vec::new();
    let (mut refused, mut acknowledged, mut deleted, mut restarts) = (0, 0, 0, 0);
    for round in 0..offsets {
        let told = format!("MILLPOND_SEED={seed}, offset {round}");
        disk.fill(rng.below(40 << 20));
        for number in 0..80 {
            let (id, content, len) =
                (format!("r{round}-{number}"), rng.next(), 1 + rng.below(1_500_000) as usize);
            let answer = post(&loom, &id, &bytes_of(content, len));
            if is_stored(&answer) {
                acknowledged += 1;
                stored.insert(id, (content, len));
                continue;
            }
            refused += 1;
            assert!([201, 507].contains(&answer.status), "{told}: {}", answer.text());
            // Nobody may take for complete what was not stored.
            let left = request(&loom, "GET", &format!("/stream/{id}"), &[], b"");
            let passes =
                left.header("X-Stream-State") == Some("complete") && left.body != bytes_of(content, len);
            assert!(!passes, "{told}: {id} was refused, and passes for complete");
            request(&loom, "DELETE", &format!("/stream/{id}"), &[], b"");
            break;
        }
        let running = started.child.try_wait().expect("waitable");
        assert!(running.is_none(), "{told}: the daemon ended with {running:?}");
        are_there(&loom, &stored, &told);
        let keep = rng.below(3) as usize;
        let goes: Vec<String> = stored.keys().take(stored.len().saturating_sub(keep)).cloned().collect();
        for id in goes {
            request(&loom, "DELETE", &format!("/stream/{id}"), &[], b"").expect(204);
            stored.remove(&id);
            deleted += 1;
            gone.push(id);
        }
        if rng.below(2) == 0 {
            restarts += 1;
            started.child.kill().expect("it runs");
            started.child.wait().expect("it ends");
            disk.empty();
            (started, loom) = serve(&disk);
        } else {
            disk.empty();
        }
        let mut tries = 0;
        eventually("there is room again", || {
            tries += 1;
            let id = format!("again-{round}-{tries}");
            let done = is_stored(&post(&loom, &id, &bytes_of(7, STREAM)));
            request(&loom, "DELETE", &format!("/stream/{id}"), &[], b"");
            done.then_some(())
        });
        are_there(&loom, &stored, &told);
        for id in gone.drain(..) {
            let status = request(&loom, "GET", &format!("/stream/{id}"), &[], b"").status;
            assert_eq!(status, 404, "{told}: {id} was deleted");
        }
    }
    println!(
        "MILLPOND_SEED={seed}: offsets {offsets}, acknowledged {acknowledged}, refused {refused}, deleted {deleted}, \
         restarts {restarts}"
    );
    started.child.kill().expect("it runs");
    started.child.wait().expect("it ends");
}

fn are_there(loom: &str, stored: &BTreeMap<String, (u64, usize)>, told: &str) {
    for (id, &(content, len)) in stored {
        let answer = request(loom, "GET", &format!("/stream/{id}"), &[], b"");
        assert!(
            answer.status == 200 && answer.body == bytes_of(content, len),
            "{told}: {id} is not what was stored"
        );
    }
}
