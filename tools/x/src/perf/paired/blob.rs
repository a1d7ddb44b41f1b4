//! Files of all sizes through vblob, read and written over many keys. Against nginx: static files, and its DAV module.

use std::{fs, io, path::Path};

use super::{Bench, Goal, Side, peer, read};
use crate::daemon::Daemon;

/// Size in gale's words, keys, connections, goals.
type Case = (&'static str, u32, u32, Vec<Goal>);

/// Files that are in memory, from one send to a gibibyte.
pub fn get(bench: &mut Bench<'_>) -> io::Result<()> {
    let small = |least, cpu| {
        vec![Goal::at_least("operations/s", least), Goal::at_most("server CPU per operation", cpu)]
    };
    let long = || vec![Goal::at_least("payload/s", 1.0), Goal::at_most("server CPU per GiB", 1.0)];
    let cases: Vec<Case> = vec![
        ("1KiB", 500, 64, small(1.5, 0.6)),
        ("1KiB", 500, 8, small(1.25, 0.8)),
        ("1KiB", 500, 1, vec![Goal::at_most("p50", 1.0), Goal::told("server CPU per operation")]),
        ("64KiB", 100, 64, small(1.0, 1.0)),
        ("64MiB", 8, 4, long()),
        ("1GiB", 1, 1, long()),
    ];
    let pond = store(bench)?;
    let folder = bench.folder("nginx")?;
    let www = bench.folder("nginx/www/files")?;
    let nginx = peer::nginx(bench, &folder, Some("cubic"))?;
    bench.remark(
        "Congestion control of both servers: cubic. Keys are chosen at random with a seed; every file has the same seeded \
         bytes, and gale has checked all of them on both sides before. Up to 64 KiB each answer's checksum is compared in \
         the rounds too, above that its length, and the kernel drops the bytes unread.",
    );
    for (size, keys, connections, goals) in cases {
        let case = format!("GET {size}, {connections} connections");
        if !bench.is_wanted(&case) {
            continue;
        }
        let urls = [pond.address("vblob").expect("it is served"), nginx.address(), nginx.other_address()]
            .map(|address| files(address, size));
        put_all(bench, &urls[0], size, keys)?;
        copies(&pond, &www, size, keys)?;
        for url in &urls {
            check_all(bench, url, size, keys)?;
        }
        let check = match size.ends_with("KiB") {
            true => format!("--expect-seeded {size}"),
            false => format!("--expect-length {size} --check length --discard"),
        };
        let load = |url: &str| format!("http {url} --keys {keys} --connections {connections} {check}");
        let sides = vec![
            Side::pond(&pond, load(&urls[0])),
            Side::peer(&nginx, "nginx, sendfile", load(&urls[1])),
            Side::peer(&nginx, "nginx, no sendfile", load(&urls[2])),
        ];
        bench.compare(&case, sides, &goals, size == "1KiB" && connections == 64)?;
    }
    Ok(())
}

/// Files that are replaced again and again.
pub fn put(bench: &mut Bench<'_>) -> io::Result<()> {
    let small = |least, cpu| vec![Goal::at_least("operations/s", least), cpu, Goal::told("p99")];
    let cpu = Goal::told("server CPU per operation");
    let cases: Vec<Case> = vec![
        ("1KiB", 1_000, 64, small(3.0, Goal::at_most("server CPU per operation", 0.4))),
        ("64KiB", 500, 16, small(5.0, cpu)),
        ("64MiB", 8, 4, vec![Goal::at_least("payload/s", 2.5), Goal::told("server CPU per GiB")]),
    ];
    let pond = store(bench)?;
    let folder = bench.folder("dav")?;
    bench.folder("dav/www/files")?;
    let nginx = peer::nginx_dav(bench, &folder)?;
    bench.remark(
        "Class: acknowledged from the page cache; millpond syncs every 100 ms what it acknowledged, nginx leaves it to the \
         kernel. millpond keeps checksums over all bytes and makes the MD5 that is the entity tag, nginx makes neither. Keys are chosen at random with a seed and are all there before; gale reads all of them back \
         after a case, on both sides, and compares every byte.",
    );
    for (size, keys, connections, goals) in cases {
        let case = format!("PUT {size}, {connections} connections");
        if !bench.is_wanted(&case) {
            continue;
        }
        let urls = [pond.address("vblob").expect("it is served"), nginx.address()]
            .map(|address| files(address, size));
        for url in &urls {
            put_all(bench, url, size, keys)?;
        }
        let load = |url: &str| {
            format!("http {url} --method PUT --body-size {size} --keys {keys} --connections {connections}")
        };
        let sides = vec![Side::pond(&pond, load(&urls[0])), Side::peer(&nginx, "nginx DAV", load(&urls[1]))];
        bench.compare(&case, sides, &goals, size == "1KiB")?;
        for url in &urls {
            check_all(bench, url, size, keys)?;
        }
    }
    Ok(())
}

/// A daemon with the container `files`.
fn store(bench: &mut Bench<'_>) -> io::Result<Daemon> {
    let pond = bench.pond(|setup| {
        setup.dialects = &["vblob"];
        setup.durability = "cache";
    })?;
    let url = format!("http://{}/files", pond.address("vblob").expect("it is served"));
    bench.once(&format!("http {url} --method PUT --connections 1 --requests 1"))?;
    Ok(pond)
}

/// The files of a size at this address.
fn files(address: &str, size: &str) -> String {
    format!("http://{address}/files/{size}-{{key}}")
}

fn put_all(bench: &Bench<'_>, url: &str, size: &str, keys: u32) -> io::Result<()> {
    in_sequence(bench, url, keys, &format!("--method PUT --body-size {size}"))
}

fn check_all(bench: &Bench<'_>, url: &str, size: &str, keys: u32) -> io::Result<()> {
    in_sequence(bench, url, keys, &format!("--expect-seeded {size} --check full"))
}

/// One request to each key.
fn in_sequence(bench: &Bench<'_>, url: &str, keys: u32, words: &str) -> io::Result<()> {
    bench.once(&format!(
        "http {url} --keys {keys} --key-order sequence --requests {keys} --connections 1 --timeout 60s {words}"
    ))
}

/// The same files for a peer.
fn copies(pond: &Daemon, www: &Path, size: &str, keys: u32) -> io::Result<()> {
    let first = www.join(format!("{size}-0"));
    read::saved(pond.address("vblob").expect("it is served"), &format!("/files/{size}-0"), &first)?;
    (1..keys).try_for_each(|key| fs::copy(&first, www.join(format!("{size}-{key}"))).map(drop))
}
