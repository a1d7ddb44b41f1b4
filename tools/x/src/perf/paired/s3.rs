//! Objects over S3, every request signed in version 4. Against s3s-fs, a server of files that speaks S3.

use std::{fs, io};

use super::{Bench, Goal, Side, peer};

const ID: &str = "millpond";
const SECRET: &str = "a-secret-that-is-known-to-everybody";

/// What is measured, size, keys, further words for gale, goals.
type Case = (&'static str, &'static str, u32, &'static str, Vec<Goal>);

/// Objects of 1 KiB on 64 connections.
pub fn small(bench: &mut Bench<'_>) -> io::Result<()> {
    let goals = || {
        vec![Goal::at_least("operations/s", 5.0), Goal::told("server CPU per operation"), Goal::told("p99")]
    };
    let cases: Vec<Case> = vec![
        ("GET 1 KiB", "1KiB", 500, "--read-share 100 --connections 64", goals()),
        ("PUT 1 KiB", "1KiB", 500, "--read-share 0 --connections 64", goals()),
        (
            "PUT 1 KiB, bodies signed",
            "1KiB",
            500,
            "--read-share 0 --connections 64 --payload signed",
            goals(),
        ),
        ("80 % GET of 1 KiB to 64 KiB", "1KiB-64KiB", 500, "--read-share 80 --connections 64", goals()),
    ];
    compare(bench, cases)
}

/// Objects of 64 MiB on 4 connections.
pub fn large(bench: &mut Bench<'_>) -> io::Result<()> {
    let goals = |least| vec![Goal::at_least("payload/s", least), Goal::told("server CPU per GiB")];
    let cases: Vec<Case> = vec![
        ("GET 64 MiB", "64MiB", 4, "--read-share 100 --connections 4", goals(1.0)),
        // Both make the MD5 that is the entity tag.
        ("PUT 64 MiB", "64MiB", 4, "--read-share 0 --connections 4", goals(1.3)),
        (
            "PUT 64 MiB in parts of 8 MiB",
            "64MiB",
            4,
            "--read-share 0 --connections 4 --parts 8MiB",
            goals(1.3),
        ),
    ];
    compare(bench, cases)
}

fn compare(bench: &mut Bench<'_>, cases: Vec<Case>) -> io::Result<()> {
    let folder = bench.folder("s3")?;
    let config = folder.join("millpond.toml");
    fs::write(&config, format!("[s3]\naccess_keys = [{{ id = \"{ID}\", secret = \"{SECRET}\" }}]\n"))?;
    let pond = bench.pond(|setup| {
        setup.config = Some(config);
        setup.dialects = &["s3"];
        setup.durability = "cache";
    })?;
    let s3s = peer::s3s_fs(&bench.folder("s3/files")?, ID, SECRET)?;
    bench.remark(
        "Class: acknowledged from the page cache; millpond syncs every 100 ms what it acknowledged, s3s-fs leaves it to the \
         kernel. Every request is signed; bodies are covered by the signature where a case says so. s3s-fs runs with one \
         worker. An upload in parts is one operation. gale compares every byte of every read, and after a case reads all \
         keys back on both sides.",
    );
    for (case, sizes, keys, words, goals) in cases {
        if !bench.is_wanted(case) {
            continue;
        }
        // Lengths are part of a bucket's name, so that no case reads what another wrote.
        let bucket = sizes.to_lowercase();
        let load = |address: &str| {
            format!(
                "blob http://{address}/{bucket} --access-key {ID} --secret-key {SECRET} --sizes {sizes} --keys {keys} \
                 --timeout 60s {words}"
            )
        };
        let loads = [pond.address("s3").expect("it is served"), s3s.address()].map(load);
        for load in &loads {
            bench.once(&format!("{load} --requests 1"))?;
        }
        let [ours, theirs] = loads.clone().map(|load| format!("{load} --filled --exists"));
        let sides = vec![Side::pond(&pond, ours), Side::peer(&s3s, "s3s-fs", theirs)];
        bench.compare(case, sides, &goals, false)?;
        for load in &loads {
            bench.once(&format!("{load} --filled --exists --requests 1 --read-back"))?;
        }
    }
    Ok(())
}
