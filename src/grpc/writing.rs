//! Writes, whichever call carries them.

use std::sync::Arc;

use tonic::Status;

use super::convert::{self, Limits};
use super::inbound::Received;
use super::status;
use crate::engine::{BankHandle, Engine};
use crate::model::{Call, Mutation, Stage, WriteBatch};
use crate::proto::v1;
use crate::telemetry::Work;

/// A write that was found valid and is not applied yet.
#[derive(Debug)]
pub(super) struct Write {
    bank: Arc<BankHandle>,
    batch: WriteBatch,
    stage: Option<Stage>,
    received: Option<Received>,
}

impl Write {
    /// Checks a write to `bank` that came as `received`, perhaps as part of another request.
    pub(super) fn prepare(
        request: v1::WriteRequest,
        received: Option<Received>,
        bank: Arc<BankHandle>,
        limits: &Limits,
    ) -> Result<Self, Status> {
        let (batch, stage) = convert::batch(request, bank.spec(), limits).map_err(|e| status::invalid(&e))?;
        Work::current().attribute("negbank.written_rows", || batch.rows() as i64);
        Ok(Self { bank, batch, stage, received })
    }

    /// Applies it; when this returns, every later read sees it. Of the request nothing else may be left that takes memory.
    pub(super) async fn apply(self, engine: &Engine, call: &Call) -> Result<v1::WriteResponse, Status> {
        let applied = match self.stage {
            Some(stage) => {
                let held = Received::held(self.received.as_ref());
                let staged = engine.stage(&self.bank, stage, (self.batch, held), call.deadline);
                // The rows are in the stage's account now, or were refused.
                self.received.iter().for_each(Received::pass_on);
                staged.await
            }
            None => engine.mutate(&self.bank, Mutation::Write(self.batch), call).await,
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
