//! Where embeddings lie: aligned chunks that never move, and the lock in front of a bank.

pub mod buffer;
mod chunk;
pub mod codes;
pub mod shared;
pub mod slab;
pub mod store;
pub mod stored;

pub use buffer::{Buffer, Recycler};
pub use codes::Codes;
pub use shared::{Poisoned, Shared};
pub use slab::Slab;
pub use store::{OutOfMemory, Rows};
pub use stored::Stored;
