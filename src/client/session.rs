//! A connection to a server.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use prost::Message;
use tonic::Status;
use tonic::transport::Endpoint;

use super::line::Line;
use super::scan::Scan;
use super::tries::{Again, Tries};
use super::unary::{Method, frame, unary};
use super::writer::Writer;
use super::{ClientError, FetchColumns, FieldViolation, GatherColumns, SampleColumns, Security, StalestColumns};
use crate::proto::v1::{
    Bank, CreateBankRequest, DeleteBankRequest, DeleteBankResponse, FetchRequest, FetchResponse, GatherRequest, GetBankRequest,
    ListBanksRequest, ListBanksResponse, ListGathersRequest, ListGathersResponse, RemoveRequest, RemoveResponse, SampleRequest,
    SampleResponse, ScanRequest, StalestRequest, WriteRequest, WriteResponse,
};

/// How a client talks to its server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Deadline of calls that give none of their own, all tries of a call included; default 30 s.
    pub timeout: Duration,
    /// Deadline of the first connection; default 5 s.
    pub connect_timeout: Duration,
    /// While calls wait and nothing has come for so long, the server is asked for a sign of life; where none comes for as long again, as over
    /// a network that lost its way, the connection is given up, and calls that are tried again are tried on a new one. `None` (default): a
    /// third of `timeout`, 10 s at least.
    pub keepalive: Option<Duration>,
    /// Largest message taken or sent, in bytes; default 64 MiB, the server's own default.
    pub max_message_bytes: usize,
    /// How often a call is tried again, with growing waits, while the server is away; default 5, which takes 1.6 to 3.1 s. What may have
    /// changed something and can't be recognised when it comes again is tried once. A server that refuses a call and says when to come back,
    /// as it does under overload and while it recovers a bank, is asked again then, until the call's deadline: all calls of a connection
    /// together ten times a second, 64 at once, and once more for every five answers. 0: no call is tried again, whatever the server says.
    pub retries: u32,
    /// Signs writes, so that the bank recognises one that comes again; such as "train-7/rank-3". Default: unsigned.
    pub writer: Option<String>,
    /// What it shows and whom it trusts; default: nothing, and the system's authorities.
    pub security: Security,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            keepalive: None,
            max_message_bytes: 64 << 20,
            retries: 5,
            writer: None,
            security: Security::default(),
        }
    }
}

/// A connection to one server. Cheap to clone; clones share the connection and run calls side by side.
#[derive(Debug, Clone)]
pub struct Client {
    line: Line,
    tries: Tries,
    max_message_bytes: usize,
    writer: Option<Arc<Writer>>,
}

/// Answers end with their rows' embeddings: `rows`, `embeddings`, `data`.
const SAMPLE: Method = Method { path: "/negbank.v1.Sampling/Sample", large: &[1, 2, 1] };
const GATHER: Method = Method { path: "/negbank.v1.Gathering/Gather", large: &[1, 2, 1] };
const FETCH: Method = Method { path: "/negbank.v1.Banks/Fetch", large: &[2, 2, 1] };

/// A method whose answer has no large field.
pub(super) const fn small(path: &'static str) -> Method {
    Method { path, large: &[] }
}

/// HTTP/2 receive windows and frames for answers of megabytes; the defaults (64 KiB and 16 KiB) halve the throughput.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
const FRAME_BYTES: u32 = 256 << 10;

/// The question for a sign of life waits behind what is being sent: on a line of which a few megabytes take longer, `timeout` must be longer too.
const KEEPALIVE: Duration = Duration::from_secs(10);

