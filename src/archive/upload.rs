//! The way of one file to a location: named there, or copied in parts.

use std::io::Read as _;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, MultipartUpload, ObjectStoreExt as _};
use tokio::task::JoinSet;

use super::checkpoints::{Archive, GoOn};
use super::room::{LOOKED_EVERY, has_room};
use super::spool::{Spooled, spool_failed};
use super::{ArchiveError, location};

/// Parts of an upload; an object store takes 10,000.
const PARTS: u64 = 9_000;

/// A file that is on its way in parts.
struct Parts {
    upload: Box<dyn MultipartUpload>,
    sent: JoinSet<object_store::Result<()>>,
}

impl Parts {
    /// Waits until fewer than so many are on their way.
    async fn wait_for_room(&mut self, at_once: usize) -> object_store::Result<()> {
        while self.sent.len() >= at_once
            && let Some(sent) = self.sent.join_next().await
        {
            sent.map_err(|source| StoreError::JoinError { source })??;
        }
        Ok(())
    }

    fn put(&mut self, piece: Vec<u8>) {
        self.sent.spawn(self.upload.put_part(Bytes::from(piece).into()));
    }

    async fn complete(&mut self) -> object_store::Result<()> {
        self.wait_for_room(1).await?;
        self.upload.complete().await.map(|_| ())
    }
}

impl Archive {
    /// Brings a file to its place. After an error nothing is there, if the location can still be asked to take it back.
    pub(super) async fn upload(&self, path: &Path, mut spooled: Spooled, go_on: GoOn<'_>) -> Result<(), ArchiveError> {
        if !go_on(0) {
            return Err(ArchiveError::GivenUp);
        }
        if let Some(file) = self.place.file(path) {
            let naming = location::blocking(move || Ok((spooled.name(&file)?, spooled))).await;
            let (is_named, same) = naming.map_err(|fault| self.failed("write", Some(path), &fault))?;
            spooled = same;
            if is_named {
                if go_on(spooled.bytes) {
                    return Ok(());
                }
                self.remove_quietly(path).await;
                return Err(ArchiveError::GivenUp);
            }
        }
        self.has_room(path, spooled.bytes).await?;
        let begun = self.place.store.put_multipart(path).await;
        let upload = begun.map_err(|fault| self.failed("write", Some(path), &fault))?;
        let (mut parts, bytes) = (Parts { upload, sent: JoinSet::new() }, spooled.bytes);
        let Err(fault) = self.send(&mut parts, path, spooled, go_on).await else { return Ok(()) };
        if self.take_back(parts, path).await {
            // The answer that it is whole was lost on its way from a bucket. On a disk its name could not be synced.
            if self.place.file(path).is_none() && self.is_there(path, bytes).await {
                return Ok(());
            }
            self.remove_quietly(path).await;
        }
        Err(fault)
    }

    async fn send(&self, parts: &mut Parts, path: &Path, spooled: Spooled, go_on: GoOn<'_>) -> Result<(), ArchiveError> {
        let failed = |fault: StoreError| self.failed("write", Some(path), &fault);
        let part = self.place.parts.bytes.max(spooled.bytes.div_ceil(PARTS)) as usize;
        let (mut file, mut done) = (spooled.file, 0);
        loop {
            let read = location::blocking(move || {
                let mut piece = Vec::new();
                (&mut file).take(part as u64).read_to_end(&mut piece)?;
                Ok((file, piece))
            });
            let (same, piece) = read.await.map_err(|fault| spool_failed(&fault))?;
            file = same;
            if piece.is_empty() {
                return parts.complete().await.map_err(failed);
            }
            parts.wait_for_room(self.place.parts.at_once).await.map_err(failed)?;
            let before = done;
            done += piece.len() as u64;
            parts.put(piece);
            if done / LOOKED_EVERY > before / LOOKED_EVERY {
                self.has_room(path, spooled.bytes.saturating_sub(done)).await?;
            }
            if !go_on(done) {
                return Err(ArchiveError::GivenUp);
            }
        }
    }

    /// Whether a directory has room for so much more of a file.
    async fn has_room(&self, path: &Path, bytes: u64) -> Result<(), ArchiveError> {
        let Some(file) = self.place.file(path) else { return Ok(()) };
        let looked = location::blocking(move || {
            let folder = file.ancestors().find(|folder| folder.exists());
            Ok(folder.map_or(Ok(()), |folder| has_room(folder, bytes, "checkpoints.location")))
        });
        looked.await.map_err(|fault| self.failed("write", Some(path), &fault))?
    }

    async fn is_there(&self, path: &Path, bytes: u64) -> bool {
        self.place.store.head(path).await.is_ok_and(|there| there.size == bytes)
    }

    /// Takes back what was sent of a file; false if the object store is away: then it is taken back after the next upload.
    async fn take_back(&self, Parts { mut upload, mut sent }: Parts, path: &Path) -> bool {
        sent.shutdown().await;
        match upload.abort().await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            // Once it was to be completed, an upload to a disk knows no more what it has staged.
            Err(_) if self.place.file(path).is_some() => self.unstage(path).await,
            Err(fault) => {
                tracing::warn!(%path, %fault, "parts of a checkpoint's file stay in the object store");
                self.unfinished.push(upload);
                return false;
            }
        }
        true
    }
}
