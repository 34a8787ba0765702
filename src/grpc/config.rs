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
    /// A client that does not read 256 KiB of its answer, or the rest of it, within this time is cut.
    pub answer: Duration,
    /// Deadline of calls that carry none.
    pub default_deadline: Duration,
    /// Certificates for TLS over TCP; `None`: calls are not encrypted.
    pub tls: Option<TlsConfig>,
    /// The token file; `None`: nobody is asked for a token.
    pub tokens: Option<PathBuf>,
    /// How often certificates and tokens are looked at for changes.
    pub reload: Duration,
    /// Listen where others can reach it though calls are not encrypted, or nobody is asked who makes them.
    pub insecure_listen: bool,
    /// Connections at once, over all listeners; what comes when there are as many is closed. Default 4,096.
    pub max_connections: usize,
    /// A connection that lasts longer, each up to a tenth more or less, is asked to end, and has as long as a drain may take;
    /// zero: never.
    pub max_connection_age: Duration,
    /// A client that has said nothing for so long is asked whether it still lives; default 30 s.
    pub keepalive: Duration,
    /// A client that does not answer within this time, or takes nothing that it is sent for both together, is cut; default 20 s.
    pub keepalive_timeout: Duration,
    /// After SIGTERM, calls in flight may take this long; then the process ends.
    pub drain: Duration,
    /// Largest request taken, in bytes.
    pub max_message_bytes: usize,
    /// Metadata of a call at most, in bytes; default 16 KiB.
    pub max_metadata_bytes: usize,
    /// Bytes of all requests that are being received, wait or are worked on, at most.
    pub max_inbound_bytes: usize,
    /// Threads that read requests and send answers, of the runtime that the server runs on; 0, the default: half of the cores.
    pub threads: usize,
}

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate and those between it and its authority's.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates of the authorities of clients; `None`: clients need none.
    pub client_ca: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 7700))),
            unix_socket: None,
            answer: Duration::from_secs(60),
            default_deadline: Duration::from_secs(60),
            tls: None,
            tokens: None,
            reload: Duration::from_secs(10),
            insecure_listen: false,
            max_connections: 4_096,
            max_connection_age: Duration::ZERO,
            keepalive: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            drain: Duration::from_secs(30),
            max_message_bytes: 64 << 20,
            max_metadata_bytes: 16 << 10,
            max_inbound_bytes: 1 << 30,
            threads: 0,
        }
    }
}
