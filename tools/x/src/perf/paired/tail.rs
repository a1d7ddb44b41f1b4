//! One stream to many live readers. Against NATS core, which keeps nothing.

use std::io;

use super::{Bench, Goal, Side, peer};

/// 100 readers at 5,000 messages a second.
pub fn fan_out(bench: &mut Bench<'_>) -> io::Result<()> {
    let pond = bench.pond(|_| {})?;
    let folder = bench.folder("nats")?;
    let nats = peer::nats(bench, &folder)?;
    bench.remark(
        "Both sides are offered 500,000 deliveries/s of 100 B. millpond stores and syncs what it delivers, NATS core \
         forgets it. Delays begin when a record was due.",
    );
    let flow = "--readers 100 --rate 5000 --record-size 100";
    let sides = vec![
        Side::pond(&pond, format!("stream tail http://{} {flow}", pond.loom())),
        Side::peer(&nats, "NATS", format!("nats fanout {} {flow}", nats.address())),
    ];
    let goals = [Goal::told("operations/s"), Goal::told("p99"), Goal::told("server CPU per operation")];
    bench.compare("100 readers at 5000/s", sides, &goals, false)?;
    let load = format!("stream tail http://{} {flow}", pond.loom());
    bench.alone(
        "deliveries of 100 readers",
        Side::pond(&pond, load),
        &[Goal::at_least("operations/s", 400e3)],
    )
}
