//! The checkpoints of a location.

use std::error::Error;
use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMode, WriteMultipart};
use tokio_stream::Stream;

use super::location::Location;
use super::manifest::{Data, Manifest};
use super::spool::{Spooled, spool_failed};
use super::{ArchiveError, Config, location};
use crate::model::{BankName, Checkpoint, Tag, clock};

const MANIFEST: &str = "manifest.json";

/// Parts of an upload; an object store takes 10,000.
const PARTS: u64 = 9_000;
/// Age from which on a file without a manifest is of a checkpoint that was never made: by then it would have one.
const ABANDONED: Duration = Duration::from_secs(3_600);
/// Manifests that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// Hears how many bytes are through, and says whether anybody still waits.
pub type GoOn<'a> = &'a (dyn Fn(u64) -> bool + Sync);

/// Where checkpoints are kept: `BANK/TAG/manifest.json`, and the file that it names beside it. What has no manifest is none.
#[derive(Debug, Clone)]
pub struct Archive {
    place: Location,
    /// As the settings have it.
    location: String,
}

/// A checkpoint that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it is.
    pub checkpoint: Checkpoint,
    /// CRC-32 of its file.
    pub crc32: u32,
    file: Path,
}

impl Archive {
    /// The place that the settings name, if they name one.
    ///
    /// # Errors
    /// [`ArchiveError::Location`]
    pub fn open(config: &Config) -> Result<Option<Self>, ArchiveError> {
        let Some(location) = &config.location else { return Ok(None) };
        Ok(Some(Self { place: location::open(location)?, location: location.clone() }))
    }

    /// The checkpoints of a bank, or of all, oldest first. One whose manifest can't be read is left out, and said so in the logs.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]
    pub async fn list(&self, bank: Option<&BankName>) -> Result<Vec<Checkpoint>, ArchiveError> {
        let prefix = bank.map(|bank| Path::from(bank.as_str()));
        let listed = self.place.store.list(prefix.as_ref()).try_collect::<Vec<_>>().await;
        let objects = listed.map_err(|fault| self.failed("list", prefix.as_ref(), &fault))?;
        let named: Vec<_> = objects.iter().filter_map(|object| named(&object.location)).collect();
        let read = |(bank, tag)| {
            let archive = self.clone();
            async move { archive.read_manifest(&bank, &tag).await }
        };
        let mut reads = futures_util::stream::iter(named.into_iter().map(read)).buffer_unordered(READS_AT_ONCE);
        let mut checkpoints = Vec::new();
        while let Some(read) = reads.next().await {
            match read {
                // Deleted meanwhile.
                Ok(None) => {}
                Ok(Some(found)) => checkpoints.push(found.checkpoint),
                Err(fault @ ArchiveError::Io { .. }) => return Err(fault),
                Err(fault) => tracing::warn!(%fault, "a checkpoint is not listed"),
            }
        }
        checkpoints.sort_by(|a, b| (a.created, a.sequence, &a.bank, &a.tag).cmp(&(b.created, b.sequence, &b.bank, &b.tag)));
        Ok(checkpoints)
    }

