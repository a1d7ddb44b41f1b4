//! The driver `s3` against a store that judges: another daemon of ours, whose S3 door verifies every signature, by TLS.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::daemon::scratch;
use common::moto::remote;
use common::s3::with_keys;
use common::vblob::{elements, fresh_container, put, refused};
use common::{Daemon, Setup, bytes_of, eventually, get, request};

fn openssl(dir: &Path, arguments: &str) {
    let made = Command::new("openssl").args(arguments.split_whitespace()).current_dir(dir).output();
    let made = made.expect("openssl is needed for this test; apt-get install openssl");
    assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

/// An authority, and a certificate of it for loopback.
fn certificates(dir: &Path) {
    fs::write(dir.join("extensions"), "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\n")
        .expect("a file");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        dir,
        &format!(
            "req -x509 {key} -days 2 -subj /CN=ca -addext basicConstraints=critical,CA:TRUE \
             -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem"
        ),
    );
    openssl(dir, &format!("req {key} -subj /CN=server -keyout server.key -out server.csr"));
    openssl(
        dir,
        "x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions \
         -out server.pem",
    );
}

fn over(endpoint: &str, more: &str) -> Setup {
    Setup::default().vblob("").further("[blob]\ndriver = \"s3\"").further(&remote(endpoint, more))
}

fn far(tls: &str) -> Daemon {
    Setup::default().s3(&format!("{}\n{tls}", with_keys())).start()
}

#[test]
fn what_we_sign_is_right_and_any_key_that_is_text_comes_back() {
    let far = far("");
    let near = over(&format!("http://{}", far.s3()), "").awaiting_readiness().start();
    let container = fresh_container(near.vblob(), "signed");
    let keys = [
        "a",
        "a/",
        "//",
        "..",
        "a/../b",
        "%20",
        "a%20b%09c",
        "%0A",
        "a+b",
        "%25",
        "%E6%97%A5",
        "*",
        "'",
        "~",
    ];
    for key in keys {
        put(near.vblob(), &format!("/{container}/{key}"), &[("x-blb-meta-k", "a  b")], key.as_bytes())
            .expect(200);
    }
    for key in keys {
        let answer = get(near.vblob(), &format!("/{container}/{key}")).expect(200);
        assert_eq!(
            (answer.body.as_slice(), answer.header("x-blb-meta-k")),
            (key.as_bytes(), Some("a  b")),
            "{key}"
        );
    }
    let page = get(near.vblob(), &format!("/{container}?delimiter=/&prefix=a")).expect(200);
    assert_eq!(elements(page.text(), "Prefix"), ["a", "a/"], "{}", page.text());
    let large = bytes_of(1, 9 << 20);
    put(near.vblob(), &format!("/{container}/large"), &[], &large).expect(200);
    request(
        near.vblob(),
        "PUT",
        &format!("/{container}/copy"),
        &[("x-blb-copy-from", &format!("/{container}/large"))],
        b"",
    )
    .expect(200);
    assert!(get(near.vblob(), &format!("/{container}/copy")).expect(200).body == large);
    let far_container = format!("millpond-{container}");
    let there = common::s3::signed(far.s3(), "GET", &format!("/{far_container}/copy"), &[], b"").expect(200);
    assert!(there.body == large, "it lies there");
}

#[test]
fn keys_that_are_not_known_there_are_told_and_open_nothing() {
    let far = far("");
    let section = remote(&format!("http://{}", far.s3()), "").replace("wJalrXUtnFEMI", "another");
    let near = Setup::default().vblob("").further("[blob]\ndriver = \"s3\"").further(&section).start();
    eventually("readiness says why", || {
        get(near.admin(), "/readyz").text().contains("[-] remote.s3: it does not let us in").then_some(())
    });
    refused(&get(near.vblob(), "/"), 503, "ServiceUnavailable");
    assert!(!near.log().contains("another/K7MDENG"), "a secret is never logged");
}

#[test]
fn by_tls_who_the_authority_vouches_for_is_believed_and_nobody_else() {
    let dir = scratch();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let tls =
        format!("tls = {{ cert_file = \"{}\", key_file = \"{}\" }}", file("server.pem"), file("server.key"));
    let far = far(&tls);
    let endpoint = format!("https://{}", far.s3());
    let near = over(&endpoint, &format!("ca_file = \"{}\"", file("ca.pem"))).awaiting_readiness().start();
    let container = fresh_container(near.vblob(), "secret");
    let bytes = bytes_of(2, 3 << 20);
    put(near.vblob(), &format!("/{container}/a"), &[], &bytes).expect(200);
    assert!(get(near.vblob(), &format!("/{container}/a")).expect(200).body == bytes);
    certificates(dir.path());
    let stranger = over(&endpoint, &format!("ca_file = \"{}\"", file("ca.pem"))).start();
    eventually("it is not believed", || {
        get(stranger.admin(), "/readyz").text().contains("[-] remote.s3: not reached yet").then_some(())
    });
    refused(&get(stranger.vblob(), "/"), 503, "ServiceUnavailable");
}
