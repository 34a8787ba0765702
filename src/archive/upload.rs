//! The way of one file to a location: named there, copied, or sent in parts.

use std::io::{self, Read as _};
use std::path::PathBuf;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, MultipartUpload, ObjectStoreExt as _};
use tokio::task::JoinSet;

use super::abandoned::remove;
use super::checkpoints::{Archive, GoOn};
use super::copy::{Copying, Fault};
use super::room::has_room;
use super::spool::{Spooled, spool_failed};
use super::{ArchiveError, location};

/// Parts of an upload; an object store takes 10,000.
const PARTS: u64 = 9_000;

/// Bytes of a part at least.
const PART_BYTES: u64 = 8 << 20;

/// Parts that are on their way at once.
const AT_ONCE: usize = 4;

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
    pub(super) async fn upload(&self, path: &Path, spooled: Spooled, go_on: GoOn<'_>) -> Result<(), ArchiveError> {
        if !go_on(0) {
            return Err(ArchiveError::GivenUp);
        }
        match self.place.file(path) {
            Some(file) => self.name(path, file, spooled, go_on).await,
            None => self.send(path, spooled, go_on).await,
        }
    }

    /// Names it `file`; where it can't be, as on another disk, copies it there.
    async fn name(&self, path: &Path, file: PathBuf, spooled: Spooled, go_on: GoOn<'_>) -> Result<(), ArchiveError> {
        let named = file.clone();
        let naming = location::blocking(move || Ok((spooled.name(&named)?, spooled))).await;
        let (is_named, spooled) = naming.map_err(|fault| self.failed("write", Some(path), &fault))?;
        if !is_named {
            return self.copy(path, file, spooled, go_on).await;
        }
        if !go_on(spooled.bytes) {
            self.remove_quietly(path).await;
            return Err(ArchiveError::GivenUp);
        }
        Ok(())
    }

    async fn copy(&self, path: &Path, file: PathBuf, spooled: Spooled, go_on: GoOn<'_>) -> Result<(), ArchiveError> {
        let copied = self.copy_whole(path, file.clone(), spooled, go_on).await;
        if copied.is_err() {
            // And the folders that were made for it; what stays costs room only.
            let _gone = location::blocking(move || remove(&file)).await;
        }
        copied
    }

    async fn copy_whole(&self, path: &Path, file: PathBuf, spooled: Spooled, go_on: GoOn<'_>) -> Result<(), ArchiveError> {
        let failed = |fault: io::Error| self.failed("write", Some(path), &fault);
        let bytes = spooled.bytes;
        self.has_room(path, bytes).await?;
        let mut copy = location::blocking(move || Copying::begin(spooled, file)).await.map_err(failed)?;
        while copy.left() > 0 {
            let stepped = location::blocking(move || Ok(copy.step().map(|()| copy))).await.map_err(failed)?;
            copy = stepped.map_err(|fault| match fault {
                Fault::Read(fault) => spool_failed(&fault),
                Fault::Write(fault) => failed(fault),
            })?;
            let may_go_on = self.has_room(path, copy.left()).await.and_then(|()| {
                let waited_for = go_on(bytes - copy.left());
                if waited_for { Ok(()) } else { Err(ArchiveError::GivenUp) }
            });
            if may_go_on.is_err() {
                // Removing it may take as long as writing some of it.
                let _removed = location::blocking(move || {
                    drop(copy);
                    Ok(())
                })
                .await;
                return may_go_on;
            }
        }
        location::blocking(move || copy.finish()).await.map_err(failed)
    }

    async fn send(&self, path: &Path, spooled: Spooled, go_on: GoOn<'_>) -> Result<(), ArchiveError> {
        let begun = self.place.store.put_multipart(path).await;
        let upload = begun.map_err(|fault| self.failed("write", Some(path), &fault))?;
        let (mut parts, bytes) = (Parts { upload, sent: JoinSet::new() }, spooled.bytes);
        let Err(fault) = self.send_parts(&mut parts, path, spooled, go_on).await else { return Ok(()) };
        if self.take_back(parts, path).await {
            // The answer that it is whole was lost on its way.
            if self.is_there(path, bytes).await {
                return Ok(());
            }
            self.remove_quietly(path).await;
        }
        Err(fault)
    }

    async fn send_parts(&self, parts: &mut Parts, path: &Path, spooled: Spooled, go_on: GoOn<'_>) -> Result<(), ArchiveError> {
        let failed = |fault: StoreError| self.failed("write", Some(path), &fault);
        let part = PART_BYTES.max(spooled.bytes.div_ceil(PARTS)) as usize;
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
            parts.wait_for_room(AT_ONCE).await.map_err(failed)?;
            done += piece.len() as u64;
            parts.put(piece);
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
            Ok(()) | Err(StoreError::NotFound { .. }) => true,
            Err(fault) => {
                tracing::warn!(%path, %fault, "parts of a checkpoint's file stay in the object store");
                self.unfinished.push(upload);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::atomic::{AtomicU64, Ordering};

    use object_store::path::Path;

    use super::{Archive, ArchiveError};
    use crate::archive::{Config, Spool};

    const BYTES: usize = (20 << 20) + 1;

    /// The spool is in memory, the location is not: nothing can be named there.
    #[tokio::test]
    async fn a_copy_tells_how_far_it_is_and_can_be_given_up_half_way() {
        let spool = tempfile::tempdir_in("/dev/shm").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let disk = |folder: &tempfile::TempDir| fs::metadata(folder.path()).unwrap().dev();
        assert_ne!(disk(&spool), disk(&folder), "this test wants two file systems");
        let location = Some(folder.path().to_str().unwrap().to_owned());
        let archive = Archive::open(&Config { location, ..Config::default() }).unwrap().unwrap();
        let contents: Vec<u8> = (0..BYTES).map(|at| (at % 253) as u8).collect();
        let spooled = || {
            let mut file = Spool::create(spool.path(), 1).unwrap();
            file.write_all(&contents).unwrap();
            file.finish().unwrap()
        };
        let path = Path::from("bank/tag/file");
        let told = AtomicU64::new(0);
        let half = |done| {
            told.fetch_max(done, Ordering::Relaxed);
            done < 10 << 20
        };
        let given_up = archive.upload(&path, spooled(), &half).await.unwrap_err();
        assert!(matches!(given_up, ArchiveError::GivenUp), "{given_up}");
        let heard = told.swap(0, Ordering::Relaxed);
        assert!((10 << 20..BYTES as u64).contains(&heard), "{heard}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left, nor a folder");
        let whole = |done| {
            assert!(told.fetch_max(done, Ordering::Relaxed) <= done, "it goes back");
            true
        };
        archive.upload(&path, spooled(), &whole).await.unwrap();
        assert_eq!(told.into_inner(), BYTES as u64);
        assert!(fs::read(folder.path().join("bank/tag/file")).unwrap() == contents);
    }
}
