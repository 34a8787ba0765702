//! The checkpoints of a location.

use std::error::Error;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore as _, ObjectStoreExt as _, PutMode};

use super::abandoned::Stored;
use super::location::Location;
use super::manifest::{Data, Manifest};
use super::spool::Spooled;
use super::unfinished::Unfinished;
use super::{ArchiveError, Config, location};
use crate::model::{BankName, Checkpoint, Tag, clock};

pub(super) const MANIFEST: &str = "manifest.json";

/// Manifests that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// Hears how many bytes are through, and says whether anybody still waits.
pub type GoOn<'a> = &'a (dyn Fn(u64) -> bool + Sync);

/// Where checkpoints are kept: `BANK/TAG/manifest.json`, and the file that it names beside it. What has no manifest is none.
#[derive(Debug, Clone)]
pub struct Archive {
    pub(super) place: Location,
    /// As the settings have it.
    location: String,
    pub(super) unfinished: Unfinished,
}

/// A checkpoint that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it is.
    pub checkpoint: Checkpoint,
    /// CRC-32 of its file.
    pub crc32: u32,
    pub(super) file: Path,
}

/// A checkpoint that can't be read.
struct Unread {
    fault: ArchiveError,
    /// When its manifest was, by the location's clock, in milliseconds since 1970.
    written: i64,
}

impl Archive {
    /// The place that the settings name, if they name one.
    ///
    /// # Errors
    /// [`ArchiveError::Location`]
    pub fn open(config: &Config) -> Result<Option<Self>, ArchiveError> {
        let Some(location) = &config.location else { return Ok(None) };
        let (place, unfinished) = (location::open(location)?, Unfinished::default());
        Ok(Some(Self { place, location: location.clone(), unfinished }))
    }

    /// The checkpoints of a bank, or of all, oldest first. One whose manifest can't be read is left out, and said so in the logs.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]
    pub async fn list(&self, bank: Option<&BankName>) -> Result<Vec<Checkpoint>, ArchiveError> {
        self.read_all(bank).await.map(|(there, _)| there.into_iter().map(|(checkpoint, _)| checkpoint).collect())
    }

    /// The checkpoints of a bank, or of all, oldest first, each with when its manifest was written; and of those that can't be read the one that
    /// was written last.
    async fn read_all(&self, bank: Option<&BankName>) -> Result<(Vec<(Checkpoint, i64)>, Option<Unread>), ArchiveError> {
        let prefix = bank.map(|bank| Path::from(bank.as_str()));
        let listed = self.place.store.list(prefix.as_ref()).try_collect::<Vec<_>>().await;
        let objects = listed.map_err(|fault| self.failed("list", prefix.as_ref(), &fault))?;
        let named: Vec<_> =
            objects.iter().filter_map(|object| Some((named(&object.location)?, object.last_modified))).collect();
        let read = |((bank, tag), written): ((BankName, Tag), _)| {
            let archive = self.clone();
            async move { (archive.read_manifest(&bank, &tag).await, written) }
        };
        let mut reads = futures_util::stream::iter(named.into_iter().map(read)).buffer_unordered(READS_AT_ONCE);
        let (mut checkpoints, mut unread) = (Vec::new(), None::<Unread>);
        while let Some((read, written)) = reads.next().await {
            let written = written.timestamp_millis();
            match read {
                // Deleted meanwhile.
                Ok(None) => {}
                Ok(Some(found)) => checkpoints.push((found.checkpoint, written)),
                Err(fault @ ArchiveError::Io { .. }) => return Err(fault),
                Err(fault) => {
                    tracing::warn!(%fault, "a checkpoint is not listed");
                    if unread.as_ref().is_none_or(|last| last.written < written) {
                        unread = Some(Unread { fault, written });
                    }
                }
            }
        }
        checkpoints
            .sort_by(|(a, _), (b, _)| (a.created, a.sequence, &a.bank, &a.tag).cmp(&(b.created, b.sequence, &b.bank, &b.tag)));
        Ok((checkpoints, unread))
    }

