//! Protobuf to domain values and back. Sizes, shapes and limits are checked here, before anything is worked on.

mod anchors;
mod bank;
mod checkpoint;
mod columns;
mod draws;
mod fetched;
mod form;
mod gather;
mod gathered;
mod limits;
mod sample;
mod sampled;
mod scan;
mod size;
mod write;

pub use limits::Limits;

pub(super) use bank::{described, durability, spec};
pub(super) use checkpoint::{checkpoint, doomed, listed_bank, new_checkpoint, progress, restore};
pub(super) use fetched::{fetched, stalest};
pub(super) use gather::contribution;
pub(super) use gathered::{bytes_of_readable, gathered, gathers, readable};
pub(super) use sample::query;
pub(super) use sampled::{sampled, written};
pub(super) use scan::{chunk, scan};
pub(super) use size::check_size;
pub(super) use write::{batch, fetch_ids, position, remove_ids, stalest_k};
