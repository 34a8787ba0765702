//! What negatives are drawn for: a ring of anchors, of which each call takes the next few.

use bytes::Bytes;

use super::clusters::Clusters;
use super::entries::Entries;
use crate::client::messages as v1;

/// Anchors made or read at least; more where a call takes more.
pub(super) const RING: usize = 4_096;

/// Rows of created anchors are numbered from here on, so that none is an entry's.
const FIRST_ROW: u64 = 1 << 40;

/// The ring. Its first rows stand at its end again, so that each call's anchors are one piece.
#[derive(Debug)]
pub(super) struct Anchors {
    around: usize,
    dim: usize,
    each: usize,
    /// Little-endian f32.
    embeddings: Bytes,
    labels: Vec<i64>,
    has_label: Bytes,
    /// Empty where the anchors are no entries.
    ids: Vec<u64>,
    /// Draws that score need the embeddings, and ids whose entries may have left need them beside them.
    scored: bool,
}

impl Anchors {
    /// New vectors of the clusters, `each` for a call.
    pub(super) fn create(clusters: &Clusters, dim: usize, each: usize, scored: bool) -> Self {
        let around = RING.max(each);
        let mut floats = Vec::with_capacity((around + each) * dim);
        let rows = (0..around + each).map(|at| FIRST_ROW + (at % around) as u64);
        let labels: Vec<i64> = rows.map(|row| clusters.append(row, &mut floats)).collect();
        let has_label = vec![1; labels.len()].into();
        Self { around, dim, each, embeddings: little_endian(&floats), labels, has_label, ids: Vec::new(), scored }
    }

    /// Entries of a bank, at least one.
    pub(super) fn of(entries: &Entries, each: usize, scored: bool) -> Self {
        let (around, dim) = (entries.len(), entries.dim());
        let picked: Vec<usize> = (0..around + each).map(|at| at % around).collect();
        let column = |all: &[u8], width: usize| -> Bytes {
            picked.iter().flat_map(|at| all.get(at * width..(at + 1) * width).unwrap_or_default()).copied().collect()
        };
        let embeddings = column(&entries.embeddings, 4 * dim);
        let labels = picked.iter().filter_map(|at| entries.labels.get(*at)).copied().collect();
        let ids = picked.iter().filter_map(|at| entries.ids.get(*at)).copied().collect();
        Self { around, dim, each, embeddings, labels, has_label: column(&entries.has_label, 1), ids, scored }
    }

    /// The anchors of call number `call`.
    pub(super) fn next(&self, call: u64) -> v1::Anchors {
        let start = (call.wrapping_mul(self.each as u64) % self.around as u64) as usize;
        let rows = start..start + self.each;
        let mut anchors = v1::Anchors {
            rows: self.each as u32,
            labels: self.labels.get(rows.clone()).unwrap_or_default().to_vec(),
            has_label: self.has_label.slice(rows.clone()),
            ..v1::Anchors::default()
        };
        if self.scored {
            anchors.embeddings = Some(v1::Matrix {
                data: self.embeddings.slice(rows.start * self.dim * 4..rows.end * self.dim * 4),
                dim: self.dim as u32,
                ..v1::Matrix::default()
            });
            anchors.ids = self.ids.get(rows).unwrap_or_default().to_vec();
        }
        anchors
    }
}

/// As matrices travel.
pub(super) fn little_endian(floats: &[f32]) -> Bytes {
    floats.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Anchors, Clusters, RING};

    #[test]
    fn calls_go_round_the_ring() {
        let anchors = Anchors::create(&Clusters::new(4, 1_000, 1), 4, 1_000, true);
        let first = anchors.next(0);
        let wrapped = anchors.next(5);
        assert_eq!(first.embeddings.as_ref().map(|matrix| matrix.data.len()), Some(1_000 * 16));
        // Call 5 begins at row 5,000 of 4,096, which is row 904.
        assert_eq!(wrapped.labels[..96], first.labels[5_000 - RING..]);
        assert_eq!(wrapped.labels.len(), 1_000);
    }
}
