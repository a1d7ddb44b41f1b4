//! TLS on every listener: versions, client certificates, what happens to connections when certificates change, and
//! to those that never finish their handshake. Clients are curl, openssl and Python's ssl.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use common::daemon::scratch;
use common::{Conn, Daemon, Setup, Shared, bytes_of, eventually, fresh_id};

const BIG: usize = 9 << 20;

/// Two authorities, and what they signed. Made once for all tests.
struct Pki(tempfile::TempDir);

impl Pki {
    fn shared() -> &'static Pki {
        static PKI: OnceLock<Pki> = OnceLock::new();
        PKI.get_or_init(|| {
            let pki = Pki(scratch());
            for ca in ["ca", "other"] {
                pki.openssl(&format!(
                    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={ca} \
                     -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
                     -keyout {ca}.key -out {ca}.pem"
                ));
            }
            for (name, ca) in [("server", "ca"), ("renewed", "ca"), ("client", "ca"), ("stranger", "other")] {
                pki.openssl(&format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
                     -keyout {name}.key -out {name}.csr"
                ));
                pki.openssl(&format!(
                    "x509 -req -days 2 -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial \
                     -extfile extensions -out {name}.pem"
                ));
            }
            pki
        })
    }

    fn openssl(&self, arguments: &str) {
        let extensions = "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n";
        fs::write(self.0.path().join("extensions"), extensions).expect("a file");
        let made = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .expect("openssl is needed for this test; apt-get install openssl");
        assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The same by the flag names of micro's sidecar.
    fn flat(&self, name: &str) -> String {
        let file = |key: &str, name: String| format!("tls_{key}_file = \"{}\"\n", self.path(&name).display());
        let (cert, key) = (file("cert", format!("{name}.pem")), file("key", format!("{name}.key")));
        format!("enable_tls = true\n{cert}{key}{}", file("client_ca", "ca.pem".to_owned()))
    }

    /// The value of a section's `tls`, with the certificate called `name`.
    fn toml(&self, name: &str, client_ca: bool) -> String {
        let file = |name: &str| self.path(name).display().to_string();
        let ca = if client_ca { format!(", client_ca_file = \"{}\"", file("ca.pem")) } else { String::new() };
        format!(
            "tls = {{ cert_file = \"{}\", key_file = \"{}\"{ca} }}",
            file(&format!("{name}.pem")),
            file(&format!("{name}.key"))
        )
    }
}

/// A daemon all of whose dialects speak TLS.
fn daemon() -> Shared {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    let tls = Pki::shared().toml("server", false);
    Setup::default().loom(&tls).vblob(&tls).s3(&tls).ion(&tls).micro(&tls).share(&DAEMON)
}

/// curl, trusting our authority.
fn curl(arguments: &[&str]) -> Output {
    Command::new("curl")
        .args(["-sS", "--max-time", "30", "--cacert"])
        .arg(Pki::shared().path("ca.pem"))
        .args(arguments)
        .output()
        .expect("curl is needed for this test; apt-get install curl")
}

#[track_caller]
fn fetched(arguments: &[&str]) -> Vec<u8> {
    let output = curl(arguments);
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn python(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script, Pki::shared().path("ca.pem").to_str().expect("text")]).args(arguments);
    command
}

