//! One fault of the disk, and two syncs of a file.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Journal, Kept, records};
use crate::codec::BankRecord;
use crate::durability::{Config, Snapshot, Store, StoreError, Until};
use crate::engine::snapshots::Snapshots;
use crate::engine::syncer::Syncer;
use crate::model::clock;
use crate::model::{BankKind, BankName, BankSpec, Durability, Ids, Lineage, Matrix, Metric, Mutation, WriteBatch};

/// A journal whose log's first file is full, and not all of it known to be on disk; how far it had come, and its last record.
fn journal(dir: &Path) -> (Journal, Until, u64) {
    let config = Config { segment_bytes: 10_000, ..Config::default() };
    let spec = BankSpec::new(2, Metric::Dot, BankKind::Queue { capacity: 9 }, 1).unwrap();
    let (name, durability) = (BankName::parse("name", "b").unwrap(), Durability::Interval);
    let record = BankRecord { name, spec, incarnation: 7, durability, lineage: Lineage::default() };
    let (folder, mut log) = Store::open(dir, &config).unwrap().create(&record).unwrap();
    let mut sequence = 0;
    while !log.is_full() {
        log.sync().unwrap();
        sequence += 1;
        log.append(sequence, &[&[0; 40]]).unwrap();
        log.write().unwrap();
    }
    assert!(log.begins_file());
    let until = log.unsynced().unwrap().sync().unwrap();
    let kept = Kept { folder, log, snapshot: Snapshot::default() };
    let journal = Journal::new(kept, &config, Snapshots::start(1).unwrap(), Arc::new(|_: &str| {})).unwrap();
    (journal, until, sequence)
}

fn fault(dir: &Path) -> StoreError {
    StoreError::Io { doing: "sync", path: dir.to_owned(), source: std::io::Error::other("on purpose") }
}

/// It could be the only one that the system tells that what the file had is lost.
#[test]
fn no_file_is_left_while_a_sync_of_it_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, last) = journal(dir.path());
    journal.syncer = Syncer::that_ended(Err(fault(dir.path())));
    let refused = journal.record(last + 1, &[]).unwrap_err().to_string();
    assert!(refused.contains("on purpose"), "{refused}");
    let names = fs::read_dir(journal.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_str().unwrap().starts_with("log-")).count(), 1);
}

/// The committer may have been told in its place.
#[test]
fn a_sync_that_ends_after_a_fault_marks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, until, _) = journal(dir.path());
    journal.syncer = Syncer::that_ended(Ok(until));
    journal.give_up("on purpose").unwrap_err();
    let marked = fs::read(journal.folder.path().join("synced")).unwrap();
    journal.note_synced(Ok(until)).unwrap_err();
    assert!(!journal.syncer.is_busy());
    assert_eq!(fs::read(journal.folder.path().join("synced")).unwrap(), marked);
}

/// A disk that takes no longer for it than the other half keeps to the interval; what comes later puts nothing off.
#[test]
fn what_was_recorded_is_synced_from_half_of_the_interval_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { interval: Duration::from_secs(2), ..Config::default() };
    let spec = BankSpec::new(2, Metric::Dot, BankKind::Queue { capacity: 9 }, 1).unwrap();
    let (name, durability) = (BankName::parse("name", "b").unwrap(), Durability::Interval);
    let record = BankRecord { name, spec, incarnation: 7, durability, lineage: Lineage::default() };
    let (folder, log) = Store::open(dir.path(), &config).unwrap().create(&record).unwrap();
    let kept = Kept { folder, log, snapshot: Snapshot::default() };
    let mut journal = Journal::new(kept, &config, Snapshots::start(1).unwrap(), Arc::new(|_: &str| {})).unwrap();
    let embeddings = Matrix::new("embeddings", 2, Metric::Dot, vec![1.0; 2]).unwrap();
    let write = Arc::new(Mutation::Write(WriteBatch::new(&spec, Ids::Assigned, embeddings, None, None, None, None).unwrap()));
    let half = config.interval / 2;
    for sequence in [1, 3] {
        let before = clock::now();
        journal.record(sequence, std::slice::from_ref(&write)).unwrap();
        let due = journal.due().unwrap();
        assert!((before + half..=clock::now() + half).contains(&due));
        std::thread::sleep(half / 4);
        journal.record(sequence + 1, std::slice::from_ref(&write)).unwrap();
        assert!(journal.due() == Some(due) && !journal.syncer.is_busy());
        std::thread::sleep(due.saturating_duration_since(clock::now()));
        journal.keep_up().unwrap();
        assert!(journal.due().is_none() && journal.syncer.is_busy());
        let synced = journal.synced().recv_timeout(Duration::from_secs(30)).unwrap();
        journal.note_synced(synced).unwrap();
    }
}

/// A record is several mutations, unless that makes it long, and a long mutation is one by itself.
#[test]
fn a_group_goes_to_the_log_in_records_that_lie_near_when_they_are_written() {
    let spec = BankSpec::new(64, Metric::Dot, BankKind::Queue { capacity: 9 }, 1).unwrap();
    let write = |rows: usize| {
        let embeddings = Matrix::new("embeddings", 64, Metric::Dot, vec![1.0; rows * 64]).unwrap();
        let batch = WriteBatch::new(&spec, Ids::Assigned, embeddings, None, None, None, None).unwrap();
        Arc::new(Mutation::Write(batch))
    };
    let most = super::RECORD_FLOATS / 64;
    let group: Vec<_> = [1, most - 1, 1, most, 3 * most, 1, 1, most - 2, most].into_iter().map(write).collect();
    let lengths: Vec<usize> = records(&group).map(<[_]>::len).collect();
    assert_eq!(lengths, [2, 1, 1, 1, 3, 1]);
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, last) = journal(dir.path());
    journal.record(last + 1, &group).unwrap();
    let folder = journal.folder.clone();
    drop(journal);
    let mut sequences = Vec::new();
    let found = folder.replay(last, &mut |sequence, _| {
        sequences.push(sequence - last);
        Ok(())
    });
    drop(found.unwrap().0.unwrap());
    assert_eq!(sequences, [1, 3, 4, 5, 6, 9]);
}
