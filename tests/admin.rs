//! The admin endpoints: alive, ready with a reason, and metrics that a scraper can read and an operator can trust.

mod common;

use std::process::Command;
use std::sync::OnceLock;

use common::daemon::MILLPOND;
use common::http::request_bytes;
use common::prometheus::Page;
use common::{Conn, Daemon, Live, Producer, Setup, Shared, bytes_of, eventually, get, head, post, request};

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().share(&DAEMON)
}

#[test]
fn livez_is_200_while_the_process_turns() {
    let daemon = daemon();
    let answer = get(daemon.admin(), "/livez").expect(200);
    assert!(!answer.body.is_empty());
}

#[test]
fn readyz_names_each_check() {
    let daemon = daemon();
    let answer = get(daemon.admin(), "/readyz").expect(200);
    let text = answer.text();
    for check in ["shard 0", "shard 1", "store 0", "store 1"] {
        let line = text.lines().find(|line| line.contains(check));
        assert!(
            line.is_some_and(|line| line.starts_with("[+]") && line.ends_with("serving")),
            "{check}: {text}"
        );
    }
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let daemon = daemon();
    for target in ["/livez", "/readyz", "/metrics"] {
        let answer = head(daemon.admin(), target).expect(200);
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("content-type"), get(daemon.admin(), target).header("content-type"));
    }
}

#[test]
fn other_paths_and_methods_are_refused() {
    let daemon = daemon();
    get(daemon.admin(), "/nowhere").expect(404);
    get(daemon.admin(), "/stream/x").expect(404);
    let answer = request(daemon.admin(), "POST", "/metrics", &[], b"").expect(405);
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{answer:?}");
}

#[test]
fn metrics_parse_strictly() {
    let daemon = daemon();
    post(daemon.loom(), "for-the-histograms", &bytes_of(1, 100_000)).expect(201);
    let answer = get(daemon.admin(), "/metrics").expect(200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let page = Page::parse(answer.text());
    assert!(page.types.len() > 20, "{} families", page.types.len());
    for (family, kind) in page.types.iter().filter(|(family, _)| family.starts_with("millpond_")) {
        assert_eq!(family.ends_with("_total"), kind == "counter", "{family} is a {kind}");
    }
    assert_eq!(page.sum("millpond_build_info"), 1.0);
    assert!(page.sum("process_start_time_seconds") > 1.7e9);
    let again = Page::parse(get(daemon.admin(), "/metrics").text());
    let names = |page: &Page| page.types.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&page), names(&again), "families do not come and go");
}

#[test]
fn the_metrics_name_the_build_that_the_version_names() {
    let version = Command::new(MILLPOND).arg("--version").output().expect("it runs");
    let version = String::from_utf8(version.stdout).expect("text");
    let revision = version.lines().find_map(|line| line.strip_prefix("revision: ")).expect("a revision");
    let page = get(daemon().admin(), "/metrics").expect(200);
    let label = format!("revision=\"{revision}\"");
    let line = page.text().lines().find(|line| line.starts_with("millpond_build_info{"));
    assert!(line.is_some_and(|line| line.contains(&label)), "{line:?} lacks {label}");
}

