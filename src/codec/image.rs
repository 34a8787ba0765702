//! A bank as sections of bytes: what it is but its embeddings, then its shards, then their embeddings.

use twox_hash::XxHash3_128;

use super::sink::Sink;
use super::source::{Source, Unreadable};
use crate::model::{BankImage, Origin, ShardImage, WriterImage};

pub(super) const VERSION: u8 = 1;

const BANK: u8 = 1;
const SHARD: u8 = 2;
const ROWS: u8 = 3;
const END: u8 = 4;

/// A part of a bank.
#[derive(Debug, Clone, PartialEq)]
pub enum Section {
    /// All of it but its shards.
    Bank(BankImage),
    /// The next shard.
    Shard(ShardImage),
    /// Embeddings of a shard.
    Rows {
        /// The shard.
        shard: u32,
        /// Slot of the first.
        first: u32,
        /// As they are stored, little-endian.
        raw: Vec<u8>,
    },
    /// That was all.
    End {
        /// [`StateHash`] of the sections before.
        hash: u128,
    },
}

/// Tells whether two banks of one version of this format are equal, to the bit: XXH3-128 of their sections, the rows shard by shard in order
/// of their slots, [`Section::ROWS`] at a time, and of their writers apart.
#[derive(Clone, Default)]
pub struct StateHash {
    content: XxHash3_128,
    writers: XxHash3_128,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for StateHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateHash({:032x})", self.value())
    }
}

impl StateHash {
    /// Adds what [`Section::Bank`] holds.
    pub fn add_bank(&mut self, image: &BankImage) {
        let Self { content, writers, scratch } = self;
        scratch.clear();
        counters(image, &mut begin(BANK, scratch));
        content.write(scratch);
        scratch.clear();
        put_writers(image, &mut Sink(scratch));
        writers.write(scratch);
    }

    /// Adds another section as it was encoded.
    pub fn add(&mut self, section: &[u8]) {
        self.content.write(section);
    }

    /// The hash of all that was added.
    pub fn value(&self) -> u128 {
        let both = [self.content.finish_128(), self.writers.finish_128()];
        XxHash3_128::oneshot(both.map(u128::to_le_bytes).as_flattened())
    }

    /// The hash of what was added but for who wrote it: two runs that wrote the same, each under a name of its own, have the same.
    pub fn content(&self) -> u128 {
        self.content.finish_128()
    }
}

impl Section {
    /// Embeddings in one of [`Self::Rows`] at most; all but the last of a shard have as many.
    pub const ROWS: usize = 256;

    /// Appends [`Self::Bank`] to `bytes`.
    pub fn encode_bank(image: &BankImage, bytes: &mut Vec<u8>) {
        bank(image, &mut begin(BANK, bytes));
    }

    /// Appends [`Self::Shard`] to `bytes`.
    pub fn encode_shard(image: &ShardImage, bytes: &mut Vec<u8>) {
        shard(image, &mut begin(SHARD, bytes));
    }

    /// Appends [`Self::Rows`] to `bytes`, and returns where in them the embeddings begin. `take` appends those and tells the slot of the first;
    /// `None`: there are none, and nothing is appended.
    ///
    /// # Errors
    /// What `take` complains about.
    pub fn encode_rows<E>(
        shard: u32,
        bytes: &mut Vec<u8>,
        take: impl FnOnce(&mut Vec<u8>) -> Result<Option<u32>, E>,
    ) -> Result<Option<usize>, E> {
        let before = bytes.len();
        begin(ROWS, bytes).u32(shard);
        // Where the first and how many bytes there are is known once they are here.
        bytes.extend([0; size_of::<u32>() + size_of::<u64>()]);
        let raw = bytes.len();
        let Some(first) = take(bytes)? else {
            bytes.truncate(before);
            return Ok(None);
        };
        let len = (bytes.len() - raw) as u64;
        let (from, to) = (raw - size_of::<u64>() - size_of::<u32>(), raw - size_of::<u64>());
        bytes[from..to].copy_from_slice(&first.to_le_bytes());
        bytes[to..raw].copy_from_slice(&len.to_le_bytes());
        Ok(Some(raw))
    }

    /// Appends [`Self::End`] to `bytes`.
    pub fn encode_end(hash: u128, bytes: &mut Vec<u8>) {
        let mut sink = begin(END, bytes);
        sink.u64(hash as u64);
        sink.u64((hash >> 64) as u64);
    }

