//! Checkpoints.

use std::time::Duration;

use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::deadline::Deadline;
use super::line::Line;
use super::session::small;
use super::tries::Again;
use super::{Client, ClientError};
use crate::proto::v1::{
    CheckpointProgress, CreateCheckpointRequest, DeleteCheckpointRequest, DeleteCheckpointResponse, ListCheckpointsRequest,
    ListCheckpointsResponse, RestoreCheckpointRequest,
};

/// A checkpoint that is being made or brought back: readings of its progress. Dropped, the call is given up.
#[derive(Debug)]
pub struct Checkpointing {
    readings: Streaming<CheckpointProgress>,
    deadline: Deadline,
    timeout: Duration,
}

impl Checkpointing {
    async fn start<M: prost::Message + 'static>(
        line: Line,
        path: &'static str,
        message: M,
        within: Duration,
    ) -> Result<Self, Status> {
        let deadline = Deadline::after(within);
        let mut request = Request::new(message);
        request.set_timeout(within);
        let mut grpc = Grpc::new(line);
        grpc.ready().await.map_err(|fault| Status::from_error(fault.into()))?;
        let codec = ProstCodec::<M, CheckpointProgress>::default();
        let readings = grpc.server_streaming(request, PathAndQuery::from_static(path), codec).await?;
        Ok(Self { readings: readings.into_inner(), deadline, timeout: within })
    }

    /// The next reading; the last has `checkpoint`, and after it there is none.
    ///
    /// # Errors
    /// [`ClientError`]; then it is over.
    pub async fn next(&mut self) -> Result<Option<CheckpointProgress>, ClientError> {
        let late = || ClientError::DeadlineExceeded(format!("the checkpoint was not done within {:?}", self.timeout));
        let left = self.deadline.left().ok_or_else(late)?;
        match timeout(left, self.readings.message()).await {
            Ok(reading) => Ok(reading?),
            Err(_) => Err(late()),
        }
    }

    /// Waits for the end; the reading has `checkpoint`, and `restored` if a bank was brought back.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn done(mut self) -> Result<CheckpointProgress, ClientError> {
        while let Some(reading) = self.next().await? {
            if reading.checkpoint.is_some() {
                return Ok(reading);
            }
        }
        Err(ClientError::away("the server ended before the checkpoint was done"))
    }
}

impl Client {
    /// Keeps a bank as it is now. The deadline is the whole call's; it is tried once.
    ///
    /// # Errors
    /// [`ClientError`], here or from what is returned.
    pub async fn create_checkpoint(&self, request: CreateCheckpointRequest) -> Result<Checkpointing, ClientError> {
        let path = "/negbank.v1.Checkpoints/Create";
        self.tried(Again::IfRefused, |left| Checkpointing::start(self.line(), path, request.clone(), left)).await
    }

    /// Lists checkpoints.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn list_checkpoints(&self, request: ListCheckpointsRequest) -> Result<ListCheckpointsResponse, ClientError> {
        self.call(small("/negbank.v1.Checkpoints/List"), &request, Again::Always).await
    }

    /// Brings a bank back. The deadline is the whole call's; it is tried once.
    ///
    /// # Errors
    /// [`ClientError`], here or from what is returned.
    pub async fn restore_checkpoint(&self, request: RestoreCheckpointRequest) -> Result<Checkpointing, ClientError> {
        let path = "/negbank.v1.Checkpoints/Restore";
        self.tried(Again::IfRefused, |left| Checkpointing::start(self.line(), path, request.clone(), left)).await
    }

    /// Deletes a checkpoint.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn delete_checkpoint(&self, request: DeleteCheckpointRequest) -> Result<DeleteCheckpointResponse, ClientError> {
        self.call(small("/negbank.v1.Checkpoints/Delete"), &request, Again::IfRefused).await
    }
}
