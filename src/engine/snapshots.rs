//! Snapshots: taken by one thread while writes go on, and banks restored from them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::EngineError;
use super::priority::give_way;
use crate::bank::{Bank, Cut, RestoreError};
use crate::codec::{Section, StateHash};
use crate::durability::{Complaint, Folder, Published, Snapshot};
use crate::model::{BankImage, BankSpec, clock};
use crate::rows::Shared;

/// The way to the thread that writes snapshots, one after another; it ends when all clones of this are dropped.
#[derive(Debug, Clone)]
pub(super) struct Snapshots {
    queue: Sender<Job>,
}

/// A snapshot to be written.
pub(super) struct Job {
    pub(super) folder: Folder,
    pub(super) bank: Arc<Shared<Bank>>,
    pub(super) image: BankImage,
    pub(super) cut: Arc<Cut>,
    pub(super) outcome: Outcome,
}

/// What became of a snapshot, once it is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome(Arc<Mutex<Option<Option<Snapshot>>>>);

impl Outcome {
    /// `Some(None)`: it failed.
    pub(super) fn known(&self) -> Option<Option<Snapshot>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, snapshot: Option<Snapshot>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Whatever went wrong, whoever waits hears of it.
        if self.outcome.known().is_none() {
            self.outcome.tell(None);
        }
    }
}

impl Snapshots {
    /// Starts the thread, for at most `banks` banks.
    pub(super) fn start(banks: usize) -> std::io::Result<Self> {
        let (queue, jobs) = bounded(banks);
        thread::Builder::new().name("snapshot".into()).spawn(move || run(&jobs))?;
        Ok(Self { queue })
    }

    /// Queues a snapshot. If there is no room its outcome is that it failed.
    pub(super) fn submit(&self, job: Job) {
        if let Err(refused) = self.queue.try_send(job) {
            tracing::warn!(%refused, "no snapshot is taken; the log stays until one is");
        }
    }
}

fn run(jobs: &Receiver<Job>) {
    give_way();
    for job in jobs {
        let (began, bank) = (clock::now(), job.folder.record().name.clone());
        let written = catch_unwind(AssertUnwindSafe(|| write(&job)));
        match written.unwrap_or(Err(EngineError::Internal("taking a snapshot panicked"))) {
            Ok(snapshot) => {
                let seconds = began.elapsed().as_secs_f64();
                tracing::info!(%bank, sequence = snapshot.sequence, bytes = snapshot.bytes, seconds, "snapshot taken");
                // Here, since the disk takes its time to free them. What can't be removed costs room, and is removed with the next.
                if let Err(fault) = job.folder.remove_log_behind(snapshot.sequence)
                    && job.folder.path().exists()
                {
                    tracing::warn!(%bank, %fault, "the log behind a snapshot stays");
                }
                job.outcome.tell(Some(snapshot));
            }
            // A deleted bank's folder is gone, and nobody misses its snapshot.
            Err(_) if !job.folder.path().exists() => {}
            Err(fault) => tracing::warn!(%bank, %fault, "no snapshot was taken; the log stays until one is"),
        }
    }
}

fn write(job: &Job) -> Result<Snapshot, EngineError> {
    let sequence = job.image.sequence;
    let mut file = job.folder.begin_snapshot(sequence)?;
    sections((&job.image, &job.cut), &job.bank, &mut |section, _| Ok(file.put(section)?))?;
    let Published { bytes, left } = file.publish()?;
    let bank = &job.folder.record().name;
    left.inspect(|fault| tracing::warn!(%bank, %fault, "the snapshot before it stays until the next is taken"));
    Ok(Snapshot { sequence, bytes })
}

/// Takes a section, and the raw embeddings in it.
pub(super) type PutSection<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), EngineError>;

// What is taken in one hold is what the state hash is defined by.
const _: () = assert!(Cut::SLOTS_PER_HOLD as usize == Section::ROWS);

