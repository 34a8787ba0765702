//! Frames: what every file here is made of.
//!
//! A frame is a header of 32 or 48 bytes, the payload, and zeros up to a multiple of 8 bytes. The header:
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | `nbf1`, or `nbf2`: the header has 48 bytes |
//! | 4..8 | CRC-32 of the header's bytes from 8 on |
//! | 8..16 | length of the payload |
//! | 16..24 | sequence |
//! | 24..28 | bytes 4..8 of the frame before: 0 for the first of a chain |
//! | 28..32 | CRC-32 of the payload |
//! | 32..40 | `nbf2`: a number that only this file has |
//! | 40..48 | `nbf2`: bytes of the file that were known to be on disk when the frame was written |
//!
//! All numbers are little-endian. Every bit is covered: the magic number and the padding by what they must be, the rest by the checksums.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::appender::BLOCK;
use super::behind::Behind;

const MAGIC: [u8; 4] = *b"nbf1";
const MAGIC_OF_CLAIM: [u8; 4] = *b"nbf2";
const HEADER: usize = 32;
pub(super) const HEADER_WITH_CLAIM: usize = 48;
pub(super) const ALIGNMENT: usize = 8;

/// What a frame tells of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// A number that only the file has, and nobody outside knows: nothing that a client sends can pass for one of its frames.
    pub(super) file: u64,
    /// Bytes of the file that were known to be on disk when the frame was written.
    pub(super) synced: u64,
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) length: u64,
    sequence: u64,
    predecessor: u32,
    pub(super) payload: u32,
    pub(super) claim: Option<Claim>,
}

impl Header {
    /// The bytes, and the checksum in them, by which the next frame knows this one.
    fn encode(self) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(HEADER_WITH_CLAIM);
        bytes.extend(if self.claim.is_some() { MAGIC_OF_CLAIM } else { MAGIC });
        bytes.extend([0; 4]);
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.predecessor.to_le_bytes());
        bytes.extend(self.payload.to_le_bytes());
        if let Some(claim) = self.claim {
            bytes.extend(claim.file.to_le_bytes());
            bytes.extend(claim.synced.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// The header that `bytes` begin with, and its checksum; `None` if it is none.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, u32)> {
        let claims = match *bytes.first_chunk()? {
            MAGIC => false,
            MAGIC_OF_CLAIM => true,
            _ => return None,
        };
        let bytes = bytes.get(..Self::len(claims))?;
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let checksum = word(4);
        let claim = claims.then(|| Claim { file: long(32), synced: long(40) });
        let header = Self { length: long(8), sequence: long(16), predecessor: word(24), payload: word(28), claim };
        (crc32fast::hash(&bytes[8..]) == checksum).then_some((header, checksum))
    }

    pub(super) fn len(claims: bool) -> usize {
        if claims { HEADER_WITH_CLAIM } else { HEADER }
    }

    /// Bytes of the frame, if so many can be.
    pub(super) fn whole(&self) -> Option<u64> {
        let around = Self::len(self.claim.is_some()) + padding(self.length);
        self.length.checked_add(around as u64)
    }
}

fn padding(length: u64) -> usize {
    (length.wrapping_neg() % ALIGNMENT as u64) as usize
}

/// What stands before and after a payload in its frame.
pub(super) struct Around {
    pub(super) before: Vec<u8>,
    pub(super) after: &'static [u8],
    /// The frame's checksum.
    pub(super) checksum: u32,
    /// Bytes of the frame.
    pub(super) bytes: u64,
}

/// The frame of a payload, given in parts, after the one whose checksum is `predecessor`.
pub(super) fn around(predecessor: u32, sequence: u64, claim: Option<Claim>, payload: &[&[u8]]) -> Around {
    let length = payload.iter().map(|part| part.len() as u64).sum();
    let mut hasher = crc32fast::Hasher::new();
    payload.iter().for_each(|part| hasher.update(part));
    let header = Header { length, sequence, predecessor, payload: hasher.finalize(), claim };
    let (before, checksum) = header.encode();
    let after = &[0; ALIGNMENT][..padding(length)];
    let bytes = (before.len() + after.len()) as u64 + length;
    Around { before, after, checksum, bytes }
}

/// Writes a frame after the one whose checksum is `predecessor`; returns its own and its length in bytes.
pub(super) fn write(out: &mut impl Write, predecessor: u32, sequence: u64, payload: &[u8]) -> io::Result<(u32, u64)> {
    let Around { before, after, checksum, bytes } = around(predecessor, sequence, None, &[payload]);
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
    /// The file's number, if its frames have one.
    number: Option<u64>,
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
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(1 << 20, file),
            len,
            at: 0,
            checksum: None,
            number: None,
        })
    }

    /// Checksum of the last frame that was read.
    pub(super) fn checksum(&self) -> u32 {
        self.checksum.unwrap_or_default()
    }

    /// Bytes read.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// From here on each frame has this number, or none has.
    pub(super) fn expect(&mut self, number: Option<u64>) {
        self.number = number;
    }

    /// The next frame; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Broken> {
        let left = self.len - self.at;
        if left == 0 || (left < BLOCK as u64 && self.only_zeros_are_left(left as usize)?) {
            return Ok(None);
        }
        let unfinished = |what: &str| Err(Broken::Unfinished { at: self.at, what: what.to_owned() });
        let mut bytes = [0; HEADER_WITH_CLAIM];
        let bytes = &mut bytes[..Header::len(self.number.is_some())];
        if left < bytes.len() as u64 {
            return unfinished("the file ends within a record's header");
        }
        self.file.read_exact(bytes).map_err(|fault| self.fault(fault))?;
        let found = Header::decode(bytes).filter(|(header, _)| header.claim.map(|claim| claim.file) == self.number);
        let Some((header, checksum)) = found else {
            return unfinished("the record's header does not match its checksum");
        };
        let whole = header.whole().filter(|&whole| whole <= left);
        let Some(whole) = whole else { return unfinished("the file ends within a record") };
        let padding = padding(header.length);
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

    /// What lies behind the frame at byte `at`, which is not whole.
    pub(super) fn behind(&self, at: u64) -> Result<Behind, StoreError> {
        Behind::of(self.file.get_ref(), at, self.number).map_err(StoreError::io("read", &self.path))
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
