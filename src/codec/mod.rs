//! Values of the model as bytes that outlive the process, little-endian, each kind with a version of its own.
//!
//! What is written here is read by every later version.
//! Damage is not this room's business: what is given to be read was checked against its checksum, so bytes that make no sense were
//! written by another program, or by a defect.

mod group;
mod image;
mod pieces;
mod record;
mod sink;
mod source;
mod tensor_file;
mod tensor_reader;

pub use group::{decode_group, encode_group};
pub use image::{Section, StateHash};
pub use pieces::Pieces;
pub use record::BankRecord;
pub use source::Unreadable;
pub use tensor_file::begin_tensors;
pub use tensor_reader::{TakeSection, TensorReader};

/// What is written, by name and version. Raising one wants fixtures of the new form (tests/service/formats.rs).
pub fn formats() -> Vec<(&'static str, String)> {
    vec![
        ("settings", BankRecord::VERSION.to_string()),
        ("mutations", group::VERSION.to_string()),
        ("sections", image::VERSION.to_string()),
        ("tensors", tensor_file::VERSION.to_owned()),
    ]
}
