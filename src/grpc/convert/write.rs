//! Writes, removals and fetches.

use super::Limits;
use super::columns::{matrix, optional, rows_of};
use super::limits::check;
use crate::model::{BankKind, BankSpec, Encoding, Ids, Invalid, Origin, Position, Stage, StageAt, WriteBatch};
use crate::proto::v1;

/// The batch of a write, for a bank of these settings, and its place in a stage if it has one.
pub(in crate::grpc) fn batch(
    request: v1::WriteRequest,
    spec: &BankSpec,
    limits: &Limits,
) -> Result<(WriteBatch, Option<Stage>), Invalid> {
    let mut invalid = Invalid::default();
    let message = request.embeddings.unwrap_or_default();
    let rows = rows_of(&message, spec.dim());
    check("embeddings", rows.max(request.ids.len()), limits.max_write_rows, "max_write_rows", &mut invalid);
    invalid.or(())?;

    let mut invalid = Invalid::default();
    let embeddings = matrix("embeddings", spec.dim(), spec.metric(), message).map_err(|fault| invalid.merge(fault)).ok();
    let labels = optional("labels", request.labels, "has_label", &request.has_label);
    let labels = labels.map_err(|fault| invalid.merge(fault)).ok().flatten();
    let groups = optional("groups", request.groups, "has_group", &request.has_group);
    let groups = groups.map_err(|fault| invalid.merge(fault)).ok().flatten();
    let origin = request.origin.map(|origin| Origin::new(&origin.writer, origin.incarnation, origin.number)).transpose();
    let origin = origin.map_err(|fault| invalid.merge(fault)).ok().flatten();
    let stage = request.stage.and_then(|stage| self::stage(&stage, limits).map_err(|fault| invalid.merge(fault)).ok());
    let ids = match spec.kind() {
        BankKind::Queue { .. } if request.ids.is_empty() => Ids::Assigned,
        _ => Ids::Given(request.ids),
    };
    let Some(embeddings) = embeddings else { return Err(invalid) };
    invalid.or(())?;
    let step = request.step.or(stage.map(|stage| stage.at.step));
    let mut batch = WriteBatch::new(spec, ids, embeddings, labels, groups, step, request.momentum)?;
    if !request.weights.is_empty() {
        batch = batch.with_weights(request.weights)?;
    }
    Ok((batch.with_origin(origin), stage))
}

fn stage(message: &v1::Stage, limits: &Limits) -> Result<Stage, Invalid> {
    let mut invalid = Invalid::default();
    check("stage.world_size", message.world_size as usize, limits.max_ranks, "max_ranks", &mut invalid);
    let at = StageAt { step: message.step, micro_batch: message.micro_batch };
    let stage = Stage::new(at, message.rank, message.world_size).map_err(|fault| invalid.merge(fault)).ok();
    match stage {
        Some(stage) => invalid.or(stage),
        None => Err(invalid),
    }
}

/// The ids of a removal.
pub(in crate::grpc) fn remove_ids(request: v1::RemoveRequest, limits: &Limits) -> Result<Vec<u64>, Invalid> {
    some_ids(request.ids, limits.max_write_rows, "max_write_rows")
}

/// The ids of a fetch, and how its embeddings are wanted.
pub(in crate::grpc) fn fetch_ids(
    request: v1::FetchRequest,
    spec: &BankSpec,
    limits: &Limits,
) -> Result<(Vec<u64>, Encoding), Invalid> {
    let encoding = encoding(request.encoding)?;
    let ids = some_ids(request.ids, limits.max_fetch_rows, "max_fetch_rows")?;
    let answer = ids.len().saturating_mul(spec.dim() * encoding.bytes() + BYTES_OF_COLUMNS);
    if answer > limits.max_answer_bytes {
        let reason = format!(
            "the answer could take {answer} bytes, over the limit of {} (setting limits.max_answer_bytes): ask for fewer ids \
             at a time",
            limits.max_answer_bytes
        );
        return Err(Invalid::one("ids", reason));
    }
    Ok((ids, encoding))
}

/// Found, id, label, group, step and weight of one fetched entry.
pub(super) const BYTES_OF_COLUMNS: usize = 1 + 8 + 9 + 9 + 8 + 4;

/// How many of the stalest entries are asked for.
pub(in crate::grpc) fn stalest_k(request: &v1::StalestRequest, limits: &Limits) -> Result<usize, Invalid> {
    let mut invalid = Invalid::default();
    if request.k == 0 {
        invalid.push("k", "must be at least 1");
    }
    check("k", request.k as usize, limits.max_fetch_rows, "max_fetch_rows", &mut invalid);
    invalid.or(request.k as usize)
}

/// The position that a read asks for, if it asks for one.
pub(in crate::grpc) fn position(token: &[u8]) -> Result<Option<Position>, Invalid> {
    (!token.is_empty()).then(|| Position::parse("at_least", token)).transpose()
}

/// How embeddings are wanted.
pub(super) fn encoding(value: i32) -> Result<Encoding, Invalid> {
    match v1::EmbeddingEncoding::try_from(value) {
        Ok(v1::EmbeddingEncoding::F32 | v1::EmbeddingEncoding::Unspecified) => Ok(Encoding::F32),
        Ok(v1::EmbeddingEncoding::Floats) => Ok(Encoding::Floats),
        Ok(v1::EmbeddingEncoding::F16) => Ok(Encoding::F16),
        Ok(v1::EmbeddingEncoding::Bf16) => Ok(Encoding::Bf16),
        Err(_) => {
            let reason = format!("{value} is not an EmbeddingEncoding: 1 is F32, 2 is FLOATS, 3 is F16, 4 is BF16");
            Err(Invalid::one("encoding", reason))
        }
    }
}

fn some_ids(ids: Vec<u64>, limit: usize, setting: &str) -> Result<Vec<u64>, Invalid> {
    let mut invalid = Invalid::default();
    if ids.is_empty() {
        invalid.push("ids", "there are none: at least one is required");
    }
    check("ids", ids.len(), limit, setting, &mut invalid);
    invalid.or(ids)
}
