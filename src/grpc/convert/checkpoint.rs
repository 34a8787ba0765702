//! Checkpoints: requests in, what they are and how far they have come out.

use super::bank;
use crate::engine::{NewCheckpoint, Phase, Restore, Stand};
use crate::model::{BankName, Checkpoint, Invalid, Tag};
use crate::proto::v1;

/// A checkpoint to make.
pub(in crate::grpc) fn new_checkpoint(request: &v1::CreateCheckpointRequest) -> Result<NewCheckpoint, Invalid> {
    let keep = (request.keep > 0).then_some(request.keep as usize);
    Ok(NewCheckpoint { tag: Tag::parse("tag", &request.tag)?, replace: request.replace, keep })
}

/// A bank to bring back.
pub(in crate::grpc) fn restore(request: &v1::RestoreCheckpointRequest) -> Result<Restore, Invalid> {
    let mut invalid = Invalid::default();
    let bank = BankName::parse("bank", &request.bank).map_err(|fault| invalid.merge(fault)).ok();
    let tag = (!request.tag.is_empty()).then(|| Tag::parse("tag", &request.tag)).transpose();
    let tag = tag.map_err(|fault| invalid.merge(fault)).ok().flatten();
    let into = (!request.into.is_empty()).then(|| BankName::parse("into", &request.into)).transpose();
    let into = into.map_err(|fault| invalid.merge(fault)).ok().flatten();
    let durability = bank::durability(request.durability).map_err(|fault| invalid.merge(fault)).ok().flatten();
    match bank {
        Some(bank) => invalid.or(Restore { into: into.unwrap_or_else(|| bank.clone()), bank, tag, durability }),
        None => Err(invalid),
    }
}

/// The bank that a list is of; `None`: all.
pub(in crate::grpc) fn listed_bank(request: &v1::ListCheckpointsRequest) -> Result<Option<BankName>, Invalid> {
    (!request.bank.is_empty()).then(|| BankName::parse("bank", &request.bank)).transpose()
}

/// The checkpoint to delete.
pub(in crate::grpc) fn doomed(request: &v1::DeleteCheckpointRequest) -> Result<(BankName, Tag), Invalid> {
    Ok((BankName::parse("bank", &request.bank)?, Tag::parse("tag", &request.tag)?))
}

/// A checkpoint's description.
pub(in crate::grpc) fn checkpoint(made: &Checkpoint) -> v1::Checkpoint {
    let (kind, _, _) = bank::kind_of(&made.spec);
    v1::Checkpoint {
        bank: made.bank.to_string(),
        tag: made.tag.to_string(),
        sequence: made.sequence,
        step: made.step,
        entries: made.entries,
        bytes: made.bytes,
        created_unix_ms: made.created,
        state_hash: format!("{:032x}", made.state_hash),
        content_hash: format!("{:032x}", made.content_hash),
        dim: made.spec.dim() as u32,
        kind: kind.into(),
        metric: bank::metric_of(&made.spec).into(),
        dtype: bank::dtype_of(&made.spec).into(),
    }
}

/// How far a call has come.
pub(in crate::grpc) fn progress(stand: Stand) -> v1::CheckpointProgress {
    let phase = match stand.phase {
        Phase::Waiting => v1::CheckpointPhase::Waiting,
        Phase::Copying => v1::CheckpointPhase::Copying,
        Phase::Uploading => v1::CheckpointPhase::Uploading,
        Phase::Reading => v1::CheckpointPhase::Reading,
    };
    let (done_bytes, total_bytes) = (stand.done, stand.total);
    v1::CheckpointProgress { phase: phase.into(), done_bytes, total_bytes, ..v1::CheckpointProgress::default() }
}
