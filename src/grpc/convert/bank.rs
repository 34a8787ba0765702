//! Banks: settings in, descriptions out.

use super::Limits;
use super::columns::dtype;
use super::limits::check;
use crate::engine::{BankInfo, IndexInfo, OpenStage};
use crate::model::{BankKind, BankName, BankSpec, Dtype, Durability, Half, Invalid, Metric};
use crate::proto::v1;

/// Name and settings of a bank to create.
pub(in crate::grpc) fn spec(request: &v1::CreateBankRequest, limits: &Limits) -> Result<(BankName, BankSpec), Invalid> {
    let mut invalid = Invalid::default();
    let name = BankName::parse("name", &request.name).map_err(|fault| invalid.merge(fault)).ok();
    check("dim", request.dim as usize, limits.max_dim, "max_dim", &mut invalid);
    let kind = kind(request, limits, &mut invalid);
    let metric = metric(request.metric, &mut invalid);
    let shards = if request.shards == 0 { BankSpec::DEFAULT_SHARDS } else { request.shards };
    let dtype = dtype("dtype", request.dtype).map_err(|fault| invalid.merge(fault)).unwrap_or_default();
    let spec = BankSpec::new(request.dim, metric, kind, shards).and_then(|spec| spec.with_dtype(dtype));
    let spec = spec.map_err(|faults| invalid.merge(faults)).ok();
    match (name, spec) {
        (Some(name), Some(spec)) => invalid.or((name, spec)),
        _ => Err(invalid),
    }
}

/// When the writes of a bank to create reach the disk, if the request says.
pub(in crate::grpc) fn durability(asked: i32) -> Result<Option<Durability>, Invalid> {
    match v1::Durability::try_from(asked) {
        Ok(v1::Durability::Unspecified) => Ok(None),
        Ok(v1::Durability::Memory) => Ok(Some(Durability::Memory)),
        Ok(v1::Durability::Interval) => Ok(Some(Durability::Interval)),
        Ok(v1::Durability::Always) => Ok(Some(Durability::Always)),
        Err(_) => {
            let reason = format!("{asked} is not a Durability: 1 is memory, 2 is interval, 3 is always");
            Err(Invalid::one("durability", reason))
        }
    }
}

/// Kind, momentum and capacity; 0: there is none.
pub(super) fn kind_of(spec: &BankSpec) -> (v1::BankKind, f32, u64) {
    match spec.kind() {
        BankKind::Keyed { momentum, capacity } => (v1::BankKind::Keyed, momentum, capacity.unwrap_or(0)),
        BankKind::Queue { capacity } => (v1::BankKind::Queue, 0.0, capacity),
    }
}

pub(super) fn metric_of(spec: &BankSpec) -> v1::Metric {
    match spec.metric() {
        Metric::Cosine => v1::Metric::Cosine,
        Metric::Dot => v1::Metric::Dot,
        Metric::L2 => v1::Metric::L2,
    }
}

pub(super) fn dtype_of(spec: &BankSpec) -> v1::Dtype {
    match spec.dtype() {
        Dtype::F32 => v1::Dtype::F32,
        Dtype::Half(Half::F16) => v1::Dtype::F16,
        Dtype::Half(Half::Bf16) => v1::Dtype::Bf16,
    }
}

/// A bank's description.
pub(in crate::grpc) fn described(info: &BankInfo) -> v1::Bank {
    let (kind, momentum, capacity) = kind_of(&info.spec);
    let (metric, dtype) = (metric_of(&info.spec), dtype_of(&info.spec));
    let durability = match info.durability {
        Durability::Memory => v1::Durability::Memory,
        Durability::Interval => v1::Durability::Interval,
        Durability::Always => v1::Durability::Always,
    };
    v1::Bank {
        name: info.name.to_string(),
        dim: info.spec.dim() as u32,
        kind: kind.into(),
        metric: metric.into(),
        momentum,
        capacity,
        shards: info.spec.shards() as u32,
        entries: info.entries as u64,
        sequence: info.sequence,
        step: info.step,
        labels: info.labels as u64,
        groups: info.groups as u64,
        bytes_per_entry: info.bytes_per_entry as u64,
        peak_bytes_per_entry: info.peak_bytes_per_entry as u64,
        peak_bytes: capacity.saturating_mul(info.peak_bytes_per_entry as u64),
        dtype: dtype.into(),
        writers: info.writers as u64,
        stages: info.stages.iter().map(open_stage).collect(),
        durability: durability.into(),
        damage: info.damage.clone(),
        lost_after: info.lost_after,
        recovering: info.recovering.map(|share| share as f32),
        index: info.index.as_ref().map(|index| self::index(index, info.sequence)),
    }
}

fn index(info: &IndexInfo, sequence: u64) -> v1::Index {
    let state = match (info.building, info.standing) {
        (Some(_), _) => v1::IndexState::Building,
        (None, Some(_)) => v1::IndexState::Serving,
        (None, None) => v1::IndexState::Scan,
    };
    let standing = info.standing;
    v1::Index {
        state: state.into(),
        reason: info.reason.clone(),
        generation: standing.map(|standing| standing.taken.sequence),
        lag: standing.map_or(0, |standing| sequence.saturating_sub(standing.taken.sequence)),
        indexed: standing.map_or(0, |standing| standing.indexed as u64),
        scanned: standing.map_or(0, |standing| standing.scanned as u64),
        mean_similarity: standing.map_or(0.0, |standing| standing.mean_similarity),
        unreachable: standing.map_or(0, |standing| standing.unreachable as u64),
        progress: info.building.map_or(0.0, |done| done as f32),
        recall: info.recall.map(|(mean, _)| mean as f32),
        recall_samples: info.recall.map_or(0, |(_, samples)| samples),
    }
}

fn open_stage(stage: &OpenStage) -> v1::OpenStage {
    v1::OpenStage {
        step: stage.at.step,
        micro_batch: stage.at.micro_batch,
        world_size: stage.world_size,
        missing_ranks: stage.missing.clone(),
    }
}

fn kind(request: &v1::CreateBankRequest, limits: &Limits, invalid: &mut Invalid) -> BankKind {
    let queue = match v1::BankKind::try_from(request.kind) {
        Ok(v1::BankKind::Queue) => true,
        Ok(v1::BankKind::Keyed | v1::BankKind::Unspecified) => false,
        Err(_) => {
            invalid.push("kind", format!("{} is not a BankKind: 1 is keyed, 2 is queue", request.kind));
            false
        }
    };
    let capacity = usize::try_from(request.capacity).unwrap_or(usize::MAX);
    check("capacity", capacity, limits.max_entries, "max_entries", invalid);
    if queue {
        if request.momentum.is_some() {
            invalid.push("momentum", "a queue bank never moves its entries: leave momentum unset");
        }
        return BankKind::Queue { capacity: request.capacity };
    }
    let capacity = (request.capacity != 0).then_some(request.capacity);
    BankKind::Keyed { momentum: request.momentum.unwrap_or(BankSpec::DEFAULT_MOMENTUM), capacity }
}

fn metric(value: i32, invalid: &mut Invalid) -> Metric {
    match v1::Metric::try_from(value) {
        Ok(v1::Metric::Cosine | v1::Metric::Unspecified) => Metric::Cosine,
        Ok(v1::Metric::Dot) => Metric::Dot,
        Ok(v1::Metric::L2) => Metric::L2,
        Err(_) => {
            invalid.push("metric", format!("{value} is not a Metric: 1 is cosine, 2 is dot, 3 is l2"));
            Metric::Cosine
        }
    }
}
