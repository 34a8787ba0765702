//! The log of a bank.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::appender::Appender;
use super::folder::Folder;
use super::frames::{self, Around, Broken, Frames};
use super::segment::Segment;
use super::unsynced::{Unsynced, Until};
use super::{Complaint, StoreError, sync};

/// Takes a record and the sequence it was appended under, and complains of what can't be.
pub type Apply<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), Complaint>;

/// What was applied to a bank, in order, in files of about `segment_bytes`. Once a call has failed, nobody knows what is on disk until
/// the log is opened anew: it must not be used any more.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    incarnation: u64,
    segment_bytes: u64,
    /// The last one is written to.
    segments: Vec<Segment>,
    file: Appender,
    /// Of the last frame.
    checksum: u32,
    /// Bytes appended since it was opened, and how many of them are known to be on disk.
    appended: u64,
    synced: u64,
    /// Bytes appended up to the last that went into the page cache.
    cached: u64,
    /// Keeps other servers away for as long as this may write.
    _lock: Arc<File>,
}

/// Of a file, the share that may be unsynced when another follows it.
const SETTLED_SHARE: u64 = 8;

/// What was found when a log was opened.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Records that were read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Zeros behind the last record: of a block that was not filled, or of records that a power cut took.
    pub zeros: u64,
    /// The end of a write that was cut short.
    pub torn: Option<Torn>,
}

/// A last record that was not written whole: it was dropped.
#[derive(Debug)]
pub struct Torn {
    /// The file.
    pub path: PathBuf,
    /// Where the record began.
    pub offset: u64,
    /// Bytes of it that were there.
    pub bytes: u64,
    /// What was wrong with it.
    pub what: String,
}

impl Log {
    /// An empty log, whose first record will have sequence `first`.
    pub(super) fn create(folder: &Folder, first: u64) -> Result<Self, StoreError> {
        let (segment, file, checksum) = Segment::create(&folder.path, folder.record.incarnation, first, 0)?;
        Ok(Self::of(folder, vec![segment], file, checksum))
    }

    fn of(folder: &Folder, segments: Vec<Segment>, file: Appender, checksum: u32) -> Self {
        Self {
            folder: folder.path.clone(),
            incarnation: folder.record.incarnation,
            segment_bytes: folder.segment_bytes,
            segments,
            file,
            checksum,
            appended: 0,
            synced: 0,
            cached: 0,
            _lock: Arc::clone(&folder.lock),
        }
    }

    /// Opens a log and gives `apply` the records after sequence `after`, in order, each with the sequence it was appended under. A last
    /// record that is not whole is cut off: the write that it is of was not acknowledged, or not yet synced.
    pub(super) fn open(folder: &Folder, after: u64, apply: Apply<'_>) -> Result<(Self, Replayed), StoreError> {
        let mut segments = Segment::list(&folder.path)?;
        // What a snapshot has taken the place of may be there in part: its removal was under way.
        segments.drain(..Segment::behind(&segments, after));
        let mut replayed = Replayed::default();
        let begin = segments.first().map_or(u64::MAX, |segment| segment.first);
        if begin > after + 1 {
            let what = format!("no file of the log begins at or before {}, where the bank's history must go on", after + 1);
            return Err(StoreError::damaged(&folder.path, 0, what));
        }
        let mut before = None;
        for at in 0..segments.len() {
            let last = at + 1 == segments.len();
            let read = read_segment(folder, &segments[at], before, (last, after), apply, &mut replayed)?;
            if read.torn_head {
                segments.pop();
                break;
            }
            segments[at].bytes = read.bytes;
            before = Some(read.checksum);
        }
        let (Some(current), Some(checksum)) = (segments.last(), before) else {
            return Ok((Self::create(folder, after + 1)?, replayed));
        };
        let file = current.appender()?;
        // What a killed server had only appended may be acknowledged when it is sent again. After a sync that failed the system may take
        // for written what is not: it is, once it was written again.
        file.rewrite().map_err(StoreError::io("write", &current.path))?;
        file.sync().map_err(StoreError::io("sync", &current.path))?;
        Ok((Self::of(folder, segments, file, checksum), replayed))
    }

