//! A name whose record is damaged answers with an error, and replacing or deleting it puts it right for good. What
//! was found is told by `/readyz` and `/metrics`; everything else is served.

mod common;

use common::damage::{flip, flip_in};
use common::http::request;
use common::{Daemon, Setup, bytes_of, error_of, get, post};

/// Streams with metadata, of which each is in one journal record, and then a stream that stays whole.
fn written(ids: &[&str]) -> Daemon {
    let mut daemon = Setup::default().shards(1).start();
    for id in ids {
        let metadata = format!("{{\"mark\":\"of {id}\"}}");
        let target = format!("/stream/{id}");
        let headers = [("X-Stream-Metadata", metadata.as_str())];
        request(daemon.loom(), "POST", &target, &headers, &bytes_of(1, 1000)).expect(201);
    }
    // Its records say that what came before is durable.
    for last in ["whole", "last"] {
        post(daemon.loom(), last, &bytes_of(2, 1000)).expect(201);
    }
    daemon.kill9();
    daemon
}

#[track_caller]
fn damage(daemon: &Daemon, id: &str) {
    let count = flip_in(&daemon.data_dir(), format!("\"of {id}\"").as_bytes());
    assert_eq!(count, 1, "{id} stands in one record");
}

fn readiness(daemon: &Daemon) -> String {
    let text = get(daemon.admin(), "/readyz").expect(200).text().to_owned();
    text.lines().find(|line| line.contains("damage:")).expect("a line about damage").to_owned()
}

#[test]
fn force_and_delete_work_on_a_damaged_name() {
    let mut daemon = written(&["replaced", "deleted", "build-7-x"]);
    for id in ["replaced", "deleted", "build-7-x"] {
        damage(&daemon, id);
    }
    daemon.restart();
    assert_eq!(daemon.get("/stream/whole").expect(200).body, bytes_of(2, 1000));
    assert!(
        readiness(&daemon).starts_with("[!] damage: 3 names, 3 journal records"),
        "{}",
        readiness(&daemon)
    );
    assert_eq!(daemon.metrics().sum("millpond_names_damaged"), 3.0);
    assert_eq!(daemon.metrics().sum("millpond_records_damaged_total"), 3.0);
    for id in ["replaced", "deleted", "build-7-x"] {
        let refused = daemon.get(&format!("/stream/{id}")).expect(500);
        assert!(error_of(&refused).contains("replacing or deleting"), "{refused:?}");
        let refused = post(daemon.loom(), id, b"not without force").expect(500);
        assert!(error_of(&refused).contains("damaged"), "{refused:?}");
    }

    post(daemon.loom(), "replaced?force=true", b"new").expect(201);
    request(daemon.loom(), "DELETE", "/stream/deleted", &[], b"").expect(204);
    request(daemon.loom(), "DELETE", "/stream/build-7-x", &[], b"").expect(204);
    for restarts in 0..3 {
        assert_eq!(daemon.get("/stream/replaced").expect(200).body, b"new", "after {restarts} restarts");
        daemon.get("/stream/deleted").expect(404);
        daemon.get("/stream/build-7-x").expect(404);
        assert_eq!(daemon.metrics().sum("millpond_names_damaged"), 0.0);
        daemon.restart();
    }
    post(daemon.loom(), "deleted", b"begins anew").expect(201);
    assert_eq!(daemon.get("/stream/deleted").expect(200).body, b"begins anew");
}

/// Catches a lost mark of the stream before that is held against the one after.
#[test]
fn a_name_that_was_put_right_stays_right_without_a_byte() {
    let mut daemon = written(&["victim"]);
    // The end mark of `victim` is the record whose window checksum is that of its bytes.
    let crc = crc32fast::hash(&bytes_of(1, 1000)).to_le_bytes();
    assert!(flip_in(&daemon.data_dir(), &crc) > 0, "its marks");
    daemon.restart();
    assert!(readiness(&daemon).starts_with("[!] damage: 1 names"), "{}", readiness(&daemon));
    let producer = common::Producer::begin_at(daemon.loom(), "/stream/victim?force=true", &[]);
    assert_eq!(producer.head.status, 201);
    // Answered once the name is committed.
    common::head(daemon.loom(), "/stream/victim").expect(200);
    daemon.kill9();
    daemon.restart();
    let found = daemon.get("/stream/victim").expect(200);
    assert_eq!((found.body.len(), found.header("x-stream-state")), (0, Some("interrupted")));
    assert_eq!(daemon.metrics().sum("millpond_names_damaged"), 0.0);
}

#[test]
fn reads_of_damaged_bytes_are_counted_and_told() {
    let mut daemon = Setup::default().shards(1).start();
    post(daemon.loom(), "hit", &bytes_of(7, 300_000)).expect(201);
    post(daemon.loom(), "whole", &bytes_of(8, 300_000)).expect(201);
    daemon.kill9();
    let bulk = common::damage::files(&daemon.data_dir().join("bulk-0")).remove(0);
    let content = std::fs::read(&bulk).expect("readable");
    let at = memchr::memmem::find(&content, &bytes_of(7, 64)).expect("the stream's bytes");
    flip(&bulk, at as u64 + 20, 0);
    daemon.restart();
    assert_eq!(readiness(&daemon), "[+] damage: none", "nobody has looked yet");
    daemon.get("/stream/hit").expect(500);
    assert!(readiness(&daemon).contains("1 reads of damaged bytes"), "{}", readiness(&daemon));
    assert_eq!(daemon.metrics().sum("millpond_windows_damaged_total"), 1.0);
    assert!(daemon.get("/stream/whole").expect(200).body == bytes_of(8, 300_000));
    post(daemon.loom(), "hit?force=true", b"new").expect(201);
    assert_eq!(daemon.get("/stream/hit").expect(200).body, b"new");
}
