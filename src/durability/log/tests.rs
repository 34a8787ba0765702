use std::fs;
use std::path::{Path, PathBuf};

use super::{Log, Replayed};
use crate::codec::BankRecord;
use crate::durability::frames::{self, Claim};
use crate::durability::mark::{Beyond, Mark, Point};
use crate::durability::{Config, Folder, Store, StoreError};
use crate::model::{BankKind, BankName, BankSpec, Durability, Lineage, Metric, Position};

mod marked;

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
        // In one part or several, empty ones too.
        let payload = payload(sequence);
        let (head, rest) = payload.split_at(sequence as usize % 5 % payload.len());
        let (middle, end) = rest.split_at(rest.len() / 2);
        log.append(sequence, &[head, middle, &[], end]).unwrap();
        log.sync().unwrap();
    }
}

/// The sequences that are read back, if every payload is what it was.
fn read(folder: &Folder, after: u64) -> Result<(Vec<u64>, Log, Replayed), StoreError> {
    let mut sequences = Vec::new();
    let (log, replayed) = folder.replay(after, &mut |sequence, bytes| {
        sequences.push(sequence);
        if bytes == payload(sequence) { Ok(()) } else { Err("another payload".to_owned().into()) }
    })?;
    Ok((sequences, log?, replayed))
}

fn mark(folder: &Folder) -> PathBuf {
    folder.path().join("synced")
}

/// Bytes of a file of the log that a mark tells of.
fn marked_of(mark: &[u8], path: &Path) -> usize {
    let long = |at: usize| u64::from_le_bytes(mark[at..at + 8].try_into().unwrap());
    let is_of_file = path.to_str().unwrap().ends_with(&format!("{:020}", long(24)));
    if is_of_file { long(32) as usize } else { 0 }
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
    log.forget_behind(30);
    folder.remove_log_behind(30).unwrap();
    let kept: u64 = files(&folder).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(log.bytes(), kept);
    assert_eq!(read(&folder, 30).unwrap().0, (31..=50).collect::<Vec<_>>());
    let refused = read(&folder, 0).unwrap_err().to_string();
    assert!(refused.contains("no file of the log begins at or before 1"), "{refused}");
    folder.remove_log_behind(1_000).unwrap();
    assert_eq!(files(&folder).len(), 1, "the file that is written to stays");
}

/// A file that is full is not followed by another while much of it is unsynced, up to twice its size.
#[test]
fn a_new_file_waits_until_the_one_before_is_almost_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, mut log) = store(dir.path(), 1_000).create(&record()).unwrap();
    let mut sequence = 0;
    let mut append_one = |log: &mut Log| {
        sequence += 1;
        log.append(sequence, &[&payload(sequence)]).unwrap();
        log.write().unwrap();
    };
    while !log.is_full() {
        append_one(&mut log);
    }
    append_one(&mut log);
    assert_eq!(files(&folder).len(), 1);
    let until = log.unsynced().unwrap().sync().unwrap();
    log.note_synced(until).unwrap();
    assert!(log.is_settled());
    append_one(&mut log);
    assert_eq!(files(&folder).len(), 2);
    while files(&folder).len() == 2 {
        append_one(&mut log);
    }
    assert!(log.bytes() > 3_000, "the second grew to twice its size");
    drop(log);
    assert_eq!(read(&folder, 0).unwrap().0, (1..=sequence).collect::<Vec<_>>());
}

