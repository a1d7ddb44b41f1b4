//! Kind 65: standard output and standard error come apart, in frames, and what is kept of them has views.

mod common;

use common::serpentine::{Frame, LONG, ask, demux, exactly, frames, reset, rest};
use common::{Answer, Daemon, Setup, bytes_of, eventually};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

fn daemon(output: &str) -> Daemon {
    Setup::default().serpentine(&format!("output = \"{output}\"")).start()
}

/// Asks for an output: the connection and the two FIFOs.
#[track_caller]
fn output(daemon: &Daemon) -> (TcpStream, [PathBuf; 2]) {
    let mut stream = ask(daemon.serpentine(), 65);
    let paths = [(); 2].map(|()| {
        let len = exactly(&mut stream, 1)[0];
        PathBuf::from(String::from_utf8(exactly(&mut stream, len.into())).expect("a path is text"))
    });
    (stream, paths)
}

/// Opens a FIFO as containerd's shim does: with a read end of its own.
#[track_caller]
fn shim(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("the FIFO can be opened")
}

#[track_caller]
fn plain(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).expect("the FIFO can be opened")
}

/// Where an output is kept.
fn url(path: &Path, query: &str) -> String {
    format!("/stream/serpentine%2F{}{query}", path.file_stem().expect("a name").to_str().expect("text"))
}

#[track_caller]
fn view(daemon: &Daemon, path: &Path, query: &str) -> Vec<u8> {
    let Answer { status, body, .. } = daemon.get(&url(path, query));
    assert_eq!(status, 200, "{query}: {}", String::from_utf8_lossy(&body));
    body
}

#[track_caller]
fn gone(daemon: &Daemon, paths: &[PathBuf; 2]) {
    daemon.wait_metric("millpond_outputs_open", |open| open == 0.0);
    let dir = paths[0].parent().expect("a directory");
    eventually("everything goes", || {
        (std::fs::read_dir(dir).expect("the directory stays").count() == 0).then_some(())
    });
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

/// A shell that writes to both, run as any process is.
fn shell(script: &str, paths: &[PathBuf; 2]) -> std::process::Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(plain(&paths[0])).stderr(plain(&paths[1]));
    command.spawn().expect("a shell")
}

