//! The place that `checkpoints.location` names.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::ArchiveError;

const S3: &str = "s3://";
/// Of a request to an object store that is away: about six seconds.
const RETRIES: usize = 6;

/// A place, and how files get there.
#[derive(Debug, Clone)]
pub(super) struct Location {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The same, if it is a directory.
    directory: Option<Arc<LocalFileSystem>>,
    pub(super) parts: Parts,
}

impl Location {
    /// Where an object lies on a disk of this machine, if it does.
    pub(super) fn file(&self, path: &Path) -> Option<PathBuf> {
        self.directory.as_ref()?.path_to_filesystem(path).ok()
    }
}

/// How a file is uploaded there: over a network several parts are on their way at once, and to a disk none takes the machine from who
/// samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    /// Bytes of one at least.
    pub(super) bytes: u64,
    pub(super) at_once: usize,
}

/// Opens a directory, which is made if it is not there, or a bucket. Credentials, region and endpoint of a bucket are the environment's
/// (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL`, ...).
pub(super) fn open(location: &str) -> Result<Location, ArchiveError> {
    let refuse = |why: String| ArchiveError::Location { location: location.to_owned(), why };
    if let Some(rest) = location.strip_prefix(S3) {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(refuse("it names no bucket; s3://bucket/prefix is wanted".into()));
        }
        // Another part of the program may have chosen one already; either will do.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let backoff =
            BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
        let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: Duration::from_secs(60) };
        let store = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry).build();
        let store = store.map_err(|fault| refuse(fault.to_string()))?;
        let prefix = prefix.trim_matches('/');
        let store: Arc<dyn ObjectStore> =
            if prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) };
        return Ok(Location { store, directory: None, parts: Parts { bytes: 8 << 20, at_once: 4 } });
    }
    if location.contains("://") {
        return Err(refuse("a directory or s3://bucket/prefix is wanted".into()));
    }
    let made = std::fs::create_dir_all(FilePath::new(location));
    made.map_err(|fault| refuse(fault.to_string()))?;
    let store = LocalFileSystem::new_with_prefix(location).map_err(|fault| refuse(fault.to_string()))?;
    let directory = Arc::new(store.with_fsync(true).with_automatic_cleanup(true));
    let parts = Parts { bytes: 1 << 20, at_once: 1 };
    Ok(Location { store: Arc::clone(&directory) as _, directory: Some(directory), parts })
}

#[cfg(test)]
mod tests {
    use super::open;

    #[test]
    fn what_is_no_place_is_refused_with_what_is_wanted() {
        for bad in ["s3://", "s3:///prefix", "gs://bucket", "http://host/path"] {
            let refused = open(bad).unwrap_err().to_string();
            assert!(refused.contains("s3://bucket/prefix") && refused.contains("checkpoints.location"), "{refused}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(open(file.path().to_str().unwrap()).is_err());
    }
}
