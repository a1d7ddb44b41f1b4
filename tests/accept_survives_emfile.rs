//! When descriptors run out, accepting pauses, what is connected goes on, and who waited is served later.

mod common;

use common::daemon::{Started, scratch};
use common::http::request_bytes;
use common::{Conn, eventually};
use std::process::Command;

#[test]
fn running_out_of_descriptors_pauses_accepting_and_loses_nobody() {
    let dir = scratch();
    let mut command = Command::new("prlimit");
    // Enough for the daemon and some forty connections; the admin listener alone would take more than twice that.
    command.arg("--nofile=64:64").arg(env!("CARGO_BIN_EXE_millpond")).arg("serve");
    command.args([
        "--shards",
        "1",
        "--admin-listen",
        "127.0.0.1:0",
        "--loom-listen",
        "127.0.0.1:0",
        "--vblob-listen",
        "127.0.0.1:0",
        "--micro-listen",
        "127.0.0.1:0",
        "--s3-listen",
        "127.0.0.1:0",
        "--ion-listen",
        "127.0.0.1:0",
        "--serpentine-listen",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    command.arg(dir.path().join("data"));
    let mut started = Started::spawn(command, &dir.path().join("log"));
    let line = started.ready_line().unwrap_or_else(|| panic!("not ready:\n{}", started.log()));
    let ready: serde_json::Value = serde_json::from_str(&line).expect("a ready line");
    let admin = ready["admin"].as_str().expect("admin listens");

    let get = request_bytes("GET", "/livez", &[], b"");
    let mut first = Conn::open(admin);
    first.send(&get);
    first.answer().expect(200);
    let mut waiting: Vec<Conn> = (0..100).map(|_| Conn::open(admin)).collect();
    waiting.iter_mut().for_each(|conn| conn.send(&get));
    eventually("accepting pauses", || started.log().contains("accepting paused").then_some(()));

    first.send(&get);
    first.answer().expect(200);
    for mut conn in waiting {
        // Each that was answered and closed makes room for one that waits in the backlog.
        conn.answer().expect(200);
    }
    started.child.kill().expect("it runs");
    started.child.wait().expect("it ends");
}