#[test]
fn the_two_streams_come_apart_and_the_end_says_how_it_was() {
    let daemon = daemon("block");
    let (stream, paths) = output(&daemon);
    for path in &paths {
        let metadata = std::fs::metadata(path).expect("the FIFO is there");
        assert!(metadata.file_type().is_fifo() && path.as_os_str().len() <= 127);
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
    let began = now_ns();
    let script = "i=0; while [ $i -lt 400 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; printf tail";
    let mut child = shell(script, &paths);
    let received = rest(stream).expect("an end");
    assert!(child.wait().expect("it ends").success());
    let frames = frames(&received);
    let lines = |word: &str| (0..400).map(|number| format!("{word} {number}\n")).collect::<String>();
    let (out, err) = (lines("out") + "tail", lines("err"));
    assert_eq!(demux(&frames), (out.clone().into_bytes(), err.clone().into_bytes()));
    assert!(frames.iter().map(|frame| frame.at_ns).is_sorted(), "in the order in which they were taken");
    assert!(frames[0].at_ns >= began - 60_000_000_000 && frames[0].at_ns <= now_ns());
    for frame in frames.iter().filter(|frame| frame.source < 3 && !frame.bytes.is_empty()) {
        assert_eq!(frame.is_partial(), !frame.bytes.ends_with(b"\n"), "{frame:?}");
    }
    for source in [1, 2] {
        let ends = frames.iter().filter(|frame| frame.source == source && frame.is_end()).count();
        assert_eq!(ends, 1, "stream {source} ends once");
    }
    let end = frames.last().expect("frames").end();
    assert_eq!(end, (out.len() as u64, err.len() as u64, 0, 1));
    gone(&daemon, &paths);

    // And as it is kept.
    assert_eq!(demux(&common::serpentine::frames(&view(&daemon, &paths[0], ""))), demux(&frames));
    assert_eq!(view(&daemon, &paths[0], "?view=raw&stream=stdout"), out.as_bytes());
    assert_eq!(view(&daemon, &paths[0], "?view=raw&stream=stderr"), err.as_bytes());
    assert_eq!(view(&daemon, &paths[0], "?view=raw").len(), out.len() + err.len());
    assert_eq!(docker(&view(&daemon, &paths[0], "?view=docker")), (out.clone(), err.clone()));
    let cri = String::from_utf8(view(&daemon, &paths[0], "?view=cri")).expect("text");
    let of = |name: &str| -> String {
        let lines = cri.lines().filter_map(|line| {
            let (time, rest) = line.split_once(' ').expect("a time");
            assert!(time.len() == 30 && time.ends_with('Z') && time.contains('T'), "{line}");
            rest.strip_prefix(name)?.strip_prefix(" F ")
        });
        lines.map(|line| format!("{line}\n")).collect()
    };
    assert_eq!((of("stdout"), of("stderr")), (out.clone() + "\n", err.clone()));
    let json = String::from_utf8(view(&daemon, &paths[0], "?view=json")).expect("text");
    let json: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |name: &str| -> String {
        let lines = json.iter().filter(|line| line["stream"] == name);
        lines.map(|line| line["log"].as_str().expect("text")).collect()
    };
    assert_eq!((of("stdout"), of("stderr")), (out.clone(), err.clone()));
    let end = &json.last().expect("lines")["end"];
    assert_eq!((end["reason"].as_str(), end["stdout"].as_u64()), (Some("closed"), Some(out.len() as u64)));
    let page = daemon.metrics();
    for (name, bytes) in [("stdout", out.len()), ("stderr", err.len())] {
        assert_eq!(page.sum_where("millpond_output_bytes_total", &[("stream", name)]), bytes as f64);
    }
}

/// Demultiplexes as docker's client does: eight bytes of header, the fifth to eighth of them a length.
fn docker(mut bytes: &[u8]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = bytes.split_at_checked(8) {
        let len = u32::from_be_bytes(head[4..].try_into().expect("four bytes")) as usize;
        assert_eq!(head[1..4], [0, 0, 0]);
        let to = if head[0] == 1 { &mut out } else { &mut err };
        to.extend_from_slice(&rest[..len]);
        bytes = &rest[len..];
    }
    assert!(bytes.is_empty());
    (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
}

#[test]
fn a_view_follows_what_grows_and_ends_with_it() {
    let daemon = daemon("block");
    let (stream, paths) = output(&daemon);
    let (mut out, err) = (plain(&paths[0]), plain(&paths[1]));
    out.write_all(b"first\n").expect("taken");
    let follower = std::thread::spawn({
        let (addr, url) = (daemon.loom().to_owned(), url(&paths[0], "?view=cri"));
        move || common::get(&addr, &url)
    });
    daemon.wait_metric("millpond_followers_live", |live| live >= 2.0);
    out.write_all(b"second\n").expect("taken");
    drop((out, err));
    let followed = String::from_utf8(follower.join().expect("it reads").body).expect("text");
    let texts: Vec<&str> = followed.lines().map(|line| line.rsplit(' ').next().expect("text")).collect();
    assert_eq!(texts, ["first", "second"]);
    assert_eq!(demux(&frames(&rest(stream).expect("an end"))).0, b"first\nsecond\n");
}

#[test]
fn what_has_no_frames_has_no_views_and_wrong_wishes_are_refused() {
    let daemon = daemon("block");
    let posted = common::request(daemon.loom(), "POST", "/stream/plain", &[], b"text");
    assert_eq!(posted.status, 201);
    daemon.get("/stream/plain?view=raw").expect(400);
    let (stream, paths) = output(&daemon);
    let mut writer = plain(&paths[0]);
    writer.write_all(b"x").expect("taken");
    for query in ["?view", "?view=xml", "?view=raw&stream=stdin", "?view=raw&offset=5"] {
        daemon.get(&url(&paths[0], query)).expect(400);
    }
    daemon.get(&url(&paths[0], "?view=raw&offset=16384")).expect(416);
    drop(stream);
}

#[test]
fn large_output_comes_whole_on_both_at_once() {
    let daemon = daemon("block");
    let (stream, paths) = output(&daemon);
    let writers = [(1, 3_000_000), (2, 2_000_001)].map(|(seed, len)| {
        let mut fifo = shim(&paths[seed as usize - 1]);
        std::thread::spawn(move || {
            let bytes = bytes_of(seed, len);
            bytes.chunks(4096).for_each(|chunk| fifo.write_all(chunk).expect("taken"));
            bytes
        })
    });
    let received = frames(&rest(stream).expect("an end"));
    let [out, err] = writers.map(|writer| writer.join().expect("written"));
    assert!(demux(&received) == (out, err));
    assert_eq!(received.last().expect("frames").end(), (3_000_000, 2_000_001, 0, 1));
    gone(&daemon, &paths);
    // Who begins at a later block finds frames, and how much there was before.
    let rest = frames(&view(&daemon, &paths[0], "?offset=1638400"));
    assert!(rest[0].source == 3 && rest[0].totals().0 + rest[0].totals().1 > 1_500_000);
}

#[test]
fn a_client_that_is_gone_holds_nobody_up_and_the_end_says_so() {
    let daemon = daemon("block");
    let (stream, paths) = output(&daemon);
    let (mut out, mut err) = (shim(&paths[0]), shim(&paths[1]));
    reset(stream);
    let (done, written) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for _ in 0..500 {
            out.write_all(&[b'o'; 4096]).expect("taken");
            err.write_all(&[b'e'; 1000]).expect("taken");
        }
        done.send(()).expect("the test waits");
    });
    written.recv_timeout(LONG).expect("nobody hangs");
    gone(&daemon, &paths);
    let kept = frames(&view(&daemon, &paths[0], ""));
    assert_eq!(kept.last().expect("frames").end(), (500 * 4096, 500 * 1000, 0, 2));
}

