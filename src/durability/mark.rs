//! How far a log is known to be on disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::folder::Folder;
use super::{StoreError, sync};

const NAME: &str = "synced";
const MAGIC: [u8; 12] = *b"negbank mark";
pub(super) const VERSION: u32 = 1;
const BYTES: usize = 64;

/// A place in a log: the first sequence of the file that it is in, and how many bytes of that file lie before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) first: u64,
    pub(super) bytes: u64,
}

/// The file `synced` beside a log: everything up to a point is on disk. It is written anew in its place each time the log was synced, before
/// anybody hears of that; it is itself synced now and then only, since every earlier version of it is true as well. 64 bytes, which a disk
/// writes whole or not:
///
/// | bytes | |
/// |---|---|
/// | 0..12 | `negbank mark` |
/// | 12..16 | version |
/// | 16..24 | the folder's number, as in the heads of the log's files |
/// | 24..32 | first sequence of the log's file |
/// | 32..40 | bytes of that file that are on disk |
/// | 40..56 | the system's boot id, or zeros |
/// | 56..60 | what may lie behind: 0 something that may be lost, 1 what that system has in its page cache, 2 nothing |
/// | 60..64 | CRC-32 of the bytes before |
///
/// All numbers are little-endian.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: File,
    identity: u64,
    at: Point,
    beyond: Beyond,
    /// False: what was written last is not synced.
    is_synced: bool,
}

/// What may lie behind a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// Something that may be lost.
    Unknown,
    /// What is in the page cache of the system with this boot id, as long as it runs.
    Cached(u128),
    /// Nothing: the log was ended.
    Nothing,
}

impl Beyond {
    /// What is appended from now on.
    pub(super) fn now() -> Self {
        let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let boot = told.and_then(|told| u128::from_str_radix(&told.trim().replace('-', ""), 16).ok());
        boot.map_or(Self::Unknown, Self::Cached)
    }

    /// True if none of it can have been lost.
    pub(super) fn is_there(self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Cached(_) => self == Self::now(),
            Self::Nothing => true,
        }
    }

    fn encode(self) -> (u128, u32) {
        match self {
            Self::Unknown => (0, 0),
            Self::Cached(boot) => (boot, 1),
            Self::Nothing => (0, 2),
        }
    }

    fn decode(boot: u128, kind: u32) -> Self {
        match kind {
            1 => Self::Cached(boot),
            2 => Self::Nothing,
            _ => Self::Unknown,
        }
    }
}

/// What the file was found to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// So much was on disk, at least.
    At(Point, Beyond),
    /// Earlier versions wrote none.
    None,
    /// It is not what was written.
    Damaged(&'static str),
}

impl Found {
    pub(super) fn beyond(self) -> Beyond {
        if let Self::At(_, beyond) = self { beyond } else { Beyond::Unknown }
    }

    /// Bytes known to be on disk of the log's file that begins at `first`.
    pub(super) fn within(self, first: u64) -> u64 {
        match self {
            Self::At(point, _) if point.first == first => point.bytes,
            _ => 0,
        }
    }
}

