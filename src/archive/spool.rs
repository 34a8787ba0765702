//! A checkpoint on this machine's disk, before it is uploaded.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, linkat};

use super::ArchiveError;
use super::location::make_folder;
use super::room::has_room;

const SETTING: &str = "checkpoints.spool";
/// Bytes that are on disk before more are written: the last sync takes little, and who gives up is heard until then.
const SYNCED_EVERY: u64 = 64 << 20;

/// A file without a name: it is gone with whoever has it open, unless it gets one.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    file: BufWriter<File>,
    checksum: crc32fast::Hasher,
    /// What there will be.
    total: u64,
    bytes: u64,
    synced: u64,
}

/// A whole one.
#[derive(Debug)]
pub struct Spooled {
    pub(super) file: File,
    /// Its length.
    pub bytes: u64,
    pub(super) crc32: u32,
}

impl Spool {
    /// Makes one in `folder`, which is made if it is not there. `number` tells it from others that are being made, where a file system makes
    /// none without a name.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]
    pub fn create(folder: &Path, number: u64) -> Result<Self, ArchiveError> {
        let path = folder.join(format!(".spool-{number:016x}"));
        let made = || {
            std::fs::create_dir_all(folder)?;
            if let Ok(nameless) = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).open(folder) {
                return Ok(nameless);
            }
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        };
        let file = made().map_err(|fault| failed("make", &path, &fault))?;
        let (folder, file) = (folder.to_owned(), BufWriter::with_capacity(1 << 20, file));
        Ok(Self { folder, file, checksum: crc32fast::Hasher::new(), total: 0, bytes: 0, synced: 0 })
    }

    /// Hears how many bytes there will be in all.
    ///
    /// # Errors
    /// [`ArchiveError::Io`] if the disk has no room for them, now or while they are written.
    pub fn expect(&mut self, total: u64) -> Result<(), ArchiveError> {
        self.total = total;
        self.has_room()
    }

    fn has_room(&self) -> Result<(), ArchiveError> {
        has_room(&self.folder, self.total.saturating_sub(self.bytes), SETTING)
    }

    /// What was written, from its first byte.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]
    pub fn finish(self) -> Result<Spooled, ArchiveError> {
        let (bytes, crc32) = (self.bytes, self.checksum.finalize());
        let finished = self.file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|mut file| {
            file.rewind()?;
            Ok(file)
        });
        Ok(Spooled { file: finished.map_err(|fault| spool_failed(&fault))?, bytes, crc32 })
    }
}

impl Spooled {
    /// Names it `path`, on disk for good, if that is on the spool's own disk: then nothing has to be copied. False if it can't be named.
    pub(super) fn name(&self, path: &Path) -> io::Result<bool> {
        let Some(folder) = path.parent() else { return Ok(false) };
        make_folder(folder)?;
        self.file.sync_data()?;
        let nameless = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match linkat(CWD, nameless, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from) {
            Ok(()) => {}
            Err(fault) if cannot_be_named(&fault) => {
                tracing::debug!(path = %path.display(), %fault, "a checkpoint can't be named and is copied");
                return Ok(false);
            }
            Err(fault) => return Err(without_a_name(path, fault)),
        }
        let kept = File::open(folder).and_then(|folder| folder.sync_all());
        kept.map(|()| true).map_err(|fault| without_a_name(path, fault))
    }
}

/// Takes back a name that no other file can have, and that the spool may have got all the same.
fn without_a_name(path: &Path, fault: io::Error) -> io::Error {
    // What has no manifest is never read.
    let _gone = std::fs::remove_file(path);
    fault
}

/// True if the place is on another disk, or on one whose nameless files stay so, or is taken.
fn cannot_be_named(fault: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, CrossesDevices, NotFound, PermissionDenied, Unsupported};
    matches!(fault.kind(), CrossesDevices | NotFound | Unsupported | PermissionDenied | AlreadyExists)
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        self.bytes += written as u64;
        if self.bytes - self.synced >= SYNCED_EVERY {
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
            self.synced = self.bytes;
            self.has_room().map_err(|full| io::Error::new(io::ErrorKind::StorageFull, full.to_string()))?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The spool could not be written or read.
pub(super) fn spool_failed(fault: &io::Error) -> ArchiveError {
    failed("keep", Path::new("the spooled checkpoint"), fault)
}

fn failed(doing: &'static str, path: &Path, fault: &io::Error) -> ArchiveError {
    ArchiveError::Io { doing, what: path.display().to_string(), setting: SETTING, why: fault.to_string() }
}

impl From<io::Error> for ArchiveError {
    /// Of a [`Spool`]'s writes.
    fn from(fault: io::Error) -> Self {
        spool_failed(&fault)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::Spool;

    #[test]
    fn a_spool_has_no_name_until_it_gets_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(&folder.path().join("spool"), 1).unwrap();
        spool.write_all(b"of a bank").unwrap();
        let spooled = spool.finish().unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("spool")).unwrap().count(), 0);
        let named = folder.path().join("bank/tag/file");
        let nameless = File::options().write(true).custom_flags(libc::O_TMPFILE).open(folder.path()).is_ok();
        assert_eq!(spooled.name(&named).unwrap(), nameless, "only where the file system makes none without a name");
        if !nameless {
            assert!(!named.exists());
            return;
        }
        assert_eq!(std::fs::read(&named).unwrap(), b"of a bank");
        assert!(!spooled.name(&named).unwrap(), "what is there is never replaced");
        assert!(spooled.name(std::path::Path::new("/proc/bank/tag/file")).is_err(), "no place");
    }
}
