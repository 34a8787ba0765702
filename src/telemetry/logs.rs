//! Logs, to standard error.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal as _, Write as _};
use std::panic::{self, PanicHookInfo};
use std::thread;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Settings of the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How lines look.
    pub format: Format,
    /// What is logged, as tracing's `EnvFilter` spells it: `info`, `negbank=debug,tower_http=debug`.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Text, filter: "info".to_owned() }
    }
}

/// The filter can't be read.
#[derive(Debug, thiserror::Error)]
#[error("log.filter {filter:?}: {source}")]
pub struct FilterError {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// True for what [`Config::filter`] may be.
pub fn is_filter(filter: &String) -> bool {
    EnvFilter::builder().parse(filter).is_ok()
}

/// Sends the process's logs to standard error from now on, and what threads say that panic. Later calls change nothing: the first wins.
///
/// # Errors
/// [`FilterError`]
pub fn init(config: &Config) -> Result<(), FilterError> {
    let filter =
        EnvFilter::builder().parse(&config.filter).map_err(|source| FilterError { filter: config.filter.clone(), source })?;
    let colours = std::io::stderr().is_terminal();
    // A line that can't be written is lost; told of on the same standard error, it would end the process by a panic within a panic.
    let lines = tracing_subscriber::fmt().log_internal_errors(false).with_env_filter(filter).with_ansi(colours);
    let lines = lines.with_writer(std::io::stderr);
    // Only a second subscriber is refused, as when a test starts two servers in one process.
    let _second = match config.format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().try_init(),
    };
    panic::set_hook(Box::new(panicked));
    Ok(())
}

/// In a line, as all else that is logged.
fn panicked(what: &PanicHookInfo<'_>) {
    let (thread, backtrace) = (thread::current(), Backtrace::capture());
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let told = what.to_string().replace('\n', " ");
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(thread = thread.name(), backtrace, "{told}");
    } else {
        let _closed = writeln!(std::io::stderr(), "negbank: {told}");
    }
}
