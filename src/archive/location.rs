//! The place that `checkpoints.location` names.

use std::fs::File;
use std::io;
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

/// A place.
#[derive(Debug, Clone)]
pub(super) struct Location {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The same, if it is a directory.
    directory: Option<Arc<LocalFileSystem>>,
}

impl Location {
    /// Where an object lies on a disk of this machine, if it does.
    pub(super) fn file(&self, path: &Path) -> Option<PathBuf> {
        self.directory.as_ref()?.path_to_filesystem(path).ok()
    }
}

impl Location {
    /// What changed in the folder of an object is on disk when this returns; a bucket does that by itself.
    pub(super) async fn settle(&self, path: &Path) -> io::Result<()> {
        let Some(folder) = self.file(path).and_then(|file| file.parent().map(FilePath::to_owned)) else { return Ok(()) };
        blocking(move || match File::open(folder) {
            Ok(folder) => folder.sync_all(),
            // It went with the last file in it.
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(fault) => Err(fault),
        })
        .await
    }
}

/// Runs what waits for a disk on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(io::Error::other("the thread that worked on it panicked")))
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
        return Ok(Location { store, directory: None });
    }
    if location.contains("://") {
        return Err(refuse("a directory or s3://bucket/prefix is wanted".into()));
    }
    make_folder(FilePath::new(location)).map_err(|fault| refuse(fault.to_string()))?;
    let store = LocalFileSystem::new_with_prefix(location).map_err(|fault| refuse(fault.to_string()))?;
    let directory = Arc::new(store.with_fsync(true).with_automatic_cleanup(true));
    Ok(Location { store: Arc::clone(&directory) as _, directory: Some(directory) })
}

/// Makes a folder and those that it lies in; what is new is on disk when this returns.
pub(super) fn make_folder(path: &FilePath) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(FilePath::new("."));
    make_folder(parent)?;
    let made = std::fs::create_dir(path).or_else(|fault| match fault.kind() {
        // Whoever removes the last file of a folder removes that too, perhaps just now.
        io::ErrorKind::NotFound => make_folder(parent).and_then(|()| std::fs::create_dir(path)),
        _ => Err(fault),
    });
    match made {
        // Another server may make it at the same time.
        Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(fault),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{make_folder, open};

    #[test]
    fn a_folder_is_made_with_those_that_it_lies_in() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        make_folder(&deep).unwrap();
        make_folder(&deep).unwrap();
        assert!(deep.is_dir());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(make_folder(&dir.path().join("file/d")).is_err() && make_folder(&dir.path().join("file")).is_err());
    }

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
