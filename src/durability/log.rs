//! The log of a bank.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::StoreError;
use super::appender::Appender;
use super::folder::Folder;
use super::frames::{self, Around};
use super::mark::{Beyond, Found, Mark};
use super::replay::{Apply, Replay, Replayed};
use super::segment::Segment;
use super::unsynced::{Unsynced, Until};
use crate::model::Durability;

/// What was applied to a bank, in order, in files of about `segment_bytes`. Once a call has failed, nobody knows what is on disk until
/// the log is opened anew: it must not be used any more.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    identity: u64,
    segment_bytes: u64,
    /// The last one is written to.
    segments: Vec<Segment>,
    file: Appender,
    mark: Box<Mark>,
    /// Of the last frame.
    checksum: u32,
    /// Bytes appended since it was opened, and how many of them are known to be on disk.
    appended: u64,
    synced: u64,
    /// Bytes appended up to the last that went into the page cache.
    cached: u64,
    /// A call has failed: the mark stays where it was, whoever says that more is on disk.
    is_distrusted: bool,
    /// Keeps other servers away for as long as this may write.
    _lock: Arc<File>,
}

/// Of a file, the share that may be unsynced when another follows it.
const SETTLED_SHARE: u64 = 32;

impl Log {
    /// An empty log, whose first record will have sequence `first`.
    pub(super) fn create(folder: &Folder, first: u64) -> Result<Self, StoreError> {
        Self::begin(folder, first, Beyond::now())
    }

    fn begin(folder: &Folder, first: u64, beyond: Beyond) -> Result<Self, StoreError> {
        let (segment, file, checksum) = Segment::create(&folder.path, folder.identity, first, 0)?;
        let mark = Mark::begin(folder, segment.point(segment.bytes), beyond)?;
        Ok(Self::of(folder, vec![segment], (file, mark), checksum))
    }

    fn of(folder: &Folder, segments: Vec<Segment>, (file, mark): (Appender, Mark), checksum: u32) -> Self {
        Self {
            folder: folder.path.clone(),
            identity: folder.identity,
            segment_bytes: folder.segment_bytes,
            segments,
            file,
            mark: Box::new(mark),
            checksum,
            appended: 0,
            synced: 0,
            cached: 0,
            is_distrusted: false,
            _lock: Arc::clone(&folder.lock),
        }
    }

    /// Opens a log and gives `apply` the records after sequence `after`, in order, each with the sequence it was appended under. From the first
    /// record on that is not whole its end is cut off, if nothing of that was known to be on disk: so it was not acknowledged, or not yet synced.
    /// A log that was read, and which the disk has no room to go on with, is that error.
    pub(super) fn open(
        folder: &Folder,
        after: u64,
        apply: Apply<'_>,
    ) -> Result<(Result<Self, StoreError>, Replayed), StoreError> {
        let mut segments = Segment::list(&folder.path)?;
        // What a snapshot has taken the place of may be there in part: its removal was under way.
        segments.drain(..Segment::behind(&segments, after));
        let begin = segments.first().map_or(u64::MAX, |segment| segment.first);
        if begin > after + 1 {
            let what = format!("no file of the log begins at or before {}, where the bank's history must go on", after + 1);
            return Err(StoreError::damaged(&folder.path, 0, what));
        }
        let found = Mark::find(folder)?;
        let is_there = found.beyond().is_there();
        let mut replay = Replay::new(folder, after, found, apply);
        if let Some(last) = segments.last() {
            replay.check_last(last)?;
        }
        let mut before = None;
        for at in 0..segments.len() {
            let is_last = at + 1 == segments.len();
            let Some(checksum) = replay.read(&mut segments[at], before, is_last)? else {
                segments.pop();
                break;
            };
            before = Some(checksum);
        }
        let mut replayed = replay.found;
        // A killed server leaves no hole in what it appended; a disk that failed may.
        let has_no_hole = replayed.torn.as_ref().is_none_or(|torn| torn.records == 0);
        let may_lose = folder.record.durability != Durability::Always;
        replayed.may_lack = may_lose && !(is_there && has_no_hole);
        let beyond = if replayed.may_lack { Beyond::Unknown } else { Beyond::now() };
        let is_unsynced = segments.last().is_some_and(|current| found.within(current.first) < current.bytes);
        let log = match segments.last().zip(before) {
            Some((current, checksum)) => {
                let files = Self::settled(folder, current, (found, beyond));
                files.map(|files| Self::of(folder, segments, files, checksum))
            }
            None => Self::begin(folder, after + 1, beyond),
        };
        match log {
            Err(full) if full.wants_room() => {
                // Then nobody syncs what a killed server had only appended.
                replayed.may_lack |= !may_lose && is_unsynced;
                Ok((Err(full), replayed))
            }
            log => Ok((Ok(log?), replayed)),
        }
    }

