//! Kind 1: what is written to the FIFO arrives whole, and whoever writes never waits for somebody who is gone.

mod common;

use common::serpentine::{LONG, ask, connect, ends_silently, exactly, reset, rest};
use common::{Answer, Daemon, Setup, bytes_of, eventually, sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

fn daemon(output: &str) -> Daemon {
    Setup::default().serpentine(&format!("output = \"{output}\"")).start()
}

/// Asks for an output; the connection and the FIFO.
#[track_caller]
fn output(daemon: &Daemon) -> (TcpStream, PathBuf) {
    let mut stream = ask(daemon.serpentine(), 1);
    let path = path(&mut stream);
    (stream, path)
}

#[track_caller]
fn path(stream: &mut TcpStream) -> PathBuf {
    let len = exactly(stream, 1)[0];
    String::from_utf8(exactly(stream, len.into())).expect("a path is text").into()
}

/// Opens the FIFO as containerd's shim does: with a read end of its own, so that it is never told that nobody reads.
#[track_caller]
fn shim(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("the FIFO can be opened")
}

/// Opens it as a process does that only writes; at once or not at all.
fn plain(path: &Path) -> std::io::Result<File> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().write(true).custom_flags(nonblock).open(path)?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK)?;
    Ok(file)
}

#[track_caller]
fn kept(daemon: &Daemon, path: &Path) -> Answer {
    let name = path.file_name().expect("a name").to_str().expect("text");
    daemon.get(&format!("/stream/serpentine%2F{name}"))
}

/// Waits for the FIFO and everything beside it to be gone.
#[track_caller]
fn gone(daemon: &Daemon, path: &Path) {
    let dir = path.parent().expect("a directory");
    eventually("the FIFO goes", || (!path.exists()).then_some(()));
    daemon.wait_metric("millpond_outputs_open", |open| open == 0.0);
    assert_eq!(
        std::fs::read_dir(dir).expect("the directory stays").count(),
        0,
        "something stays in {}",
        dir.display()
    );
}

#[test]
fn output_arrives_whole_and_is_kept_under_the_name_of_its_fifo() {
    let daemon = daemon("block");
    for (seed, len) in [(1, 1), (2, 4096), (3, 5_000_000)] {
        let (stream, path) = output(&daemon);
        let metadata = std::fs::metadata(&path).expect("the FIFO is there");
        assert!(metadata.file_type().is_fifo());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let dir = std::fs::metadata(path.parent().expect("a directory")).expect("there");
        assert_eq!(dir.permissions().mode() & 0o777, 0o700);
        assert!(path.as_os_str().len() <= 127);
        let written = bytes_of(seed, len);
        let mut writer = plain(&path).expect("the FIFO is read");
        let writing = std::thread::spawn({
            let written = written.clone();
            move || written.chunks(4096).for_each(|chunk| writer.write_all(chunk).expect("taken"))
        });
        let received = rest(stream).expect("an end");
        writing.join().expect("written");
        assert!(!path.exists(), "the end came before the FIFO had gone");
        assert_eq!((received.len(), sha256(&received)), (len, sha256(&written)));
        let kept = kept(&daemon, &path);
        assert_eq!(kept.status, 200);
        assert_eq!(sha256(&kept.body), sha256(&written));
        assert_eq!(kept.header("X-Stream-State"), Some("complete"));
        gone(&daemon, &path);
    }
}

#[test]
fn a_writer_that_does_not_wait_always_finds_a_reader() {
    let daemon = daemon("block");
    for round in 0..40 {
        let (stream, path) = output(&daemon);
        let mut writer = plain(&path).unwrap_or_else(|error| panic!("round {round}: {error}"));
        writer.write_all(b"x").expect("taken");
        drop(writer);
        assert_eq!(rest(stream).expect("an end"), b"x");
    }
}

#[test]
fn the_end_comes_when_the_last_of_several_writers_has_closed() {
    let daemon = daemon("block");
    let (mut stream, path) = output(&daemon);
    let (mut one, mut two) = (shim(&path), plain(&path).expect("read"));
    one.write_all(b"one ").expect("taken");
    assert_eq!(exactly(&mut stream, 4), b"one ");
    drop(one);
    two.write_all(b"two").expect("taken");
    assert_eq!(exactly(&mut stream, 3), b"two");
    drop(two);
    assert_eq!(rest(stream).expect("an end"), b"");
}

