//! Writing to the end of a file, past the page cache where that is cheaper.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use memmap2::{Advice, MmapMut};

/// Bytes from which on what is written together goes straight to the disk. The page cache takes a copy of each page and time to find room for
/// it, which for large writes is most of what they cost; a small one is done sooner in it.
const STRAIGHT_FROM: usize = 256 << 10;

/// What offsets, lengths and addresses of straight writes are multiples of: no disk asks for more.
pub(super) const BLOCK: usize = 4_096;

/// Bytes of a write at most, once there are [`STRAIGHT_FROM`]: a page of the largest kind, which the system looks up once and not for
/// every 4 KiB.
const PIECE: usize = 2 << 20;

/// A file that is only ever appended to. Straight writes are whole blocks: up to `BLOCK - 1` zeros may lie behind its end until
/// [`Self::trim`] is called or more is written.
#[derive(Debug)]
pub(super) struct Appender {
    file: File,
    /// The same file opened once more, for another thread to sync: the system tells of a write that failed once for each time that a file was
    /// opened, so whoever shared this one's could hear of it in this one's place.
    again: File,
    /// The same file, past the page cache; `None`: the file system knows no straight writes.
    straight: Option<File>,
    /// Where in the file lies what is held: a multiple of [`BLOCK`]. Its first bytes are in the file already, those behind are to be written.
    begin: u64,
    /// Bytes held that are in the file already: less than a block.
    written: usize,
    /// What is held.
    few: Vec<u8>,
    /// What is held once more than [`STRAIGHT_FROM`] is to be written, in place of `few`: memory of a process's own pages, and so aligned.
    /// Untouched it takes none.
    many: MmapMut,
    /// Bytes of `many` that are held; `None`: those of `few` are.
    filled: Option<usize>,
    /// A piece of what is written together went through the page cache.
    is_cached: bool,
}

