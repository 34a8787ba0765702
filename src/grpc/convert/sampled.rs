//! The answer to a request for negatives, as a ready-made frame.

use bytes::Bytes;
use prost::Message as _;

use super::columns::{sent_dtype, split};
use crate::grpc::frame::Frame;
use crate::grpc::wire::Fields;
use crate::model::{DrawAnswer, Encoding, Plan, Reason, ReasonCounts, SampleAnswer, ServedRows, SharedSet};
use crate::proto::v1;

/// Tags of the fields that are written here and not by prost: the large columns.
mod tag {
    pub(super) const RESPONSE_ROWS: u32 = 1;
    pub(super) const RESPONSE_DRAWS: u32 = 2;
    pub(super) const RESPONSE_WRITE: u32 = 8;

    pub(super) const ROWS_IDS: u32 = 1;
    pub(super) const ROWS_EMBEDDINGS: u32 = 2;
    pub(super) const ROWS_LABELS: u32 = 3;
    pub(super) const ROWS_HAS_LABEL: u32 = 4;
    pub(super) const ROWS_GROUPS: u32 = 5;
    pub(super) const ROWS_HAS_GROUP: u32 = 6;
    pub(super) const ROWS_STEPS: u32 = 7;
    pub(super) const ROWS_WEIGHTS: u32 = 8;

    pub(super) const MATRIX_DATA: u32 = 1;
    pub(super) const MATRIX_VALUES: u32 = 2;
    pub(super) const MATRIX_DIM: u32 = 3;
    pub(super) const MATRIX_DTYPE: u32 = 4;

    pub(super) const DRAW_INDICES: u32 = 2;
    pub(super) const DRAW_SCORES: u32 = 3;
    pub(super) const DRAW_LOG_Q: u32 = 4;
    pub(super) const DRAW_LOG_PARTITION: u32 = 10;
    pub(super) const DRAW_KAPPA: u32 = 11;
    pub(super) const DRAW_LOG_Q_MIX: u32 = 13;
    pub(super) const DRAW_MASK: u32 = 14;
    pub(super) const DRAW_LOG_Q_SHIFT: u32 = 19;
    pub(super) const DRAW_POSITIVE_LOG_Q: u32 = 21;
}

/// The frame of an answer from a bank of dimension `dim`. The rows come last and their embeddings at the very end, so that these
/// are sent from where they were gathered, and whoever reads the stream meets them when it knows everything else.
pub(in crate::grpc) fn sampled(answer: SampleAnswer, dim: usize, encoding: Encoding) -> Frame {
    let draws: usize = answer.draws.iter().map(bytes_of_draw).sum();
    let mut response = Fields::message(draws + bytes_of_columns(&answer.rows) + 256);
    let small = v1::SampleResponse {
        rows: None,
        draws: Vec::new(),
        seed: answer.seed.0,
        sequence_first: answer.sequence_first,
        sequence_last: answer.sequence_last,
        step: answer.step,
        reproducible: answer.reproducible,
        write: None,
    };
    response.raw(&small.encode_to_vec());
    for draw in answer.draws {
        let draw = self::draw(draw);
        response.length(tag::RESPONSE_DRAWS, draw.len());
        response.raw(draw.as_slice());
    }
    let (rows, tail) = rows(answer.rows, dim, encoding);
    response.length(tag::RESPONSE_ROWS, rows.len() + tail.iter().map(Bytes::len).sum::<usize>());
    response.raw(rows.as_slice());
    Frame::new(response, tail)
}

/// The frame of an answer to a request that carried a write as well.
pub(in crate::grpc) fn written(frame: Frame, write: &v1::WriteResponse) -> Frame {
    let mut field = Fields::default();
    field.length(tag::RESPONSE_WRITE, write.encoded_len());
    field.raw(&write.encode_to_vec());
    frame.and(field)
}

/// The fields of the rows, and the bytes of their embeddings, which end them.
pub(super) fn rows(rows: ServedRows, dim: usize, encoding: Encoding) -> (Fields, Vec<Bytes>) {
    let mut fields = Fields::with_capacity(bytes_of_columns(&rows));
    fields.packed(tag::ROWS_IDS, &rows.ids);
    let (labels, has_label) = split(rows.labels);
    fields.packed(tag::ROWS_LABELS, &labels);
    fields.bytes(tag::ROWS_HAS_LABEL, &has_label);
    let (groups, has_group) = split(rows.groups);
    fields.packed(tag::ROWS_GROUPS, &groups);
    fields.bytes(tag::ROWS_HAS_GROUP, &has_group);
    fields.packed(tag::ROWS_STEPS, &rows.steps);
    fields.packed(tag::ROWS_WEIGHTS, &rows.weights);
    if rows.embeddings.is_empty() {
        return (fields, Vec::new());
    }
    let data = rows.embeddings.iter().map(Bytes::len).sum::<usize>();
    let mut matrix = Fields::default();
    matrix.varint(tag::MATRIX_DIM, dim as u64);
    match sent_dtype(encoding) {
        Some(dtype) => {
            matrix.varint(tag::MATRIX_DTYPE, i32::from(dtype).unsigned_abs().into());
            matrix.length(tag::MATRIX_DATA, data);
        }
        // The same bytes, little-endian, make readable numbers under another name.
        None => matrix.length(tag::MATRIX_VALUES, data),
    }
    fields.length(tag::ROWS_EMBEDDINGS, matrix.len() + data);
    fields.raw(matrix.as_slice());
    (fields, rows.embeddings)
}

