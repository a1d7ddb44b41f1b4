//! A real S3 server: moto, on a port of its own, which can die and come back on it.
//!
//! Which driver the shared tests of vblob and ion run over, the name of their program says.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::daemon::{Setup, dies_with_us, nursery};
use super::wait::eventually;

/// Where `.ci/run clients` installs what tests drive.
pub fn clients() -> PathBuf {
    // target/tmp is cargo's; the clients lie beside it.
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory").join("clients")
}

/// A server that keeps what it is given for as long as it lives.
pub struct Moto {
    port: u16,
    child: Option<Child>,
}

impl Moto {
    /// Starts one; none where it is not installed, which CI takes for a failure.
    pub fn start() -> Option<Moto> {
        let python = clients().join("venv/bin/moto_server");
        if !python.exists() {
            let sentence = format!("{} is missing; `.ci/run clients` installs it", python.display());
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{sentence}");
            eprintln!("SKIPPED: {sentence}");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let mut moto = Moto { port: port.expect("a port").port(), child: None };
        moto.come_back();
        Some(moto)
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `[remote.s3]`, and more lines in it.
    pub fn section(&self, more: &str) -> String {
        remote(&self.endpoint(), more)
    }

    /// Starts it again, empty.
    pub fn come_back(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let mut command = Command::new(clients().join("venv/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &self.port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        dies_with_us(&mut command);
        let mut child = nursery(command).expect("moto can be started");
        let log = child.stderr.take().expect("it is piped");
        // Nobody reads it, and it must not stand still for that.
        std::thread::spawn(move || BufReader::new(log).lines().for_each(drop));
        self.child = Some(child);
        let address = format!("127.0.0.1:{}", self.port);
        eventually("moto listens", || TcpStream::connect(&address).ok());
    }

    /// Kills it with all it has.
    pub fn die(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.die();
    }
}

/// `[remote.s3]` for an endpoint.
pub fn remote(endpoint: &str, more: &str) -> String {
    format!(
        "[remote.s3]\nendpoint = \"{endpoint}\"\naccess_key_id = \"AKIDEXAMPLE\"\n\
         secret_access_key = \"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY\"\n{more}\n"
    )
}

/// Whether the tests of this program run over the driver `s3`.
pub fn is_used() -> bool {
    let program = std::env::current_exe().expect("a program");
    program.file_name().is_some_and(|name| name.to_string_lossy().contains("_on_s3"))
}

/// The server that all tests of this program share; none where it is not installed.
fn shared() -> Option<&'static Moto> {
    static MOTO: OnceLock<Option<Moto>> = OnceLock::new();
    MOTO.get_or_init(Moto::start).as_ref().filter(|_| is_used())
}

/// `[remote.s3]` with buckets that no other daemon has.
fn section_of_its_own(moto: &Moto) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    moto.section(&format!("bucket_prefix = \"m{}-\"", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Vblob, over the driver that this program is for. Where moto is missing the tests run over segments once more.
pub fn vblob() -> Setup {
    let setup = Setup::default().vblob("");
    match is_used().then(shared).flatten() {
        None => setup,
        Some(moto) => {
            setup.further("[blob]\ndriver = \"s3\"").further(&section_of_its_own(moto)).awaiting_readiness()
        }
    }
}

/// Ion, with blobs where this program is for.
pub fn ion(lines: &str) -> Setup {
    match is_used().then(shared).flatten() {
        None => Setup::default().ion(lines),
        Some(moto) => {
            let setup = Setup::default().ion(&format!("blob_provider = \"s3\"\n{lines}"));
            setup.further(&section_of_its_own(moto)).awaiting_readiness()
        }
    }
}
