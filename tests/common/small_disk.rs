//! A small file system of its own for daemons that come and go, and somebody else who takes its room.
//!
//! It lies in namespaces of mounts and processes that one process holds, which ends with its input, so that nothing
//! outlives the test however that ends. Invariant: what takes room never touches what the daemon wrote.

use super::daemon::{Setup, Started, scratch};
use super::eventually;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// See the module.
pub struct SmallDisk {
    holder: Child,
    dir: TempDir,
}

/// A tmpfs that is the disk.
const PLAIN: &str = r#"mount -t tmpfs -o size=$1m none "$0" && mkdir "$0/data" && echo made && exec cat"#;

/// A thin image of ext4 on a tmpfs. The file system has promised room that is not there: what fails is the write of a
/// page, or the sync. Its own tables have their room, so that it is whole itself; and it keeps no blocks of the image in
/// memory, as it would give back others than were asked for once it could not write some. That option is part of a name,
/// which it looks for as it stands.
const IMAGE: &str = r#"
    PATH=$PATH:/usr/sbin; mount -t tmpfs -o size=$1m none "$0" && cd "$0" && mkdir data && truncate -s $(($1 * 4))m image &&
    mkfs.ext4 -q -e continue -O ^has_journal -m 0 -N 2048 image && fallocate -n -l 8m image || exit 1
    ln -s image 'image?cache=off' && fuse2fs -f 'image?cache=off' data -o rw 2>fuse2fs &
    while ! mountpoint -q data; do kill -0 $! || { cat fuse2fs; exit 1; }; done
    echo made; cat"#;

impl SmallDisk {
    /// One whose room is `mib` MiB.
    pub fn plain(mib: u32) -> Self {
        Self::hold(PLAIN, mib)
    }

    /// One that has four times the room that is behind it, `mib` MiB.
    pub fn image(mib: u32) -> Self {
        Self::hold(IMAGE, mib)
    }

    fn hold(script: &str, mib: u32) -> Self {
        let dir = scratch();
        let disk = dir.path().join("disk");
        std::fs::create_dir(&disk).expect("a directory");
        let mut holder = Command::new("unshare")
            .arg(if is_root() { "-mpf" } else { "-rmpf" })
            .args(["--mount-proc", "--kill-child", "sh", "-c", script])
            .arg(&disk)
            .arg(mib.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare, of util-linux, can be started");
        let mut line = String::new();
        let said = holder.stdout.as_mut().expect("a pipe");
        BufReader::new(said).read_line(&mut line).expect("readable");
        assert_eq!(line.trim(), "made", "a file system can be mounted in a namespace of its own");
        SmallDisk { holder, dir }
    }

    /// Where the room is, as seen from here.
    fn room(&self) -> PathBuf {
        let disk = self.dir.path().join("disk");
        let inside = disk.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    /// `millpond serve` on it, and what its ready line says.
    pub fn serve(&self) -> (Started, serde_json::Value) {
        let config = configuration(self.dir.path());
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-m"]);
        if !is_root() {
            command.args(["-U", "--preserve-credentials"]);
        }
        command.args(["--", env!("CARGO_BIN_EXE_millpond"), "serve", "--config"]).arg(&config);
        let mut started = Started::spawn(command, &self.dir.path().join("log"));
        let line = started.ready_line().unwrap_or_else(|| panic!("not ready:\n{}", started.log()));
        (started, serde_json::from_str(&line).expect("a ready line"))
    }

    /// Leaves `free` bytes, if there are more.
    pub fn fill(&self, free: u64) {
        let path = self.room().join("filler");
        let file = std::fs::File::create(path).expect("made");
        // The daemon makes segments meanwhile, and is quicker now and then.
        eventually("the disk is filled", || {
            let space = rustix::fs::statvfs(self.room()).expect("a file system");
            let there = space.f_bavail * space.f_frsize;
            let taken = match there.saturating_sub(free) {
                0 => Ok(()),
                some => rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, some),
            };
            taken.ok()
        });
    }

    /// Gives the room back, and waits until the file system takes bytes again: one that failed may first have to get rid
    /// of what it could not write. False when it turned read-only, which it does now and then, and for good.
    pub fn empty(&self) -> bool {
        std::fs::remove_file(self.room().join("filler")).expect("there");
        let probe = self.room().join("data/probe");
        let written = || {
            let mut file = std::fs::File::create(&probe)?;
            file.write_all(&[1; 8192])?;
            file.sync_all()?;
            std::fs::remove_file(&probe)
        };
        eventually("the file system takes bytes again", || match written() {
            Ok(()) => Some(true),
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => Some(false),
            Err(_) => None,
        })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Writes the configuration for the data directory in `dir`.
fn configuration(dir: &Path) -> PathBuf {
    let config = dir.join("millpond.toml");
    let toml = Setup::default().shards(1).toml(&dir.join("disk/data/d"));
    std::fs::write(&config, toml).expect("the configuration can be written");
    config
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
