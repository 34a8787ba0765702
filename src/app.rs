//! The server process: builds the parts from their settings, runs until a signal, drains.

mod embedded;
mod memory;
mod pulse;
mod workers;

pub use embedded::Embedded;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::pulse::Pulse;
use crate::config::Settings;
use crate::engine::{self, Engine, Unsynced};
use crate::grpc::{ServeError, Server};
use crate::model::clock;
use crate::telemetry::{Http, HttpError, Readiness, Traces, TracesError};

/// Why the process ended early.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A log filter that can't be read.
    #[error(transparent)]
    Logs(#[from] crate::telemetry::FilterError),
    /// Threads, signals or the runtime.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    /// Traces.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// Probes and metrics.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// What was logged could not be synced at the end.
    #[error(transparent)]
    Flush(#[from] Unsynced),
    /// The disk did not answer.
    #[error("the last sync had not ended after {0:?}: what was written of late may not survive a power cut")]
    FlushExpired(Duration),
    /// Calls in flight took longer than the drain limit.
    #[error("calls were still in flight {0:?} after the signal (setting server.drain_seconds); they were cut")]
    DrainExpired(Duration),
    /// Whoever stopped it would not wait.
    #[error("a second signal came before the calls in flight had ended; they were cut")]
    SecondSignal,
}

/// Runs a server until SIGTERM or SIGINT and a drain.
///
/// # Errors
/// [`AppError`]
pub fn run(settings: Settings) -> Result<(), AppError> {
    crate::telemetry::init(&settings.log)?;
    let runtime = workers::runtime(settings.server.threads).build()?;
    let ended = runtime.block_on(serve(settings));
    // What is still running has been given its time: don't wait for it.
    runtime.shutdown_background();
    ended
}

/// How long the last traces may take to be sent.
const TRACES_AT_MOST: Duration = Duration::from_secs(5);

/// How long the last sync may take: a disk that hangs must not hold the process for ever.
const FLUSH_AT_MOST: Duration = Duration::from_secs(10);

async fn serve(settings: Settings) -> Result<(), AppError> {
    let drain = settings.server.drain;
    let mut config = settings.engine;
    if config.memory.max_bytes == 0 {
        config.memory.max_bytes = memory::allowed();
    }
    let memory = config.memory.max_bytes;
    let files = open_files();
    let folders = folders(&config);
    let engine = Engine::start(config)?;
    let traces = Traces::start(&settings.traces)?;
    // First what people know it by: of two servers on one machine the second names that port.
    let server = Server::bind(settings.server, settings.limits).await?;
    let http = Http::bind(&settings.http).await?;
    let address = server.address()?.map(tracing::field::display);
    let unix_socket = server.unix_socket().map(|path| tracing::field::display(path.display()));
    let probes = http.address().map(tracing::field::display);
    let mut signals = StopSignals::listen()?;
    tracing::info!(address, unix_socket, probes, memory, files, version = env!("CARGO_PKG_VERSION"), "serving");

    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (metrics, of) = (engine.metrics().clone(), engine.clone());
    let readiness = Readiness::new(move || of.readiness());
    folders.into_iter().for_each(|(setting, folder)| metrics.watch_disk(setting, folder));
    let pulse = Pulse::begin();
    tokio::spawn(pulse.clone().beat());
    let stuck = Arc::new(move || pulse.missed(clock::now()));
    http.serve(stuck, metrics, readiness.clone())?;
    tokio::spawn(tell_when_ready(engine.clone()));
    let cut = async move {
        signals.next().await;
        readiness.drain();
        tracing::info!(limit = ?drain, "draining: calls in flight may end; a second signal ends them now");
        let _nobody_waits = stop.send(());
        tokio::select! {
            () = tokio::time::sleep(drain) => AppError::DrainExpired(drain),
            () = signals.next() => AppError::SecondSignal,
        }
    };
    let ended = tokio::select! {
        ended = server.with_traces(traces.clone()).serve(engine.clone(), async move { stopped.await.unwrap_or_default() }) => ended.map_err(AppError::from),
        why = cut => Err(why),
    };
    // However it ended.
    let flushed = flush(&engine).await;
    let sent = tokio::task::spawn_blocking(move || traces.finish(TRACES_AT_MOST)).await;
    if let Ok(Err(fault)) = sent {
        tracing::warn!(fault, "the last traces could not be sent");
    }
    ended?;
    flushed?;
    tracing::info!("drained");
    Ok(())
}

/// Banks are served one by one; what waits for all of them hears of it here, by health and by `/readyz`.
async fn tell_when_ready(engine: Engine) {
    let began = clock::now();
    engine.recovered().await;
    tracing::info!(banks = engine.banks().len(), seconds = began.elapsed().as_secs_f64(), "ready");
}

/// What is logged survives the process; synced, it survives the machine too.
async fn flush(engine: &Engine) -> Result<(), AppError> {
    let flushed = match tokio::time::timeout(FLUSH_AT_MOST, engine.flush()).await {
        Ok(flushed) => flushed.map_err(AppError::from),
        Err(_) => Err(AppError::FlushExpired(FLUSH_AT_MOST)),
    };
    // Logged here, since a drain that failed before it is what the process ends with; and bank by bank, however many they are.
    flushed.inspect_err(|fault| match fault {
        AppError::Flush(Unsynced(banks)) => {
            banks.iter().for_each(|fault| tracing::error!(%fault, "what was logged could not be synced at the end"));
        }
        _ => tracing::error!(%fault, "what was logged could not be synced at the end"),
    })
}

/// Folders of this machine that it writes to, each with the setting that names it.
fn folders(config: &engine::Config) -> Vec<(&'static str, PathBuf)> {
    let location = config.checkpoints.location.as_ref().filter(|location| !location.contains("://")).map(PathBuf::from);
    let named = [
        ("durability.dir", config.durability.dir.clone()),
        ("checkpoints.location", location),
        ("checkpoints.spool", config.checkpoints.spool.clone()),
    ];
    named.into_iter().filter_map(|(setting, folder)| Some((setting, folder?))).collect()
}

/// Files that may be open, of which each connection is one: as many as the system allows, where a process begins with 1,024 of them.
fn open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // If it may not, it has what it had, which `negbank doctor` tells.
    let _raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// SIGTERM and SIGINT, as they come.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From now on the process lives through them.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of either.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
