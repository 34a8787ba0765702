//! The stream of a scan.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream;
use tokio_stream::Stream;
use tonic::Status;

use super::banks::BanksService;
use super::{convert, status};
use crate::engine::{BankHandle, Condition};
use crate::model::clock::Deadline;
use crate::proto::v1;

/// Chunks, the last of which says so; after an error there are none.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<v1::ScanChunk, Status>> + Send>>;

/// Waits until the bank's history has come as far as the request asks, and begins to read.
pub(super) async fn chunks(
    service: &BanksService,
    bank: Arc<BankHandle>,
    request: &v1::ScanRequest,
    deadline: Deadline,
) -> Result<Chunks, Status> {
    let query = convert::scan(request, bank.spec(), &service.limits).map_err(|e| status::invalid(&e))?;
    let at_least = convert::position(&request.at_least).map_err(|e| status::invalid(&e))?;
    for position in [at_least, query.since] {
        let condition = Condition { at_least: position, ..Condition::default() };
        service.engine.await_condition(&bank, condition, deadline).await.map_err(|e| status::engine(&e))?;
    }
    let scan = service.engine.scan(&bank, query, deadline).map_err(|e| status::engine(&e))?;
    let chunks = stream::unfold((scan, bank), move |(mut scan, bank)| async move {
        let part = scan.next().await?;
        let to_chunk = |part| convert::chunk(part, bank.spec().dim(), query.encoding, |sequence| bank.position(sequence));
        let chunk = part.map(to_chunk).map_err(|e| status::engine(&e));
        Some((chunk, (scan, bank)))
    });
    Ok(Box::pin(chunks))
}
