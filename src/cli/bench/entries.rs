//! Entries of an existing bank, read for anchors and for what writers send.

use bytes::Bytes;

use crate::client::{Client, ClientError, RowColumns, messages as v1};

/// Columns of some entries.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) ids: Vec<u64>,
    /// Little-endian f32, row-major.
    pub(super) embeddings: Vec<u8>,
    pub(super) labels: Vec<i64>,
    pub(super) has_label: Vec<u8>,
    pub(super) groups: Vec<u64>,
    pub(super) has_group: Vec<u8>,
    pub(super) weights: Vec<f32>,
}

impl Entries {
    /// Reads the first `wanted` entries of a bank, or as many as it has.
    pub(super) async fn read(client: &Client, bank: &str, wanted: usize) -> Result<Self, ClientError> {
        let mut scan = client.scan(v1::ScanRequest { bank: bank.to_owned(), ..v1::ScanRequest::default() }).await?;
        let mut entries = Self::default();
        while entries.len() < wanted
            && let Some(chunk) = scan.next().await?
        {
            entries.extend(&chunk.rows.unwrap_or_default());
        }
        Ok(entries)
    }

    fn extend(&mut self, rows: &RowColumns) {
        self.ids.extend(words(&rows.ids).map(u64::from_le_bytes));
        self.embeddings.extend(rows.embeddings.iter().flat_map(|column| column.data.iter()));
        self.labels.extend(words(&rows.labels).map(i64::from_le_bytes));
        self.has_label.extend(&rows.has_label);
        self.groups.extend(words(&rows.groups).map(u64::from_le_bytes));
        self.has_group.extend(&rows.has_group);
        self.weights.extend(words(&rows.weights).map(f32::from_le_bytes));
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Floats in an embedding; 0 without entries.
    pub(super) fn dim(&self) -> usize {
        self.embeddings.len().checked_div(4 * self.len()).unwrap_or(0)
    }
}

fn words<const WIDTH: usize>(column: &Bytes) -> impl Iterator<Item = [u8; WIDTH]> {
    column.as_chunks().0.iter().copied()
}
