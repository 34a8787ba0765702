//! Checkpoints in a directory or an object store, as decision 0013 says: a file, and a manifest that is published last.
//!
//! The one room below `engine/` that is async, since object stores are; it knows of a bank what its manifest tells.

mod abandoned;
mod checkpoints;
mod config;
mod copy;
mod download;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod location;
mod manifest;
mod room;
mod spool;
mod unfinished;
mod upload;

pub use abandoned::Abandoned;
pub use checkpoints::{Archive, Found, GoOn};
pub use config::Config;
pub use error::ArchiveError;
pub use room::{LOOKED_EVERY, fits, has_room};
pub use spool::{Spool, Spooled};

/// What is written, by name and version. Raising one wants fixtures of the new form (tests/service/formats.rs).
pub fn formats() -> Vec<(&'static str, String)> {
    vec![("manifest", manifest::VERSION.to_string())]
}
