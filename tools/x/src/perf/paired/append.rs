//! Records into streams, from the page cache to the disk. Against redis, whose streams are written with XADD, and NATS
//! JetStream.

use std::io;

use super::{Bench, Goal, Side, peer};

/// Acknowledged from the page cache; peers sync in the background as well.
pub fn cached(bench: &mut Bench<'_>) -> io::Result<()> {
    let pond = bench.pond(|setup| setup.durability = "cache")?;
    let load = format!(
        "stream append http://{} --record-size 100 --write-size 64KiB --producers 1 --cached",
        pond.loom()
    );
    let goals = |ratio| [Goal::at_least("operations/s", ratio), Goal::told("server CPU per operation")];
    bench.remark(
        "Class: acknowledged from the page cache. millpond syncs every 100 ms, redis every second (`appendfsync \
         everysec`), JetStream every two minutes. Records of 100 B from one producer; of redis and NATS 256 wait for \
         their acknowledgement.",
    );
    {
        let folder = bench.folder("redis")?;
        let redis = peer::redis(bench, &folder, "everysec")?;
        let words = format!("redis xadd {} --record-size 100 --producers 1 --pipeline 256", redis.address());
        let sides = vec![Side::pond(&pond, load.clone()), Side::peer(&redis, "redis", words)];
        bench.compare("page cache, redis XADD", sides, &goals(8.0), false)?;
    }
    let folder = bench.folder("nats")?;
    let nats = peer::nats(bench, &folder)?;
    let words = format!("nats jetstream {} --record-size 100 --producers 1 --window 256", nats.address());
    let sides = vec![Side::pond(&pond, load.clone()), Side::peer(&nats, "JetStream", words)];
    bench.compare("page cache, JetStream", sides, &goals(5.0), false)?;
    let most = [Goal::at_least("operations/s", 10e6)];
    bench.alone("page cache, records/s", Side::pond(&pond, load), &most)
}

/// Acknowledged once on the disk.
pub fn synced(bench: &mut Bench<'_>) -> io::Result<()> {
    let pond = bench.pond(|setup| setup.durability = "sync")?;
    let folder = bench.folder("redis")?;
    let redis = peer::redis(bench, &folder, "always")?;
    let url = format!("http://{}", pond.loom());
    bench.remark(
        "Class: acknowledged when synced to the disk; redis with `appendfsync always`. Records of 100 B from 16 \
         producers.",
    );
    let ours = format!("stream append {url} --record-size 100 --producers 16 --write-size 64KiB");
    let theirs = format!("redis xadd {} --record-size 100 --producers 16 --pipeline 256", redis.address());
    let goals = [Goal::at_least("operations/s", 5.0), Goal::told("server CPU per operation")];
    let sides = vec![Side::pond(&pond, ours), Side::peer(&redis, "redis", theirs)];
    bench.compare("synced, as fast as taken", sides, &goals, false)?;

    bench.remark(
        "One at a time: each producer waits until its record is on the disk before it sends the next one. For millpond \
         each record is a stream of its own, with a name.",
    );
    let ours = format!("stream append {url} --record-size 100 --producers 16 --synced streams");
    let theirs = format!("redis xadd {} --record-size 100 --producers 16", redis.address());
    let goals = [Goal::told("operations/s"), Goal::told("p50"), Goal::told("server CPU per operation")];
    let sides = vec![Side::pond(&pond, ours), Side::peer(&redis, "redis", theirs)];
    bench.compare("synced, one at a time", sides, &goals, false)?;

    bench.remark("200 MB/s: 2,000,000 records/s of one producer, in writes of 64 KiB; `HEAD` asks every 200 us what is durable.");
    let paced = format!(
        "stream append {url} --record-size 100 --producers 1 --write-size 64KiB --rate 2000000 --poll-durable 200us"
    );
    bench.alone("synced at 200 MB/s", Side::pond(&pond, paced), &[Goal::at_most("p50", 1000.0)])
}