/// Gives `put` all of a bank, section by section, and returns its hash.
pub(super) fn sections(
    (image, cut): (&BankImage, &Cut),
    bank: &Shared<Bank>,
    put: PutSection<'_>,
) -> Result<StateHash, EngineError> {
    let (mut hash, mut bytes) = (StateHash::default(), Vec::new());
    Section::encode_bank(image, &mut bytes);
    hash.add_bank(image);
    put(&bytes, &[])?;
    let mut give = |encode: &dyn Fn(&mut Vec<u8>), raw: &[u8]| {
        bytes.clear();
        encode(&mut bytes);
        hash.add(&bytes);
        put(&bytes, raw)
    };
    for shard in &image.shards {
        give(&|bytes| Section::encode_shard(shard, bytes), &[])?;
    }
    let mut raw = Vec::new();
    for shard in 0..image.shards.len() {
        loop {
            raw.clear();
            let Some(first) = cut.take(&*bank.read()?, shard, &mut raw)? else { break };
            give(&|bytes| Section::encode_rows(shard as u32, first, &raw, bytes), &raw)?;
            // A thread that is always at work is not interrupted for milliseconds by those that answer calls.
            if cut.has_time() {
                thread::yield_now();
            }
        }
    }
    bytes.clear();
    Section::encode_end(hash.value(), &mut bytes);
    put(&bytes, &[])?;
    Ok(hash)
}

/// A bank that is being put together from its sections.
pub(super) struct Restoring {
    spec: BankSpec,
    image: BankImage,
    bank: Option<Bank>,
    hash: StateHash,
}

impl Restoring {
    pub(super) fn new(spec: BankSpec) -> Self {
        Self { spec, image: BankImage::default(), bank: None, hash: StateHash::default() }
    }

    /// Takes the next section; true if it is the last.
    pub(super) fn section(&mut self, bytes: &[u8]) -> Result<bool, Complaint> {
        let section = Section::decode(bytes).map_err(|unreadable| unreadable.to_string())?;
        if let Section::End { hash } = section {
            self.bank()?;
            return if hash == self.hash.value() {
                Ok(true)
            } else {
                Err("its sections are not those that were written".to_owned().into())
            };
        }
        match &section {
            Section::Bank(image) => self.hash.add_bank(image),
            _ => self.hash.add(bytes),
        }
        match section {
            Section::Bank(image) => self.image = image,
            Section::Shard(shard) => self.image.shards.push(shard),
            Section::Rows { shard, first, raw } => {
                if !self.bank()?.load(shard as usize, first, &raw) {
                    return Err(format!("shard {shard} has no such rows from slot {first} on").into());
                }
            }
            Section::End { .. } => {}
        }
        Ok(false)
    }

    /// Hash of the sections so far.
    pub(super) fn hash(&self) -> &StateHash {
        &self.hash
    }

    /// The bank; an empty one if there was no section.
    pub(super) fn finish(self) -> Bank {
        self.bank.unwrap_or_else(|| Bank::new(self.spec))
    }

    /// The bank without its rows, once everything else is there.
    fn bank(&mut self) -> Result<&mut Bank, Complaint> {
        let bank = match self.bank.take() {
            Some(bank) => bank,
            None => Bank::restore(self.spec, std::mem::take(&mut self.image)).map_err(|refused| complaint(&refused))?,
        };
        Ok(self.bank.insert(bank))
    }
}

