//! The server: services, health and reflection on its listeners.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpIncoming};

use super::access::{AccessLayer, Tokens};
use super::ages::Ages;
use super::banks::BanksService;
use super::checkpoints::CheckpointsService;
use super::connection::{Connection, Origin, Place};
use super::endless::EndlessLayer;
use super::expiry::Expiries;
use super::frame::Framed;
use super::gathering::GatheringService;
use super::handshakes;
use super::health::Announcer;
use super::lifespan::Terms;
use super::local_stream::LocalStream;
use super::readers::Readers;
use super::reloaded::{File, Reloaded};
use super::sampling::SamplingService;
use super::serving::{self, Transport};
use super::shared_frames::SharedFrames;
use super::sparing::Sparing;
use super::tls::{self, Loaded};
use super::unix_socket::{self, SocketError, SocketFile};
use super::{Config, Limits, methods, stack};
use crate::engine::{Engine, Ledger};
use crate::model::Seed;
use crate::proto::DESCRIPTORS;
use crate::proto::v1::banks_server::BanksServer;
use crate::proto::v1::checkpoints_server::CheckpointsServer;
use crate::proto::v1::gathering_server::GatheringServer;
use crate::proto::v1::sampling_server::SamplingServer;
use crate::telemetry::{Metrics, Traces};

/// Receive windows and frames for writes of megabytes; the defaults (64 KiB and 16 KiB) halve the throughput.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
const FRAME_BYTES: u32 = 256 << 10;

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a stopping server lets ranks wait for others whose calls have begun.
const MEETING: Duration = Duration::from_secs(1);

static NOT_TAKEN: Sparing = Sparing::new();
static TOO_MANY: Sparing = Sparing::new();

