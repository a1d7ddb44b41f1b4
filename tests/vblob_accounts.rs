//! Who may use vblob: three ways to sign in, and accounts that come and go.

mod common;

use std::fs;

use common::vblob::{code_of, put, refused};
use common::{Answer, Daemon, Setup, eventually, get, head, json_of, request};
use hmac::{Hmac, Mac};
use md5::Md5;
use millpond::codec::text::{base64, hex};
use millpond::codec::time::HttpDate;
use sha1::Sha1;
use sha2::{Digest, Sha256};

const MAIN: &str = "key_id = \"main\"\nsecret_id = \"sec:ret\"\n";

fn with_auth(auth: &str) -> Daemon {
    Setup::default().vblob(&format!("auth = \"{auth}\"\n{MAIN}")).start()
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", base64(format!("{id}:{secret}").as_bytes()))
}

#[track_caller]
fn challenges(answer: &Answer) -> Vec<String> {
    refused(answer, 401, "Unauthorized");
    let fields = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    fields.map(|(_, value)| String::from_utf8(value.clone()).unwrap()).collect()
}

#[test]
fn basic_lets_in_who_knows_the_secret() {
    let daemon = with_auth("basic");
    let good = basic("main", "sec:ret");
    let ask = |method, target: &str, field: &str| {
        request(daemon.vblob(), method, target, &[("Authorization", field), ("Content-Length", "0")], b"")
    };
    ask("PUT", "/abc", &good).expect(200);
    ask("PUT", "/abc/k", &good).expect(200);
    ask("GET", "/abc/k", &good).expect(200);
    for field in [&basic("main", "wrong"), &basic("other", "sec:ret"), "Basic", "Bearer x", ""] {
        let answer = ask("GET", "/abc/k", field);
        assert_eq!(challenges(&answer), [r#"Basic realm="vblob restricted area", charset="UTF-8""#]);
    }
    assert_eq!(head(daemon.vblob(), "/abc/k").status, 401);
    assert_eq!(challenges(&get(daemon.vblob(), "/")).len(), 1);
}

#[test]
fn accounts_are_judged_before_names() {
    let daemon = with_auth("basic");
    for target in ["/NO", "/abc/%zz", "/missing/k"] {
        refused(&get(daemon.vblob(), target), 401, "Unauthorized");
    }
    let large = vec![0; 100_000];
    refused(&put(daemon.vblob(), "/abc/k", &[], &large), 401, "Unauthorized");
}

fn parameter<'a>(challenge: &'a str, name: &str) -> &'a str {
    let from = challenge.find(&format!("{name}=\"")).expect("the parameter") + name.len() + 2;
    challenge[from..].split('"').next().unwrap()
}

fn digest_field(sha256: bool, secret: &str, method: &str, target: &str, nonce: &str) -> String {
    let hash = |text: String| match sha256 {
        true => hex(&Sha256::digest(text)),
        false => hex(&Md5::digest(text)),
    };
    let who = hash(format!("main:vblob restricted area:{secret}"));
    let what = hash(format!("{method}:{target}"));
    let response = hash(format!("{who}:{nonce}:0000000a:abc:auth:{what}"));
    let algorithm = if sha256 { "SHA-256" } else { "MD5" };
    format!(
        "Digest username=\"main\", realm=\"vblob restricted area\", nonce=\"{nonce}\", uri=\"{target}\", \
         algorithm={algorithm}, qop=auth, nc=0000000a, cnonce=\"abc\", response=\"{response}\", opaque=\"millpond\""
    )
}

#[test]
fn digest_is_that_of_the_rfc_in_both_algorithms_and_on_every_shard() {
    let daemon = with_auth("digest");
    let offered = challenges(&get(daemon.vblob(), "/"));
    assert_eq!(offered.len(), 2);
    assert!(offered[0].contains("algorithm=SHA-256") && offered[1].contains("algorithm=MD5"), "{offered:?}");
    assert!(offered.iter().all(|offer| offer.contains("qop=\"auth\"") && !offer.contains("stale")));
    let nonce = parameter(&offered[0], "nonce");
    let ask = |method, target, field: &str| {
        request(daemon.vblob(), method, target, &[("Authorization", field)], b"")
    };
    for sha256 in [true, false] {
        ask("PUT", "/abc", &digest_field(sha256, "sec:ret", "PUT", "/abc", nonce)).expect(200);
        // Connections go to either shard: a nonce holds for both.
        for _ in 0..8 {
            let target = "/abc?prefix=a,b%20c";
            ask("GET", target, &digest_field(sha256, "sec:ret", "GET", target, nonce)).expect(200);
        }
        let wrong = challenges(&ask("GET", "/abc", &digest_field(sha256, "wrong", "GET", "/abc", nonce)));
        assert!(wrong.iter().all(|offer| !offer.contains("stale")));
        let other = digest_field(sha256, "sec:ret", "GET", "/abc", nonce);
        refused(&ask("GET", "/abc/k", &other), 401, "Unauthorized");
        refused(&ask("DELETE", "/abc", &other), 401, "Unauthorized");
        let stale = challenges(&ask("GET", "/abc", &digest_field(sha256, "sec:ret", "GET", "/abc", "00ff")));
        assert!(stale.iter().all(|offer| offer.ends_with("stale=true")), "{stale:?}");
    }
}

