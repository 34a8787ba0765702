//! Files that no checkpoint names, of attempts that ended before there was a manifest.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore as _};

use super::checkpoints::{Archive, MANIFEST, named};
use super::{ArchiveError, location};
use crate::model::{BankName, Tag};

/// Age from which on a file without a manifest is of a checkpoint that was never made: by then it would have one.
const ABANDONED: Duration = Duration::from_secs(3_600);
/// Age from which on it is removed though nobody asked for it: an object is as old as the beginning of its upload.
const SWEPT: Duration = Duration::from_secs(24 * 3_600);

/// A file of a location.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    lies: Lies,
    /// Milliseconds since 1970, by the location's clock.
    modified: i64,
}

#[derive(Debug, Clone, PartialEq)]
enum Lies {
    At(Path),
    /// Of a copy to a directory that has not got its name yet: `NAME#1` will be `NAME`. The object store does not list these.
    Staged(PathBuf),
}

impl Stored {
    /// True if it is that object.
    pub(super) fn is(&self, path: &Path) -> bool {
        matches!(&self.lies, Lies::At(at) if at == path)
    }

    /// True if nobody can still be writing it at the time `now`, and its manifest would have come long ago.
    pub(super) fn is_abandoned(&self, now: i64) -> bool {
        self.is_older(ABANDONED, now)
    }

    fn is_older(&self, age: Duration, now: i64) -> bool {
        now.saturating_sub(self.modified) >= age.as_millis() as i64
    }

    /// The tag that it was made for, if it bears a name of ours and is no manifest.
    fn attempt(&self) -> Option<Tag> {
        let (folder, name) = match &self.lies {
            Lies::At(path) if named(path).is_none() => {
                let mut parts = path.parts().skip(1);
                let (folder, name) = (parts.next()?, parts.next()?);
                parts.next().is_none().then(|| (folder.as_ref().to_owned(), name.as_ref().to_owned()))?
            }
            Lies::At(_) => return None,
            Lies::Staged(path) => {
                let (folder, name) = (path.parent()?.file_name()?.to_str()?, path.file_name()?.to_str()?);
                (folder.to_owned(), name.rsplit_once('#')?.0.to_owned())
            }
        };
        let is_ours = name == MANIFEST || (name.starts_with("bank-") && name.ends_with(".safetensors"));
        is_ours.then(|| Tag::parse("tag", &folder).ok()).flatten()
    }
}

/// What no checkpoint of a tag names.
#[derive(Debug)]
pub struct Abandoned {
    /// The tag.
    pub tag: Tag,
    files: Vec<Stored>,
}

impl Archive {
    /// All that lies below a folder.
    pub(super) async fn stored(&self, folder: &Path) -> Result<Vec<Stored>, ArchiveError> {
        // Before the objects: what gets its name in between is listed twice rather than not at all.
        let staged = self.staged(folder).await.map_err(|fault| self.failed("list", Some(folder), &fault))?;
        let objects = self.place.store.list(Some(folder)).try_collect::<Vec<_>>().await;
        let objects = objects.map_err(|fault| self.failed("list", Some(folder), &fault))?;
        let of =
            |object: ObjectMeta| Stored { modified: object.last_modified.timestamp_millis(), lies: Lies::At(object.location) };
        Ok(staged.into_iter().chain(objects.into_iter().map(of)).collect())
    }

    /// What is staged below a folder, if the location is a directory.
    async fn staged(&self, folder: &Path) -> io::Result<Vec<Stored>> {
        let Some(folder) = self.place.file(folder) else { return Ok(Vec::new()) };
        location::blocking(move || {
            let mut found = Vec::new();
            list_staged(&folder, &mut found)?;
            Ok(found)
        })
        .await
    }

    /// What can't be removed costs room and is never read.
    pub(super) async fn remove_stored(&self, stored: &Stored) {
        match &stored.lies {
            Lies::At(path) => self.remove_quietly(path).await,
            Lies::Staged(file) => {
                let gone = file.clone();
                if let Err(fault) = location::blocking(move || remove(&gone)).await {
                    tracing::warn!(path = %file.display(), %fault, "a file of a checkpoint stays");
                }
            }
        }
    }

    /// What attempts at checkpoints of a bank left more than a day before its newest file, by tag.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]
    pub async fn abandoned(&self, bank: &BankName) -> Result<Vec<Abandoned>, ArchiveError> {
        let stored = self.stored(&Path::from(bank.as_str())).await?;
        // The location's own clock: another machine's may be a day ahead.
        let now = stored.iter().map(|file| file.modified).max().unwrap_or(0);
        let mut by_tag = BTreeMap::<Tag, Vec<Stored>>::new();
        for file in stored.into_iter().filter(|file| file.is_older(SWEPT, now)) {
            if let Some(tag) = file.attempt() {
                by_tag.entry(tag).or_default().push(file);
            }
        }
        Ok(by_tag.into_iter().map(|(tag, files)| Abandoned { tag, files }).collect())
    }

    /// Removes what is abandoned, but for what the tag's checkpoint names; returns how many files that were.
    ///
    /// # Errors
    /// [`ArchiveError`], if there is a manifest that can't be read: it may name any of them.
    pub async fn remove_abandoned(&self, bank: &BankName, abandoned: &Abandoned) -> Result<usize, ArchiveError> {
        let found = self.read_manifest(bank, &abandoned.tag).await?;
        let is_named = |file: &&Stored| found.as_ref().is_some_and(|found| file.is(&found.file));
        let gone: Vec<&Stored> = abandoned.files.iter().filter(|file| !is_named(file)).collect();
        for file in &gone {
            self.remove_stored(file).await;
        }
        Ok(gone.len())
    }
}

fn list_staged(folder: &FilePath, found: &mut Vec<Stored>) -> io::Result<()> {
    let entries = match folder.read_dir() {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let is_staged = |name: &str| {
            name.rsplit_once('#').is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|x| x.is_ascii_digit()))
        };
        match entry.metadata() {
            Ok(about) if about.is_dir() => list_staged(&entry.path(), found)?,
            Ok(about) if entry.file_name().to_str().is_some_and(is_staged) => {
                found.push(Stored { lies: Lies::Staged(entry.path()), modified: about.mtime().saturating_mul(1_000) });
            }
            Ok(_) => {}
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

/// Removes a file, and the folders of its tag and bank if it was the last in them.
pub(super) fn remove(file: &FilePath) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
        _ => {}
    }
    for folder in file.ancestors().skip(1).take(2) {
        if std::fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}
