//! What probes and Prometheus ask over HTTP/1.1: `/livez`, `/readyz` and `/metrics`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::Metrics;

/// Settings of the HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address to listen on; `None`: nobody may ask.
    pub listen: Option<SocketAddr>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 7701))) }
    }
}

/// The address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for probes and metrics (setting http.listen; none turns it off): {source}")]
pub struct HttpError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Whether calls are taken now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says so.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }
}

/// A listener that doesn't answer yet.
#[derive(Debug)]
pub struct Http(Option<TcpListener>);

/// What is amiss though calls are answered, one a line.
type Complaints = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

#[derive(Clone)]
struct Answering {
    metrics: Metrics,
    readiness: Readiness,
    complaints: Complaints,
}

impl Http {
    /// Listens, if the settings say so.
    ///
    /// # Errors
    /// [`HttpError`]
    pub async fn bind(config: &HttpConfig) -> Result<Self, HttpError> {
        let Some(address) = config.listen else { return Ok(Self(None)) };
        let listener = TcpListener::bind(address).await.map_err(|source| HttpError { address, source })?;
        Ok(Self(Some(listener)))
    }

    /// The address it listens on, with the port that the system chose.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Answers until `stop` is ready: liveness while it runs, readiness while calls are taken.
    pub async fn serve(
        self,
        metrics: Metrics,
        readiness: Readiness,
        complaints: impl Fn() -> Vec<String> + Send + Sync + 'static,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let Some(listener) = self.0 else { return Ok(()) };
        let answering = Answering { metrics, readiness, complaints: Arc::new(complaints) };
        let router = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_text))
            .with_state(answering);
        axum::serve(listener, router).with_graceful_shutdown(stop).await
    }
}

async fn readyz(State(of): State<Answering>) -> Response {
    if !of.readiness.0.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining: no new calls are taken\n").into_response();
    }
    let complaints = tokio::task::spawn_blocking(move || (of.complaints)()).await.unwrap_or_default();
    let lines: String = complaints.into_iter().map(|complaint| format!("{complaint}\n")).collect();
    format!("ok\n{lines}").into_response()
}

async fn metrics_text(State(of): State<Answering>) -> Response {
    // Banks are looked at under their locks.
    let text = tokio::task::spawn_blocking(move || of.metrics.text()).await;
    let format = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match text {
        Ok(Ok(text)) => (format, text).into_response(),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n").into_response(),
    }
}
