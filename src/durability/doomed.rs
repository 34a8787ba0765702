//! Folders that the next start may remove.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Folders of banks that another was to replace, which failed and could not be taken back: what is written into them may be lost. There are
/// as many at most as restores failed so.
#[derive(Debug, Clone, Default)]
pub(super) struct Doomed(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Doomed {
    pub(super) fn add<'a>(&self, folders: impl IntoIterator<Item = &'a Path>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(folders.into_iter().map(Path::to_owned));
    }

    pub(super) fn has(&self, folder: &Path) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }
}
