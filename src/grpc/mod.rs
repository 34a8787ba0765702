//! The service as the wire sees it: protobuf becomes a domain value once, on the way in, and an answer once, on the way out.

mod access;
mod amiss;
mod authority;
mod banks;
mod call;
mod checkpoints;
pub mod config;
mod connection;
pub mod convert;
mod deadline;
mod endless;
mod expiry;
mod farewell;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gathering;
mod handshakes;
mod health;
mod inbound;
mod lifespan;
mod local_stream;
mod lookup;
mod measured;
mod methods;
mod outbound;
mod readers;
mod reloaded;
mod sampling;
mod scan;
pub mod server;
mod shared_frames;
mod small_requests;
mod sparing;
mod stack;
mod status;
mod tls;
mod unix_socket;
mod verdicts;
mod wire;
mod writing;

pub use access::{Entry as TokenEntry, Role, fingerprint};
pub use config::{Config, TlsConfig};
pub use convert::Limits;
pub use server::{ServeError, Server};
pub use unix_socket::SocketError;
