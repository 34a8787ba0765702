//! Answers.

use super::columns::{dtype, encoded, split};
use crate::engine::Fetched;
use crate::grpc::frame::RawMatrix;
use crate::model::{DrawAnswer, Encoding, Plan, Reason, ReasonCounts, SampleAnswer, ServedRows};
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

/// The answer to a request for negatives: all but the rows, the rows without embeddings, and these as bytes, unless they are wanted
/// readable.
pub(in crate::grpc) fn sampled(
    answer: SampleAnswer,
    dim: usize,
    encoding: Encoding,
) -> (v1::SampleResponse, v1::Rows, Option<RawMatrix>) {
    let response = v1::SampleResponse {
        rows: None,
        draws: answer.draws.into_iter().map(draw).collect(),
        seed: answer.seed.0,
        sequence_first: answer.sequence_first,
        sequence_last: answer.sequence_last,
        step: answer.step,
        reproducible: answer.reproducible,
        write: None,
    };
    let ServedRows { ids, embeddings, labels, groups, steps, weights, .. } = answer.rows;
    let (labels, has_label) = split(labels);
    let (groups, has_group) = split(groups);
    let mut rows = v1::Rows { ids, embeddings: None, labels, has_label, groups, has_group, steps, weights };
    if embeddings.is_empty() {
        return (response, rows, None);
    }
    let Some(dtype) = dtype(encoding) else {
        rows.embeddings = Some(encoded(embeddings.concat(), dim, encoding));
        return (response, rows, None);
    };
    (response, rows, Some(RawMatrix { dim, dtype, pieces: embeddings }))
}

fn draw(answer: DrawAnswer) -> v1::DrawAnswer {
    let plan = match answer.plan {
        Plan::Roster => v1::Plan::Roster,
        Plan::PostingList => v1::Plan::PostingList,
        Plan::Enumeration => v1::Plan::Enumeration,
        Plan::Scan => v1::Plan::Scan,
    };
    v1::DrawAnswer {
        counts: answer.counts,
        indices: answer.indices,
        scores: answer.scores,
        log_q: answer.log_q,
        n: answer.n,
        plan: plan.into(),
        shortfalls: reasons(&answer.shortfalls),
        rejections: reasons(&answer.rejections),
        with_replacement: answer.with_replacement,
        log_partition: answer.log_partition,
        kappa: answer.kappa,
        n_scored: answer.n_scored,
        log_q_mix: answer.log_q_mix,
        n_shared: answer.shared.as_ref().map_or(0, |shared| shared.n),
        mask: answer.shared.map(|shared| shared.mask).unwrap_or_default().into(),
    }
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
    }
}
