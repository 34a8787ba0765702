//! A bank, laid out for programs.

use serde_json::{Value, json};

use super::super::choices::{dtype, durability, kind, metric};
use crate::client::messages as v1;

/// All that the message has, under its names; what is not set is null.
pub(super) fn bank(bank: &v1::Bank) -> Value {
    json!({
        "name": bank.name,
        "kind": kind(bank.kind()),
        "dim": bank.dim,
        "metric": metric(bank.metric()),
        "dtype": dtype(bank.dtype()),
        "durability": durability(bank.durability()),
        "momentum": shortest(bank.momentum),
        "capacity": bank.capacity,
        "shards": bank.shards,
        "entries": bank.entries,
        "labels": bank.labels,
        "groups": bank.groups,
        "sequence": bank.sequence,
        "step": bank.step,
        "writers": bank.writers,
        "bytes_per_entry": bank.bytes_per_entry,
        "peak_bytes_per_entry": bank.peak_bytes_per_entry,
        "peak_bytes": bank.peak_bytes,
        "index": bank.index.as_ref().map(index),
        "stages": bank.stages.iter().map(stage).collect::<Value>(),
        "damage": bank.damage,
        "lost_after": bank.lost_after,
        "recovering": bank.recovering.map(shortest),
    })
}

fn index(index: &v1::Index) -> Value {
    let state = match index.state() {
        v1::IndexState::Scan => "scan",
        v1::IndexState::Building => "building",
        v1::IndexState::Serving => "serving",
        v1::IndexState::Unspecified => "unknown",
    };
    json!({
        "state": state,
        "reason": index.reason,
        "generation": index.generation,
        "lag": index.lag,
        "indexed": index.indexed,
        "scanned": index.scanned,
        "mean_similarity": index.mean_similarity,
        "unreachable": index.unreachable,
        "progress": shortest(index.progress),
        "recall": index.recall.map(shortest),
        "recall_samples": index.recall_samples,
    })
}

fn stage(stage: &v1::OpenStage) -> Value {
    json!({
        "step": stage.step,
        "micro_batch": stage.micro_batch,
        "world_size": stage.world_size,
        "missing_ranks": stage.missing_ranks,
    })
}

/// The shortest number that is this f32: 0.9, which an f64 has as 0.8999999761581421.
fn shortest(float: f32) -> Value {
    float.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
