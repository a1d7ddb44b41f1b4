//! One topic to 1,000 websockets, by micro's broker. Against Nchan in nginx, and NATS through websockets.

use std::io;

use super::{Bench, Goal, Side, peer};

const READERS: u64 = 1_000;
/// Messages that a publisher is ahead of its slowest subscriber, and those that leave together.
const WINDOW: u64 = 256;
const TOGETHER: u64 = 16;
/// Messages a second at which delays are compared: less than half of what the slower one can.
const RATE: u64 = 50;

/// As fast as all of them get everything, and at a fixed rate.
pub fn fan_out(bench: &mut Bench<'_>) -> io::Result<()> {
    bench.remark(format!(
        "{READERS} websockets subscribe to one topic; a message has 100 B. micro and Nchan get each by a POST, NATS in a \
         websocket; micro sends it as JSON with its header, about twice as long. As fast as they get them: the publisher is \
         at most {WINDOW} messages ahead of the slowest subscriber and sends {TOGETHER} at once. An operation is a message \
         to one subscriber."
    ));
    let pond = bench.pond(|setup| setup.dialects = &["micro"])?;
    let ours = pond.address("micro").expect("it is served").to_owned();
    let folder = bench.folder("nchan")?;
    let nchan = peer::nchan(bench, &folder)?;
    let nats = peer::nats_websockets(bench, &bench.folder("nats")?)?;
    let load = |address: &str, speaks: &str, words: &str| {
        format!("topic {address} --speaks {speaks} --readers {READERS} --record-size 100 {words}")
    };
    let most = format!("--window {WINDOW} --write-size {}", 100 * TOGETHER);
    let paced = format!("--rate {RATE}");
    let peers = [("Nchan", "nchan", &nchan, 3.0), ("NATS", "nats", &nats, 1.0)];
    for (name, speaks, peer, least) in peers {
        for (what, words) in [("as fast as they get them", &most), ("at a fixed rate", &paced)] {
            let goals = match words == &most {
                true => vec![Goal::at_least("operations/s", least), Goal::told("server CPU per operation")],
                false => {
                    vec![Goal::told("operations/s"), delays(name), Goal::told("server CPU per operation")]
                }
            };
            let sides = vec![
                Side::pond(&pond, load(&ours, "micro", words)),
                Side::peer(peer, name, load(peer.address(), speaks, words)),
            ];
            bench.compare(&format!("{READERS} subscribers {what}, {name}"), sides, &goals, false)?;
        }
    }
    Ok(())
}

/// NATS is what delays are held against.
fn delays(name: &str) -> Goal {
    if name == "NATS" { Goal::at_most("p99", 1.0) } else { Goal::told("p99") }
}
