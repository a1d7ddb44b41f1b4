//! What a name costs in memory, counted by the allocator and not by what the kernel says about the process.
//!
//! There are as many names as make most parts of the table grow: just then a name costs the most.
//! Invariant: nothing else allocates meanwhile, so this file has one test.

#[path = "../benches/meter/mod.rs"]
mod meter;

use meter::held;
use meter::store::Bench;
use millpond::storage::{End, Key, LogId, Part, Parts, Store};
use std::rc::Rc;

/// 60 of them in each of 256 parts, which have room for 56 before they grow.
const NAMES: usize = 256 * 60;
/// Names that are put before anything is waited for.
const AT_ONCE: usize = 1024;
/// What is kept beside a blob that came without headers: the length of its entity tag, and an MD5 as the tag.
const TAG: &[u8] = b"\x20d41d8cd98f00b204e9800998ecf8427e";
const SMALL: usize = 1000;

#[test]
fn a_name_costs_what_the_readme_says() {
    let bench = Bench::new();
    let blob = per_name(&bench, put_blobs);
    let stream = per_name(&bench, put_streams);
    println!("beside its key: {blob:.0} bytes for a small blob, {stream:.0} for a finished stream");
    assert!(blob < 200.0, "{blob:.0} bytes for the name of a small blob, beside its key");
    assert!(stream < 480.0, "{stream:.0} bytes for a finished stream, beside its name");
}

/// Bytes for each name beyond the bytes of its key.
fn per_name(bench: &Bench, put: fn(&Bench, Vec<Key>)) -> f64 {
    let before = held();
    let mut key_bytes = 0;
    for first in (0..NAMES).step_by(AT_ONCE) {
        let keys: Vec<Key> = (first..NAMES.min(first + AT_ONCE)).map(key).collect();
        key_bytes += keys.iter().map(|key| key.bytes.len()).sum::<usize>();
        put(bench, keys);
    }
    (held() - before - key_bytes as u64) as f64 / NAMES as f64
}

fn key(number: usize) -> Key {
    let scattered = (number as u32).wrapping_mul(0x9e37_79b1);
    Key::new(9, format!("photos\0{scattered:08x}/{number}.jpg").as_bytes())
}

/// Small blobs lie in packs, each a part of one body.
fn put_blobs(bench: &Bench, keys: Vec<Key>) {
    let store = bench.store.clone();
    bench.block_on(async move {
        let (body, mut appender) = store.new_body().expect("a body");
        appender.append_all(&vec![7; keys.len() * SMALL]).await.expect("append");
        store.commit_body(&body, appender).await.expect("commit");
        let mut last = None;
        for (number, key) in keys.into_iter().enumerate() {
            let part = Part::new(body.clone(), (number * SMALL) as u64, SMALL as u64);
            let put = store.links().put(key, TAG.into(), Parts::One(part), u64::MAX).expect("put");
            last = Some(put.expect("there is room").ticket);
        }
        store.names().synced(last.expect("some were put")).await.expect("synced");
    });
}

fn put_streams(bench: &Bench, keys: Vec<Key>) {
    let store = bench.store.clone();
    bench.block_on(async move {
        for key in keys {
            put_stream(&store, key).await;
        }
        let last = store.names().put(key(NAMES), LogId(0), "".into()).expect("put").1;
        store.names().synced(last).await.expect("synced");
    });
}

async fn put_stream(store: &Rc<Store>, key: Key) {
    let (entry, _) = store.names().put(key, LogId(0), "".into()).expect("put");
    let mut appender = store.appender(&entry.tail).expect("attach");
    appender.append_all(&[7; SMALL]).await.expect("append");
    appender.seal(End::Complete).await.expect("seal");
}
