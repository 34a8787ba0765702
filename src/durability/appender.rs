//! Writing to the end of a file, past the page cache where that is cheaper.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use memmap2::{Advice, MmapMut};

/// Bytes from which on a write goes straight to the disk. The page cache takes a copy of each page and time to find room for it, which for
/// large writes is most of what they cost; a small one is done sooner in it.
const STRAIGHT_FROM: usize = 256 << 10;

/// What offsets, lengths and addresses of straight writes are multiples of: no disk asks for more.
pub(super) const BLOCK: usize = 4_096;

/// Bytes of a straight write at most: a page of the largest kind, which the system looks up once and not for every 4 KiB.
const PIECE: usize = 2 << 20;

/// A file that is only ever appended to. Straight writes are whole blocks: up to `BLOCK - 1` zeros may lie behind its end until
/// [`Self::trim`] is called or more is appended.
#[derive(Debug)]
pub(super) struct Appender {
    file: File,
    /// The same file opened once more, for another thread to sync: the system tells of a write that failed once for each time that a file was
    /// opened, so whoever shared this one's could hear of it in this one's place.
    again: File,
    /// `None`: the file system knows no straight writes.
    straight: Option<Straight>,
    end: u64,
    /// What lies between the last multiple of [`BLOCK`] and the end.
    tail: Vec<u8>,
}

#[derive(Debug)]
struct Straight {
    file: File,
    /// Memory of a process's own pages, and so aligned.
    buffer: MmapMut,
}

impl Appender {
    /// Opens a file that ends at byte `end`.
    pub(super) fn open(path: &Path, end: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let behind = end % BLOCK as u64;
        let mut tail = vec![0; behind as usize];
        file.read_exact_at(&mut tail, end - behind)?;
        let again = OpenOptions::new().write(true).open(path)?;
        let straight = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path);
        let straight = match straight {
            Ok(file) => Some(Straight { file, buffer: buffer()? }),
            Err(refused) if is_unknown(&refused) => None,
            Err(fault) => return Err(fault),
        };
        Ok(Self { file, again, straight, end, tail })
    }

    /// Appends `parts`, one after the other; if they are large and it may, past the page cache, and returns whether it did. After an error
    /// nobody knows what lies behind the end.
    pub(super) fn append(&mut self, parts: &[&[u8]], may_go_straight: bool) -> io::Result<bool> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let straight = self.straight.as_mut().filter(|_| may_go_straight && total >= STRAIGHT_FROM);
        let done = straight.map(|straight| straight.write(&self.tail, parts, self.end - self.tail.len() as u64));
        let went_straight = matches!(done, Some(Ok(())));
        match done {
            Some(Ok(())) => {}
            // Some file systems say so only now; nothing was written.
            Some(Err(refused)) if is_unknown(&refused) => {
                self.straight = None;
                self.write(parts)?;
            }
            Some(Err(fault)) => return Err(fault),
            None => self.write(parts)?,
        }
        self.end += total as u64;
        let tail = (self.end % BLOCK as u64) as usize;
        self.tail = last(tail, std::iter::once(self.tail.as_slice()).chain(parts.iter().copied()));
        Ok(went_straight)
    }

    /// Cuts off what lies behind the end.
    pub(super) fn trim(&self) -> io::Result<()> {
        self.file.set_len(self.end)
    }

    /// Writes what is there from byte `at` on again.
    pub(super) fn rewrite(&self, mut at: u64) -> io::Result<()> {
        let mut bytes = vec![0; PIECE];
        while at < self.end {
            let piece = &mut bytes[..PIECE.min((self.end - at) as usize)];
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

    fn write(&self, parts: &[&[u8]]) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if total < STRAIGHT_FROM {
            return self.file.write_all_at(&parts.concat(), self.end);
        }
        let mut at = self.end;
        for part in parts {
            self.file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }
}

impl Straight {
    /// Writes `tail` and `parts` from `at` on, which is a multiple of [`BLOCK`].
    fn write(&mut self, tail: &[u8], parts: &[&[u8]], mut at: u64) -> io::Result<()> {
        let Self { file, buffer } = self;
        let mut filled = tail.len();
        buffer[..filled].copy_from_slice(tail);
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(PIECE - filled));
                buffer[filled..filled + now.len()].copy_from_slice(now);
                (filled, rest) = (filled + now.len(), later);
                if filled == PIECE {
                    file.write_all_at(buffer, at)?;
                    (at, filled) = (at + PIECE as u64, 0);
                }
            }
        }
        let whole = filled.next_multiple_of(BLOCK);
        buffer[filled..whole].fill(0);
        file.write_all_at(&buffer[..whole], at)
    }
}

/// Memory of a piece; untouched it takes none.
fn buffer() -> io::Result<MmapMut> {
    let buffer = MmapMut::map_anon(PIECE)?;
    // Where the system has no such pages it writes more slowly.
    let _advised = buffer.advise(Advice::HugePage);
    Ok(buffer)
}

/// True if a file system refuses straight writes as such.
fn is_unknown(refused: &io::Error) -> bool {
    matches!(refused.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// The last `count` bytes of `parts`.
fn last<'a>(count: usize, parts: impl DoubleEndedIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut missing, mut pieces) = (count, Vec::new());
    for part in parts.rev() {
        let piece = &part[part.len() - missing.min(part.len())..];
        missing -= piece.len();
        pieces.push(piece);
    }
    pieces.reverse();
    pieces.concat()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Seek as _, SeekFrom};

    use super::{Appender, BLOCK, last};

    #[test]
    fn what_is_appended_in_pieces_of_any_size_lies_there_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"head").unwrap();
        let mut expected = b"head".to_vec();
        let mut appender = Appender::open(&path, 4).unwrap();
        let noise = |len: usize, seed: usize| (0..len).map(|at| (at * 31 + seed * 7 + at / 251) as u8).collect::<Vec<u8>>();
        for (number, len) in [1, 0, 300_000, 7, 4_089, 262_144, 262_143, 3 << 20, 5_000, (2 << 20) + 12].into_iter().enumerate()
        {
            let (head, body) = (noise(32, number), noise(len, number + 1));
            let went_straight = appender.append(&[&head, &body, &[0; 3]], number != 9).unwrap();
            assert!(!went_straight || (len >= 262_000 && number != 9), "{len}");
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

    #[test]
    fn the_last_bytes_of_parts() {
        let parts: [&[u8]; 3] = [b"abc", b"", b"de"];
        assert_eq!([0, 1, 3, 5].map(|count| last(count, parts.into_iter())), [&b""[..], b"e", b"cde", b"abcde"]);
    }
}