/// A server that listens and doesn't serve yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    limits: Limits,
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, SocketFile)>,
    tls: Option<Arc<Reloaded<Loaded>>>,
    tokens: Option<Arc<Reloaded<Tokens>>>,
    ages: Arc<Ages>,
    traces: Traces,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be listened on.
    #[error("cannot listen on {address} (setting server.listen): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Others could reach it, and could do as they like, or hear what would let them.
    #[error("server.listen = {address} can be reached by others, and {missing}")]
    Insecure {
        /// The address.
        address: SocketAddr,
        /// What is not there, and the settings that add it or do without.
        missing: &'static str,
    },
    /// Certificates or tokens that can't be read: the setting and the file, and what is wrong.
    #[error("{0}")]
    Credentials(String),
    /// The path can't be listened on.
    #[error("cannot listen at {} (setting server.unix_socket): {source}", path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: SocketError,
    },
    /// The system gives no randomness.
    #[error("connections can't be given ages: the system gives no randomness: {0}")]
    Entropy(String),
    /// The descriptors in the binary can't be read.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// [`ServeError::Insecure`], [`ServeError::Credentials`], [`ServeError::Listen`], [`ServeError::Socket`], [`ServeError::Entropy`]
    pub async fn bind(config: Config, limits: Limits) -> Result<Self, ServeError> {
        refuse_open_door(&config)?;
        let tls = config.tls.as_ref().map(tls::load).transpose().map_err(ServeError::Credentials)?;
        let tokens = config.tokens.clone().map(|path| {
            let file = File { setting: "auth.tokens", path };
            let parse = |files: &[(&File, &[u8])]| match files {
                [(file, contents)] => Tokens::parse(contents).map_err(|fault| file.wrong(fault)),
                _ => Ok(Tokens::default()),
            };
            Reloaded::load("tokens", vec![file], parse)
        });
        let tokens = tokens.transpose().map_err(ServeError::Credentials)?;
        if let Some(tokens) = &tokens {
            let known = tokens.get().len();
            tracing::info!(known, "calls need a token");
            if known == 0 {
                tracing::warn!(
                    "the file of auth.tokens has no token: nobody can call; `negbank token --append FILE` makes one"
                );
            }
            if tls.is_none() && config.listen.is_some() {
                tracing::warn!("tokens cross the network in the clear, and whoever hears one can use it: set tls.certificate");
            }
        }
        let tcp = match config.listen {
            Some(address) => Some(listen(address).map_err(|source| ServeError::Listen { address, source })?),
            None => None,
        };
        let unix = match &config.unix_socket {
            Some(path) => {
                let bound = unix_socket::bind(path).await;
                Some(bound.map_err(|source| ServeError::Socket { path: path.clone(), source })?)
            }
            None => None,
        };
        let seed = Seed::from_entropy().map_err(|none| ServeError::Entropy(none.to_string()))?;
        let ages = Arc::new(Ages::new(config.max_connection_age, seed));
        Ok(Self { config, limits, tcp, unix, tls, tokens, ages, traces: Traces::default() })
    }

    /// The address it listens on, with the port that the system chose where port 0 was asked for; `None`: not over TCP.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.tcp.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// The path of the Unix socket that it listens on.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.unix.as_ref().map(|(_, file)| file.path())
    }

    /// Traces calls.
    #[must_use]
    pub fn with_traces(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// Serves until `stop` is ready, banks that are being recovered as soon as each is there; then says so in its health, takes no more
    /// calls and ends when those in flight have.
    ///
    /// # Errors
    /// [`ServeError`]
    pub async fn serve(self, engine: Engine, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let health = Announcer::follow(reporter, engine.health()).await;

        let metrics = engine.metrics().clone();
        metrics.serve(methods::all());
        if let Some(tls) = &self.tls {
            metrics.register(Expiries(Arc::clone(tls)));
        }

        let banks = BanksService { engine: engine.clone(), limits: self.limits.clone() };
        let checkpoints = CheckpointsService { engine: engine.clone() };
        let gathering = GatheringService { engine: engine.clone(), limits: self.limits.clone() };
        let shared = SharedFrames::new(self.limits.max_answer_bytes, engine.ledger());
        let sampling = SamplingService { engine: engine.clone(), limits: self.limits.clone(), shared };
        // An answer was checked against its own limit before work was done; this one must not cut it short.
        let (taken, sent) = (self.config.max_message_bytes, usize::MAX);

        let readers = Readers::default();
        let of_transport = (engine.ledger().clone(), readers.clone());
        let watch = tokio::spawn(readers.clone().watch(self.config.answer, engine.metrics().clone()));
        let (of_tcp, of_unix) = (readers.clone(), readers);
        let (terms, of_tcp_ages, of_unix_ages) = (Terms::of(&self.config), Arc::clone(&self.ages), Arc::clone(&self.ages));
        let (most, places) = (self.config.max_connections, Arc::new(Semaphore::new(self.config.max_connections)));
        let places_of_tcp = Arc::clone(&places);
        let (stopping, stopped) = watch::channel(());
        let grace = MEETING.min(self.config.drain / 4);
        let stop = async move {
            stop.await;
            engine.stop_recovering();
            health.drain().await;
            // Whoever watches has been told: from now on those streams end.
            drop(stopping);
            engine.stop(grace).await;
        };
        self.follow_files();
        let transport = self.transport(metrics, of_transport, stopped.clone());
        let routes = Routes::new(health_service)
            .add_service(reflection_builder().build_v1()?)
            .add_service(reflection_builder().build_v1alpha()?)
            .add_service(Framed(BanksServer::new(banks).max_decoding_message_size(taken).max_encoding_message_size(sent)))
            .add_service(CheckpointsServer::new(checkpoints))
            .add_service(Framed(SamplingServer::new(sampling).max_decoding_message_size(taken).max_encoding_message_size(sent)))
            .add_service(Framed(
                GatheringServer::new(gathering).max_decoding_message_size(taken).max_encoding_message_size(sent),
            ));
        let calls = (transport, routes.prepare());
        let over_tcp = {
            let (calls, stopped) = (calls.clone(), stopped.clone());
            async move {
                let Some(listener) = self.tcp else { return };
                let incoming = placed(unhurried(TcpIncoming::from(listener).with_nodelay(Some(true))), places_of_tcp, most);
                match self.tls {
                    Some(tls) => {
                        let incoming = watched(handshakes::secured(incoming, tls), of_tcp, (terms, of_tcp_ages));
                        serving::serve(incoming, calls, stopped).await;
                    }
                    None => serving::serve(watched(incoming, of_tcp, (terms, of_tcp_ages)), calls, stopped).await,
                }
            }
        };
        let over_unix = async move {
            let Some((listener, _file)) = self.unix else { return };
            let incoming = unhurried(UnixListenerStream::new(listener)).map(|accepted| accepted.map(LocalStream::new));
            let incoming = placed(incoming, places, most);
            serving::serve(watched(incoming, of_unix, (terms, of_unix_ages)), calls, stopped).await;
        };
        tokio::join!(stop, over_tcp, over_unix);
        watch.abort();
        Ok(())
    }

    /// Certificates and tokens are looked at for changes from now on.
    fn follow_files(&self) {
        if let Some(tls) = &self.tls {
            tls.follow(self.config.reload, Loaded::tell);
        }
        if let Some(tokens) = &self.tokens {
            tokens.follow(self.config.reload, |_| {});
        }
    }

    /// HTTP/2 and the layers, without services.
    fn transport(&self, metrics: Metrics, of_answers: (Ledger, Readers), stopped: watch::Receiver<()>) -> Transport {
        let of_calls = (AccessLayer { tokens: self.tokens.clone() }, EndlessLayer::new(stopped));
        tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES)
            .http2_keepalive_interval(Some(self.config.keepalive))
            .http2_keepalive_timeout(Some(self.config.keepalive_timeout))
            .max_concurrent_streams(Some(stack::STREAMS))
            .http2_max_header_list_size(Some(self.config.max_metadata_bytes as u32))
            .layer(stack::layers(&self.config, (metrics, self.traces.clone()), of_calls, of_answers))
    }
}

