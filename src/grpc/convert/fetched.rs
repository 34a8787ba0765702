//! Entries read by id.

use super::columns::{encoded, split};
use crate::engine::Fetched;
use crate::model::Encoding;
use crate::proto::v1;

/// The answer to a fetch.
pub(in crate::grpc) fn fetched(fetched: Fetched, dim: usize, encoding: Encoding) -> v1::FetchResponse {
    let found: Vec<u8> = fetched.found.into_iter().map(u8::from).collect();
    let (labels, has_label) = split(fetched.entries.iter().map(|entry| entry.label).collect());
    let (groups, has_group) = split(fetched.entries.iter().map(|entry| entry.group).collect());
    let rows = v1::Rows {
        ids: fetched.entries.iter().map(|entry| entry.id).collect(),
        embeddings: Some(encoded(fetched.embeddings, dim, encoding)),
        labels,
        has_label,
        groups,
        has_group,
        steps: fetched.entries.iter().map(|entry| entry.step).collect(),
        weights: Vec::new(),
    };
    v1::FetchResponse { found: found.into(), rows: Some(rows), sequence: fetched.sequence, step: fetched.step }
}
