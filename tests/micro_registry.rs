//! micro: what the registry promises, by curl's means and by websocket.
//!
//! Bodies are compared to the byte: programs in Go read them, and so do scripts.

mod common;

use std::sync::OnceLock;
use std::time::Duration;

use common::micro::{Socket, service};
use common::{Answer, Daemon, Setup, Shared, eventually, fresh_id, get, request};

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    Setup::default().micro("").share(&DAEMON)
}

fn post(target: &str, body: &str) -> Answer {
    request(daemon().micro(), "POST", target, &[], body.as_bytes())
}

fn delete(body: &str) -> Answer {
    request(daemon().micro(), "DELETE", "/registry", &[], body.as_bytes())
}

fn find(name: &str) -> Answer {
    get(daemon().micro(), &format!("/registry?service={name}"))
}

#[test]
fn what_is_registered_is_found_with_every_key_in_order() {
    let name = fresh_id("order");
    let answer = post("/registry", &service(&name, &format!("{name}-1"), 9091)).expect(200);
    assert_eq!((answer.body.len(), answer.header("content-type")), (0, None), "an empty answer has no type");
    let found = find(&name).expect(200);
    assert_eq!(found.header("content-type"), Some("application/json"));
    assert_eq!(
        found.text(),
        format!(
            r#"[{{"name":"{name}","version":"","metadata":null,"endpoints":null,"nodes":[{{"id":"{name}-1","address":"127.0.0.1","port":9091,"metadata":{{}}}}]}}]"#
        )
    );
}

#[test]
fn all_nodes_count_and_metadata_is_kept() {
    let name = fresh_id("all");
    let body = format!(
        r#"{{"name":"{name}","version":"1.0","metadata":{{"Zone":"<b>"}},"endpoints":[{{"name":"E.C","request":{{"name":"r","type":"T"}}}}],
           "nodes":[{{"id":"{name}-b","address":"b:1"}},{{"id":"{name}-a","address":"a","port":2,"metadata":{{"k":"v"}}}}]}}"#
    );
    post("/registry", &body).expect(200);
    assert_eq!(
        find(&name).expect(200).text(),
        format!(
            r#"[{{"name":"{name}","version":"1.0","metadata":{{"Zone":"\u003cb\u003e"}},"endpoints":[{{"name":"E.C","request":{{"name":"r","type":"T","values":null}},"response":null,"metadata":null}}],"nodes":[{{"id":"{name}-a","address":"a","port":2,"metadata":{{"k":"v"}}}},{{"id":"{name}-b","address":"b:1","port":0,"metadata":{{}}}}]}}]"#
        )
    );
}