impl Client {
    /// Connects to `address`: `host:port`, `https://host:port` for TLS, `http://host:port`, or `unix:/path` of a socket.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] if no server answers there within the connect timeout;
    /// [`ClientError::InvalidArgument`] for what is no address.
    pub async fn connect(address: &str, options: Options) -> Result<Self, ClientError> {
        let authorization = options.security.authorization()?;
        let keepalive = options.keepalive.unwrap_or(KEEPALIVE.max(options.timeout / 3));
        let channel = endpoint(address, &options.security)?
            .connect_timeout(options.connect_timeout)
            .http2_keep_alive_interval(keepalive)
            .keep_alive_timeout(keepalive)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES)
            .tcp_nodelay(true)
            .connect()
            .await
            .map_err(|fault| {
                let cause = deepest(&fault);
                ClientError::away(format!("no negbank answers at {address}: {cause}{}", what_to_do(&cause)))
            })?;
        Ok(Self {
            line: Line::new(channel, authorization),
            tries: Tries::new(options.timeout, options.retries),
            max_message_bytes: options.max_message_bytes,
            writer: options.writer.map(Writer::new).transpose()?.map(Arc::new),
        })
    }

    /// The same connection with another deadline for calls.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { tries: Tries { timeout, ..self.tries.clone() }, ..self.clone() }
    }

    /// The same connection with another number of tries after the first, see [`Options::retries`].
    #[must_use]
    pub fn with_retries(&self, retries: u32) -> Self {
        Self { tries: Tries { retries, ..self.tries.clone() }, ..self.clone() }
    }

    /// The same connection, whose calls are part of a trace: `traceparent` and `tracestate` (may be empty) as W3C's Trace Context spells
    /// them.
    ///
    /// # Errors
    /// [`ClientError::InvalidArgument`] for what can't be metadata.
    pub fn with_trace(&self, traceparent: &str, tracestate: &str) -> Result<Self, ClientError> {
        let header = |name: &str, value: &str| {
            HeaderValue::try_from(value).map_err(|_| {
                let message = format!("{name} {value:?} has characters that no metadata has");
                ClientError::InvalidArgument { message, violations: Vec::new() }
            })
        };
        let state = (!tracestate.is_empty()).then(|| header("tracestate", tracestate)).transpose()?;
        let line = self.line.clone().traced(header("traceparent", traceparent)?, state);
        Ok(Self { line, ..self.clone() })
    }

    /// Creates a bank, or answers with the one that is there with the same settings.
    ///
    /// # Errors
    /// [`ClientError`], as every call
    pub async fn create_bank(&self, request: CreateBankRequest) -> Result<Bank, ClientError> {
        self.call(small("/negbank.v1.Banks/CreateBank"), &request, Again::Always).await
    }

    /// Describes a bank.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn get_bank(&self, request: GetBankRequest) -> Result<Bank, ClientError> {
        self.call(small("/negbank.v1.Banks/GetBank"), &request, Again::Always).await
    }

    /// Describes all banks.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn list_banks(&self) -> Result<ListBanksResponse, ClientError> {
        self.call(small("/negbank.v1.Banks/ListBanks"), &ListBanksRequest {}, Again::Always).await
    }

    /// Deletes a bank.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn delete_bank(&self, request: DeleteBankRequest) -> Result<DeleteBankResponse, ClientError> {
        self.call(small("/negbank.v1.Banks/DeleteBank"), &request, Again::IfRefused).await
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::DeadlineExceeded`] the batch may or may not have been applied.
    pub async fn write(&self, mut request: WriteRequest) -> Result<WriteResponse, ClientError> {
        let again = self.sign(&mut request);
        self.call(small("/negbank.v1.Banks/Write"), &request, again).await
    }

    /// Reads entries by id.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn fetch(&self, request: FetchRequest) -> Result<FetchResponse, ClientError> {
        self.call(FETCH, &request, Again::Always).await
    }

    /// As [`fetch`](Self::fetch), its columns as they came.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn fetch_columns(&self, request: FetchRequest) -> Result<FetchColumns, ClientError> {
        self.call(FETCH, &request, Again::Always).await
    }

    /// Removes entries by id.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn remove(&self, request: RemoveRequest) -> Result<RemoveResponse, ClientError> {
        self.call(small("/negbank.v1.Banks/Remove"), &request, Again::IfRefused).await
    }

    /// Lists the entries of a keyed bank that most need a refresh, their columns as they came.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn stalest(&self, request: StalestRequest) -> Result<StalestColumns, ClientError> {
        self.call(small("/negbank.v1.Banks/Stalest"), &request, Again::Always).await
    }

    /// Reads a whole bank, or what changed in it, chunk by chunk. The deadline is that of the whole stream. Beginning it is tried
    /// again; a stream that breaks later is not.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn scan(&self, request: ScanRequest) -> Result<Scan, ClientError> {
        self.check_size(&request)?;
        let start = |left| Scan::start(self.line.clone(), request.clone(), left, self.max_message_bytes);
        self.tried(Again::Always, start).await
    }

    /// Draws negatives.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn sample(&self, mut request: SampleRequest) -> Result<SampleResponse, ClientError> {
        let again = request.write.as_mut().map_or(Again::Always, |write| self.sign(write));
        self.call(SAMPLE, &request, again).await
    }

    /// As [`sample`](Self::sample), its columns as they came.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn sample_columns(&self, mut request: SampleRequest) -> Result<SampleColumns, ClientError> {
        let again = request.write.as_mut().map_or(Again::Always, |write| self.sign(write));
        self.call(SAMPLE, &request, again).await
    }

    /// Hands in a rank's rows and waits for those of all ranks, their columns as they came. The same rows sent again are recognised,
    /// so it is tried again like a read.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn gather(&self, request: GatherRequest) -> Result<GatherColumns, ClientError> {
        self.call(GATHER, &request, Again::Always).await
    }

    /// Lists the gathers that wait for ranks, and those that are remembered.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn list_gathers(&self) -> Result<ListGathersResponse, ClientError> {
        self.call(small("/negbank.v1.Gathering/ListGathers"), &ListGathersRequest {}, Again::Always).await
    }

    /// Gives a write its number, and says when it may be sent again under it.
    fn sign(&self, write: &mut WriteRequest) -> Again {
        if write.origin.is_none() {
            write.origin = self.writer.as_ref().map(|writer| writer.next());
        }
        if write.origin.is_some() { Again::Always } else { Again::IfRefused }
    }

    /// The connection.
    pub(super) fn line(&self) -> Line {
        self.line.clone()
    }

    pub(super) async fn call<A: Message + Default>(
        &self,
        method: Method,
        message: &impl Message,
        again: Again,
    ) -> Result<A, ClientError> {
        self.check_size(message)?;
        let frame = frame(message)?;
        self.tried(again, |left| unary(self.line.clone(), method, frame.clone(), left, self.max_message_bytes)).await
    }

    pub(super) async fn tried<A, F: Future<Output = Result<A, Status>>>(
        &self,
        again: Again,
        send: impl Fn(Duration) -> F,
    ) -> Result<A, ClientError> {
        self.tries.run(again, send).await
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

/// `host:port`, perhaps behind `http://` or `https://`, or `unix:` and a path.
fn endpoint(address: &str, security: &Security) -> Result<Endpoint, ClientError> {
    let refuse = |reason: &str| {
        let message = format!("{address:?} is not an address: {reason}; give host:port, as in 127.0.0.1:7700, or unix:/path");
        ClientError::InvalidArgument { message, violations: Vec::new() }
    };
    let encrypted = address.starts_with("https://");
    if security.wants_tls() && !encrypted {
        let message =
            format!("{address:?} is not encrypted, so certificates and their names mean nothing: give https://host:port");
        return Err(ClientError::InvalidArgument { message, violations: Vec::new() });
    }
    if let Some(path) = address.strip_prefix("unix:") {
        let named = !path.trim_start_matches('/').is_empty();
        let parsed = Endpoint::from_shared(address.to_owned()).map_err(|fault| refuse(&fault.to_string()));
        return if named { parsed } else { Err(refuse("it names no socket")) };
    }
    let plain = address.strip_prefix("http://");
    let authority = address.strip_prefix("https://").or(plain).unwrap_or(address);
    if authority.contains("://") {
        return Err(refuse("only http and https are spoken"));
    }
    if authority.contains('/') {
        return Err(refuse("it has a path"));
    }
    let scheme = if encrypted { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}")).map_err(|fault| refuse(&fault.to_string()))?;
    if endpoint.uri().port().is_none() {
        return Err(refuse("it has no port"));
    }
    if !encrypted {
        return Ok(endpoint);
    }
    endpoint.tls_config(security.tls()).map_err(|fault| {
        let message = format!("the certificates given for {address} cannot be used: {}", deepest(&fault));
        ClientError::InvalidArgument { message, violations: Vec::new() }
    })
}

/// What helps against the cause of a connection that could not be made.
fn what_to_do(cause: &str) -> &'static str {
    let known = [
        ("refused", "; start one with `negbank serve`"),
        (
            "UnknownIssuer",
            "; the server's certificate is of no authority that is trusted: give the file of its authority as `ca`",
        ),
        ("CaUsedAsEndEntity", "; the server shows an authority's own certificate: it needs one that the authority issued"),
        ("not valid for name", "; give the name that the certificate is of as `server_name`"),
        ("InvalidContentType", "; it speaks no TLS: leave https:// out"),
    ];
    known.iter().find(|(sign, _)| cause.contains(sign)).map_or("", |(_, help)| help)
}

/// The deepest cause of a fault of the transport.
fn deepest(fault: &tonic::transport::Error) -> String {
    let causes = std::iter::successors(Some(fault as &dyn Error), |&fault| fault.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}
