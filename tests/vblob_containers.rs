//! Containers of vblob: their names, their listings, and what every path answers to every method.

mod common;

use std::sync::OnceLock;

use common::http::{End, request_bytes};
use common::moto;
use common::vblob::{elements, fresh_container, put, refused};
use common::{Conn, Daemon, Shared, get, head, request};

fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    moto::vblob().share(&DAEMON)
}

#[test]
fn making_a_container_twice_is_as_good_as_once() {
    let daemon = daemon();
    for target in ["/twice-made", "/twice-made/", "/twice%2Dmade"] {
        let answer = put(daemon.vblob(), target, &[], b"ignored").expect(200);
        assert_eq!(answer.header("location"), Some("/twice-made"));
        assert_eq!(answer.header("content-length"), Some("0"));
    }
}

#[test]
fn containers_are_listed_in_the_order_of_their_names() {
    let daemon = moto::vblob().start();
    let empty = get(daemon.vblob(), "/").expect(200);
    assert_eq!(
        empty.text(),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ContainerList xmlns=\"https://github.com/vmware-bdc/vblob/\"><Containers><Container><Name>streams</Name>\
         <CreationDate>1970-01-01T00:00:00.000Z</CreationDate></Container></Containers></ContainerList>"
    );
    for name in ["zebra", "apple", "m.n", "0zero"] {
        request(daemon.vblob(), "PUT", &format!("/{name}"), &[], b"").expect(200);
    }
    let answer = get(daemon.vblob(), "/").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/xml"));
    assert_eq!(elements(answer.text(), "Name"), ["0zero", "apple", "m.n", "streams", "zebra"]);
    for date in elements(answer.text(), "CreationDate") {
        assert!(date.len() == 24 && date.ends_with('Z'), "{date}");
    }
}

#[test]
fn only_an_empty_container_is_deleted() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "doomed");
    let delete = || request(daemon.vblob(), "DELETE", &format!("/{container}"), &[], b"");
    put(daemon.vblob(), &format!("/{container}/a"), &[], b"x").expect(200);
    refused(&delete(), 409, "ContainerNotEmpty");
    request(daemon.vblob(), "DELETE", &format!("/{container}/a"), &[], b"").expect(204);
    delete().expect(204);
    refused(&delete(), 404, "NoSuchContainer");
    refused(&get(daemon.vblob(), &format!("/{container}")), 404, "NoSuchContainer");
    assert_eq!(head(daemon.vblob(), &format!("/{container}")).status, 404);
}

#[test]
fn a_container_is_known_to_every_connection() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "known");
    for at in 0..20 {
        put(daemon.vblob(), &format!("/{container}/{at}"), &[], b"x").expect(200);
        assert_eq!(head(daemon.vblob(), &format!("/{container}/")).status, 200);
    }
}

#[test]
fn names_that_no_container_has_are_refused_on_every_route() {
    let daemon = daemon();
    let long = "a".repeat(64);
    for name in [
        "ab", &long, "Abc", "a_b", "a%20b", "a$b", "-abc", "abc-", "a..b", "a.-b", "1.2.3.4", "%C3%A4bc",
        "~config",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let zero = [("Content-Length", "0")];
            for target in [format!("/{name}"), format!("/{name}/k")] {
                refused(&request(daemon.vblob(), method, &target, &zero, b""), 400, "InvalidContainerName");
            }
        }
        assert_eq!(head(daemon.vblob(), &format!("/{name}")).status, 400);
    }
}

