//! A real containerd and runc behind kind 0, driven by its own client through the daemon; real containers' output
//! through kinds 1 and 65. Everything is private to the test: directories, socket, image.

mod common;

use common::serpentine::{LONG, MAGIC, ask, demux, exactly, frames, rest};
use common::{Daemon, Setup, bytes_of, eventually, sha256};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

const IMAGE: &str = "local/box:1";

/// A containerd of this test, the daemon before it, and a socket that `ctr` can speak to and that leads through the daemon.
struct World {
    containerd: Child,
    daemon: Daemon,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "containers need root here");
        // Paths of sockets have at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("mpc").tempdir_in("/tmp").expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{}\"\n",
            at("root").display(),
            at("state").display(),
            at("c.sock").display()
        );
        fs::write(at("c.toml"), config).expect("a file");
        let log = fs::File::create(at("c.log")).expect("a file");
        let containerd = Command::new("containerd")
            .arg("--config")
            .arg(at("c.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd is missing: apt-get install --no-install-recommends containerd runc busybox-static");
        let lines = format!(
            "containerd_socket = \"{}\"\noutput = \"block\"\nfifo_dir = \"{}\"",
            at("c.sock").display(),
            at("f").display()
        );
        let daemon = Setup::default().serpentine(&lines).start();
        let world = World { containerd, daemon, dir };
        world.put_a_client_socket_up();
        eventually("containerd answers through the daemon", || {
            world.ctr(&["version"]).status.success().then_some(())
        });
        world
    }

    /// `ctr` speaks to unix sockets only and knows no preamble.
    fn put_a_client_socket_up(&self) {
        let listener = UnixListener::bind(self.at("ctr.sock")).expect("a socket");
        let to = self.daemon.serpentine().to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(mut server) = TcpStream::connect(&to) else { continue };
                server.write_all(&[MAGIC, &[0]].concat()).expect("the preamble is taken");
                let (c, s) = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
                std::thread::spawn(move || pass(client, server, |server| server.shutdown(Shutdown::Write)));
                std::thread::spawn(move || pass(s, c, |client: UnixStream| client.shutdown(Shutdown::Write)));
            }
        });
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.at("ctr.sock")).args(["--namespace", "serpentine"]).args(args);
        command.stdin(Stdio::null());
        command
    }

    fn ctr(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("ctr comes with containerd")
    }

    #[track_caller]
    fn must(&self, args: &[&str]) -> Vec<u8> {
        let output = self.ctr(args);
        assert!(output.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// An image of one static program, made here.
    fn import_an_image(&self) {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let busybox = busybox.expect("busybox is missing: apt-get install busybox-static");
        let bin = self.at("rootfs/bin");
        fs::create_dir_all(&bin).expect("a directory");
        fs::copy(busybox, bin.join("busybox")).expect("copied");
        for applet in ["sh", "cat", "seq", "sleep", "dd", "kill"] {
            symlink("busybox", bin.join(applet)).expect("a link");
        }
        let layer = self.at("layer.tar");
        run(Command::new("tar").arg("-C").arg(self.at("rootfs")).arg("-cf").arg(&layer).arg("."));
        let layer = fs::read(layer).expect("a layer");
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
            sha256(&layer)
        );
        let described = |kind: &str, bytes: &[u8]| {
            format!(
                r#""mediaType":"application/vnd.oci.image.{kind}","digest":"sha256:{}","size":{}"#,
                sha256(bytes),
                bytes.len()
            )
        };
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{{}}},"layers":[{{{}}}]}}"#,
            described("config.v1+json", config.as_bytes()),
            described("layer.v1.tar", &layer)
        );
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{{},"annotations":{{"io.containerd.image.name":"{IMAGE}"}}}}]}}"#,
            described("manifest.v1+json", manifest.as_bytes())
        );
        let image = self.at("image");
        let blobs = image.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a directory");
        for blob in [config.as_bytes(), manifest.as_bytes(), &layer] {
            fs::write(blobs.join(sha256(blob)), blob).expect("a blob");
        }
        fs::write(image.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        fs::write(image.join("index.json"), index).expect("a file");
        let tar = self.at("image.tar");
        run(Command::new("tar").arg("-C").arg(&image).arg("-cf").arg(&tar).arg("."));
        self.must(&["images", "import", "--snapshotter", "native", tar.to_str().expect("text")]);
    }

    /// An output of the daemon: its connection and where to write.
    fn output(&self) -> (TcpStream, String) {
        let mut stream = ask(self.daemon.serpentine(), 1);
        let len = exactly(&mut stream, 1)[0];
        let path = String::from_utf8(exactly(&mut stream, len.into())).expect("text");
        (stream, path)
    }

    fn run(&self, name: &str, output: &str, script: &str) -> std::process::ExitStatus {
        let args = [
            "run",
            "--rm",
            "--snapshotter",
            "native",
            "--log-uri",
            output,
            IMAGE,
            name,
            "/bin/sh",
            "-c",
            script,
        ];
        let ran = self.ctr(&args);
        assert!(ran.stdout.is_empty(), "its output goes to the FIFO");
        ran.status
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for task in String::from_utf8_lossy(&self.ctr(&["tasks", "ls", "-q"]).stdout).split_whitespace() {
            self.ctr(&["tasks", "kill", "-s", "SIGKILL", task]);
            self.ctr(&["tasks", "delete", "--force", task]);
        }
        let pid = rustix::process::Pid::from_raw(self.containerd.id() as i32).expect("a pid");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.containerd.wait();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.at("c.log")).unwrap_or_default());
        }
    }
}

