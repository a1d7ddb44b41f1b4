//! A chain of two modules with the clients that people have: `examples/ion` is run as it stands.
//! And the sidecar of one module, by the flags of its pod specification.

mod common;

use common::daemon::{MILLPOND, Started, scratch};
use common::ion::{PAIR, admin, ask, refused};
use common::{Setup, bytes_of, eventually, json_of};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[test]
fn an_image_that_a_shell_stores_is_resized_by_python() {
    let python = python_with_requests();
    let daemon = Setup::default().ion(PAIR).start();
    let url = format!("http://{}", daemon.ion());
    let dir = scratch();
    let picture = dir.path().join("picture.ppm");
    let pixels = bytes_of(5, 3 * 64 * 48);
    std::fs::write(&picture, [&b"P6 64 48 255\n"[..], &pixels].concat()).unwrap();

    let mut dispatcher = example("dispatch.sh");
    dispatcher
        .env("ION", &url)
        .env("WATCH_SECRET", "child")
        .env("NEXT_SECRET", "child")
        .env("PYTHON", &python);
    let dispatcher = dispatcher.stdout(std::process::Stdio::piped()).spawn().expect("a shell");
    let mut store = example("store.sh");
    store.env("ION", &url).env("SHARED_SECRET", "parent").arg(&picture);
    let committed = ran(store.output().expect("a shell"));
    assert!(committed.contains("ion/e-1/images/picture.ppm"), "{committed}");
    let seen = ran(dispatcher.wait_with_output().expect("its events"));
    assert_eq!(seen.lines().count(), 2, "{seen}");

    let small = ask(daemon.ion(), "child", "GET", "/self/blob?res=small.ppm", b"").expect(200);
    let wanted: Vec<u8> = (0..24)
        .flat_map(|y| (0..32).map(move |x| 3 * (2 * y * 64 + 2 * x)))
        .flat_map(|at| pixels[at..at + 3].to_vec())
        .collect();
    assert!(small.body == [&b"P6 32 24 255\n"[..], &wanted].concat());
    let meta = json_of(&ask(daemon.ion(), "child", "GET", "/self/meta", b"").expect(200));
    assert_eq!(meta["image"], "small.ppm");
}

#[test]
fn a_sidecar_serves_its_module_by_the_flags_of_a_pod() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut command = Command::new(MILLPOND);
    command.args([
        "ion",
        "sidecar",
        "start",
        "--sharedsecret=hush-hush",
        "--eventid=e-9",
        "--parenteventid",
        "e-8",
    ]);
    command.args(["--correlationid=c-1", "--serverport=0", "--loglevel", "debug", "--printconfig"]);
    command.arg(format!("--filesystemblobprovider.basedir={}", data.display()));
    command.args(["--azureblobprovider=true", "--azureblobprovider.blobaccountkey=also-hushed"]);
    command.args(["--mongodbmetaprovider.port", "27017", "--servicebuseventprovider.topic=t"]);
    let mut sidecar = Sidecar(Started::spawn(command, &dir.path().join("log")));
    let ready: serde_json::Value = serde_json::from_str(&sidecar.0.ready_line().expect("it serves")).unwrap();
    let addr = ready["ion"].as_str().expect("a port").to_owned();
    assert!(addr.starts_with("127.0.0.1:"), "{addr}");
    assert_eq!(ready.as_object().unwrap().len(), 2, "ion, and health: {ready}");
    let put = ask(&addr, "hush-hush", "PUT", "/self/blob?res=a", b"x").expect(200);
    assert_eq!(put.text(), "ion/e-9/a");
    refused(&ask(&addr, "hush", "GET", "/self/blobs", b""), 401);
    let log = sidecar.0.log();
    assert_eq!(log.matches("replaced by the embedded store").count(), 1, "{log}");
    assert!(log.contains("--mongodbmetaprovider.port") && !log.contains("hush"), "{log}");
    assert!(data.join("FORMAT").exists());
}

/// Ended with the test, however that ends.
struct Sidecar(Started);

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.child.kill();
        let _ = self.0.child.wait();
    }
}

