//! Checkpoints: calls on the way out, descriptions on the way back.

use negbank::client::{Client, ClientError};
use negbank::proto::v1::{
    BankKind, Checkpoint, CheckpointProgress, CreateCheckpointRequest, Dtype, Metric, RestoreCheckpointRequest,
};
use pyo3::prelude::*;

use crate::bank::{BankDescription, dtype_name, durability, metric_name};

/// `negbank.requests.CheckpointCall`.
#[derive(FromPyObject)]
pub(crate) struct CheckpointCall {
    bank: String,
    tag: String,
    replace: bool,
    keep: u32,
}

/// `negbank.requests.RestoreCall`.
#[derive(FromPyObject)]
pub(crate) struct RestoreCall {
    bank: String,
    tag: String,
    into: String,
    durability: Option<String>,
}

impl CheckpointCall {
    /// Makes the checkpoint, and waits until it is there.
    pub(crate) async fn send(self, client: Client) -> Result<CheckpointDescription, ClientError> {
        let Self { bank, tag, replace, keep } = self;
        let made = client.create_checkpoint(CreateCheckpointRequest { bank, tag, replace, keep }).await?;
        Ok(made.done().await?.checkpoint.unwrap_or_default().into())
    }
}

impl RestoreCall {
    /// Brings the bank back, and waits until it is.
    pub(crate) async fn send(self, client: Client) -> Result<BankDescription, ClientError> {
        let durability = durability(self.durability.as_deref())?.into();
        let request = RestoreCheckpointRequest { bank: self.bank, tag: self.tag, into: self.into, durability };
        let CheckpointProgress { restored, .. } = client.restore_checkpoint(request).await?.done().await?;
        Ok(restored.unwrap_or_default().into())
    }
}

/// The fields of `negbank.Checkpoint`, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct CheckpointDescription {
    bank: String,
    tag: String,
    sequence: u64,
    step: Option<u64>,
    entries: u64,
    bytes: u64,
    created: f64,
    state_hash: String,
    content_hash: String,
    dim: u32,
    kind: &'static str,
    metric: &'static str,
    dtype: &'static str,
}

impl From<Checkpoint> for CheckpointDescription {
    fn from(made: Checkpoint) -> Self {
        let (kind, metric, dtype): (BankKind, Metric, Dtype) = (made.kind(), made.metric(), made.dtype());
        Self {
            bank: made.bank,
            tag: made.tag,
            sequence: made.sequence,
            step: made.step,
            entries: made.entries,
            bytes: made.bytes,
            created: made.created_unix_ms as f64 / 1e3,
            state_hash: made.state_hash,
            content_hash: made.content_hash,
            dim: made.dim,
            kind: if kind == BankKind::Queue { "queue" } else { "keyed" },
            metric: metric_name(metric),
            dtype: dtype_name(dtype),
        }
    }
}