/// Bytes of the rows without their embeddings, about: what has room for more than is there holds it until it is sent.
fn bytes_of_columns(rows: &ServedRows) -> usize {
    let ServedRows { ids, labels, groups, steps, weights, .. } = rows;
    8 * (ids.len() + steps.len()) + 9 * (labels.len() + groups.len()) + 4 * weights.len() + 128
}

/// Bytes of a draw's answer, about.
fn bytes_of_draw(answer: &DrawAnswer) -> usize {
    let DrawAnswer { indices, scores, log_q, log_q_mix, positive_log_q, log_partition, kappa, .. } = answer;
    let columns = [scores, log_q, log_q_mix, positive_log_q, log_partition, kappa].map(Vec::len);
    let shared = answer.shared.as_ref().map_or(0, |shared| shared.mask.len() + 4 * shared.log_q_shift.len());
    4 * (indices.len() + columns.iter().sum::<usize>()) + shared + 16 * answer.counts.len() + 1_024
}

fn draw(answer: DrawAnswer) -> Fields {
    let plan = match answer.plan {
        Plan::Roster => v1::Plan::Roster,
        Plan::PostingList => v1::Plan::PostingList,
        Plan::Enumeration => v1::Plan::Enumeration,
        Plan::Graph => v1::Plan::Graph,
        Plan::Scan => v1::Plan::Scan,
    };
    let small = v1::DrawAnswer {
        counts: answer.counts,
        n: answer.n,
        n_scored: answer.n_scored,
        n_band: answer.n_band,
        plan: plan.into(),
        shortfalls: reasons(&answer.shortfalls),
        rejections: reasons(&answer.rejections),
        with_replacement: answer.with_replacement,
        plan_reason: answer.plan_reason,
        candidates: answer.candidates,
        generation: answer.graph.map(|graph| graph.sequence),
        generation_lag: answer.graph.map_or(0, |graph| graph.lag),
        n_shared: answer.shared.as_ref().map_or(0, |shared| shared.n),
        ..v1::DrawAnswer::default()
    };
    let mut fields = Fields::with_capacity(answer.indices.len() * 12 + small.encoded_len() + 64);
    fields.raw(&small.encode_to_vec());
    fields.packed(tag::DRAW_INDICES, &answer.indices);
    fields.packed(tag::DRAW_SCORES, &answer.scores);
    fields.packed(tag::DRAW_LOG_Q, &answer.log_q);
    fields.packed(tag::DRAW_LOG_PARTITION, &answer.log_partition);
    fields.packed(tag::DRAW_KAPPA, &answer.kappa);
    fields.packed(tag::DRAW_LOG_Q_MIX, &answer.log_q_mix);
    fields.packed(tag::DRAW_POSITIVE_LOG_Q, &answer.positive_log_q);
    let SharedSet { mask, log_q_shift, .. } = answer.shared.unwrap_or_default();
    fields.bytes(tag::DRAW_MASK, &mask);
    fields.packed(tag::DRAW_LOG_Q_SHIFT, &log_q_shift);
    fields
}

fn reasons(counts: &ReasonCounts) -> Vec<v1::ReasonCount> {
    counts.iter().map(|(why, count)| v1::ReasonCount { reason: reason(why).into(), count }).collect()
}