fn complaint(refused: &RestoreError) -> Complaint {
    let what = refused.to_string();
    match refused {
        RestoreError::Bad(_) => Complaint::Damaged(what),
        RestoreError::OutOfMemory(_) => Complaint::OutOfMemory(what),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Restoring, sections};
    use crate::bank::{Bank, Budget};
    use crate::codec::{TensorReader, begin_tensors};
    use crate::model::{Applied, BankKind, BankSpec, Dtype, Ids, Matrix, Metric, Mutation, Origin, Seed, StageAt, WriteBatch};
    use crate::rows::Shared;

    fn spec(kind: usize) -> BankSpec {
        let kinds = [
            (BankKind::Keyed { momentum: 0.5, capacity: None }, Metric::Cosine, Dtype::F32),
            (BankKind::Keyed { momentum: 0.5, capacity: Some(60) }, Metric::Dot, Dtype::F16),
            (BankKind::Queue { capacity: 90 }, Metric::L2, Dtype::BF16),
        ];
        let (kind, metric, dtype) = kinds[kind];
        BankSpec::new(3, metric, kind, 3).unwrap().with_dtype(dtype).unwrap()
    }

    /// Mutation number `number` of a history.
    fn mutation(spec: &BankSpec, seed: u64, number: u64) -> Mutation {
        let mut random = Seed(seed).stream(number as usize, 0);
        if random.below(6) == 0 {
            return Mutation::Remove((0..random.below(9)).map(|_| random.below(150)).collect());
        }
        let rows = random.below(20) as usize + 1;
        let values = (0..rows * 3).map(|_| random.unit() as f32 - 0.4).collect();
        let ids: Vec<u64> = (0..rows).map(|_| random.below(150)).collect();
        let labels = (number.is_multiple_of(2)).then(|| ids.iter().map(|id| (id % 5 > 0).then_some((id % 7) as i64)).collect());
        let groups = (number.is_multiple_of(3)).then(|| ids.iter().map(|id| (id % 4 > 0).then_some(id / 3)).collect());
        let weights = (number.is_multiple_of(5)).then(|| ids.iter().map(|id| (id % 9) as f32).collect());
        let matrix = Matrix::new("x", 3, spec.metric(), values).unwrap();
        let queue = matches!(spec.kind(), BankKind::Queue { .. });
        let ids = if queue && number.is_multiple_of(4) { Ids::Assigned } else { Ids::Given(ids) };
        let batch = WriteBatch::new(spec, ids, matrix, labels, groups, Some(number / 3), None).unwrap();
        let batch = weights.map_or(batch.clone(), |weights| batch.with_weights(weights).unwrap());
        let batch = batch.with_origin(Some(Origin::new("w", number % 4, number + 1).unwrap()));
        if number.is_multiple_of(7) {
            Mutation::Stage(StageAt { step: number, micro_batch: 0 }, vec![batch].into())
        } else {
            Mutation::Write(batch)
        }
    }

    fn apply(bank: &mut Bank, mutation: &Mutation) -> Applied {
        let arrivals = bank.arrivals(mutation);
        bank.reserve(&arrivals).unwrap();
        let mut applied = Applied::default();
        bank.apply(mutation, 0, usize::MAX, &mut applied);
        applied
    }

    /// The sections that a safetensors file of a bank gives, read in pieces of `piece` bytes.
    fn by_file(spec: &BankSpec, bank: Bank, piece: usize) -> Vec<Vec<u8>> {
        let image = bank.image();
        let bank = Shared::new(bank);
        let cut = bank.write().unwrap().begin_cut(budget(usize::MAX));
        let mut file = Vec::new();
        let bytes = begin_tensors(&image, spec, &mut file).unwrap();
        let rows = sections((&image, &cut), &bank, &mut |_, raw| {
            file.extend_from_slice(raw);
            Ok(())
        });
        rows.unwrap();
        assert_eq!(file.len() as u64, bytes);
        let (mut reader, mut given) = (TensorReader::new(*spec), Vec::new());
        for part in file.chunks(piece) {
            assert!(reader.finish().is_err());
            let read = reader.push(part, &mut |section| {
                given.push(section.to_vec());
                Ok(())
            });
            read.unwrap();
        }
        reader.finish().unwrap();
        assert!(reader.push(&[0], &mut |_| Ok(())).is_err());
        given
    }

    /// All of a bank as bytes.
    fn whole(bank: Bank) -> (Vec<Vec<u8>>, u128) {
        let image = bank.image();
        let bank = Shared::new(bank);
        let cut = bank.write().unwrap().begin_cut(budget(usize::MAX));
        let mut all = Vec::new();
        let hash = sections((&image, &cut), &bank, &mut |section, _| {
            all.push(section.to_vec());
            Ok(())
        });
        (all, hash.unwrap().value())
    }

    fn budget(bytes: usize) -> Budget {
        Budget { bytes, setting: "durability.snapshot_memory_bytes" }
    }

    fn restored(spec: BankSpec, sections: &[Vec<u8>]) -> Bank {
        let mut restoring = Restoring::new(spec);
        let ended: Vec<bool> = sections.iter().map(|section| restoring.section(section).unwrap()).collect();
        assert_eq!(ended.iter().filter(|&&ended| ended).count(), 1);
        restoring.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// A snapshot that is taken while writes go on is of the moment at which it began; restored and written on, the bank is to the
        /// bit what it would be without.
        #[test]
        fn a_bank_goes_on_from_its_snapshot_as_if_nothing_had_been(kind in 0usize..3, seed: u64, before in 0u64..60, during in 0u64..30, after in 0u64..30) {
            let spec = spec(kind);
            let mut bank = Bank::new(spec);
            (0..before).for_each(|number| drop(apply(&mut bank, &mutation(&spec, seed, number))));
            let image = bank.image();
            let cut = bank.begin_cut(budget(usize::MAX));
            let shared = Shared::new(bank);
            let (mut all, mut number) = (Vec::new(), before);
            let hash = sections((&image, &cut), &shared, &mut |section, _| {
                all.push(section.to_vec());
                // Between two sections something is written.
                if number < before + during {
                    apply(&mut shared.write().unwrap(), &mutation(&spec, seed, number));
                    number += 1;
                }
                Ok(())
            }).unwrap().value();
            (number..before + during + after).for_each(|number| drop(apply(&mut shared.write().unwrap(), &mutation(&spec, seed, number))));
            let (once_more, again) = whole(restored(spec, &all));
            prop_assert_eq!((&once_more, again), (&all, hash));
            let from_file = by_file(&spec, restored(spec, &all), 1 + seed as usize % 5_000);
            prop_assert_eq!(from_file.as_slice(), &all[..all.len() - 1]);
            let mut bank = restored(spec, &all);
            for number in before..before + during + after {
                apply(&mut bank, &mutation(&spec, seed, number));
            }
            let mut unbroken = Bank::new(spec);
            (0..before + during + after).for_each(|number| drop(apply(&mut unbroken, &mutation(&spec, seed, number))));
            prop_assert_eq!(whole(bank), whole(unbroken));
        }
    }

    /// Several holds a shard, so that rows are taken from aside, and their places used again, while later ones are put there.
    #[test]
    fn rows_aside_are_those_of_the_cut() {
        let spec = BankSpec::new(3, Metric::Dot, BankKind::Keyed { momentum: 0.5, capacity: None }, 1).unwrap();
        let write = |bank: &mut Bank, ids: Vec<u64>, value: f32| {
            let matrix = Matrix::new("x", 3, Metric::Dot, vec![value; ids.len() * 3]).unwrap();
            let batch = WriteBatch::new(&spec, Ids::Given(ids), matrix, None, None, None, None).unwrap();
            apply(bank, &Mutation::Write(batch));
        };
        let filled = || {
            let mut bank = Bank::new(spec);
            write(&mut bank, (0..2_000).collect(), 1.0);
            bank
        };
        let (expected, hash) = whole(filled());
        let mut bank = filled();
        let (image, cut) = (bank.image(), bank.begin_cut(budget(usize::MAX)));
        let shared = Shared::new(bank);
        let (mut all, mut random) = (Vec::new(), Seed(3).stream(0, 0));
        let taken = sections((&image, &cut), &shared, &mut |section, _| {
            all.push(section.to_vec());
            // Taken ones, some that are not, and new ones.
            let ids: Vec<u64> = (0..300).map(|_| random.below(2_200)).collect();
            write(&mut shared.write().unwrap(), ids, all.len() as f32 + 1.0);
            Ok(())
        });
        assert_eq!((taken.unwrap().value(), all), (hash, expected));
        assert!(shared.read().unwrap().row(shared.read().unwrap().find(7).unwrap()).to_vec()[0] > 1.0, "it was written on");
    }

    #[test]
    fn writes_that_change_more_than_the_budget_end_the_snapshot_and_not_themselves() {
        let spec = spec(0);
        let mut bank = Bank::new(spec);
        (0..40).for_each(|number| drop(apply(&mut bank, &mutation(&spec, 1, number))));
        let (image, cut) = (bank.image(), bank.begin_cut(budget(100)));
        (40..80).for_each(|number| drop(apply(&mut bank, &mutation(&spec, 1, number))));
        let refused = sections((&image, &cut), &Shared::new(bank), &mut |_, _| Ok(())).unwrap_err().to_string();
        assert!(refused.contains("durability.snapshot_memory_bytes"), "{refused}");
    }
}
