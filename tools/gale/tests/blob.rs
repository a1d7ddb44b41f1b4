//! `gale blob`: every byte that is read is the right one, or the run says which is not.

mod common;

use common::{
    gale,
    store::{Sin, store},
};

#[test]
fn a_right_store_passes_in_every_way_of_writing() {
    for words in [
        "",
        "--read-share 0 --sizes 100-3000",
        "--read-share 100 --key-order zipf",
        "--sizes 10KiB-100KiB --connections 3 --threads 2",
        "--sizes 10KiB-100KiB --parts 30KiB --read-share 20",
        "--access-key someone --secret-key secret --payload signed --sizes 10-40KiB --parts 16KiB",
        "--access-key someone --secret-key secret --exists",
        "--rate 2000",
    ] {
        let address = store(Sin::None);
        let words = format!("blob http://{address}/c --keys 20 --requests 200 --read-back {words}");
        let ended = gale(&words).passed();
        assert_eq!(ended.measure("operations"), 200.0, "{words}");
        assert!(ended.measure("p50") > 0.0 && ended.measure("payload_per_s") > 0.0, "{words}");
    }
}

#[test]
fn what_was_filled_before_is_read_with_the_same_seed_alone() {
    let address = store(Sin::None);
    let run = |words: &str| {
        gale(&format!("blob http://{address}/c --keys 10 --requests 30 --sizes 100-900 {words}"))
    };
    run("--seed 7").passed();
    run("--seed 7 --filled --read-share 100").passed();
    assert!(run("--seed 8 --filled --read-share 100").faults("length") > 0);
}

#[test]
fn a_store_that_changes_cuts_forgets_or_refuses_is_found() {
    for (sin, words, kind, says) in [
        (Sin::Changes, "", "bytes", "/c/00000005: byte 7 is not the expected one"),
        (Sin::Cuts, "", "length", "99 bytes instead of 100"),
        (Sin::Forgets, "", "status 404", "GET /c/00000005: gone"),
        (Sin::Refuses, "--read-share 0", "status 503", "PUT /c/00000005: busy"),
        (Sin::LosesPart, "--parts 40", "length", "80 bytes instead of 100"),
        (Sin::Changes, "--read-share 0 --read-back", "bytes", "byte 7 is not the expected one"),
    ] {
        let address = store(sin);
        let words = format!("blob http://{address}/c --keys 10 --sizes 100 --requests 100 {words}");
        gale(&words).failed(kind, says);
    }
    let late = gale(&format!(
        "blob http://{}/c --keys 10 --sizes 100 --parts 40 --requests 10",
        store(Sin::FailsLate)
    ));
    assert!(late.code == Some(1) && late.err.contains("the parts were not put together"), "{late:#?}");
}

#[test]
fn whoever_is_not_the_one_who_may_is_told() {
    let address = store(Sin::None);
    let ended = gale(&format!("blob http://{address}/c --access-key nobody --secret-key x --requests 10"));
    assert!(ended.code == Some(1) && ended.err.contains("not signed"), "{ended:#?}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (words, says) in [
        ("http://127.0.0.1:1/", "http://host:port/container"),
        ("http://127.0.0.1:1/a/b", "http://host:port/container"),
        ("http://127.0.0.1:1/c --payload signed", "--access-key"),
        ("http://127.0.0.1:1/c --access-key a", "--secret-key"),
        ("http://127.0.0.1:1/c --sizes 2-1", "1KiB-1MiB"),
        ("http://127.0.0.1:1/c --read-share 101", "0..=100"),
        ("http://127.0.0.1:1/c --connections 1 --threads 2", "too few"),
    ] {
        let ended = gale(&format!("blob {words}"));
        assert!(ended.code == Some(2) && ended.err.contains(says), "{words}: {ended:#?}");
    }
}