#[test]
fn every_listener_speaks_both_versions_and_keeps_every_byte() {
    let daemon = daemon();
    let dir = scratch();
    let (sent, received) = (dir.path().join("sent"), dir.path().join("received"));
    let content = bytes_of(7, BIG);
    fs::write(&sent, &content).expect("a file");
    let (sent, received) = (sent.to_str().expect("text"), received.to_str().expect("text"));
    for version in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
        let id = fresh_id("tls");
        let loom = format!("https://{}/stream/{id}", daemon.loom());
        let vblob = format!("https://{}/{id}", daemon.vblob());
        let s3 = format!("https://{}/{id}-s3", daemon.s3());
        fetched(&[version, &["-f", "-X", "PUT", &vblob]].concat());
        fetched(&[version, &["-f", "-X", "PUT", &s3]].concat());
        for (how, target) in
            [("POST", loom), ("PUT", format!("{vblob}/file")), ("PUT", format!("{s3}/object"))]
        {
            fetched(&[version, &["-f", "-X", how, "--data-binary", &format!("@{sent}"), &target]].concat());
            fetched(&[version, &["-f", "-o", received, &target]].concat());
            assert!(fs::read(received).expect("a file") == content, "{version:?} {target}");
        }
        let status = ["-o", "/dev/null", "-w", "%{http_code}"];
        let ion = format!("https://{}/", daemon.ion());
        assert_eq!(fetched(&[version, &status, &[&ion]].concat()), b"404", "modules live below /");
        let registry = format!("https://{}/registry", daemon.micro());
        assert_eq!(fetched(&[version, &status, &[&registry]].concat()), b"200");
    }
}

