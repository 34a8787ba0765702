//! A point in a bank's history.

use super::Invalid;

/// What a write returns and a read may wait for: the bank, and how far its history must have come. Callers pass it on as
/// opaque bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Drawn at random when the bank was created, or went on from before its last writes: then it has another history.
    pub incarnation: u64,
    /// Sequence number of the write.
    pub sequence: u64,
}

impl Position {
    /// True if both are of one history and this one is earlier.
    pub fn is_before(self, other: Self) -> bool {
        self.incarnation == other.incarnation && self.sequence < other.sequence
    }

    /// The token.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`Invalid`] on `field` for bytes that no write returned.
    pub fn parse(field: &str, bytes: &[u8]) -> Result<Self, Invalid> {
        let Ok(token) = <[u8; 16]>::try_from(bytes) else {
            return Err(Invalid::one(field, format!("{} bytes are not a position that a write returned", bytes.len())));
        };
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| token[at + byte]));
        Ok(Self { incarnation: word(0), sequence: word(8) })
    }
}

/// The histories that a bank has, beside its own: a bank that was restored goes on from another's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage(Vec<Position>);

impl Lineage {
    /// Histories that are remembered; the oldest are forgotten.
    const MOST: usize = 64;

    /// Of each history, the last position that the bank has.
    pub fn new(mut last: Vec<Position>) -> Self {
        last.drain(..last.len().saturating_sub(Self::MOST));
        Self(last)
    }

    /// Of each history, the last position that the bank has.
    pub fn last(&self) -> &[Position] {
        &self.0
    }

    /// That of a bank that goes on from `position` of this one's.
    #[must_use]
    pub fn and(&self, position: Position) -> Self {
        Self::new(self.0.iter().copied().chain([position]).collect())
    }

    /// True if the bank has had everything up to a position of another history.
    pub fn has(&self, position: Position) -> bool {
        self.0.iter().any(|last| last.incarnation == position.incarnation && position.sequence <= last.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::{Lineage, Position};

    #[test]
    fn a_lineage_has_what_was_before_the_bank_was_left_and_remembers_the_last() {
        let at = |incarnation, sequence| Position { incarnation, sequence };
        let lineage = Lineage::default().and(at(1, 10)).and(at(2, 14));
        assert!(lineage.has(at(1, 10)) && lineage.has(at(1, 3)) && lineage.has(at(2, 14)));
        assert!(!lineage.has(at(1, 11)) && !lineage.has(at(3, 1)));
        let long = (0..100).fold(lineage, |lineage, number| lineage.and(at(number + 10, 1)));
        assert!(!long.has(at(1, 1)) && long.has(at(109, 1)) && long.last().len() == 64);
    }

    #[test]
    fn tokens_come_back_as_they_went_and_others_are_refused() {
        let position = Position { incarnation: u64::MAX - 1, sequence: 77 };
        assert_eq!(Position::parse("at_least", &position.to_bytes()), Ok(position));
        for len in [0, 1, 15, 17, 64] {
            assert!(Position::parse("at_least", &vec![1; len]).is_err());
        }
    }
}
