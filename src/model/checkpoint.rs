//! What is known of a checkpoint without reading it.

use std::fmt;

use super::bank_name::is_plain;
use super::{BankName, BankSpec, Invalid, Lineage};

/// A checkpoint's name among those of its bank, usually the training step: 1 to 128 of `A-Z a-z 0-9 _ - .`, the first a letter or a
/// digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// Parses a tag.
    ///
    /// # Errors
    /// [`Invalid`] on `field` for anything else than the characters above.
    pub fn parse(field: &str, tag: &str) -> Result<Self, Invalid> {
        if is_plain(tag) {
            return Ok(Self(tag.to_owned()));
        }
        let (shown, most): (String, _) = (tag.chars().take(BankName::MAX_LEN).collect(), BankName::MAX_LEN);
        let wanted = format!("1 to {most} letters, digits, '_', '-' or '.', the first a letter or a digit");
        Err(Invalid::one(field, format!("{shown:?} is not a tag: {wanted}")))
    }

    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bank as it was after one of its mutations.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The bank that it was made of.
    pub bank: BankName,
    /// Its name among those of the bank.
    pub tag: Tag,
    /// The bank's settings.
    pub spec: BankSpec,
    /// Entries held.
    pub entries: u64,
    /// Mutations that had been applied.
    pub sequence: u64,
    /// The bank's training step.
    pub step: Option<u64>,
    /// Milliseconds since 1970 when it was made.
    pub created: u64,
    /// Equal for equal banks.
    pub state_hash: u128,
    /// Equal for banks that are equal but for who wrote to them.
    pub content_hash: u128,
    /// The histories that it has.
    pub lineage: Lineage,
    /// Bytes of its file.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::Tag;

    #[test]
    fn a_tag_is_never_a_path() {
        for bad in ["", "..", "../40000", "a/b", ".hidden", "-1", "step 4", &"x".repeat(129)] {
            assert!(Tag::parse("tag", bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(Tag::parse("tag", "step-40000").unwrap().as_str(), "step-40000");
    }
}
