//! A mirror of a bank, kept as the comment of `ScanChunk` says.

use std::collections::{BTreeMap, BTreeSet};

use negbank::client::floats;
use negbank::proto::v1;
use negbank::proto::v1::banks_client::BanksClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::model::{ModelBank, ModelEntry};

/// Calls without a client of ours around them.
pub(crate) async fn banks(address: &str) -> BanksClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    BanksClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(64 << 20)
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) row: Vec<f32>,
    pub(crate) label: Option<i64>,
    pub(crate) group: Option<u64>,
    pub(crate) weight: f32,
    pub(crate) step: u64,
}

/// What a scan left: entries by stamp, and the position of the next.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) entries: BTreeMap<u64, Entry>,
    pub(crate) position: Vec<u8>,
}

/// One scan, read to its end.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) whole: bool,
    pub(crate) consistent: bool,
    pub(crate) rows: usize,
    pub(crate) chunks: usize,
    /// Entries of the bank at the end.
    pub(crate) held: u64,
}

impl Mirror {
    /// Reads what changed, in chunks of `chunk_rows`, and checks what holds for every scan.
    pub(crate) async fn follow(&mut self, banks: &BanksClient<Channel>, bank: &str, chunk_rows: u32) -> Summary {
        let since = self.position.clone().into();
        let request = v1::ScanRequest { bank: bank.to_owned(), chunk_rows, since, ..Default::default() };
        let mut chunks = banks.clone().scan(Request::new(request)).await.unwrap().into_inner();
        self.apply(&mut chunks, chunk_rows).await.unwrap()
    }

    pub(crate) async fn apply(&mut self, chunks: &mut Streaming<v1::ScanChunk>, chunk_rows: u32) -> Result<Summary, Status> {
        let mut summary = Summary::default();
        let mut seen = BTreeSet::new();
        let mut last = false;
        while let Some(chunk) = chunks.message().await? {
            assert!(!last, "a chunk after the last");
            assert!(!chunk.whole || summary.chunks == 0, "only the first chunk may say that the scan is of all entries");
            if chunk.whole {
                self.entries.clear();
                summary.whole = true;
            }
            assert!(chunk.gone.is_empty() || seen.is_empty(), "entries that left are told of before any row");
            chunk.gone.iter().for_each(|stamp| drop(self.entries.remove(stamp)));
            let entries = entries(&chunk);
            assert!(chunk_rows == 0 || entries.len() <= chunk_rows as usize);
            for (stamp, entry) in chunk.stamps.iter().zip(entries) {
                assert!(seen.last().is_none_or(|before| before < stamp), "stamps grow within a scan");
                seen.insert(*stamp);
                self.entries.insert(*stamp, entry);
            }
            assert_eq!(chunk.last, !chunk.position.is_empty());
            assert!(chunk.last || !chunk.consistent);
            last = chunk.last;
            if last {
                self.position = chunk.position.to_vec();
                summary.consistent = chunk.consistent;
                summary.held = chunk.entries;
            }
            summary.chunks += 1;
        }
        assert!(last, "the stream ended without a last chunk");
        summary.rows = seen.len();
        Ok(summary)
    }

    /// The entries in the order in which they came are the model's.
    pub(crate) fn assert_equals(&self, model: &ModelBank, context: &str) {
        assert_eq!(self.entries.len(), model.entries.len(), "{context}");
        for (mirrored, expected) in self.entries.values().zip(&model.entries) {
            assert!(same(mirrored, expected), "{context}: {mirrored:?} is not {expected:?}");
        }
    }
}

/// The rows of a chunk.
pub(crate) fn entries(chunk: &v1::ScanChunk) -> Vec<Entry> {
    let rows = chunk.rows.clone().unwrap_or_default();
    let count = chunk.stamps.len();
    let (matrix, lens) = (rows.embeddings.unwrap_or_default(), [rows.ids.len(), rows.labels.len(), rows.has_label.len()]);
    assert_eq!((lens, [rows.groups.len(), rows.has_group.len(), rows.steps.len()]), ([count; 3], [count; 3]));
    assert_eq!(rows.weights.len(), count);
    let floats = floats(&matrix);
    let dim = matrix.dim as usize;
    assert_eq!(floats.len(), count * dim);
    let has = |presence: &[u8], at: usize| presence[at] == 1;
    let entry = |at: usize| Entry {
        id: rows.ids[at],
        row: floats[at * dim..(at + 1) * dim].to_vec(),
        label: has(&rows.has_label, at).then(|| rows.labels[at]),
        group: has(&rows.has_group, at).then(|| rows.groups[at]),
        weight: rows.weights[at],
        step: rows.steps[at],
    };
    (0..count).map(entry).collect()
}

fn same(mirrored: &Entry, expected: &ModelEntry) -> bool {
    let columns = (mirrored.id, mirrored.label, mirrored.group, mirrored.weight, mirrored.step);
    columns == (expected.id, expected.label, expected.group, expected.weight, expected.step)
        && mirrored.row.len() == expected.row.len()
        && mirrored.row.iter().zip(&expected.row).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-5)
}
