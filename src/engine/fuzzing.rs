//! What comes from disks and object stores, for fuzzers; and a small bank for what comes from callers.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::job::Job;
use super::progress::{Progress, Wish};
use super::query::{self, Of, Wanted};
use super::recovery::{self, Recovery};
use super::served::Served;
use super::snapshots::{Restoring, sections};
use crate::bank::{Bank, Budget};
use crate::codec::{BankRecord, Section, TensorReader, begin_tensors, encode_group};
use crate::durability::{Config, Folder, Store};
use crate::model::clock::Deadline;
use crate::model::{
    Applied, BankKind, BankName, BankSpec, Dtype, Durability, Ids, Lineage, Matrix, Metric, Mutation, SampleAnswer,
    SampleQuery, WriteBatch,
};
use crate::rows::{Recycler, Shared};

/// Settings of a small bank; `choice` picks them.
pub(crate) fn spec(choice: u8) -> BankSpec {
    let kinds = [
        (BankKind::Keyed { momentum: 0.5, capacity: None }, Metric::Cosine, Dtype::F32),
        (BankKind::Keyed { momentum: 0.5, capacity: Some(12) }, Metric::Dot, Dtype::F16),
        (BankKind::Queue { capacity: 20 }, Metric::L2, Dtype::BF16),
        (BankKind::Queue { capacity: 20 }, Metric::Cosine, Dtype::F32),
    ];
    let (kind, metric, dtype) = kinds[usize::from(choice) % kinds.len()];
    must(BankSpec::new(3, metric, kind, 2).and_then(|spec| spec.with_dtype(dtype)))
}

/// A bank of a few entries, as a caller's request meets it.
pub(crate) struct SmallBank {
    state: Arc<Shared<Bank>>,
    served: Arc<Served>,
    recycler: Recycler,
}

impl SmallBank {
    /// Of [`spec`], with 16 entries in all their variety.
    pub(crate) fn new(choice: u8) -> Self {
        Self::of(filled(spec(choice)))
    }

    fn of(bank: Bank) -> Self {
        let served = Arc::new(Served::new(true));
        Self { state: Arc::new(Shared::new(bank)), served, recycler: Recycler::default() }
    }

    /// Answers a query, on this thread.
    pub(crate) fn sample(&self, query: SampleQuery) -> Option<SampleAnswer> {
        let answered = Arc::new(Mutex::new(None));
        let reply = Arc::clone(&answered);
        let wanted = Wanted::until(Deadline::after(Duration::from_secs(3_600)));
        let answer = Box::new(move |answer: Result<_, _>| *reply.lock().unwrap_or_else(PoisonError::into_inner) = answer.ok());
        let of = Of { bank: &self.state, index: None, served: &self.served, costs: &Arc::default() };
        let jobs = must(query::jobs(of, query, &self.recycler, &wanted, answer));
        jobs.into_iter().for_each(Job::go);
        answered.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What of a bank is kept on disk is read as it was written.
    pub(crate) fn record(name: BankName, spec: BankSpec) {
        let record = BankRecord { name, spec, incarnation: 1, durability: Durability::Always, lineage: Lineage::default() };
        assert_eq!(BankRecord::decode(&record.encode()).ok(), Some(record));
    }

    /// Applies a batch, and reads it back from its record in the log.
    pub(crate) fn write(&self, batch: WriteBatch) {
        let group = [Mutation::Write(batch)];
        let mut bank = must(self.state.write());
        let record = encode_group(group.iter()).to_vec();
        let read = must(crate::codec::decode_group(bank.spec(), &record));
        assert_eq!(format!("{read:?}"), format!("{group:?}"), "a write is read from the log as it was");
        apply(&mut bank, &group[0]);
    }
}

fn apply(bank: &mut Bank, mutation: &Mutation) {
    let arrivals = bank.arrivals(mutation);
    must(bank.reserve(&arrivals));
    bank.apply(mutation, 0, usize::MAX, &mut Applied::default());
}

fn filled(spec: BankSpec) -> Bank {
    let mut bank = Bank::new(spec);
    history(&spec).iter().for_each(|mutation| apply(&mut bank, mutation));
    bank
}

/// Twenty entries in two writes, and one that is removed.
fn history(spec: &BankSpec) -> Vec<Mutation> {
    let rows = 10;
    let write = |from: u64| {
        let ids: Vec<u64> = (from..from + rows).collect();
        let values = ids.iter().flat_map(|&id| [(id as f32).sin(), (id as f32).cos(), 0.5]).collect();
        let labels = ids.iter().map(|id| (id % 3 > 0).then_some((id % 4) as i64)).collect();
        let groups = ids.iter().map(|id| (id % 5 > 0).then_some(id / 2)).collect();
        let matrix = must(Matrix::new("x", spec.dim(), spec.metric(), values));
        let batch = WriteBatch::new(spec, Ids::Given(ids.clone()), matrix, Some(labels), Some(groups), Some(from), None);
        Mutation::Write(must(must(batch).with_weights(ids.iter().map(|id| (id % 6) as f32).collect())))
    };
    vec![write(1), Mutation::Remove(vec![4]), write(8)]
}

/// Whatever bank was read, it is one: it is the same after another reading, takes writes, and serves draws.
fn exercise(bank: Bank) {
    let (spec, image) = (*bank.spec(), bank.image());
    let again = Bank::restore(spec, image.clone());
    assert_eq!(must(again).image(), image, "a bank is restored as it was");
    let small = SmallBank::of(bank);
    let Mutation::Write(batch) = history(&spec).remove(0) else { return };
    small.write(batch);
    let bank = must(small.state.read());
    assert!(bank.entries() >= 1);
    let held: usize = bank.image().shards.iter().map(|shard| shard.occupied_at.iter().filter(|&&at| at > 0).count()).sum();
    assert_eq!(held, bank.entries(), "slots that are taken, and entries");
}

thread_local! {
    static FOUND: Scratch = Scratch::new("found");
}

/// A log's file as it may be found after a crash, or worse.
pub(crate) fn log_file(bytes: &[u8]) {
    FOUND.with(|scratch| {
        scratch.empty();
        must(fs::write(scratch.log(), bytes));
        let progress = Progress::of(scratch.folder.record().name.clone(), bytes.len() as u64, Wish::default());
        let Ok(found) = recovery::recover(&scratch.folder, &progress) else { return };
        if found.log.is_ok() {
            let image = found.bank.image();
            let again = must(recovery::recover(&scratch.folder, &progress));
            assert_eq!(again.bank.image(), image, "a log that was taken up once is taken up again");
            assert!(again.log.is_ok());
        }
        exercise(found.bank);
    });
}

/// Whole files, and one of them cut short.
pub(crate) fn log_files() -> Vec<Vec<u8>> {
    let scratch = Scratch::new("seeds");
    let (log, _) = must(scratch.folder.replay(0, &mut |_, _| Ok(())));
    let mut log = must(log);
    for (mutation, sequence) in history(&scratch.folder.record().spec).iter().zip(1..) {
        let record = encode_group([mutation].into_iter()).to_vec();
        must(log.append(sequence, &[&record]));
        must(log.write());
    }
    let whole = must(fs::read(scratch.log()));
    let cut = whole.get(..whole.len() * 2 / 3).unwrap_or_default().to_vec();
    vec![whole, cut]
}

/// The folder of a bank of the first [`spec`], in memory if the system has a place for that; removed at the end.
struct Scratch {
    dir: PathBuf,
    folder: Folder,
}

impl Scratch {
    fn new(of: &str) -> Self {
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let dir = place.join(format!("negbank-fuzzing-{}-{:?}-{of}", std::process::id(), std::thread::current().id()));
        must(fs::create_dir_all(&dir));
        let store = must(Store::open(&dir, &Config::default()));
        let (name, lineage) = (must(BankName::parse("name", "fuzzed")), Lineage::default());
        let record = BankRecord { name, spec: spec(0), incarnation: 7, durability: Durability::Interval, lineage };
        let (folder, _) = must(store.create(&record));
        Self { dir, folder }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join(format!("log-{:020}", 1))
    }