#[test]
fn a_signed_request_is_let_in() {
    let daemon = with_auth("s3");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (now, old) = (HttpDate::at(now).to_string(), HttpDate::at(now - 3600).to_string());
    let sign = |secret: &str, text: String| {
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        format!("AWS main:{}", base64(&mac.finalize().into_bytes()))
    };
    let ask = |method: &str, target: &str, signed: &str, secret: &str, date: &str| {
        let field = sign(secret, format!("{method}\n\n\n{date}\n{signed}"));
        let fields = [("Date", date), ("Authorization", field.as_str()), ("Content-Length", "0")];
        request(daemon.vblob(), method, target, &fields, b"")
    };
    ask("PUT", "/abc/", "/abc", "sec:ret", &now).expect(200);
    ask("PUT", "/abc/a%20b", "/abc/a%20b", "sec:ret", &now).expect(200);
    ask("GET", "/abc/a%20b", "/abc/a b", "sec:ret", &now).expect(200);
    ask("GET", "/abc?prefix=a", "/abc", "sec:ret", &now).expect(200);
    ask("GET", "/", "/", "sec:ret", &now).expect(200);
    for (target, signed, secret, date) in [
        ("/abc", "/abc", "wrong", &now),
        ("/abc", "/other", "sec:ret", &now),
        ("/abc", "/abc", "sec:ret", &old),
    ] {
        let answer = ask("GET", target, signed, secret, date);
        assert_eq!(challenges(&answer), [r#"AWS realm="vblob restricted area""#]);
    }
}

// ---- accounts that come and go ----

fn with_accounts(file: &std::path::Path) -> Setup {
    let file = file.display();
    Setup::default()
        .vblob(&format!("auth = \"basic\"\n{MAIN}account_api = true\naccount_file = \"{file}\"\n"))
}

fn manage(daemon: &Daemon, method: &str, target: &str, body: &str) -> Answer {
    let main = basic("main", "sec:ret");
    request(daemon.vblob(), method, target, &[("Authorization", &main)], body.as_bytes())
}

fn status(daemon: &Daemon, id: &str, secret: &str) -> u16 {
    request(daemon.vblob(), "GET", "/", &[("Authorization", &basic(id, secret))], b"").status
}

fn may(daemon: &Daemon, id: &str, secret: &str) -> bool {
    let statuses: Vec<u16> = (0..6).map(|_| status(daemon, id, secret)).collect();
    assert!(statuses.iter().all(|status| *status == statuses[0]), "shards differ: {statuses:?}");
    statuses[0] == 200
}

#[test]
fn an_account_is_bound_at_once_kept_and_unbound() {
    let dir = common::daemon::scratch();
    let file = dir.path().join("accounts.json");
    let mut daemon = with_accounts(&file).start();
    assert_eq!(json_of(&manage(&daemon, "GET", "/~bind", "")), serde_json::json!({}));
    let bound = manage(&daemon, "PUT", "/~bind", r#"{"app":"pass"}"#).expect(200);
    assert!(bound.body.is_empty());
    manage(&daemon, "PUT", "/~bind/", r#"{"app2":"päss"}"#).expect(200);
    assert!(may(&daemon, "app", "pass") && may(&daemon, "app2", "päss") && !may(&daemon, "app", "other"));
    let all = serde_json::json!({"app": "pass", "app2": "päss"});
    assert_eq!(json_of(&manage(&daemon, "GET", "/~bind/", "")), all);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&fs::read(&file).unwrap()).unwrap(), all);
    refused(&manage(&daemon, "PUT", "/~bind", r#"{"app":"again"}"#), 409, "KeyExists");
    refused(&manage(&daemon, "PUT", "/~bind", r#"{"main":"x"}"#), 409, "KeyExists");
    daemon.kill9();
    daemon.restart();
    assert!(may(&daemon, "app", "pass"));
    manage(&daemon, "PUT", "/~unbind", r#"{"app":"whatever"}"#).expect(200);
    assert!(!may(&daemon, "app", "pass") && may(&daemon, "app2", "päss"));
    refused(&manage(&daemon, "PUT", "/~unbind", r#"{"app":""}"#), 404, "NoSuchKey");
    refused(&manage(&daemon, "PUT", "/~unbind", r#"{"main":""}"#), 404, "NoSuchKey");
}

#[test]
fn what_is_no_account_is_refused_and_not_kept() {
    let dir = common::daemon::scratch();
    let file = dir.path().join("accounts.json");
    let daemon = with_accounts(&file).start();
    for body in ["{", "[]", "{}", r#"{"a":1}"#, r#"{"a":"b","c":"d"}"#, r#"{"a:b":"c"}"#] {
        refused(&manage(&daemon, "PUT", "/~bind", body), 400, "BadJSONFormat");
    }
    let long = format!(r#"{{"long":"{}"}}"#, "x".repeat(503));
    assert_eq!(long.len(), 514);
    refused(&manage(&daemon, "PUT", "/~bind", &long), 400, "MaxMessageLengthExceeded");
    assert_eq!(manage(&daemon, "GET", "/~bind", "").text(), "{}");
    assert!(!file.exists());
    let fits = format!(r#"{{"fits":"{}"}}"#, "x".repeat(501));
    assert_eq!(fits.len(), 512);
    manage(&daemon, "PUT", "/~bind", &fits).expect(200);
}

#[test]
fn accounts_are_for_the_main_one_alone_and_only_where_they_are_on() {
    let dir = common::daemon::scratch();
    let daemon = with_accounts(&dir.path().join("accounts.json")).start();
    manage(&daemon, "PUT", "/~bind", r#"{"app":"pass"}"#).expect(200);
    let other = basic("app", "pass");
    for (method, target) in [("GET", "/~bind"), ("PUT", "/~bind"), ("PUT", "/~unbind")] {
        for fields in [&[][..], &[("Authorization", other.as_str())]] {
            refused(&request(daemon.vblob(), method, target, fields, br#"{"x":"y"}"#), 401, "Unauthorized");
        }
    }
    assert_eq!(manage(&daemon, "DELETE", "/~bind", "").status, 405);
    assert_eq!(manage(&daemon, "GET", "/~unbind", "").header("allow"), Some("PUT"));
    let without = with_auth("basic");
    assert_eq!(code_of(&manage(&without, "GET", "/~bind", "")), "InvalidContainerName");
}

#[test]
fn the_main_account_is_asked_for_even_where_nobody_else_is() {
    let dir = common::daemon::scratch();
    let file = dir.path().join("accounts.json");
    let lines =
        format!("auth = \"disabled\"\n{MAIN}account_api = true\naccount_file = \"{}\"\n", file.display());
    let daemon = Setup::default().vblob(&lines).start();
    get(daemon.vblob(), "/").expect(200);
    refused(&get(daemon.vblob(), "/~bind"), 401, "Unauthorized");
    manage(&daemon, "GET", "/~bind", "").expect(200);
}

#[test]
fn a_file_that_others_changed_is_read_again_when_told() {
    let dir = common::daemon::scratch();
    let file = dir.path().join("accounts.json");
    fs::write(&file, r#"{"first":"1"}"#).unwrap();
    let setup = with_accounts(&file);
    let mut daemon = setup.clone().start();
    assert!(may(&daemon, "first", "1"));
    fs::write(&file, r#"{"second":"2"}"#).unwrap();
    daemon.reload_with(setup.clone());
    eventually("the second account may", || (status(&daemon, "second", "2") == 200).then_some(()));
    assert!(may(&daemon, "second", "2") && !may(&daemon, "first", "1"));
    fs::write(&file, "{").unwrap();
    daemon.reload_with(setup);
    eventually("the log says so", || daemon.log().contains("the accounts were not reloaded").then_some(()));
    assert!(may(&daemon, "second", "2"), "a bad file changes nothing");
}

#[test]
fn a_secret_that_was_changed_holds_from_the_next_request_on() {
    let mut daemon = with_auth("basic");
    assert!(may(&daemon, "main", "sec:ret"));
    daemon.reload_with(Setup::default().vblob("auth = \"basic\"\nkey_id = \"main\"\nsecret_id = \"new\"\n"));
    eventually("the new secret holds", || (status(&daemon, "main", "new") == 200).then_some(()));
    eventually("the old one does not", || (status(&daemon, "main", "sec:ret") == 401).then_some(()));
}
