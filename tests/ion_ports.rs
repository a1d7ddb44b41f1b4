//! Ports of single modules, which come and go while the daemon serves: with the configuration, and with registrations.

mod common;

use common::ion::{admin, ask, module, refused};
use common::{Conn, Daemon, Setup, eventually, json_of};
use serde_json::Value;

const WITH_TOKEN: &[(&str, &str)] =
    &[("Host", "a"), ("Authorization", "Bearer t-1"), ("Content-Type", "application/json")];

fn setup(modules: &[(&str, &str)]) -> Setup {
    let modules: String = modules.iter().map(|(name, listen)| module(name, listen)).collect();
    Setup::default().shards(2).admin_listen("\"127.0.0.1:0\"\ntokens = [\"t-1\"]").ion(&modules)
}

/// Where a module is served by itself, as the admin listener says.
fn addresses(daemon: &Daemon, event: &str) -> Vec<String> {
    let listed = json_of(&admin(daemon, "GET", "/ion/modules", WITH_TOKEN, "").expect(200));
    let modules = listed["modules"].as_array().expect("a list");
    let of = modules.iter().find(|module| module["event_id"] == event).map(|module| &module["listen"]);
    let text = |address: &Value| address.as_str().expect("an address").to_owned();
    of.and_then(Value::as_array).map(|all| all.iter().map(text).collect()).unwrap_or_default()
}

fn registration(secret: &str, listen: &str) -> String {
    format!(
        "{{\"name\":\"r\",\"parent_event_id\":\"p\",\"correlation_id\":\"c\",\"secret\":\"{secret}\",\"listen\":{listen}}}"
    )
}

/// Nobody listens there any more.
fn refuses(address: &str) {
    eventually("the port is closed", || std::net::TcpStream::connect(address).is_err().then_some(()));
}

/// On every shard: connections go to any.
fn serves(address: &str, secret: &str) {
    for _ in 0..8 {
        ask(address, secret, "GET", "/self/blobs", b"").expect(200);
    }
}

#[test]
fn a_reload_opens_closes_and_keeps_ports() {
    let own = "listen = \"127.0.0.1:0\"";
    let mut daemon = setup(&[("stays", own), ("goes", own), ("shared", "")]).start();
    let (stays, goes) = (addresses(&daemon, "stays"), addresses(&daemon, "goes"));
    assert_eq!(daemon.ready()["ion.module"], serde_json::json!([goes[0], stays[0]]));
    let mut kept = Conn::open(&goes[0]);
    kept.send("GET /self/blobs HTTP/1.1\r\nHost: a\r\nsecret: goes\r\n\r\n");
    kept.answer().expect(200);
    daemon.reload_with(setup(&[("stays", own), ("goes", ""), ("shared", ""), ("comes", own)]));
    let comes = eventually("a port is opened", || addresses(&daemon, "comes").first().cloned());
    serves(&comes, "comes");
    refused(&ask(&comes, "stays", "GET", "/self/blobs", b""), 401);
    assert_eq!(addresses(&daemon, "stays"), stays, "the kernel was not asked for another one");
    serves(&stays[0], "stays");
    refuses(&goes[0]);
    serves(daemon.ion(), "goes");
    // Who was connected there has an answer: the port is of no module now.
    kept.send("GET /self/blobs HTTP/1.1\r\nHost: a\r\nsecret: goes\r\n\r\n");
    refused(&kept.answer(), 401);
}

#[test]
fn an_address_that_cannot_be_had_leaves_the_rest_of_a_reload() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("listen = \"{}\"", taken.local_addr().unwrap());
    let mut daemon = setup(&[("first", "")]).start();
    daemon.reload_with(setup(&[("first", ""), ("blocked", &taken), ("free", "listen = \"127.0.0.1:0\"")]));
    let free = eventually("a port is opened", || addresses(&daemon, "free").first().cloned());
    serves(&free, "free");
    serves(daemon.ion(), "first");
    let line = eventually("it is told", || {
        daemon.log().lines().find(|line| line.contains("ERROR")).map(str::to_owned)
    });
    assert!(line.contains("ion.module[1].listen") && line.contains("in use by"), "{line}");
}

#[test]
fn a_registered_module_has_ports_of_its_own_as_long_as_it_is_there() {
    let mut daemon = setup(&[("configured", "")]).start();
    let put = |daemon: &Daemon, event: &str, listen: &str| {
        admin(daemon, "PUT", &format!("/ion/modules/{event}"), WITH_TOKEN, &registration("s", listen))
    };
    let path = daemon.dir().join("module.sock");
    let unix = format!("unix:{}", path.display());
    put(&daemon, "e-1", &format!("[\"127.0.0.1:0\", \"{unix}\"]")).expect(201);
    let first = addresses(&daemon, "e-1");
    assert_eq!(first[1..], [unix]);
    serves(&first[0], "s");
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    refused(&ask(daemon.ion(), "s", "GET", "/self/blobs", b""), 401);
    // The secret need not be another one than on other ports.
    put(&daemon, "e-2", "\"127.0.0.1:0\"").expect(201);
    daemon.kill9();
    daemon.restart();
    for event in ["e-1", "e-2"] {
        serves(&addresses(&daemon, event)[0], "s");
    }
    let last = addresses(&daemon, "e-1");
    assert!(refused(&put(&daemon, "e-3", &format!("\"{}\"", last[0])), 409).contains("in use"));
    assert_eq!(addresses(&daemon, "e-3"), [""; 0]);
    admin(&daemon, "DELETE", "/ion/modules/e-1", WITH_TOKEN, "").expect(204);
    refuses(&last[0]);
    assert!(!path.exists());
    // What one had can be had by the next at once.
    let last = addresses(&daemon, "e-2");
    admin(&daemon, "DELETE", "/ion/modules/e-2", WITH_TOKEN, "").expect(204);
    put(&daemon, "e-4", &format!("\"{}\"", last[0])).expect(201);
    serves(&last[0], "s");
    // And another registration of a module moves it.
    put(&daemon, "e-4", "[]").expect(200);
    refuses(&last[0]);
    serves(daemon.ion(), "s");
    daemon.restart();
    serves(daemon.ion(), "s");
}

#[test]
fn an_address_that_nobody_may_ask_for_is_refused() {
    let daemon = setup(&[]).start();
    let put = |headers: &[(&str, &str)], daemon: &Daemon, listen: &str| {
        admin(daemon, "PUT", "/ion/modules/e-1", headers, &registration("s", listen))
    };
    for listen in ["\"8080\"", "\"localhost.example:80\"", "\"127.0.0.1:65536\"", "\"unix:relative\""] {
        assert!(refused(&put(WITH_TOKEN, &daemon, listen), 400).contains("listen"), "{listen}");
    }
    refused(&put(WITH_TOKEN, &daemon, "7"), 400);
    let nine = format!("[{}]", ["\"127.0.0.1:0\""; 9].join(","));
    refused(&put(WITH_TOKEN, &daemon, &nine), 400);
    // Without tokens whoever is on this host may ask, and gets no more than loopback.
    let daemon = Setup::default().ion(&module("m", "")).start();
    let anyone = [("Host", "localhost"), ("Content-Type", "application/json")];
    for listen in ["\"0.0.0.0:0\"", "\"[::]:0\"", "\"unix:/tmp/millpond-test.sock\""] {
        assert!(refused(&put(&anyone, &daemon, listen), 400).contains("127.0.0.1"), "{listen}");
    }
    put(&anyone, &daemon, "\"127.0.0.1:0\"").expect(201);
}
