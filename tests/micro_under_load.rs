//! micro: a hundred reloads and an order to end, while requests come all the time: none fails.

mod common;

use std::fs;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::backend::Backend;
use common::sidecar::Sidecar;
use common::{Conn, eventually};
use rustix::process::Signal;

const CALLERS: usize = 4;
const CALL: &str =
    "POST /foo/bar HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

fn configuration(number: usize) -> String {
    // What changes is what a reload takes: the level of the log, and tokens, of which one stays.
    let level = ["info", "warn"][number % 2];
    format!("log_level = \"{level}\"\n[micro]\ntokens = [\"t\", \"{number}\"]\n")
}

#[test]
fn a_hundred_reloads_fail_no_request() {
    let dir = common::daemon::scratch();
    let file = dir.path().join("millpond.toml");
    fs::write(&file, configuration(0)).expect("a file");
    let config = format!("--config={}", file.display());
    let sidecar = Sidecar::start(&["sidecar", "--address=127.0.0.1:0", &config]);
    let backend = Backend::answering("1");
    let body = common::micro::service("go.micro.srv.foo", "foo-1", backend.port());
    let token = [("Authorization", "Bearer t")];
    common::request(sidecar.micro(), "POST", "/registry", &token, body.as_bytes()).expect(200);
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let addr = sidecar.micro().to_owned();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut conn = Conn::open(&addr);
                let call = CALL.replacen("Host: a\r\n", "Host: a\r\nAuthorization: Bearer t\r\n", 1);
                while !done.load(Ordering::SeqCst) {
                    conn.send(&call);
                    conn.answer().expect(200);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for number in 1..=100 {
            let before = answered.load(Ordering::SeqCst);
            fs::write(&file, configuration(number)).expect("a file");
            sidecar.signal(Signal::HUP);
            eventually("calls go on", || (answered.load(Ordering::SeqCst) > before + CALLERS).then_some(()));
        }
        // The last one is in force: its token opens the door.
        eventually("the last configuration is in force", || {
            let token = [("Authorization", "Bearer 100")];
            let asked = common::request(sidecar.micro(), "GET", "/registry", &token, b"");
            (asked.status == 200).then_some(())
        });
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a slow service is one that takes its time")]
fn what_was_asked_before_the_order_to_end_is_answered() {
    let mut sidecar = Sidecar::start(&["sidecar", "--address=127.0.0.1:0"]);
    let backend = Backend::start(|_| {
        std::thread::sleep(Duration::from_millis(5));
        common::backend::Does::Says("{\"id\":0,\"result\":1,\"error\":null}".into())
    });
    backend.register(sidecar.micro(), "go.micro.srv.foo");
    let (told, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let addr = sidecar.micro().to_owned();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS * 2)
            .map(|_| {
                scope.spawn(|| {
                    let mut conn = Conn::open(&addr);
                    // The last one is under way when the order comes.
                    while !told.load(Ordering::SeqCst) {
                        conn.send(CALL);
                        if told.load(Ordering::SeqCst) {
                            // It may have met the end of a connection that was at rest.
                            return;
                        }
                        let answer = conn.answer().expect(200);
                        assert_eq!(answer.text(), "1");
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        eventually("calls are made", || (answered.load(Ordering::SeqCst) > 100).then_some(()));
        told.store(true, Ordering::SeqCst);
        sidecar.signal(Signal::TERM);
        callers.into_iter().for_each(|caller| caller.join().expect("no call fails"));
    });
    assert_eq!(sidecar.wait_exit().code(), Some(0));
    assert!(TcpStream::connect(&addr).is_err(), "nobody listens any more");
}