/// The fault that hangs containers: the shim holds a read end of its own, so it never learns that nobody reads.
#[test]
fn a_client_that_crashes_does_not_hold_up_a_container() {
    for policy in ["block", "spool", "drop-oldest"] {
        let daemon = daemon(policy);
        let (mut stream, path) = output(&daemon);
        let written = bytes_of(4, 6_000_000);
        let mut writer = shim(&path);
        writer.write_all(&written[..1000]).expect("taken");
        assert_eq!(exactly(&mut stream, 1000), written[..1000]);
        reset(stream);
        let (done, written_all) = mpsc::sync_channel(1);
        let rest_of_it = written.clone();
        std::thread::spawn(move || {
            rest_of_it[1000..].chunks(4096).for_each(|chunk| writer.write_all(chunk).expect("taken"));
            drop(writer);
            done.send(()).expect("the test waits");
        });
        written_all
            .recv_timeout(LONG)
            .unwrap_or_else(|_| panic!("{policy}: the container hangs in its write"));
        gone(&daemon, &path);
        let kept = kept(&daemon, &path);
        assert_eq!((kept.body.len(), sha256(&kept.body)), (written.len(), sha256(&written)), "{policy}");
    }
}

#[test]
fn a_plain_writer_gets_no_broken_pipe_when_the_client_crashes() {
    let daemon = daemon("block");
    let (stream, path) = output(&daemon);
    let mut writer = plain(&path).expect("read");
    reset(stream);
    for _ in 0..200 {
        writer.write_all(&[b'x'; 4096]).expect("still read");
    }
    drop(writer);
    gone(&daemon, &path);
    assert_eq!(kept(&daemon, &path).body.len(), 200 * 4096);
}

#[test]
fn a_client_that_goes_before_anyone_writes_leaves_nothing() {
    let daemon = daemon("block");
    let (stream, path) = output(&daemon);
    reset(stream);
    gone(&daemon, &path);
    kept(&daemon, &path).expect(404);
}

#[test]
fn an_output_without_a_byte_vanishes_at_its_end() {
    let daemon = daemon("block");
    let (stream, path) = output(&daemon);
    drop(plain(&path).expect("read"));
    assert_eq!(rest(stream).expect("an end"), b"");
    gone(&daemon, &path);
    kept(&daemon, &path).expect(404);
}

#[test]
fn a_client_that_says_no_more_goes_on_receiving() {
    let daemon = daemon("block");
    let (mut stream, path) = output(&daemon);
    stream.shutdown(Shutdown::Write).expect("an end can be sent");
    let mut writer = plain(&path).expect("read");
    for _ in 0..20 {
        writer.write_all(b"still here").expect("taken");
        assert_eq!(exactly(&mut stream, 10), b"still here");
    }
    drop(writer);
    assert_eq!(rest(stream).expect("an end"), b"");
}

/// Closing with unread input resets the connection under what was sent last.
#[test]
fn what_the_client_sends_does_not_cut_the_tail_off() {
    let daemon = daemon("spool");
    let (mut stream, path) = output(&daemon);
    stream.write_all(&vec![b'?'; 300_000]).expect("read and dropped");
    let written = bytes_of(5, 1 << 20);
    let mut writer = shim(&path);
    writer.write_all(&written).expect("taken");
    stream.write_all(b"and more").expect("read and dropped");
    drop(writer);
    eventually("the output is over", || (!path.exists()).then_some(()));
    let received = rest(stream).expect("an end");
    assert_eq!((received.len(), sha256(&received)), (written.len(), sha256(&written)));
}