    /// A checkpoint of a bank: the newest, if no tag is asked for.
    ///
    /// # Errors
    /// [`ArchiveError::Unknown`], [`ArchiveError::Newer`], [`ArchiveError::Damaged`], [`ArchiveError::Io`]
    pub async fn find(&self, bank: &BankName, tag: Option<&Tag>) -> Result<Found, ArchiveError> {
        if let Some(tag) = tag
            && let Some(found) = self.read_manifest(bank, tag).await?
        {
            return Ok(found);
        }
        let known: Vec<Tag> = self.list(Some(bank)).await?.into_iter().map(|checkpoint| checkpoint.tag).collect();
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

    /// What to say of a manifest whose writing failed, or seemed to: it may be there all the same, and then its file must stay.
    async fn unpublished(&self, checkpoint: &Checkpoint, file: &Path, fault: StoreError) -> Result<(), ArchiveError> {
        let Checkpoint { bank, tag, .. } = checkpoint;
        let at = manifest_of(bank, tag);
        let is_taken = matches!(fault, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. });
        match self.read_manifest(bank, tag).await {
            // A bucket's answer was lost, and it was asked again. On a disk it could not be synced.
            Ok(Some(found)) if found.file == *file && (is_taken || self.place.file(file).is_none()) => return Ok(()),
            Ok(Some(found)) if found.file == *file => {}
            Ok(_) => self.remove_quietly(file).await,
            // Nobody knows: without a manifest it can be deleted by its tag.
            Err(_) => {}
        }
        Err(if is_taken {
            ArchiveError::Exists { bank: bank.clone(), tag: tag.clone() }
        } else {
            self.failed("write", Some(&at), &fault)
        })
    }

    /// The bytes of a checkpoint's file, as they come.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] if the file is gone or of another length; [`ArchiveError::Io`]
    pub async fn read(&self, found: &Found) -> Result<impl Stream<Item = Result<Bytes, ArchiveError>> + use<>, ArchiveError> {
        let Checkpoint { bank, tag, bytes, .. } = &found.checkpoint;
        let damaged = |what: String| ArchiveError::Damaged { bank: bank.clone(), tag: tag.clone(), what };
        let got = match self.place.store.get(&found.file).await {
            Ok(got) if got.meta.size == *bytes => got,
            Ok(got) => return Err(damaged(format!("{} has {} bytes, not {bytes}", found.file, got.meta.size))),
            Err(StoreError::NotFound { .. }) => return Err(damaged(format!("{} is gone", found.file))),
            Err(fault) => return Err(self.failed("read", Some(&found.file), &fault)),
        };
        let (archive, file) = (self.clone(), found.file.clone());
        Ok(got.into_stream().map_err(move |fault| archive.failed("read", Some(&file), &fault)))
    }

    /// Deletes a checkpoint, its manifest first, and what servers left below its tag that ended before they had made one. A file that is on
    /// its way for another checkpoint of the tag stays.
    ///
    /// # Errors
    /// [`ArchiveError::Unknown`], [`ArchiveError::Io`]
    pub async fn delete(&self, bank: &BankName, tag: &Tag) -> Result<(), ArchiveError> {
        let is_checkpoint = self.is_taken(bank, tag).await?;
        let file = self.read_manifest(bank, tag).await.ok().flatten().map(|found| found.file);
        let manifest = manifest_of(bank, tag);
        if is_checkpoint {
            let deleted = self.place.store.delete(&manifest).await;
            deleted.map_err(|fault| self.failed("delete", Some(&manifest), &fault))?;
            // A manifest that came back after a power cut would name a file that is gone.
            self.place.settle(&manifest).await.map_err(|fault| self.failed("delete", Some(&manifest), &fault))?;
        }
        let folder = Path::from(format!("{bank}/{tag}"));
        let left = self.place.store.list(Some(&folder)).try_collect::<Vec<_>>().await;
        let left = left.map_err(|fault| self.failed("list", Some(&folder), &fault))?;
        let gone: Vec<_> =
            left.iter().filter(|object| file.as_ref() == Some(&object.location) || is_abandoned(object)).collect();
        for object in &gone {
            self.remove_quietly(&object.location).await;
        }
        if is_checkpoint || !gone.is_empty() {
            return Ok(());
        }
        self.find(bank, Some(tag)).await.map(|_| ())
    }