impl Mark {
    /// What the file of a folder tells.
    pub(super) fn find(folder: &Folder) -> Result<Found, StoreError> {
        let path = folder.path.join(NAME);
        match std::fs::read(&path) {
            Ok(bytes) => {
                if let Ok(bytes) = whole(&bytes) {
                    StoreError::check_version(&path, ("a log's mark", word(bytes, 12)), VERSION)?;
                }
                Ok(decode(&bytes, folder.identity).map_or_else(Found::Damaged, |(at, beyond)| Found::At(at, beyond)))
            }
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Found::None),
            Err(fault) => Err(StoreError::io("read", &path)(fault)),
        }
    }

    /// Begins to mark the log of a folder, whatever the file held; this mark is on disk when it returns.
    pub(super) fn begin(folder: &Folder, at: Point, beyond: Beyond) -> Result<Self, StoreError> {
        let path = folder.path.join(NAME);
        let is_new = !path.exists();
        let opened = File::options().write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(StoreError::io("open", &path))?;
        let mut mark = Self { path, file, identity: folder.identity, at, beyond, is_synced: false };
        mark.write()?;
        mark.file.set_len(BYTES as u64).map_err(StoreError::io("write", &mark.path))?;
        mark.sync()?;
        if is_new {
            sync::folder(&folder.path)?;
        }
        Ok(mark)
    }

    /// Everything up to `at` is on disk.
    pub(super) fn advance(&mut self, at: Point) -> Result<(), StoreError> {
        if at > self.at {
            self.at = at;
            self.write()?;
        }
        Ok(())
    }

    /// Tells what may lie behind it from now on.
    pub(super) fn tell(&mut self, beyond: Beyond) -> Result<(), StoreError> {
        if beyond != self.beyond {
            self.beyond = beyond;
            self.write()?;
        }
        Ok(())
    }

    /// Something is about to be appended: a mark that denies it may not be left.
    pub(super) fn go_on(&mut self) -> Result<(), StoreError> {
        if self.beyond == Beyond::Nothing {
            self.tell(Beyond::now())?;
            self.sync()?;
        }
        Ok(())
    }

    /// Returns when the mark is on disk too.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        if !self.is_synced {
            self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
            self.is_synced = true;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.is_synced = false;
        self.file.write_all_at(&encode(self.identity, self.at, self.beyond), 0).map_err(StoreError::io("write", &self.path))
    }
}

fn encode(identity: u64, at: Point, beyond: Beyond) -> [u8; BYTES] {
    let (boot, kind) = beyond.encode();
    let mut bytes = [0; BYTES];
    bytes[..12].copy_from_slice(&MAGIC);
    bytes[12..16].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&identity.to_le_bytes());
    bytes[24..32].copy_from_slice(&at.first.to_le_bytes());
    bytes[32..40].copy_from_slice(&at.bytes.to_le_bytes());
    bytes[40..56].copy_from_slice(&boot.to_le_bytes());
    bytes[56..60].copy_from_slice(&kind.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// A mark that is as it was written, of whatever version: each has as many bytes, and the checksum at their end.
fn whole(bytes: &[u8]) -> Result<&[u8; BYTES], &'static str> {
    let bytes: &[u8; BYTES] = bytes.try_into().map_err(|_| "it has another length than it was written with")?;
    if bytes[..12] != MAGIC || word(bytes, 60) != crc32fast::hash(&bytes[..60]) {
        return Err("it does not match its checksum");
    }
    Ok(bytes)
}

fn decode(bytes: &[u8], identity: u64) -> Result<(Point, Beyond), &'static str> {
    let bytes = whole(bytes)?;
    let long = |at: usize| u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32;
    if word(bytes, 12) != VERSION {
        return Err("it is of another version");
    }
    if long(16) != identity {
        return Err("it is of another bank");
    }
    let boot = u128::from(long(40)) | u128::from(long(48)) << 64;
    Ok((Point { first: long(24), bytes: long(32) }, Beyond::decode(boot, word(bytes, 56))))
}

fn word(bytes: &[u8; BYTES], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

#[cfg(test)]
mod tests {
    use super::{BYTES, Beyond, Point, decode, encode};

    #[test]
    fn a_mark_is_read_as_it_was_written_or_not_at_all() {
        let at = Point { first: 77, bytes: u64::MAX - 5 };
        for beyond in [Beyond::Unknown, Beyond::Cached(u128::MAX / 3), Beyond::Nothing] {
            assert_eq!(decode(&encode(9, at, beyond), 9), Ok((at, beyond)));
        }
        let bytes = encode(9, at, Beyond::Cached(7));
        assert!(decode(&bytes, 8).is_err(), "of another bank");
        (0..BYTES).for_each(|len| assert!(decode(&bytes[..len], 9).is_err(), "{len}"));
        assert!(decode(&[bytes.as_slice(), &[0]].concat(), 9).is_err());
        for bit in 0..BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged, 9).is_err(), "{bit}");
        }
    }
}