/// Connections that the system may make before they are accepted, if it allows as many (Linux: net.core.somaxconn): all ranks of a large training
/// connect at once. Of the 128 that are usual whoever comes later is made to wait for seconds, or reset.
const BACKLOG: u32 = 4_096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server takes its port back though old connections are still being closed.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Refuses an address that others can reach unless calls are encrypted and callers known, or somebody does without by name.
fn refuse_open_door(config: &Config) -> Result<(), ServeError> {
    let reached = config.listen.filter(|address| !address.ip().to_canonical().is_loopback());
    let Some(address) = reached.filter(|_| !config.insecure_listen) else { return Ok(()) };
    let certificates = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let missing = match (config.tls.is_some(), config.tokens.is_some() || certificates) {
        (true, true) => return Ok(()),
        (true, false) => {
            "nobody would be asked who makes a call: set auth.tokens or tls.client_ca, or server.insecure_listen = true to serve \
             anyone who reaches it"
        }
        (false, true) => {
            "tokens and rows would cross the network in the clear: set tls.certificate and tls.key, or \
             server.insecure_listen = true to serve without TLS"
        }
        (false, false) => {
            "calls would be neither encrypted nor authenticated: set tls.certificate and tls.key, and auth.tokens or \
             tls.client_ca, or server.insecure_listen = true to serve anyone who reaches it"
        }
    };
    Err(ServeError::Insecure { address, missing })
}

/// A connection that can't be taken, since there are too many open files, say, is asked for again at once: without a pause that
/// would keep a whole core busy.
fn unhurried<C>(incoming: impl Stream<Item = io::Result<C>>) -> impl Stream<Item = io::Result<C>> {
    incoming.then(|accepted| async {
        if let Err(fault) = &accepted {
            if let Some(untold) = NOT_TAKEN.turn() {
                tracing::warn!(%fault, untold, "a connection could not be taken");
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted
    })
}

/// Gives each connection a place, and closes those that find none: they would take memory and files that calls need.
fn placed<C>(
    incoming: impl Stream<Item = io::Result<C>>,
    places: Arc<Semaphore>,
    most: usize,
) -> impl Stream<Item = io::Result<(C, Place)>> {
    incoming.filter_map(move |accepted| {
        let connection = match accepted {
            Ok(connection) => connection,
            Err(fault) => return Some(Err(fault)),
        };
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Some(Ok((connection, place)));
        }
        if let Some(untold) = TOO_MANY.turn() {
            tracing::warn!(
                most,
                untold,
                "there are as many connections as there may be (setting server.max_connections): closed"
            );
        }
        None
    })
}

/// Connections that can be cut, and are if nothing comes of them, or on their terms.
fn watched<C: Connected<ConnectInfo: Origin>>(
    incoming: impl Stream<Item = io::Result<(C, Place)>>,
    readers: Readers,
    (terms, ages): (Terms, Arc<Ages>),
) -> impl Stream<Item = io::Result<Connection<C>>> {
    incoming.map(move |accepted| {
        let (connection, place) = accepted?;
        let connection = Connection::new(connection, (terms, ages.next()), place);
        readers.connected(connection.line());
        Ok(connection)
    })
}

fn reflection_builder() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that grpcurl prints the details of an error instead of their bytes.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
