//! micro: `/stats`, as JSON and as a page in a real Chromium.
//!
//! Without chromium the test of the page fails and says what to install; `.ci/run tools` does.

mod common;

use std::process::Command;

use common::backend::{Backend, Does};
use common::micro::Socket;
use common::sidecar::Sidecar;
use common::{Answer, eventually, get, request};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A sidecar that has something to show: a service that answers, one that fails, and a topic.
fn busy() -> (Sidecar, Vec<Backend>, Vec<Socket>) {
    let sidecar = Sidecar::start(&["--enable_stats", "--shards=2", "sidecar", "--address=127.0.0.1:0"]);
    let addr = sidecar.micro();
    let good = Backend::answering("1");
    let bad = Backend::start(|_| Does::Says("{\"id\":0,\"result\":null,\"error\":\"out of order\"}".into()));
    good.register(addr, "go.micro.srv.greeter");
    bad.register(addr, "go.micro.srv.broken");
    for _ in 0..20 {
        request(addr, "POST", "/greeter/say", &[JSON], b"{}").expect(200);
    }
    request(addr, "POST", "/broken/say", &[JSON], b"{}").expect(500);
    request(addr, "POST", "/nobody/say", &[JSON], b"{}").expect(404);
    let sockets =
        vec![Socket::open(addr, "/broker?topic=news"), Socket::open(addr, "/broker?topic=orders&from=start")];
    for topic in ["news", "news", "orders"] {
        request(addr, "POST", &format!("/broker?topic={topic}"), &[], b"x").expect(200);
    }
    (sidecar, vec![good, bad], sockets)
}

fn stats(addr: &str) -> serde_json::Value {
    let answer: Answer = request(addr, "GET", "/stats", &[JSON], b"").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[test]
fn the_json_has_the_keys_of_the_original_and_counts_by_class() {
    let (sidecar, _backends, _sockets) = busy();
    let answer = request(sidecar.micro(), "GET", "/stats", &[JSON], b"").expect(200);
    let text = answer.text();
    for (earlier, later) in [
        ("\"started\":", "\"memory\":"),
        ("\"memory\":", "\"threads\":"),
        ("\"threads\":", "\"gc_pause\":"),
        ("\"gc_pause\":", "\"counters\":"),
        ("\"timestamp\":", "\"status_codes\":"),
        ("\"status_codes\":", "\"total_reqs\":"),
    ] {
        assert!(text.find(earlier).expect(earlier) < text.find(later).expect(later), "{text}");
    }
    let json = stats(sidecar.micro());
    let memory = json["memory"].as_str().and_then(|memory| memory.strip_suffix("mb")).expect("mb");
    assert!(memory.parse::<f64>().expect("a number") > 1.0);
    let sum = |class: &str| -> u64 {
        let windows = json["counters"].as_array().expect("windows");
        windows.iter().filter_map(|window| window["status_codes"][class].as_u64()).sum()
    };
    assert_eq!((sum("40x"), sum("50x")), (1, 1), "{json}");
    assert!(sum("20x") >= 24, "{json}");
    let service = |name: &str| {
        let all = json["services"].as_array().expect("services");
        all.iter().find(|service| service["name"] == name).cloned().expect(name)
    };
    let greeter = service("go.micro.srv.greeter");
    assert_eq!((greeter["calls"].as_u64(), greeter["failed"].as_u64()), (Some(20), Some(0)), "{greeter}");
    assert!(
        greeter["p50_ms"].as_f64().expect("a median") <= greeter["p99_ms"].as_f64().expect("a percentile")
    );
    assert_eq!(greeter["nodes"][0]["state"], "ok");
    let broken = service("go.micro.srv.broken");
    assert_eq!((broken["calls"].as_u64(), broken["failed"].as_u64()), (Some(1), Some(1)));
    let topics = json["topics"].as_array().expect("topics");
    let topic = |name: &str| topics.iter().find(|topic| topic["name"] == name).expect(name);
    assert_eq!(topic("news")["published"], 2);
    assert_eq!((&topic("news")["kept"], &topic("orders")["kept"]), (&false.into(), &true.into()));
    assert_eq!(topic("orders")["subscribers"], 1);
}

#[test]
fn without_the_flag_there_is_no_such_page() {
    let sidecar = Sidecar::start(&["sidecar", "--address=127.0.0.1:0"]);
    get(sidecar.micro(), "/stats").expect(404);
}

#[test]
fn the_page_needs_nothing_else_and_shows_what_is_there_in_a_browser() {
    let (sidecar, _backends, _sockets) = busy();
    let page = get(sidecar.micro(), "/stats").expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(!page.text().contains("https://") && !page.text().contains("src="), "it loads from nowhere else");
    let profile = common::daemon::scratch();
    let shot = profile.path().join("page.png");
    let browse = |mode: &[&str]| {
        let output = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--hide-scrollbars", "--window-size=500,1100", "--timeout=4000"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(mode)
            .arg(format!("http://{}/stats", sidecar.micro()))
            .output()
            .expect("chromium is needed for this test; apt-get install chromium");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let page = eventually("the page shows what is there", || {
        let page = browse(&["--virtual-time-budget=3000", "--dump-dom"]);
        page.contains("go.micro.srv.greeter").then_some(page)
    });
    for shown in ["go.micro.srv.broken", ">live<", ">news<", ">kept<", "<rect", ">20<"] {
        assert!(page.contains(shown), "no {shown} in {page}");
    }
    browse(&["--virtual-time-budget=3000", &format!("--screenshot={}", shot.display())]);
    let image = std::fs::read(&shot).expect("a screenshot");
    assert!(image.starts_with(b"\x89PNG") && image.len() > 10_000, "{} bytes", image.len());
    if let Some(to) = std::env::var_os("MILLPOND_SCREENSHOT") {
        std::fs::copy(&shot, to).expect("the screenshot can be kept");
    }
}
