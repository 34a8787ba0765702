//! A spooled file on its way to a directory on another disk.
//!
//! By this and not by the object store's own upload, which took each MiB from one thread to another, while the next was read, and synced at the
//! end only: calls beside it waited longer (decision 0012, "Measured").

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use super::abandoned::remove;
use super::location::make_folder;
use super::spool::Spooled;

/// Bytes that are on disk before more are copied: whoever waits for the same disk is not held up by much, and who gives up is heard.
const SYNCED_EVERY: u64 = 8 << 20;

/// Bytes that are written at a time: the system may not give the core to another thread before it has copied them.
const PIECE: usize = 64 << 10;

/// A copy without its name yet: dropped, it is removed. A server that is killed leaves it, to be found as abandoned.
#[derive(Debug)]
pub(super) struct Copying {
    from: File,
    to: File,
    /// Where it lies; empty once it is whole and has its name.
    staged: PathBuf,
    path: PathBuf,
    left: u64,
    piece: Vec<u8>,
}

/// What a step failed at.
#[derive(Debug)]
pub(super) enum Fault {
    /// The spool could not be read.
    Read(io::Error),
    Write(io::Error),
}

impl Copying {
    /// Begins the copy that will be `path`, whose folder is made if it is not there.
    pub(super) fn begin(spooled: Spooled, path: PathBuf) -> io::Result<Self> {
        path.parent().map_or(Ok(()), make_folder)?;
        let mut staged = path.clone().into_os_string();
        staged.push("#1");
        let staged = PathBuf::from(staged);
        let to = File::options().write(true).create_new(true).open(&staged)?;
        Ok(Self { from: spooled.file, to, staged, path, left: spooled.bytes, piece: vec![0; PIECE] })
    }

    /// Bytes that are not copied yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Copies some more; what is copied is on disk.
    pub(super) fn step(&mut self) -> Result<(), Fault> {
        let end = self.left.saturating_sub(SYNCED_EVERY);
        while self.left > end {
            let wanted = (self.left - end).min(PIECE as u64) as usize;
            let piece = &mut self.piece[..wanted];
            self.from.read_exact(piece).map_err(Fault::Read)?;
            self.to.write_all(piece).map_err(Fault::Write)?;
            self.left -= wanted as u64;
        }
        self.to.sync_data().map_err(Fault::Write)
    }

    /// Gives it its name, on disk for good.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.to.sync_all()?;
        fs::rename(&self.staged, &self.path)?;
        // Until its name is on disk too it is removed by drop.
        self.staged.clone_from(&self.path);
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
        self.staged.clear();
        Ok(())
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if self.staged.as_os_str().is_empty() {
            return;
        }
        if let Err(fault) = remove(&self.staged) {
            tracing::warn!(path = %self.staged.display(), %fault, "a file of a checkpoint stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::path::Path;

    use super::{Copying, Fault, PIECE, SYNCED_EVERY};
    use crate::archive::{Spool, Spooled};

    fn spooled(folder: &Path, contents: &[u8]) -> Spooled {
        let mut spool = Spool::create(&folder.join("spool"), 1).unwrap();
        spool.write_all(contents).unwrap();
        spool.finish().unwrap()
    }

    #[test]
    fn a_copy_is_what_was_spooled_and_has_its_name_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        for (number, bytes) in [0, 1, PIECE, SYNCED_EVERY as usize, SYNCED_EVERY as usize + PIECE + 1].into_iter().enumerate() {
            let contents: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            let path = folder.path().join(format!("bank/{number}/file"));
            let mut copying = Copying::begin(spooled(folder.path(), &contents), path.clone()).unwrap();
            let mut steps = 0;
            while copying.left() > 0 {
                copying.step().unwrap();
                steps += 1;
            }
            assert_eq!(steps, bytes.div_ceil(SYNCED_EVERY as usize));
            assert!(!path.exists(), "nothing has its name before it is whole");
            copying.finish().unwrap();
            assert_eq!(fs::read(&path).unwrap(), contents);
            assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_copy_that_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bank/tag/file");
        let begin = |contents: &[u8]| Copying::begin(spooled(folder.path(), contents), path.clone());
        let mut given_up = begin(&[7; 100]).unwrap();
        given_up.step().unwrap();
        assert_eq!(begin(&[8; 100]).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists, "another is at it");
        drop(given_up);
        assert!(!folder.path().join("bank").exists());

        let mut short = begin(&[7; 100]).unwrap();
        short.left = 101;
        assert!(matches!(short.step(), Err(Fault::Read(_))));
        drop(short);

        let unnamed = begin(&[]).unwrap();
        fs::create_dir(&path).unwrap();
        unnamed.finish().unwrap_err();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "only what was there before");
    }
}
