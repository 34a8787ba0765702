//! Banks: their settings on the way out, their description on the way back.

use negbank::client::ClientError;
use negbank::proto::v1::{Bank, BankKind, CreateBankRequest, Dtype, Durability, Index, IndexState, Metric, OpenStage};
use pyo3::prelude::*;

use crate::failure::invalid;
use crate::floats::dtype;

/// `negbank.requests.BankSettings`.
#[derive(FromPyObject)]
pub(crate) struct BankSettings {
    name: String,
    dim: u32,
    kind: String,
    metric: String,
    momentum: Option<f32>,
    capacity: Option<u64>,
    shards: Option<u32>,
    dtype: String,
    durability: Option<String>,
}

impl BankSettings {
    /// The message that asks for such a bank.
    pub(crate) fn into_message(self) -> Result<CreateBankRequest, ClientError> {
        let kind = match self.kind.as_str() {
            "keyed" => BankKind::Keyed,
            "queue" => BankKind::Queue,
            other => return Err(invalid("kind", format!("{other:?} is none: give \"keyed\" or \"queue\""))),
        };
        let metric = match self.metric.as_str() {
            "cosine" => Metric::Cosine,
            "dot" => Metric::Dot,
            "l2" => Metric::L2,
            other => return Err(invalid("metric", format!("{other:?} is none: give \"cosine\", \"dot\" or \"l2\""))),
        };
        Ok(CreateBankRequest {
            name: self.name,
            dim: self.dim,
            kind: kind.into(),
            metric: metric.into(),
            momentum: self.momentum,
            capacity: self.capacity.unwrap_or_default(),
            shards: self.shards.unwrap_or_default(),
            dtype: dtype(&self.dtype)?.into(),
            durability: durability(self.durability.as_deref())?.into(),
        })
    }
}

/// A durability by its name; none: the server's own policy.
pub(crate) fn durability(name: Option<&str>) -> Result<Durability, ClientError> {
    match name {
        None => Ok(Durability::Unspecified),
        Some("memory") => Ok(Durability::Memory),
        Some("interval") => Ok(Durability::Interval),
        Some("always") => Ok(Durability::Always),
        Some(other) => Err(invalid("durability", format!("{other:?} is none: give \"memory\", \"interval\" or \"always\""))),
    }
}

pub(crate) fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Unspecified | Metric::Cosine => "cosine",
        Metric::Dot => "dot",
        Metric::L2 => "l2",
    }
}

pub(crate) fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Unspecified | Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
    }
}

/// The fields of `negbank.BankInfo`, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct BankDescription {
    name: String,
    kind: &'static str,
    metric: &'static str,
    dim: u32,
    capacity: Option<u64>,
    momentum: Option<f64>,
    shards: u32,
    entries: u64,
    sequence: u64,
    step: Option<u64>,
    labels: u64,
    groups: u64,
    bytes_per_entry: u64,
    peak_bytes_per_entry: u64,
    peak_bytes: Option<u64>,
    dtype: &'static str,
    writers: u64,
    stages: Vec<StageDescription>,
    durability: &'static str,
    damage: Option<String>,
    lost_after: Option<u64>,
    recovering: Option<f64>,
    index: Option<IndexDescription>,
}

/// The fields of `negbank.IndexInfo`, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct IndexDescription {
    state: &'static str,
    reason: String,
    generation: Option<u64>,
    lag: u64,
    indexed: u64,
    scanned: u64,
    mean_similarity: f64,
    unreachable: u64,
    progress: f64,
    recall: Option<f64>,
    recall_samples: u64,
}

/// The fields of `negbank.OpenStage`, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct StageDescription {
    step: u64,
    micro_batch: u32,
    world_size: u32,
    missing_ranks: Vec<u32>,
}

impl From<Bank> for BankDescription {
    fn from(bank: Bank) -> Self {
        let queue = bank.kind() == BankKind::Queue;
        Self {
            kind: if queue { "queue" } else { "keyed" },
            metric: metric_name(bank.metric()),
            dim: bank.dim,
            capacity: (bank.capacity > 0).then_some(bank.capacity),
            momentum: if queue { None } else { Some(as_written(bank.momentum)) },
            shards: bank.shards,
            entries: bank.entries,
            sequence: bank.sequence,
            step: bank.step,
            labels: bank.labels,
            groups: bank.groups,
            bytes_per_entry: bank.bytes_per_entry,
            peak_bytes_per_entry: bank.peak_bytes_per_entry,
            peak_bytes: (bank.peak_bytes > 0).then_some(bank.peak_bytes),
            dtype: dtype_name(bank.dtype()),
            durability: match bank.durability() {
                Durability::Unspecified | Durability::Memory => "memory",
                Durability::Interval => "interval",
                Durability::Always => "always",
            },
            damage: bank.damage,
            lost_after: bank.lost_after,
            recovering: bank.recovering.map(as_written),
            writers: bank.writers,
            stages: bank.stages.into_iter().map(StageDescription::from).collect(),
            index: bank.index.map(IndexDescription::from),
            name: bank.name,
        }
    }
}

impl From<Index> for IndexDescription {
    fn from(index: Index) -> Self {
        Self {
            state: match index.state() {
                IndexState::Unspecified | IndexState::Scan => "scan",
                IndexState::Building => "building",
                IndexState::Serving => "serving",
            },
            reason: index.reason,
            generation: index.generation,
            lag: index.lag,
            indexed: index.indexed,
            scanned: index.scanned,
            mean_similarity: index.mean_similarity,
            unreachable: index.unreachable,
            progress: as_written(index.progress),
            recall: index.recall.map(as_written),
            recall_samples: index.recall_samples,
        }
    }
}

impl From<OpenStage> for StageDescription {
    fn from(stage: OpenStage) -> Self {
        let OpenStage { step, micro_batch, world_size, missing_ranks } = stage;
        Self { step, micro_batch, world_size, missing_ranks }
    }
}

/// 0.9 for the f32 nearest to it, not 0.8999999761581421: the shortest decimal that means the same setting.
fn as_written(setting: f32) -> f64 {
    setting.to_string().parse().unwrap_or_else(|_| f64::from(setting))
}
