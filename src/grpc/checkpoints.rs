//! The Checkpoints service.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::access::{self, Role};
use super::{call, convert, deadline, lookup, status};
use crate::engine::{BankHandle, Engine, EngineError, Heard, Running};
use crate::model::Checkpoint;
use crate::proto::v1;
use crate::proto::v1::checkpoints_server::Checkpoints;

/// Keeps banks and brings them back.
#[derive(Debug)]
pub(super) struct CheckpointsService {
    pub(super) engine: Engine,
}

/// Readings of a call's progress, the last of which has its outcome.
type Progress = Pin<Box<dyn Stream<Item = Result<v1::CheckpointProgress, Status>> + Send>>;

#[tonic::async_trait]
impl Checkpoints for CheckpointsService {
    type CreateStream = Progress;
    type RestoreStream = Progress;

    async fn create(&self, request: Request<v1::CreateCheckpointRequest>) -> Result<Response<Progress>, Status> {
        let deadline = deadline::of(&request);
        let access = access::of(&request)?;
        let bank = lookup::bank(&self.engine, &access, Role::Admin, &request.get_ref().bank)?;
        let new = convert::new_checkpoint(request.get_ref()).map_err(|e| status::invalid(&e))?;
        let running = self.engine.checkpoint(bank, new, deadline);
        let told = |made: &_| v1::CheckpointProgress { checkpoint: Some(convert::checkpoint(made)), ..Default::default() };
        Ok(Response::new(readings(running, move |made| std::future::ready(Ok(told(&made))))))
    }

    async fn list(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        let deadline = deadline::of(&request);
        let access = access::of(&request)?;
        let bank = convert::listed_bank(request.get_ref()).map_err(|e| status::invalid(&e))?;
        if let Some(bank) = &bank {
            access.may(Role::Read, bank.as_str())?;
        }
        let there = self.engine.checkpoints(bank.as_ref(), deadline).await.map_err(|e| status::engine(&e))?;
        let seen = there.iter().filter(|made| access.sees(made.bank.as_str()));
        Ok(Response::new(v1::ListCheckpointsResponse { checkpoints: seen.map(convert::checkpoint).collect() }))
    }

    async fn restore(&self, request: Request<v1::RestoreCheckpointRequest>) -> Result<Response<Progress>, Status> {
        let access = access::of(&request)?;
        let call = call::of(&request, &access);
        let restore = convert::restore(request.get_ref()).map_err(|e| status::invalid(&e))?;
        for bank in [&restore.bank, &restore.into] {
            access.may(Role::Admin, bank.as_str())?;
        }
        let running = self.engine.restore(restore, call.deadline).map_err(|e| status::engine(&e))?;
        let engine = self.engine.clone();
        let told = move |(made, bank): (Checkpoint, Arc<BankHandle>)| {
            let (engine, call) = (engine.clone(), call.clone());
            async move {
                let info = engine.describe(&bank, &call).await?;
                let (checkpoint, restored) = (Some(convert::checkpoint(&made)), Some(convert::described(&info)));
                Ok(v1::CheckpointProgress { checkpoint, restored, ..Default::default() })
            }
        };
        Ok(Response::new(readings(running, told)))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteCheckpointRequest>,
    ) -> Result<Response<v1::DeleteCheckpointResponse>, Status> {
        let deadline = deadline::of(&request);
        let access = access::of(&request)?;
        let (bank, tag) = convert::doomed(request.get_ref()).map_err(|e| status::invalid(&e))?;
        access.may(Role::Admin, bank.as_str())?;
        self.engine.delete_checkpoint(&bank, &tag, deadline).await.map_err(|e| status::engine(&e))?;
        Ok(Response::new(v1::DeleteCheckpointResponse {}))
    }
}

fn readings<T, F>(running: Running<T>, told: impl Fn(T) -> F + Clone + Send + 'static) -> Progress
where
    T: Send + 'static,
    F: Future<Output = Result<v1::CheckpointProgress, EngineError>> + Send,
{
    Box::pin(stream::unfold(running, move |mut running| {
        let told = told.clone();
        async move {
            let reading = match running.next().await? {
                Ok(Heard::Stand(stand)) => Ok(convert::progress(stand)),
                Ok(Heard::Done(outcome)) => told(outcome).await,
                Err(fault) => Err(fault),
            };
            Some((reading.map_err(|fault| status::engine(&fault)), running))
        }
    }))
}
