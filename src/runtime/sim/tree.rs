//! The names of a simulated disk: what a lookup finds, and what a power loss may leave of it.
//!
//! Creations, renames and removals are pending until their directory is synced; a power loss keeps or loses
//! each pending change on its own. A rename within one directory is one change; one between two directories is
//! durable when both were synced, and half of it is durable in between.
//!
//! Invariant: `kept` with all of `pending` applied in order is `now`.

use crate::runtime::entropy::Entropy;
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    /// A directory. Made durable at once.
    Dir,
    /// A file, by its number.
    File(u64),
}

/// All names, by path.
#[derive(Default)]
pub struct Tree {
    now: BTreeMap<PathBuf, Node>,
    kept: BTreeMap<PathBuf, Node>,
    pending: Vec<Change>,
}

/// Names and what they stand for afterwards, all or nothing.
type Change = Vec<(PathBuf, Option<Node>)>;

impl Tree {
    /// The file at `path`.
    pub fn file(&self, path: &Path) -> io::Result<u64> {
        match self.now.get(&plain(path)) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Makes a directory and what holds it.
    pub fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let path = plain(path);
        if path.ancestors().any(|above| matches!(self.now.get(above), Some(Node::File(_)))) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        for above in path.ancestors() {
            self.now.insert(above.into(), Node::Dir);
            self.kept.insert(above.into(), Node::Dir);
        }
        Ok(())
    }

    /// Whether `path` may be made a new file's name.
    pub fn vacant(&self, path: &Path) -> io::Result<()> {
        let path = plain(path);
        self.holder_of(&path)?;
        match self.now.contains_key(&path) {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => Ok(()),
        }
    }

    /// Lets `path` name `file` from here on.
    pub fn link(&mut self, path: &Path, file: u64) -> io::Result<()> {
        let path = plain(path);
        self.holder_of(&path)?;
        self.change(vec![(path, Some(Node::File(file)))]);
        Ok(())
    }

    /// Renames a file, over another one if need be.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.file(from)?;
        let to = plain(to);
        self.holder_of(&to)?;
        if self.now.get(&to) == Some(&Node::Dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if plain(from) != to {
            self.change(vec![(plain(from), None), (to, Some(Node::File(file)))]);
        }
        Ok(())
    }

    /// Unlinks a file.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.change(vec![(plain(path), None)]);
        Ok(())
    }

    /// The names in a directory, sorted.
    pub fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = plain(path);
        self.is_dir(&path)?;
        let within = |name: &&PathBuf| name.parent() == Some(&path);
        let names = self.now.keys().filter(within);
        let mut names: Vec<_> =
            names.filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned())).collect();
        names.sort();
        Ok(names)
    }

    /// Makes the changes in one directory durable.
    pub fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let path = plain(path);
        self.is_dir(&path)?;
        for change in &mut self.pending {
            for (name, node) in change.extract_if(.., |(name, _)| name.parent() == Some(&path)) {
                set(&mut self.kept, name, node);
            }
        }
        self.pending.retain(|change| !change.is_empty());
        Ok(())
    }

    /// The power fails: each pending change remains or not. `odds` is how many draws in four keep it.
    pub fn lose_power(&mut self, odds: u64, chance: &Entropy) {
        for change in self.pending.drain(..) {
            if chance.below(4) < odds {
                change.into_iter().for_each(|(name, node)| set(&mut self.kept, name, node));
            }
        }
        self.now = self.kept.clone();
    }

    /// Whether a lookup finds `file`.
    pub fn names_now(&self, file: u64) -> bool {
        self.now.values().any(|node| *node == Node::File(file))
    }

    /// Whether a lookup finds `file`, or may after a power loss.
    pub fn names_ever(&self, file: u64) -> bool {
        let node = Node::File(file);
        let pending = self.pending.iter().flatten().any(|(_, after)| *after == Some(node));
        pending || self.names_now(file) || self.kept.values().any(|kept| *kept == node)
    }

    fn holder_of(&self, path: &Path) -> io::Result<()> {
        self.is_dir(path.parent().unwrap_or(Path::new("")))
    }

    fn is_dir(&self, path: &Path) -> io::Result<()> {
        match self.now.get(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            // The working directory and the root are there without having been made.
            None if path.parent().is_none() => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: Change) {
        for (name, node) in &change {
            set(&mut self.now, name.clone(), *node);
        }
        self.pending.push(change);
    }
}

fn set(names: &mut BTreeMap<PathBuf, Node>, name: PathBuf, node: Option<Node>) {
    match node {
        Some(node) => names.insert(name, node),
        None => names.remove(&name),
    };
}

/// `path` without the dots that stand for where one is.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::Tree;
    use crate::runtime::entropy::Entropy;
    use std::path::Path;

    fn lose_all(tree: &mut Tree) {
        tree.lose_power(0, &Entropy::from_seed(1));
    }

    fn find(tree: &Tree, path: &str) -> Option<u64> {
        tree.file(Path::new(path)).ok()
    }

    fn with_dirs() -> Tree {
        let mut tree = Tree::default();
        tree.create_dir(Path::new("d/one")).unwrap();
        tree.create_dir(Path::new("d/two")).unwrap();
        tree
    }

    #[test]
    fn a_name_is_durable_once_its_directory_is_synced() {
        let mut tree = with_dirs();
        tree.link(Path::new("d/one/a"), 1).unwrap();
        tree.sync_dir(Path::new("./d/one")).unwrap();
        tree.link(Path::new("d/one/b"), 2).unwrap();
        tree.sync_dir(Path::new("d/two")).unwrap();
        assert_eq!(tree.list(Path::new("d/one")).unwrap(), ["a", "b"]);
        lose_all(&mut tree);
        assert_eq!(tree.list(Path::new("d/one")).unwrap(), ["a"]);
        assert_eq!(tree.list(Path::new("d")).unwrap(), ["one", "two"]);
    }

    #[test]
    fn a_rename_within_a_directory_is_one_change() {
        for seed in 0..20 {
            let mut tree = with_dirs();
            tree.link(Path::new("d/one/old"), 1).unwrap();
            tree.link(Path::new("d/one/new"), 2).unwrap();
            tree.sync_dir(Path::new("d/one")).unwrap();
            tree.rename(Path::new("d/one/new"), Path::new("d/one/old")).unwrap();
            tree.lose_power(2, &Entropy::from_seed(seed));
            let after = (find(&tree, "d/one/old"), find(&tree, "d/one/new"));
            assert!(after == (Some(1), Some(2)) || after == (Some(2), None), "{after:?}");
        }
    }

    #[test]
    fn a_rename_between_directories_needs_both_synced() {
        let mut tree = with_dirs();
        tree.link(Path::new("d/one/a"), 1).unwrap();
        tree.sync_dir(Path::new("d/one")).unwrap();
        tree.rename(Path::new("d/one/a"), Path::new("d/two/a")).unwrap();
        tree.sync_dir(Path::new("d/one")).unwrap();
        lose_all(&mut tree);
        assert_eq!((find(&tree, "d/one/a"), find(&tree, "d/two/a")), (None, None));
    }

    #[test]
    fn a_removal_that_was_not_synced_comes_back() {
        let mut tree = with_dirs();
        tree.link(Path::new("d/one/a"), 1).unwrap();
        tree.sync_dir(Path::new("d/one")).unwrap();
        tree.remove(Path::new("d/one/a")).unwrap();
        assert!(tree.names_ever(1) && !tree.names_now(1));
        lose_all(&mut tree);
        assert_eq!(find(&tree, "d/one/a"), Some(1));
    }
}
