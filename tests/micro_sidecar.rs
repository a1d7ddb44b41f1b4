//! micro: `millpond micro … sidecar …` by the flags of the original, its own service, the application beside it, and the
//! commands of the client.

mod common;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::backend::{Backend, Does};
use common::daemon::MILLPOND;
use common::micro::{Socket, service};
use common::sidecar::{Sidecar, client};
use common::{Daemon, Setup, eventually, get, request};
use rustix::process::Signal;

#[test]
fn it_serves_micro_alone_and_opens_no_store() {
    let other = Daemon::start();
    let data = format!("--data_dir={}", other.data_dir().display());
    let sidecar = Sidecar::start(&["--sidecar_address=127.0.0.1:0", "sidecar", &data]);
    let ready = sidecar.ready().as_object().expect("an object");
    assert_eq!(ready.keys().collect::<Vec<_>>(), ["micro"], "no other dialect, and no admin listener");
    get(sidecar.micro(), "/registry?service=nobody").expect(404);
    let with_admin = Sidecar::start(&["sidecar", "--address=127.0.0.1:0", "--admin_address=127.0.0.1:0"]);
    let admin = with_admin.ready()["admin"].as_str().expect("asked for");
    get(admin, "/readyz").expect(200);
    let made: Vec<_> = std::fs::read_dir(with_admin.dir()).expect("a directory").flatten().collect();
    assert_eq!(made.len(), 1, "nothing but the log: {made:?}");
}

#[test]
fn flags_count_on_either_side_and_variables_too() {
    for (words, env) in [
        (vec!["--namespace=ns", "--sidecar_address=127.0.0.1:0", "sidecar"], vec![]),
        (vec!["sidecar", "--sidecar_namespace", "ns", "--address", "127.0.0.1:0"], vec![]),
        (vec!["sidecar"], vec![("MICRO_SIDECAR_ADDRESS", "127.0.0.1:0"), ("MICRO_SIDECAR_NAMESPACE", "ns")]),
    ] {
        let sidecar = Sidecar::start_with(&words, &env);
        let backend = Backend::answering("1");
        backend.register(sidecar.micro(), "ns.foo");
        let answer =
            request(sidecar.micro(), "POST", "/foo/bar", &[("Content-Type", "application/json")], b"{}");
        assert_eq!(answer.expect(200).text(), "1", "{words:?}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_right_spot() {
    for (words, code, says) in [
        (vec!["--server_name=a", "--server_address=b:1", "sidecar"], 2, "write: sidecar --server_name=a"),
        (vec!["sidecar", "--server_name=a"], 78, "micro.server_address is not set"),
        (vec!["sidecar", "--registry=consul"], 78, "the registry is built in"),
        (vec!["sidecar", "--enable_acme"], 78, "obtains no certificates"),
        (vec!["sidecar", "--enable_tls"], 78, "certificate and key are not named"),
        (vec!["sidecar", "--healthcheck_url=https://a/"], 78, "begins with http://"),
        (vec!["sidecar", "--no_such_flag"], 2, "unexpected argument"),
    ] {
        let (exit, said) = Sidecar::refused(&words);
        assert_eq!(exit, Some(code), "{words:?}: {said}");
        assert!(said.contains(says), "{words:?}: {said}");
    }
}

#[test]
fn it_speaks_tls_by_its_flags() {
    let dir = common::daemon::scratch();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let made = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
                .split(' '),
        )
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &path("key"), "-out", &path("cert")])
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl; apt-get install openssl").success());
    let (cert, key) =
        (format!("--tls_cert_file={}", path("cert")), format!("--tls_key_file={}", path("key")));
    let sidecar = Sidecar::start(&["--enable_tls", &cert, "sidecar", &key, "--address=127.0.0.1:0"]);
    let url = format!("https://{}/registry", sidecar.micro());
    let asked = Command::new("curl").args(["-sSf", "--cacert", &path("cert"), &url]).output().expect("curl");
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert!(String::from_utf8_lossy(&asked.stdout).contains("go.micro.sidecar"));
}

