//! Settings of the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where and how the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address and port; `None`: no TCP.
    pub listen: Option<SocketAddr>,
    /// Path of a Unix socket to listen on as well.
    pub unix_socket: Option<PathBuf>,
    /// Deadline of calls that carry none.
    pub default_deadline: Duration,
    /// After SIGTERM, calls in flight may take this long; then the process ends.
    pub drain: Duration,
    /// Largest request taken, in bytes.
    pub max_message_bytes: usize,
    /// Bytes of all requests that are being received, wait or are worked on, at most.
    pub max_inbound_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 7700))),
            unix_socket: None,
            default_deadline: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            max_message_bytes: 64 << 20,
            max_inbound_bytes: 1 << 30,
        }
    }
}
