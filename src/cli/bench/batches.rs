//! What writers send.

use bytes::Bytes;

use super::anchors::little_endian;
use super::clusters::{Clusters, Random};
use super::entries::Entries;
use crate::client::messages as v1;

/// Batches made at the start, of which writers send one after the other.
const KEPT: usize = 16;

/// Rows of the bank, as they were at the start.
#[derive(Debug)]
pub(super) struct Batches(Vec<v1::WriteRequest>);

impl Batches {
    /// Rows of a created bank, taken at random.
    pub(super) fn create(bank: &v1::Bank, clusters: &Clusters, rows: usize) -> Self {
        let mut random = Random::new(0, 0, 3);
        let batch = |_| {
            let mut floats = Vec::with_capacity(rows * bank.dim as usize);
            let ids: Vec<u64> = (0..rows).map(|_| random.next() % bank.entries.max(1)).collect();
            ids.iter().for_each(|id| {
                clusters.append(*id, &mut floats);
            });
            request(bank, ids, little_endian(&floats))
        };
        Self((0..KEPT).map(batch).collect())
    }

    /// Entries of an existing bank. A keyed bank keeps their labels, groups and weights; a queue has to be told them again.
    pub(super) fn of(bank: &v1::Bank, entries: &Entries, rows: usize) -> Self {
        let width = 4 * entries.dim();
        let batch = |number: usize| {
            let at: Vec<usize> = (0..rows).map(|row| (number * rows + row) % entries.len()).collect();
            let floats = at.iter().flat_map(|at| entries.embeddings.get(at * width..(at + 1) * width).unwrap_or_default());
            let mut request = request(bank, pick(&entries.ids, &at), floats.copied().collect());
            if bank.kind() == v1::BankKind::Queue {
                request.labels = pick(&entries.labels, &at);
                request.has_label = pick(&entries.has_label, &at).into();
                request.groups = pick(&entries.groups, &at);
                request.has_group = pick(&entries.has_group, &at).into();
                request.weights = pick(&entries.weights, &at);
            }
            request
        };
        Self((0..KEPT).map(batch).collect())
    }

    /// The batch number `number` of writer `writer`.
    pub(super) fn get(&self, writer: usize, number: usize) -> v1::WriteRequest {
        self.0.get((writer * 7 + number) % self.0.len().max(1)).cloned().unwrap_or_default()
    }
}

fn pick<T: Copy>(column: &[T], at: &[usize]) -> Vec<T> {
    at.iter().filter_map(|at| column.get(*at)).copied().collect()
}

fn request(bank: &v1::Bank, ids: Vec<u64>, data: Bytes) -> v1::WriteRequest {
    v1::WriteRequest {
        bank: bank.name.clone(),
        ids,
        embeddings: Some(v1::Matrix { data, dim: bank.dim, ..v1::Matrix::default() }),
        step: bank.step,
        ..v1::WriteRequest::default()
    }
}
