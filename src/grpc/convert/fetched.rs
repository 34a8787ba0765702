//! Entries read by id or by staleness, and entries as rows.

use bytes::Bytes;
use prost::Message as _;

use super::columns::split;
use super::sampled;
use crate::engine::{Entry, Fetched, Stalest};
use crate::grpc::frame::Frame;
use crate::grpc::wire::Fields;
use crate::model::{Encoding, ServedRows};
use crate::proto::v1;

const FETCHED_ROWS: u32 = 2;

/// The frame of the answer to a fetch. The embeddings come last, from where they were read.
pub(in crate::grpc) fn fetched(fetched: Fetched, dim: usize, encoding: Encoding) -> Frame {
    let Fetched { found, entries, mut embeddings, sequence, step } = fetched;
    let found: Vec<u8> = found.into_iter().map(u8::from).collect();
    let mut response = Fields::message(found.len() + entries.len() * 48 + 256);
    response.raw(&v1::FetchResponse { found: found.into(), rows: None, sequence, step }.encode_to_vec());
    embeddings.shrink_to_fit();
    let rows = ServedRows {
        len: entries.len(),
        ids: entries.iter().map(|entry| entry.id).collect(),
        embeddings: vec![embeddings.into()],
        labels: entries.iter().map(|entry| entry.label).collect(),
        groups: entries.iter().map(|entry| entry.group).collect(),
        steps: entries.iter().map(|entry| entry.step).collect(),
        weights: entries.iter().map(|entry| entry.weight).collect(),
    };
    let (rows, tail) = sampled::rows(rows, dim, encoding);
    response.length(FETCHED_ROWS, rows.len() + tail.iter().map(Bytes::len).sum::<usize>());
    response.raw(rows.as_slice());
    Frame::new(response, tail)
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

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::{fetched, rows};
    use crate::engine::{Entry, Fetched};
    use crate::grpc::convert::columns::encoded;
    use crate::model::Encoding;
    use crate::proto::v1;

    /// Every field of the message is set, so that a wrong tag can't hide.
    #[test]
    fn a_frame_is_the_message_that_prost_would_have_made() {
        let entry = |id, label, group| Entry { id, label, group, weight: 0.5, step: 7 };
        let of = Fetched {
            found: vec![true, false, true],
            entries: vec![entry(1, Some(-5), None), entry(u64::MAX, None, Some(6))],
            embeddings: [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect(),
            sequence: 300,
            step: Some(14),
        };
        for encoding in [Encoding::F32, Encoding::Floats] {
            let message = fetched(of.clone(), 2, encoding).message();
            let rows = rows(&of.entries, Some(encoded(of.embeddings.clone(), 2, encoding)));
            let found = vec![1, 0, 1].into();
            let expected = v1::FetchResponse { found, rows: Some(rows), sequence: 300, step: Some(14) };
            assert_eq!(v1::FetchResponse::decode(message.as_slice()).unwrap(), expected);
        }
        let none = Fetched { found: vec![false], ..Fetched::default() };
        let answer = v1::FetchResponse::decode(fetched(none, 2, Encoding::F16).message().as_slice()).unwrap();
        let matrix = answer.rows.unwrap().embeddings.unwrap();
        assert_eq!((matrix.dim, matrix.dtype(), matrix.data.len()), (2, v1::Dtype::F16, 0), "the shape is told of no rows too");
    }
}