    /// What a log goes on in: all of its last file is on disk, and marked as such.
    fn settled(folder: &Folder, current: &Segment, (found, beyond): (Found, Beyond)) -> Result<(Appender, Mark), StoreError> {
        let file = current.appender()?;
        // What a killed server had only appended may be acknowledged when it is sent again. After a sync that failed the system may take
        // for written what is not: it is, once it was written again.
        let synced = found.within(current.first).min(current.bytes);
        file.rewrite(synced).map_err(StoreError::io("write", &current.path))?;
        file.sync().map_err(StoreError::io("sync", &current.path))?;
        Ok((file, Mark::begin(folder, current.point(current.bytes), beyond)?))
    }

    /// Appends a record, given in parts, which [`Self::write`] hands to the system. A file that is full is followed by another once
    /// that costs no long wait, or when it is twice as large as it should be.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn append(&mut self, sequence: u64, payload: &[&[u8]]) -> Result<(), StoreError> {
        if self.begins_file() {
            self.begin_file(sequence)?;
        }
        self.mark.go_on()?;
        let claim = self.current().and_then(|segment| segment.claim(self.synced_bytes()));
        let Around { before, after, checksum, bytes } = frames::around(self.checksum, sequence, claim, payload);
        let may_go_straight = self.may_go_straight();
        let mut parts = std::iter::once(before.as_slice()).chain(payload.iter().copied()).chain([after]);
        let put = parts.try_for_each(|part| self.file.put(part, may_go_straight));
        put.map_err(|source| self.failed("append to", source))?;
        self.checksum = checksum;
        self.appended += bytes;
        if self.file.is_partly_cached() {
            self.cached = self.appended;
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.bytes += bytes;
        }
        Ok(())
    }

    /// Hands what was appended to the system: then it outlives this process, and is on disk once [`Self::sync`] has returned.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn write(&mut self) -> Result<(), StoreError> {
        let went_straight = self.file.write(self.may_go_straight());
        if !went_straight.map_err(|source| self.failed("append to", source))? {
            self.cached = self.appended;
        }
        Ok(())
    }

    /// Past what is in the page cache only, nothing is written: it would be on disk before that is.
    fn may_go_straight(&self) -> bool {
        self.synced >= self.cached
    }

    /// True if the next record will begin a new file, which waits until all of this one is on disk.
    pub fn begins_file(&self) -> bool {
        self.is_full() && (self.is_settled() || self.file_bytes() >= 2 * self.segment_bytes)
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
            self.write()?;
            // A bad record in a file that has a successor is never the end of a write that was cut short.
            self.file.trim().map_err(|source| self.failed("cut the end of", source))?;
            self.sync()?;
            let (segment, file, checksum) = Segment::create(&self.folder, self.identity, first, self.checksum)?;
            self.segments.push(segment);
            (self.file, self.checksum) = (file, checksum);
            self.note_synced(Until::of(self.appended))?;
            // A power cut leaves the mark in this file, or an earlier version of it within the one before.
            self.mark.sync()?;
        }
        Ok(())
    }

    /// Returns when everything appended is on disk, and marked as such.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.write()?;
        self.file.sync().map_err(|source| self.failed("sync", source))?;
        self.note_synced(Until::of(self.appended))
    }

    /// Returns when everything appended is on disk, and the mark as well, which says so. The next append costs a sync more.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        self.mark.tell(Beyond::Nothing)?;
        self.mark.sync()
    }

    /// What may be missing of the log is told of elsewhere: from now on only what comes may be lost.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn vouch(&mut self) -> Result<(), StoreError> {
        self.mark.tell(Beyond::now())?;
        self.mark.sync()
    }

    /// The disk has failed: what was not synced may be lost though the system goes on, whatever a later sync says.
    pub fn distrust(&mut self) {
        self.is_distrusted = true;
        // It may refuse this as well.
        let _untold = self.mark.tell(Beyond::Unknown);
    }

    /// What was appended and may not be on disk, for another thread to sync while this one goes on.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn unsynced(&mut self) -> Result<Unsynced, StoreError> {
        self.write()?;
        let file = self.file.for_another_thread().map_err(|source| self.failed("sync", source))?;
        let path = self.current().map_or_else(|| self.folder.clone(), |segment| segment.path.clone());
        Ok(Unsynced::new(file, path, Until::of(self.appended)))
    }

    /// What was appended until then is on disk: marks it as such, unless the disk has failed since.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn note_synced(&mut self, until: Until) -> Result<(), StoreError> {
        if self.is_distrusted {
            return Ok(());
        }
        self.synced = self.synced.max(until.bytes());
        let marked = self.current().map(|segment| segment.point(self.synced_bytes()));
        marked.map_or(Ok(()), |point| self.mark.advance(point))
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

    /// Bytes of the current file that are known to be on disk: all that is not yet is in it.
    fn synced_bytes(&self) -> u64 {
        self.file_bytes().saturating_sub(self.appended - self.synced)
    }

    fn current(&self) -> Option<&Segment> {
        self.segments.last()
    }

    fn failed(&self, doing: &'static str, source: std::io::Error) -> StoreError {
        let path = self.current().map_or_else(|| self.folder.clone(), |segment| segment.path.clone());
        StoreError::Io { doing, path, source }
    }
}

#[cfg(test)]
mod tests;
