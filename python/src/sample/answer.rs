//! Answers to requests for negatives.

use std::collections::BTreeMap;

use negbank::proto::v1::{DrawAnswer, Plan, Reason, ReasonCount, SampleResponse};
use pyo3::prelude::*;

use crate::column::Column;
use crate::rows::RowColumns;

/// A whole answer, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct Sampled {
    rows: RowColumns,
    draws: Vec<DrawColumns>,
    seed: u64,
    sequence_first: u64,
    sequence_last: u64,
    step: Option<u64>,
    reproducible: bool,
}

/// One draw's answer, as a dict: flat columns, the picks of one anchor after the other's; empty where there is none.
#[derive(IntoPyObject)]
struct DrawColumns {
    counts: Column<u32>,
    indices: Column<i64>,
    scores: Column<f32>,
    log_q: Column<f32>,
    n: Column<u32>,
    log_partition: Column<f32>,
    kappa: Column<f32>,
    plan: String,
    shortfalls: BTreeMap<String, u64>,
    rejections: BTreeMap<String, u64>,
}

impl From<SampleResponse> for Sampled {
    fn from(answer: SampleResponse) -> Self {
        Self {
            rows: answer.rows.unwrap_or_default().into(),
            draws: answer.draws.into_iter().map(DrawColumns::from).collect(),
            seed: answer.seed,
            sequence_first: answer.sequence_first,
            sequence_last: answer.sequence_last,
            step: answer.step,
            reproducible: answer.reproducible,
        }
    }
}

impl From<DrawAnswer> for DrawColumns {
    fn from(draw: DrawAnswer) -> Self {
        Self {
            plan: Plan::try_from(draw.plan).map_or_else(|_| "unknown".to_owned(), |plan| plain(plan.as_str_name(), "PLAN_")),
            counts: draw.counts.into(),
            indices: draw.indices.into_iter().map(i64::from).collect::<Vec<_>>().into(),
            scores: draw.scores.into(),
            log_q: draw.log_q.into(),
            n: draw.n.into(),
            log_partition: draw.log_partition.into(),
            kappa: draw.kappa.into(),
            shortfalls: by_reason(&draw.shortfalls),
            rejections: by_reason(&draw.rejections),
        }
    }
}

/// Counts by the reason's plain name; those of reasons that a newer server knows add up under `unknown`.
fn by_reason(counts: &[ReasonCount]) -> BTreeMap<String, u64> {
    let mut by_reason = BTreeMap::new();
    for count in counts {
        let reason = Reason::try_from(count.reason);
        let name = reason.map_or_else(|_| "unknown".to_owned(), |reason| plain(reason.as_str_name(), "REASON_"));
        *by_reason.entry(name).or_default() += count.count;
    }
    by_reason
}

/// `same_group` for `REASON_SAME_GROUP`.
fn plain(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}