    /// Appends a record, given in parts. It is on disk once [`Self::sync`] has returned. A file that is full is followed by another once
    /// that costs no long wait, or when it is twice as large as it should be.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn append(&mut self, sequence: u64, payload: &[&[u8]]) -> Result<(), StoreError> {
        if self.is_full() && (self.is_settled() || self.file_bytes() >= 2 * self.segment_bytes) {
            self.begin_file(sequence)?;
        }
        let Around { before, after, checksum, bytes } = frames::around(self.checksum, sequence, payload);
        // Past what is in the page cache only, nothing is written: it would be on disk before that is.
        let may_go_straight = self.synced >= self.cached;
        let mut parts = vec![before.as_slice()];
        parts.extend_from_slice(payload);
        parts.push(after);
        let went_straight = self.file.append(&parts, may_go_straight);
        let went_straight = went_straight.map_err(|source| self.failed("append to", source))?;
        self.checksum = checksum;
        self.appended += bytes;
        if !went_straight {
            self.cached = self.appended;
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.bytes += bytes;
        }
        Ok(())
    }

    /// True if the next record should go to a new file.
    pub fn is_full(&self) -> bool {
        self.file_bytes() >= self.segment_bytes
    }

    /// True if little is left to sync, so that beginning a new file takes no long wait.
    pub fn is_settled(&self) -> bool {
        self.appended - self.synced <= self.segment_bytes / SETTLED_SHARE
    }

    /// Begins a new file with the record of sequence `first`, the next one: so everything before it can be dropped.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn begin_file(&mut self, first: u64) -> Result<(), StoreError> {
        if self.current().is_some_and(|segment| segment.first < first) {
            // A bad record in a file that has a successor is never the end of a write that was cut short.
            self.file.trim().map_err(|source| self.failed("cut the end of", source))?;
            self.sync()?;
            let (segment, file, checksum) = Segment::create(&self.folder, self.incarnation, first, self.checksum)?;
            self.segments.push(segment);
            (self.file, self.checksum) = (file, checksum);
        }
        Ok(())
    }

    /// Returns when everything appended is on disk.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.file.sync().map_err(|source| self.failed("sync", source))?;
        self.synced = self.appended;
        Ok(())
    }

    /// What was appended and may not be on disk, for another thread to sync while this one goes on.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn unsynced(&self) -> Result<Unsynced, StoreError> {
        let file = self.file.try_clone().map_err(|source| self.failed("sync", source))?;
        let path = self.current().map_or_else(|| self.folder.clone(), |segment| segment.path.clone());
        Ok(Unsynced::new(file, path, self.appended))
    }

    /// Another thread has synced what was appended until then.
    pub fn note_synced(&mut self, until: Until) {
        self.synced = self.synced.max(until.bytes());
    }

    /// Counts the files no more that hold nothing after `sequence`: [`Folder::remove_log_behind`] removes them.
    pub fn forget_behind(&mut self, sequence: u64) {
        let behind = Segment::behind(&self.segments, sequence);
        self.segments.drain(..behind);
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn file_bytes(&self) -> u64 {
        self.current().map_or(0, |segment| segment.bytes)
    }

    fn current(&self) -> Option<&Segment> {
        self.segments.last()
    }

    fn failed(&self, doing: &'static str, source: std::io::Error) -> StoreError {
        let path = self.current().map_or_else(|| self.folder.clone(), |segment| segment.path.clone());
        StoreError::Io { doing, path, source }
    }
}

/// What a segment was found to be.
struct Read {
    bytes: u64,
    checksum: u32,
    /// Not even its head was there: it is gone now.
    torn_head: bool,
}

fn read_segment(
    folder: &Folder,
    segment: &Segment,
    before: Option<u32>,
    (last, after): (bool, u64),
    apply: Apply<'_>,
    replayed: &mut Replayed,
) -> Result<Read, StoreError> {
    let path = &segment.path;
    let mut frames = Frames::open(path)?;
    let mut heads = 0;
    loop {
        let whole = frames.at();
        match frames.next() {
            Ok(Some(frame)) if heads == 0 => {
                segment.check_head(&frame, folder.record.incarnation)?;
                if before.is_some_and(|before| before != frame.predecessor) {
                    return Err(StoreError::damaged(path, 0, "it does not follow the file before it"));
                }
                heads = 1;
            }
            Ok(Some(frame)) => {
                replayed.records += 1;
                replayed.bytes += frames.at() - whole;
                if frame.sequence > after {
                    let applied = apply(frame.sequence, &frame.payload);
                    applied.map_err(|complaint| complaint.about(path, frame.at))?;
                }
            }
            Ok(None) if heads == 1 => {
                replayed.zeros = segment.bytes.saturating_sub(whole);
                if replayed.zeros > 0 && !last {
                    return Err(StoreError::damaged(path, whole, "zeros lie behind the last record, and another file follows"));
                }
                return Ok(Read { bytes: whole, checksum: frames.checksum(), torn_head: false });
            }
            // A file without a byte: its name reached the disk before it did.
            Ok(None) if last => return cut(segment, 0, "the file is empty".to_owned(), &frames, replayed),
            Ok(None) => return Err(StoreError::damaged(path, 0, "the file is empty")),
            Err(Broken::Unfinished { at, what }) if last && !frames.any_after(at)? => {
                return cut(segment, at, what, &frames, replayed);
            }
            Err(broken) => return Err(broken.refused(path)),
        }
    }
}

/// Cuts off the end of a write that was cut short.
fn cut(segment: &Segment, at: u64, what: String, frames: &Frames, replayed: &mut Replayed) -> Result<Read, StoreError> {
    let path = &segment.path;
    let bytes = segment.bytes.saturating_sub(at);
    replayed.torn = Some(Torn { path: path.clone(), offset: at, bytes, what });
    let read = Read { bytes: at, checksum: frames.checksum(), torn_head: at == 0 };
    if read.torn_head {
        std::fs::remove_file(path).map_err(StoreError::io("remove", path))?;
        path.parent().map_or(Ok(()), sync::folder)?;
    } else {
        let cut = File::options().write(true).open(path).and_then(|file| {
            file.set_len(at)?;
            file.sync_all()
        });
        cut.map_err(StoreError::io("cut the end of", path))?;
    }
    Ok(read)
}

#[cfg(test)]
mod tests;
