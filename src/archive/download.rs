//! A checkpoint's file on its way back.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::{Error as StoreError, GetOptions, ObjectStore as _, ObjectStoreExt as _};
use tokio_stream::Stream;

use super::{Archive, ArchiveError, Found};
use crate::model::Checkpoint;

/// Bytes that are asked for at once. Each is a request with its own time and its own tries: one for the whole file would have to end in as much
/// time as any other, however long the file is and however slowly it is taken.
const RANGE: u64 = 4 << 20;

/// Ranges on their way at the same time, so that one comes while another is taken.
const AT_ONCE: usize = 2;

/// Bytes handed on at once.
const PIECE: usize = 1 << 20;

impl Archive {
    /// The bytes of a checkpoint's file, as they come.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] if the file is gone, of another length, or another one by now; [`ArchiveError::Io`]
    pub async fn read(&self, found: &Found) -> Result<impl Stream<Item = Result<Bytes, ArchiveError>> + use<>, ArchiveError> {
        let bytes = found.checkpoint.bytes;
        let there = self.place.store.head(&found.file).await.map_err(|fault| self.unread(found, &fault))?;
        if there.size != bytes {
            return Err(damaged(found, format!("{} has {} bytes, not {bytes}", found.file, there.size)));
        }
        let (archive, found, tag) = (self.clone(), found.clone(), there.e_tag);
        let range = move |from: u64| {
            let (archive, found, tag) = (archive.clone(), found.clone(), tag.clone());
            async move { archive.range(&found, from..bytes.min(from + RANGE), tag).await }
        };
        let froms = (0..bytes.div_ceil(RANGE)).map(|number| number * RANGE);
        let ranges = futures_util::stream::iter(froms).map(range).buffered(AT_ONCE);
        Ok(ranges.map_ok(|range| futures_util::stream::iter(pieces(range).map(Ok))).try_flatten())
    }

    async fn range(&self, found: &Found, range: Range<u64>, if_match: Option<String>) -> Result<Bytes, ArchiveError> {
        let wanted = range.end - range.start;
        let options = GetOptions { range: Some(range.into()), if_match, ..GetOptions::default() };
        let got = async { self.place.store.get_opts(&found.file, options).await?.bytes().await };
        let got = got.await.map_err(|fault| self.unread(found, &fault))?;
        match got.len() as u64 == wanted {
            true => Ok(got),
            false => Err(damaged(found, format!("{} ended while it was read", found.file))),
        }
    }

    fn unread(&self, found: &Found, fault: &StoreError) -> ArchiveError {
        match fault {
            StoreError::NotFound { .. } => damaged(found, format!("{} is gone", found.file)),
            StoreError::Precondition { .. } => damaged(found, format!("{} was replaced while it was read", found.file)),
            fault => self.failed("read", Some(&found.file), fault),
        }
    }
}

fn damaged(found: &Found, what: String) -> ArchiveError {
    let Checkpoint { bank, tag, .. } = &found.checkpoint;
    ArchiveError::Damaged { bank: bank.clone(), tag: tag.clone(), what }
}

fn pieces(mut range: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!range.is_empty()).then(|| range.split_to(range.len().min(PIECE))))
}