/// Fills an output until the writer waits for long, or `most` was taken; how much was.
fn fill(mut writer: File, most: usize) -> (Arc<AtomicU64>, std::thread::JoinHandle<()>) {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = taken.clone();
    let writing = std::thread::spawn(move || {
        for chunk in bytes_of(6, most).chunks(4096) {
            writer.write_all(chunk).expect("taken");
            counted.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    });
    (taken, writing)
}

/// Waits until nothing moved for a while.
fn settled(taken: &AtomicU64) -> u64 {
    eventually("it begins", || (taken.load(Ordering::Relaxed) > 0).then_some(()));
    let (mut last, mut since) = (taken.load(Ordering::Relaxed), Instant::now());
    while since.elapsed() < Duration::from_millis(400) {
        let now = taken.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        std::thread::yield_now();
    }
    last
}

#[test]
fn with_block_a_slow_client_holds_the_writer_and_loses_nothing() {
    let daemon = daemon("block");
    let (stream, path) = output(&daemon);
    let most = 48 << 20;
    let (taken, writing) = fill(shim(&path), most);
    let held = settled(&taken);
    assert!(held < 32 << 20, "nobody was held up: {held}");
    let received = rest(stream).expect("an end");
    writing.join().expect("written");
    assert_eq!((received.len(), sha256(&received)), (most, sha256(&bytes_of(6, most))));
    assert!(daemon.metrics().sum("millpond_output_blocked_seconds_count") > 0.0);
}

#[test]
fn with_spool_nobody_waits_and_nothing_is_lost() {
    let daemon = daemon("spool");
    let (stream, path) = output(&daemon);
    let most = 24 << 20;
    let (_, writing) = fill(shim(&path), most);
    writing.join().expect("written, though nobody reads");
    let received = rest(stream).expect("an end");
    assert_eq!((received.len(), sha256(&received)), (most, sha256(&bytes_of(6, most))));
}

#[test]
fn with_drop_oldest_nobody_waits_and_the_newest_arrive() {
    let daemon = daemon("drop-oldest");
    let (stream, path) = output(&daemon);
    let most = 24 << 20;
    let (_, writing) = fill(shim(&path), most);
    writing.join().expect("written, though nobody reads");
    eventually("the output is over", || (!path.exists()).then_some(()));
    let received = rest(stream).expect("an end");
    let written = bytes_of(6, most);
    assert!(received.len() < most && written.ends_with(&received[received.len() - (512 << 10)..]));
    let dropped = daemon.metrics().sum("millpond_output_dropped_bytes_total");
    assert_eq!(dropped, (most - received.len()) as f64);
    assert_eq!(sha256(&kept(&daemon, &path).body), sha256(&written), "the store has all of it");
}

/// The original stopped answering at 512.
#[test]
fn six_hundred_idle_outputs_and_one_more_is_answered() {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: own.maximum, ..own };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).expect("descriptors");
    let daemon = daemon("block");
    let mut idle: Vec<_> = (0..600).map(|_| output(&daemon)).collect();
    let (stream, path) = output(&daemon);
    plain(&path).expect("read").write_all(b"hello").expect("taken");
    assert_eq!(rest(stream).expect("an end"), b"hello");
    let (stream, path) = idle.swap_remove(300);
    plain(&path).expect("read").write_all(b"hello").expect("taken");
    assert_eq!(rest(stream).expect("an end"), b"hello");
    let dir = path.parent().expect("a directory").to_owned();
    drop(idle);
    // A client that closes is seen when something is written to it; these are found by the daemon's end.
    let count = std::fs::read_dir(&dir).expect("there").count();
    assert_eq!(count, 2 * 599, "a FIFO and its file each");
}

/// The original ended.
#[test]
fn descriptors_that_run_out_cost_the_newcomer_and_nobody_else() {
    let daemon = daemon("block");
    let (mut first, path) = output(&daemon);
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32);
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit { current: Some(80), ..own };
    let before = rustix::process::prlimit(pid, rustix::process::Resource::Nofile, few).expect("a limit");
    let waiting: Vec<TcpStream> = (0..60).map(|_| ask(daemon.serpentine(), 1)).collect();
    eventually("descriptors have run out", || {
        let log = daemon.log();
        (log.contains("accepting paused") || log.contains("no output for a client")).then_some(())
    });
    let mut writer = plain(&path).expect("read");
    writer.write_all(b"goes on").expect("taken");
    assert_eq!(exactly(&mut first, 7), b"goes on");
    drop(waiting);
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, before).expect("a limit");
    eventually("it serves again", || {
        let mut stream = ask(daemon.serpentine(), 1);
        stream.read_exact(&mut [0]).ok()
    });
    drop(writer);
    assert_eq!(rest(first).expect("an end"), b"");
}

#[test]
fn no_fifo_stays_where_no_client_can_have_it() {
    let daemon = daemon("block");
    let dir = common::daemon::fifos(&daemon.data_dir());
    for _ in 0..20 {
        // Gone before, while and after the FIFO is made.
        reset(ask(daemon.serpentine(), 1));
        let mut stream = connect(daemon.serpentine());
        stream.write_all(b"danger noodle").expect("sent");
        drop(stream);
    }
    daemon.wait_metric("millpond_outputs_open", |open| open == 0.0);
    let left = || std::fs::read_dir(&dir).map_or(0, Iterator::count);
    eventually("no FIFO is left", || (left() == 0).then_some(()));
}

#[test]
fn a_kind_that_is_not_served_makes_no_fifo() {
    let daemon = Setup::default().serpentine("kinds = [0]").start();
    assert!(ends_silently(ask(daemon.serpentine(), 1)));
    assert!(!common::daemon::fifos(&daemon.data_dir()).exists());
}

/// The lines of one writer, each with its number, from 0 on, with none missing and none twice.
#[track_caller]
fn assert_numbered(bytes: &[u8], lines: u64) {
    let mut next = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        assert_eq!(line, numbered(next).as_bytes(), "line {next}");
        next += 1;
    }
    assert_eq!(next, lines);
}

fn numbered(number: u64) -> String {
    format!("{number} {}\n", "x".repeat(number as usize % 300))
}

