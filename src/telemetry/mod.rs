//! What the process says of itself: logs, metrics, traces, and whether it lives.

mod http;
mod logs;
mod methods;
mod metrics;
mod process;
mod readiness;
mod traces;
mod work;

pub use http::{Http, HttpConfig, HttpError, Stuck};
pub use logs::{Config, FilterError, Format, init, is_filter};
pub use metrics::Metrics;
pub use readiness::{Readiness, Told};
pub use traces::{Config as TracesConfig, Traces, TracesError};
pub use work::{Piece, Work};