#[test]
fn what_is_not_allowed_says_what_is() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "methods");
    let (all, file) = ("GET, HEAD, PUT, DELETE", format!("/{container}/k"));
    for (method, target, allowed) in [
        ("HEAD", "/", "GET"),
        ("PUT", "/", "GET"),
        ("DELETE", "/", "GET"),
        ("POST", "/", "GET"),
        ("POST", &container, all),
        ("PATCH", &file, all),
        ("POST", &file, all),
    ] {
        let target = format!("/{}", target.trim_start_matches('/'));
        let answer = request(daemon.vblob(), method, &target, &[], b"");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {target}");
        if method != "HEAD" {
            refused(&answer, 405, "MethodNotAllowed");
        }
    }
    let options = request(daemon.vblob(), "OPTIONS", &file, &[], b"").expect(200);
    assert_eq!(options.header("allow"), Some(all));
    let mut conn = Conn::open(daemon.vblob());
    conn.send(request_bytes("OPTIONS", "*", &[], b""));
    conn.answer().expect(200);
}

// ---- listings ----

/// Keys and prefixes of a page, and where the next one begins.
fn page(addr: &str, target: &str) -> (Vec<String>, Vec<String>, Option<String>) {
    let answer = get(addr, target).expect(200).whole();
    let text = answer.text();
    let own = |found: Vec<&str>| found.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let folded = text.split("<CommonPrefixes>").skip(1);
    let prefixes = folded.flat_map(|part| elements(part, "Prefix").into_iter().map(str::to_owned)).collect();
    let next = elements(text, "NextMarker").first().map(|next| (*next).to_owned());
    assert_eq!(elements(text, "IsTruncated"), [if next.is_some() { "true" } else { "false" }]);
    (own(elements(text, "Key")), prefixes, next)
}

fn filled(daemon: &Daemon, what: &str, keys: &[&str]) -> String {
    let container = fresh_container(daemon.vblob(), what);
    for key in keys {
        put(daemon.vblob(), &format!("/{container}/{key}"), &[], key.as_bytes()).expect(200);
    }
    container
}

#[test]
fn a_listing_in_full() {
    let daemon = daemon();
    let container = filled(&daemon, "full", &["a%26b"]);
    let answer = get(daemon.vblob(), &format!("/{container}")).expect(200);
    let date = elements(answer.text(), "LastModified")[0].to_owned();
    assert_eq!((date.len(), answer.end), (24, End::Length), "{date}");
    assert_eq!(
        answer.text(),
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<FileList xmlns=\"https://github.com/vmware-bdc/vblob/\">\
             <Name>{container}</Name><Prefix></Prefix><Marker></Marker><MaxKeys>1000</MaxKeys>\
             <IsTruncated>false</IsTruncated><Contents><Key>a&amp;b</Key><LastModified>{date}</LastModified>\
             <ETag>&quot;bcf63481260e17ee6c0a0aabd0b23a1b&quot;</ETag><Size>5</Size>\
             <StorageClass>STANDARD</StorageClass></Contents></FileList>"
        )
    );
    let asked = head(daemon.vblob(), &format!("/{container}"));
    assert_eq!((asked.status, asked.header("content-length"), asked.end), (200, None, End::Bodyless));
}

#[test]
fn a_file_is_listed_once_it_is_stored_and_not_once_it_is_deleted() {
    let daemon = daemon();
    let container = fresh_container(daemon.vblob(), "fresh");
    for round in 0..10 {
        let target = format!("/{container}/{round}");
        put(daemon.vblob(), &target, &[], b"x").expect(200);
        assert_eq!(page(daemon.vblob(), &format!("/{container}")).0, [round.to_string()]);
        request(daemon.vblob(), "DELETE", &target, &[], b"").expect(204);
        assert!(page(daemon.vblob(), &format!("/{container}")).0.is_empty());
    }
}

#[test]
fn keys_are_in_the_order_of_their_bytes() {
    let daemon = daemon();
    let container = filled(
        &daemon,
        "order",
        &["b", "a/", "a", "B", "%F0%9F%98%80", "%EF%BF%BD", "a%20", "10", "9", "%01"],
    );
    let (keys, _, _) = page(daemon.vblob(), &format!("/{container}"));
    assert_eq!(keys, ["&#x1;", "10", "9", "B", "a", "a ", "a/", "b", "\u{fffd}", "😀"]);
}

