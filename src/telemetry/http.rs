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
use tokio::time::timeout;

use super::{Metrics, Readiness};

/// Within it comes the head of a request, the first or the next: Prometheus asks every fifteen seconds.
const HEAD: Duration = Duration::from_secs(20);
/// Of a connection, however it is used: who doesn't read an answer holds it no longer.
const AGE: Duration = Duration::from_secs(300);
/// Connections at once; what comes when there are as many is closed.
const CONNECTIONS: usize = 1_024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For its turn to be answered, and then for the answer, each waits so long at most.
const PATIENCE: Duration = Duration::from_secs(5);
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

/// Says for how long the threads that answer calls have not turned, if that is too long for them ever to turn again.
pub type Stuck = Arc<dyn Fn() -> Option<Duration> + Send + Sync>;

/// A listener that doesn't answer yet.
#[derive(Debug)]
pub struct Http(Option<std::net::TcpListener>);

#[derive(Clone)]
struct Answering {
    stuck: Stuck,
    metrics: Metrics,
    readiness: Readiness,
    /// The metrics are written for one at a time.
    reading: Arc<Semaphore>,
    /// As readiness is looked up.
    asking: Arc<Semaphore>,
    patience: Duration,
}

impl Answering {
    fn new((stuck, metrics, readiness): (Stuck, Metrics, Readiness), patience: Duration) -> Self {
        Self { stuck, metrics, readiness, reading: Arc::new(Semaphore::new(1)), asking: Arc::new(Semaphore::new(1)), patience }
    }
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
    pub fn serve(self, stuck: Stuck, metrics: Metrics, readiness: Readiness) -> std::io::Result<()> {
        let Some(listener) = self.0 else { return Ok(()) };
        let answering = Answering::new((stuck, metrics, readiness), PATIENCE);
        let router = Router::new()
            .route("/livez", get(livez))
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

/// Asks neither disks nor banks, which a restart doesn't mend.
async fn livez(State(of): State<Answering>) -> Response {
    match (of.stuck)() {
        None => "ok\n".into_response(),
        Some(since) => {
            let told = format!("stuck: the threads that answer calls have not turned for {} s\n", since.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, told).into_response()
        }
    }
}

async fn readyz(State(of): State<Answering>) -> Response {
    // Not in this task: whatever it waits for, `/livez` is answered.
    match one_at_a_time(of.asking, of.patience, move || of.readiness.answer()).await {
        Some((true, told)) => (StatusCode::OK, told).into_response(),
        Some((false, told)) => (StatusCode::SERVICE_UNAVAILABLE, told).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "busy: how the banks stand could not be looked up in time\n").into_response(),
    }
}

async fn metrics_text(State(of): State<Answering>) -> Response {
    // Banks are looked at under their locks.
    let text = one_at_a_time(of.reading, of.patience, move || of.metrics.text()).await;
    let format = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match text {
        Some(Ok(text)) => (format, text).into_response(),
        Some(Err(_)) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "busy: the metrics could not be read in time\n").into_response(),
    }
}

/// What `ask` answers, if there is a place for it within `patience`, and an answer within as much. Many who ask must not take all threads
/// that may block.
async fn one_at_a_time<A: Send + 'static>(
    places: Arc<Semaphore>,
    patience: Duration,
    ask: impl FnOnce() -> A + Send + 'static,
) -> Option<A> {
    let place = timeout(patience, places.acquire_owned()).await.ok()?.ok()?;
    let answer = tokio::task::spawn_blocking(move || {
        let answer = ask();
        // Not before, though whoever asked may have left.
        drop(place);
        answer
    });
    timeout(patience, answer).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Told;

    fn answering(readiness: Readiness) -> Answering {
        Answering::new((Arc::new(|| None), Metrics::default(), readiness), Duration::from_millis(50))
    }

    #[tokio::test]
    async fn a_server_lives_until_its_threads_are_stuck() {
        let of = answering(Readiness::new(Told::default));
        assert_eq!(livez(State(of.clone())).await.status(), StatusCode::OK);
        let stuck = Answering { stuck: Arc::new(|| Some(Duration::from_secs(61))), ..of };
        assert_eq!(livez(State(stuck)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn the_metrics_are_written_for_one_at_a_time_and_another_waits_for_its_turn() {
        let of = answering(Readiness::new(Told::default));
        let other = Arc::clone(&of.reading).try_acquire_owned().unwrap();
        assert_eq!(metrics_text(State(of.clone())).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let waits = tokio::spawn(metrics_text(State(Answering { patience: Duration::from_secs(60), ..of.clone() })));
        assert_eq!(readyz(State(of.clone())).await.status(), StatusCode::OK, "that waits for no metrics");
        assert!(!waits.is_finished());
        drop(other);
        assert_eq!(waits.await.unwrap().status(), StatusCode::OK);
        for _ in 0..2 {
            assert_eq!(
                metrics_text(State(Answering { patience: Duration::from_secs(60), ..of.clone() })).await.status(),
                StatusCode::OK
            );
        }
    }

    #[tokio::test]
    async fn readiness_that_hangs_holds_up_nothing_else() {
        let (answer, hangs) = std::sync::mpsc::channel::<()>();
        let hangs = std::sync::Mutex::new(hangs);
        let readiness = Readiness::new(move || {
            let _ended = hangs.lock().unwrap().recv();
            Told::default()
        });
        let of = answering(readiness);
        for _ in 0..3 {
            assert_eq!(readyz(State(of.clone())).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        let patient = Answering { patience: Duration::from_secs(60), ..of };
        assert_eq!(metrics_text(State(patient.clone())).await.status(), StatusCode::OK);
        drop(answer);
        assert_eq!(readyz(State(patient)).await.status(), StatusCode::OK);
    }
}