#[test]
fn counts_move_by_what_happened() {
    let daemon = Daemon::start();
    let sum = |name: &str| daemon.metrics().sum(name);
    assert_eq!(sum("millpond_streams_created_total"), 0.0);

    let content = bytes_of(2, 200_000);
    for number in 0..5 {
        post(daemon.loom(), &format!("s{number}"), &content).expect(201);
    }
    daemon.wait_metric("millpond_streams_created_total", |created| created == 5.0);
    daemon.wait_metric("millpond_streams_completed_total", |completed| completed == 5.0);
    daemon.wait_metric("millpond_stream_appended_bytes_total", |bytes| bytes == 1_000_000.0);
    for _ in 0..3 {
        daemon.get("/stream/s0").expect(200);
    }
    daemon.wait_metric("millpond_stream_delivered_bytes_total", |bytes| bytes == 600_000.0);
    request(daemon.loom(), "DELETE", "/stream/s4", &[], b"").expect(204);
    daemon.wait_metric("millpond_streams_deleted_total", |deleted| deleted == 1.0);
    daemon.get("/stream/absent").expect(404);
    eventually("each answer is counted in its class", || {
        let page = daemon.metrics();
        let of =
            |class| page.sum_where("millpond_http_requests_total", &[("dialect", "loom"), ("class", class)]);
        (of("2xx") == 9.0 && of("4xx") == 1.0).then_some(())
    });
    assert!(sum("millpond_journal_records_total") >= 5.0);
    assert!(sum("millpond_bulk_bytes_total") >= 1_000_000.0);
    assert!(sum("millpond_received_bytes_total") >= 1_000_000.0);
    assert!(sum("millpond_sent_bytes_total") >= 600_000.0);
    assert!(sum("millpond_sync_latency_seconds_count") >= 1.0);
    assert_eq!(sum("millpond_sync_failures_total"), 0.0);
    assert_eq!(sum("millpond_panics_contained_total"), 0.0);
}

#[test]
fn gauges_rise_and_fall() {
    let daemon = Daemon::start();
    let mut producer = Producer::begin(daemon.loom(), "open");
    producer.chunk("x");
    let mut readers: Vec<Live> = (0..3).map(|_| Live::get(daemon.loom(), "/stream/open")).collect();
    for reader in &mut readers {
        reader.wait_for(b"x");
    }
    daemon.wait_metric("millpond_streams_open", |open| open == 1.0);
    daemon.wait_metric("millpond_followers_live", |live| live == 3.0);
    daemon.wait_metric("millpond_connections_open", |open| open >= 4.0);
    readers.pop().expect("a reader").reset();
    daemon.wait_metric("millpond_followers_live", |live| live == 2.0);
    producer.reset();
    daemon.wait_metric("millpond_streams_open", |open| open == 0.0);
    daemon.wait_metric("millpond_streams_interrupted_total", |interrupted| interrupted == 1.0);
    for reader in readers {
        reader.finish().whole();
    }
    daemon.wait_metric("millpond_followers_live", |live| live == 0.0);
}

#[test]
fn refusals_are_counted() {
    let daemon = Daemon::start();
    for _ in 0..3 {
        let mut conn = Conn::open(daemon.loom());
        conn.send("GET / HTTP/1.1\r\n\r\n");
        conn.answer().expect(400);
    }
    let refusals = || daemon.metrics().sum_where("millpond_http_refusals_total", &[("dialect", "loom")]);
    eventually("three refusals are counted", || (refusals() == 3.0).then_some(()));
}

#[test]
fn connections_accepted_count_every_connection() {
    let daemon = Daemon::start();
    let before = daemon.metrics().sum("millpond_connections_accepted_total");
    for _ in 0..10 {
        let mut conn = Conn::open(daemon.loom());
        conn.send(request_bytes("GET", "/stream/absent", &[], b""));
        conn.answer().expect(404);
    }
    // Each look at the page is a connection too, hence at least.
    daemon.wait_metric("millpond_connections_accepted_total", |accepted| accepted >= before + 10.0);
}

#[test]
fn the_ready_line_names_what_listens_and_nothing_else() {
    let daemon = daemon();
    let names: Vec<&String> = daemon.ready().as_object().expect("an object").keys().collect();
    assert_eq!(names, ["admin", "loom"]);
    let log = daemon.log();
    for (dialect, addr) in [("admin", daemon.admin()), ("loom", daemon.loom())] {
        let line = log.lines().find(|line| line.contains("listening") && line.contains(addr));
        assert!(line.is_some_and(|line| line.contains(dialect)), "{dialect}: {log}");
    }
}

#[test]
fn what_the_runtime_does_is_counted_too() {
    let daemon = common::Setup::default().shards(2).start();
    for number in 0..20 {
        common::post(daemon.loom(), &format!("counted-{number}"), b"x").expect(201);
    }
    for name in ["millpond_ring_sqes_total", "millpond_turns_total", "millpond_mailbox_messages_total"] {
        daemon.wait_metric(name, |value| value > 0.0);
    }
}
