//! What a rank brings to a gather.

use std::time::Duration;

use prost::bytes::Bytes;

use super::Limits;
use super::columns::{dtype, optional, rows_of};
use super::limits::check;
use crate::engine::{Contribution, GatherId, Part, Seat};
use crate::model::{Dtype, Invalid};
use crate::proto::v1;

/// A rank's rows, as they are.
pub(in crate::grpc) fn contribution(request: v1::GatherRequest, limits: &Limits) -> Result<Contribution, Invalid> {
    let mut invalid = Invalid::default();
    check("world_size", request.world_size as usize, limits.max_ranks, "max_ranks", &mut invalid);
    let embeddings = request.embeddings.unwrap_or_default();
    check("embeddings.dim", embeddings.dim as usize, limits.max_dim, "max_dim", &mut invalid);
    let rows = rows_of(&embeddings, embeddings.dim.max(1) as usize).max(request.ids.len());
    check("embeddings", rows, limits.max_write_rows, "max_write_rows", &mut invalid);
    let id = GatherId::new(&request.group, request.step, request.micro_batch).map_err(|fault| invalid.merge(fault)).ok();
    let seat = Seat::new(request.rank, request.world_size).map_err(|fault| invalid.merge(fault)).ok();
    let labels = optional("labels", request.labels, "has_label", &request.has_label);
    let labels = labels.map_err(|fault| invalid.merge(fault)).ok().flatten();
    let groups = optional("groups", request.groups, "has_group", &request.has_group);
    let groups = groups.map_err(|fault| invalid.merge(fault)).ok().flatten();
    let part = floats(embeddings).and_then(|floats| Part::new(floats, request.ids, labels, groups));
    let part = part.map_err(|fault| invalid.merge(fault)).ok();
    let wait = (request.wait_ms > 0).then(|| Duration::from_millis(request.wait_ms.into()));
    match (id, seat, part) {
        (Some(id), Some(seat), Some(part)) => invalid.or(Contribution { id, seat, part, held: 0, wait }),
        _ => Err(invalid),
    }
}

/// Floats in a row, how they are written, and their bytes; readable ones become f32.
fn floats(message: v1::Matrix) -> Result<(usize, Dtype, Bytes), Invalid> {
    let dim = message.dim as usize;
    match (message.data.is_empty(), message.values.is_empty()) {
        (false, false) => Err(Invalid::one("embeddings", "fill data or values, not both")),
        (true, false) => Ok((dim, Dtype::F32, message.values.iter().flat_map(|x| x.to_le_bytes()).collect())),
        _ => Ok((dim, dtype("embeddings.dtype", message.dtype)?, message.data)),
    }
}