    /// A checkpoint of a bank: the newest, if no tag is asked for. When one that can't be read was made only its file's time tells, so it
    /// may be the newest if that was written after the newest of the others was begun: then its error is returned.
    ///
    /// # Errors
    /// [`ArchiveError::Unknown`], [`ArchiveError::Newer`], [`ArchiveError::Damaged`], [`ArchiveError::Io`]
    pub async fn find(&self, bank: &BankName, tag: Option<&Tag>) -> Result<Found, ArchiveError> {
        if let Some(tag) = tag
            && let Some(found) = self.read_manifest(bank, tag).await?
        {
            return Ok(found);
        }
        let (there, unread) = self.read_all(Some(bank)).await?;
        // It may be dated ahead of all clocks.
        let begun = there.last().map_or(i64::MIN, |(newest, written)| newest.created.cast_signed().min(*written));
        let known: Vec<Tag> = there.into_iter().map(|(checkpoint, _)| checkpoint.tag).collect();
        if let (None, Some(unread)) = (tag, unread.filter(|unread| unread.written >= begun)) {
            return Err(unread.fault.of_newest(&known));
        }
        if let (None, Some(newest)) = (tag, known.last())
            && let Some(found) = self.read_manifest(bank, newest).await?
        {
            return Ok(found);
        }
        Err(ArchiveError::Unknown { bank: bank.clone(), tag: tag.cloned(), location: self.location.clone(), known })
    }

