//! Scans.

use super::Limits;
use super::columns::encoded;
use super::fetched::rows;
use super::limits::check;
use super::write::{BYTES_OF_COLUMNS, encoding};
use crate::engine::{ScanPart, ScanQuery};
use crate::model::{BankSpec, Encoding, Invalid, Position};
use crate::proto::v1;

/// Bytes of a chunk where the caller does not size it.
const CHUNK_BYTES: usize = 1 << 20;

/// What a scan of a bank of these settings is to read.
pub(in crate::grpc) fn scan(request: &v1::ScanRequest, spec: &BankSpec, limits: &Limits) -> Result<ScanQuery, Invalid> {
    let mut invalid = Invalid::default();
    let encoding = encoding(request.encoding).map_err(|fault| invalid.merge(fault)).unwrap_or_default();
    let encoding = (!request.without_embeddings).then_some(encoding);
    let since = match &request.since[..] {
        [] => None,
        token => Position::parse("since", token).map_err(|fault| invalid.merge(fault)).ok(),
    };
    let row = bytes_of_row(spec, encoding);
    let rows = match request.chunk_rows as usize {
        0 => (CHUNK_BYTES.min(limits.max_answer_bytes) / row).max(1),
        rows => rows,
    };
    check("chunk_rows", rows, limits.max_fetch_rows, "max_fetch_rows", &mut invalid);
    let bytes = rows.saturating_mul(row);
    if bytes > limits.max_answer_bytes {
        let reason = format!(
            "a chunk of {rows} rows could take {bytes} bytes, over the limit of {} (setting limits.max_answer_bytes): ask for \
             fewer rows, encoding F16 or BF16, or without_embeddings",
            limits.max_answer_bytes
        );
        invalid.push("chunk_rows", reason);
    }
    invalid.or(ScanQuery { encoding, rows, since })
}

/// One chunk; `position_of` makes a position of a sequence.
pub(in crate::grpc) fn chunk(
    part: ScanPart,
    dim: usize,
    encoding: Option<Encoding>,
    position_of: impl Fn(u64) -> Position,
) -> v1::ScanChunk {
    let embeddings = encoding.map(|encoding| encoded(part.embeddings, dim, encoding));
    let position = part.closing.map(|closing| position_of(closing.began).to_bytes().to_vec());
    v1::ScanChunk {
        rows: Some(rows(&part.entries, embeddings)),
        stamps: part.stamps,
        gone: part.gone,
        whole: part.whole,
        last: part.closing.is_some(),
        position: position.unwrap_or_default().into(),
        consistent: part.closing.is_some_and(|closing| closing.consistent),
        entries: part.held as u64,
        sequence: part.sequence,
        step: part.step,
    }
}

/// Bytes of an entry, its stamp included.
fn bytes_of_row(spec: &BankSpec, encoding: Option<Encoding>) -> usize {
    encoding.map_or(0, |encoding| spec.dim() * encoding.bytes()) + BYTES_OF_COLUMNS + size_of::<u64>()
}
