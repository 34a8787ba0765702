//! The service as the wire sees it: protobuf becomes a domain value once, on the way in, and an answer once, on the way out.

mod authority;
mod banks;
pub mod config;
pub mod convert;
mod deadline;
mod frame;
mod gathering;
mod inbound;
mod local_stream;
mod measured;
mod sampling;
mod scan;
pub mod server;
mod shared_frames;
mod stack;
mod status;
mod unix_socket;
mod wire;
mod writing;

pub use config::Config;
pub use convert::Limits;
pub use server::{ServeError, Server};
pub use unix_socket::SocketError;
