//! negbank serves negative samples to distributed contrastive-learning trainers: a bank of embeddings that moves with the
//! model, and random, hard or label-filtered negatives drawn from it over gRPC.
//!
//! Start at [`client`] to use a server, at [`app`] to run one, and at `docs/architecture.md` to change one. Built without the
//! `server` feature, the crate is the client alone.

pub mod client;
pub mod proto;

#[cfg(feature = "server")]
pub mod app;
#[cfg(feature = "server")]
pub mod archive;
#[cfg(feature = "server")]
pub mod bank;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod codec;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod durability;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(all(feature = "server", any(test, feature = "fuzzing")))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "server")]
pub mod gather;
#[cfg(feature = "server")]
pub mod grpc;
#[cfg(feature = "server")]
pub mod index;
#[cfg(feature = "server")]
pub mod kernels;
#[cfg(feature = "server")]
pub mod model;
#[cfg(feature = "server")]
pub mod rows;
#[cfg(feature = "server")]
pub mod sampling;
#[cfg(feature = "server")]
pub mod telemetry;
