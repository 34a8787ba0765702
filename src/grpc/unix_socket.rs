//! A Unix socket to listen on, and its file.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Why a path can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Stop the other server, or take another path.
    #[error("a server listens there already")]
    InUse,
    /// Take another path, or remove what is there.
    #[error("there is a file of that name that is no socket")]
    NoSocket,
    /// The system refused.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// A socket's file; removed at the end, unless another server has put its own there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// A handle of the socket: while it is open, no other file has its inode.
    _socket: OwnedFd,
}

/// Readable and writable by the server's own user: nothing else tells who is calling.
const MODE: u32 = 0o600;

/// Listens at `path`. The file that a server left when it was killed is replaced.
pub(super) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    match std::fs::symlink_metadata(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        Err(fault) => return Err(fault.into()),
        Ok(there) if !there.file_type().is_socket() => return Err(SocketError::NoSocket),
        Ok(_) => match UnixStream::connect(path).await {
            Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            // A live server whose queue of connections is full.
            Err(full) if full.kind() == io::ErrorKind::WouldBlock => return Err(SocketError::InUse),
            Err(fault) => return Err(fault.into()),
            Ok(_) => return Err(SocketError::InUse),
        },
    }
    let listener = UnixListener::bind(path)?;
    let made = std::fs::symlink_metadata(path)?;
    let socket = listener.as_fd().try_clone_to_owned()?;
    let file = SocketFile { path: path.to_owned(), identity: (made.dev(), made.ino()), _socket: socket };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok((listener, file))
}

impl SocketFile {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |there: std::fs::Metadata| (there.dev(), there.ino()) == self.identity;
        if std::fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // If it can't be removed, the next server replaces it.
            let _left = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{SocketError, bind};

    #[tokio::test]
    async fn a_stale_file_is_replaced_and_a_live_or_foreign_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        // Killed: the listener is gone and its file is not.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, file) = bind(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&path).await, Err(SocketError::InUse)));
        std::fs::remove_file(&path).unwrap();
        let (_second_listener, second) = bind(&path).await.unwrap();
        drop(file);
        assert!(path.exists(), "the first server must not remove the second's file");
        drop(second);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path).await, Err(SocketError::NoSocket)));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let nowhere = folder.path().join("missing").join("s");
        assert!(matches!(bind(&nowhere).await, Err(SocketError::System(_))));
    }
}