#[test]
fn versions_are_elements_of_one_list_and_an_id_is_in_one_of_them() {
    let name = fresh_id("versions");
    for version in ["1", "2"] {
        let node = format!("{name}-{version}");
        post(
            "/registry",
            &format!(r#"{{"name":"{name}","version":"{version}","nodes":[{{"id":"{node}"}}]}}"#),
        )
        .expect(200);
    }
    let versions = |answer: &Answer| -> Vec<String> {
        let list: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        list.as_array().unwrap().iter().map(|one| one["version"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(versions(&find(&name)), ["1", "2"]);
    post("/registry", &format!(r#"{{"name":"{name}","version":"2","nodes":[{{"id":"{name}-1"}}]}}"#))
        .expect(200);
    assert_eq!(versions(&find(&name)), ["2"]);
}

#[test]
fn the_list_has_names_alone() {
    let name = fresh_id("list");
    post("/registry", &service(&name, &name, 1)).expect(200);
    let list = get(daemon().micro(), "/registry").expect(200);
    let entry = format!(r#"{{"name":"{name}","version":"","metadata":null,"endpoints":null,"nodes":null}}"#);
    assert!(list.text().contains(&entry), "{}", list.text());
}

#[test]
fn nodes_are_deregistered_by_id_whatever_else_the_body_says() {
    let name = fresh_id("gone");
    post("/registry", &service(&name, &name, 1)).expect(200);
    delete(&service("another", &name, 99)).expect(200);
    let answer = find(&name).expect(404);
    assert_eq!(answer.text(), "Service not found\n");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    delete(&service(&name, "never-there", 1)).expect(200);
}

#[test]
fn a_lease_ends_unless_it_is_renewed() {
    let (name, kept) = (fresh_id("lease"), fresh_id("renewed"));
    post("/registry?ttl=400ms", &service(&name, &name, 1)).expect(200);
    post("/registry?ttl=400ms", &service(&kept, &kept, 1)).expect(200);
    find(&name).expect(200);
    eventually("the lease ends", || {
        post("/registry?ttl=1m0.5s", &service(&kept, &kept, 1)).expect(200);
        (find(&name).status == 404).then_some(())
    });
    find(&kept).expect(200);
}

#[test]
fn a_ttl_that_is_no_duration_is_ignored_and_one_that_is_not_positive_refused() {
    let name = fresh_id("ttl");
    post("/registry?ttl=soon", &service(&name, &name, 1)).expect(200);
    find(&name).expect(200);
    for ttl in ["0s", "-5s"] {
        post(&format!("/registry?ttl={ttl}"), &service("refused", "refused", 1)).expect(400);
    }
    find("refused").expect(404);
}

#[test]
fn mistakes_are_told_in_the_words_of_the_original() {
    for (body, status, text) in [
        ("", 500, "unexpected end of JSON input\n"),
        ("{x", 500, "invalid character 'x' looking for beginning of object key string\n"),
        ("null", 500, "Require at least one node\n"),
        (r#"{"name":"a"}"#, 500, "Require at least one node\n"),
        (r#"{"nodes":[{"id":"a"}]}"#, 400, "Require a service name\n"),
        (r#"{"name":"a","nodes":[{}]}"#, 400, "Require an id for each node\n"),
    ] {
        assert_eq!(post("/registry", body).expect(status).text(), text, "{body}");
    }
    assert_eq!(delete("{}").expect(500).text(), "Require at least one node\n");
    let put = request(daemon().micro(), "PUT", "/registry", &[], b"{}").expect(405);
    assert_eq!(put.header("allow"), Some("GET, HEAD, POST, DELETE"));
    post("/registry", &" ".repeat((4 << 20) + 1)).expect(413);
}

#[test]
fn curls_content_type_does_no_harm() {
    let name = fresh_id("curl");
    let fields = [("Content-Type", "application/x-www-form-urlencoded")];
    request(daemon().micro(), "POST", "/registry", &fields, service(&name, &name, 1).as_bytes()).expect(200);
    find(&name).expect(200);
}

#[test]
fn a_watch_tells_what_happens_to_one_service() {
    let name = fresh_id("watch");
    let mut watch = Socket::open(daemon().micro(), &format!("/registry?service={name}"));
    post("/registry", &service(&name, &format!("{name}-1"), 1)).expect(200);
    let mut action = |action: &str, nodes: usize| {
        let event = watch.json();
        assert_eq!(
            (event["Action"].as_str(), event["Service"]["name"].as_str()),
            (Some(action), Some(&*name))
        );
        assert_eq!(event["Service"]["nodes"].as_array().map_or(0, Vec::len), nodes, "{event}");
    };
    action("create", 0);
    action("create", 1);
    post("/registry", &service(&name, &format!("{name}-2"), 2)).expect(200);
    action("update", 2);
    delete(&service(&name, &format!("{name}-1"), 1)).expect(200);
    action("delete", 1);
    action("update", 1);
    delete(&service(&name, &format!("{name}-2"), 2)).expect(200);
    action("delete", 1);
    post("/registry?ttl=10s", &service("someone-else", &fresh_id("else"), 2)).expect(200);
    assert!(watch.is_silent_for(Duration::from_millis(50)), "others are not told of");
    watch.close();
}

#[test]
fn who_watches_everything_learns_what_there_is_first() {
    let name = fresh_id("snapshot");
    post("/registry", &service(&name, &name, 1)).expect(200);
    let mut watch = Socket::open(daemon().micro(), "/registry");
    let named = format!(
        r#"{{"Action":"create","Service":{{"name":"{name}","version":"","metadata":null,"endpoints":null,"nodes":null}}}}"#
    );
    while watch.text() != named {}
    assert_eq!(watch.json()["Service"]["nodes"][0]["id"].as_str(), Some(&*name));
}

#[test]
fn a_registration_is_known_to_every_shard_before_it_is_answered() {
    let daemon = Setup::default().shards(4).micro("").start();
    let addr = daemon.micro();
    for round in 0..50 {
        let name = format!("round-{round}");
        request(addr, "POST", "/registry", &[], service(&name, &name, 1).as_bytes()).expect(200);
        // Every request is a connection of its own, which the kernel gives to any shard.
        for _ in 0..8 {
            get(addr, &format!("/registry?service={name}")).expect(200);
        }
    }
}

#[test]
fn paths_are_cleaned_and_unknown_ones_are_404() {
    let answer = get(daemon().micro(), "//registry//x?a=b").expect(301);
    assert_eq!(answer.header("location"), Some("/registry/x?a=b"));
    assert_eq!(get(daemon().micro(), "/registry/x").expect(404).text(), "404 page not found\n");
}

#[test]
fn tokens_and_origins_are_looked_at() {
    let setup = Setup::default().micro("tokens = [\"secret\"]\ncors = [\"https://app.example\"]");
    let daemon = setup.start();
    let ask = |fields: &[(&str, &str)]| request(daemon.micro(), "GET", "/registry", fields, b"");
    ask(&[]).expect(401);
    ask(&[("Authorization", "Bearer wrong")]).expect(401);
    let token = ("Authorization", "Bearer secret");
    let answer = ask(&[token, ("Origin", "https://app.example")]).expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(ask(&[token, ("Origin", "https://evil.example")]).header("access-control-allow-origin"), None);
    let preflight =
        request(daemon.micro(), "OPTIONS", "/anything", &[("Origin", "https://app.example")], b"");
    assert_eq!(
        preflight.expect(200).header("access-control-allow-methods"),
        Some("POST, GET, OPTIONS, PUT, DELETE")
    );
    let evil =
        request(daemon.micro(), "POST", "/broker?topic=a", &[token, ("Origin", "https://evil.example")], b"");
    evil.expect(403);
    let refused = Socket::try_open(
        daemon.micro(),
        "/broker?topic=a",
        &[("Authorization", "Bearer secret"), ("Origin", "https://evil.example")],
    );
    assert_eq!(refused.err(), Some(403));
}
