//! Uploads to an object store that could not be taken back, since it was away.

use std::sync::{Arc, Mutex, PoisonError};

use object_store::{Error as StoreError, MultipartUpload};

/// Of how many this is remembered. Their parts take room and are not listed: only who began them can name them.
const MOST: usize = 64;

/// Those that are to be taken back when it is there again.
#[derive(Debug, Clone, Default)]
pub(super) struct Unfinished(Arc<Mutex<Vec<Box<dyn MultipartUpload>>>>);

impl Unfinished {
    pub(super) fn push(&self, upload: Box<dyn MultipartUpload>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MOST {
            all.push(upload);
        }
    }

    fn pop(&self) -> Option<Box<dyn MultipartUpload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Takes them back; the first that can't be ends it.
    pub(super) async fn take_back(&self) {
        while let Some(mut upload) = self.pop() {
            match upload.abort().await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(fault) => {
                    tracing::warn!(%fault, "parts of a checkpoint's file still stay in the object store");
                    self.push(upload);
                    return;
                }
            }
        }
    }
}
