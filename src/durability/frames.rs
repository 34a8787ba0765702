//! Frames: what every file here is made of.
//!
//! A frame is a header of 32 bytes, the payload, and zeros up to a multiple of 8 bytes. The header:
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | `nbf1` |
//! | 4..8 | CRC-32 of the header's bytes 8..32 |
//! | 8..16 | length of the payload |
//! | 16..24 | sequence |
//! | 24..28 | bytes 4..8 of the frame before: 0 for the first of a chain |
//! | 28..32 | CRC-32 of the payload |
//!
//! All numbers are little-endian. Every bit is covered: the magic number and the padding by what they must be, the rest by the checksums.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::appender::BLOCK;

const MAGIC: [u8; 4] = *b"nbf1";
const HEADER: usize = 32;
const ALIGNMENT: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Header {
    length: u64,
    sequence: u64,
    predecessor: u32,
    payload: u32,
}

impl Header {
    /// The bytes, and the checksum in them, by which the next frame knows this one.
    fn encode(self) -> ([u8; HEADER], u32) {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.predecessor.to_le_bytes());
        bytes[28..].copy_from_slice(&self.payload.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// The header and its checksum; `None` if it is none.
    fn decode(bytes: &[u8; HEADER]) -> Option<(Self, u32)> {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let checksum = word(4);
        let header = Self { length: long(8), sequence: long(16), predecessor: word(24), payload: word(28) };
        (bytes[..4] == MAGIC && crc32fast::hash(&bytes[8..]) == checksum).then_some((header, checksum))
    }
}

fn padding(length: u64) -> usize {
    (length.wrapping_neg() % ALIGNMENT as u64) as usize
}

/// What stands before and after a payload in its frame.
pub(super) struct Around {
    pub(super) before: [u8; HEADER],
    pub(super) after: &'static [u8],
    /// The frame's checksum.
    pub(super) checksum: u32,
    /// Bytes of the frame.
    pub(super) bytes: u64,
}

/// The frame of a payload, given in parts, after the one whose checksum is `predecessor`.
pub(super) fn around(predecessor: u32, sequence: u64, payload: &[&[u8]]) -> Around {
    let length = payload.iter().map(|part| part.len() as u64).sum();
    let mut hasher = crc32fast::Hasher::new();
    payload.iter().for_each(|part| hasher.update(part));
    let header = Header { length, sequence, predecessor, payload: hasher.finalize() };
    let (before, checksum) = header.encode();
    let after = &[0; ALIGNMENT][..padding(length)];
    Around { before, after, checksum, bytes: (HEADER + after.len()) as u64 + length }
}

/// Writes a frame after the one whose checksum is `predecessor`; returns its own and its length in bytes.
pub(super) fn write(out: &mut impl Write, predecessor: u32, sequence: u64, payload: &[u8]) -> io::Result<(u32, u64)> {
    let Around { before, after, checksum, bytes } = around(predecessor, sequence, &[payload]);
    out.write_all(&before)?;
    out.write_all(payload)?;
    out.write_all(after)?;
    Ok((checksum, bytes))
}

/// A frame as it was written.
#[derive(Debug)]
pub(super) struct Frame {
    /// Its first byte in the file.
    pub(super) at: u64,
    pub(super) sequence: u64,
    pub(super) predecessor: u32,
    pub(super) payload: Vec<u8>,
}

/// Reads the frames of a file, and checks that each follows the one before.
#[derive(Debug)]
pub(super) struct Frames {
    path: PathBuf,
    file: BufReader<File>,
    len: u64,
    at: u64,
    checksum: Option<u32>,
}

/// Why there is no further frame.
#[derive(Debug)]
pub(super) enum Broken {
    /// The frame at this offset is not whole, as one whose write was cut short, or whose bytes were changed since.
    Unfinished {
        at: u64,
        what: String,
    },
    Fault(StoreError),
}

impl Frames {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = || {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        let (file, len) = opened().map_err(StoreError::io("read", path))?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(1 << 20, file), len, at: 0, checksum: None })
    }

    /// Checksum of the last frame that was read.
    pub(super) fn checksum(&self) -> u32 {
        self.checksum.unwrap_or_default()
    }

    /// Bytes read.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next frame; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Broken> {
        let left = self.len - self.at;
        if left == 0 || (left < BLOCK as u64 && self.only_zeros_are_left(left as usize)?) {
            return Ok(None);
        }
        let unfinished = |what: &str| Err(Broken::Unfinished { at: self.at, what: what.to_owned() });
        if left < HEADER as u64 {
            return unfinished("the file ends within a record's header");
        }
        let mut bytes = [0; HEADER];
        self.file.read_exact(&mut bytes).map_err(|fault| self.fault(fault))?;
        let Some((header, checksum)) = Header::decode(&bytes) else {
            return unfinished("the record's header does not match its checksum");
        };
        let padding = padding(header.length);
        let whole = header.length.checked_add((HEADER + padding) as u64).filter(|&whole| whole <= left);
        let Some(whole) = whole else { return unfinished("the file ends within a record") };
        let mut payload = vec![0; header.length as usize];
        let mut zeros = [0; ALIGNMENT];
        self.file.read_exact(&mut payload).map_err(|fault| self.fault(fault))?;
        self.file.read_exact(&mut zeros[..padding]).map_err(|fault| self.fault(fault))?;
        if crc32fast::hash(&payload) != header.payload || zeros != [0; ALIGNMENT] {
            return unfinished("the record does not match its checksum");
        }
        if self.checksum.is_some_and(|before| before != header.predecessor) {
            let what = "the record is not the one that was written after the record before it";
            return Err(Broken::Fault(StoreError::damaged(&self.path, self.at, what)));
        }
        let frame = Frame { at: self.at, sequence: header.sequence, predecessor: header.predecessor, payload };
        self.at += whole;
        self.checksum = Some(checksum);
        Ok(Some(frame))
    }

    /// True if nothing comes but the zeros that fill the last block of a file whose writer did not end it.
    fn only_zeros_are_left(&self, left: usize) -> Result<bool, Broken> {
        let mut rest = vec![0; left];
        self.file.get_ref().read_exact_at(&mut rest, self.at).map_err(|fault| self.fault(fault))?;
        Ok(rest.iter().all(|&byte| byte == 0))
    }

    /// True if a frame begins anywhere after byte `at`: then what is wrong at `at` is not the end of a write that was cut short.
    pub(super) fn any_after(&self, at: u64) -> Result<bool, StoreError> {
        let rest = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(at))?;
            let mut rest = Vec::new();
            file.read_to_end(&mut rest)?;
            Ok(rest)
        };
        let rest = rest().map_err(StoreError::io("read", &self.path))?;
        let places = rest.windows(HEADER).skip(ALIGNMENT).step_by(ALIGNMENT);
        let headers = places.filter_map(|bytes| bytes.first_chunk::<HEADER>());
        Ok(headers.filter(|bytes| bytes.starts_with(&MAGIC)).any(|bytes| Header::decode(bytes).is_some()))
    }

    fn fault(&self, source: io::Error) -> Broken {
        Broken::Fault(StoreError::Io { doing: "read", path: self.path.clone(), source })
    }
}

impl Broken {
    /// Refuses the file.
    pub(super) fn refused(self, path: &Path) -> StoreError {
        match self {
            Self::Unfinished { at, what } => StoreError::damaged(path, at, what),
            Self::Fault(fault) => fault,
        }
    }
}

/// The only frame of a file.
pub(super) fn read_one(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut frames = Frames::open(path)?;
    let broken = |broken: Broken| broken.refused(path);
    let Some(frame) = frames.next().map_err(broken)? else {
        return Err(StoreError::damaged(path, 0, "the file is empty"));
    };
    match frames.next().map_err(broken)? {
        None if frame.predecessor == 0 && frame.sequence == 0 => Ok(frame.payload),
        None => Err(StoreError::damaged(path, 0, "the record belongs to another file")),
        Some(second) => Err(StoreError::damaged(path, second.at, "there is more than one record")),
    }
}