    /// Removes all but what the bank is.
    fn empty(&self) {
        for entry in must(self.folder.path().read_dir()) {
            let path = must(entry).path();
            if path.file_name().is_some_and(|name| name != "bank") {
                must(fs::remove_file(path));
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed is no finding.
        let _left = fs::remove_dir_all(&self.dir);
    }
}

/// The records of a log, whose checksums are right: the first byte chooses the bank, and each is two bytes of length, and what it holds.
pub(crate) fn log_record(bytes: &[u8]) {
    let Some((&choice, records)) = bytes.split_first() else { return };
    let mut recovery = Recovery::of(Bank::new(spec(choice)));
    for (record, sequence) in pieces(records).zip(1..) {
        if recovery.apply(sequence, record).is_err() {
            return;
        }
    }
    exercise(recovery.into_bank());
}

/// Histories of all kinds of banks.
pub(crate) fn log_records() -> Vec<Vec<u8>> {
    let of = |choice: u8| {
        let mut bytes = vec![choice];
        for mutation in history(&spec(choice)) {
            let record = encode_group([&mutation].into_iter()).to_vec();
            piece(&record, &mut bytes);
        }
        bytes
    };
    (0..4).map(of).collect()
}

/// A snapshot's sections, or a checkpoint's tensors, whose checksums are right: the first byte chooses the bank, the second what it is.
pub(crate) fn bank_image(bytes: &[u8]) {
    let Some(([choice, tensors], rest)) = bytes.split_first_chunk() else { return };
    let spec = spec(*choice);
    let mut restoring = Restoring::new(spec);
    let mut take = |section: &[u8]| restoring.section(section).map(|_| ()).map_err(|_| String::new());
    let read = if tensors % 2 == 1 {
        let mut reader = TensorReader::new(spec);
        rest.chunks(97).try_for_each(|part| reader.push(part, &mut take)).and_then(|()| reader.finish())
    } else {
        pieces(rest).try_for_each(take)
    };
    let mut end = Vec::new();
    Section::encode_end(restoring.hash().value(), &mut end);
    if read.is_ok() && restoring.section(&end).is_ok() {
        exercise(restoring.finish());
    }
}

/// All kinds of banks both ways.
pub(crate) fn bank_images() -> Vec<Vec<u8>> {
    let of = |choice: u8| {
        let bank = filled(spec(choice));
        let image = bank.image();
        let bank = Shared::new(bank);
        let cut = must(bank.write()).begin_cut(Budget { bytes: usize::MAX, setting: "none", writes_wait: false });
        let (mut as_sections, mut as_tensors) = (vec![choice, 0], vec![choice, 1]);
        must(begin_tensors(&image, &spec(choice), &mut as_tensors));
        let made = sections((&image, &cut), &bank, &mut |section, raw| {
            piece(section, &mut as_sections);
            as_tensors.extend_from_slice(raw);
            Ok(())
        });
        must(made);
        [as_sections, as_tensors]
    };
    (0..4).flat_map(of).collect()
}

fn piece(content: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(content.len() as u16).to_le_bytes());
    bytes.extend_from_slice(content);
}

fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (piece, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
        bytes = rest;
        Some(piece)
    })
}

/// What can't fail, or is a finding.
#[track_caller]
pub(crate) fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        #[expect(clippy::panic, reason = "so a finding is told")]
        Err(fault) => panic!("{fault}"),
    }
}
