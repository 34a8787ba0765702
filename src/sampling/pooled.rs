//! Pooling: each served entry once, however many anchors it was served to.

use rustc_hash::FxHashMap;

use crate::bank::{Bank, Place};
use crate::model::answer::PooledRows;
use crate::model::{BlockAnswer, Columns, SampleAnswer, Seed};

/// Rows gathered so far. An entry that a write moved between two holds is two rows: each pick keeps the one it was scored with.
#[derive(Debug)]
pub(super) struct Pooled {
    columns: Columns,
    pub(super) rows: PooledRows,
    pub(super) identities: Vec<(u64, u64)>,
    known: FxHashMap<(u64, u64), u32>,
}

impl Pooled {
    pub(super) fn new(columns: Columns) -> Self {
        Self { columns, rows: PooledRows::default(), identities: Vec::new(), known: FxHashMap::default() }
    }

    /// The row of the entry at `place`; copies it if it is new.
    pub(super) fn add(&mut self, bank: &Bank, place: Place) -> u32 {
        let columns = bank.columns(place);
        let identity = (place.packed(), columns.revision(place.slot));
        let next = self.identities.len() as u32;
        let row = *self.known.entry(identity).or_insert(next);
        if row == next {
            self.identities.push(identity);
            self.rows.len += 1;
            let entry = columns.entry(place.slot);
            if self.columns.ids {
                self.rows.ids.push(entry.id);
            }
            if self.columns.embeddings {
                self.rows.embeddings.extend_from_slice(bank.row(place));
            }
            if self.columns.labels {
                self.rows.labels.push(entry.label);
            }
            if self.columns.groups {
                self.rows.groups.push(entry.group);
            }
            if self.columns.steps {
                self.rows.steps.push(entry.step);
            }
        }
        row
    }
}

/// Joins the answers of consecutive blocks, in order; `None` if there is none. `dim` is the bank's dimension.
pub fn merge(blocks: Vec<BlockAnswer>, dim: usize, seed: Seed) -> Option<SampleAnswer> {
    let mut blocks = blocks.into_iter();
    let mut whole = blocks.next()?;
    let mut known: FxHashMap<(u64, u64), u32> = (0u32..).zip(&whole.identities).map(|(row, &at)| (at, row)).collect();
    for block in blocks {
        let rows: Vec<u32> = (0..block.identities.len())
            .map(|row| {
                let next = whole.rows.len as u32;
                let at = *known.entry(block.identities[row]).or_insert(next);
                if at == next {
                    append_row(&mut whole.rows, &block.rows, row, dim);
                }
                at
            })
            .collect();
        for (draw, more) in whole.draws.iter_mut().zip(block.draws) {
            draw.counts.extend(more.counts);
            draw.indices.extend(more.indices.into_iter().map(|row| rows[row as usize]));
            draw.scores.extend(more.scores);
            draw.log_q.extend(more.log_q);
            draw.n.extend(more.n);
            draw.log_partition.extend(more.log_partition);
            draw.kappa.extend(more.kappa);
            draw.plan = draw.plan.max(more.plan);
            draw.shortfalls.merge(&more.shortfalls);
            draw.rejections.merge(&more.rejections);
        }
        whole.sequence_first = whole.sequence_first.min(block.sequence_first);
        if block.revisions.1 >= whole.revisions.1 {
            whole.sequence_last = block.sequence_last;
            whole.step = block.step;
        }
        whole.between |= block.between;
        whole.revisions = (whole.revisions.0.min(block.revisions.0), whole.revisions.1.max(block.revisions.1));
    }
    Some(SampleAnswer {
        rows: whole.rows,
        draws: whole.draws,
        seed,
        sequence_first: whole.sequence_first,
        sequence_last: whole.sequence_last,
        step: whole.step,
        reproducible: whole.revisions.0 == whole.revisions.1 && !whole.between,
    })
}

fn append_row(to: &mut PooledRows, from: &PooledRows, row: usize, dim: usize) {
    to.len += 1;
    to.ids.extend(from.ids.get(row));
    to.embeddings.extend(from.embeddings.get(row * dim..(row + 1) * dim).unwrap_or_default());
    to.labels.extend(from.labels.get(row));
    to.groups.extend(from.groups.get(row));
    to.steps.extend(from.steps.get(row));
}
