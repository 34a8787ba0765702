//! Reading a log back.

use std::fs::File;
use std::path::PathBuf;

use super::folder::Folder;
use super::frames::{Broken, Frames};
use super::mark::{Found, Point};
use super::segment::Segment;
use super::{Complaint, StoreError, sync};

/// Takes a record and the sequence it was appended under, and complains of what can't be.
pub type Apply<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), Complaint>;

/// What was found when a log was opened.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Records that were read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Zeros behind the last record: of a block that was not filled, or of records that a power cut took.
    pub zeros: u64,
    /// The end of the log that was not on disk as it was written.
    pub torn: Option<Torn>,
    /// Why nothing tells how far the log was on disk, though it should.
    pub unmarked: Option<&'static str>,
    /// Writes that were acknowledged may be missing, as the bank's policy allows: [`Folder::renew`], and then
    /// [`Log::vouch`](super::Log::vouch). Without a log also: some that were read may yet be lost ([`Folder::renewed_for_now`]).
    pub may_lack: bool,
}

/// An end of a log that was dropped, from the first record on that was not whole. Nothing of it was known to be on disk.
#[derive(Debug)]
pub struct Torn {
    /// The file.
    pub path: PathBuf,
    /// Where the record began.
    pub offset: u64,
    /// Bytes from there on.
    pub bytes: u64,
    /// Whole records behind it, as far as they can be told: a power cut took what was written before them.
    pub records: u64,
    /// What was wrong with it.
    pub what: String,
}

/// Reads the files of a log, one after the other.
pub(super) struct Replay<'a> {
    folder: &'a Folder,
    /// Records after this sequence are applied.
    after: u64,
    /// Everything before it was on disk.
    marked: Option<Point>,
    apply: Apply<'a>,
    pub(super) found: Replayed,
}

impl<'a> Replay<'a> {
    pub(super) fn new(folder: &'a Folder, after: u64, mark: Found, apply: Apply<'a>) -> Self {
        let (marked, unmarked) = match mark {
            Found::At(at, _) => (Some(at), None),
            Found::None => (None, None),
            Found::Damaged(what) => (None, Some(what)),
        };
        Self { folder, after, marked, apply, found: Replayed { unmarked, ..Replayed::default() } }
    }

    /// Refuses a log whose last file does not begin where one did that was on disk.
    pub(super) fn check_last(&self, segment: &Segment) -> Result<(), StoreError> {
        let Some(marked) = self.marked.filter(|marked| marked.first > segment.first) else { return Ok(()) };
        let what = format!("the file is not there, and {} bytes of it were on disk", marked.bytes);
        Err(StoreError::damaged(&Segment::path(&self.folder.path, marked.first), 0, what))
    }

    /// Reads a file that follows the frame of checksum `before`, and returns the checksum of its last one. If it is the log's last, the end
    /// that was not on disk is cut off; `None`: not even its head was, and it is gone now.
    pub(super) fn read(
        &mut self,
        segment: &mut Segment,
        before: Option<u32>,
        is_last: bool,
    ) -> Result<Option<u32>, StoreError> {
        let mut frames = Frames::open(&segment.path)?;
        let mut has_head = false;
        loop {
            let whole = frames.at();
            match frames.next() {
                Ok(Some(frame)) if !has_head => {
                    segment.take_head(&frame, self.folder.identity)?;
                    if before.is_some_and(|before| before != frame.predecessor) {
                        return Err(StoreError::damaged(&segment.path, 0, "it does not follow the file before it"));
                    }
                    frames.expect(segment.number);
                    has_head = true;
                }
                Ok(Some(frame)) => {
                    self.found.records += 1;
                    self.found.bytes += frames.at() - whole;
                    if frame.sequence > self.after {
                        let applied = (self.apply)(frame.sequence, &frame.payload);
                        applied.map_err(|complaint| complaint.about(&segment.path, frame.at))?;
                    }
                }
                Ok(None) if has_head => {
                    self.found.zeros = segment.bytes.saturating_sub(whole);
                    if self.found.zeros > 0 && !is_last {
                        let what = "zeros lie behind the last record, and another file follows";
                        return Err(StoreError::damaged(&segment.path, whole, what));
                    }
                    if is_last {
                        self.check_end(segment, whole, self.marked_of(segment), "its last record ends here")?;
                    }
                    segment.bytes = whole;
                    return Ok(Some(frames.checksum()));
                }
                // A file without a byte: its name reached the disk before it did.
                Ok(None) if is_last => return self.cut(segment, 0, "the file is empty".to_owned(), &frames),
                Ok(None) => return Err(StoreError::damaged(&segment.path, 0, "the file is empty")),
                Err(Broken::Unfinished { at, what }) if is_last => return self.cut(segment, at, what, &frames),
                Err(broken) => return Err(broken.refused(&segment.path)),
            }
        }
    }

    /// Bytes of a file that the mark says were on disk.
    fn marked_of(&self, segment: &Segment) -> u64 {
        self.marked.filter(|marked| marked.first == segment.first).map_or(0, |marked| marked.bytes)
    }

    /// Refuses the file if it can't be read beyond `at` and more of it was on disk.
    fn check_end(&self, segment: &Segment, at: u64, synced: u64, what: &str) -> Result<(), StoreError> {
        if at >= synced {
            return Ok(());
        }
        Err(StoreError::damaged(&segment.path, at, format!("{what}, and {synced} bytes of the file were on disk")))
    }

    /// Cuts the last file off at a record that is not whole, if that may be: a power cut, or the end of the server, took it before it was
    /// known to be on disk. What lies behind it was then not on disk either.
    fn cut(&mut self, segment: &mut Segment, at: u64, what: String, frames: &Frames) -> Result<Option<u32>, StoreError> {
        let behind = frames.behind(at)?;
        self.check_end(segment, at, self.marked_of(segment).max(behind.synced), &what)?;
        let (path, bytes) = (segment.path.clone(), segment.bytes.saturating_sub(at));
        let has_head = at > 0;
        if has_head {
            let cut = File::options().write(true).open(&path).and_then(|file| {
                file.set_len(at)?;
                file.sync_all()
            });
            cut.map_err(StoreError::io("cut the end of", &path))?;
            segment.bytes = at;
        } else {
            std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            sync::folder(&self.folder.path)?;
        }
        self.found.torn = Some(Torn { path, offset: at, bytes, records: behind.whole, what });
        Ok(has_head.then(|| frames.checksum()))
    }
}
