//! Answers to requests for negatives.

use std::collections::BTreeMap;

use negbank::client::{DrawColumns, SampleColumns};
use negbank::proto::v1::{Plan, Reason, ReasonCount};
use pyo3::prelude::*;

use crate::column::{Column, Packed};
use crate::rows::RowArrays;
use crate::write::Written;

/// A whole answer, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct Sampled {
    rows: RowArrays,
    draws: Vec<DrawArrays>,
    seed: u64,
    sequence_first: u64,
    sequence_last: u64,
    step: Option<u64>,
    reproducible: bool,
    write: Option<Written>,
}

/// One draw's answer, as a dict: flat columns, the picks of one anchor after the other's; empty where there is none.
#[derive(IntoPyObject)]
struct DrawArrays {
    counts: Column<u32>,
    indices: Column<i64>,
    scores: Packed,
    log_q: Packed,
    log_q_mix: Packed,
    log_q_shift: Packed,
    positive_log_q: Packed,
    n: Column<u32>,
    n_scored: Column<u32>,
    n_band: Column<u32>,
    n_shared: u32,
    mask: Column<bool>,
    log_partition: Packed,
    kappa: Packed,
    plan: String,
    plan_reason: String,
    generation: Option<u64>,
    generation_lag: u64,
    candidates: u32,
    shortfalls: BTreeMap<String, u64>,
    rejections: BTreeMap<String, u64>,
}

impl From<SampleColumns> for Sampled {
    fn from(answer: SampleColumns) -> Self {
        Self {
            rows: answer.rows.into(),
            draws: answer.draws.into_iter().map(DrawArrays::from).collect(),
            seed: answer.seed,
            sequence_first: answer.sequence_first,
            sequence_last: answer.sequence_last,
            step: answer.step,
            reproducible: answer.reproducible,
            write: answer.write.map(Written::from),
        }
    }
}

impl From<DrawColumns> for DrawArrays {
    fn from(draw: DrawColumns) -> Self {
        Self {
            plan: Plan::try_from(draw.plan).map_or_else(|_| "unknown".to_owned(), |plan| plain(plan.as_str_name(), "PLAN_")),
            plan_reason: draw.plan_reason,
            generation: draw.generation,
            generation_lag: draw.generation_lag,
            candidates: draw.candidates,
            counts: draw.counts.into(),
            indices: Column::rows(&draw.indices),
            scores: Packed::f32(draw.scores),
            log_q: Packed::f32(draw.log_q),
            log_q_mix: Packed::f32(draw.log_q_mix),
            log_q_shift: Packed::f32(draw.log_q_shift),
            positive_log_q: Packed::f32(draw.positive_log_q),
            n: draw.n.into(),
            n_scored: draw.n_scored.into(),
            n_band: draw.n_band.into(),
            n_shared: draw.n_shared,
            mask: Column::mask(&draw.mask),
            log_partition: Packed::f32(draw.log_partition),
            kappa: Packed::f32(draw.kappa),
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
