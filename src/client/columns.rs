//! Answers whose large columns are left as they came: packed little-endian numbers.
//!
//! On the wire a packed fixed-width column and a `bytes` field are the same, so these messages are those of `negbank.v1` with
//! `Bytes` in place of `Vec<u64>` and its like, field by field under the same numbers. A caller that hands columns on (numpy
//! does) is spared a loop over the values. A column is a whole number of values and comes in one piece, as negbank sends it.

use bytes::Bytes;
use prost::Message;

use crate::proto::v1::{Dtype, ReasonCount, WriteResponse};

/// `negbank.v1.Matrix`, without readable values.
#[derive(Clone, PartialEq, Message)]
pub struct FloatColumn {
    /// Row-major floats of `dtype`.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// Floats in a row.
    #[prost(uint32, tag = "3")]
    pub dim: u32,
    /// How the floats are written.
    #[prost(enumeration = "Dtype", tag = "4")]
    pub dtype: i32,
}

/// `negbank.v1.Rows`.
#[derive(Clone, PartialEq, Message)]
pub struct RowColumns {
    /// u64
    #[prost(bytes = "bytes", tag = "1")]
    pub ids: Bytes,
    /// Row-major
    #[prost(message, optional, tag = "2")]
    pub embeddings: Option<FloatColumn>,
    /// i64
    #[prost(bytes = "bytes", tag = "3")]
    pub labels: Bytes,
    /// One byte a row, 0 or 1
    #[prost(bytes = "bytes", tag = "4")]
    pub has_label: Bytes,
    /// u64
    #[prost(bytes = "bytes", tag = "5")]
    pub groups: Bytes,
    /// One byte a row, 0 or 1
    #[prost(bytes = "bytes", tag = "6")]
    pub has_group: Bytes,
    /// u64
    #[prost(bytes = "bytes", tag = "7")]
    pub steps: Bytes,
    /// f32
    #[prost(bytes = "bytes", tag = "8")]
    pub weights: Bytes,
}

/// `negbank.v1.FetchResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct FetchColumns {
    /// One byte an id
    #[prost(bytes = "bytes", tag = "1")]
    pub found: Bytes,
    /// The entries found
    #[prost(message, optional, tag = "2")]
    pub rows: Option<RowColumns>,
    /// The bank's sequence
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// The bank's step
    #[prost(uint64, optional, tag = "4")]
    pub step: Option<u64>,
}

/// `negbank.v1.StalestResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct StalestColumns {
    /// Without embeddings
    #[prost(message, optional, tag = "1")]
    pub rows: Option<RowColumns>,
    /// The bank's sequence
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// The bank's step
    #[prost(uint64, optional, tag = "3")]
    pub step: Option<u64>,
}