#[test]
fn the_marker_is_the_first_key_that_a_page_may_have() {
    let daemon = daemon();
    let container = filled(&daemon, "marker", &["a", "b", "c", "d"]);
    for (marker, expected) in
        [("b", &["b", "c", "d"][..]), ("b0", &["c", "d"]), ("", &["a", "b", "c", "d"]), ("e", &[])]
    {
        let (keys, _, _) = page(daemon.vblob(), &format!("/{container}?marker={marker}"));
        assert_eq!(keys, expected, "{marker}");
    }
}

#[test]
fn prefix_and_delimiter_fold() {
    let daemon = daemon();
    let keys = ["a", "photos/1/x", "photos/1/y", "photos/2", "photos/3/z", "photos0", "z/"];
    let container = filled(&daemon, "fold", &keys);
    let page = |query: &str| page(daemon.vblob(), &format!("/{container}?{query}"));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(page("delimiter=/"), (names(&["a", "photos0"]), names(&["photos/", "z/"]), None));
    assert_eq!(
        page("delimiter=%2F&prefix=photos/"),
        (names(&["photos/2"]), names(&["photos/1/", "photos/3/"]), None)
    );
    assert_eq!(page("prefix=photos/").0.len(), 4);
    assert_eq!(page("prefix=photos/1/&delimiter=/").0, ["photos/1/x", "photos/1/y"]);
    assert_eq!(page("delimiter=/&marker=photos/2").1, ["photos/", "z/"], "what is left of it folds");
    assert_eq!(page("prefix=photos/&marker=a").0.len(), 4, "a marker before the prefix");
    assert_eq!(page("prefix=none"), (vec![], vec![], None));
    assert_eq!(page("prefix=&delimiter=&marker=&max-keys=").0.len(), 7, "empty is as absent");
}

#[test]
fn pages_join_without_a_gap_or_a_double() {
    let daemon = daemon();
    let keys: Vec<String> = (0..60)
        .map(|at| format!("{}/{:02}", ["a", "b", "c"][at % 3], at))
        .chain((0..20).map(|at| format!("{at:03}")))
        .collect();
    let container = filled(&daemon, "pages", &keys.iter().map(String::as_str).collect::<Vec<_>>());
    for (query, count) in [("", 80), ("delimiter=/&", 23), ("prefix=b/&", 20)] {
        for limit in [1, 2, 7, 20, 79] {
            let (mut found, mut marker) = (Vec::new(), String::new());
            loop {
                let target = format!("/{container}?{query}max-keys={limit}&marker={marker}");
                let (keys, prefixes, next) = page(daemon.vblob(), &target);
                let full = keys.len() + prefixes.len();
                assert!(full <= limit && (full == limit || next.is_none()), "{target}");
                found.extend(keys);
                found.extend(prefixes);
                match next {
                    Some(next) => marker = next,
                    None => break,
                }
            }
            let all = found.len();
            found.sort();
            found.dedup();
            assert_eq!((found.len(), all), (count, count), "{query} by {limit}");
        }
    }
}

#[test]
fn the_number_of_keys_is_bounded_and_must_be_one() {
    let daemon = daemon();
    let container = filled(&daemon, "bound", &["a", "b"]);
    let asked = |query: &str| get(daemon.vblob(), &format!("/{container}?{query}"));
    for (query, told) in
        [("max-keys=5000", "1000"), ("max-keys=99999999999999999999", "1000"), ("max-keys=7", "7")]
    {
        assert_eq!(elements(asked(query).expect(200).text(), "MaxKeys"), [told], "{query}");
    }
    let none = asked("max-keys=0").expect(200);
    assert_eq!(elements(none.text(), "IsTruncated"), ["false"]);
    assert!(elements(none.text(), "Key").is_empty());
    for query in ["max-keys=abc", "max-keys=-1", "max-keys=1.5", "delimiter=ab"] {
        refused(&asked(query), 400, "InvalidArgument");
    }
    assert_eq!(asked("delimiter=%C3%A9").status, 200, "one character of two bytes");
}