    /// Reads a section.
    ///
    /// # Errors
    /// [`Unreadable`]
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut source = Source::new(bytes);
        let version = source.u8()?;
        if version != VERSION {
            return Err(source.complain(format!("version {version} of a bank's sections; this program reads {VERSION}")));
        }
        let section = match source.u8()? {
            BANK => Self::Bank(read_bank(&mut source)?),
            SHARD => Self::Shard(read_shard(&mut source)?),
            ROWS => Self::Rows { shard: source.u32()?, first: source.u32()?, raw: source.bytes()?.to_vec() },
            END => {
                let (low, high) = (source.u64()?, source.u64()?);
                Self::End { hash: u128::from(high) << 64 | u128::from(low) }
            }
            other => return Err(source.complain(format!("{other} is no section"))),
        };
        source.end()?;
        Ok(section)
    }
}

fn begin(kind: u8, bytes: &mut Vec<u8>) -> Sink<'_> {
    let mut sink = Sink(bytes);
    sink.u8(VERSION);
    sink.u8(kind);
    sink
}

fn bank(image: &BankImage, sink: &mut Sink<'_>) {
    counters(image, sink);
    put_writers(image, sink);
}

/// All but the writers.
fn counters(image: &BankImage, sink: &mut Sink<'_>) {
    sink.u64(image.sequence);
    sink.optional(image.step);
    sink.u64(image.revision);
    sink.u64(image.appended);
    sink.u64(image.labels.len() as u64);
    sink.i64s(&image.labels);
    sink.u64(image.staged.len() as u64);
    for &(step, next) in &image.staged {
        sink.u64(step);
        sink.u32(next);
    }
}

fn put_writers(image: &BankImage, sink: &mut Sink<'_>) {
    sink.u64(image.writers.len() as u64);
    for of in &image.writers {
        sink.bytes(of.writer.name.as_bytes());
        [of.writer.incarnation, of.highest, of.last_write].into_iter().for_each(|number| sink.u64(number));
        for numbers in [&of.sequences, &of.first_ids] {
            sink.u64(numbers.len() as u64);
            sink.u64s(numbers);
        }
    }
}

fn read_bank(source: &mut Source<'_>) -> Result<BankImage, Unreadable> {
    let (sequence, step, revision, appended) = (source.u64()?, source.optional()?, source.u64()?, source.u64()?);
    let labels = source.count(8)?;
    let labels = source.i64s(labels)?;
    let staged = source.count(12)?;
    let staged = (0..staged).map(|_| Ok((source.u64()?, source.u32()?))).collect::<Result<_, Unreadable>>()?;
    let writers = source.count(48)?;
    let writers = (0..writers).map(|_| read_writer(source)).collect::<Result<_, Unreadable>>()?;
    Ok(BankImage { sequence, step, revision, appended, labels, staged, writers, shards: Vec::new() })
}

fn read_writer(source: &mut Source<'_>) -> Result<WriterImage, Unreadable> {
    let (name, incarnation) = (source.text()?, source.u64()?);
    let origin = Origin::new(name, incarnation, 1).map_err(|refused| source.complain(refused.to_string()))?;
    let (highest, last_write) = (source.u64()?, source.u64()?);
    let mut numbers = || {
        let count = source.count(8)?;
        source.u64s(count)
    };
    Ok(WriterImage { writer: origin.writer, highest, last_write, sequences: numbers()?, first_ids: numbers()? })
}

fn shard(image: &ShardImage, sink: &mut Sink<'_>) {
    sink.u64(image.ids.len() as u64);
    sink.u64s(&image.ids);
    sink.i64s(&image.labels);
    sink.u64s(&image.groups);
    sink.f32s(&image.weights);
    [&image.steps, &image.occupied_at, &image.revisions].into_iter().for_each(|column| sink.u64s(column));
    image.present.iter().for_each(|&present| sink.u8(present));
    let lists = [&image.in_roster, &image.in_label, &image.in_group, &image.in_weight];
    lists.into_iter().for_each(|column| sink.u32s(column));
    sink.u64(image.free.len() as u64);
    sink.u32s(&image.free);
    sink.u64(image.largest_norm.to_bits());
}

fn read_shard(source: &mut Source<'_>) -> Result<ShardImage, Unreadable> {
    let slots = source.count(69)?;
    Ok(ShardImage {
        ids: source.u64s(slots)?,
        labels: source.i64s(slots)?,
        groups: source.u64s(slots)?,
        weights: source.f32s(slots)?,
        steps: source.u64s(slots)?,
        occupied_at: source.u64s(slots)?,
        revisions: source.u64s(slots)?,
        present: source.take(slots)?.to_vec(),
        in_roster: source.u32s(slots)?,
        in_label: source.u32s(slots)?,
        in_group: source.u32s(slots)?,
        in_weight: source.u32s(slots)?,
        free: {
            let free = source.count(4)?;
            source.u32s(free)?
        },
        largest_norm: f64::from_bits(source.u64()?),
    })
}
