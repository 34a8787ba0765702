//! What gathers take of the ledger.

use super::ledger::{Ledger, Part, Share};
use crate::gather::{GatherError, Memory, Room};

impl Memory for Ledger {
    fn room(&self) -> Box<dyn Room> {
        Box::new(self.share(Part::Gathers))
    }

    fn missing(&self, bytes: usize) -> usize {
        Ledger::missing(self, bytes)
    }
}

impl Room for Share {
    fn bytes(&self) -> usize {
        Share::bytes(self)
    }

    fn grow(&self, more: usize, held: usize) -> Result<(), GatherError> {
        let needed = Share::bytes(self).saturating_add(more).saturating_add(held);
        self.try_grow(more, needed).map_err(GatherError::from)
    }

    fn shrink(&self, to: usize) {
        self.set(to);
    }
}
