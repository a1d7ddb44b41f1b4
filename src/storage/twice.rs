//! Small files that are written twice, so that one bad sector costs nothing.
//!
//! Each copy is replaced atomically and has a checksum of its own. Runs where files may block.

use super::error::OpenError;
use crate::runtime::Disk;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// One copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Copy<T> {
    /// There is no such file.
    Missing,
    /// It is not what it was when it was written.
    Damaged,
    /// As it was written.
    Whole(T),
}

/// Reads both copies; `decode` gives nothing for one that is damaged. Blocks.
pub fn read<T>(
    disk: &dyn Disk,
    paths: &[PathBuf; 2],
    mut decode: impl FnMut(&Path, &[u8]) -> Result<Option<T>, OpenError>,
) -> Result<[Copy<T>; 2], OpenError> {
    let mut copies = [const { Copy::Missing }; 2];
    for (copy, path) in copies.iter_mut().zip(paths) {
        *copy = match disk.read(path) {
            Ok(bytes) => decode(path, &bytes)?.map_or(Copy::Damaged, Copy::Whole),
            Err(error) if error.kind() == ErrorKind::NotFound => Copy::Missing,
            Err(error) => return Err(OpenError::Io(path.clone(), error)),
        };
    }
    Ok(copies)
}
