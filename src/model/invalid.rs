//! Why a value was refused.

use std::fmt;

/// One fault of a request: the path of the field, with the row where it has rows, and what was wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field as the proto spells it, e.g. `embeddings[17]`.
    pub field: String,
    /// What was wrong, with the limit and the setting that changes it where one was passed.
    pub reason: String,
}

/// A refused value: one or more [`Violation`]s. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invalid {
    /// The faults, in the order in which they were found; at most [`Invalid::MOST`].
    pub violations: Vec<Violation>,
}

impl Invalid {
    /// Faults listed at most, so that a million bad rows don't make a million-line error.
    pub const MOST: usize = 16;

    /// One fault.
    pub fn one(field: impl Into<String>, reason: impl Into<String>) -> Self {
        let mut invalid = Self::default();
        invalid.push(field, reason);
        invalid
    }

    /// Adds a fault, unless enough are listed.
    pub fn push(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        if !self.is_full() {
            self.violations.push(Violation { field: field.into(), reason: reason.into() });
        }
    }

    /// Adds the faults of `other`.
    pub fn merge(&mut self, other: Self) {
        for violation in other.violations {
            self.push(violation.field, violation.reason);
        }
    }

    /// True once no further fault would be listed: a check over many rows may stop.
    pub fn is_full(&self) -> bool {
        self.violations.len() >= Self::MOST
    }

    /// `Ok(value)` if there was no fault.
    ///
    /// # Errors
    /// Itself, if there was one.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.violations.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, violation) in self.violations.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", violation.field, violation.reason)?;
        }
        if self.is_full() {
            write!(f, "; and perhaps more: only the first {} are listed", Self::MOST)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
