//! Writes, whichever call carries them.

use std::sync::Arc;

use tonic::Status;

use super::convert::{self, Limits};
use super::status;
use crate::engine::{BankHandle, Engine};
use crate::model::clock::Deadline;
use crate::model::{Mutation, Stage, WriteBatch};
use crate::proto::v1;
use crate::telemetry::Work;

/// A write that was found valid and is not applied yet.
#[derive(Debug)]
pub(super) struct Write {
    bank: Arc<BankHandle>,
    batch: WriteBatch,
    stage: Option<Stage>,
}

impl Write {
    /// Checks a write to `bank`.
    pub(super) fn prepare(request: v1::WriteRequest, bank: Arc<BankHandle>, limits: &Limits) -> Result<Self, Status> {
        let (batch, stage) = convert::batch(request, bank.spec(), limits).map_err(|e| status::invalid(&e))?;
        Work::current().attribute("negbank.written_rows", || batch.rows() as i64);
        Ok(Self { bank, batch, stage })
    }

    /// Applies it; when this returns, every later read sees it.
    pub(super) async fn apply(self, engine: &Engine, deadline: Deadline) -> Result<v1::WriteResponse, Status> {
        let applied = match self.stage {
            Some(stage) => engine.stage(&self.bank, stage, self.batch, deadline).await,
            None => engine.mutate(&self.bank, Mutation::Write(self.batch), deadline).await,
        };
        let applied = applied.map_err(|e| status::engine(&e))?;
        Ok(v1::WriteResponse {
            sequence: applied.sequence,
            inserted: applied.inserted,
            updated: applied.updated,
            evicted: applied.evicted,
            ids: applied.assigned,
            position: self.bank.position(applied.sequence).to_bytes().to_vec().into(),
            duplicate: applied.duplicate,
        })
    }
}
