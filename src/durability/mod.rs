//! What banks leave on disk: for each a folder with its settings and a log of what was applied, in checksummed frames.
//!
//! A log's storage is asked for four things: append, sync, replay, and drop what lies behind a snapshot. Only `engine/` knows what a
//! record means. Decision 0012 tells why this is not a library's.

mod appender;
mod behind;
mod config;
mod doomed;
mod error;
mod folder;
mod frames;
mod log;
mod mark;
mod nascent;
mod removal;
mod replay;
mod section_file;
mod segment;
mod snapshot;
mod store;
mod sync;
mod unsynced;

pub use config::{Config, Damaged};
pub use error::{Complaint, StoreError};
pub use folder::Folder;
pub use log::Log;
pub use nascent::Nascent;
pub use replay::{Apply, Replayed, Torn};
pub use section_file::{Published, SectionFile};
pub use snapshot::Snapshot;
pub use store::{Found, Store};
pub use unsynced::{Unsynced, Until};

/// What is written, by name and version. Raising one wants fixtures of the new form (tests/service/formats.rs).
pub fn formats() -> Vec<(&'static str, String)> {
    let versions = [
        ("log", segment::VERSION),
        ("mark", mark::VERSION),
        ("snapshot", section_file::SNAPSHOT.version),
        ("graph", section_file::GRAPH.version),
    ];
    versions.map(|(name, version)| (name, version.to_string())).to_vec()
}