/// `negbank.v1.DrawAnswer`.
#[derive(Clone, PartialEq, Message)]
pub struct DrawColumns {
    /// Picks per anchor
    #[prost(uint32, repeated, tag = "1")]
    pub counts: Vec<u32>,
    /// u32
    #[prost(bytes = "bytes", tag = "2")]
    pub indices: Bytes,
    /// f32
    #[prost(bytes = "bytes", tag = "3")]
    pub scores: Bytes,
    /// f32
    #[prost(bytes = "bytes", tag = "4")]
    pub log_q: Bytes,
    /// Sizes of the eligible sets
    #[prost(uint32, repeated, tag = "5")]
    pub n: Vec<u32>,
    /// `negbank.v1.Plan`
    #[prost(enumeration = "crate::proto::v1::Plan", tag = "6")]
    pub plan: i32,
    /// Picks missing
    #[prost(message, repeated, tag = "7")]
    pub shortfalls: Vec<ReasonCount>,
    /// Entries refused
    #[prost(message, repeated, tag = "8")]
    pub rejections: Vec<ReasonCount>,
    /// An entry may be picked twice
    #[prost(bool, tag = "9")]
    pub with_replacement: bool,
    /// f32
    #[prost(bytes = "bytes", tag = "10")]
    pub log_partition: Bytes,
    /// f32
    #[prost(bytes = "bytes", tag = "11")]
    pub kappa: Bytes,
    /// Entries that pass the score rules, too
    #[prost(uint32, repeated, tag = "12")]
    pub n_scored: Vec<u32>,
    /// f32
    #[prost(bytes = "bytes", tag = "13")]
    pub log_q_mix: Bytes,
    /// One byte an anchor and entry
    #[prost(bytes = "bytes", tag = "14")]
    pub mask: Bytes,
    /// Entries that a shared set is drawn from
    #[prost(uint32, tag = "15")]
    pub n_shared: u32,
    /// Why that plan, where there was a choice.
    #[prost(string, tag = "16")]
    pub plan_reason: String,
    /// Mutations that were applied when the build of the graph that was read began.
    #[prost(uint64, optional, tag = "17")]
    pub generation: Option<u64>,
    /// Mutations since.
    #[prost(uint64, tag = "18")]
    pub generation_lag: u64,
    /// f32
    #[prost(bytes = "bytes", tag = "19")]
    pub log_q_shift: Bytes,
    /// Sizes of the bands
    #[prost(uint32, repeated, tag = "20")]
    pub n_band: Vec<u32>,
    /// f32
    #[prost(bytes = "bytes", tag = "21")]
    pub positive_log_q: Bytes,
    /// Nearest entries that a softmax was over instead of everything; 0: it was over everything
    #[prost(uint32, tag = "22")]
    pub candidates: u32,
}

/// `negbank.v1.SampleResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct SampleColumns {
    /// By the request's layout
    #[prost(message, optional, tag = "1")]
    pub rows: Option<RowColumns>,
    /// In the order of the request's draws
    #[prost(message, repeated, tag = "2")]
    pub draws: Vec<DrawColumns>,
    /// The seed used
    #[prost(uint64, tag = "3")]
    pub seed: u64,
    /// At the first read
    #[prost(uint64, tag = "4")]
    pub sequence_first: u64,
    /// At the last read
    #[prost(uint64, tag = "5")]
    pub sequence_last: u64,
    /// The bank's step
    #[prost(uint64, optional, tag = "6")]
    pub step: Option<u64>,
    /// No write came between the reads
    #[prost(bool, tag = "7")]
    pub reproducible: bool,
    /// What the request's write did
    #[prost(message, optional, tag = "8")]
    pub write: Option<WriteResponse>,
}

/// `negbank.v1.ScanChunk`.
#[derive(Clone, PartialEq, Message)]
pub struct ScanColumns {
    /// All columns
    #[prost(message, optional, tag = "1")]
    pub rows: Option<RowColumns>,
    /// u64
    #[prost(bytes = "bytes", tag = "2")]
    pub stamps: Bytes,
    /// u64
    #[prost(bytes = "bytes", tag = "3")]
    pub gone: Bytes,
    /// All entries, not only those that changed
    #[prost(bool, tag = "4")]
    pub whole: bool,
    /// The last chunk
    #[prost(bool, tag = "5")]
    pub last: bool,
    /// The `since` of the next scan
    #[prost(bytes = "bytes", tag = "6")]
    pub position: Bytes,
    /// All rows are of one state
    #[prost(bool, tag = "7")]
    pub consistent: bool,
    /// Entries of the bank
    #[prost(uint64, tag = "8")]
    pub entries: u64,
    /// The bank's sequence
    #[prost(uint64, tag = "9")]
    pub sequence: u64,
    /// The bank's step
    #[prost(uint64, optional, tag = "10")]
    pub step: Option<u64>,
}

