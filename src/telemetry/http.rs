//! What probes and Prometheus ask over HTTP/1.1: `/livez`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
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
use tokio::runtime::Builder;
use tokio::sync::Semaphore;

use super::{Metrics, Readiness};

/// Within it comes the head of a request, the first or the next: Prometheus asks every fifteen seconds.
const HEAD: Duration = Duration::from_secs(20);
/// Of a connection, however it is used: who doesn't read an answer holds it no longer.
const AGE: Duration = Duration::from_secs(300);
/// Connections at once; what comes when there are as many is closed.
const CONNECTIONS: usize = 1_024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Lines about clients that ask too slowly: so many within so long.
const LINES: usize = 10;
const LINES_WITHIN: Duration = Duration::from_secs(10);

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

/// A listener that doesn't answer yet.
#[derive(Debug)]
pub struct Http(Option<std::net::TcpListener>);

#[derive(Clone)]
struct Answering {
    metrics: Metrics,
    readiness: Readiness,
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
        let listener = TcpListener::bind(address).await.and_then(TcpListener::into_std);
        Ok(Self(Some(listener.map_err(|source| HttpError::Listen { address, source })?)))
    }

    /// The address it listens on, with the port that the system chose.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Answers until the process ends, so that a drain can be watched: liveness while it runs, readiness while calls are taken. On a
    /// thread of its own, so that probes are answered however busy the others are.
    ///
    /// # Errors
    /// If the system starts no more threads.
    pub fn serve(self, metrics: Metrics, readiness: Readiness) -> std::io::Result<()> {
        let Some(listener) = self.0 else { return Ok(()) };
        let answering = Answering { metrics, readiness, reading: Arc::new(Semaphore::new(1)) };
        let router = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_text))
            .with_state(answering);
        let serve = async move { accept(&TcpListener::from_std(listener)?, &router).await };
        let serve = move || {
            let runtime = Builder::new_current_thread().thread_name("metrics").enable_all().build();
            if let Err(fault) = runtime.and_then(|runtime| runtime.block_on(serve)) {
                tracing::error!(%fault, "probes and metrics are answered no more");
            }
        };
        thread::Builder::new().name("probes".into()).spawn(serve)?;
        Ok(())
    }
}

/// Takes connections, each for a while at most: axum's own loop waits for the head of a request for ever.
async fn accept(listener: &TcpListener, router: &Router) -> std::io::Result<()> {
    let (places, lines) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(Semaphore::new(LINES)));
    loop {
        let Ok((connection, peer)) = listener.accept().await else {
            // Too many open files, say: asked again at once it would keep a core busy.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let router = TowerToHyperService::new(router.clone());
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD);
        let mut served = http.serve_connection(TokioIo::new(connection), router);
        let lines = Arc::clone(&lines);
        tokio::spawn(async move {
            let ended = tokio::time::timeout(AGE, &mut served).await;
            // Otherwise how it ended is its client's business.
            let slow = matches!(ended, Ok(Err(fault)) if fault.is_timeout());
            let rest = served.into_parts().read_buf;
            drop(place);
            if slow
                && !rest.is_empty()
                && let Ok(line) = lines.try_acquire()
            {
                tracing::info!(%peer, within = ?HEAD, "a client began to ask for probes or metrics and did not come to an end: cut");
                tokio::time::sleep(LINES_WITHIN).await;
                drop(line);
            }
        });
    }
}

async fn readyz(State(of): State<Answering>) -> Response {
    let (ready, told) = of.readiness.answer();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, told).into_response()
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
    use crate::telemetry::Told;

    #[tokio::test]
    async fn the_metrics_are_written_for_one_at_a_time() {
        let reading = Arc::new(Semaphore::new(1));
        let (metrics, readiness) = (Metrics::default(), Readiness::new(Told::default));
        let of = Answering { metrics, readiness, reading: Arc::clone(&reading) };
        let other = reading.try_acquire().unwrap();
        assert_eq!(metrics_text(State(of.clone())).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(other);
        for _ in 0..2 {
            assert_eq!(metrics_text(State(of.clone())).await.status(), StatusCode::OK);
        }
    }
}