    /// Whether a tag is taken, by whatever.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]
    pub async fn is_taken(&self, bank: &BankName, tag: &Tag) -> Result<bool, ArchiveError> {
        let path = manifest_of(bank, tag);
        match self.place.store.head(&path).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(fault) => Err(self.failed("read", Some(&path), &fault)),
        }
    }

    /// Uploads a checkpoint's file, then publishes it. `number` tells the file from others of this tag.
    ///
    /// # Errors
    /// [`ArchiveError::Exists`] if the tag is taken and not to be replaced; [`ArchiveError::GivenUp`], [`ArchiveError::Io`]
    pub async fn put(
        &self,
        (checkpoint, replace): (&Checkpoint, bool),
        spooled: Spooled,
        number: u64,
        go_on: GoOn<'_>,
    ) -> Result<(), ArchiveError> {
        let Checkpoint { bank, tag, .. } = checkpoint;
        let file = format!("bank-{number:016x}.safetensors");
        let path = Path::from(format!("{bank}/{tag}/{file}"));
        let before = if replace { self.read_manifest(bank, tag).await.ok().flatten() } else { None };
        let (bytes, crc32) = (spooled.bytes, spooled.crc32);
        self.upload(&path, spooled, go_on).await?;
        let manifest = Manifest::new(checkpoint, Data { file, bytes, crc32 }).encode();
        let mode = if replace { PutMode::Overwrite } else { PutMode::Create };
        let at = manifest_of(bank, tag);
        if let Err(fault) = self.place.store.put_opts(&at, manifest.into(), mode.into()).await {
            self.unpublished(checkpoint, &path, fault).await?;
        }
        if let Some(before) = before {
            self.remove_quietly(&before.file).await;
        }
        Ok(())
    }

    /// Takes back what could not be taken back of earlier uploads, if it can be now.
    pub async fn take_back_unfinished(&self) {
        self.unfinished.take_back().await;
    }

    /// What to say of a manifest whose writing failed, or seemed to: it may be there all the same, and then its file must stay.
    async fn unpublished(&self, checkpoint: &Checkpoint, file: &Path, fault: StoreError) -> Result<(), ArchiveError> {
        let Checkpoint { bank, tag, .. } = checkpoint;
        let at = manifest_of(bank, tag);
        let is_taken = matches!(fault, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. });
        match self.read_manifest(bank, tag).await {
            // A bucket's answer was lost, and it was asked again. On a disk it could not be synced.
            Ok(Some(found)) if found.file == *file && (is_taken || self.place.file(file).is_none()) => return Ok(()),
            Ok(Some(found)) if found.file == *file => {}
            Ok(_) if is_taken || self.place.file(file).is_some() => self.remove_quietly(file).await,
            // Nobody knows: a bucket may still be at it. Without a manifest it is swept away, or deleted by its tag.
            _ => {}
        }
        Err(if is_taken {
            ArchiveError::Exists { bank: bank.clone(), tag: tag.clone() }
        } else {
            self.failed("write", Some(&at), &fault)
        })
    }

    /// Deletes a checkpoint, its manifest first, and what servers left below its tag that ended before they had made one. A file that is on
    /// its way for another checkpoint of the tag stays.
    ///
    /// # Errors
    /// [`ArchiveError::Unknown`], [`ArchiveError::Io`]
    pub async fn delete(&self, bank: &BankName, tag: &Tag) -> Result<(), ArchiveError> {
        let manifest = manifest_of(bank, tag);
        let (is_checkpoint, file) = match self.manifest(bank, tag).await {
            Ok(None) => (false, None),
            Ok(Some(bytes)) => (true, found(&bytes, bank, tag).ok().map(|found| found.file)),
            // What a disk can't read it may still be able to delete.
            Err(_) if self.place.file(&manifest).is_some_and(|file| file.exists()) => (true, None),
            Err(fault) => return Err(fault),
        };
        if is_checkpoint {
            let deleted = self.place.store.delete(&manifest).await;
            deleted.map_err(|fault| self.failed("delete", Some(&manifest), &fault))?;
            // A manifest that came back after a power cut would name a file that is gone.
            self.place.settle(&manifest).await.map_err(|fault| self.failed("delete", Some(&manifest), &fault))?;
        }
        if let Some(file) = file {
            self.remove_quietly(&file).await;
        }
        let (left, now) = (self.stored(&Path::from(format!("{bank}/{tag}"))).await?, clock::unix_millis() as i64);
        let abandoned: Vec<&Stored> = left.iter().filter(|stored| stored.is_abandoned(now)).collect();
        for stored in &abandoned {
            self.remove_stored(stored).await;
        }
        if is_checkpoint || !abandoned.is_empty() {
            return Ok(());
        }
        self.find(bank, Some(tag)).await.map(|_| ())
    }

    pub(super) async fn read_manifest(&self, bank: &BankName, tag: &Tag) -> Result<Option<Found>, ArchiveError> {
        self.manifest(bank, tag).await?.map(|bytes| found(&bytes, bank, tag)).transpose()
    }

    /// A manifest as it lies there; `None`: there is none.
    async fn manifest(&self, bank: &BankName, tag: &Tag) -> Result<Option<Bytes>, ArchiveError> {
        let path = manifest_of(bank, tag);
        let read = match self.place.store.get(&path).await {
            Ok(got) => got.bytes().await,
            Err(fault) => Err(fault),
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(fault) => Err(self.failed("read", Some(&path), &fault)),
        }
    }

    /// What can't be removed costs room and is never read.
    pub(super) async fn remove_quietly(&self, path: &Path) {
        match self.place.store.delete(path).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(fault) => tracing::warn!(%path, %fault, "a file of a checkpoint stays"),
        }
    }

    pub(super) fn failed(&self, doing: &'static str, path: Option<&Path>, fault: &dyn Error) -> ArchiveError {
        let what = path.map_or_else(|| self.location.clone(), |path| format!("{}/{path}", self.location.trim_end_matches('/')));
        ArchiveError::Io { doing, what, setting: "checkpoints.location", why: fault.to_string() }
    }
}

/// What a manifest tells of.
fn found(manifest: &[u8], bank: &BankName, tag: &Tag) -> Result<Found, ArchiveError> {
    let (checkpoint, data) = Manifest::decode(manifest, bank, tag)?;
    let file = Path::from(format!("{bank}/{tag}/{}", data.file));
    Ok(Found { checkpoint, crc32: data.crc32, file })
}

fn manifest_of(bank: &BankName, tag: &Tag) -> Path {
    Path::from(format!("{bank}/{tag}/{MANIFEST}"))
}

/// The bank and the tag of a manifest's path.
pub(super) fn named(path: &Path) -> Option<(BankName, Tag)> {
    let mut parts = path.parts();
    let (bank, tag, file) = (parts.next()?, parts.next()?, parts.next()?);
    (file.as_ref() == MANIFEST && parts.next().is_none()).then_some(())?;
    Some((BankName::parse("bank", bank.as_ref()).ok()?, Tag::parse("tag", tag.as_ref()).ok()?))
}