impl Appender {
    /// Opens a file that ends at byte `end`.
    pub(super) fn open(path: &Path, end: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let written = (end % BLOCK as u64) as usize;
        let mut few = vec![0; written];
        let begin = end - written as u64;
        file.read_exact_at(&mut few, begin)?;
        let again = OpenOptions::new().write(true).open(path)?;
        let straight = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path);
        let straight = straight.map(Some).or_else(|refused| if is_unknown(&refused) { Ok(None) } else { Err(refused) })?;
        let many = MmapMut::map_anon(PIECE)?;
        // Where the system has no such pages it writes more slowly.
        let _advised = many.advise(Advice::HugePage);
        Ok(Self { file, again, straight, begin, written, few, many, filled: None, is_cached: false })
    }

    /// True if some of what was put since the last [`Self::write`] was written through the page cache.
    pub(super) fn is_partly_cached(&self) -> bool {
        self.is_cached
    }

    /// Adds to what [`Self::write`] writes together. If that is large, some of it is written already: past the page cache, if it may. After an
    /// error nobody knows what lies behind the end.
    pub(super) fn put(&mut self, mut bytes: &[u8], may_go_straight: bool) -> io::Result<()> {
        let mut filled = match self.filled {
            Some(filled) => filled,
            None if self.few.len() - self.written + bytes.len() < STRAIGHT_FROM => {
                self.few.extend_from_slice(bytes);
                return Ok(());
            }
            None => {
                self.many[..self.few.len()].copy_from_slice(&self.few);
                self.few.len()
            }
        };
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - filled));
            self.many[filled..filled + now.len()].copy_from_slice(now);
            (filled, bytes) = (filled + now.len(), later);
            if filled == PIECE {
                self.write_many(filled, may_go_straight)?;
                filled = self.written;
            }
        }
        self.filled = Some(filled);
        Ok(())
    }

    /// Writes what was put since the last time; returns whether all of it went past the page cache. After an error nobody knows what lies behind
    /// the end.
    pub(super) fn write(&mut self, may_go_straight: bool) -> io::Result<bool> {
        if let Some(filled) = self.filled.take() {
            self.write_many(filled, may_go_straight)?;
            self.few.clear();
            self.few.extend_from_slice(&self.many[..self.written]);
        } else if self.few.len() > self.written {
            self.write_cached(&self.few)?;
            self.is_cached = true;
            let behind = self.few.len() % BLOCK;
            self.begin += self.few.drain(..self.few.len() - behind).len() as u64;
            self.written = behind;
        }
        Ok(!std::mem::take(&mut self.is_cached))
    }

    /// Writes what `many` holds, and leaves what lies between the last multiple of [`BLOCK`] and the end.
    fn write_many(&mut self, filled: usize, may_go_straight: bool) -> io::Result<()> {
        let whole = filled.next_multiple_of(BLOCK);
        self.many[filled..whole].fill(0);
        let straight = self.straight.as_ref().filter(|_| may_go_straight);
        let done = straight.map(|file| file.write_all_at(&self.many[..whole], self.begin));
        match done {
            Some(Ok(())) => {}
            Some(Err(fault)) if !is_unknown(&fault) => return Err(fault),
            unknown => {
                // Some file systems say so only now; nothing was written.
                self.straight = self.straight.take().filter(|_| unknown.is_none());
                self.write_cached(&self.many[..filled])?;
                self.is_cached = true;
            }
        }
        let behind = filled % BLOCK;
        self.many.copy_within(filled - behind..filled, 0);
        self.begin += (filled - behind) as u64;
        self.written = behind;
        Ok(())
    }

    fn write_cached(&self, held: &[u8]) -> io::Result<()> {
        self.file.write_all_at(&held[self.written..], self.end())
    }

    /// Where in the file ends what is written.
    fn end(&self) -> u64 {
        self.begin + self.written as u64
    }

    /// Cuts off what lies behind the end of what is written.
    pub(super) fn trim(&self) -> io::Result<()> {
        self.file.set_len(self.end())
    }

    /// Writes what is there from byte `at` on again.
    pub(super) fn rewrite(&self, mut at: u64) -> io::Result<()> {
        let mut bytes = vec![0; PIECE];
        let end = self.end();
        while at < end {
            let piece = &mut bytes[..PIECE.min((end - at) as usize)];
            self.file.read_exact_at(piece, at)?;
            self.file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Returns when everything is on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// The file, for another thread to sync: both hear of a fault of the disk.
    pub(super) fn for_another_thread(&self) -> io::Result<File> {
        self.again.try_clone()
    }
}

/// True if a file system refuses straight writes as such.
fn is_unknown(refused: &io::Error) -> bool {
    matches!(refused.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Seek as _, SeekFrom};

    use super::{Appender, BLOCK, PIECE, STRAIGHT_FROM};

    #[test]
    fn what_is_appended_in_pieces_of_any_size_lies_there_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"head").unwrap();
        let mut expected = b"head".to_vec();
        let mut appender = Appender::open(&path, 4).unwrap();
        let noise = |len: usize, seed: usize| (0..len).map(|at| (at * 31 + seed * 7 + at / 251) as u8).collect::<Vec<u8>>();
        let sizes = [1, 0, 300_000, 7, 4_089, 262_144, 262_143, 3 << 20, 5_000, (2 << 20) + 12, PIECE, 2 * PIECE + 4_000, 9];
        for (number, len) in sizes.into_iter().enumerate() {
            let (head, body) = (noise(32, number), noise(len, number + 1));
            let may_go_straight = number != 9;
            for part in [head.as_slice(), &body, &[0; 3]] {
                appender.put(part, may_go_straight).unwrap();
            }
            let went_straight = appender.write(may_go_straight).unwrap();
            assert!(!went_straight || (len >= 262_000 && may_go_straight), "{len}");
            expected.extend([head, body, vec![0; 3]].concat());
            let written = fs::read(&path).unwrap();
            assert!(written.starts_with(&expected), "{len}");
            let behind = &written[expected.len()..];
            assert!(behind.len() < BLOCK && behind.iter().all(|&byte| byte == 0), "{len}: {}", behind.len());
            if number == 5 {
                appender = Appender::open(&path, expected.len() as u64).unwrap();
                appender.rewrite(4_000).unwrap();
            }
        }
        appender.trim().unwrap();
        appender.sync().unwrap();
        assert!(fs::read(&path).unwrap() == expected);
    }

    #[test]
    fn what_is_little_is_written_together_once_it_is_asked_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut appender = Appender::open(file.path(), 0).unwrap();
        let put: Vec<u8> = (0..STRAIGHT_FROM + 4 * BLOCK).map(|at| (at / 251) as u8).collect();
        for (number, part) in put.chunks(1_000).enumerate() {
            appender.put(part, true).unwrap();
            let written = fs::metadata(file.path()).unwrap().len();
            assert_eq!(written, if number < 9 { 0 } else { 9_000 });
            if number == 8 {
                assert!(!appender.write(true).unwrap(), "it went through the page cache");
            }
        }
        assert!(appender.write(true).unwrap() || appender.straight.is_none());
        appender.trim().unwrap();
        assert!(fs::read(file.path()).unwrap() == put);
    }

    /// What was opened once has one offset, and one memory of faults.
    #[test]
    fn another_thread_syncs_what_was_opened_once_more() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let appender = Appender::open(file.path(), 0).unwrap();
        let mut other = appender.for_another_thread().unwrap();
        other.seek(SeekFrom::Start(7)).unwrap();
        assert_eq!((&appender.file).stream_position().unwrap(), 0);
        other.sync_data().unwrap();
    }
}
