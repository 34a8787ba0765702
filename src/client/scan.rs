//! Reading a whole bank.

use std::time::Duration;

use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::deadline::Deadline;
use super::line::Line;
use super::{ClientError, ScanColumns};
use crate::proto::v1::ScanRequest;

/// The chunks of a scan, as they come. Dropping it ends the scan on the server.
#[derive(Debug)]
pub struct Scan {
    chunks: Streaming<ScanColumns>,
    deadline: Deadline,
    timeout: Duration,
}

impl Scan {
    pub(super) async fn start(line: Line, request: ScanRequest, within: Duration, limit: usize) -> Result<Self, Status> {
        let deadline = Deadline::after(within);
        let mut request = Request::new(request);
        request.set_timeout(within);
        let mut grpc = Grpc::new(line).max_decoding_message_size(limit);
        grpc.ready().await.map_err(|fault| Status::from_error(fault.into()))?;
        let path = PathAndQuery::from_static("/negbank.v1.Banks/Scan");
        let chunks = grpc.server_streaming(request, path, ProstCodec::<ScanRequest, ScanColumns>::default()).await?;
        Ok(Self { chunks: chunks.into_inner(), deadline, timeout: within })
    }

    /// The next chunk; none after the last.
    ///
    /// # Errors
    /// [`ClientError`]; after one the scan is over.
    pub async fn next(&mut self) -> Result<Option<ScanColumns>, ClientError> {
        let left = self.deadline.left().ok_or_else(|| late(self.timeout))?;
        match timeout(left, self.chunks.message()).await {
            Ok(chunk) => Ok(chunk?),
            Err(_) => Err(late(self.timeout)),
        }
    }
}

fn late(within: Duration) -> ClientError {
    ClientError::DeadlineExceeded(format!("the scan did not end within {within:?}"))
}
