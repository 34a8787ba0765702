//! Making sure that the disk has it.

use std::fs::File;
use std::path::Path;

use super::StoreError;

/// The folder's list of names reaches the disk.
pub(super) fn folder(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(StoreError::io("sync", path))
}

/// A new file with this content reaches the disk, and its name the list of its folder.
pub(super) fn new_file(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let written = || {
        let mut file = File::create_new(path)?;
        std::io::Write::write_all(&mut file, content)?;
        file.sync_all()
    };
    written().map_err(StoreError::io("write", path))?;
    path.parent().map_or(Ok(()), folder)
}
