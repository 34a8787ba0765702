//! Where a request is answered from.

use super::indexed::Indexed;
use crate::bank::Bank;
use crate::rows::Shared;

/// A bank, and its index if it has one.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The bank.
    pub bank: &'a Shared<Bank>,
    /// Its index.
    pub indexed: Option<&'a Indexed>,
}

impl<'a> From<&'a Shared<Bank>> for Source<'a> {
    fn from(bank: &'a Shared<Bank>) -> Self {
        Self { bank, indexed: None }
    }
}
