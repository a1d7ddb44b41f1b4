//! Requests of 1 KiB that are passed on to a service and answered with 1 KiB, by micro's proxy. Against HAProxy in HTTP
//! mode and Envoy.
//!
//! Behind every proxy stands the same server that does next to nothing, on the load's core.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
};

use super::{
    Bench, Goal, Side,
    joined::Backend,
    peer::{self, Peer},
};

/// On 1, 16 and 64 connections.
pub fn on(bench: &mut Bench<'_>) -> io::Result<()> {
    for connections in [1, 16, 64] {
        for (name, least) in [("HAProxy", 1.1), ("Envoy", 2.5)] {
            let goals = match connections {
                1 => [Goal::told("p50"), Goal::told("server CPU per operation")],
                _ => [Goal::at_least("operations/s", least), Goal::told("server CPU per operation")],
            };
            compare(bench, name, connections, &goals)?;
        }
    }
    Ok(())
}

fn compare(bench: &mut Bench<'_>, name: &str, connections: u32, goals: &[Goal]) -> io::Result<()> {
    let case = format!("1 KiB, {connections} connections, {name}");
    if !bench.is_wanted(&case) {
        return Ok(());
    }
    let backend = Backend::start_with(bench.root, "serve-http", "127.0.0.1:0", &["--body-size", "1KiB"])?;
    let folder = bench.folder(&format!("called-{name}-{connections}"))?;
    let config = folder.join("millpond.toml");
    fs::write(
        &config,
        "[net]\nloopback_congestion = \"\"\n[micro]\nhandler = \"proxy\"\nnamespace = \"ns\"\n",
    )?;
    let pond = bench.pond(|setup| {
        setup.config = Some(config);
        setup.dialects = &["micro"];
    })?;
    let ours = pond.address("micro").expect("it is served").to_owned();
    register(&ours, &backend.address)?;
    let theirs = proxy(bench, name, &folder, &backend.address)?;
    let line = |address: &str| {
        format!(
            "http http://{address}/web/echo --method POST --body-size 1KiB --expect-length 1KiB --connections {connections}"
        )
    };
    let sides = vec![Side::pond(&pond, line(&ours)), Side::peer(&theirs, name, line(theirs.address()))];
    bench.compare(&case, sides, goals, connections == 16)
}

/// Has the backend be the one node of `ns.web`.
fn register(micro: &str, backend: &str) -> io::Result<()> {
    let service = format!(r#"{{"name":"ns.web","nodes":[{{"id":"web-1","address":"{backend}"}}]}}"#);
    let mut stream = TcpStream::connect(micro)?;
    write!(
        stream,
        "POST /registry HTTP/1.1\r\nHost: {micro}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{service}",
        service.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(io::Error::other(format!("the backend was not registered: {answer}"))),
    }
}

fn proxy(bench: &Bench<'_>, name: &str, folder: &std::path::Path, backend: &str) -> io::Result<Peer> {
    match name {
        "HAProxy" => peer::haproxy_http(bench, folder, backend),
        _ => peer::envoy(bench, folder, backend),
    }
}
