//! A checkpoint on this machine's disk, before it is uploaded.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write};
use std::path::Path;

use super::ArchiveError;

const SETTING: &str = "checkpoints.spool";

/// A file without a name: it is gone with whoever has it open.
#[derive(Debug)]
pub struct Spool {
    file: BufWriter<File>,
    checksum: crc32fast::Hasher,
    bytes: u64,
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
    /// Makes one in `folder`, which is made if it is not there. `number` tells it from others that are being made.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]
    pub fn create(folder: &Path, number: u64) -> Result<Self, ArchiveError> {
        let path = folder.join(format!(".spool-{number:016x}"));
        let made = || {
            std::fs::create_dir_all(folder)?;
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        };
        let file = made().map_err(|fault| failed("make", &path, &fault))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 20, file), checksum: crc32fast::Hasher::new(), bytes: 0 })
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

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        self.bytes += written as u64;
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
