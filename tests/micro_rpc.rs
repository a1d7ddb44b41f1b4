//! micro: calls, by `/rpc` and by paths, to services that behave as real ones do.

mod common;

use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use common::backend::{Asked, Backend, Does};
use common::{Answer, Daemon, Setup, Shared, fresh_id, request};

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().micro("client_request_timeout = \"2s\"").share(&DAEMON)
}

fn ask(target: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    request(daemon().micro(), "POST", target, fields, body.as_bytes())
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn call(service: &str, method: &str) -> Answer {
    ask("/rpc", &[JSON], &format!(r#"{{"service":"{service}","method":"{method}","request":{{}}}}"#))
}

/// A service of its own name that keeps what it was asked.
fn recording(
    does: impl Fn(&Asked) -> Does + Send + Sync + 'static,
) -> (Backend, String, std::sync::mpsc::Receiver<Asked>) {
    let (sender, asked) = sync_channel(1024);
    let backend = Backend::start(move |request| {
        let _ = sender.send(request.clone());
        does(request)
    });
    let name = fresh_id("go.micro.srv.svc");
    backend.register(daemon().micro(), &name);
    (backend, name, asked)
}

fn says(result: &str) -> Does {
    Does::Says(format!("{{\"id\":0,\"result\":{result},\"error\":null}}"))
}

fn object(answer: &Answer) -> (String, u64, String, String) {
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("an object");
    let text = |key: &str| json[key].as_str().expect(key).to_owned();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(json["code"].as_u64(), Some(u64::from(answer.status)), "{json}");
    (text("id"), json["code"].as_u64().expect("a code"), text("detail"), text("status"))
}

#[test]
fn a_call_is_what_go_sends_and_its_result_comes_to_the_byte() {
    let (_backend, name, asked) = recording(|_| says(r#"{"b": 1, "a":1.0}"#));
    let fields = [JSON, ("foo", "1"), ("FOO", "2"), ("traceparent", "00-1-2-01"), ("Accept", "text/html")];
    let body = format!(
        r#"{{"Service":"{name}","method":"Example.Call","request":{{"z": 10000000000000000000001}}}}"#
    );
    let answer = ask("/rpc", &fields, &body).expect(200);
    assert_eq!(answer.text(), r#"{"b": 1, "a":1.0}"#);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("foo"), None, "fields of the node do not reach the caller");
    let request = asked.recv().expect("asked");
    assert_eq!(request.line, "POST / HTTP/1.1");
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        "{\"method\":\"Example.Call\",\"params\":[{\"z\":10000000000000000000001}],\"id\":0}\n"
    );
    assert_eq!(request.field("accept"), Some("application/json"));
    assert_eq!(request.field("content-type"), Some("application/json"));
    assert_eq!(request.field("timeout"), Some("2000000000"));
    assert_eq!(request.field("foo"), Some("1,2"));
    assert_eq!(request.field("traceparent"), Some("00-1-2-01"));
    assert_eq!(request.field("user-agent"), Some("Go-http-client/1.1"));
    assert_eq!(request.field("host"), Some(&*format!("127.0.0.1:{}", _backend.port())));
}

#[test]
fn a_form_does_it_too_and_null_is_a_result() {
    let (_backend, name, asked) = recording(|_| says("null"));
    let body = format!("service={name}&method=Example.Call&request=%7B%22name%22%3A+%22John%22%7D");
    assert_eq!(
        ask("/rpc", &[("Content-Type", "application/x-www-form-urlencoded")], &body).expect(200).text(),
        "null"
    );
    assert_eq!(asked.recv().expect("asked").json()["params"][0]["name"], "John");
    let by_query = format!("/rpc?service={name}&method=E.C&request=1");
    assert_eq!(ask(&by_query, &[], "").expect(200).text(), "null");
}

#[test]
fn mistakes_of_the_caller_are_400_in_their_order() {
    for (body, detail) in [
        ("", "unexpected EOF"),
        ("{x", "invalid character 'x' looking for beginning of object key string"),
        (r#"{"request":"{"}"#, "error decoding request string: unexpected EOF"),
        (r#"{"method":"m"}"#, "invalid service"),
        (r#"{"service":"s"}"#, "invalid method"),
    ] {
        let answer = ask("/rpc", &[JSON], body).expect(400);
        assert_eq!(
            object(&answer),
            ("go.micro.rpc".into(), 400, detail.into(), "Bad Request".into()),
            "{body}"
        );
    }
    assert!(!ask("/rpc", &[JSON], "").text().ends_with('\n'));
    request(daemon().micro(), "GET", "/rpc", &[], b"").expect(405);
}

#[test]
fn an_unknown_service_is_404() {
    let answer = call("go.micro.srv.nobody", "E.C").expect(404);
    let expected = r#"{"id":"go.micro.client","code":404,"detail":"not found","status":"Not Found"}"#;
    assert_eq!(answer.text(), expected);
}

#[test]
fn errors_of_a_service_are_objects_in_text_or_text() {
    for (error, status, id, detail) in [
        (
            r#""{\"id\":\"my.id\",\"code\":403,\"detail\":\"no\",\"status\":\"Forbidden\"}""#,
            403,
            "my.id",
            "no",
        ),
        (r#""it broke""#, 500, "go.micro.rpc", "error during request: it broke"),
        (r#""""#, 500, "go.micro.rpc", "error during request: unspecified error"),
        (r#"{"code":-1,"message":"rpc two"}"#, 500, "go.micro.rpc", "error during request: rpc two"),
    ] {
        let body = format!(r#"{{"id":0,"result":null,"error":{error}}}"#);
        let (_backend, name, _) = recording(move |_| Does::Says(body.clone()));
        let found = object(&call(&name, "E.C").expect(status));
        assert_eq!((found.0.as_str(), found.2.as_str()), (id, detail));
    }
}

#[test]
fn what_a_node_does_wrong_has_an_id_of_its_own() {
    let raw = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nlater";
    for (does, id, detail) in [
        (Does::Raw(raw.into()), "go.micro.client.transport", "503 Service Unavailable: later"),
        (Does::Closes, "go.micro.client.transport", "EOF"),
        (
            Does::SaysAndCloses("Unsupported Content-Type: x".into()),
            "go.micro.client.codec",
            "invalid character 'U' looking for beginning of value",
        ),
    ] {
        let (_backend, name, _) = recording(move |_| does.clone());
        let found = object(&call(&name, "E.C").expect(500));
        assert_eq!((found.0.as_str(), found.2.as_str()), (id, detail));
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let body = format!(r#"{{"service":"x","method":"E.C","address":"{free}"}}"#);
    let found = object(&ask("/rpc", &[JSON], &body).expect(500));
    let detail = format!("connection error: dial tcp {free}: connect: connection refused");
    assert_eq!((found.0.as_str(), found.2), ("go.micro.client", detail));
}

#[test]
fn an_address_is_called_without_looking_it_up_and_within_the_same_time() {
    let backend = Backend::answering("1");
    let body = format!(r#"{{"service":"x","method":"E.C","address":"{}"}}"#, backend.addr());
    assert_eq!(ask("/rpc", &[JSON], &body).expect(200).text(), "1");
    let hanging = Backend::start(|_| Does::Hangs);
    let body = format!(r#"{{"service":"x","method":"E.C","address":"{}"}}"#, hanging.addr());
    ask("/rpc", &[JSON, ("Timeout", "100ms")], &body).expect(408);
}

#[test]
fn the_shorter_of_the_callers_time_and_ours_counts() {
    let (_backend, name, asked) = recording(|_| Does::Hangs);
    let body = format!(r#"{{"service":"{name}","method":"E.C"}}"#);
    for (timeout, sent) in [("100000000", "100000000"), ("150ms", "150000000")] {
        let began = Instant::now();
        let answer = ask("/rpc", &[JSON, ("Timeout", timeout)], &body).expect(408);
        assert!(began.elapsed() < Duration::from_millis(1900), "not the two seconds that are configured");
        let (id, _, detail, status) = object(&answer);
        assert_eq!((id.as_str(), status.as_str()), ("go.micro.client", "Request Timeout"));
        assert_eq!(detail, "request timeout: context deadline exceeded");
        assert_eq!(asked.recv().expect("asked").field("timeout"), Some(sent));
    }
    ask("/rpc", &[JSON, ("Timeout", "3600")], &body).expect(408);
    assert_eq!(
        asked.recv().expect("asked").field("timeout"),
        Some("2000000000"),
        "an hour is more than is allowed"
    );
}

#[test]
fn connections_are_kept_and_those_that_closed_without_a_word_are_not_used() {
    let (backend, name, _) = recording(|asked| match asked.json()["method"].as_str() {
        Some("Example.Call") => says("1"),
        _ => Does::SaysAndCloses(r#"{"id":0,"result":null,"error":"rpc: can't find service X.Y"}"#.into()),
    });
    let mut conn = common::Conn::open(daemon().micro());
    let mut ask = |method: &str, status: u16| {
        let body = format!(r#"{{"service":"{name}","method":"{method}"}}"#);
        conn.send(common::http::request_bytes("POST", "/rpc", &[JSON], body.as_bytes()));
        conn.answer().expect(status)
    };
    (0..20).for_each(|_| drop(ask("Example.Call", 200)));
    assert_eq!(backend.connections(), 1, "twenty calls on one connection");
    for _ in 0..10 {
        ask("X.Y", 500);
        // Its end has to have come before the connection is used again, which nobody can wait for here: where it has
        // not, the call says so instead of being made twice.
        std::thread::yield_now();
        ask("Example.Call", 200);
    }
}

#[test]
fn a_server_of_http_1_0_is_called_as_often_as_one_likes() {
    let body = r#"{"id":0,"result":7,"error":null}"#;
    let raw = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
    let (_backend, name, _) = recording(move |_| Does::Raw(raw.clone()));
    for _ in 0..10 {
        assert_eq!(call(&name, "E.C").expect(200).text(), "7");
    }
}

#[test]
fn a_dead_node_is_passed_over_and_a_request_is_made_once() {
    let daemon = Setup::default().micro("").start();
    let (alive, dead) = (Backend::answering("1"), Backend::answering("2"));
    for backend in [&alive, &dead] {
        backend.register(daemon.micro(), "two");
    }
    drop(dead);
    let body = r#"{"service":"two","method":"E.C"}"#;
    let count = 60;
    for _ in 0..count {
        let answer = request(daemon.micro(), "POST", "/rpc", &[JSON], body.as_bytes()).expect(200);
        assert_eq!(answer.text(), "1");
    }
    assert_eq!(alive.requests(), count, "no call was made twice");
    let metrics = daemon.metrics();
    assert!(metrics.sum("millpond_rpc_ejections_total") >= 1.0, "the dead one rests after five failures");
    assert!(metrics.sum("millpond_rpc_retries_total") <= 12.0, "so it is not tried again and again");
}

#[test]
fn paths_are_calls() {
    let (_backend, name, asked) = recording(|_| says(r#"{"ok":true}"#));
    let short = name.strip_prefix("go.micro.srv.").expect("the namespace").to_owned();
    let path = format!("/{short}/say-hello");
    let answer = ask(&path, &[JSON], "{\"b\": 1,\n \"a\": 2}").expect(200);
    assert_eq!(answer.text(), r#"{"ok":true}"#);
    let request = asked.recv().expect("asked");
    let body = String::from_utf8_lossy(&request.body).into_owned();
    assert!(body.contains(r#""params":[{"b":1,"a":2}]"#), "compact, its keys in order: {body}");
    assert!(body.contains("SayHello"), "{body}");
    ask(&path, &[JSON], "").expect(200);
    assert!(String::from_utf8_lossy(&asked.recv().expect("asked").body).contains(r#""params":[{}]"#));
    assert_eq!(object(&ask(&path, &[JSON], "{").expect(400)).0, "go.micro.api");
    assert_eq!(
        ask(&path, &[("Content-Type", "text/plain")], "").expect(500).text(),
        "unsupported content-type\n"
    );
    common::http::request(daemon().micro(), "GET", &path, &[], b"").expect(405);
    let unknown = object(&request_unknown());
    assert_eq!((unknown.0.as_str(), unknown.1, unknown.2.as_str()), ("go.micro.api", 404, "not found"));
}

fn request_unknown() -> Answer {
    ask("/nobody/at-home", &[JSON], "{}").expect(404)
}

#[test]
fn protobuf_goes_in_frames() {
    let answer = "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{2}hi";
    let (_backend, name, asked) = recording(move |_| Does::Says(answer.to_owned()));
    let path = format!("/{}/call", name.strip_prefix("go.micro.srv.").expect("the namespace"));
    let reply = ask(&path, &[("Content-Type", "application/protobuf")], "xy").expect(200);
    assert_eq!((reply.text(), reply.header("content-type")), ("hi", Some("application/protobuf")));
    let request = asked.recv().expect("asked");
    assert_eq!(request.field("content-type"), Some("application/octet-stream"));
    assert!(request.body.ends_with(b"\0\0\0\x02xy"));
}

#[test]
fn the_proxy_passes_everything_on() {
    let daemon = Setup::default().micro("handler = \"proxy\"").start();
    let backend = Backend::start(|asked| {
        let told = format!("{} {}", asked.line, String::from_utf8_lossy(&asked.body));
        Does::Says(told)
    });
    backend.register(daemon.micro(), "go.micro.srv.web");
    let fields = [("X-Mine", "1"), ("X-Forwarded-For", "10.0.0.1"), ("Keep-Alive", "5")];
    let answer = request(daemon.micro(), "PUT", "/web/a/b?c=%20d", &fields, b"body").expect(200);
    assert_eq!(answer.text(), "PUT /web/a/b?c=%20d HTTP/1.1 body");
    assert_eq!(answer.header("x-mine"), Some("1"), "the node gave it back");
    assert_eq!(answer.header("keep-alive"), None, "fields of the connection stay with it");
    request(daemon.micro(), "GET", "/nobody/", &[], b"").expect(404);
    let large = vec![b'x'; 8 << 20];
    let answer = request(daemon.micro(), "POST", "/web/large", &[], &large).expect(200);
    assert_eq!(answer.body.len(), "POST /web/large HTTP/1.1 ".len() + large.len());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let gone = common::micro::service("go.micro.srv.gone", "gone", free.port());
    request(daemon.micro(), "POST", "/registry", &[], gone.as_bytes()).expect(200);
    let answer = request(daemon.micro(), "GET", "/gone/", &[], b"").expect(502);
    assert!(answer.body.is_empty());
}

#[test]
fn the_application_is_registered_asked_and_taken_out() {
    let health = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_well = health.clone();
    let app = Backend::start(move |_| match is_well.load(std::sync::atomic::Ordering::SeqCst) {
        true => Does::Says(String::new()),
        false => Does::Raw("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".into()),
    });
    let lines = format!(
        "server_name = \"foo\"\nserver_address = \"{0}\"\nhealthcheck_url = \"http://{0}/health\"\nhealthcheck_interval = \"50ms\"",
        app.addr()
    );
    let daemon = Setup::default().micro(&lines).start();
    let find = || common::get(daemon.micro(), "/registry?service=foo");
    let node = common::eventually("it is registered", || (find().status == 200).then(find));
    assert!(node.text().contains(&format!("\"port\":{}", app.port())), "{}", node.text());
    assert!(common::get(daemon.micro(), "/health").expect(200).body.is_empty());
    health.store(false, std::sync::atomic::Ordering::SeqCst);
    common::eventually("it is taken out", || (find().status == 404).then_some(()));
    assert_eq!(common::get(daemon.micro(), "/health").expect(503).text(), "Non 200 response: 503\n");
    health.store(true, std::sync::atomic::Ordering::SeqCst);
    let back = common::eventually("it is brought back", || (find().status == 200).then(find));
    assert_eq!(back.text(), node.text(), "under the same id");
}