fn pass<T: Write>(mut from: impl Read, mut to: T, end: impl Fn(T) -> std::io::Result<()>) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = end(to);
}

#[track_caller]
fn run(command: &mut Command) {
    assert!(command.status().expect("it can be run").success(), "{command:?}");
}

/// One test, because a containerd and an image are dear; each part says what it shows.
#[test]
fn containers_run_through_the_daemon_and_their_output_arrives() {
    let world = World::new();
    world.import_an_image();
    content_goes_both_ways(&world);
    output_is_exact_and_so_is_the_status(&world);
    containers_are_executed_in_and_killed_and_events_tell(&world);
    a_client_that_crashes_leaves_the_container_running(&world);
    a_container_of_runc_has_its_streams_apart(&world);
    assert_eq!(fs::read_dir(world.at("f")).expect("there").count(), 0, "a FIFO stays behind");
}

fn content_goes_both_ways(world: &World) {
    let content = bytes_of(50, 20_000_000);
    let digest = format!("sha256:{}", sha256(&content));
    let mut ingest = world
        .command(&["content", "ingest", "--expected-size", "20000000", "--expected-digest", &digest, "big"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ctr");
    ingest.stdin.take().expect("piped").write_all(&content).expect("taken");
    assert!(ingest.wait().expect("it ends").success());
    let back = world.must(&["content", "get", &digest]);
    assert_eq!((back.len(), sha256(&back)), (content.len(), sha256(&content)));
}

fn output_is_exact_and_so_is_the_status(world: &World) {
    let (stream, path) = world.output();
    let reading = std::thread::spawn(move || rest(stream).expect("an end"));
    let status = world.run("exact", &path, "seq 200000; echo done >&2; exit 7");
    assert_eq!(status.code(), Some(7));
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let received = String::from_utf8(reading.join().expect("read")).expect("text");
    // The two streams share the FIFO, so where the second one's line stands is not known.
    assert_eq!(received.replacen("done\n", "", 1), expected);
    assert_eq!(received.len(), expected.len() + 5);
}

fn containers_are_executed_in_and_killed_and_events_tell(world: &World) {
    let mut events = world.command(&["events"]).stdout(Stdio::piped()).spawn().expect("ctr");
    let (stream, path) = world.output();
    let args = [
        "run",
        "-d",
        "--snapshotter",
        "native",
        "--log-uri",
        &path,
        IMAGE,
        "long",
        "/bin/sh",
        "-c",
        "echo up; sleep 600",
    ];
    world.must(&args);
    let mut stream = stream;
    assert_eq!(exactly(&mut stream, 3), b"up\n");
    let said = world.must(&["tasks", "exec", "--exec-id", "one", "long", "/bin/sh", "-c", "echo inside"]);
    assert_eq!(said, b"inside\n");
    world.must(&["tasks", "kill", "-s", "SIGKILL", "long"]);
    assert_eq!(rest(stream).expect("an end, once the container is gone"), b"");
    eventually("the container has stopped", || {
        String::from_utf8_lossy(&world.ctr(&["tasks", "ls"]).stdout).contains("STOPPED").then_some(())
    });
    world.must(&["tasks", "delete", "long"]);
    world.must(&["containers", "delete", "long"]);
    let _ = events.kill();
    let mut told = String::new();
    events.stdout.take().expect("piped").read_to_string(&mut told).expect("text");
    events.wait().expect("it ends");
    for topic in ["/containers/create", "/tasks/start", "/tasks/exec-started", "/tasks/exit"] {
        assert!(told.contains(topic), "no {topic} in\n{told}");
    }
}

fn a_client_that_crashes_leaves_the_container_running(world: &World) {
    let (mut stream, path) = world.output();
    let name = Path::new(&path).file_name().expect("a name").to_str().expect("text").to_owned();
    let args = [
        "run",
        "-d",
        "--snapshotter",
        "native",
        "--log-uri",
        &path,
        IMAGE,
        "orphan",
        "/bin/sh",
        "-c",
        "echo up; sleep 1; seq 300000",
    ];
    world.must(&args);
    assert_eq!(exactly(&mut stream, 3), b"up\n");
    common::serpentine::reset(stream);
    let begun = Instant::now();
    eventually("the container ends by itself", || {
        String::from_utf8_lossy(&world.ctr(&["tasks", "ls"]).stdout).contains("STOPPED").then_some(())
    });
    assert!(begun.elapsed() < LONG);
    world.must(&["tasks", "delete", "orphan"]);
    world.must(&["containers", "delete", "orphan"]);
    eventually("the output is over", || (!Path::new(&path).exists()).then_some(()));
    let kept = world.daemon.get(&format!("/stream/serpentine%2F{name}"));
    let expected: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&kept.body), format!("up\n{expected}"));
    world.daemon.wait_metric("millpond_outputs_open", |open| open == 0.0);
}

