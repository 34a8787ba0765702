//! Protobuf to domain values and back. Sizes, shapes and limits are checked here, before anything is worked on.

mod anchors;
mod answer;
mod bank;
mod columns;
mod draws;
mod form;
mod limits;
mod sample;
mod size;
mod write;

pub use limits::Limits;

pub(super) use answer::{fetched, sampled};
pub(super) use bank::{described, spec};
pub(super) use sample::query;
pub(super) use write::{batch, fetch_ids, position, remove_ids};
