//! A connection to a server.

use std::error::Error;
use std::time::Duration;

use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::{ClientError, FieldViolation};
use crate::proto::v1::banks_client::BanksClient;
use crate::proto::v1::sampling_client::SamplingClient;
use crate::proto::v1::{
    Bank, CreateBankRequest, DeleteBankRequest, DeleteBankResponse, FetchRequest, FetchResponse, GetBankRequest,
    ListBanksRequest, ListBanksResponse, RemoveRequest, RemoveResponse, SampleRequest, SampleResponse, WriteRequest,
    WriteResponse,
};

/// How a client talks to its server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Deadline of calls that give none of their own; default 30 s.
    pub timeout: Duration,
    /// Deadline of the first connection; default 5 s.
    pub connect_timeout: Duration,
    /// Largest message taken or sent, in bytes; default 64 MiB, the server's own default.
    pub max_message_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), connect_timeout: Duration::from_secs(5), max_message_bytes: 64 << 20 }
    }
}

/// A connection to one server. Cheap to clone; clones share the connection and run calls side by side.
#[derive(Debug, Clone)]
pub struct Client {
    banks: BanksClient<Channel>,
    sampling: SamplingClient<Channel>,
    timeout: Duration,
    max_message_bytes: usize,
}

/// HTTP/2 receive windows and frames for answers of megabytes; the defaults (64 KiB and 16 KiB) halve the throughput.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
const FRAME_BYTES: u32 = 256 << 10;

impl Client {
    /// Connects to `address`, `host:port` or `http://host:port`.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] if no server answers there within the connect timeout;
    /// [`ClientError::InvalidArgument`] for what is no address.
    pub async fn connect(address: &str, options: Options) -> Result<Self, ClientError> {
        let channel = endpoint(address)?
            .connect_timeout(options.connect_timeout)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES)
            .tcp_nodelay(true)
            .connect()
            .await
            .map_err(|fault| {
                let causes = std::iter::successors(Some(&fault as &dyn Error), |&fault| fault.source());
                let cause = causes.last().map_or_else(String::new, ToString::to_string);
                ClientError::Unavailable(format!("no negbank answers at {address}: {cause}; start one with `negbank serve`"))
            })?;
        let limit = options.max_message_bytes;
        Ok(Self {
            banks: BanksClient::new(channel.clone()).max_decoding_message_size(limit).max_encoding_message_size(limit),
            sampling: SamplingClient::new(channel).max_decoding_message_size(limit).max_encoding_message_size(limit),
            timeout: options.timeout,
            max_message_bytes: limit,
        })
    }

    /// The same connection with another deadline for calls.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Creates a bank, or answers with the one that is there with the same settings.
    ///
    /// # Errors
    /// [`ClientError`], as every call
    pub async fn create_bank(&self, request: CreateBankRequest) -> Result<Bank, ClientError> {
        let mut banks = self.banks.clone();
        self.call(request, async |request| banks.create_bank(request).await).await
    }

    /// Describes a bank.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn get_bank(&self, request: GetBankRequest) -> Result<Bank, ClientError> {
        let mut banks = self.banks.clone();
        self.call(request, async |request| banks.get_bank(request).await).await
    }

    /// Describes all banks.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn list_banks(&self) -> Result<ListBanksResponse, ClientError> {
        let mut banks = self.banks.clone();
        self.call(ListBanksRequest {}, async |request| banks.list_banks(request).await).await
    }

    /// Deletes a bank.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn delete_bank(&self, request: DeleteBankRequest) -> Result<DeleteBankResponse, ClientError> {
        let mut banks = self.banks.clone();
        self.call(request, async |request| banks.delete_bank(request).await).await
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::DeadlineExceeded`] the batch may or may not have been applied.
    pub async fn write(&self, request: WriteRequest) -> Result<WriteResponse, ClientError> {
        let mut banks = self.banks.clone();
        self.call(request, async |request| banks.write(request).await).await
    }

    /// Reads entries by id.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn fetch(&self, request: FetchRequest) -> Result<FetchResponse, ClientError> {
        let mut banks = self.banks.clone();
        self.call(request, async |request| banks.fetch(request).await).await
    }

    /// Removes entries by id.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn remove(&self, request: RemoveRequest) -> Result<RemoveResponse, ClientError> {
        let mut banks = self.banks.clone();
        self.call(request, async |request| banks.remove(request).await).await
    }

    /// Draws negatives.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn sample(&self, request: SampleRequest) -> Result<SampleResponse, ClientError> {
        let mut sampling = self.sampling.clone();
        self.call(request, async |request| sampling.sample(request).await).await
    }

    /// One call under the deadline, which the server is told and this side keeps too: a server that is gone can't hang it.
    async fn call<Q: Message, A>(
        &self,
        message: Q,
        send: impl AsyncFnOnce(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, ClientError> {
        self.check_size(&message)?;
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        match tokio::time::timeout(self.timeout, send(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(ClientError::DeadlineExceeded(format!("no answer within {:?}", self.timeout))),
        }
    }

    /// Refuses a message that the transport would: by then all it says is "transport error".
    fn check_size(&self, message: &impl Message) -> Result<(), ClientError> {
        let (bytes, limit) = (message.encoded_len(), self.max_message_bytes);
        if bytes <= limit {
            return Ok(());
        }
        let reason = format!(
            "has {bytes} bytes, over the limit of {limit} (the client's max_message_bytes; the server's is \
             server.max_message_bytes): send fewer rows at a time"
        );
        let violation = FieldViolation { field: "request".to_owned(), reason };
        let message = format!("{}: {}", violation.field, violation.reason);
        Err(ClientError::InvalidArgument { message, violations: vec![violation] })
    }
}

/// `host:port`, perhaps behind `http://`. TLS is not spoken yet, so `https://` would be a promise that isn't kept.
fn endpoint(address: &str) -> Result<Endpoint, ClientError> {
    let refuse = |reason: &str| {
        let message = format!("{address:?} is not an address: {reason}; give host:port, as in 127.0.0.1:7700");
        ClientError::InvalidArgument { message, violations: Vec::new() }
    };
    let authority = address.strip_prefix("http://").unwrap_or(address);
    if authority.contains("://") {
        return Err(refuse("only plain http is spoken"));
    }
    if authority.contains('/') {
        return Err(refuse("it has a path"));
    }
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|fault| refuse(&fault.to_string()))?;
    match endpoint.uri().port() {
        Some(_) => Ok(endpoint),
        None => Err(refuse("it has no port")),
    }
}
