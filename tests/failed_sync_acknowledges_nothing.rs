//! A disk that fails behind its file system: what could not be synced is not acknowledged, the daemon lives and says that
//! it is not ready, and a start with a disk that works goes on with everything that was acknowledged.
//!
//! The data directory lies in an image of ext4 on a tmpfs that runs full behind it: the file system has given room away,
//! and then cannot write. fuse2fs serves it, as `mount` would need a loop device; it needs `fuse2fs` and `mkfs.ext4`.

mod common;

use common::content::{Rng, number_from};
use common::daemon::Started;
use common::http::{Trouble, request_bytes};
use common::small_disk::SmallDisk;
use common::{Answer, Conn, End, bytes_of, eventually, request};
use std::collections::{BTreeMap, BTreeSet};

/// A daemon on the disk.
struct Serving {
    started: Started,
    loom: String,
    admin: String,
}

impl Serving {
    fn on(disk: &SmallDisk) -> Self {
        let (started, ready) = disk.serve();
        let addr = |listener: &str| ready[listener].as_str().expect("it listens").to_owned();
        Serving { started, loom: addr("loom"), admin: addr("admin") }
    }

    fn post(&self, id: &str, content: u64, len: usize) -> Answer {
        request(&self.loom, "POST", &format!("/stream/{id}"), &[], &bytes_of(content, len))
    }

    fn get(&self, id: &str) -> Answer {
        request(&self.loom, "GET", &format!("/stream/{id}"), &[], b"")
    }

    /// An answer, unless the connection breaks off before its head: head and stored bytes leave together.
    fn try_get(&self, id: &str) -> Result<Answer, Trouble> {
        let mut conn = Conn::open(&self.loom);
        conn.send(request_bytes("GET", &format!("/stream/{id}"), &[], b""));
        conn.try_answer_to("GET")
    }

    fn delete(&self, id: &str) -> u16 {
        request(&self.loom, "DELETE", &format!("/stream/{id}"), &[], b"").status
    }

    fn readiness(&self) -> u16 {
        request(&self.admin, "GET", "/readyz", &[], b"").status
    }

    fn kill(mut self) {
        self.started.child.kill().expect("it runs");
        self.started.child.wait().expect("it ends");
    }
}

/// Whether the stream was promised: a 201 with the end of its answer.
fn is_stored(answer: &Answer) -> bool {
    answer.status == 201 && answer.end == End::LastChunk
}

/// `MILLPOND_OFFSETS=40` asks for more than a few, `MILLPOND_SEED` for others.
#[test]
fn what_a_failing_disk_did_not_take_is_not_acknowledged() {
    let offsets = number_from("MILLPOND_OFFSETS").unwrap_or(2);
    let seed = number_from("MILLPOND_SEED").unwrap_or(1);
    let mut rng = Rng::new(seed);
    let (mut acknowledged, mut refused, mut deleted, mut breaks, mut given_up) = (0, 0, 0, 0, 0);
    for round in 0..offsets {
        let told = format!("MILLPOND_SEED={seed}, offset {round}");
        let disk = SmallDisk::image(64);
        let mut serving = Serving::on(&disk);
        assert_eq!(serving.readiness(), 200, "{told}");
        disk.fill(rng.below(24 << 20));
        let mut stored: BTreeMap<String, (u64, usize)> = BTreeMap::new();
        let refusal = (0..80).find_map(|number| {
            let (id, content, len) = (format!("s{number}"), rng.next(), 1 + rng.below(1_500_000) as usize);
            let answer = serving.post(&id, content, len);
            if is_stored(&answer) {
                stored.insert(id, (content, len));
                return None;
            }
            Some((id, answer))
        });
        let (lost, answer) = refusal.unwrap_or_else(|| panic!("{told}: more fits than there is room"));
        acknowledged += stored.len();
        refused += 1;
        assert!([201, 503, 507].contains(&answer.status), "{told}: {}", answer.text());
        eventually("the daemon says that it is not ready", || (serving.readiness() == 503).then_some(()));

        // Whoever asks is answered, or cut where the disk gives nothing back. What it gives back now is not looked at: this
        // one answers reads with bytes of its own, and what the daemon wrote itself it trusts until it starts again.
        for id in stored.keys() {
            match serving.try_get(id) {
                Err(Trouble::Late) => panic!("{told}: {id} is not answered"),
                Ok(answer) => breaks += usize::from(answer.end == End::Cut),
                Err(_) => breaks += 1,
            }
        }
        let mut gone = BTreeSet::new();
        for id in stored.keys().step_by(2).cloned().collect::<Vec<_>>() {
            let status = serving.delete(&id);
            assert!([204, 503, 507].contains(&status), "{told}: a deletion was answered {status}");
            if status == 204 {
                stored.remove(&id);
                gone.insert(id);
            }
        }
        deleted += gone.len();
        let running = serving.started.child.try_wait().expect("waitable");
        assert!(running.is_none(), "{told}: the daemon ended with {running:?}");

        let is_writable = disk.empty();
        serving.kill();
        if !is_writable {
            given_up += 1;
            continue;
        }
        serving = Serving::on(&disk);
        assert_eq!(serving.readiness(), 200, "{told}: after a start");
        for (id, &(content, len)) in &stored {
            let answer = serving.get(id);
            let right = answer.status == 200 && answer.body == bytes_of(content, len);
            assert!(right, "{told}: {id} was acknowledged and is not what it was");
        }
        let left = serving.get(&lost);
        let complete = left.status == 200 && left.header("X-Stream-State") == Some("complete");
        assert!(!complete, "{told}: {lost} was refused, and passes for complete");
        for id in &gone {
            assert_eq!(serving.get(id).status, 404, "{told}: {id} was deleted");
        }
        for id in stored.keys() {
            assert_eq!(serving.delete(id), 204, "{told}: deleting {id}");
        }
        assert!(is_stored(&serving.post("again", 7, 1 << 20)), "{told}: there is room again");
        serving.kill();
    }
    println!(
        "MILLPOND_SEED={seed}: offsets {offsets}, acknowledged {acknowledged}, refused {refused}, deleted {deleted}, \
         broke off {breaks}, given up {given_up}"
    );
}
