//! A full disk is told with 507, costs nothing that was acknowledged, and is forgotten when there is room again.
//!
//! The daemon runs in a mount namespace of its own with a small tmpfs as data directory; both go with the process.

mod common;

use common::daemon::{Started, scratch};
use common::{Answer, End, bytes_of, eventually, request};
use std::process::Command;

const STREAM: usize = 1 << 20;

/// `millpond serve` on a file system of `mib` MiB; its loom address.
fn on_a_small_disk(dir: &std::path::Path, mib: u32) -> (Started, String) {
    let data = dir.join("data");
    std::fs::create_dir(&data).expect("a directory");
    let config = dir.join("millpond.toml");
    let toml = format!(
        "data_dir = \"{}\"\nshards = 1\nsegment_size = \"16MiB\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [loom]\nlisten = \"127.0.0.1:0\"\n[serpentine]\nenabled = false\n",
        data.display()
    );
    std::fs::write(&config, toml).expect("the configuration can be written");
    let mut command = Command::new("unshare");
    let root = rustix::process::geteuid().is_root();
    command.arg(if root { "-m" } else { "-rm" }).args(["sh", "-c"]);
    command.arg(format!("mount -t tmpfs -o size={mib}m none \"$0\" && exec \"$@\"")).arg(&data);
    command.arg(env!("CARGO_BIN_EXE_millpond")).arg("serve").arg("--config").arg(&config);
    let mut started = Started::spawn(command, &dir.join("log"));
    let line = started.ready_line().unwrap_or_else(|| panic!("not ready:\n{}", started.log()));
    let ready: serde_json::Value = serde_json::from_str(&line).expect("a ready line");
    (started, ready["loom"].as_str().expect("loom listens").to_owned())
}

#[test]
fn a_full_disk_is_told_loses_nothing_and_is_left_behind() {
    let dir = scratch();
    let (mut started, loom) = on_a_small_disk(dir.path(), 96);

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
