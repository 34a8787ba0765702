//! Entries read by id or by staleness, and entries as rows.

use super::columns::{encoded, split};
use crate::engine::{Entry, Fetched, Stalest};
use crate::model::Encoding;
use crate::proto::v1;

/// The answer to a fetch.
pub(in crate::grpc) fn fetched(fetched: Fetched, dim: usize, encoding: Encoding) -> v1::FetchResponse {
    let found: Vec<u8> = fetched.found.into_iter().map(u8::from).collect();
    let rows = rows(&fetched.entries, Some(encoded(fetched.embeddings, dim, encoding)));
    v1::FetchResponse { found: found.into(), rows: Some(rows), sequence: fetched.sequence, step: fetched.step }
}

/// The answer to a request for the stalest entries.
pub(in crate::grpc) fn stalest(stalest: &Stalest) -> v1::StalestResponse {
    v1::StalestResponse { rows: Some(rows(&stalest.entries, None)), sequence: stalest.sequence, step: stalest.step }
}

/// Entries with all their columns.
pub(super) fn rows(entries: &[Entry], embeddings: Option<v1::Matrix>) -> v1::Rows {
    let (labels, has_label) = split(entries.iter().map(|entry| entry.label).collect());
    let (groups, has_group) = split(entries.iter().map(|entry| entry.group).collect());
    v1::Rows {
        ids: entries.iter().map(|entry| entry.id).collect(),
        embeddings,
        labels,
        has_label,
        groups,
        has_group,
        steps: entries.iter().map(|entry| entry.step).collect(),
        weights: entries.iter().map(|entry| entry.weight).collect(),
    }
}
