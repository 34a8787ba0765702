//! What the process says of itself: logs.

mod logs;

pub use logs::{Config, FilterError, Format, init, is_filter};
