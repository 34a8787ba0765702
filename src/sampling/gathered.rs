//! Rows copied out of the bank, as they will be sent.

use crate::bank::{Bank, Place};
use crate::model::{BankSpec, Columns, Encoding, Form};
use crate::rows::{Buffer, Recycler};

/// Columns of served entries. Embeddings lie encoded in recycled memory, so that they are copied once.
#[derive(Debug)]
pub struct Gathered {
    columns: Columns,
    encoding: Encoding,
    /// Number of rows.
    pub len: usize,
    /// Ids.
    pub ids: Vec<u64>,
    /// Row-major embeddings.
    pub embeddings: Buffer,
    /// Labels.
    pub labels: Vec<Option<i64>>,
    /// Groups.
    pub groups: Vec<Option<u64>>,
    /// Training steps.
    pub steps: Vec<u64>,
    /// Sampling weights.
    pub weights: Vec<f32>,
}

/// Room taken for embeddings beforehand at most: what is asked for may be far more than what is there.
const MOST_RESERVED: usize = 16 << 20;

impl Gathered {
    /// No rows yet; `rows` of a bank of these settings are expected.
    pub(super) fn new(form: &Form, rows: usize, spec: &BankSpec, recycler: &Recycler) -> Self {
        let bytes = if form.columns.embeddings { rows.saturating_mul(form.encoding.bytes() * spec.dim()) } else { 0 };
        let room = |wanted: bool| if wanted { rows.min(MOST_RESERVED / 64) } else { 0 };
        Self {
            columns: form.columns,
            encoding: form.encoding,
            len: 0,
            ids: Vec::with_capacity(room(form.columns.ids)),
            embeddings: recycler.buffer(bytes.min(MOST_RESERVED)),
            labels: Vec::with_capacity(room(form.columns.labels)),
            groups: Vec::with_capacity(room(form.columns.groups)),
            steps: Vec::with_capacity(room(form.columns.steps)),
            weights: Vec::with_capacity(room(form.columns.weights)),
        }
    }

    /// Copies the entry at `place`.
    pub(super) fn push(&mut self, bank: &Bank, place: Place) {
        let columns = bank.columns(place);
        self.len += 1;
        if self.columns.ids {
            self.ids.push(columns.id(place.slot));
        }
        if self.columns.embeddings {
            bank.row(place).encode(self.encoding, self.embeddings.bytes_mut());
        }
        if self.columns.labels {
            self.labels.push(columns.label(place.slot));
        }
        if self.columns.groups {
            self.groups.push(columns.group(place.slot));
        }
        if self.columns.steps {
            self.steps.push(columns.step(place.slot));
        }
        if self.columns.weights {
            self.weights.push(columns.weight(place.slot));
        }
    }

    /// Keeps the rows that `keep` names, in their order.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        let kept = keep.iter().filter(|&&keep| keep).count();
        if kept == self.len {
            return;
        }
        retain(&mut self.ids, keep);
        retain(&mut self.labels, keep);
        retain(&mut self.groups, keep);
        retain(&mut self.steps, keep);
        retain(&mut self.weights, keep);
        let bytes = self.embeddings.bytes_mut();
        let row_bytes = bytes.len() / self.len;
        let mut end = 0;
        for row in (0..self.len).filter(|&row| keep[row]) {
            bytes.copy_within(row * row_bytes..(row + 1) * row_bytes, end);
            end += row_bytes;
        }
        bytes.truncate(end);
        self.embeddings.compact();
        self.len = kept;
    }
}

fn retain<T>(column: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    column.retain(|_| keep.next().is_none_or(|&keep| keep));
}
