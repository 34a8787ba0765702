//! Where the parts meet: banks by name, one committer per bank, the compute pool, and the boundary between async and sync.
//!
//! Only [`handle`] knows tokio. Everything below it is called from threads that may block.

mod acknowledge;
mod bank_memory;
mod checkpoints;
mod committer;
mod config;
mod costs;
mod differing;
mod error;
mod fair;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gather_memory;
mod group;
pub mod handle;
mod image_room;
mod job;
mod journal;
mod lately;
mod ledger;
mod logger;
mod maintenance;
mod meter;
mod no_room;
mod pool;
mod priority;
mod progress;
mod query;
mod reading;
mod recovery;
mod retry;
mod scan;
mod served;
mod small;
mod snapshots;
mod stages;
mod staging;
mod stalest;
mod syncer;

pub use crate::archive::Config as CheckpointsConfig;
pub use crate::bank::Entry;
pub use crate::durability::{Config as DurabilityConfig, Damaged};
pub use crate::gather::{Config as GatherConfig, Contribution, GatherId, GatherInfo, Gathered, Part, Seat};
pub use crate::model::Durability;
pub use config::Config;
pub use error::EngineError;
pub use handle::{BankHandle, Engine, Health, Heard, NewCheckpoint, Restore, Running, Scan, Unsynced};
pub use ledger::{Ledger, MemoryConfig, Part as MemoryPart, Reserve as MemoryReserve, Share as MemoryShare};
pub use maintenance::{IndexConfig, IndexInfo};
pub use meter::{Phase, Stand};
pub use reading::{BankInfo, Condition, Fetched};
pub use scan::{Closing, ScanPart, ScanQuery};
pub use staging::OpenStage;
pub use stalest::Stalest;
