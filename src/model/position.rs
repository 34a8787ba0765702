//! A point in a bank's history.

use super::Invalid;

/// What a write returns and a read may wait for: the bank, and how far its history must have come. Callers pass it on as
/// opaque bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Drawn at random when the bank was created: a bank deleted and created anew has another history.
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

#[cfg(test)]
mod tests {
    use super::Position;

    #[test]
    fn tokens_come_back_as_they_went_and_others_are_refused() {
        let position = Position { incarnation: u64::MAX - 1, sequence: 77 };
        assert_eq!(Position::parse("at_least", &position.to_bytes()), Ok(position));
        for len in [0, 1, 15, 17, 64] {
            assert!(Position::parse("at_least", &vec![1; len]).is_err());
        }
    }
}
