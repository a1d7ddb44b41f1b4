//! Small fixed answers: what a request costs when there is next to nothing to say. Against nginx.

use std::io;

use super::{Bench, Goal, Side, peer};

/// On one connection, on few, on many.
pub fn answers(bench: &mut Bench<'_>) -> io::Result<()> {
    let cases: [(u32, &[Goal]); 3] = [
        (1, &[Goal::told("operations/s"), Goal::told("p50"), Goal::told("server CPU per operation")]),
        (
            8,
            &[Goal::at_least("operations/s", 1.2), Goal::told("p50"), Goal::told("server CPU per operation")],
        ),
        (64, &[Goal::at_least("operations/s", 1.15), Goal::at_most("server CPU per operation", 0.85)]),
    ];
    for (connections, goals) in cases {
        compare(
            bench,
            &format!("{connections} connections"),
            &format!("--connections {connections}"),
            goals,
            true,
        )?;
    }
    Ok(())
}

/// Many requests under way on each connection.
pub fn pipelined(bench: &mut Bench<'_>) -> io::Result<()> {
    let goals = [Goal::at_least("operations/s", 8.0), Goal::told("server CPU per operation")];
    compare(bench, "16 connections, 16 deep", "--connections 16 --pipeline 16", &goals, false)
}

/// Six bytes that both make without looking anywhere.
fn compare(bench: &mut Bench<'_>, case: &str, words: &str, goals: &[Goal], paced: bool) -> io::Result<()> {
    let pond = bench.pond(|_| {})?;
    let folder = bench.folder("nginx")?;
    let nginx = peer::nginx(bench, &folder, None)?;
    let admin = pond.address("admin").expect("every daemon has one");
    let load = |address: &str| format!("http http://{address}/livez --expect-length 6 {words}");
    let sides = vec![Side::pond(&pond, load(admin)), Side::peer(&nginx, "nginx", load(nginx.address()))];
    bench.compare(case, sides, goals, paced)
}
