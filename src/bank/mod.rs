//! The state of a bank: shards of slots, roster, labels and groups, and how mutations change them.
//!
//! Everything here is synchronous and deterministic: the same mutations in the same order give the same state, down to the
//! order of the roster and the bits of the rows.

mod ages;
mod apply;
mod aside;
mod classes;
mod columns;
mod cut;
mod fifo;
mod id_index;
mod id_table;
mod image;
mod order;
mod postings;
mod powers;
mod recent;
mod roster;
mod shard;
mod staged;
mod state;
mod steps;
mod writers;

pub use classes::Classes;
pub use columns::{Columns, Entry};
pub use cut::{Budget, Cut, Overrun};
pub use image::RestoreError;
pub use powers::{Mass, Powers, exponent};
pub use recent::Change;
pub use shard::Shard;
pub use staged::Staged;
pub use state::{Bank, Place};
pub use writers::Known;
