//! What probes and Prometheus ask over HTTP/1.1: `/livez`, `/readyz` and `/metrics`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Metrics;

/// Within it comes the head of a request, the first or the next: Prometheus asks every fifteen seconds.
const HEAD: Duration = Duration::from_secs(20);
/// Of a connection, however it is used: who doesn't read an answer holds it no longer.
const AGE: Duration = Duration::from_secs(300);
/// Connections at once; what comes when there are as many is closed.
const CONNECTIONS: usize = 1_024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Settings of the HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address to listen on; `None`: nobody may ask.
    pub listen: Option<SocketAddr>,
    /// Whether others may reach it, whom it asks for nothing.
    pub insecure_listen: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 7701))), insecure_listen: false }
    }
}

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address can't be listened on.
    #[error("cannot listen on {address} for probes and metrics (setting http.listen; none turns it off): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Others could reach it.
    #[error(
        "http.listen = {0} can be reached by others, and probes and metrics are neither encrypted nor authenticated (they show names \
         of banks, and figures): set http.insecure_listen = true to answer anyone who reaches it"
    )]
    Insecure(SocketAddr),
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
    /// The metrics are written for one at a time.
    reading: Arc<Semaphore>,
}

impl Http {
    /// Listens, if the settings say so.
    ///
    /// # Errors
    /// [`HttpError`]
    pub async fn bind(config: &HttpConfig) -> Result<Self, HttpError> {
        let Some(address) = config.listen else { return Ok(Self(None)) };
        if !config.insecure_listen && !address.ip().to_canonical().is_loopback() {
            return Err(HttpError::Insecure(address));
        }
        let listener = TcpListener::bind(address).await.map_err(|source| HttpError::Listen { address, source })?;
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
        let answering =
            Answering { metrics, readiness, complaints: Arc::new(complaints), reading: Arc::new(Semaphore::new(1)) };
        let router = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_text))
            .with_state(answering);
        tokio::select! {
            () = stop => Ok(()),
            ended = accept(&listener, &router) => ended,
        }
    }
}

/// Takes connections, each for a while at most: axum's own loop waits for the head of a request for ever.
async fn accept(listener: &TcpListener, router: &Router) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            // Too many open files, say: asked again at once it would keep a core busy.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let router = TowerToHyperService::new(router.clone());
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD);
        let served = http.serve_connection(TokioIo::new(connection), router);
        tokio::spawn(async move {
            // How it ended is its client's business.
            let _ended = tokio::time::timeout(AGE, served).await;
            drop(place);
        });
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
    // Many who ask must not take all threads that may block.
    let Ok(reading) = of.reading.try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the metrics are being read by another\n").into_response();
    };
    // Banks are looked at under their locks.
    let written = tokio::task::spawn_blocking(move || {
        let text = of.metrics.text();
        // Not before, though whoever asked may have left.
        drop(reading);
        text
    });
    let text = written.await;
    let format = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match text {
        Ok(Ok(text)) => (format, text).into_response(),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_metrics_are_written_for_one_at_a_time() {
        let reading = Arc::new(Semaphore::new(1));
        let (metrics, complaints) = (Metrics::default(), Arc::new(Vec::new));
        let of = Answering { metrics, readiness: Readiness::default(), complaints, reading: Arc::clone(&reading) };
        let other = reading.try_acquire().unwrap();
        assert_eq!(metrics_text(State(of.clone())).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(other);
        for _ in 0..2 {
            assert_eq!(metrics_text(State(of.clone())).await.status(), StatusCode::OK);
        }
    }
}