fn reason(reason: Reason) -> v1::Reason {
    match reason {
        Reason::Itself => v1::Reason::Self_,
        Reason::Positive => v1::Reason::Positive,
        Reason::Denied => v1::Reason::Denied,
        Reason::SameGroup => v1::Reason::SameGroup,
        Reason::SameLabel => v1::Reason::SameLabel,
        Reason::Label => v1::Reason::Label,
        Reason::Score => v1::Reason::Score,
        Reason::TooFew => v1::Reason::TooFew,
        Reason::Window => v1::Reason::Window,
        Reason::Age => v1::Reason::Age,
        Reason::Weight => v1::Reason::Weight,
        Reason::Group => v1::Reason::Group,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

    use super::{DrawAnswer, Encoding, Plan, SampleAnswer, ServedRows, sampled, written};
    use crate::model::{GraphRead, Reason, Seed, SharedSet};
    use crate::proto::v1;

    fn answer() -> SampleAnswer {
        let mut draw = DrawAnswer::empty(Plan::Scan, true);
        (draw.counts, draw.indices) = (vec![2, 300], vec![0, 1, 1]);
        (draw.scores, draw.log_q, draw.log_q_mix) = (vec![0.5, -1.0, 2.0], vec![-0.1, -0.2, -0.3], vec![-1.0, -2.0, -3.0]);
        (draw.n, draw.n_scored, draw.n_band) = (vec![7, 8], vec![5, 600], vec![3, 4]);
        draw.positive_log_q = vec![-6.0, f32::NEG_INFINITY];
        (draw.log_partition, draw.kappa) = (vec![1.5, f32::NEG_INFINITY], vec![-4.0, 0.25]);
        draw.shared = Some(SharedSet { mask: vec![1, 0, 1], n: 9, log_q_shift: vec![0.5, 0.75] });
        draw.plan_reason = "a scan costs less".to_owned();
        draw.candidates = 4_096;
        draw.graph = Some(GraphRead { sequence: 3, lag: 10 });
        draw.shortfalls.add(Reason::TooFew, 3);
        draw.rejections.add(Reason::Score, 2);
        let pieces = [vec![0u8, 0, 128, 63, 0, 0, 0, 64], Vec::new(), vec![0, 0, 64, 64, 0, 0, 128, 64]];
        SampleAnswer {
            rows: ServedRows {
                len: 2,
                ids: vec![1, u64::MAX],
                embeddings: pieces.map(Bytes::from).into(),
                labels: vec![Some(-5), None],
                groups: vec![None, Some(6)],
                steps: vec![7, 8],
                weights: vec![1.0, 0.5],
            },
            draws: vec![DrawAnswer::empty(Plan::Roster, false), draw],
            seed: Seed(11),
            sequence_first: 12,
            sequence_last: 13,
            step: Some(14),
            reproducible: true,
        }
    }

    fn message() -> v1::SampleResponse {
        let count = |reason: v1::Reason, count| vec![v1::ReasonCount { reason: reason.into(), count }];
        let draw = v1::DrawAnswer {
            counts: vec![2, 300],
            indices: vec![0, 1, 1],
            scores: vec![0.5, -1.0, 2.0],
            log_q: vec![-0.1, -0.2, -0.3],
            n: vec![7, 8],
            plan: v1::Plan::Scan.into(),
            shortfalls: count(v1::Reason::TooFew, 3),
            rejections: count(v1::Reason::Score, 2),
            with_replacement: true,
            log_partition: vec![1.5, f32::NEG_INFINITY],
            kappa: vec![-4.0, 0.25],
            n_scored: vec![5, 600],
            log_q_mix: vec![-1.0, -2.0, -3.0],
            mask: vec![1, 0, 1].into(),
            n_shared: 9,
            plan_reason: "a scan costs less".to_owned(),
            generation: Some(3),
            generation_lag: 10,
            log_q_shift: vec![0.5, 0.75],
            n_band: vec![3, 4],
            positive_log_q: vec![-6.0, f32::NEG_INFINITY],
            candidates: 4_096,
        };
        let rows = v1::Rows {
            ids: vec![1, u64::MAX],
            embeddings: None,
            labels: vec![-5, 0],
            has_label: vec![1, 0].into(),
            groups: vec![0, 6],
            has_group: vec![0, 1].into(),
            steps: vec![7, 8],
            weights: vec![1.0, 0.5],
        };
        v1::SampleResponse {
            rows: Some(rows),
            draws: vec![v1::DrawAnswer { plan: v1::Plan::Roster.into(), ..Default::default() }, draw],
            seed: 11,
            sequence_first: 12,
            sequence_last: 13,
            step: Some(14),
            reproducible: true,
            write: Some(v1::WriteResponse { sequence: 13, ..Default::default() }),
        }
    }

    /// Every field of the message is set, so that a wrong tag can't hide.
    #[test]
    fn a_frame_is_the_message_that_prost_would_have_made() {
        let write = v1::WriteResponse { sequence: 13, ..Default::default() };
        let floats = [1.0f32, 2.0, 3.0, 4.0];
        let data: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
        let raw = v1::Matrix { data: data.into(), values: Vec::new(), dim: 2, dtype: v1::Dtype::F32.into() };
        let readable = v1::Matrix { values: floats.into(), dim: 2, ..Default::default() };
        for (encoding, matrix) in [(Encoding::F32, raw), (Encoding::Floats, readable)] {
            let frame = written(sampled(answer(), 2, encoding), &write);
            let mut expected = message();
            expected.rows.as_mut().unwrap().embeddings = Some(matrix);
            assert_eq!(v1::SampleResponse::decode(frame.message().as_slice()).unwrap(), expected);
        }
    }
}
