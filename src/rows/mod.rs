//! Where embeddings lie: aligned chunks that never move, and the lock in front of a bank.

mod chunk;
pub mod shared;
pub mod store;

pub use shared::{Poisoned, Shared};
pub use store::{OutOfMemory, Rows};