#[test]
fn chunked_bodies_and_many_requests_share_a_connection() {
    let daemon = daemon();
    let id = fresh_id("tls");
    let base = format!("https://{}/stream/{id}", daemon.loom());
    let script = "
import sys, ssl, http.client
ca, host, path = sys.argv[1:]
connection = http.client.HTTPSConnection(host, context=ssl.create_default_context(cafile=ca))
for turn in range(20):
    chunks = [bytes([turn]) * (1 + 3001 * piece) for piece in range(20)]
    connection.request('POST', f'{path}-{turn}', body=iter(chunks), encode_chunked=True,
                       headers={'Transfer-Encoding': 'chunked'})
    answer = connection.getresponse(); answer.read()
    assert answer.status == 201, answer.status
    connection.request('GET', f'{path}-{turn}')
    assert connection.getresponse().read() == b''.join(chunks)
print(connection.sock.version())
";
    let output = python(script, &[daemon.loom(), base.split_once(daemon.loom()).expect("a path").1])
        .output()
        .expect("python3 is needed for this test; apt-get install python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"TLSv1.3\n");
}

/// A head may be longer than what a connection takes in at once.
#[test]
fn a_head_longer_than_an_inbox_is_read_to_its_end() {
    let tls = Pki::shared().toml("server", false);
    let daemon = Setup::default().loom(&tls).limits("max_header_bytes = \"256KiB\"").start();
    let script = "
import socket, ssl, sys
host, port = sys.argv[2].split(':')
context = ssl.create_default_context(cafile=sys.argv[1])
for fields in (20, 60):
    with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as s:
        s.settimeout(30)
        s.sendall(b'GET /streams HTTP/1.1\\r\\nHost: x\\r\\n' + (b'X-Long: ' + b'x' * 7000 + b'\\r\\n') * fields + b'\\r\\n')
        print(s.recv(12).decode())
";
    let output = python(script, &[daemon.loom()]).output().expect("python3");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "HTTP/1.1 200\nHTTP/1.1 431\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn older_versions_and_other_protocols_are_refused() {
    let daemon = daemon();
    let old = Command::new("openssl")
        .args(["s_client", "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0", "-connect", daemon.loom()])
        .stdin(Stdio::null())
        .output()
        .expect("openssl is needed for this test; apt-get install openssl");
    let said = String::from_utf8_lossy(&old.stderr);
    assert!(!old.status.success() && said.contains("alert"), "{said}");
    let agreed = fetched(&[
        "-o",
        "/dev/null",
        "-w",
        "%{http_version}",
        "--http2",
        &format!("https://{}/", daemon.loom()),
    ]);
    assert_eq!(agreed, b"1.1", "ALPN offers one protocol");
    // Plain HTTP gets an alert and no answer.
    let mut plain = Conn::open(daemon.loom());
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let said = plain.rest();
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
}

#[test]
fn clients_show_a_certificate_where_they_must() {
    let pki = Pki::shared();
    let tls = pki.toml("server", true);
    let daemon = Setup::default().loom(&tls).ion(&tls).micro(&pki.flat("server")).start();
    for (target, expected) in [
        (format!("https://{}/stream/absent", daemon.loom()), "404"),
        (format!("https://{}/", daemon.ion()), "404"),
        (format!("https://{}/registry", daemon.micro()), "200"),
    ] {
        let with = |name: &str| {
            let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
            let (cert, key) = (cert.display().to_string(), key.display().to_string());
            curl(&["-w", "%{http_code}", "-o", "/dev/null", "--cert", &cert, "--key", &key, &target])
        };
        let trusted = with("client");
        let said = String::from_utf8_lossy(&trusted.stderr);
        assert_eq!(String::from_utf8_lossy(&trusted.stdout), expected, "{target}: {said}");
        assert!(!with("stranger").status.success(), "{target}: another authority signed it");
        assert!(!curl(&[&target]).status.success(), "{target}: none was shown");
    }
}

/// A hundred times, of two dialects at once: new connections get the new one, and those that are kept stay.
#[test]
fn certificates_change_under_load_without_a_failed_request() {
    let pki = Pki::shared();
    let shows = |name: &str| Setup::default().loom(&pki.toml(name, false)).micro(&pki.toml(name, false));
    let mut daemon = shows("server").start();
    // For each listener connections of one request each, and one that is kept, until the file is there.
    let script = "
import sys, os, ssl, http.client, threading
ca, stop, *targets = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
failed, made, names, kept_made = [], [], [set(), set()], threading.Semaphore(0)
def ask(connection, path):
    connection.request('GET', path)
    answer = connection.getresponse(); answer.read()
    assert answer.status == 404, answer.status
def until_stopped(work):
    count = 0
    try:
        while not failed and not os.path.exists(stop):
            work(); count += 1
    except Exception as error:
        failed.append(repr(error))
    made.append(count)
def fresh(host, path, names):
    def work():
        connection = http.client.HTTPSConnection(host, context=context, timeout=20)
        ask(connection, path)
        names.add(dict(pair[0] for pair in connection.sock.getpeercert()['subject'])['commonName'])
        connection.close()
    until_stopped(work)
def kept(host, path):
    connection = http.client.HTTPSConnection(host, context=context, timeout=20)
    ask(connection, path)
    socket = connection.sock
    kept_made.release()
    def work():
        ask(connection, path)
        assert connection.sock is socket, 'another connection'
    until_stopped(work)
threads = []
for number, target in enumerate(targets):
    host, path = target.split('/', 1)
    threads.append(threading.Thread(target=fresh, args=(host, '/' + path, names[number])))
    threads.append(threading.Thread(target=kept, args=(host, '/' + path)))
for thread in threads: thread.start()
for _ in targets: kept_made.acquire()
print('begun', flush=True)
for thread in threads: thread.join()
print(all(count > 20 for count in made), [sorted(of) for of in names], failed)
";
    let stop = daemon.dir().join("stop");
    let (loom, micro) = (daemon.loom().to_owned(), daemon.micro().to_owned());
    let targets = [format!("{loom}/stream/absent"), format!("{micro}/registry?service=absent")];
    let mut client = python(script, &[stop.to_str().expect("text"), &targets[0], &targets[1]])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed for this test; apt-get install python3");
    let mut said = BufReader::new(client.stdout.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert_eq!(line, "begun\n");
    for turn in 1..=100 {
        let name = ["server", "renewed"][turn % 2];
        daemon.reload_with(shows(name));
        for addr in [&loom, &micro] {
            eventually("new connections get the new certificate", || {
                let output = curl(&["-v", "-o", "/dev/null", &format!("https://{addr}/")]);
                String::from_utf8_lossy(&output.stderr).contains(&format!("CN={name}")).then_some(())
            });
        }
    }
    fs::write(&stop, "").expect("a file");
    let mut verdict = String::new();
    said.read_line(&mut verdict).expect("a line");
    assert!(client.wait().expect("the client ends").success());
    let both = "['renewed', 'server']";
    assert_eq!(verdict, format!("True [{both}, {both}] []\n"), "both were seen, and nothing failed");
}

#[test]
fn bad_files_change_nothing_and_are_named() {
    let pki = Pki::shared();
    let mut daemon = Setup::default().loom(&pki.toml("server", false)).start();
    let wrong = pki.toml("server", false).replace("server.key", "client.key");
    daemon.reload_with(Setup::default().loom(&wrong));
    let log = eventually("the log says why", || {
        let log = daemon.own_log();
        log.contains("the certificates were not reloaded").then_some(log)
    });
    let line = log.lines().find(|line| line.contains("were not reloaded")).expect("the line");
    for part in ["millpond.toml:", "loom.tls.key_file = ", "client.key", "does not fit the certificate"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    fetched(&["-o", "/dev/null", &format!("https://{}/", daemon.loom())]);
}

#[test]
fn serve_and_check_config_refuse_bad_files_alike() {
    let pki = Pki::shared();
    let dir = scratch();
    for (from, to, why) in [
        ("server.pem", "missing.pem", "it cannot be read: "),
        ("server.pem", "server.key", "it holds no certificate"),
        ("server.key", "server.pem", "no private key can be read from it"),
        ("server.key", "client.key", "it does not fit the certificate"),
    ] {
        let field = if from == "server.pem" { "cert_file" } else { "key_file" };
        let loom = Setup::default().loom(&pki.toml("server", false).replacen(from, to, 1));
        let micro = Setup::default().micro(&pki.flat("server").replacen(from, to, 1));
        for (setup, key) in [(loom, format!("loom.tls.{field}")), (micro, format!("micro.tls_{field}"))] {
            let config = dir.path().join("millpond.toml");
            let toml = setup.toml(&dir.path().join("data"));
            let wrong = |line: &str| line.contains(field) && line.contains(to);
            let place = toml.lines().position(wrong).expect("the line") + 1;
            fs::write(&config, &toml).expect("a file");
            let value = format!("{:?}", pki.path(to));
            let begin = format!("{}:{place}: {key} = {value}: {why}", config.display());
            for command in ["serve", "check-config"] {
                let mut millpond = Command::new(common::daemon::MILLPOND);
                let output = millpond.arg(command).arg("--config").arg(&config).output().expect("it runs");
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(78), "{command}: {said}");
                let named = |line: &str| line.starts_with(&begin) && line.contains("; accepted: a PEM file");
                assert!(said.lines().any(named), "{begin}: {said}");
                assert!(!dir.path().join("data").exists(), "{command} leaves nothing");
            }
        }
    }
}

#[test]
fn a_handshake_that_does_not_go_on_is_ended() {
    let pki = Pki::shared();
    let daemon =
        Setup::default().limits("header_timeout = \"300ms\"").loom(&pki.toml("server", false)).start();
    // The beginning of a record of a handshake, and nothing more.
    let mut half = Conn::open(daemon.loom());
    half.send([22, 3, 1, 2, 0, 1, 0]);
    let mut silent = Conn::open(daemon.loom());
    assert!(half.ends() && silent.ends(), "both are closed in time");
    daemon.wait_metric("millpond_connections_open", |open| open <= 1.0);
}

#[test]
fn a_body_that_is_cut_without_a_word_is_not_kept() {
    let daemon = daemon();
    let id = fresh_id("tls");
    fetched(&["-f", "-X", "PUT", &format!("https://{}/{id}", daemon.vblob())]);
    let script = "
import sys, ssl, socket
ca, host, path = sys.argv[1:]
address, port = host.split(':')
context = ssl.create_default_context(cafile=ca)
raw = socket.create_connection((address, int(port)))
tls = context.wrap_socket(raw, server_hostname=address)
tls.sendall(f'PUT {path} HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 100000\\r\\n\\r\\n'.encode() + b'x' * 50000)
# No close_notify: the descriptor is closed under the session.
socket.close(tls.detach())
";
    let path = format!("/{id}/cut");
    let cut = python(script, &[daemon.vblob(), &path]).status().expect("python3 is needed for this test");
    assert!(cut.success());
    let code =
        fetched(&["-o", "/dev/null", "-w", "%{http_code}", &format!("https://{}{path}", daemon.vblob())]);
    assert_eq!(code, b"404");
}