/// `ctr` gives one path for both streams; runc hands on what it has.
fn a_container_of_runc_has_its_streams_apart(world: &World) {
    let mut stream = ask(world.daemon.serpentine(), 65);
    let paths = [(); 2].map(|()| {
        let len = exactly(&mut stream, 1)[0];
        String::from_utf8(exactly(&mut stream, len.into())).expect("text")
    });
    let bundle = world.at("bundle");
    fs::create_dir_all(&bundle).expect("a directory");
    run(Command::new("runc").arg("spec").current_dir(&bundle));
    let config = fs::read(bundle.join("config.json")).expect("runc wrote it");
    let mut config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    config["root"]["path"] = world.at("rootfs").to_str().expect("text").into();
    config["process"]["terminal"] = false.into();
    let script = "seq 50000; seq 7 >&2; printf end; printf '\\377' >&2; exit 3";
    config["process"]["args"] = ["/bin/sh", "-c", script].into();
    fs::write(bundle.join("config.json"), config.to_string()).expect("written");
    let fifo = |path: &String| fs::OpenOptions::new().write(true).open(path).expect("the FIFO is read");
    let mut container = Command::new("runc");
    container.arg("--root").arg(world.at("runc")).args(["run", "apart"]).current_dir(&bundle);
    container.stdin(Stdio::null()).stdout(fifo(&paths[0])).stderr(fifo(&paths[1]));
    let status = container.status().expect("runc comes with containerd");
    // It has write ends of its own.
    drop(container);
    assert_eq!(status.code(), Some(3));
    let received = frames(&rest(stream).expect("an end"));
    let lines = |last: u32| (1..=last).map(|number| format!("{number}\n")).collect::<String>();
    let (out, err) = demux(&received);
    assert_eq!(String::from_utf8(out).expect("text"), lines(50_000) + "end");
    assert_eq!(err, [lines(7).as_bytes(), &[0xff]].concat());
    let end = received.last().expect("frames").end();
    assert_eq!((end.1, end.3), (15, 1), "seven lines and a byte, and the client was there");
}
