//! Values of the model as bytes that outlive the process, little-endian, each kind with a version of its own.
//!
//! What is written here is read by every later version.
//! Damage is not this room's business: what is given to be read was checked against its checksum, so bytes that make no sense were
//! written by another program, or by a defect.

mod group;
mod image;
mod record;
mod sink;
mod source;

pub use group::{decode_group, encode_group};
pub use image::{Section, StateHash};
pub use record::BankRecord;
pub use source::Unreadable;
