//! What the process says of itself: logs, metrics, and whether it lives.

mod http;
mod logs;
mod metrics;
mod work;

pub use http::{Http, HttpConfig, HttpError, Readiness};
pub use logs::{Config, FilterError, Format, init, is_filter};
pub use metrics::Metrics;
pub use work::Work;
