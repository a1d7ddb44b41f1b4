//! Damage to files at rest.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// All files below a directory, in order.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Flips one bit of a file.
pub fn flip(path: &Path, at: u64, bit: u32) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte to flip");
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, at).expect("flipped");
}

/// Flips a bit in every place below `dir` where `wanted` stands; how many there were.
pub fn flip_in(dir: &Path, wanted: &[u8]) -> usize {
    let mut count = 0;
    for path in files(dir) {
        let bytes = fs::read(&path).expect("readable");
        for at in memchr::memmem::find_iter(&bytes, wanted) {
            flip(&path, at as u64, 3);
            count += 1;
        }
    }
    count
}