#[test]
fn a_sidecar_without_its_secret_says_so() {
    let output = Command::new(MILLPOND).args(["ion", "sidecar", "--eventid=e"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--sharedsecret"));
}

const AS_JSON: &[(&str, &str)] = &[("Host", "localhost"), ("Content-Type", "application/json")];

fn registration(secret: &str, more: &str) -> String {
    format!(
        "{{\"name\":\"r\",\"parent_event_id\":\"e-1\",\"correlation_id\":\"c\",\"secret\":\"{secret}\"{more}}}"
    )
}

#[test]
fn a_module_that_is_registered_is_served_at_once_and_after_a_kill() {
    let mut daemon = Setup::default().ion(PAIR).start();
    ask(daemon.ion(), "parent", "PUT", "/self/blob?res=a", b"of the parent").expect(200);
    refused(&ask(daemon.ion(), "hush-hush", "GET", "/self/blobs", b""), 401);
    let body = registration("hush-hush", ",\"valid_event_types\":[\"done\"]");
    admin(&daemon, "PUT", "/ion/modules/e-7", AS_JSON, &body).expect(201);
    admin(&daemon, "PUT", "/ion/modules/e-7", AS_JSON, &body).expect(200);
    for round in 0..2 {
        // On every shard: connections go to any.
        for _ in 0..8 {
            let got = ask(daemon.ion(), "hush-hush", "GET", "/parent/blob?res=a", b"").expect(200);
            assert_eq!(got.body, b"of the parent");
        }
        refused(&ask(daemon.ion(), "hush-hush", "POST", "/events", b"{\"eventType\":\"x\"}"), 400);
        let listed = admin(&daemon, "GET", "/ion/modules", AS_JSON, "").expect(200);
        let listed = json_of(&listed);
        assert_eq!(
            (listed["modules"].as_array().unwrap().len(), &listed["modules"][2]["event_id"]),
            (3, &"e-7".into())
        );
        assert!(!listed.to_string().contains("hush"), "{listed}");
        if round == 0 {
            daemon.kill9();
            daemon.restart();
        }
    }
    admin(&daemon, "DELETE", "/ion/modules/e-7", AS_JSON, "").expect(204);
    for _ in 0..8 {
        refused(&ask(daemon.ion(), "hush-hush", "GET", "/self/blobs", b""), 401);
    }
    admin(&daemon, "DELETE", "/ion/modules/e-7", AS_JSON, "").expect(404);
    admin(&daemon, "DELETE", "/ion/modules/e-1", AS_JSON, "").expect(404);
    daemon.kill9();
    daemon.restart();
    refused(&ask(daemon.ion(), "hush-hush", "GET", "/self/blobs", b""), 401);
}

#[test]
fn what_a_module_leaves_is_kept_as_long_as_was_said() {
    let daemon = Setup::default().ion(PAIR).start();
    let of = |event: &str, keep: &str| {
        let body = registration(event, keep).replace("\"e-1\"", "\"e-0\"");
        admin(&daemon, "PUT", &format!("/ion/modules/{event}"), AS_JSON, &body).expect(201);
        ask(daemon.ion(), event, "PUT", "/self/blob?res=a", b"x").expect(200);
        ask(daemon.ion(), event, "PUT", "/self/meta", b"{}").expect(200);
    };
    of("brief", ",\"keep\":\"0s\"");
    of("for-ever", "");
    for (child, parent) in [("c-1", "brief"), ("c-2", "for-ever")] {
        let body = registration(child, "").replace("\"e-1\"", &format!("\"{parent}\""));
        admin(&daemon, "PUT", &format!("/ion/modules/{child}"), AS_JSON, &body).expect(201);
        admin(&daemon, "DELETE", &format!("/ion/modules/{parent}"), AS_JSON, "").expect(204);
    }
    eventually("what was to be kept for no time is gone", || {
        let blob = ask(daemon.ion(), "c-1", "GET", "/parent/blob?res=a", b"").status;
        let meta = ask(daemon.ion(), "c-1", "GET", "/parent/meta", b"").status;
        ((blob, meta) == (404, 404)).then_some(())
    });
    ask(daemon.ion(), "c-2", "GET", "/parent/blob?res=a", b"").expect(200);
    ask(daemon.ion(), "c-2", "GET", "/parent/meta", b"").expect(200);
}

#[test]
fn modules_are_changed_by_who_may() {
    let daemon = Setup::default().ion(PAIR).start();
    let body = registration("s", "");
    let put = |headers: &[(&str, &str)], body: &str| admin(&daemon, "PUT", "/ion/modules/e-7", headers, body);
    refused(&put(&[("Host", "localhost")], &body), 403);
    refused(&put(&[("Host", "localhost"), ("Content-Type", "text/plain")], &body), 403);
    refused(&put(&[("Host", "evil.example"), ("Content-Type", "application/json")], &body), 403);
    refused(&admin(&daemon, "GET", "/ion/modules", &[("Host", "evil.example")], ""), 403);
    for bad in [
        "",
        "{}",
        "[]",
        &registration("", ""),
        &registration("s", ",\"more\":1"),
        &registration("s", ",\"keep\":\"soon\""),
    ] {
        refused(&put(AS_JSON, bad), 400);
    }
    assert!(refused(&put(AS_JSON, &registration("child", "")), 409).contains("secret"));
    assert!(
        refused(&admin(&daemon, "PUT", "/ion/modules/e-1", AS_JSON, &body), 409).contains("configuration")
    );
    refused(&admin(&daemon, "POST", "/ion/modules", AS_JSON, &body), 405);
    let daemon = Setup::default().admin_listen("\"127.0.0.1:0\"\ntokens = [\"t-1\"]").ion(PAIR).start();
    refused(&admin(&daemon, "PUT", "/ion/modules/e-7", AS_JSON, &body), 401);
    let wrong = [AS_JSON, &[("Authorization", "Bearer t-2")]].concat();
    refused(&admin(&daemon, "PUT", "/ion/modules/e-7", &wrong, &body), 401);
    let right = [("Host", "elsewhere"), ("Authorization", "Bearer t-1")];
    admin(&daemon, "PUT", "/ion/modules/e-7", &right, &body).expect(201);
    ask(daemon.ion(), "s", "GET", "/self/blobs", b"").expect(200);
}

fn example(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ion").join(name);
    Command::new(path)
}

#[track_caller]
fn ran(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A Python that has requests: the one that CI installs, or the host's.
fn python_with_requests() -> PathBuf {
    let target = Path::new(MILLPOND).ancestors().nth(2).expect("target/debug/millpond");
    let found = [target.join("clients/venv/bin/python"), "python3".into()];
    let has = |python: &&PathBuf| {
        Command::new(python).args(["-c", "import requests"]).output().is_ok_and(|ran| ran.status.success())
    };
    found
        .iter()
        .find(has)
        .cloned()
        .expect("no Python with requests: run `.ci/run clients`, or `pip install requests`")
}
