//! The stream of a scan.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream;
use tokio_stream::Stream;
use tonic::{Response, Status};

use super::banks::BanksService;
use super::outbound::Held;
use super::{convert, status};
use crate::engine::{BankHandle, Condition, MemoryPart};
use crate::model::{Call, Position};
use crate::proto::v1;

/// Chunks, the last of which says so; after an error there are none.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<v1::ScanChunk, Status>> + Send>>;

/// Waits until the bank's history has come as far as the request asks, and begins to read.
pub(super) async fn chunks(
    service: &BanksService,
    bank: Arc<BankHandle>,
    request: &v1::ScanRequest,
    call: &Call,
) -> Result<Response<Chunks>, Status> {
    let query = convert::scan(request, bank.spec(), &service.limits).map_err(|e| status::invalid(&e))?;
    let at_least = convert::position(&request.at_least).map_err(|e| status::invalid(&e))?;
    for position in [at_least, query.since] {
        let condition = Condition { at_least: position, ..Condition::default() };
        service.engine.await_condition(&bank, condition, call.deadline).await.map_err(|e| status::engine(&e))?;
    }
    let (entries, _) = bank.now().map_err(|e| status::engine(&e))?;
    let most = query.memory(bank.spec().dim(), entries);
    let held = service.engine.ledger().take(MemoryPart::Answers, most).map_err(|e| status::engine(&e))?;
    let scan = service.engine.scan(&bank, query, call).map_err(|e| status::engine(&e))?;
    // Nothing of the bank itself, so that it can be let go of while the stream is still there.
    let (dim, origin) = (bank.spec().dim(), bank.position(0));
    let chunks = stream::unfold(scan, move |mut scan| async move {
        let part = scan.next().await?;
        let position_of = |sequence| Position { sequence, ..origin };
        let chunk = part.map(|part| convert::chunk(part, dim, query.encoding, position_of)).map_err(|e| status::engine(&e));
        Some((chunk, scan))
    });
    let mut response = Response::new(Box::pin(chunks) as Chunks);
    response.extensions_mut().insert(Held::of(held));
    Ok(response)
}