#[test]
fn who_is_slow_is_given_whole_frames_and_told_what_it_missed() {
    let daemon = daemon("drop-oldest");
    let (stream, paths) = output(&daemon);
    let (mut out, mut err) = (shim(&paths[0]), shim(&paths[1]));
    let line = [&[b'x'; 1023][..], b"\n"].concat();
    for _ in 0..20_000 {
        out.write_all(&line).expect("nobody waits");
    }
    err.write_all(b"last\n").expect("taken");
    drop((out, err));
    eventually("the output is over", || (!paths[0].exists() && !paths[1].exists()).then_some(()));
    let received = frames(&rest(stream).expect("an end"));
    let missed: u64 = received.iter().filter_map(Frame::gap).sum();
    assert!(missed > 1 << 20, "a gap is told");
    assert_eq!(received.last().expect("frames").end(), (20_000 * 1024, 5, missed, 1));
    let (out, err) = demux(&received);
    assert!(out.len() > 1 << 19 && out.len() < 20_000 * 1024 && err == b"last\n");
    let dropped = daemon.metrics().sum("millpond_output_dropped_bytes_total");
    assert_eq!(dropped, missed as f64);
    let (kept, _) = demux(&frames(&view(&daemon, &paths[0], "")));
    assert_eq!(kept.len(), 20_000 * 1024, "the store has all of it");
}

#[test]
fn one_of_the_two_may_stay_unused() {
    let daemon = daemon("block");
    let (stream, paths) = output(&daemon);
    let mut out = plain(&paths[0]);
    out.write_all(b"alone\n").expect("taken");
    drop(out);
    eventually("the FIFO that is over goes at once", || (!paths[0].exists()).then_some(()));
    assert!(paths[1].exists(), "somebody may open it yet");
    stream.shutdown(Shutdown::Write).expect("an end can be sent");
    let received = frames(&rest(stream).expect("an end"));
    assert_eq!(demux(&received), (b"alone\n".to_vec(), Vec::new()));
    assert_eq!(received.last().expect("frames").end(), (6, 0, 0, 1));
    gone(&daemon, &paths);
}

#[test]
fn nothing_stays_of_an_output_without_a_byte() {
    let daemon = daemon("block");
    let (stream, unused) = output(&daemon);
    reset(stream);
    gone(&daemon, &unused);
    daemon.get(&url(&unused[0], "")).expect(404);
    let (stream, paths) = output(&daemon);
    drop((plain(&paths[0]), plain(&paths[1])));
    assert_eq!(frames(&rest(stream).expect("an end")).last().expect("frames").end(), (0, 0, 0, 1));
    gone(&daemon, &paths);
    daemon.get(&url(&paths[0], "")).expect(404);
}

/// Kills while a process writes to both. `MILLPOND_KILLS` says how often.
#[test]
fn kills_cut_no_frame_and_lose_and_double_nothing() {
    let kills = common::content::number_from("MILLPOND_KILLS").unwrap_or(4);
    let mut daemon = daemon("spool");
    let (stream, paths) = output(&daemon);
    let (mut out, mut err) = (shim(&paths[0]), shim(&paths[1]));
    let (stop, stopped) = mpsc::sync_channel::<()>(1);
    let writing = std::thread::spawn(move || {
        let mut number = 0;
        while stopped.try_recv().is_err() {
            out.write_all(line(number).as_bytes()).expect("the shim's own end is open");
            err.write_all(line(number * 3).as_bytes()).expect("the shim's own end is open");
            number += 1;
        }
        number
    });
    let mut rng = common::content::Rng::new(kills);
    for kill in 0..kills {
        eventually("more is stored", || {
            let now = daemon.metrics().sum("millpond_output_bytes_total") as u64;
            (now > rng.next() % 400_000).then_some(())
        });
        daemon.restart();
        assert!(paths[0].exists() && paths[1].exists(), "kill {kill}: the FIFOs go on");
    }
    stop.send(()).expect("it writes");
    let lines: u64 = writing.join().expect("written");
    gone(&daemon, &paths);
    let kept = frames(&view(&daemon, &paths[0], ""));
    let (out, err) = demux(&kept);
    let expected = |step: u64| (0..lines).map(|number| line(number * step)).collect::<String>();
    assert!(out == expected(1).as_bytes(), "stdout has {} bytes", out.len());
    assert!(err == expected(3).as_bytes(), "stderr has {} bytes", err.len());
    assert_eq!(kept.last().expect("frames").end(), (out.len() as u64, err.len() as u64, 0, 3));
    drop(stream);
}

fn line(number: u64) -> String {
    format!("{number} {}\n", "x".repeat(number as usize % 300))
}