/// `negbank.v1.GatherResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct GatherColumns {
    /// Of all ranks
    #[prost(message, optional, tag = "1")]
    pub rows: Option<RowColumns>,
    /// Rows of each rank
    #[prost(uint32, repeated, tag = "2")]
    pub counts: Vec<u32>,
    /// Ranks are missing
    #[prost(bool, tag = "3")]
    pub partial: bool,
    /// Which
    #[prost(uint32, repeated, tag = "4")]
    pub missing_ranks: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::{FetchColumns, GatherColumns, SampleColumns, ScanColumns, StalestColumns};
    use crate::proto::v1;

    /// `message` sent as one and received as the other.
    fn received<A: Message + Default>(message: &impl Message) -> A {
        A::decode(&*message.encode_to_vec()).unwrap()
    }

    fn rows() -> v1::Rows {
        v1::Rows {
            ids: vec![1, u64::MAX],
            embeddings: Some(v1::Matrix { data: vec![1, 2, 3, 4].into(), dim: 1, dtype: 3, ..v1::Matrix::default() }),
            labels: vec![-1, 2],
            has_label: vec![1, 0].into(),
            groups: vec![3, 4],
            has_group: vec![1, 1].into(),
            steps: vec![5, 6],
            weights: vec![0.5, 2.0],
        }
    }

    /// Every field set, so that one that is left out or has another number is missed on the way back.
    #[test]
    fn the_columns_are_those_of_the_proto() {
        let draw = v1::DrawAnswer {
            counts: vec![2],
            indices: vec![0, 1],
            scores: vec![0.25, 0.5],
            log_q: vec![-1.0, -2.0],
            n: vec![9],
            plan: 4,
            shortfalls: vec![v1::ReasonCount { reason: 8, count: 3 }],
            rejections: vec![v1::ReasonCount { reason: 1, count: 4 }],
            with_replacement: true,
            log_partition: vec![1.5],
            kappa: vec![-3.0],
            n_scored: vec![7],
            log_q_mix: vec![-4.0, -5.0],
            mask: vec![1, 0].into(),
            n_shared: 11,
            plan_reason: "asked for".to_owned(),
            generation: Some(12),
            generation_lag: 13,
            log_q_shift: vec![0.5],
            n_band: vec![3],
            positive_log_q: vec![-6.0, -7.0],
            candidates: 14,
        };
        let write =
            Some(v1::WriteResponse { sequence: 5, ids: vec![8], position: vec![1].into(), ..v1::WriteResponse::default() });
        let sampled = v1::SampleResponse {
            rows: Some(rows()),
            draws: vec![draw],
            seed: 1,
            sequence_first: 2,
            sequence_last: 3,
            step: Some(4),
            reproducible: true,
            write,
        };
        let fetched = v1::FetchResponse { found: vec![1, 0].into(), rows: Some(rows()), sequence: 3, step: Some(4) };
        let scanned = v1::ScanChunk {
            rows: Some(rows()),
            stamps: vec![7, 8],
            gone: vec![9],
            whole: true,
            last: true,
            position: vec![2].into(),
            consistent: true,
            entries: 10,
            sequence: 11,
            step: Some(12),
        };
        let columns: SampleColumns = received(&sampled);
        assert_eq!(columns.rows.as_ref().unwrap().ids, [1u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat());
        assert_eq!(columns.draws[0].scores, [0.25f32.to_le_bytes(), 0.5f32.to_le_bytes()].concat());
        assert_eq!(received::<v1::SampleResponse>(&columns), sampled);
        assert_eq!(received::<v1::FetchResponse>(&received::<FetchColumns>(&fetched)), fetched);
        let stalest = v1::StalestResponse { rows: Some(rows()), sequence: 3, step: Some(4) };
        assert_eq!(received::<v1::StalestResponse>(&received::<StalestColumns>(&stalest)), stalest);
        assert_eq!(received::<v1::ScanChunk>(&received::<ScanColumns>(&scanned)), scanned);
        let gathered = v1::GatherResponse { rows: Some(rows()), counts: vec![2, 0], partial: true, missing_ranks: vec![1] };
        assert_eq!(received::<v1::GatherResponse>(&received::<GatherColumns>(&gathered)), gathered);
    }
}
