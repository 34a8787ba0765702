//! Who sent a write, and which of his writes it is.

use std::sync::Arc;

use super::Invalid;

/// Makes a write safe to send again: the bank applies each number of a writer once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whose write it is.
    pub writer: Writer,
    /// Which of the writer's writes, from 1 on.
    pub number: u64,
}

/// One life of a writer: a restarted one draws another incarnation and so is another writer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Writer {
    /// Its name.
    pub name: Arc<str>,
    /// Drawn at random when it started.
    pub incarnation: u64,
}

impl Origin {
    /// Bytes of a writer's name at most.
    pub const LONGEST_NAME: usize = 128;

    /// The origin of a write.
    ///
    /// # Errors
    /// [`Invalid`] on `origin.writer` for no name or a long one, on `origin.number` for 0.
    pub fn new(name: &str, incarnation: u64, number: u64) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        if name.is_empty() || name.len() > Self::LONGEST_NAME {
            let reason =
                format!("has {} bytes: 1 to {} are wanted, such as \"train-7/rank-3\"", name.len(), Self::LONGEST_NAME);
            invalid.push("origin.writer", reason);
        }
        if number == 0 {
            invalid.push("origin.number", "is 0: a writer counts its writes from 1");
        }
        invalid.or(Self { writer: Writer { name: name.into(), incarnation }, number })
    }
}
