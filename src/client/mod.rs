//! The Rust client. Knows the proto and nothing of the server, so that it builds without it.
//!
//! ```no_run
//! use negbank::client::{Client, Options, rows};
//! use negbank::proto::v1;
//!
//! # async fn example() -> Result<(), negbank::client::ClientError> {
//! let client = Client::connect("127.0.0.1:7700", Options::default()).await?;
//! client.create_bank(v1::CreateBankRequest { name: "docs".into(), dim: 2, ..Default::default() }).await?;
//! client
//!     .write(v1::WriteRequest {
//!         bank: "docs".into(),
//!         ids: vec![1, 2, 3],
//!         embeddings: Some(rows(&[1.0, 0.0, 0.0, 1.0, 0.6, 0.8])),
//!         ..Default::default()
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```

mod budget;
mod checkpoints;
mod columns;
mod deadline;
mod entropy;
mod error;
mod incoming;
mod large_field;
mod line;
mod matrix;
mod retry;
mod rope;
mod scan;
mod security;
mod session;
mod tries;
mod unary;
mod writer;

pub use checkpoints::Checkpointing;
pub use columns::{
    DrawColumns, FetchColumns, FloatColumn, GatherColumns, RowColumns, SampleColumns, ScanColumns, StalestColumns,
};
pub use entropy::random;
pub use error::{ClientError, FieldViolation};
pub use matrix::{floats, rows};
pub use scan::Scan;
pub use security::Security;
pub use session::{Client, Options};
pub use tonic::Code;

/// The messages that calls take and return.
pub use crate::proto::v1 as messages;
