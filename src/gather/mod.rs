//! The rows of a training step, exchanged between its ranks, as a state machine: nothing here waits, and time is told.

mod config;
mod cost;
mod error;
mod finished;
mod gathered;
mod gathering;
mod id;
mod info;
mod memory;
mod open;
mod part;

pub use config::Config;
pub use error::GatherError;
pub use gathered::Gathered;
pub use gathering::{Answer, Gathering, Ticket};
pub use id::{GatherId, Seat};
pub use info::GatherInfo;
pub use memory::{Memory, Room};
pub use part::{Contribution, Part};