/// Kills while a process writes. `MILLPOND_KILLS` says how often.
#[test]
fn kills_while_a_container_writes_leave_no_gap_and_nothing_twice() {
    let kills = common::content::number_from("MILLPOND_KILLS").unwrap_or(6);
    let mut daemon = daemon("spool");
    let (stream, path) = output(&daemon);
    let mut writer = shim(&path);
    let (stop, stopped) = mpsc::sync_channel::<()>(1);
    let writing = std::thread::spawn(move || {
        let mut number = 0;
        while stopped.try_recv().is_err() {
            writer.write_all(numbered(number).as_bytes()).expect("the shim's own end is open");
            number += 1;
        }
        number
    });
    let mut rng = common::content::Rng::new(kills);
    let mut stored = 0;
    for kill in 0..kills {
        eventually("more is stored", || {
            let now = daemon.metrics().sum("millpond_output_bytes_total") as u64;
            (now > rng.next() % 400_000).then_some(())
        });
        daemon.restart();
        let length = kept_length(&daemon, &path);
        assert!(length >= stored, "kill {kill}: {stored} bytes were there, now {length}");
        stored = length;
        assert!(path.exists(), "kill {kill}: the FIFO goes on");
    }
    stop.send(()).expect("it writes");
    let lines = writing.join().expect("written");
    gone(&daemon, &path);
    let kept = kept(&daemon, &path);
    assert_eq!(kept.status, 200);
    assert_numbered(&kept.body, lines);
    drop(stream);
}

fn kept_length(daemon: &Daemon, path: &Path) -> u64 {
    let name = path.file_name().expect("a name").to_str().expect("text");
    let head = common::head(daemon.loom(), &format!("/stream/serpentine%2F{name}"));
    head.header("Stream-Next-Offset").expect("a length").parse().expect("a number")
}

#[test]
fn a_clean_restart_goes_on_with_the_output_too() {
    let mut daemon = daemon("block");
    let (stream, path) = output(&daemon);
    let mut writer = shim(&path);
    writer.write_all(b"before ").expect("taken");
    drop(stream);
    assert!(daemon.terminate().success());
    assert!(path.exists());
    writer.write_all(b"between ").expect("the pipe has room");
    daemon.restart();
    writer.write_all(b"after").expect("taken");
    drop(writer);
    gone(&daemon, &path);
    assert_eq!(kept(&daemon, &path).body, b"before between after");
}

/// Lets a process write `len` bytes to an output and end.
#[track_caller]
fn produced(daemon: &Daemon, len: usize) -> PathBuf {
    let (stream, path) = output(daemon);
    plain(&path).expect("read").write_all(&vec![b'x'; len]).expect("taken");
    assert_eq!(rest(stream).expect("an end").len(), len);
    path
}

#[test]
fn outputs_go_by_their_own_rule_and_streams_of_loom_by_theirs() {
    let setup = |loom: &str, serpentine: &str| Setup::default().loom(loom).serpentine(serpentine);
    let retention = |max_bytes: &str| format!("retention = {{ max_bytes = \"{max_bytes}\" }}");
    let mut daemon = setup(&retention("1000B"), &retention("1000B")).start();
    common::post(daemon.loom(), "a", &[b'x'; 600]).expect(201).whole();
    let first = produced(&daemon, 600);
    // Together they are too much, each alone is not. The second output makes too much of outputs.
    let second = produced(&daemon, 600);
    eventually("the older output goes", || (kept(&daemon, &first).status == 404).then_some(()));
    assert_eq!(kept(&daemon, &second).expect(200).body.len(), 600);
    daemon.get("/stream/a").expect(200);
    // And the other way round.
    common::post(daemon.loom(), "b", &[b'x'; 600]).expect(201).whole();
    eventually("the older stream goes", || (daemon.get("/stream/a").status == 404).then_some(()));
    daemon.get("/stream/b").expect(200);
    kept(&daemon, &second).expect(200);
    // Another rule holds without a restart, and after one.
    daemon.reload_with(setup(&retention("1000B"), &retention("500B")));
    eventually("no output is left", || (kept(&daemon, &second).status == 404).then_some(()));
    daemon.get("/stream/b").expect(200);
    assert!(!daemon.own_log().contains("needs a restart"), "{}", daemon.own_log());
    daemon.restart_with(setup(&retention("600B"), &retention("1000B")));
    produced(&daemon, 600);
    daemon.get("/stream/b").expect(200);
}

#[test]
fn each_quota_counts_its_own_bytes() {
    let quota = "quota = \"1000B\"";
    let daemon = Setup::default().loom(quota).serpentine(quota).start();
    let path = produced(&daemon, 1000);
    common::post(daemon.loom(), "a", &[b'x'; 1000]).expect(201).whole();
    common::post(daemon.loom(), "b", b"x").expect(507);
    assert_eq!(kept(&daemon, &path).expect(200).body.len(), 1000);
    assert!(ends_silently(ask(daemon.serpentine(), 1)), "an output was begun beyond the quota");
}
