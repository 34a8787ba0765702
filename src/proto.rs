//! The generated types' one door: messages and services of `negbank.v1`. The proto files are their manual.

/// Package `negbank.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/negbank/v1"
)]
pub mod v1 {
    tonic::include_proto!("negbank.v1");
}

/// The encoded descriptors of the package, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/negbank_descriptor.bin"));