#[test]
fn the_daemon_is_a_service_that_tells_how_it_does() {
    let sidecar = Sidecar::start(&["--server_name=my.car", "sidecar", "--address=127.0.0.1:0"]);
    let node = eventually("it is registered", || {
        let found = get(sidecar.micro(), "/registry?service=my.car");
        (found.status == 200).then(|| found.text().to_owned())
    });
    assert!(
        node.contains(&format!("\"port\":{}", sidecar.micro().rsplit_once(':').expect("a port").1)),
        "{node}"
    );
    let (code, out, _) = client(sidecar.micro(), &["health", "my.car"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("\t\tok\n"), "{out}");
    let (code, out, _) = client(sidecar.micro(), &["stats", "my.car"]);
    assert_eq!(code, Some(0));
    let line = out.lines().last().expect("a node");
    assert_eq!(line.split('\t').count(), 7, "{out}");
    // A node is asked over the wire, too, as any other.
    let json = [("Content-Type", "application/json")];
    let body = br#"{"method":"Debug.Stats","params":[{}],"id":7}"#;
    let answer = request(sidecar.micro(), "POST", "/", &json, body).expect(200);
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!((answer["id"].as_u64(), answer["error"].is_null()), (Some(7), true));
    assert!(answer["result"]["memory"].as_u64().expect("bytes") > 1 << 20);
    let body = br#"{"method":"Debug.Nothing","params":[{}],"id":1}"#;
    let answer = request(sidecar.micro(), "POST", "/", &json, body).expect(200);
    assert!(answer.text().contains("rpc: can't find service Debug.Nothing"), "{}", answer.text());
}

/// An application, and whether it says that it is well.
fn app() -> (Backend, Arc<AtomicBool>) {
    let health = Arc::new(AtomicBool::new(true));
    let is_well = health.clone();
    let app = Backend::start(move |_| match is_well.load(Ordering::SeqCst) {
        true => Does::Says(String::new()),
        false => Does::Raw("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".into()),
    });
    (app, health)
}

#[test]
fn the_application_is_taken_out_when_it_is_unwell_and_when_the_daemon_ends() {
    let (app, health) = app();
    let address = format!("--server_address={}", app.addr());
    let url = format!("--healthcheck_url=http://{}/health", app.addr());
    let mut sidecar = Sidecar::start(&[
        "--healthcheck_interval=50ms",
        "sidecar",
        "--server_name=foo",
        &address,
        &url,
        "--healthcheck_unhealthy_threshold=2",
        "--address=127.0.0.1:0",
    ]);
    let mut watch = Socket::open(sidecar.micro(), "/registry?service=foo");
    let mut next = |action: &str| loop {
        let event = watch.json();
        assert_eq!(event["Service"]["name"], "foo");
        // A create that carries the name alone comes before the first whole one.
        if event["Action"] == action && (action == "delete" || !event["Service"]["nodes"].is_null()) {
            return event["Service"]["nodes"].clone();
        }
    };
    let node = next("create");
    health.store(false, Ordering::SeqCst);
    next("delete");
    let said = get(sidecar.micro(), "/health").expect(503);
    assert_eq!(said.text(), "Non 200 response: 503\n");
    health.store(true, Ordering::SeqCst);
    assert_eq!(next("create"), node, "under the same id");
    sidecar.signal(Signal::TERM);
    next("delete");
    assert_eq!(sidecar.wait_exit().code(), Some(0));
}

#[test]
fn commands_of_the_client_tell_the_truth_by_their_exit_codes() {
    let sidecar = Sidecar::start(&["sidecar", "--address=127.0.0.1:0"]);
    let addr = sidecar.micro();
    let backend = Backend::answering(r#"{"b":[1],"a":2}"#);
    let json = service("go.micro.srv.foo", "foo-1", backend.port());
    assert_eq!(client(addr, &["register", "service", &json]), (Some(0), "ok\n".into(), String::new()));
    let (code, out, _) = client(addr, &["list", "services"]);
    assert_eq!(code, Some(0));
    assert!(out.lines().any(|line| line == "go.micro.srv.foo"), "{out}");
    let expected = format!(
        "service  go.micro.srv.foo\n\nversion \n\nID\tAddress\tPort\tMetadata\nfoo-1\t127.0.0.1\t{}\t\n",
        backend.port()
    );
    assert_eq!(client(addr, &["get", "service", "go.micro.srv.foo"]), (Some(0), expected, String::new()));
    for word in ["call", "query"] {
        let (code, out, _) = client(addr, &[word, "go.micro.srv.foo", "Foo.Bar", "{}"]);
        assert_eq!((code, out.as_str()), (Some(0), "{\n\t\"b\": [\n\t\t1\n\t],\n\t\"a\": 2\n}\n"));
    }
    let (code, _, said) = client(addr, &["health", "go.micro.srv.foo"]);
    assert_eq!(code, Some(1), "it answers, but not that it is ok: {said}");
    for words in [
        &["get", "service", "go.micro.srv.nobody"][..],
        &["call", "go.micro.srv.nobody", "A.B"],
        &["stats", "go.micro.srv.nobody"],
        &["register", "service", "{"],
        &["stream", ""],
    ] {
        let (code, out, said) = client(addr, words);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{words:?}");
        assert!(!said.is_empty(), "{words:?}");
    }
    assert_eq!(client(addr, &["deregister", "service", &json]).0, Some(0));
    assert_eq!(client(addr, &["get", "service", "go.micro.srv.foo"]).0, Some(1));
    assert_eq!(client("127.0.0.1:1", &["list", "services"]).0, Some(1), "nobody there");
    assert_eq!(client(addr, &["list", "nodes"]).0, Some(2));
    let (code, _, said) = client(addr, &["--enable_stats", "list", "services"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("--enable_stats is a flag of sidecar"), "{said}");
}

#[test]
fn messages_are_published_and_printed_by_commands() {
    let sidecar = Sidecar::start(&["sidecar", "--address=127.0.0.1:0"]);
    let mut reader = Command::new(MILLPOND)
        .args(["micro", "stream", "news", "--count=2"])
        .env("MICRO_PROXY_ADDRESS", sidecar.micro())
        .stdout(Stdio::piped())
        .spawn()
        .expect("millpond can be started");
    eventually("both are printed", || {
        assert_eq!(client(sidecar.micro(), &["publish", "news", "hello"]).0, Some(0));
        reader.try_wait().expect("waitable")
    });
    let output = reader.wait_with_output().expect("its output");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().count(), 2, "{text}");
    for line in text.lines() {
        let message: serde_json::Value = serde_json::from_str(line).expect("a message");
        assert_eq!(message["Body"], "aGVsbG8=");
    }
}

#[test]
fn under_serve_it_registers_itself_too() {
    let daemon = Setup::default().micro("").start();
    let found = || get(daemon.micro(), "/registry?service=go.micro.sidecar");
    eventually("it is registered", || (found().status == 200).then_some(()));
}