/// Each byte of three files, one bit or all of it: refused with the file and the record's offset. Without a mark the last record could
/// be the end of a write that was cut short.
#[test]
fn every_changed_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, mut log) = store(dir.path(), 330).create(&record()).unwrap();
    append(&mut log, 1..=14);
    drop(log);
    let files = files(&folder);
    assert_eq!(files.len(), 3, "{files:?}");
    let last_record = {
        let whole = fs::metadata(&files[2]).unwrap().len();
        whole - 48 - (payload(14).len() as u64).next_multiple_of(8)
    };
    let marks = [Some(fs::read(mark(&folder)).unwrap()), None];
    let (mut refused, mut torn_ends) = (0, 0);
    for (path, mark_then) in files.iter().flat_map(|path| marks.iter().map(move |mark| (path, mark))) {
        let whole = fs::read(path).unwrap();
        for (at, flip) in (0..whole.len()).flat_map(|at| [(at, 1 << (at % 8)), (at, 0xFF)]) {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            fs::write(path, &damaged).unwrap();
            match mark_then {
                Some(content) => fs::write(mark(&folder), content).unwrap(),
                None => drop(fs::remove_file(mark(&folder))),
            }
            let found = read(&folder, 0);
            if mark_then.is_none() && *path == files[2] && at as u64 >= last_record {
                let (sequences, _, replayed) = found.unwrap();
                let torn = replayed.torn.unwrap();
                let expected = ((1..=13).collect(), last_record, path, 0);
                assert_eq!((sequences, torn.offset, &torn.path, torn.records), expected, "byte {at}");
                torn_ends += 1;
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
    assert!(refused > 3_000 && torn_ends > 100, "{refused}, {torn_ends}");
}

/// Where the frames of a file end.
fn ends(file: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let header = if file[at..].starts_with(b"nbf2") { 48 } else { 32 };
        let length = u64::from_le_bytes(file[at + 8..at + 16].try_into().unwrap()) as usize;
        at += header + length.next_multiple_of(8);
        ends.push(at);
    }
    ends
}

/// A last file that ends anywhere is read up to its last whole record, and written on from there, if nothing tells that more of it was on
/// disk; an earlier one is refused.
#[test]
fn a_write_that_was_cut_short_anywhere_leaves_what_was_before_it() {
    for damage in ["shorter", "zeros", "noise"] {
        let dir = tempfile::tempdir().unwrap();
        let (folder, mut log) = store(dir.path(), 330).create(&record()).unwrap();
        append(&mut log, 1..=14);
        drop(log);
        let saved: Vec<(PathBuf, Vec<u8>)> =
            files(&folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        assert_eq!(saved.len(), 3);
        let (last_path, whole) = &saved[2];
        let ends = ends(whole);
        let mark_then = fs::read(mark(&folder)).unwrap();
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
            // All of it was on disk, and that is known.
            fs::write(mark(&folder), &mark_then).unwrap();
            if !cut.starts_with(whole) {
                let refused = read(&folder, 0).unwrap_err().to_string();
                assert!(refused.contains(last_path.to_str().unwrap()), "{damage} from {len} on: {refused}");
                assert!(refused.contains(&format!("{} bytes of the file were on disk", whole.len())), "{refused}");
                assert_eq!(fs::read(last_path).unwrap(), cut, "a refused file is left alone");
            }
            fs::remove_file(mark(&folder)).unwrap();
            let (sequences, mut log, replayed) = read(&folder, 0).unwrap();
            let last = *sequences.last().unwrap();
            assert_eq!(sequences, (1..=last).collect::<Vec<_>>(), "{damage} from {len} on");
            // A few zeros behind a whole record are how a block ends that was not filled.
            let only_zeros_behind =
                |end: &usize| cut.get(..*end) == whole.get(..*end) && cut[*end..].iter().all(|&byte| byte == 0);
            let ended = damage == "shorter" || ends.iter().any(only_zeros_behind);
            assert!(replayed.torn.is_some() || ended, "{damage} from {len} on");
            append(&mut log, last + 1..=last + 3);
            let (sequences, _, replayed) = read(&folder, 0).unwrap();
            assert_eq!(sequences, (1..=last + 3).collect::<Vec<_>>(), "{damage} from {len} on");
            assert!(replayed.torn.is_none());
        }
        let (path, content) = &saved[1];
        fs::write(path, &content[..100]).unwrap();
        assert!(read(&folder, 0).unwrap_err().to_string().contains(path.to_str().unwrap()), "a file that has a successor");
        fs::write(path, [content.as_slice(), &[0; 8]].concat()).unwrap();
        assert!(read(&folder, 0).unwrap_err().to_string().contains("another file follows"), "zeros before a successor");
    }
}
