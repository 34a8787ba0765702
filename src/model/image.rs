//! All of a bank but its embeddings, as values: what a snapshot holds and a bank is restored from.

use super::Writer;

/// A bank between two mutations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BankImage {
    /// Mutations applied.
    pub sequence: u64,
    /// Training step of the last write that carried one.
    pub step: Option<u64>,
    /// The counter of changed rows.
    pub revision: u64,
    /// Entries ever appended to a queue.
    pub appended: u64,
    /// The labels that entries have, in the order in which balanced draws index them.
    pub labels: Vec<i64>,
    /// The steps that committed a stage last, and the micro-batch that comes next in each.
    pub staged: Vec<(u64, u32)>,
    /// The writers that are remembered, the most silent first.
    pub writers: Vec<WriterImage>,
    /// By number.
    pub shards: Vec<ShardImage>,
}

impl BankImage {
    /// About what an entry takes in it, its embedding apart.
    pub const BYTES_PER_ENTRY: usize = 69;

    /// An empty one, with memory for shards of so many slots, of which so many are free. All of that was written to once: the system looks for
    /// a page when it is first written to, which takes longer than to copy what goes there, and writes wait for the copy.
    pub fn with_room(shards: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let shards = shards.into_iter().map(|(slots, free)| ShardImage::with_room(slots, free)).collect();
        Self { shards, ..Self::default() }
    }
}

/// Which writes of a writer were applied.
#[derive(Debug, Clone, PartialEq)]
pub struct WriterImage {
    /// Whose.
    pub writer: Writer,
    /// Highest number that was applied.
    pub highest: u64,
    /// Sequence of the last write.
    pub last_write: u64,
    /// As which mutation each number was applied, by number modulo the window.
    pub sequences: Vec<u64>,
    /// The first ids that the bank gave, likewise.
    pub first_ids: Vec<u64>,
}

/// A shard, by slot; all columns are of one length.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShardImage {
    /// Ids.
    pub ids: Vec<u64>,
    /// Labels.
    pub labels: Vec<i64>,
    /// Groups.
    pub groups: Vec<u64>,
    /// Sampling weights.
    pub weights: Vec<f32>,
    /// Training steps of the last writes.
    pub steps: Vec<u64>,
    /// Occupancy stamps; 0: the slot is free.
    pub occupied_at: Vec<u64>,
    /// The bank's change counter at the last writes.
    pub revisions: Vec<u64>,
    /// Which columns have a value.
    pub present: Vec<u8>,
    /// Position of the slot in the roster.
    pub in_roster: Vec<u32>,
    /// Position of the slot in the list of its label.
    pub in_label: Vec<u32>,
    /// Position of the slot in the list of its group.
    pub in_group: Vec<u32>,
    /// Position of the slot in the list of its weight.
    pub in_weight: Vec<u32>,
    /// Free slots, the next to be taken last.
    pub free: Vec<u32>,
    /// At least the norm of every row.
    pub largest_norm: f64,
}

impl ShardImage {
    fn with_room(slots: usize, free: usize) -> Self {
        // A few more may have come until it is filled.
        let slots = slots + slots / 16;
        Self {
            ids: written(1, slots),
            labels: written(1, slots),
            groups: written(1, slots),
            weights: written(1.0, slots),
            steps: written(1, slots),
            occupied_at: written(1, slots),
            revisions: written(1, slots),
            present: written(1, slots),
            in_roster: written(1, slots),
            in_label: written(1, slots),
            in_group: written(1, slots),
            in_weight: written(1, slots),
            free: written(1, free),
            largest_norm: 0.0,
        }
    }
}

/// No values, in memory that `most` of them were written to; not zeros, which a system gives without writing them.
fn written<T: Clone>(value: T, most: usize) -> Vec<T> {
    let mut values = vec![value; most];
    values.clear();
    values
}

/// An image that no bank could have left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no bank is like this: {0}")]
pub struct BadImage(pub &'static str);
