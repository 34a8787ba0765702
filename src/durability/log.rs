//! The log of a bank.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::folder::Folder;
use super::frames::{self, Broken, Frames};
use super::segment::Segment;
use super::{StoreError, sync};

/// Takes a record and the sequence it was appended under, and complains of what can't be.
pub type Apply<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), String>;

/// What was applied to a bank, in order, in files of about `segment_bytes`. Once a call has failed, nobody knows what is on disk until
/// the log is opened anew: it must not be used any more.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    incarnation: u64,
    segment_bytes: u64,
    /// The last one is written to.
    segments: Vec<Segment>,
    file: File,
    /// Of the last frame.
    checksum: u32,
    /// Keeps other servers away for as long as this may write.
    _lock: Arc<File>,
}

/// What was found when a log was opened.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Records that were read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
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

    fn of(folder: &Folder, segments: Vec<Segment>, file: File, checksum: u32) -> Self {
        Self {
            folder: folder.path.clone(),
            incarnation: folder.record.incarnation,
            segment_bytes: folder.segment_bytes,
            segments,
            file,
            checksum,
            _lock: Arc::clone(&folder.lock),
        }
    }

    /// Opens a log and gives `apply` the records after sequence `after`, in order, each with the sequence it was appended under. A last
    /// record that is not whole is cut off: the write that it is of was not acknowledged, or not yet synced.
    pub(super) fn open(folder: &Folder, after: u64, apply: Apply<'_>) -> Result<(Self, Replayed), StoreError> {
        let mut segments = Segment::list(&folder.path)?;
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
        let file = Segment::append_to(&current.path)?;
        Ok((Self::of(folder, segments, file, checksum), replayed))
    }

    /// Appends a record. It is on disk once [`Self::sync`] has returned.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn append(&mut self, sequence: u64, payload: &[u8]) -> Result<(), StoreError> {
        if self.current().is_some_and(|segment| segment.bytes >= self.segment_bytes) {
            self.begin_file(sequence)?;
        }
        let written = frames::write(&mut self.file, self.checksum, sequence, payload).and_then(|written| {
            self.file.flush()?;
            Ok(written)
        });
        let (checksum, bytes) = written.map_err(|source| self.failed("append to", source))?;
        self.checksum = checksum;
        if let Some(segment) = self.segments.last_mut() {
            segment.bytes += bytes;
        }
        Ok(())
    }

    /// Begins a new file with the record of sequence `first`, the next one: so everything before it can be dropped.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn begin_file(&mut self, first: u64) -> Result<(), StoreError> {
        if self.current().is_some_and(|segment| segment.first < first) {
            // A bad record in a file that has a successor is never the end of a write that was cut short.
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
        self.file.sync_data().map_err(|source| self.failed("sync", source))
    }

    /// Removes the files that hold nothing after `sequence`.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn drop_behind(&mut self, sequence: u64) -> Result<(), StoreError> {
        let behind = self.segments.windows(2).take_while(|pair| pair[1].first <= sequence + 1).count();
        for segment in self.segments.drain(..behind) {
            std::fs::remove_file(&segment.path).map_err(StoreError::io("remove", &segment.path))?;
        }
        if behind > 0 { sync::folder(&self.folder) } else { Ok(()) }
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
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
                    applied.map_err(|what| StoreError::damaged(path, frame.at, what))?;
                }
            }
            Ok(None) if heads == 1 => return Ok(Read { bytes: whole, checksum: frames.checksum(), torn_head: false }),
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
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{Log, Replayed};
    use crate::codec::BankRecord;
    use crate::durability::{Config, Folder, Store, StoreError};
    use crate::model::{BankKind, BankName, BankSpec, Durability, Lineage, Metric};

    fn record() -> BankRecord {
        let spec = BankSpec::new(2, Metric::Dot, BankKind::Queue { capacity: 9 }, 1).unwrap();
        BankRecord {
            name: BankName::parse("name", "b").unwrap(),
            spec,
            incarnation: 7,
            durability: Durability::Always,
            lineage: Lineage::default(),
        }
    }

    fn store(dir: &Path, segment_bytes: u64) -> Store {
        Store::open(dir, &Config { segment_bytes, ..Config::default() }).unwrap()
    }

    fn payload(sequence: u64) -> Vec<u8> {
        (0..sequence % 13 + 1).map(|at| (sequence * 31 + at) as u8).collect()
    }

    fn append(log: &mut Log, sequences: std::ops::RangeInclusive<u64>) {
        for sequence in sequences {
            log.append(sequence, &payload(sequence)).unwrap();
        }
        log.sync().unwrap();
    }

    /// The sequences that are read back, if every payload is what it was.
    fn read(folder: &Folder, after: u64) -> Result<(Vec<u64>, Log, Replayed), StoreError> {
        let mut sequences = Vec::new();
        let (log, replayed) = folder.replay(after, &mut |sequence, bytes| {
            sequences.push(sequence);
            if bytes == payload(sequence) { Ok(()) } else { Err("another payload".to_owned()) }
        })?;
        Ok((sequences, log, replayed))
    }

    fn files(folder: &Folder) -> Vec<PathBuf> {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut logs: Vec<PathBuf> = names.filter(|path| path.to_str().unwrap().contains("log-")).collect();
        logs.sort();
        logs
    }

    #[test]
    fn what_was_appended_is_read_over_many_files_and_what_lies_behind_can_go() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, mut log) = store(dir.path(), 200).create(&record()).unwrap();
        append(&mut log, 1..=40);
        assert!(files(&folder).len() > 5);
        let on_disk: u64 = files(&folder).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert_eq!(log.bytes(), on_disk);
        drop(log);
        let (sequences, mut log, _) = read(&folder, 0).unwrap();
        assert_eq!((sequences, log.bytes()), ((1..=40).collect(), on_disk));
        append(&mut log, 41..=50);
        log.drop_behind(30).unwrap();
        assert_eq!(read(&folder, 30).unwrap().0, (31..=50).collect::<Vec<_>>());
        let refused = read(&folder, 0).unwrap_err().to_string();
        assert!(refused.contains("no file of the log begins at or before 1"), "{refused}");
        log.drop_behind(1_000).unwrap();
        assert_eq!(files(&folder).len(), 1, "the file that is written to stays");
    }

    /// Each byte of three files, one bit or all of it: in the last record it is a torn end, in the head of a file without records a torn
    /// beginning, anywhere else it is refused with the file and the record's offset.
    #[test]
    fn every_changed_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, mut log) = store(dir.path(), 250).create(&record()).unwrap();
        append(&mut log, 1..=14);
        drop(log);
        let files = files(&folder);
        assert_eq!(files.len(), 3, "{files:?}");
        let last_record = {
            let whole = fs::metadata(&files[2]).unwrap().len();
            whole - 32 - (payload(14).len() as u64).next_multiple_of(8)
        };
        let mut refused = 0;
        for path in &files {
            let whole = fs::read(path).unwrap();
            for (at, flip) in (0..whole.len()).flat_map(|at| [(at, 1 << (at % 8)), (at, 0xFF)]) {
                let mut damaged = whole.clone();
                damaged[at] ^= flip;
                fs::write(path, &damaged).unwrap();
                let found = read(&folder, 0);
                if *path == files[2] && at as u64 >= last_record {
                    let (sequences, _, replayed) = found.unwrap();
                    let torn = replayed.torn.unwrap();
                    assert_eq!((sequences, torn.offset, &torn.path), ((1..=13).collect(), last_record, path), "byte {at}");
                } else {
                    let Err(StoreError::Damaged { path: named, offset, .. }) = found else {
                        panic!("{}: byte {at}, {flip:#x} was not refused: {found:?}", path.display());
                    };
                    assert_eq!(&named, path, "byte {at}");
                    assert!(offset <= at as u64 && at as u64 - offset < 64, "byte {at} was found at {offset}");
                    assert_eq!(fs::read(path).unwrap(), damaged, "a refused file is left alone");
                    refused += 1;
                }
                fs::write(path, &whole).unwrap();
            }
        }
        assert!(refused > 1_000, "{refused}");
    }

    /// A file that ends anywhere is read up to its last whole record, and written on from there; an earlier one is refused.
    #[test]
    fn a_write_that_was_cut_short_anywhere_leaves_what_was_before_it() {
        for damage in ["shorter", "zeros", "noise"] {
            let dir = tempfile::tempdir().unwrap();
            let (folder, mut log) = store(dir.path(), 250).create(&record()).unwrap();
            append(&mut log, 1..=14);
            drop(log);
            let saved: Vec<(PathBuf, Vec<u8>)> =
                files(&folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
            let (last_path, whole) = &saved[2];
            for len in 0..whole.len() {
                files(&folder).iter().for_each(|path| fs::remove_file(path).unwrap());
                saved.iter().for_each(|(path, content)| fs::write(path, content).unwrap());
                let mut cut = whole[..len].to_vec();
                match damage {
                    "zeros" => cut.resize(whole.len() + 100, 0),
                    "noise" => cut.extend((0..77u32).map(|at| (at * 89 + 5) as u8)),
                    _ => {}
                }
                fs::write(last_path, &cut).unwrap();
                let (sequences, mut log, replayed) = read(&folder, 0).unwrap();
                let last = *sequences.last().unwrap();
                assert_eq!(sequences, (1..=last).collect::<Vec<_>>(), "{damage} from {len} on");
                assert!(replayed.torn.is_some() || damage == "shorter");
                append(&mut log, last + 1..=last + 3);
                let (sequences, _, replayed) = read(&folder, 0).unwrap();
                assert_eq!(sequences, (1..=last + 3).collect::<Vec<_>>(), "{damage} from {len} on");
                assert!(replayed.torn.is_none());
            }
            let (path, content) = &saved[1];
            fs::write(path, &content[..100]).unwrap();
            assert!(read(&folder, 0).unwrap_err().to_string().contains(path.to_str().unwrap()), "a file that has a successor");
        }
    }
}
