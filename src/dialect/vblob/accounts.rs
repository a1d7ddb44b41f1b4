//! Accounts beside the main one: a file of `{"key":"secret"}` pairs in JSON, and what all shards know of it.
//!
//! The file is the truth. A change reads it, writes it whole and durably, and only then publishes what is in it; the
//! daemon reads it again when it is told to reload. Shards look at an immutable table.
//! Invariant: what was answered as bound is in the file. Lives on: all shards; files are touched by workers and the
//! main thread.

use crate::config::Secret;
use crate::runtime::Disk;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What all shards share to tell who may.
pub struct Accounts {
    file: Option<PathBuf>,
    bound: ArcSwap<Bound>,
    #[allow(
        clippy::disallowed_types,
        reason = "taken by workers and the main thread around a file, by no shard"
    )]
    changing: std::sync::Mutex<()>,
    nonce_key: [u8; 32],
}

/// Ids with their secrets.
#[derive(Clone, Debug, Default)]
pub struct Bound(BTreeMap<String, Secret>);

/// A change of the file.
pub enum Change {
    /// Adds an account, unless there is one with that id.
    Bind(String, Secret),
    /// Takes it away, if it is there.
    Unbind(String),
}

impl Accounts {
    /// Those in `file`, which may be missing. `nonce_key` is nobody else's.
    pub fn open(disk: &dyn Disk, file: Option<&Path>, nonce_key: [u8; 32]) -> io::Result<Self> {
        let bound = file.map_or(Ok(Bound::default()), |file| read(disk, file))?;
        Ok(Accounts {
            file: file.map(Path::to_owned),
            bound: ArcSwap::from_pointee(bound),
            changing: Default::default(),
            nonce_key,
        })
    }

    /// Those that are bound now.
    pub fn bound(&self) -> Arc<Bound> {
        self.bound.load_full()
    }

    /// What nonces are signed with.
    pub fn nonce_key(&self) -> &[u8; 32] {
        &self.nonce_key
    }

    /// Reads the file again. A file that cannot be read changes nothing. Blocks.
    pub fn reload(&self, disk: &dyn Disk) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let _changing = self.changing.lock().expect("nothing panics under this lock");
        self.bound.store(Arc::new(read(disk, file)?));
        Ok(())
    }

    /// Changes the file and what is known of it; false when there was nothing to change. Blocks.
    pub fn change(&self, disk: &dyn Disk, change: Change) -> io::Result<bool> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let _changing = self.changing.lock().expect("nothing panics under this lock");
        let mut bound = read(disk, file)?;
        let changed = match change {
            Change::Bind(id, _) if bound.0.contains_key(&id) => false,
            Change::Bind(id, secret) => bound.0.insert(id, secret).is_none(),
            Change::Unbind(id) => bound.0.remove(&id).is_some(),
        };
        if changed {
            disk.replace(file, bound.json().as_bytes())?;
        }
        self.bound.store(Arc::new(bound));
        Ok(changed)
    }
}

impl Bound {
    /// The secret of an account.
    pub fn secret(&self, id: &str) -> Option<&Secret> {
        self.0.get(id)
    }

    /// As the file has it.
    pub fn json(&self) -> String {
        let pairs = self.0.iter().map(|(id, secret)| (id.clone(), secret.expose().into()));
        serde_json::Value::Object(pairs.collect()).to_string()
    }

    fn parse(json: &[u8]) -> Option<Self> {
        let pairs: BTreeMap<String, String> = serde_json::from_slice(json).ok()?;
        Some(Bound(pairs.into_iter().map(|(id, secret)| (id, Secret::new(secret))).collect()))
    }
}

fn read(disk: &dyn Disk, file: &Path) -> io::Result<Bound> {
    match disk.read(file) {
        Ok(json) if json.trim_ascii().is_empty() => Ok(Bound::default()),
        Ok(json) => Bound::parse(&json).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, r#"not pairs of strings in JSON: {"key":"secret"}"#)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Bound::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sim::SimDisk;

    fn bind(id: &str) -> Change {
        Change::Bind(id.into(), Secret::new("s\"1"))
    }

    #[test]
    fn what_is_bound_is_in_the_file_and_known() {
        let (disk, file) = (SimDisk::new(1), Path::new("accounts.json"));
        let open = || Accounts::open(&disk, Some(file), [0; 32]).unwrap();
        let accounts = open();
        assert_eq!(accounts.bound().json(), "{}");
        assert!(accounts.change(&disk, bind("b")).unwrap());
        assert!(accounts.change(&disk, bind("a")).unwrap());
        assert!(!accounts.change(&disk, bind("a")).unwrap(), "it is there");
        assert_eq!(accounts.bound().json(), r#"{"a":"s\"1","b":"s\"1"}"#);
        assert!(open().bound().secret("b").is_some_and(|secret| secret.matches(b"s\"1")));
        assert!(accounts.change(&disk, Change::Unbind("b".into())).unwrap());
        assert!(!accounts.change(&disk, Change::Unbind("b".into())).unwrap());
        assert!(accounts.bound().secret("b").is_none() && open().bound().secret("b").is_none());
    }

    #[test]
    fn a_change_keeps_what_others_wrote_and_a_bad_file_changes_nothing() {
        let (disk, file) = (SimDisk::new(1), Path::new("accounts.json"));
        let accounts = Accounts::open(&disk, Some(file), [0; 32]).unwrap();
        disk.replace(file, br#" {"x": "1"} "#).unwrap();
        assert!(accounts.bound().secret("x").is_none());
        accounts.change(&disk, bind("a")).unwrap();
        assert!(accounts.bound().secret("x").is_some());
        for bad in [&b"{"[..], b"[]", br#"{"x":1}"#, b"\xff"] {
            disk.replace(file, bad).unwrap();
            assert!(accounts.reload(&disk).is_err() && accounts.change(&disk, bind("b")).is_err());
            assert!(accounts.bound().secret("x").is_some() && disk.read(file).unwrap() == bad);
        }
        disk.replace(file, b"\n").unwrap();
        accounts.reload(&disk).unwrap();
        assert!(accounts.bound().secret("x").is_none());
    }
}