    async fn upload(&self, path: &Path, mut spooled: Spooled, go_on: GoOn<'_>) -> Result<(), ArchiveError> {
        if !go_on(0) {
            return Err(ArchiveError::GivenUp);
        }
        if let Some(file) = self.place.file(path) {
            let naming = tokio::task::spawn_blocking(move || {
                let named = spooled.name(&file);
                (spooled, named)
            });
            let panicked = |_| spool_failed(&std::io::Error::other("the thread that named it panicked"));
            let (same, named) = naming.await.map_err(panicked)?;
            spooled = same;
            if named.map_err(|fault| self.failed("write", Some(path), &fault))? {
                if go_on(spooled.bytes) {
                    return Ok(());
                }
                self.remove_quietly(path).await;
                return Err(ArchiveError::GivenUp);
            }
        }
        let part = self.place.parts.bytes.max(spooled.bytes.div_ceil(PARTS)) as usize;
        let begun = self.place.store.put_multipart(path).await;
        let mut upload =
            WriteMultipart::new_with_chunk_size(begun.map_err(|fault| self.failed("write", Some(path), &fault))?, part);
        let (mut file, mut done) = (spooled.file, 0);
        let failed = loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::new();
                let read = (&mut file).take(part as u64).read_to_end(&mut bytes);
                (file, read.map(|_| bytes))
            });
            let bytes = match read.await {
                Ok((same, Ok(bytes))) => {
                    file = same;
                    bytes
                }
                Ok((_, Err(fault))) => break spool_failed(&fault),
                Err(_) => break spool_failed(&std::io::Error::other("the thread that read it panicked")),
            };
            if bytes.is_empty() {
                let finished = upload.finish().await;
                return finished.map(|_| ()).map_err(|fault| self.failed("write", Some(path), &fault));
            }
            if let Err(fault) = upload.wait_for_capacity(self.place.parts.at_once).await {
                break self.failed("write", Some(path), &fault);
            }
            done += bytes.len() as u64;
            upload.put(bytes.into());
            if !go_on(done) {
                break ArchiveError::GivenUp;
            }
        };
        // What is left there has no manifest, and can be deleted by its tag.
        let _left = upload.abort().await;
        Err(failed)
    }

    async fn read_manifest(&self, bank: &BankName, tag: &Tag) -> Result<Option<Found>, ArchiveError> {
        let path = manifest_of(bank, tag);
        let read = match self.place.store.get(&path).await {
            Ok(got) => got.bytes().await,
            Err(fault) => Err(fault),
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(fault) => return Err(self.failed("read", Some(&path), &fault)),
        };
        let (checkpoint, data) = Manifest::decode(&bytes, bank, tag)?;
        let file = Path::from(format!("{bank}/{tag}/{}", data.file));
        Ok(Some(Found { checkpoint, crc32: data.crc32, file }))
    }

    /// What can't be removed costs room and is never read.
    async fn remove_quietly(&self, path: &Path) {
        match self.place.store.delete(path).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(fault) => tracing::warn!(%path, %fault, "a file of a checkpoint stays"),
        }
    }

    fn failed(&self, doing: &'static str, path: Option<&Path>, fault: &dyn Error) -> ArchiveError {
        let what = path.map_or_else(|| self.location.clone(), |path| format!("{}/{path}", self.location.trim_end_matches('/')));
        ArchiveError::Io { doing, what, setting: "checkpoints.location", why: fault.to_string() }
    }
}

/// True if nobody can still be writing it, and its manifest would have come long ago.
fn is_abandoned(object: &ObjectMeta) -> bool {
    let age = clock::unix_millis() as i64 - object.last_modified.timestamp_millis();
    age >= ABANDONED.as_millis() as i64
}

fn manifest_of(bank: &BankName, tag: &Tag) -> Path {
    Path::from(format!("{bank}/{tag}/{MANIFEST}"))
}

/// The bank and the tag of a manifest's path.
fn named(path: &Path) -> Option<(BankName, Tag)> {
    let mut parts = path.parts();
    let (bank, tag, file) = (parts.next()?, parts.next()?, parts.next()?);
    (file.as_ref() == MANIFEST && parts.next().is_none()).then_some(())?;
    Some((BankName::parse("bank", bank.as_ref()).ok()?, Tag::parse("tag", tag.as_ref()).ok()?))
}
