//! The server: services, health and reflection on one listener.

use std::future::Future;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

use super::banks::BanksService;
use super::frame::Framed;
use super::sampling::SamplingService;
use super::shared_frames::SharedFrames;
use super::{Config, Limits, stack};
use crate::engine::Engine;
use crate::proto::DESCRIPTORS;
use crate::proto::v1::banks_server::BanksServer;
use crate::proto::v1::sampling_server::SamplingServer;

/// Receive windows and frames for writes of megabytes; the defaults (64 KiB and 16 KiB) halve the throughput.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
const FRAME_BYTES: u32 = 256 << 10;

/// A server that listens and doesn't serve yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    limits: Limits,
    listener: TcpListener,
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
    /// The transport failed.
    #[error("the server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors in the binary can't be read.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// [`ServeError::Listen`]
    pub async fn bind(config: Config, limits: Limits) -> Result<Self, ServeError> {
        let address = config.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        Ok(Self { config, limits, listener })
    }

    /// The address it listens on, with the port that the system chose where port 0 was asked for.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is ready; then says so in its health, takes no more calls and ends when those in flight have.
    ///
    /// # Errors
    /// [`ServeError`]
    pub async fn serve(self, engine: Engine, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<BanksServer<BanksService>>().await;
        health.set_serving::<SamplingServer<SamplingService>>().await;

        let default_deadline = self.config.default_deadline;
        let banks = BanksService { engine: engine.clone(), limits: self.limits.clone(), default_deadline };
        let shared = SharedFrames::new(self.limits.max_answer_bytes);
        let sampling = SamplingService { engine, limits: self.limits.clone(), default_deadline, shared };
        // An answer was checked against its own limit before work was done; this one must not cut it short.
        let (taken, sent) = (self.config.max_message_bytes, usize::MAX);

        let stop = async move {
            stop.await;
            health.set_not_serving::<BanksServer<BanksService>>().await;
            health.set_not_serving::<SamplingServer<SamplingService>>().await;
            health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        };
        tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES)
            .http2_keepalive_interval(Some(stack::KEEPALIVE))
            .http2_keepalive_timeout(Some(stack::KEEPALIVE_ANSWER))
            .layer(stack::layers())
            .add_service(health_service)
            .add_service(reflection_builder().build_v1()?)
            .add_service(reflection_builder().build_v1alpha()?)
            .add_service(BanksServer::new(banks).max_decoding_message_size(taken).max_encoding_message_size(sent))
            .add_service(Framed(SamplingServer::new(sampling).max_decoding_message_size(taken).max_encoding_message_size(sent)))
            .serve_with_incoming_shutdown(TcpIncoming::from(self.listener).with_nodelay(Some(true)), stop)
            .await?;
        Ok(())
    }
}

fn reflection_builder() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that grpcurl prints the details of an error instead of their bytes.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
