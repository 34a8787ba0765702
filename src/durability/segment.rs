//! One file of a log.

use std::path::{Path, PathBuf};

use super::appender::Appender;
use super::folder::drawn;
use super::frames::{self, Claim, Frame};
use super::mark::Point;
use super::{StoreError, sync};

const MAGIC: &[u8; 12] = b"negbank log\n";
/// Its head has a number, and so have its records. Raised also with the version of what the records hold.
pub(super) const VERSION: u32 = 2;
/// Neither has.
const UNNUMBERED: u32 = 1;

/// A file of a log: its first frame tells whose it is, the others are records.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Sequence of its first record, whether or not that has been written.
    pub(super) first: u64,
    pub(super) bytes: u64,
    /// What its records know it by; `None`: it was not read yet, or an earlier version began it.
    pub(super) number: Option<u64>,
}

impl Segment {
    pub(super) fn path(folder: &Path, first: u64) -> PathBuf {
        folder.join(format!("log-{first:020}"))
    }

    /// The segments of a folder, in order.
    pub(super) fn list(folder: &Path) -> Result<Vec<Self>, StoreError> {
        let mut segments = Vec::new();
        for entry in folder.read_dir().map_err(StoreError::io("list", folder))? {
            let entry = entry.map_err(StoreError::io("list", folder))?;
            let name = entry.file_name();
            let first = name.to_str().and_then(|name| name.strip_prefix("log-")).and_then(|number| number.parse().ok());
            if let Some(first) = first {
                let bytes = entry.metadata().map_err(StoreError::io("read", &entry.path()))?.len();
                segments.push(Self { path: entry.path(), first, bytes, number: None });
            }
        }
        segments.sort_by_key(|segment| segment.first);
        Ok(segments)
    }

    /// How many of `segments`, from the first on, hold nothing after `sequence`. The last may yet get records.
    pub(super) fn behind(segments: &[Self], sequence: u64) -> usize {
        segments.windows(2).take_while(|pair| pair[1].first <= sequence + 1).count()
    }

    /// A new file, on disk, whose records follow the frame of checksum `predecessor`; and the checksum to go on from.
    pub(super) fn create(
        folder: &Path,
        identity: u64,
        first: u64,
        predecessor: u32,
    ) -> Result<(Self, Appender, u32), StoreError> {
        let path = Self::path(folder, first);
        let number = drawn(&path)?;
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&identity.to_le_bytes());
        head.extend_from_slice(&number.to_le_bytes());
        let mut content = Vec::new();
        let written = frames::write(&mut content, predecessor, first, &head);
        let (checksum, bytes) = written.map_err(StoreError::io("write", &path))?;
        sync::new_file(&path, &content)?;
        let segment = Self { path, first, bytes, number: Some(number) };
        let file = segment.appender()?;
        Ok((segment, file, checksum))
    }

    /// Opens it, to go on where it ends.
    pub(super) fn appender(&self) -> Result<Appender, StoreError> {
        Appender::open(&self.path, self.bytes).map_err(StoreError::io("append to", &self.path))
    }

    /// What a record tells that is appended when so many bytes are on disk.
    pub(super) fn claim(&self, synced: u64) -> Option<Claim> {
        self.number.map(|file| Claim { file, synced })
    }

    /// The place in the log where so many of its bytes end.
    pub(super) fn point(&self, bytes: u64) -> Point {
        Point { first: self.first, bytes }
    }

    /// Takes the first frame: checks whose log it is, and where its records begin.
    pub(super) fn take_head(&mut self, head: &Frame, identity: u64) -> Result<(), StoreError> {
        let refuse = |what: String| Err(StoreError::damaged(&self.path, 0, what));
        let Some(rest) = head.payload.strip_prefix(MAGIC) else { return refuse("it is no log of a bank".into()) };
        let Some((version, rest)) = rest.split_first_chunk() else { return refuse("its head is cut short".into()) };
        let version = u32::from_le_bytes(*version);
        StoreError::check_version(&self.path, ("a bank's log", version), VERSION)?;
        let Some(rest) = rest.strip_prefix(&identity.to_le_bytes()) else {
            return refuse("it is the log of another bank".into());
        };
        let number = match (version, rest.try_into()) {
            (UNNUMBERED, _) if rest.is_empty() => None,
            (VERSION, Ok(number)) => Some(u64::from_le_bytes(number)),
            _ => return refuse("its head has another length than it should have".into()),
        };
        if head.sequence != self.first {
            return refuse(format!("its records begin at {}, not as its name says", head.sequence));
        }
        self.number = number;
        Ok(())
    }
}
